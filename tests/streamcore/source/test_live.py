"""The live source on a veth pair: what arrives in batches is what a socket sent at the other end, and every packet that
the kernel had for us is accounted for. The twins are the frames that were sent, and tcpdump beside us.
"""

import io
import random
import socket
import struct
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager

import dpkt
import numpy as np
import pytest

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import SourceError
from streamcore.core.packets import Arena
from streamcore.parse.filter import Filter
from streamcore.segment._segmenter import Segmenter
from streamcore.source.live import LiveSource
from tests.streamcore.conftest import read_pcap, udp_frame
from tests.streamcore.namespaces import join, namespaces
from tests.streamcore.offloads import twin

PCAP_HEAD = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, 1)  # nanoseconds, Ethernet
SETTLED_S = 0.15  # until what was sent is in the ring, and its block is ours


@contextmanager
def capturing(namespace, interface="far", expression="", chunks=4, offloads="complete", **keys):
    """(source, counters) of a live source in a namespace."""
    config = Config(interface=interface, **{"write": "-", "segment_ms": 4, "buffer_kib": 16384} | keys)
    counters = Counters()
    arena = Arena(chunks, 1 << 20, 8192)
    with (
        namespace.entered(),
        LiveSource(config, arena, counters, compiled(expression), offloads=offloads) as source,
    ):
        yield source, counters


def compiled(expression):
    return Filter(expression, live=True).live_instructions if expression else None


def sender_at(namespace, interface="near"):
    with namespace.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sender.bind((interface, 0))
        return sender


def send_all(namespace, frames, interface="near"):
    with sender_at(namespace, interface) as sender:
        for frame in frames:
            sender.send(frame)


def received(source):
    """Everything that comes until the source ends: [(bytes, wire length, timestamp, interface)]."""
    packets = []
    for batch in source:
        for row in range(batch.count):
            packets.append(
                (batch.packet(row).tobytes(), int(batch.wire_length[row]), int(batch.timestamp_ns[row]),
                 int(batch.interface[row]))
            )  # fmt: skip
    return packets


def stop_soon(source, seconds=SETTLED_S):
    threading.Timer(seconds, source.stop).start()


def frames_of(packets):
    return [packet[0] for packet in packets]


def balanced(counters, read):
    return counters.packets("kernel.received") == read + sum(counters.unread().values())


def test_what_was_sent_arrives_with_its_time(pair):
    left, right = pair
    frames = [udp_frame(i, i, i % 1000) for i in range(3000)]
    with capturing(right) as (source, counters):
        begin_ns = time.time_ns()
        send_all(left, frames)
        end_ns = time.time_ns()
        stop_soon(source)
        packets = received(source)
    assert frames_of(packets) == frames
    times = [packet[2] for packet in packets]
    assert begin_ns <= times[0]
    assert times == sorted(times)
    assert times[-1] <= end_ns
    assert len({t % 1000 for t in times}) > 1  # nanoseconds, not microseconds
    assert all(wire == len(frame) for frame, wire, _, _ in packets)
    assert balanced(counters, 3000)
    assert counters.packets("kernel.received") == 3000
    assert not counters.lost


def test_what_is_copied_or_dropped_goes_back_to_the_kernel(pair):
    """Four times the ring's size goes through it; meanwhile one batch is kept, copied to its chunk."""
    left, right = pair
    frames = [udp_frame(i % 7, i, 1400) for i in range(3_000)]
    with capturing(right, chunks=8, buffer_kib=1024, segment_ms=100) as (source, counters):
        kept, packets = [], []
        for part in range(0, len(frames), 250):
            send_all(left, frames[part : part + 250])
            while len(packets) < part + 250:
                batch = next(source)
                assert batch.chunk.borrowed_from is not None
                if not kept:
                    batch.copy_to_chunk()
                    kept.append((batch, [batch.packet(row).tobytes() for row in range(batch.count)]))
                    assert batch.chunk.borrowed_from is None
                    assert batch.contiguous
                packets += [batch.packet(row).tobytes() for row in range(batch.count)]
                batch = None
        assert packets == frames
        ((batch, as_it_was),) = kept
        assert [batch.packet(row).tobytes() for row in range(batch.count)] == as_it_was == frames[: batch.count]
        source.stop()
        assert list(source) == []
    assert counters.packets("kernel.dropped") == 0


def test_a_batch_that_is_kept_in_place_keeps_its_part_of_the_ring_and_what_has_no_room_is_counted(pair):
    left, right = pair
    frames = [udp_frame(1, i, 1400) for i in range(6_000)]
    with capturing(right, chunks=12, buffer_kib=1024, segment_ms=100) as (source, counters):
        send_all(left, frames[:100])
        batch = next(source)
        send_all(left, frames[100:])
        stop_soon(source)
        rest = received(source)
        assert [batch.packet(row).tobytes() for row in range(batch.count)] == frames[: batch.count]
        missed = len(frames) - batch.count - len(rest)
        assert missed > 0
        source.close()
        assert counters.packets("kernel.dropped") + counters.packets("source.unread") == missed
        assert [batch.packet(row).tobytes() for row in range(batch.count)] == frames[: batch.count]


@pytest.mark.parametrize(("rings", "buffer_kib", "packets"), [(1, 24 << 10, 160), (2, 4 << 10, 60)])
def test_slow_traffic_does_not_lend_the_whole_ring_to_one_batch(pair, rings, buffer_kib, packets):
    """Every block is ours after 50 ms, however empty, and a batch may wait for much longer than all blocks take."""
    left, right = pair
    frames = [udp_frame(i % 7, i, 100) for i in range(packets)]
    with capturing(right, buffer_kib=buffer_kib, rings=rings, segment_ms=10_000) as (source, counters):

        def send_slowly():
            for frame in frames:
                send_all(left, [frame])
                time.sleep(0.01)
            stop_soon(source)

        threading.Thread(target=send_slowly).start()
        packets = frames_of(received(source))
    assert sorted(packets) == sorted(frames)
    assert counters.packets("kernel.dropped") == 0


def test_only_the_rows_in_use_are_copied(pair):
    left, right = pair
    frames = [udp_frame(i % 7, i, 60 + i) for i in range(500)]
    with capturing(right, segment_ms=100) as (source, _):
        send_all(left, frames)
        time.sleep(SETTLED_S)
        batch = next(source)
        used = list(range(3, batch.count, 5))
        batch.arrange(np.array(used, np.uint32))
        with pytest.raises(ValueError, match="call copy_to_chunk first"):
            Segmenter("run").cut(batch)
        batch.copy_to_chunk()
        assert batch.span_stop == sum(16 + len(frames[row]) for row in used)
        assert [batch.packet(row).tobytes() for row in used] == [frames[row] for row in used]
        assert batch.byte_count == sum(len(frames[row]) for row in used)
        records = io.BytesIO(PCAP_HEAD + batch.data[: batch.span_stop].tobytes())
        assert [data for _, data in dpkt.pcap.Reader(records)] == [frames[row] for row in used]
        assert [segment.byte_count for segment in Segmenter("run").cut(batch)] == [batch.byte_count]


def test_frames_of_every_length_of_random_bytes(pair):
    left, right = pair
    draw = random.Random(3)
    frames = [draw.randbytes(12) + b"\x88\xb5" + draw.randbytes(size - 14) for size in range(15, 1515)]
    with capturing(right) as (source, counters):
        send_all(left, frames)
        stop_soon(source)
        assert frames_of(received(source)) == frames
    assert balanced(counters, len(frames))


def test_jumbo_frames(root_and_namespaces):
    frames = [bytes(i * size & 0xFF for i in range(size)) for size in range(1515, 9015, 500)]
    frames.append(bytes(9014))
    with namespaces(2) as (left, right):
        join(left, "near", right, "far", mtu=9000)
        with capturing(right) as (source, _):
            send_all(left, frames)
            stop_soon(source)
            assert frames_of(received(source)) == frames


@pytest.mark.parametrize("offloads", ["complete", "cut"])
@pytest.mark.parametrize("interface", ["far", "any"])
def test_packets_that_offloads_have_merged_are_whole(root_and_namespaces, interface, offloads):
    """What TCP gives to the interface in pieces of up to 64 KiB comes in such pieces or in segments, and the stream is
    in them, with true checksums. Of `any` the kernel does not say how they were merged.
    """
    told = random.Random(4).randbytes(1 << 19)
    with namespaces(2) as (left, right):
        join(left, "near", right, "far", offloads=True)
        left.run("ip", "address", "add", "10.9.1.1/24", "dev", "near")
        right.run("ip", "address", "add", "10.9.1.2/24", "dev", "far")
        with right.entered():
            listener = socket.create_server(("10.9.1.2", 5001))
        expression = "tcp dst port 5001"
        with capturing(right, expression=expression, interface=interface, offloads=offloads) as (source, counters):
            with left.entered():
                caller = socket.create_connection(("10.9.1.2", 5001))
            with listener, caller, listener.accept()[0] as called:
                sending = threading.Thread(target=caller.sendall, args=(told,))
                sending.start()
                heard = b""
                while len(heard) < len(told):
                    heard += called.recv(1 << 20)
                sending.join()
            stop_soon(source)
            frames = []
            for batch in source:
                counters.count("source.segmented", *batch.copy_to_chunk())
                assert (batch.captured_length == batch.wire_length).all()
                frames += [batch.packet(row).tobytes() for row in range(batch.count)]
            names = [each.name for each in source.interfaces]
    assert names == [interface]
    is_cut = offloads == "cut" and interface == "far"
    assert (max(map(len, frames)) > 1514) is not is_cut
    assert balanced(counters, len(frames) - counters.packets("source.segmented"))
    assert (counters.packets("source.segmented") > 0) is is_cut
    link_bytes = 14 if interface == "far" else 20
    assert [each for each in frames if not twin.is_right(each[link_bytes:])] == []
    heard = bytearray(len(told))
    segments = [dpkt.ip.IP(frame[link_bytes:]).data for frame in frames]
    first = min(tcp.seq for tcp in segments if tcp.flags & dpkt.tcp.TH_SYN) + 1
    for tcp in segments:
        at = (tcp.seq - first) % (1 << 32)
        heard[at : at + len(tcp.data)] = tcp.data
    assert heard == told
    assert counters.events("source.checksum_missing") == 0


def tagged(frame, *tags):
    """A frame with VLAN tags, outermost first: (TPID, TCI)."""
    return frame[:12] + b"".join(struct.pack("!HH", *tag) for tag in tags) + frame[12:]


def test_vlan_tags_stand_in_their_places(pair):
    left, right = pair
    plain = udp_frame(1, 1)
    frames = [
        tagged(plain, (0x8100, 0x2005)),
        tagged(plain, (0x88A8, 0xEFFE), (0x8100, 7)),
        plain,
        tagged(plain, (0x8100, 0)),
        tagged(plain, (0x8100, 4095), (0x8100, 4094), (0x8100, 1)),
    ]
    with capturing(right) as (source, _):
        send_all(left, frames)
        stop_soon(source)
        packets = received(source)
    assert frames_of(packets) == frames
    assert [packet[1] for packet in packets] == [len(frame) for frame in frames]


TAGGED = [
    "udp port 5060", "vlan 5", "vlan and udp", "udp and vlan", "len > 80", "host 10.0.0.7", "not udp", "not vlan",
    "vlan 3 and vlan 5", "ether proto 0x8100", "udp or vlan 5", "ether[12:2] = 0x0800", "vlan 0",
]  # fmt: skip


@pytest.mark.parametrize("interface", ["far", "any"])
def test_an_expression_means_what_it_means_in_tcpdump(pair, tmp_path, interface):
    """tcpdump beside us, for frames with no tag, a tag, the tag of a priority alone, and two."""
    left, right = pair
    frames = []
    for i in range(8):
        frame = udp_frame(i, i, 40 if i % 2 else 10)
        frames += [
            frame,
            tagged(frame, (0x8100, i)),
            tagged(frame, (0x88A8, 3), (0x8100, 5)),
            tagged(frame, (0x8100, 0xE000)),
        ]
    # On any, tcpdump refuses vlan, and libpcap itself judges what comes first, its header made up (ether proto 0x8100).
    expressions = [each for each in TAGGED if interface == "far" or not ("vlan" in each or "0x8100" in each)]
    dumps = []
    for number, expression in enumerate(expressions):
        dump = right.start(
            "tcpdump", "-i", interface, "-s", "2000", "--immediate-mode", "-U", "-Z", "root", "-w",
            tmp_path / f"{number}.pcap", expression, stderr=subprocess.PIPE,
        )  # fmt: skip
        said = ""
        while "listening" not in said:
            said = dump.stderr.readline()
            assert said, expression
        dumps.append(dump)
    with ExitStack() as stack:
        ours = [stack.enter_context(capturing(right, interface, each, buffer_kib=1024)) for each in expressions]
        send_all(left, frames)
        stop_soon(ours[-1][0], 0.3)
        got = [frames_of(received(ours[-1][0]))]
        for source, _ in ours[:-1]:
            source.stop()
        got = [frames_of(received(source)) for source, _ in ours[:-1]] + got
        exact = [source.filtered for source, _ in ours]
    for number, (expression, dump) in enumerate(zip(expressions, dumps, strict=True)):
        dump.terminate()
        dump.wait(10)
        dump.stderr.close()
        twin = [frame for _, frame in read_pcap(tmp_path / f"{number}.pcap")]
        assert len(twin) < len(frames) or expression == "len > 80", expression
        if exact[number]:
            assert [frame if interface == "far" else without_tag(frame) for frame in got[number]] == twin, expression
        else:  # the run filters it again
            assert expression in ("len > 80", "ether[12:2] = 0x0800"), expression
    assert all(exact) == (interface == "far")


def without_tag(cooked):
    """A cooked packet as tcpdump has it, which loses the tag."""
    return cooked[22:24] + cooked[2:20] + cooked[24:] if cooked[:2] in (b"\x81\0", b"\x88\xa8") else cooked


def filtered(source, expression):
    """What the run's filter leaves of what the kernel's let in."""
    ours, packets = Filter(expression), []
    for batch in source:
        ours(batch)
        rows = batch.rows if batch.rows is not None else range(batch.count)
        packets += [batch.packet(row).tobytes() for row in rows]
    return packets


def matching(frames, expression, link_type):
    """The frames that tcpdump finds in a capture of them."""
    capture = io.BytesIO()
    writer = dpkt.pcap.Writer(capture, nano=True, linktype=link_type)
    for number, frame in enumerate(frames):
        writer.writepkt(frame, number)
    told = subprocess.run(
        ["tcpdump", "-r", "-", "-w", "-", expression], input=capture.getvalue(), capture_output=True, check=True
    )
    return [frame for _, frame in dpkt.pcap.UniversalReader(io.BytesIO(told.stdout))]


def test_any_is_cooked_as_tcpdump_cooks(pair, tmp_path):
    left, right = pair
    dump = right.start(
        "tcpdump", "-i", "any", "-s", "2000", "--immediate-mode", "-U", "-Z", "root", "--time-stamp-precision=nano",
        "-w", tmp_path / "twin.pcap", stderr=subprocess.PIPE,
    )  # fmt: skip
    assert "listening" in dump.stderr.readline() + dump.stderr.readline()
    frames = [udp_frame(i, i, i) for i in range(50)]
    with capturing(right, "any") as (source, _):
        send_all(left, frames)
        right.run("ping", "-c", "1", "-I", "lo", "127.0.0.1")  # seen once, not when it is sent and when it comes in
        stop_soon(source)
        packets = received(source)
    dump.terminate()
    dump.wait(10)
    dump.stderr.close()
    twin = [frame for _, frame in read_pcap(tmp_path / "twin.pcap")]
    assert len(twin) == 52
    assert frames_of(packets) == twin
    assert source.interfaces[0].link_type == 276


@pytest.mark.parametrize(
    ("expression", "judged"),
    [
        ("udp port 5060", True), ("ip[2:2] > 60 and host 10.0.0.3", True), ("tcp or outbound or host 10.0.0.4", True),
        ("ether proto 0x88b5 or arp", True), ("len > 80", False),
    ],
)  # fmt: skip
def test_an_expression_on_any(pair, expression, judged):
    """The kernel sees no link header of theirs: it judges what it can, and lets the rest through."""
    left, right = pair
    frames = [b"\2" * 12 + b"\x88\xb5" + bytes(50)]
    for i in range(10):
        frame = udp_frame(i, i, 40 if i % 2 else 10)
        frames.append(frame)
    with capturing(right, "any") as (everything, _), capturing(right, "any", expression) as (source, counters):
        send_all(left, frames)
        stop_soon(everything)
        stop_soon(source)
        twin = frames_of(received(everything))
        packets = filtered(source, expression)
    assert len(twin) == len(frames)
    assert packets == matching(twin, expression, 276)
    assert 0 < len(packets) < len(frames)
    assert (counters.packets("kernel.received") < len(frames)) == judged


def test_promiscuous_or_not(pair):
    _, right = pair
    for promiscuous in (True, False):
        with capturing(right, promiscuous=promiscuous):
            assert f"promiscuity {promiscuous:d} " in right.run("ip", "-d", "link", "show", "far").stdout


def test_a_snap_length_keeps_the_beginning(pair):
    left, right = pair
    frame = udp_frame(1, 1, 500)
    with capturing(right, snap_length=60) as (source, _):
        send_all(left, [frame, tagged(frame, (0x8100, 9)), frame[:40]])
        stop_soon(source)
        packets = received(source)
    assert [(packet[0], packet[1]) for packet in packets] == [
        (frame[:60], len(frame)),
        (tagged(frame, (0x8100, 9))[:60], len(frame) + 4),
        (frame[:40], 40),
    ]


def test_rings_share_the_flows(pair):
    left, right = pair
    frames = [udp_frame(i % 40, i) for i in range(2000)]
    with capturing(right, rings=3) as (source, counters):
        send_all(left, frames)
        stop_soon(source)
        packets = frames_of(received(source))
    assert sorted(packets) == sorted(frames)
    assert balanced(counters, 2000)
    for flow in range(40):  # each flow came through one ring, in order
        number = [frame for frame in packets if frame[26:30] == bytes([10, 0, 0, flow])]
        assert number == frames[flow::40]


def test_count_and_duration_end_it(pair):
    left, right = pair
    with capturing(right, count=30) as (source, counters):
        send_all(left, [udp_frame(i, i) for i in range(100)])
        assert len(received(source)) == 30
    assert balanced(counters, 30)
    assert counters.packets("source.unread") == 70
    begin_s = time.monotonic()
    with capturing(right, duration_s=0.3) as (source, _):
        assert received(source) == []
    assert 0.3 <= time.monotonic() - begin_s < 5


def test_what_the_ring_has_no_room_for_is_counted(pair):
    left, right = pair
    frames = [udp_frame(i, i, 1000) for i in range(4000)]  # 4 MB into a ring of 256 KiB that nobody reads
    with capturing(right, buffer_kib=256) as (source, counters):
        send_all(left, frames)
        stop_soon(source, 0)
        packets = frames_of(received(source))
    assert packets == frames[: len(packets)]  # the newest were dropped
    assert counters.packets("kernel.dropped") > 3000
    assert counters.packets("kernel.received") == 4000
    assert balanced(counters, len(packets))
    assert counters.events("kernel.freezes") > 0
    assert counters.lost


def test_the_kernels_figures_are_as_new_as_they_are_asked_for(pair):
    """Before anything was read; and after the end nobody is asked."""
    left, right = pair
    with capturing(right) as (source, counters):
        send_all(left, [udp_frame(i, i) for i in range(30)])
        time.sleep(SETTLED_S)
        source.refresh()
        assert counters.packets("kernel.received") == 30
        source.close()
        source.refresh()
        assert (counters.packets("kernel.received"), counters.packets("source.unread")) == (30, 30)


def test_an_interface_that_goes_down_or_away_and_comes_back_is_heard_again(pair):
    left, right = pair
    first, second, third = (udp_frame(i, i) for i in range(3))

    def trouble():
        time.sleep(0.1)
        send_all(left, [first])
        right.set_link("far", "down")
        right.set_link("far", "up")
        send_all(left, [second])
        time.sleep(0.1)
        left.run("ip", "link", "delete", "near")
        left.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", right.pid)
        right.set_link("far", "up")
        left.set_link("near", "up")
        time.sleep(1.2)
        send_all(left, [third])
        time.sleep(0.2)
        source.stop()

    with capturing(right) as (source, counters):
        thread = threading.Thread(target=trouble)
        thread.start()
        packets = frames_of(received(source))
        thread.join()
    assert packets == [first, second, third]
    assert counters.events("source.interface_down") == 2
    assert balanced(counters, 3)


def test_a_packet_that_waits_alone_leaves_in_time(pair):
    left, right = pair
    waits_ms = []
    with capturing(right, segment_ms=1) as (source, _), sender_at(left) as sender:
        for number in range(100):
            sender.send(udp_frame(number, number))
            batch = next(source)
            waits_ms.append((time.time_ns() - int(batch.timestamp_ns[0])) / 1e6)
            del batch
    assert sorted(waits_ms)[50] < 3


def test_what_we_send_ourselves(pair):
    """Is captured as tcpdump does, once; but not between two interfaces, where it would come round."""
    _, right = pair
    frame = udp_frame(5, 5)
    for keys, expected in (({}, [frame]), ({"output_interface": "lo", "write": ""}, [])):
        with capturing(right, **keys) as (source, _):
            with sender_at(right, "far") as sender:
                sender.send(frame)
            stop_soon(source)
            assert frames_of(received(source)) == expected


def test_both_directions_have_numbers_and_do_not_come_round(bump):
    left, middle, right = bump
    to_east, to_west = [udp_frame(i, i) for i in range(100)], [udp_frame(i, i + 1000) for i in range(100)]
    with capturing(middle, "west", output_interface="east", both=True, write="") as (source, _):
        with sender_at(left, "end") as west, sender_at(right, "end") as east, sender_at(middle, "east") as ours:
            for one, other in zip(to_east, to_west, strict=True):
                west.send(one)
                east.send(other)
                ours.send(one)  # as the sink will
        stop_soon(source)
        packets = [packet for packet in received(source) if packet[0][12:14] == b"\x08\x00"]  # without ARP
    assert [frame for frame, _, _, interface in packets if interface == 0] == to_east
    assert [frame for frame, _, _, interface in packets if interface == 1] == to_west
    assert [each.name for each in source.interfaces] == ["west", "east"]


def test_a_busy_interface_does_not_starve_the_other(bump):
    left, middle, right = bump
    with capturing(middle, "west", output_interface="east", both=True, write="") as (source, _):
        send_all(left, [udp_frame(1, i, 1400) for i in range(4000)], "end")  # more than five chunks
        send_all(right, [udp_frame(2, 0)], "end")
        time.sleep(SETTLED_S)
        assert [batch.interface.max() for batch in (next(source), next(source))] == [0, 1]


def test_it_ends_in_the_midst_of_traffic(pair):
    """Chunk after chunk is full: the end is seen nevertheless."""
    left, right = pair
    enough = threading.Event()

    def send_on():
        with sender_at(left) as sender:
            frames = [udp_frame(i, i, 1400) for i in range(50)]
            while not enough.is_set():
                for frame in frames:
                    sender.send(frame)

    sending = threading.Thread(target=send_on)
    with capturing(right, segment_ms=1000, buffer_kib=1024) as (source, counters):
        sending.start()
        stop_soon(source, 0.5)
        begin_s = time.monotonic()
        for batch in source:
            time.sleep(0.05)  # slower than what comes
            counters.count("source.read", batch.count, 0)
            del batch
        enough.set()
        sending.join()
        assert time.monotonic() - begin_s < 10
    assert counters.packets("kernel.dropped") > 0
    assert balanced(counters, counters.packets("source.read"))


def test_errors_say_what_to_do(pair):
    left, _ = pair
    with (
        pytest.raises(SourceError, match="cannot capture on nosuch: there is no such interface"),
        capturing(left, "nosuch"),
    ):
        pass
