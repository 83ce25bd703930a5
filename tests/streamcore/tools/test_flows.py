"""The formats of flows: each beside what another program or a slow decoder reads in it."""

import base64
import csv
import hashlib
import io
import ipaddress
import json
import shutil
import struct
import subprocess

import numpy as np
import pytest

from streamcore.core.config import Config
from streamcore.core.errors import UsageError
from streamcore.parse._flows import FlowTable
from streamcore.tools.flows.columns import columns_of
from streamcore.tools.flows.reading import write_flows
from streamcore.tools.flows.writers import FORMATS
from tests.streamcore.conftest import write_pcap
from tests.streamcore.parse.packets_by_hand import ethernet, icmp, ip4, ip6, samples, tcp, udp
from tests.streamcore.parse.test_flows import batch_of


def rows_of(packets, **more):
    table = FlowTable(10_000, 1, **more)
    table.add(batch_of(packets))
    return table.export()


def written(form, rows, first_packets=0):
    """What a format makes of rows."""
    file = io.BytesIO()
    writer = FORMATS[form].writer()(file, first_packets)
    writer.write(rows)
    writer.close()
    return file.getvalue()


def a_packet_of_each_kind():
    return [packet for _, packet in samples().values() if len(packet) >= 14]


def test_json_and_csv_have_the_values_of_the_rows():
    rows = rows_of(a_packet_of_each_kind(), first_packets=2)
    names = [column.name for column in columns_of(2)]
    objects = [json.loads(line) for line in written("json", rows, 2).splitlines()]
    assert [list(each) for each in objects] == [names] * len(rows)
    table = list(csv.DictReader(io.StringIO(written("csv", rows, 2).decode())))
    for row, of_json, of_csv in zip(rows, objects, table, strict=True):
        for column in columns_of(2):
            value = of_json[column.name]
            text = ",".join(map(str, value)) if column.is_list else "" if value is None else str(value)
            assert of_csv[column.name] == text
            if column.kind in ("unsigned", "signed"):
                assert value == row[column.source].item()
        assert of_json["vlan"] == ",".join(map(str, row["vlan"][: row["vlan_count"]].tolist()))
        for name in ("source_address", "target_address"):
            if row["ip_version"]:
                address = ipaddress.ip_address(row[name].tobytes()[12 if row["ip_version"] == 4 else 0 :])
                assert ipaddress.ip_address(of_json[name]) == address
        assert of_json["source_mac"] == (row["source_mac"].tobytes().hex(":") if row["has_macs"] else "")
        assert of_json["history"] == row["history"].decode()
        assert of_json["first_lengths"] == row["first_lengths"][: row["first_count"]].tolist()
        is_icmp = row["ip_version"] and row["protocol"] in (1, 58)
        assert of_json["icmp_type"] == (row["icmp_type"].item() if is_icmp else None)


def test_numbers_at_their_limits_are_written_whole():
    rows = rows_of([ethernet(0x0800, ip4(17, udp(1, 2)))])
    rows["bytes"], rows["first_ns"], rows["last_ns"] = 2**64 - 1, -(2**63), 2**63 - 1
    rows["vlan_count"], rows["vlan"] = 255, 65535
    rows["source_address"], rows["ip_version"], rows["target_address"] = 255, 6, 0x11
    (of_json,) = [json.loads(line) for line in written("json", rows).splitlines()]
    assert (of_json["bytes"], of_json["first_ns"], of_json["last_ns"]) == (2**64 - 1, -(2**63), 2**63 - 1)
    assert of_json["vlan"] == "65535,65535,65535,65535"
    assert of_json["source_address"] == "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"


# The Community ID.

PAIRS = {1: {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 10: 9, 9: 10, 17: 18, 18: 17},
         58: {128: 129, 129: 128, 133: 134, 134: 133, 135: 136, 136: 135, 130: 131, 131: 130, 144: 145, 145: 144,
              139: 140, 140: 139}}  # fmt: skip


def slow_community_id(source, target, protocol, source_port, target_port):
    """As the specification has it. Ports of ICMP: type and code."""
    one_way = False
    if protocol in PAIRS:
        one_way = source_port not in PAIRS[protocol]
        target_port = PAIRS[protocol].get(source_port, target_port)
    low, high = (source, source_port), (target, target_port)
    if not one_way and low > high:
        low, high = high, low
    ports = struct.pack(">HH", low[1], high[1]) if protocol in (1, 6, 17, 58, 132) else b""
    digest = hashlib.sha1(b"\0\0" + low[0] + high[0] + bytes([protocol, 0]) + ports).digest()
    return "1:" + base64.b64encode(digest).decode()


def test_community_ids_are_those_of_the_specification_and_of_a_slow_twin():
    source, target = ipaddress.ip_address("128.232.110.120").packed, ipaddress.ip_address("66.35.250.204").packed
    published = ethernet(0x0800, ip4(6, tcp(34855, 80), source=source, target=target))
    assert ids_of([published]) == ["1:LQU9qZlK+B5F3KDmev6m5PMibrg="]  # from the specification's list of test vectors
    packets = [*a_packet_of_each_kind(), published]
    a, b = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    for kind in range(256):
        packets += [
            ethernet(0x0800, ip4(1, bytes([kind, 5]) + icmp()[2:], source=a, target=b)),
            ethernet(0x86DD, ip6(58, bytes([kind, 5, 0, 0, 0, 0, 0, 0]), source=b * 4, target=a * 4)),
        ]
        packets.append(ethernet(0x0800, ip4(17, udp(80 + kind, 99), source=b, target=a)))
        packets.append(ethernet(0x0800, ip4(17, udp(80 + kind, 99), source=a, target=a)))
    rows = np.concatenate([rows_of([packet]) for packet in packets])
    for row, found in zip(rows, community_ids(rows), strict=True):
        if not row["ip_version"]:
            assert found == ""
            continue
        skip = 12 if row["ip_version"] == 4 else 0
        ports = ("icmp_type", "icmp_code") if row["protocol"] in (1, 58) else ("source_port", "target_port")
        ends = [row[name].tobytes()[skip:] for name in ("source_address", "target_address")]
        twin = slow_community_id(*ends, int(row["protocol"]), *(int(row[port]) for port in ports))
        assert found == twin


def community_ids(rows):
    return [json.loads(line)["community_id"] for line in written("json", rows).splitlines()]


def ids_of(packets):
    return community_ids(rows_of(packets))


def test_community_ids_are_tshark_s(tmp_path):
    if not shutil.which("tshark"):
        pytest.skip("tshark is not installed")
    packets = [
        ethernet(0x0800, ip4(6, tcp(34855, 80))), ethernet(0x0800, ip4(17, udp(1000, 1001))),
        ethernet(0x86DD, ip6(17, udp(1001, 1000))), ethernet(0x0800, ip4(1, icmp())),
        ethernet(0x0800, ip4(1, b"\3\1" + bytes(6))),
        ethernet(0x86DD, ip6(58, bytes([128, 0, 0, 0, 0, 1, 0, 1]))),
    ]  # fmt: skip
    capture = write_pcap(tmp_path / "in.pcap", packets)
    words = ["tshark", "-r", str(capture), "--enable-protocol", "communityid", "-T", "fields", "-e", "communityid"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\n")[: len(packets)]
    assert shown == [ids_of([packet])[0] for packet in packets]


def test_whole_and_a_timeout_contradict_each_other():
    with pytest.raises(UsageError, match="whole and idle_s are both set"):
        Config(read="x", whole=True, idle_s=3)


@pytest.mark.parametrize("form", FORMATS)
def test_no_flows_at_all_are_a_whole_file(form, tmp_path):
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    capture = write_pcap(tmp_path / "in.pcap", [])
    assert write_flows(Config(read=str(capture)), str(tmp_path / "out"), form) == 0
