"""The live sink on a veth pair: what a plain packet socket, or tcpdump, sees at the other end is what the capture
holds, and what could not be sent is counted by its reason. Captures are written by dpkt.
"""

import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import dpkt
import pytest

from tests.streamcore import twin
from tests.streamcore.conftest import COMMAND, MARK, finish_run, udp_frame, write_pcap
from tests.streamcore.namespaces import join, namespaces

pytestmark = pytest.mark.usefixtures("nothing_left")

ALL_PROTOCOLS, SOL_PACKET = 3, 263
AUXDATA, ORIGINAL_DEVICE = 8, 9
TIMES_NS, BUFFER_FORCED = 35, 33  # SO_TIMESTAMPNS, SO_RCVBUFFORCE
TURNS = 3  # of a test about time: another process may take the processor meanwhile
VLAN_VALID, TPID_VALID = 0x10, 0x40


@contextmanager
def listening(namespace, interface="far"):
    """Afterwards the list holds what arrived there meanwhile: (frame, seconds of the kernel's clock). "" hears all
    interfaces, those too that are made meanwhile.
    """
    frames, over = [], threading.Event()
    with namespace.entered():
        # With a protocol it would hear before `bind`, and miss what comes while the kernel moves it to the interface.
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0 if interface else socket.htons(ALL_PROTOCOLS))
        listener.setsockopt(socket.SOL_SOCKET, BUFFER_FORCED, 64 << 20)
        listener.setsockopt(socket.SOL_SOCKET, TIMES_NS, 1)
        listener.setsockopt(SOL_PACKET, AUXDATA, 1)
        if interface:
            listener.bind((interface, ALL_PROTOCOLS))
    listener.settimeout(0.1)

    def listen():
        while True:
            try:
                data, controls, _flags, address = listener.recvmsg(1 << 16, 128)
            except OSError:  # nothing for a while, or the interface went down
                if over.is_set():
                    return
                continue
            if address[2] != socket.PACKET_OUTGOING:
                told = {level: value for level, _, value in controls}
                seconds, nanoseconds = struct.unpack("qq", told[socket.SOL_SOCKET])
                frames.append((with_tag(data, told[SOL_PACKET]), seconds + nanoseconds / 1e9))

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield frames
    finally:
        over.set()
        thread.join()
        listener.close()


def with_tag(data, auxiliary):
    """A frame with the VLAN tag that the kernel took out of it (packet(7), PACKET_AUXDATA)."""
    status, _length, _captured, _mac, _net, tag, kind = struct.unpack("IIIHHHH", auxiliary)
    if not status & VLAN_VALID:
        return data
    return data[:12] + struct.pack(">HH", kind if status & TPID_VALID else 0x8100, tag) + data[12:]


def start_sending(namespace, capture, *arguments):
    return namespace.start(
        *COMMAND, "run", "-r", capture, "-o", "near", "-n", "1", "--json", *arguments,
        env=os.environ | dict([MARK.split("=")]), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


ANEW = f"{Path(__file__).parents[1] / 'services_for_tests.py'}:Anew"


def send(namespace, capture, *arguments):
    return finish_run(start_sending(namespace, capture, *arguments))


def frame_of(size, number=0):
    return (b"\4" * 6 + b"\2" * 6 + b"\x88\xb5" + number.to_bytes(4, "big") + bytes(range(256)) * 40)[:size]


def tagged(frame, *tags):
    return frame[:12] + b"".join(struct.pack(">HH", kind, tag) for kind, tag in tags) + frame[12:]


@pytest.mark.parametrize("service", ["identity", ANEW])  # rows of the chunk; packets one by one
def test_every_frame_arrives_as_it_stands_in_the_capture(pair, tmp_path, service):
    left, right = pair
    chance = random.Random(5)
    frames = [frame_of(size, size) for size in range(14, 1515)]
    frames += [chance.randbytes(chance.randrange(14, 1515)) for _ in range(500)]
    frames += [tagged(frame_of(80, 1), (0x8100, 5)), tagged(frame_of(1514, 2), (0x8100, 4095))]
    frames += [tagged(frame_of(80, 3), (outer, 7), (0x8100, 9)) for outer in (0x88A8, 0x8100)]
    chance.shuffle(frames)
    capture = write_pcap(tmp_path / "in.pcap", frames)
    with listening(right) as arrived:
        run = send(left, capture, "--replay", "0", "--service", service)
        assert run.status == 0, run.stderr
    assert [frame for frame, _ in arrived] == frames
    assert run.json["packets"] == {"read": len(frames), "written": len(frames), "dropped": {}}
    assert run.json["bytes"]["written"] == sum(map(len, frames))


def test_an_interrupt_ends_a_paced_replay_at_once(pair, tmp_path):
    """The third packet is due in a day. What was not sent is named; the first two are."""
    left, right = pair
    source = tmp_path / "in.pcap"
    with open(source, "wb") as file:
        writer = dpkt.pcap.Writer(file)
        for number, after_s in enumerate((0, 0.01, 86_400, 86_401)):
            writer.writepkt(frame_of(60, number), 1_700_000_000 + after_s)
    with listening(right) as arrived:
        process = start_sending(left, source)
        deadline = time.monotonic() + 20
        while len(arrived) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        begin_s = time.monotonic()
        run = finish_run(process, 10)
    assert time.monotonic() - begin_s < 5
    assert (run.status, [frame for frame, _ in arrived]) == (130, [frame_of(60, 0), frame_of(60, 1)])
    assert run.json["packets"] == {"read": 4, "written": 2, "dropped": {"sink.not_due": 2}}
    assert "unbalanced" not in run.json


def test_what_no_interface_sends_is_counted(pair, tmp_path):
    left, right = pair
    sizes = [*range(1, 20), 1514, 1515, 1518, 1519, 9000, 60]
    frames = [frame_of(size) for size in sizes]
    capture = write_pcap(tmp_path / "in.pcap", frames)
    with listening(right) as arrived:
        run = send(left, capture, "--replay", "0")
    assert run.status == 3
    assert [frame for frame, _ in arrived] == [frame for frame in frames if 14 <= len(frame) <= 1514]
    assert run.json["packets"]["dropped"] == {"sink.too_short": 13, "sink.too_long": 4}
    assert run.json["bytes"]["dropped"] == {
        "sink.too_short": sum(range(14)),
        "sink.too_long": 1515 + 1518 + 1519 + 9000,
    }
    assert "unbalanced" not in run.json


def test_jumbo_frames_where_the_mtu_allows(root_and_namespaces, tmp_path):
    frames = [frame_of(size, size) for size in (9014, 60, 8000, 9014)]
    with namespaces(2) as (left, right):
        join(left, "near", right, "far", mtu=9000)
        with listening(right) as arrived:
            assert send(left, write_pcap(tmp_path / "in.pcap", frames), "--replay", "0").status == 0
    assert [frame for frame, _ in arrived] == frames


def is_paced(arrived, gap_s):
    """Whether frames came `gap_s` apart: most of them when they were due, counted from the most punctual one, and some
    of either half. A sender that was held up makes up for it; one at another pace is punctual in one half at most."""
    times_s = [at_s - number * gap_s for number, (_, at_s) in enumerate(arrived)]
    half, first_s = len(times_s) // 2, min(times_s)
    late_s = [at_s - first_s for at_s in times_s]
    return max(min(late_s[:half]), min(late_s[half:])) < 0.05 and sorted(late_s)[half] < 0.02


def test_another_pace_is_found():
    for gap_s, paced in ((0.001, True), (0.002, False), (0.0005, False), (0.0012, False), (0.0, False)):
        assert is_paced([(b"", number * gap_s) for number in range(601)], 0.001) == paced
    held_up = [(b"", max(number / 1000, 0.25) if number > 100 else number / 1000) for number in range(601)]
    assert is_paced(held_up, 0.001)
    assert not is_paced([(b"", number // 100 / 10) for number in range(601)], 0.001), "in bursts"


@pytest.mark.parametrize(("flags", "gap_s"), [([], 0.001), (["--replay", "2"], 0.0005)])
def test_packets_leave_at_their_own_times(pair, tmp_path, flags, gap_s):
    """601 packets 1 ms apart; dpkt's times are the oracle."""
    left, right = pair
    capture = write_pcap(tmp_path / "in.pcap", [udp_frame(1, number) for number in range(601)])
    assert any(sent_paced(left, right, capture, 601, gap_s, *flags) for _ in range(TURNS))


@pytest.mark.parametrize(("flag", "value"), [("--rate-pps", 2000), ("--rate-mbps", 2000 * 1000 * 8 / 1e6)])
def test_packets_leave_at_a_rate(pair, tmp_path, flag, value):
    """1,000 packets of 1,000 bytes, 2,000 a second, told both ways."""
    left, right = pair
    capture = write_pcap(tmp_path / "in.pcap", [frame_of(1000, number) for number in range(1000)])
    assert any(sent_paced(left, right, capture, 1000, 1 / 2000, flag, value) for _ in range(TURNS))


def sent_paced(left, right, capture, count, gap_s, *flags):
    with listening(right) as arrived:
        run = send(left, capture, *flags)
        assert run.status == 0, run.stderr
    assert len(arrived) == count
    return is_paced(arrived, gap_s)


def test_a_cut_packet_is_sent_as_far_as_it_goes_and_noted(pair, tmp_path):
    left, right = pair
    capture = write_pcap(tmp_path / "in.pcap", [frame_of(200), frame_of(40)])
    with listening(right) as arrived:
        run = send(left, capture, "--replay", "0", "--service", "slice:64")
    assert [frame for frame, _ in arrived] == [frame_of(64), frame_of(40)]
    assert run.status == 0
    assert run.json["notes"] == {"sink.sent_cut": 1}
    assert run.json["bytes"] == {"read": 240, "written": 104, "dropped": {}, "resized": -136}


def test_an_interface_that_goes_down_and_up_is_waited_for(pair, tmp_path):
    left, right = pair
    count = 1500
    capture = write_pcap(tmp_path / "in.pcap", [frame_of(100, number) for number in range(count)])
    with listening(right) as arrived:
        run = start_sending(left, capture)
        until(lambda: len(arrived) > 200)
        left.set_link("near", "down")
        time.sleep(0.4)
        left.set_link("near", "up")
        run = finish_run(run)
    assert run.status == 0, run.stderr
    assert run.json["packets"] == {"read": count, "written": count, "dropped": {}}
    # What was in the kernel's hands when the link went down is the wire's loss, not ours.
    assert len(arrived) > count - 50
    assert [frame for frame, _ in arrived] == sorted(frame for frame, _ in arrived)


def test_without_a_carrier_packets_are_counted_after_a_while(pair, tmp_path):
    left, right = pair
    capture = write_pcap(tmp_path / "in.pcap", [frame_of(100, number) for number in range(3000)])
    right.set_link("far", "down")
    run = send(left, capture, "--replay", "0")
    assert run.status == 3
    assert run.json["packets"] == {"read": 3000, "written": 0, "dropped": {"sink.queue_full": 3000}}
    assert 0.9 < run.json["seconds"] < 20, "not a second for each packet"


def test_a_removed_interface_is_taken_up_again(root_and_namespaces, tmp_path):
    """One listener hears both; the new far end is up before the near one, so that nothing is sent to nobody."""
    count = 2000
    capture = write_pcap(tmp_path / "in.pcap", [frame_of(100, number) for number in range(count)])
    with namespaces(2) as (left, right):
        join(left, "near", right, "far")
        with listening(right, "") as arrived:
            run = start_sending(left, capture)
            until(lambda: len(arrived) > 200)
            left.run("ip", "link", "delete", "near")
            time.sleep(0.2)
            join(right, "far", left, "near")
            run = finish_run(run)
    assert run.status == 0, run.stderr
    assert run.json["packets"]["written"] == count
    numbers = [int.from_bytes(frame[14:18], "big") for frame, _ in arrived]
    assert [frame for frame, _ in arrived] == [frame_of(100, number) for number in numbers]
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1]) == (0, count - 1)
    assert len(numbers) > count - 50, "what was in the kernel's hands is the wire's loss"


def test_an_interrupt_in_the_midst_of_a_paced_replay(pair, tmp_path):
    left, right = pair
    capture = write_pcap(tmp_path / "in.pcap", [frame_of(100, number) for number in range(100_000)])  # 100 s
    with listening(right) as arrived:
        run = start_sending(left, capture)
        until(lambda: len(arrived) > 100)
        run.send_signal(2)
        run = finish_run(run, 10)
    assert run.status == 130
    written = run.json["packets"]["written"]
    assert written == len(arrived)
    assert run.json["packets"]["dropped"] == {"sink.not_due": run.json["packets"]["read"] - written}
    assert "unbalanced" not in run.json


def test_tcpdump_at_the_other_end_sees_the_shipped_capture(pair, tmp_path):
    """Read with tcpdump on both sides: file and wire."""
    left, right = pair
    source, target = Path(__file__).parents[3] / "examples" / "office.pcapng", tmp_path / "arrived.pcap"
    capture = right.start(
        "tcpdump", "-i", "far", "-w", target, "-U", "-B", "65536", "--immediate-mode", stderr=subprocess.PIPE
    )
    assert "listening" in capture.stderr.readline()
    run = send(left, source, "--rate-pps", "20000", "less", "1514")
    size = 24 + 16 * run.json["packets"]["written"] + run.json["bytes"]["written"]
    until(lambda: target.stat().st_size >= size)
    capture.terminate()
    capture.communicate(timeout=10)
    shown = [
        subprocess.run(
            ["tcpdump", "-nn", "-t", "-xx", "-r", path, "less", "1514"], capture_output=True, check=True
        ).stdout
        for path in (source, target)
    ]
    assert run.status == 0, run.stderr
    assert len(shown[0]) > 10_000, "tcpdump reads it"
    assert shown[0] == shown[1]


def test_a_bump_in_the_wire_carries_both_directions(bump):
    """ping knows what it got back; nothing goes round."""
    left, middle, _right = bump
    run = middle.start(
        *COMMAND, "run", "-i", "west", "-o", "east", "--both", "-n", "1", "--json",
        env=os.environ | dict([MARK.split("=")]), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    middle.until_heard(run, 2)
    told = left.run("ping", "-n", "-c", "300", "-i", "0.005", "-s", "1400", "10.9.0.2").stdout
    run.send_signal(2)
    run = finish_run(run)
    assert "300 packets transmitted, 300 received, 0% packet loss" in told
    assert run.status == 130, run.stderr
    assert 600 <= run.json["packets"]["read"] <= 610  # and ARP
    assert run.json["packets"]["written"] == run.json["packets"]["read"]
    assert "unbalanced" not in run.json


def test_live_packets_do_not_wait_for_an_interface_that_is_down(bump):
    """One direction; what came while the way out was down is counted, and what comes afterwards gets through."""
    left, middle, right = bump
    run = middle.start(
        *COMMAND, "run", "-i", "west", "-o", "east", "-n", "1", "--json",
        env=os.environ | dict([MARK.split("=")]), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    middle.until_heard(run)
    with left.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sender.bind(("end", 0))
    with listening(right, "end") as arrived:
        for begin, state in ((0, "up"), (100, "down"), (200, "up")):
            middle.set_link("east", state)
            for number in range(begin, begin + 100):
                sender.send(frame_of(100, number))
            if state == "up":
                until(lambda last=begin + 99: arrived and arrived[-1][0] == frame_of(100, last))
            else:
                time.sleep(1)  # nobody tells when the last was given up
        run.send_signal(2)
        run = finish_run(run)
    sender.close()
    assert run.status == 3, run.stderr
    assert [frame for frame, _ in arrived] == [frame_of(100, number) for number in [*range(100), *range(200, 300)]]
    assert run.json["packets"] == {"read": 300, "written": 200, "dropped": {"sink.interface_down": 100}}
    assert "unbalanced" not in run.json


def test_only_ethernet_goes_onto_ethernet(pair, tmp_path):
    import dpkt

    left, _ = pair
    with open(tmp_path / "cooked.pcap", "wb") as file:
        dpkt.pcap.Writer(file, linktype=113).writepkt(bytes(60), 1)
    run = send(left, tmp_path / "cooked.pcap")
    assert run.status == 1
    assert run.stderr.splitlines()[-1] == (
        "streamcore: cannot send on near: it carries Ethernet, and these packets are of link type 113"
        " (source_mac and target_mac give them headers)"
    )
    assert run.json["packets"]["written"] == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-o", "nothing"], "cannot send on nothing: there is no such interface (see 'ip link')"),
        (["-o", "off"], "cannot send on off: it is down, type 'ip link set off up'"),
        (["-o", "near", "-w", "x.pcap"], "write and output_interface are both set: set one of them"),
        (
            ["-w", "x.pcap", "--rate-pps", "5"],
            "rate_pps has no effect in this run: it is for sending on an interface (-o)",
        ),
        (
            ["-o", "near", "--rate-pps", "5", "--replay", "2"],
            "replay and rate_pps are both set: set only one of them to pace the packets",
        ),
    ],
)
def test_what_cannot_be_is_one_line(pair, tmp_path, flags, words):
    left, _ = pair
    left.run("ip", "link", "add", "off", "type", "veth")
    capture = write_pcap(tmp_path / "in.pcap", [frame_of(60)])
    done = subprocess.run(
        left.command(*COMMAND, "run", "-r", capture, *flags), capture_output=True, text=True, timeout=30, cwd=tmp_path
    )
    assert done.returncode in (1, 2)
    assert done.stderr == f"streamcore: {words}\n"


def test_without_the_capability_one_line_says_so(pair, tmp_path):
    left, _ = pair
    capture = write_pcap(tmp_path / "in.pcap", [frame_of(60)])
    command = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-all", *COMMAND]
    done = subprocess.run(
        left.command(*command, "run", "-r", capture, "-o", "near"), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr.startswith("streamcore: cannot send on near: this needs CAP_NET_RAW; type: sudo ")


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_packets_without_link_headers_arrive_as_frames(pair, tmp_path):
    """IP alone gets a header, longer TCP than the MTU is cut into segments, and each turn of two sends all again."""
    left, right = pair
    tcp = dpkt.tcp.TCP(sport=80, dport=5000, seq=7, data=bytes(4000))
    packets = [bytes(dpkt.ip.IP(src=b"\x0a\0\0\1", dst=b"\x0a\0\0\2", p=6, data=tcp, len=4040))]
    packets.append(bytes(dpkt.ip6.IP6(src=bytes(16), dst=bytes(16), nxt=59, plen=4, data=b"data")))
    capture = tmp_path / "raw.pcap"
    with open(capture, "wb") as file:
        writer = dpkt.pcap.Writer(file, linktype=101)
        for packet in packets:
            writer.writepkt(packet, 1_700_000_000)
    more = ("--source-mac", "02:00:00:00:00:01", "--target-mac", "02:00:00:00:00:02", "--mtu", "1500")
    with listening(right) as arrived:
        run = send(left, capture, *more, "--loop", "2", "--replay", "0", "--vlan", "5")
        assert run.status == 0, run.stderr
    frames = [frame for frame, _ in arrived]
    assert [len(frame) for frame in frames] == [1518, 1518, 40 + 4000 - 2 * 1460 + 18, 62] * 2
    assert all(frame.startswith(b"\2\0\0\0\0\2\2\0\0\0\0\1\x81\0\0\5") for frame in frames)
    assert b"".join(frame[58:] for frame in frames[:3]) == bytes(4000)
    assert frames[3][18:] == packets[1]
    assert run.json["packets"]["written"] == 8
    refused = send(left, capture)
    assert (refused.status, "source_mac and target_mac" in refused.stderr) == (1, True)


def test_several_interfaces_are_captured_together(pair, tmp_path):
    """What comes on either of them is in one pcapng, which names both."""
    left, right = pair
    join(left, "next", right, "other")
    target = tmp_path / "two.pcapng"
    process = right.start(
        *COMMAND, "run", "-i", "far", "-i", "other", "-w", target, "-n", "1", "--json", "ether proto 0x88b5",
        env=os.environ | dict([MARK.split("=")]), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    sent_to_both = False
    while not sent_to_both and process.poll() is None and time.monotonic() < deadline:
        sent_to_both = target.exists()  # it captures on both before it writes
        for name in ("near", "next"):
            with left.entered():
                sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                sender.bind((name, 0))
            with sender:
                sender.send(frame_of(60, name == "next"))
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    run = finish_run(process, 20)
    packets, _, interfaces = twin.read_pcapng(target.read_bytes(), [])
    assert [interface.name for interface in interfaces] == ["far", "other"]
    assert {packet.data for packet in packets} == {frame_of(60, 0), frame_of(60, 1)}
    assert len(packets) == run.json["packets"]["written"]
