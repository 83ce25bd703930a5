"""The tables: their forms, what damage does to them, and flows beside what the packets add up to. Packets stand beside
tshark's truth in tests/streamcore/headers/test_corpus.py."""

import csv
import gzip
import json
import shutil
import socket
import struct
import subprocess
import threading
import zlib
from collections import Counter
from pathlib import Path
from random import Random

import dpkt
import pytest

from streamcore.core.config import Config
from streamcore.core.errors import SinkError, SourceError, UsageError
from streamcore.core.packets import Arena
from streamcore.source.capture import CaptureSource
from streamcore.tools import tables
from streamcore.tools.ahead import read_ahead
from streamcore.tools.flows.reading import write_flows
from tests.streamcore.conftest import COMMAND, udp_frame, write_pcap
from tests.streamcore.parse.test_flows import batch_of

ROOT = Path(__file__).parents[3]
OFFICE = str(ROOT / "examples" / "office.pcapng")


def test_packets_to_a_compressed_file_and_to_standard_output(tmp_path, capsys):
    plain, packed = tmp_path / "a.tsv", tmp_path / "a.tsv.gz"
    assert tables.write_packets(Config(read=OFFICE), str(plain), "a\tlabel") == 0
    assert tables.write_packets(Config(read=OFFICE), str(packed), "a\tlabel") == 0
    assert tables.write_packets(Config(read=OFFICE), "-", "a\tlabel") == 0
    text = plain.read_text()
    assert gzip.decompress(packed.read_bytes()).decode() == capsys.readouterr().out == text
    lines = text.splitlines()
    assert lines[0].split("\t") == list(tables.PACKET_COLUMNS)
    assert {len(line.split("\t")) for line in lines} == {len(tables.PACKET_COLUMNS)}
    assert lines[1].startswith("a label\t1\t")


def test_a_damaged_capture_gives_what_came_before_and_status_3(tmp_path, capsys):
    capture = write_pcap(tmp_path / "in.pcap", [udp_frame(i, i) for i in range(10)])
    capture.write_bytes(capture.read_bytes()[:-5])
    assert tables.write_packets(Config(read=str(capture)), str(tmp_path / "out.tsv"), "x") == 3
    assert len((tmp_path / "out.tsv").read_text().splitlines()) == 1 + 9
    assert "is damaged" in capsys.readouterr().err
    assert write_flows(Config(read=str(capture)), str(tmp_path / "out.json"), "json") == 3
    assert len((tmp_path / "out.json").read_text().splitlines()) == 9


def test_what_cannot_be_written_is_one_line():
    with pytest.raises(SinkError, match=r"cannot write /no/where: no such file or directory"):
        tables.write_packets(Config(read=OFFICE), "/no/where", "x")
    with pytest.raises(SourceError):
        tables.write_packets(Config(read="/no/where"), "-", "x")
    with pytest.raises(UsageError, match="there is no format"):
        write_flows(Config(read=OFFICE), "-", "xml")


def test_a_table_never_replaces_its_input(tmp_path):
    capture = tmp_path / "in.pcapng"
    shutil.copy(OFFICE, capture)
    (tmp_path / "link").symlink_to(capture)
    for write, *more in ((tables.write_packets, "x"), (write_flows, "csv"), (write_flows, "json")):
        with pytest.raises(SinkError, match="it is also the input"):
            write(Config(read=str(capture)), str(tmp_path / "link"), *more)
    assert capture.read_bytes() == Path(OFFICE).read_bytes()
    with pytest.raises(UsageError, match="zst is not a compression"):
        tables.write_packets(Config(read=OFFICE), str(tmp_path / "x.tsv.zst"), "x")


def test_addresses_times_and_checksums_are_those_of_the_standard_library(tmp_path):
    random = Random(17)
    packets = []
    for _ in range(800):
        groups = [random.choice((0, 0, 0, 1, 0xFFFF, random.randrange(1 << 16))) for _ in range(16)]
        ends = struct.pack(">16H", *groups)
        packets.append(b"\x60" + bytes(3) + b"\0\0\x3b\x40" + ends + random.randbytes(random.randrange(20)))
    packets += [b"\x45\0\0\x14" + bytes(5) + b"\xfd\0\0" + random.randbytes(8) for _ in range(200)]
    capture = tmp_path / "in.pcap"
    times = [(random.randrange(1 << 32), random.randrange(10**9)) for _ in packets]
    records = [
        struct.pack("<IIII", *when, len(packet), len(packet)) + packet
        for when, packet in zip(times, packets, strict=True)
    ]
    capture.write_bytes(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 101) + b"".join(records))
    assert tables.write_packets(Config(read=str(capture)), str(tmp_path / "out.tsv"), "x") == 0
    with open(tmp_path / "out.tsv") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row, packet, (seconds, ns) in zip(rows, packets, times, strict=True):
        family, at, size = (socket.AF_INET6, 8, 16) if packet[0] == 0x60 else (socket.AF_INET, 12, 4)
        assert row["src"] == socket.inet_ntop(family, packet[at : at + size])
        assert row["dst"] == socket.inet_ntop(family, packet[at + size : at + 2 * size])
        assert row["ts"] == f"{seconds}.{ns:09}"
        assert row["crc32"] == f"{zlib.crc32(packet):08x}"


class Batches:
    """A source that has some batches, and then an error."""

    def __init__(self, batches, error=None):
        self.batches, self.error, self.stopped, self.taken = batches, error, False, 0

    def __iter__(self):
        for batch in self.batches:
            self.taken += 1
            yield batch
        if self.error:
            raise self.error

    def stop(self):
        self.stopped = True


def test_an_error_of_reading_ahead_comes_after_the_batches_before_it():
    batches = [batch_of([udp_frame(i, i)]) for i in range(5)]
    source = Batches(batches, SourceError("broken"))
    seen = []
    with pytest.raises(SourceError, match="broken"):
        seen.extend(read_ahead(source))
    assert seen == batches
    assert "streamcore-read" not in [thread.name for thread in threading.enumerate()]


def test_who_stops_reading_ahead_ends_its_thread(tmp_path):
    capture = write_pcap(tmp_path / "in.pcap", [udp_frame(i, i) for i in range(3000)])
    with CaptureSource(capture, Arena(2, 4096, 32)) as source:
        ahead = read_ahead(source)
        assert len(next(ahead)) == 32
        ahead.close()
        assert "streamcore-read" not in [thread.name for thread in threading.enumerate()]
    with CaptureSource(capture, Arena(2, 4096, 32)) as source:
        assert sum(len(batch) for batch in read_ahead(source)) == 3000


def packets_of_office(tmp_path):
    tables.write_packets(Config(read=OFFICE), str(tmp_path / "p.tsv"), "o")
    with open(tmp_path / "p.tsv") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def ends(row, names):
    return tuple(sorted([(row[names[0]], int(row[names[1]] or 0)), (row[names[2]], int(row[names[3]] or 0))]))


def test_flows_in_every_form_add_up_to_the_packets(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra 'parquet' is not installed")
    for form in ("json", "csv", "parquet"):
        assert write_flows(Config(read=OFFICE), str(tmp_path / form), form) == 0
    by_json = [json.loads(line) for line in (tmp_path / "json").read_text().splitlines()]
    with open(tmp_path / "csv") as file:
        by_csv = list(csv.DictReader(file))
    assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in by_json] == by_csv
    assert parquet.read_table(tmp_path / "parquet").to_pylist() == by_json
    expected, found = Counter(), Counter()
    for row in packets_of_office(tmp_path):
        if row["ipver"]:
            ports = {"6", "17"} & {row["proto"]}
            key = (row["proto"], ends(row, ("src", "sport", "dst", "dport")) if ports else None)
            expected[key] += 1
    for row in by_json:
        if row["ip_version"]:
            names = ("source_address", "source_port", "target_address", "target_port")
            found[str(row["protocol"]), ends(row, names) if row["protocol"] in (6, 17) else None] += (
                row["packets"] + row["packets_back"]
            )
    assert found == expected
    assert sum(row["packets"] + row["packets_back"] for row in by_json) == len(packets_of_office(tmp_path))


def flows_of(tmp_path, *words):
    """The rows of `streamcore flows` with these words, of 2,000 flows."""
    capture = write_pcap(tmp_path / "many.pcap", [udp_frame(i % 2000, i) for i in range(4000)])
    command = [*COMMAND, "flows", "-r", str(capture), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_keys_of_a_pipeline_file_reach_the_flow_table(tmp_path):
    file = tmp_path / "flows.toml"
    file.write_text("flows_max = 256\n")
    assert Counter(json.loads(row)["ended"] for row in flows_of(tmp_path)) == {"": 2000}
    few = flows_of(tmp_path, "--config", str(file))
    ended = Counter(json.loads(row)["ended"] for row in few)
    assert ended[""] <= 256
    assert sum(ended.values()) > 2000  # a flow that gave way begins again
    assert sum(json.loads(row)["packets"] for row in few) == 4000


def fragment(number, first):
    """One of the two halves of a UDP datagram; each datagram is a flow of its own."""
    whole = dpkt.ethernet.Ethernet(udp_frame(number, number, size=48)).data
    payload = bytes(whole.data)
    ip = dpkt.ip.IP(src=whole.src, dst=whole.dst, id=number, p=17, data=payload[:32] if first else payload[32:])
    ip.len, ip._flags_offset = len(ip), 0x2000 if first else 32 // 8
    return bytes(dpkt.ethernet.Ethernet(src=b"\2" * 6, dst=b"\4" * 6, type=0x0800, data=bytes(ip)))


def test_fragments_max_reaches_the_parser(tmp_path):
    """The ports of later fragments come from a table of first ones: a small one forgets."""
    firsts = [fragment(i, first=True) for i in range(400)]
    capture = write_pcap(tmp_path / "in.pcap", firsts + [fragment(i, first=False) for i in range(400)])
    file = tmp_path / "packets.toml"
    file.write_text("fragments_max = 16\n")

    def flows(*words):
        out = tmp_path / "out.csv"
        subprocess.run([*COMMAND, "flows", "-r", str(capture), "--csv", str(out), *words], check=True)
        with open(out) as rows:
            return len(list(csv.DictReader(rows)))

    assert flows() == 400
    assert flows("--config", str(file)) > 400
