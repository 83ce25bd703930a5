"""Splitting and streams' own files, beside a slow twin with dpkt and beside editcap: what was written lies on the disk,
packet by packet and in order, in the file that the twin says."""

import random
import socket
import struct
import subprocess
import time
from collections import defaultdict

import dpkt
import pytest

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import SinkError, UsageError
from streamcore.core.packets import Arena, Outgoing
from streamcore.run.pipeline import Pipeline
from streamcore.sink.split.labels import LABEL_MAX, safe
from streamcore.sink.splitting import SplitSink
from streamcore.source.capture import CaptureSource
from tests.streamcore.conftest import read_pcap, udp_frame

pytestmark = pytest.mark.usefixtures("nothing_left")

START_S = 1_700_000_000
PROTOCOLS = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp6"}


def frames_of(seed, count):
    """(time, frame) of traffic between few hosts: IPv4 and IPv6, UDP and TCP, VLANs, fragments, ARP."""
    chance = random.Random(seed)
    frames, at = [], START_S
    for number in range(count):
        at += chance.choice([0, 1, 1, 7, -3])
        low, high = chance.sample(range(1, 6), 2)
        ports = struct.pack(">HH", chance.choice([80, 5060]), chance.choice([1024, 1025]))
        payload = number.to_bytes(4, "big") + bytes(chance.randrange(20))
        kind = chance.randrange(6)
        if kind < 2:
            upper, protocol = ports + struct.pack(">HH", 8 + len(payload), 0) + payload, 17
        else:
            upper, protocol = ports + struct.pack(">IIBBHHH", number, 0, 5 << 4, 16, 99, 0, 0) + payload, 6
        tags = b"".join(struct.pack(">HH", 0x8100, vlan) for vlan in chance.choice([[], [], [5], [5, 7]]))
        links = bytes([2, 0, 0, 0, 0, high, 2, 0, 0, 0, 0, low])
        if kind == 5:
            frame = links + tags + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x800, 6, 4, 1) + number.to_bytes(20, "big")
        elif kind % 2:
            head = struct.pack(">IHBB", 6 << 28, len(upper), protocol, 64) + bytes(15) + bytes([low]) + bytes(15)
            frame = links + tags + b"\x86\xdd" + head + bytes([high]) + upper
        else:
            parts = [(0, 0, upper)] if kind else [(0x2000, 0, upper[:16]), (0, 2, upper[16:])]
            for flags, offset, part in parts:
                fields = (0x45, 0, 20 + len(part), number & 0xFFFF, flags | offset, 64, protocol, 0)
                head = struct.pack(">BBHHHBBH", *fields) + bytes([10, 0, 0, low, 10, 0, 0, high])
                frames.append((at, links + tags + b"\x08\x00" + head + part))
            continue
        frames.append((at, frame))
    return frames


def names_of(kind, at, frame, fragments):
    """The labels of the files that a frame belongs into; the twin of _keys.pyx and labels.py."""
    if kind == "minute":
        return [time.strftime("%Y%m%d-%H%M", time.localtime(at // 60 * 60))]
    ethernet = dpkt.ethernet.Ethernet(frame)
    vlans = [tag.id for tag in getattr(ethernet, "vlan_tags", [])]
    if kind == "interface":
        return ["interface0"]
    if kind == "vlan":
        return ["vlan" + ".".join(map(str, vlans)) if vlans else "rest"]
    ip = ethernet.data
    if isinstance(ip, dpkt.ip.IP):
        ends, protocol = [socket.inet_ntoa(ip.src), socket.inet_ntoa(ip.dst)], ip.p
        fragment = (ip.src, ip.dst, ip.p, ip.id) if ip.mf or ip.offset else None
    elif isinstance(ip, dpkt.ip6.IP6):
        ends, protocol, fragment = (
            [socket.inet_ntop(socket.AF_INET6, each).replace(":", "=") for each in (ip.src, ip.dst)],
            ip.nxt,
            None,
        )
    else:
        return ["rest"]
    if kind == "host":
        return list(dict.fromkeys(ends))
    if fragment and ip.offset:
        return [fragments[fragment]]
    upper = bytes(ip.data)[:4] if not isinstance(ip.data, bytes) else ip.data[:4]
    ports = struct.unpack(">HH", upper)
    flow = tuple(sorted(zip(ends, ports, strict=True))), protocol, tuple(vlans)
    if flow not in fragments:
        first = f"{PROTOCOLS[protocol]}_{ends[0]}_{ports[0]}_{ends[1]}_{ports[1]}"
        fragments[flow] = first + (f"_vlan{'.'.join(map(str, vlans))}" if vlans else "")
    if fragment:
        fragments[fragment] = fragments[flow]
    return [fragments[flow]]


def write_capture(path, frames):
    with open(path, "wb") as file:
        writer = dpkt.pcap.Writer(file, snaplen=262144)
        for at, frame in frames:
            writer.writepkt(frame, at)
    return path


def files_of(directory):
    """{label: packets} of the files of a split."""
    return {each.name.removeprefix("out-").removesuffix(".pcap"): read_pcap(each) for each in directory.iterdir()}


def split(capture, path, kind, **keys):
    """The counters of a split of a capture, in this process."""
    counters = Counters()
    with CaptureSource(capture, Arena(4, 1 << 20, 1 << 12)) as source:
        sink = SplitSink(
            Config(read="-", write=str(path), split=kind, **keys), interfaces=source.interfaces, form=source.form,
            counters=counters, on_commit=lambda _: None, on_file=lambda _: None,
        )  # fmt: skip
        written = [sink.write(Outgoing(batch, 0, len(batch)))[0] for batch in source]
        sink.close()
    return sum(written), counters, sink


@pytest.mark.parametrize("kind", ["flow", "host", "vlan", "interface", "minute"])
def test_each_packet_lies_in_its_file(tmp_path, kind):
    frames = frames_of(1, 1500)
    capture = write_capture(tmp_path / "in.pcap", frames)
    (tmp_path / "out").mkdir()
    written, counters, _ = split(capture, tmp_path / "out" / "out.pcap", kind)
    expected, fragments = defaultdict(list), {}
    for (at, frame), left in zip(frames, read_pcap(capture), strict=True):
        for name in names_of(kind, at, frame, fragments):
            expected[name].append(left)
    assert files_of(tmp_path / "out") == expected
    assert written == len(frames)
    assert counters.packets("sink.in_rest") == len(expected.get("rest", []))
    assert counters.events("sink.copies") == sum(map(len, expected.values())) - len(frames)


def test_a_run_splits_what_leaves(tmp_path):
    """Segments that interleave on two workers, and a service that cuts packets."""
    frames = frames_of(2, 1500)
    capture = write_capture(tmp_path / "in.pcap", frames)
    keys = {"segment_packets": 97, "service": ["slice:90,from=packet"], "workers": 2}
    (tmp_path / "out").mkdir()
    told = (
        Pipeline(Config(read=str(capture), write=str(tmp_path / "out" / "out.pcap"), split="flow", **keys)).run().json()
    )
    expected, fragments = defaultdict(list), {}
    for at, frame in frames:
        for name in names_of("flow", at, frame, fragments):
            expected[name].append((at, frame[:90]))
    assert files_of(tmp_path / "out") == expected
    assert told["packets"]["written"] == len(frames)
    assert told["notes"]["sink.in_rest"] == len(expected["rest"])


def test_few_open_files_and_few_files(tmp_path, monkeypatch):
    """Files that were closed for others are gone on with; flows beyond the last file go to the rest, counted."""
    monkeypatch.setattr("streamcore.sink.splitting.OPEN_MAX", 3)
    frames = [(START_S, udp_frame(port, number)) for number, port in enumerate(list(range(1, 21)) * 5)]
    capture = write_capture(tmp_path / "in.pcap", frames)
    (tmp_path / "out").mkdir()
    written, counters, _ = split(capture, tmp_path / "out" / "out.pcap", "flow", split_files=12)
    files = files_of(tmp_path / "out")
    assert (written, len(files), len(files["rest"])) == (100, 13, 40)
    assert counters.events("sink.beyond_files") == counters.packets("sink.in_rest") == 40
    assert sorted(each for file in files.values() for each in file) == sorted(read_pcap(capture))


def test_nothing_is_replaced(tmp_path):
    """Files of an earlier run and parts of a killed one stay; --overwrite replaces the files, but not within a run."""
    capture = write_capture(tmp_path / "in.pcap", frames_of(1, 30))
    directory = tmp_path / "out"
    directory.mkdir()
    split(capture, directory / "out.pcap", "host")
    before = {each.name: each.read_bytes() for each in directory.iterdir()}
    (directory / "out-10.0.0.1.pcap").rename(directory / "out-10.0.0.1.pcap.part")
    split(capture, directory / "out.pcap", "host")
    after = {each.name: each.read_bytes() for each in directory.iterdir()}
    assert after["out-10.0.0.1.pcap.part"] == after["out-10.0.0.1-1.pcap"] == before["out-10.0.0.1.pcap"]
    assert len(after) == 2 * len(before)
    split(capture, directory / "out.pcap", "host", overwrite=True)
    assert len(list(directory.iterdir())) == len(after)  # the part was written anew, and got its name


def test_a_full_disk_leaves_whole_files(tmp_path, monkeypatch):
    """The error names the file; what was written before is intact, under the names of files that are not complete."""
    import resource

    frames = [(START_S, udp_frame(1 + number % 3, number, 900)) for number in range(300)]
    capture = write_capture(tmp_path / "in.pcap", frames)
    directory = tmp_path / "out"
    directory.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        with CaptureSource(capture, Arena(4, 1 << 20, 64)) as source:
            sink = SplitSink(
                Config(read="-", write=str(directory / "out.pcap"), split="flow"), interfaces=source.interfaces,
                form=source.form, counters=Counters(), on_commit=lambda _: None, on_file=lambda _: None,
            )  # fmt: skip
            with pytest.raises(SinkError, match=r"cannot write .*\.pcap\.part: file too large; the packets written"):
                list(map(sink.write, (Outgoing(batch, 0, len(batch)) for batch in source)))
            sink.abandon()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    names = sorted(each.name for each in directory.iterdir())
    assert len(names) == 3
    assert all(name.endswith(".pcap.part") for name in names)
    for name in names:
        packets = read_pcap(directory / name)
        assert 24 + sum(16 + len(frame) for _, frame in packets) == (directory / name).stat().st_size
        assert len(packets) > 40


def test_a_minute_is_editcaps(tmp_path):
    """editcap -i 60 divides from the first packet on; from a full minute on, files of packets in order are equal."""
    frames = [(START_S - 20 + number // 3 + (number > 0) / 2, udp_frame(1, number)) for number in range(900)]
    capture = write_capture(tmp_path / "in.pcap", frames)
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    split(capture, tmp_path / "ours" / "out.pcap", "minute")
    subprocess.run(["editcap", "-F", "pcap", "-i", "60", capture, tmp_path / "theirs" / "out.pcap"], check=True)
    ours, theirs = ([read_pcap(each) for each in sorted((tmp_path / name).iterdir())] for name in ("ours", "theirs"))
    assert len(ours) == 5
    assert ours == theirs


def test_pcapng_keeps_interfaces_and_secrets(tmp_path):
    """Each file has the interfaces, and the secrets that were known when its packets came; other blocks are counted."""

    def block(kind, body):
        size = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + size + body + size

    data = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    for name in (b"eth0", b"../x"):
        data += block(1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HH", 2, len(name)) + name + bytes(4))
    data += block(0x0A, struct.pack("<II", 0x544C534B, 4) + b"key1")
    for number in range(8):
        frame = udp_frame(1 + number % 2, number)
        head = struct.pack(
            "<IIIII", number % 2, START_S * 10**6 >> 32, START_S * 10**6 & 0xFFFFFFFF, len(frame), len(frame)
        )
        data += block(6, head + frame + bytes(-len(frame) % 4))
    data += block(5, struct.pack("<III", 0, 0, 0))
    (tmp_path / "in.pcapng").write_bytes(data)
    for kind, labels in (("flow", None), ("interface", ["eth0", "x"])):
        directory = tmp_path / kind
        directory.mkdir()
        config = Config(read=str(tmp_path / "in.pcapng"), write=str(directory / "out.pcapng"), split=kind, workers=1)
        told = Pipeline(config).run().json()
        assert told["metadata_removed"] == 1
        names = sorted(each.name for each in directory.iterdir())
        assert len(names) == 2
        if labels:
            assert names == [f"out-{label}.pcapng" for label in labels]
        for number, name in enumerate(names):
            shown = subprocess.run(
                ["tshark", "-nr", directory / name, "-Tfields", "-e", "frame.interface_name", "-e", "udp.dstport"],
                check=True, capture_output=True, text=True,
            ).stdout.split("\n")[:-1]  # fmt: skip
            assert len(shown) == 4
            assert len({line.split("\t")[0] for line in shown}) == 1, (kind, number)
            assert b"key1" in (directory / name).read_bytes()


def test_streams_have_files_of_their_own(tmp_path):
    """Each stream's packets in its own file and in order, whatever the segments and services; the rest in the run's."""
    frames = frames_of(3, 1200)
    capture = write_capture(tmp_path / "in.pcap", frames)
    cases = (({"segment_packets": 50, "workers": 2}, ["slice:800"]), ({"split": "vlan"}, ["dedup"]))
    for number, (keys, service) in enumerate(cases):
        directory = tmp_path / str(number)
        directory.mkdir()
        streams = [
            {
                "name": "web",
                "select": "tcp port 80 or (vlan and tcp port 80)",
                "write": str(directory / "web.pcap"),
                "service": service,
            },
            {"name": "none", "select": "port 9", "write": str(directory / "none.pcap")},
            {"name": "arp", "select": "arp"},
        ]
        config = Config(read=str(capture), write=str(directory / "out.pcap"), stream=streams, **{"workers": 1, **keys})
        told = Pipeline(config).run().json()
        assert "unbalanced" not in told
        web = told["streams"]["web"]["packets"]["written"]
        of_web = [each for each in directory.iterdir() if each.name.startswith("web")]
        others = [each for each in directory.iterdir() if each.name.startswith("out")]
        assert sum(len(read_pcap(each)) for each in of_web) == web > 0
        assert sum(len(read_pcap(each)) for each in others) == told["packets"]["written"] - web
        if number == 0:
            got = [frame for _, frame in read_pcap(directory / "web.pcap")]
            assert got == [frame for _, frame in frames if frame in set(got)]
            rest = [frame for _, frame in read_pcap(directory / "out.pcap")]
            assert rest == [frame for _, frame in frames if frame not in set(got)]
            assert read_pcap(directory / "none.pcap") == []


def test_labels_are_safe():
    for text in ("../../etc/passwd", "a" * 5000, "\0\n/", "-rf", ".hidden", "", "ü\u202e", "CON:x|y", "a b"):
        label = safe(text)
        assert 0 < len(label) <= LABEL_MAX
        assert label[0] not in ".-"
        assert all(each.isascii() and (each.isalnum() or each in ".@+=-") for each in label), label


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"split": "flow", "rotate_mb": 1}, "split and rotate_mb or rotate_s are both set"),
        ({"split": "flow", "write": "-"}, "split needs write, with a file name"),
        ({"split": "flow", "write": "x.pcap.gz"}, "files of a split are not compressed"),
        ({"split": "phone"}, "split must be"),
        ({"split_files": 5}, "split_files has no effect in this run"),
        ({"stream": [{"name": "a", "select": "tcp", "write": "./x.pcap"}]}, "is to be written twice"),
        ({"stream": [{"name": "a", "select": "tcp", "write": "-"}]}, "stream a: its write must be a file"),
        (
            {"stream": [{"name": "a", "select": "tcp", "write": "y.pcap.xz"}]},
            "is not a compression that streamcore writes",
        ),
    ],
)
def test_wrong_usage(keys, words):
    with pytest.raises(UsageError, match=words):
        Config(**{"read": "-", "write": "x.pcap", **keys}).refuse_useless("run")


def test_the_input_is_not_replaced(tmp_path):
    """Nor is it cut, if it has the name of a part."""
    frames = [(START_S + number, udp_frame(1, number, 20)) for number in range(3)]
    capture = write_capture(tmp_path / "out-flow.pcap", frames)
    before = capture.read_bytes()
    label = time.strftime("%Y%m%d-%H%M", time.localtime(START_S))
    for name in (f"out-{label}.pcap", f"out-{label}.pcap.part"):
        capture = capture.rename(tmp_path / name)
        if name.endswith("part"):
            with pytest.raises(SinkError, match="also the input"):
                split(capture, tmp_path / "out.pcap", "minute", overwrite=True)
        else:
            split(capture, tmp_path / "out.pcap", "minute", overwrite=True)
            (tmp_path / f"out-{label}-1.pcap").unlink()  # where the packets are
        assert capture.read_bytes() == before
