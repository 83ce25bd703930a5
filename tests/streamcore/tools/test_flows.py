"""The formats of flows: each beside what another program or a slow decoder reads in it."""

import base64
import csv
import hashlib
import io
import ipaddress
import json
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from streamcore.core.config import Config
from streamcore.core.errors import SinkError, UsageError
from streamcore.headers import TUNNELS
from streamcore.parse._flows import FlowTable
from streamcore.tools.flows.columns import columns_of
from streamcore.tools.flows.reading import write_flows
from streamcore.tools.flows.writers import FORMATS
from tests.streamcore.conftest import udp_frame, write_pcap
from tests.streamcore.parse.packets_by_hand import ethernet, icmp, ip4, ip6, samples, tcp, udp
from tests.streamcore.parse.test_flow_ends import segment
from tests.streamcore.parse.test_flows import batch_of
from tests.streamcore.tools.ipfix_reader import ipfix_records, record_of

OFFICE = str(Path(__file__).parents[3] / "examples" / "office.pcapng")


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


# IPFIX.


def test_ipfix_has_the_values_of_the_rows():
    inner = ip4(17, udp(3, 4))
    vxlan = b"\x08\0\0\0\x12\x34\x56\0" + ethernet(0x0800, inner)
    gtp = struct.pack(">BBHI", 0x30, 255, len(inner), 0x89ABCDEF) + inner
    in_tunnels = [ethernet(0x0800, ip4(17, udp(9, 4789, vxlan))), ethernet(0x86DD, ip6(17, udp(9, 2152, gtp)))]
    rows = rows_of([*a_packet_of_each_kind(), *in_tunnels])
    rows["first_ns"][1::2] = 1_700_000_000_123_456_789
    rows["last_ns"] = rows["first_ns"] + np.arange(len(rows)) * 999_999_999
    records, _ = ipfix_records(written("ipfix", rows))
    assert len(records) == len(rows)
    by_id = {int.from_bytes(record[0, 148], "big"): record for record in records}
    assert by_id == {int(row["id"]): record_of(row) for row in rows}
    assert {TUNNELS[int(kind)] for kind in rows["tunnel_kind"]} >= {"", "vxlan", "gtp", "gre"}


class Datagrams(list):
    is_datagrams = True

    def write(self, raw):
        self.append(bytes(raw))


def test_ipfix_over_udp_is_in_small_messages_with_templates_again():
    rows = np.repeat(rows_of([ethernet(0x0800, ip4(17, udp(1, 2)))]), 3000)
    sent = Datagrams()
    FORMATS["ipfix"].writer()(sent, 0).write(rows)
    assert max(map(len, sent)) <= 1400
    with_templates = [place for place, each in enumerate(sent) if each[16:18] == b"\0\2"]
    assert 3 < len(with_templates) < 10
    assert len(ipfix_records(b"".join(sent))[0]) == 3000
    _, lengths = ipfix_records(written("ipfix", rows))
    assert max(lengths) > 60_000


def test_ipfix_is_what_tshark_reads(tmp_path):
    if not shutil.which("tshark"):
        pytest.skip("tshark is not installed")
    packets = [ethernet(0x0800, ip4(6, tcp(1000, 80))), ethernet(0x86DD, ip6(17, udp(7, 8)))]
    there = written("ipfix", rows_of([packets[0], packets[0], packets[1]]))
    messages, at = [], 0
    while at < len(there):
        size = int.from_bytes(there[at + 2 : at + 4], "big")
        messages.append(ethernet(0x0800, ip4(17, udp(5000, 4739, there[at : at + size]))))
        at += size
    capture = write_pcap(tmp_path / "in.pcap", messages)
    fields = ("srcaddr", "srcaddrv6", "srcport", "packets", "octets", "sequence")
    words = ["tshark", "-r", str(capture), "-T", "fields", *(word for f in fields for word in ("-e", f"cflow.{f}"))]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    _, four, six = (line.split("\t") for line in shown.splitlines())
    assert four[2] == "1000"
    assert four[3].split(",")[0] == "2"
    assert six[2] == "7"
    assert len(four[0]) > 6
    assert len(six[1]) > 6


@pytest.fixture
def collector(tmp_path):
    """nfcapd on a free port of 127.0.0.1: (its port, a function that stops it and gives nfdump's rows)."""
    if not shutil.which("nfcapd"):
        pytest.skip("nfdump is not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["nfcapd", "-b", "127.0.0.1", "-p", str(port), "-w", str(tmp_path), "-B", "4000000"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while f"0100007F:{port:04X}" not in Path("/proc/net/udp").read_text():
        assert process.poll() is None, "nfcapd ended"
        assert time.monotonic() < deadline
        time.sleep(0.02)

    def rows():
        time.sleep(0.3)  # what was sent is in its socket; it says nothing when it has read it
        process.terminate()
        assert process.wait(10) == 0
        text = subprocess.run(
            ["nfdump", "-q", "-R", str(tmp_path), "-o", "csv"], capture_output=True, text=True, check=True
        )
        lines = [line for line in text.stdout.splitlines() if line.count(",") > 20]
        return list(csv.DictReader(["ts,te,td,sa,da,sp,dp,pr,flg,fwd,stos,ipkt,ibyt,opkt,obyt", *lines]))

    yield port, rows
    if process.poll() is None:
        process.kill()
        process.wait()


def test_nfcapd_takes_all_flows_with_both_directions(collector, tmp_path):
    port, rows = collector
    write_flows(Config(read=OFFICE, whole=True), str(tmp_path.parent / "flows.json"), "json")
    ours = [json.loads(line) for line in (tmp_path.parent / "flows.json").read_text().splitlines()]
    assert write_flows(Config(read=OFFICE, whole=True), f"udp://127.0.0.1:{port}", "ipfix") == 0
    found = rows()
    assert len(found) == len(ours) == 58
    for there, back, name in (("ipkt", "opkt", "packets"), ("ibyt", "obyt", "ip_bytes")):
        assert sum(int(row[there]) for row in found) == sum(row[name] for row in ours)
        assert sum(int(row[back]) for row in found) == sum(row[f"{name}_back"] for row in ours)
    ends = {(row["source_address"], row["source_port"], row["target_port"]) for row in ours if row["protocol"] == 6}
    assert {(row["sa"], int(row["sp"]), int(row["dp"])) for row in found if row["pr"] == "TCP"} == ends


def test_over_tcp_a_collector_gets_what_a_file_has(tmp_path):
    capture = write_pcap(tmp_path / "in.pcap", [udp_frame(i, i) for i in range(50)])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert write_flows(Config(read=str(capture)), f"tcp://127.0.0.1:{port}", "ipfix") == 0
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            received = file.read()
    assert write_flows(Config(read=str(capture)), str(tmp_path / "out.ipfix"), "ipfix") == 0
    assert received == (tmp_path / "out.ipfix").read_bytes()
    with pytest.raises(SinkError, match="cannot send to tcp://127"):
        write_flows(Config(read=str(capture)), f"tcp://127.0.0.1:{port}", "ipfix")
    for form, out in (("ipfix", "udp://nowhere"), ("ipfix", "udp://127.0.0.1:99999"), ("json", "udp://127.0.0.1:1")):
        with pytest.raises((UsageError, SinkError)):
            write_flows(Config(read=str(capture)), out, form)
    before_1970 = rows_of([ethernet(0x0800, ip4(17, udp(1, 2)))])
    before_1970["first_ns"] = -1
    with pytest.raises(SinkError, match="1970"):
        written("ipfix", before_1970)


# Zeek and Suricata, by their manuals' lists of fields.

ZEEK_FIELDS = [
    "ts",
    "uid",
    "id.orig_h",
    "id.orig_p",
    "id.resp_h",
    "id.resp_p",
    "proto",
    "service",
    "duration",
    "orig_bytes",
    "resp_bytes",
    "conn_state",
    "local_orig",
    "local_resp",
    "missed_bytes",
    "history",
    "orig_pkts",
    "orig_ip_bytes",
    "resp_pkts",
    "resp_ip_bytes",
    "tunnel_parents",
    "ip_proto",
    "community_id",
]


def a_connection():
    """(rows of one connection of four packets and an echo and an ARP, the length of a packet without payload)."""
    there = [segment(flags=2), segment(flags=16, data=b"abc")]
    back = [segment(back=True, flags=18), segment(back=True, flags=17)]
    packets = [there[0], back[0], there[1], back[1], ethernet(0x0800, ip4(1, icmp())), samples()["arp"][1]]
    return rows_of(packets), len(there[0])


def test_zeek_s_conn_log():
    rows, _ = a_connection()
    lines = written("zeek", rows).decode().splitlines()
    assert lines[0] == "#separator \\x09"
    (names,) = [line.split("\t")[1:] for line in lines if line.startswith("#fields")]
    (types,) = [line.split("\t")[1:] for line in lines if line.startswith("#types")]
    assert names == ZEEK_FIELDS
    assert len(types) == len(names)
    assert lines[-1].startswith("#close\t")
    of_tcp, of_icmp = (
        dict(zip(names, line.split("\t"), strict=True)) for line in lines if not line.startswith("#")
    )  # ARP has no place in conn.log
    shown = [of_tcp[name] for name in ("id.orig_p", "id.resp_p", "proto", "orig_bytes", "resp_bytes", "conn_state")]
    assert shown == ["1000", "80", "tcp", "3", "0", "S3"]
    assert (of_tcp["ip_proto"], of_icmp["ip_proto"]) == ("6", "1")
    shown = [
        of_tcp[name] for name in ("history", "orig_pkts", "orig_ip_bytes", "resp_pkts", "resp_ip_bytes", "duration")
    ]
    assert shown == ["ShDf", "2", "83", "2", "80", "0.000003"]
    shown = [of_icmp[name] for name in ("id.orig_p", "id.resp_p", "proto", "duration", "history", "conn_state")]
    assert shown == ["8", "0", "icmp", "-", "-", "OTH"]


def test_suricata_s_eve():
    rows, size = a_connection()
    of_tcp, of_icmp = map(json.loads, written("eve", rows).splitlines())
    assert (of_tcp["event_type"], of_tcp["src_port"], of_tcp["dest_port"], of_tcp["proto"]) == ("flow", 1000, 80, "TCP")
    assert of_tcp["flow"] == {
        "pkts_toserver": 2, "pkts_toclient": 2, "bytes_toserver": 2 * size + 3, "bytes_toclient": 2 * size,
        "start": "1970-01-01T00:00:00.000000+0000", "end": "1970-01-01T00:00:00.000003+0000", "age": 0,
        "state": "established", "reason": "shutdown", "alerted": False,
    }  # fmt: skip
    assert of_tcp["tcp"] == {
        "tcp_flags": "13", "tcp_flags_ts": "12", "tcp_flags_tc": "13", "fin": True, "syn": True, "ack": True,
        "state": "close_wait",
    }  # fmt: skip
    assert (of_icmp["icmp_type"], of_icmp["icmp_code"], of_icmp["proto"]) == (8, 0, "ICMP")
    assert not {"src_port", "tcp", "vlan"} & set(of_icmp)
    tagged = rows_of([ethernet(0x0800, ip4(17, udp(1, 2)), [5, 6])])
    assert json.loads(written("eve", tagged))["vlan"] == [5, 6]


def test_flows_that_a_format_has_no_place_for_are_counted(tmp_path, capsys):
    capture = write_pcap(tmp_path / "in.pcap", [samples()["arp"][1]])
    for form in ("zeek", "eve"):
        assert write_flows(Config(read=str(capture)), str(tmp_path / "out"), form) == 0
        assert capsys.readouterr().err.startswith("1 flows without IP are left out")


# The table for people.


def test_the_table_has_the_largest_flows_and_the_totals_of_all():
    table = FlowTable(1000, 1)
    sizes = [int(n) for n in np.random.default_rng(1).permutation(100) + 1]
    table.add(batch_of([ethernet(0x0800, ip4(17, udp(5000 + n, 53, bytes(n)))) for n in sizes]))
    rows = table.export()
    file = io.BytesIO()
    writer = FORMATS["table"].writer()(file, 0, sort="bytes", top=3)
    for part in np.array_split(rows, 7):
        writer.write(part)
    writer.close()
    head, *shown, total = file.getvalue().decode().splitlines()
    assert head.split()[:4] == ["start", "duration", "protocol", "source"]
    assert [line.split()[5].rpartition(":")[2] for line in shown] == ["5100", "5099", "5098"]
    assert all(":domain" in line or ":53 " in line for line in shown)
    assert total == f"100 flows, 3 shown; 100 packets, {(100 * 42 + 5050) / 1000:.2f} kB"


def test_units_and_times_are_for_people():
    from streamcore.tools.flows.terminal import duration, in_units, moment

    sizes = {0: "0 B", 999: "999 B", 1000: "1.00 kB", 9_996: "10.0 kB", 999_499: "999 kB", 999_500: "1.00 MB",
             123_456_789: "123 MB", 2**64: "18.4 EB"}  # fmt: skip
    assert {size: in_units(size) for size in sizes} == sizes
    assert [duration(ns) for ns in (0, 1_500_000, 75 * 10**9, 3_725 * 10**9)] == [
        "0.000 s",
        "0.002 s",
        "1:15 min",
        "1:02:05 h",
    ]
    assert moment(1_700_000_000_123_456_789) == "2023-11-14 22:13:20.123"
