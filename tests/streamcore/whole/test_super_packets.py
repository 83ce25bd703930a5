"""Super-packets on their way through a run: what arrives at the far end, or stands in the capture, is what scapy, the
twin, would have sent. They are given to the kernel as a virtual machine gives them, with a virtio header.
"""

import contextlib
import random
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.streamcore.conftest import COMMAND, MARK, finish_run, read_pcap
from tests.streamcore.namespaces import join, namespaces
from tests.streamcore.offloads import twin

pytestmark = pytest.mark.usefixtures("nothing_left", "root_and_namespaces")

SERVICES = f"{Path(__file__).parents[1] / 'services_for_tests.py'}"
SOL_PACKET, AUXDATA, VIRTIO = 263, 8, 15
VIRTIO_HEAD = "<BBHHHH"
VLAN_VALID, TPID_VALID = 0x10, 0x40
PATIENCE_S = 30
SEGMENT_BYTES = 1000
LAST, KNOCK = (b"\2" * 12 + b"\x88\xb5" + word * 12 for word in (b"last!", b"knock"))


@pytest.fixture(scope="module")
def places():
    with namespaces(3) as (left, middle, right):
        join(left, "end", middle, "west", offloads=True)
        join(right, "end", middle, "east", offloads=True)
        yield left, middle, right


def cases():
    """(super-packet, what it leaves to hardware, the packet whole, its segments). The kernel takes none in tunnels from
    a socket: tests/streamcore/offloads cuts those."""
    draw = random.Random(18)
    kinds = [("plain", 4, True), ("plain", 6, True), ("plain", 4, False), ("plain", 6, False), ("vlan", 4, True)]
    kinds += [("two vlans", 6, True), ("vlan", 6, False)]
    for link, version, tcp in kinds:
        payload = draw.randbytes(draw.randrange(2 * SEGMENT_BYTES, 30 * SEGMENT_BYTES))
        yield made(link, version, tcp, payload)


def made(link, version, tcp, payload):
    def make(part, beyond, number, *, first=False, last=False):
        flags = "A" + ("FP" if last else "")
        layers = twin.packet(
            twin.link(link), version, tcp, part, flags=flags, sequence=(2**32 - 1500 + beyond) % 2**32
        )  # fmt: skip
        twin.identify(layers, number)
        return bytes(twin.rebuilt(layers))

    whole = make(payload, 0, 0, first=True, last=True)
    start = len(whole) - len(payload) - (20 if tcp else 8)
    offset = 16 if tcp else 6
    kind = (twin.TCP4 if version == 4 else twin.TCP6) if tcp else twin.UDP_SEGMENTS
    told = (twin.NEEDS_CHECKSUM, kind, start + (20 if tcp else 8), SEGMENT_BYTES, start, offset)
    return twin.partial(whole, start, start + offset), told, whole, twin.cut(make, payload, SEGMENT_BYTES)


@contextlib.contextmanager
def running(middle, *arguments, status=130):
    """A run that receives on west; its account is in the list afterwards."""
    process = middle.start(
        "env", MARK, *COMMAND, "run", "-i", "west", "-n", "1", "--json", "-q", *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    accounts = []
    try:
        middle.until_heard(process)
        yield accounts
        process.send_signal(signal.SIGTERM)
        run = finish_run(process)
        assert run.status == status, run.stderr
        assert "unbalanced" not in run.json
        accounts.append(run.json)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def send(namespace, packets):
    """Gives (bytes, what they leave to hardware) to `end`."""
    with namespace.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sender.setsockopt(SOL_PACKET, VIRTIO, 1)
        sender.bind(("end", 0))
    with sender:
        for data, told in packets:
            sender.send(struct.pack(VIRTIO_HEAD, *told) + data)


@contextlib.contextmanager
def listening(namespace):
    """Afterwards the list has [(what the frame leaves to hardware, frame)] that arrived at `end` before LAST."""
    with namespace.entered():
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        listener.setsockopt(SOL_PACKET, VIRTIO, 1)
        listener.bind(("end", 3))
    listener.setsockopt(SOL_PACKET, AUXDATA, 1)
    listener.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
    listener.settimeout(PATIENCE_S)
    heard = []
    with listener:
        yield heard
        while True:
            data, controls, _, address = listener.recvmsg(1 << 17, 64)
            told, frame = struct.unpack_from(VIRTIO_HEAD, data), data[10:]
            if address[2] == socket.PACKET_OUTGOING or frame == KNOCK:
                continue
            if frame == LAST:
                return
            heard.append(with_tag(told, frame, controls[0][2]))


def with_tag(told, frame, auxiliary):
    """The frame with the VLAN tag that the kernel removed."""
    status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", auxiliary)
    if not status & VLAN_VALID:
        return told, frame
    tag = struct.pack("!HH", tpid if status & TPID_VALID else 0x8100, tci)
    flags, kind, head, size, start, offset = told
    return (flags, kind, head + 4 * bool(kind), size, start + 4 * (flags & 1), offset), frame[:12] + tag + frame[12:]


def through(places, packets, *arguments, status=130):
    """(what arrived, the account) of packets that a run carries from west to east: when it ends, it has sent them."""
    left, middle, right = places
    with listening(right) as heard, running(middle, "-o", "east", *arguments, status=status) as accounts:
        knock(left, right)
        send(left, [*packets, (LAST, (0,) * 6)])
    return heard, accounts[0]


def knock(left, right):
    """Returns when a frame has come through: from now on the run carries what it gets."""
    with right.entered():
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        listener.bind(("end", 3))
    listener.settimeout(0.1)
    deadline = time.monotonic() + PATIENCE_S
    with listener:
        while True:
            send(left, [(KNOCK, (0,) * 6)])
            with contextlib.suppress(TimeoutError):
                if listener.recv(100) == KNOCK:
                    return
            assert time.monotonic() < deadline


def test_segments_leave_as_they_are_on_the_wire(places):
    made_of = list(cases())
    heard, account = through(places, [(data, told) for data, told, _, _ in made_of], "--segments", "wire")
    wanted = [segment for *_, segments in made_of for segment in segments]
    assert [frame.hex() for _, frame in heard] == [each.hex() for each in wanted]
    assert {told[:2] for told, _ in heard} <= {(0, 0), (2, 0)}  # nothing is left, or the kernel says that all is right
    assert account["notes"]["source.segmented"] == len(wanted) - len(made_of)


def test_super_packets_go_on_as_they_came(places):
    packets = [(data, told) for data, told, _, _ in cases()]
    heard, account = through(places, packets, "--service", "identity")
    assert [frame.hex() for _, frame in heard] == [data.hex() for data, _ in packets]
    assert [marks(told) for told, _ in heard] == [marks(told) for _, told in packets]
    assert account["packets"]["dropped"] == {}


def test_a_rewritten_super_packet_is_left_to_the_hardware_again(places):
    packets = [(data, told) for data, told, _, _ in cases()]
    heard, _ = through(places, packets, "--service", f"{SERVICES}:Hop")
    assert [marks(told) for told, _ in heard] == [marks(told) for _, told in packets]
    for (_, frame), (data, told) in zip(heard, packets, strict=True):
        start = told[4]
        assert frame[start:] == data[start:]  # the transport, with the sum of the pseudo-header in its field
        changed = [at for at in range(start) if frame[at] != data[at]]
        header = start - 20
        assert changed in ([], [header + 8, header + 10]), "the time to live and a byte of its checksum, of IPv4"
        assert bool(changed) is (data[header] == 0x45)


def marks(told):
    """What a super-packet leaves to hardware; the length of the headers is only a hint."""
    return told[0] & twin.NEEDS_CHECKSUM, told[1], *told[3:]


@pytest.mark.parametrize("offload", ["tso", "tx"])
def test_what_the_other_side_does_not_take_is_cut_and_completed_here(places, offload):
    """Without its offloads the kernel drops super-packets from this kind of socket."""
    made_of = list(cases())
    middle = places[1]
    words = [word for each in ("tso", "gso", "tx-udp-segmentation") for word in (each, "off")]
    middle.run("ethtool", "-K", "east", *(words if offload == "tso" else ["tx", "off"]))
    try:
        heard, account = through(places, [(data, told) for data, told, _, _ in made_of])
    finally:
        middle.run("ethtool", "-K", "east", "tx", "on", *(word.replace("off", "on") for word in words))
    wanted = [segment for *_, segments in made_of for segment in segments]
    assert [frame.hex() for _, frame in heard] == [each.hex() for each in wanted]
    assert account["packets"]["dropped"] == {}


def test_segments_that_exceed_the_mtu_are_too_long(places):
    middle = places[1]
    middle.set_link("east", "mtu", "900")
    try:
        heard, account = through(places, [(data, told) for data, told, _, _ in cases()], status=3)
    finally:
        middle.set_link("east", "mtu", "1500")
    assert heard == []
    assert account["packets"]["dropped"] == {"sink.too_long": len(list(cases()))}


@pytest.mark.parametrize("segments", ["merged", "wire"])
def test_a_capture_has_true_checksums_and_on_request_segments(places, tmp_path, segments):
    left, middle, _ = places
    made_of = list(cases())
    out = tmp_path / "out.pcap"
    with running(middle, "-w", out, "--segments", segments, "ether src 02:00:00:00:00:01") as accounts:
        send(left, [(data, told) for data, told, _, _ in made_of])
    frames = [frame for _, frame in read_pcap(out)]
    wanted = [whole for _, _, whole, _ in made_of]
    if segments == "wire":
        wanted = [segment for *_, parts in made_of for segment in parts]
    assert [each.hex() for each in frames] == [each.hex() for each in wanted]
    assert accounts[0]["packets"]["written"] == len(frames)
