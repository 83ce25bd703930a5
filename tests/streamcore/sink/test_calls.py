"""Splitting by telephone call. Each scenario says for each of its packets which calls it belongs to; scapy makes the
packets, and tshark is the oracle for which SIP message set up which RTP."""

# ruff: noqa: E501

from __future__ import annotations

import itertools
import random
import subprocess
import time
from collections import defaultdict

import pytest
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.packets import Arena, Outgoing
from streamcore.sink.split.messages import Datagrams, Streams
from streamcore.sink.split.sip import begins, early_call_id, ends_of, message_bytes, parse
from streamcore.sink.splitting import SplitSink
from streamcore.source.capture import CaptureSource
from tests.streamcore.conftest import read_pcap

pytestmark = pytest.mark.usefixtures("nothing_left")

START_S = 1_700_000_000.0
A, B, C, PROXY = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9"


def link(source, target):
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / (
        IPv6(src=source, dst=target) if ":" in source else IP(src=source, dst=target)
    )


def udp(source, target, source_port, target_port, data):
    return link(source, target) / UDP(sport=source_port, dport=target_port) / Raw(data)


def rtp(source, target, source_port, target_port, number=0):
    return udp(source, target, source_port, target_port, b"\x80\x08" + number.to_bytes(10, "big") + b"voice" * 8)


def sdp(address, *media, lines=()):
    kind = "IP6" if ":" in address else "IP4"
    text = ["v=0", f"o=- 1 1 IN {kind} {address}", "s=-", f"c=IN {kind} {address}", "t=0 0"]
    for port in media:
        text += [f"m=audio {port} RTP/AVP 8", *lines]
    return "\r\n".join([*text, ""])


def message(
    start, call_id, cseq, body="", headers=(), caller="alice", callee="bob", tag="", short=False, kind="application/sdp"
):
    names = ("i", "f", "t", "c", "l") if short else ("Call-ID", "From", "To", "Content-Type", "Content-Length")
    lines = [
        f"{start} SIP/2.0" if not start.startswith("SIP/") else start,
        "Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1",
        f"{names[1]}: <sip:{caller}@example.com>;tag=a",
        f"{names[2]}: <sip:{callee}@example.com>{tag}",
        f"{names[0]}: {call_id}",
        f"CSeq: {cseq}",
        *headers,
        *([f"{names[3]}: {kind}"] if body else []),
        f"{names[4]}: {len(body)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def sip(source, target, *rest, **named):
    return udp(source, target, 5060, 5060, message(*rest, **named))


def ordinary_call(call_id="one@a", a=A, b=B, a_port=4000, b_port=5000):
    """(packet, calls) with media of both sides before the 200 OK, RTCP, and late media."""
    mine = [
        sip(a, b, "INVITE sip:bob@example.com", call_id, "1 INVITE", sdp(a, a_port)),
        sip(b, a, "SIP/2.0 180 Ringing", call_id, "1 INVITE"),
        rtp(b, a, b_port, a_port), rtp(a, b, a_port, b_port),  # early media: to and from what the INVITE named
        sip(b, a, "SIP/2.0 200 OK", call_id, "1 INVITE", sdp(b, b_port), tag=";tag=b"),
        sip(a, b, "ACK sip:bob@example.com", call_id, "1 ACK", tag=";tag=b"),
        rtp(a, b, 49_999, b_port), rtp(b, a, b_port, a_port, 1),
        udp(a, b, a_port + 1, b_port + 1, b"\x80\xc8\0\6" + bytes(24)),
        sip(a, b, "BYE sip:bob@example.com", call_id, "2 BYE", tag=";tag=b"),
        rtp(b, a, b_port, a_port, 2),
        sip(b, a, "SIP/2.0 200 OK", call_id, "2 BYE", tag=";tag=b"),
    ]  # fmt: skip
    return [(each, {call_id}) for each in mine]


def stray():
    return [(rtp(A, B, 4444, 5555), set()), (sip(A, PROXY, "REGISTER sip:x", "reg@a", "1 REGISTER"), set())]


def moved_media():
    """A re-INVITE moves A's media to another address and port, and adds video."""
    call_id = "moved"
    calls = ordinary_call(call_id)[:6]
    calls += [
        (rtp(B, "10.0.0.77", 5000, 6000), set()),  # not named yet, though B sends from an end of the call
        (sip(A, B, "INVITE sip:bob@example.com", call_id, "2 INVITE", sdp("10.0.0.77", 6000, 6002), tag=";tag=b"), {call_id}),
        (sip(B, A, "SIP/2.0 200 OK", call_id, "2 INVITE", sdp(B, 5000, 5010), tag=";tag=b"), {call_id}),
        (rtp("10.0.0.77", B, 6000, 5000), {call_id}), (rtp("10.0.0.77", B, 6002, 5010), {call_id}),
        (rtp("10.0.0.78", "10.0.0.77", 1, 6002), {call_id}), (rtp("10.0.0.78", "10.0.0.77", 1, 6003), {call_id}),
    ]  # fmt: skip
    calls[6] = (calls[6][0], {call_id})  # its source is an end of the call
    return calls


def blind_transfer():
    """A refers B to C: the call that B then makes goes on in the same file."""
    first = ordinary_call("first")[:8]
    first.append(
        (
            sip(
                A,
                B,
                "REFER sip:bob@example.com",
                "first",
                "2 REFER",
                headers=["Refer-To: <sip:carol@example.com>"],
                tag=";tag=b",
            ),
            {"first"},
        )
    )
    other = [
        sip(B, C, "INVITE sip:carol@example.com", "second", "1 INVITE", sdp(B, 5500), caller="bob", callee="carol"),
        sip(C, B, "SIP/2.0 200 OK", "second", "1 INVITE", sdp(C, 7000), caller="bob", callee="carol"),
        rtp(B, C, 5500, 7000), rtp(C, B, 7000, 5500),
    ]  # fmt: skip
    # Somebody else calls carol as well, and was not referred to her.
    apart = (
        sip("10.0.0.50", C, "INVITE sip:carol@example.com", "apart", "1 INVITE", caller="dave", callee="carol"),
        {"apart"},
    )
    return first + [(each, {"first"}) for each in other] + [apart]


def attended_transfer():
    """A calls B and C, then refers B to C, replacing its own call: the new call is of both."""
    first, second = ordinary_call("first")[:8], ordinary_call("second", b=C, a_port=4100, b_port=7000)[:8]
    refer = "Refer-To: <sip:carol@example.com?Replaces=second%3Bto-tag%3Db%3Bfrom-tag%3Da>"
    both = {"first", "second"}
    return [
        *first, *second,
        (sip(A, B, "REFER sip:bob@example.com", "first", "2 REFER", headers=[refer], tag=";tag=b"), {"first"}),
        (sip(B, C, "INVITE sip:carol@example.com", "third", "1 INVITE", sdp(B, 5500), headers=["Replaces: second;to-tag=b;from-tag=a"]), both),
        (sip(C, B, "SIP/2.0 200 OK", "third", "1 INVITE", sdp(C, 7100)), both),
        (rtp(B, C, 5500, 7100), both), (rtp(C, B, 7100, 5500), both),
        (sip(A, C, "BYE sip:carol@example.com", "second", "2 BYE", tag=";tag=b"), {"second"}),
    ]  # fmt: skip


def reused_port():
    """The same telephone uses its port for the next call: media go to the one that has it now."""
    return ordinary_call("before") + ordinary_call("after")


def over_tcp():
    """A connection that carries two calls: messages in several segments, two in one, one out of order, one again."""

    def segment(sequence, data, push="PA"):
        return link(A, B) / TCP(sport=5999, dport=5060, seq=sequence, flags=push) / Raw(data)

    long = [f"X-Long: {'x' * 300}"]
    one = message("INVITE sip:bob@example.com", "tcp-1", "1 INVITE", sdp(A, 4000), headers=long)
    two = message("INVITE sip:bob@example.com", "tcp-2", "1 INVITE", sdp(A, 4100), headers=long, short=True)
    at, ack = 1000, message("ACK sip:bob@example.com", "tcp-1", "1 ACK")
    calls = [
        (segment(at, one[:300]), {"tcp-1"}), (segment(at + 300, one[300:350]), {"tcp-1"}),
        (rtp(B, A, 5000, 4000), set()),
        (segment(at + 350, one[350:] + two[:200]), {"tcp-1", "tcp-2"}),
        (segment(at + 300, one[300:350]), {"tcp-2"}),  # again: of whichever message is under way
        (rtp(B, A, 5000, 4000), {"tcp-1"}),
    ]  # fmt: skip
    at += len(one)
    calls += [
        (segment(at + 300, two[300:]), {"tcp-2"}),
        (rtp(B, A, 5000, 4100), set()),
        (segment(at + 200, two[200:300]), {"tcp-2"}),
        (rtp(B, A, 5000, 4100), {"tcp-2"}),
        (segment(at + len(two), b"\r\n\r\n" + ack), {"tcp-1"}),
        (link(B, A) / TCP(sport=5060, dport=5999, seq=1, flags="A"), set()),
    ]  # fmt: skip
    return calls


def fragmented():
    """An INVITE and RTP too long for one packet, IPv4 and IPv6; the fragments' SDP counts once all are there."""
    calls = []
    for number, (a, b) in enumerate(((A, B), ("2001:db8::1", "2001:db8::2"))):
        call_id = f"long-{number}"
        data = message(
            "INVITE sip:bob@example.com", call_id, "1 INVITE", sdp(a, 4000), headers=[f"X-Long: {'x' * 1500}"]
        )
        for long, name in (
            (udp(a, b, 5060, 5060, data), call_id),
            (udp(b, a, 5000, 4000, b"\x80\x08" + bytes(2000)), call_id),
        ):
            if number:
                packet = long[Ether].payload
                whole = IPv6(src=packet.src, dst=packet.dst) / IPv6ExtHdrFragment(id=7 + len(calls)) / packet.payload
                calls += [(Ether() / each, {name}) for each in fragment6(whole, 1280)]
            else:
                long[IP].id = 7 + len(calls)
                calls += [(each, {name}) for each in fragment(long, 1000)]
    return calls


def several_media():
    """IPv6, several media, RTCP elsewhere, ICE candidates, a VLAN, short header names, multipart bodies, T.38."""
    a, b = "2001:db8::1", "2001:db8::2"
    lines = ["a=rtcp:4500 IN IP6 2001:db8::5", "a=candidate:1 1 UDP 1 2001:db8::6 4600 typ host", "m=image 4700 udptl t38",
             "m=audio 4800/2 RTP/AVP 0", "c=IN IP4 10.9.9.9/127", "m=message 4900 TCP/MSRP *", "m=audio 0 RTP/AVP 0"]  # fmt: skip
    body = "--x\r\nContent-Type: application/sdp\r\n\r\n" + sdp(a, 4000, lines=lines) + "\r\n--x--\r\n"
    calls = [
        (
            sip(
                a,
                b,
                "INVITE sip:bob@example.com",
                "many",
                "1 INVITE",
                body,
                short=True,
                kind="multipart/mixed;boundary=x",
            ),
            {"many"},
        )
    ]
    for address, port, wanted in (
        (a, 4000, True), (a, 4001, False), ("2001:db8::5", 4500, True), ("2001:db8::6", 4600, True), (a, 4700, True),
        ("10.9.9.9", 4800, True), ("10.9.9.9", 4801, True), ("10.9.9.9", 4802, True), ("10.9.9.9", 4803, True),
        ("10.9.9.9", 4804, False), (a, 4900, False), (b, 4000, False),
    ):  # fmt: skip
        source = "10.8.8.8" if "." in address else "2001:db8::99"
        packet = rtp(source, address, 9, port)
        tagged = Ether(src=packet.src, dst=packet.dst) / Dot1Q(vlan=7) / packet.payload
        calls += [(packet, {"many"} if wanted else set()), (tagged, {"many"} if wanted else set())]
    return calls


def refused_and_again():
    """A call that needs credentials goes on; one that is refused is over, and its port free for the next."""
    return [
        (sip(A, PROXY, "INVITE sip:bob@example.com", "again", "1 INVITE", sdp(A, 4000)), {"again"}),
        (sip(PROXY, A, "SIP/2.0 407 Proxy Authentication Required", "again", "1 INVITE"), {"again"}),
        (sip(A, PROXY, "INVITE sip:bob@example.com", "again", "2 INVITE", sdp(A, 4000)), {"again"}),
        (sip(PROXY, A, "SIP/2.0 486 Busy Here", "again", "2 INVITE"), {"again"}),
        (sip(A, PROXY, "INVITE sip:carol@example.com", "next", "1 INVITE", sdp(A, 4000)), {"next"}),
        (rtp(PROXY, A, 9, 4000), {"next"}),
        (sip(B, A, "SIP/2.0 200 OK", "unknown", "1 OPTIONS"), set()),
        (sip(A, B, "BYE sip:bob@example.com", "begun-earlier", "9 BYE"), {"begun-earlier"}),
    ]


SCENARIOS = (
    ordinary_call, moved_media, blind_transfer, attended_transfer, reused_port, over_tcp, fragmented, several_media,
    refused_and_again,
)  # fmt: skip


def split(directory, packets, batch_rows=1 << 12, **keys):
    """{label: frames} and the counters of a split by call of these packets, a second apart."""
    for number, packet in enumerate(packets):
        packet.time = START_S + number
    directory.mkdir(exist_ok=True)
    wrpcap(str(directory / "in.pcap"), packets, linktype=1)
    counters = Counters()
    with CaptureSource(directory / "in.pcap", Arena(4, 1 << 20, batch_rows)) as source:
        sink = SplitSink(
            Config(read="-", write=str(directory / "out.pcap"), split="call", **keys), interfaces=source.interfaces,
            form=source.form, counters=counters, on_commit=lambda _: None, on_file=lambda _: None,
        )  # fmt: skip
        written = sum(sink.write(Outgoing(batch, 0, len(batch)))[0] for batch in source)
        sink.close()
    assert written == len(packets)
    files = {each.name[4:-5]: read_pcap(each) for each in directory.iterdir() if each.name.startswith("out-")}
    return files, counters


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_each_packet_lies_in_the_file_of_its_call(tmp_path, scenario):
    """Also if each packet is a batch of its own."""
    cases = stray() + scenario()
    expected = defaultdict(list)
    for number, (packet, calls) in enumerate(cases):
        for call in calls or {"rest"}:
            expected[call].append((START_S + number, bytes(packet)))
    for rows in (1 << 12, 1 << 10):
        files, counters = split(tmp_path / str(rows), [packet for packet, _ in cases], rows)
        got = {label.rpartition("_")[2]: packets for label, packets in files.items()}
        assert got == expected
        assert counters.packets("sink.in_rest") == len(expected["rest"])


def test_tshark_sees_the_same_calls(tmp_path):
    """For SIP the Call-ID that tshark shows; for RTP that of the message by which tshark says that it was set up."""
    order = list(range(5)) * len(ordinary_call())
    random.Random(1).shuffle(order)
    of_call = [iter(ordinary_call(f"call-{n}", a_port=4000 + 10 * n, b_port=5000 + 10 * n)) for n in range(5)]
    packets = [next(of_call[number])[0] for number in order]
    files, _ = split(tmp_path, packets)
    shown = subprocess.run(
        ["tshark", "-2", "-nr", tmp_path / "in.pcap", "-d", "udp.port==49999,rtp", "-Tfields", "-e", "sip.Call-ID", "-e", "rtp.setup-frame", "-e",
         "rtcp.setup-frame"], check=True, capture_output=True, text=True,
    ).stdout.split("\n")[:-1]  # fmt: skip
    calls = []
    for line in shown:
        call, *setups = line.split("\t")
        setup = next((each for each in setups if each), "")
        calls.append(call or (calls[int(setup) - 1] if setup and int(setup) <= len(calls) else ""))
    times = {label.rpartition("_")[2]: {round(at - START_S) for at, _ in packets} for label, packets in files.items()}
    known = [(number, call) for number, call in enumerate(calls) if call]
    assert len(known) > 0.7 * len(packets)
    assert all(number in times[call] for number, call in known)


def test_no_more_files_than_said(tmp_path):
    packets = [
        packet for number in range(5) for packet, _ in ordinary_call(f"call-{number}", a_port=4000 + 10 * number)
    ]
    files, counters = split(tmp_path, packets, split_files=3)
    assert len(files) == 4
    assert sum(map(len, files.values())) == len(packets)
    assert counters.events("sink.beyond_files") > 0


@pytest.mark.parametrize("strangers_first", [True, False])
def test_strangers_who_name_an_address_take_nothing_from_its_call(tmp_path, strangers_first):
    """Five calls of others name A's port, before A does or after: A's media stay in A's call, and who is left out counts."""
    calls = [sip(C, PROXY, "INVITE sip:x@y", f"evil-{n}", "1 INVITE", sdp(A, 4000)) for n in range(5)]
    calls.insert(0 if not strangers_first else 5, sip(A, B, "INVITE sip:bob@b", "real", "1 INVITE", sdp(A, 4000)))
    files, counters = split(tmp_path, calls + [rtp(B, A, 5000, 4000, number) for number in range(3)])
    counts = {label.rpartition("_")[2]: len(packets) for label, packets in files.items()}
    assert counts == {"real": 4, "evil-4": 4, "evil-3": 4, "evil-2": 4, "evil-1": 1, "evil-0": 1}
    assert counters.events("sink.beyond_ends") == 4  # of two ends each, RTP and RTCP


def test_newer_calls_of_an_address_come_before_its_older_ones(tmp_path):
    calls = [sip(A, B, "INVITE sip:bob@b", f"call-{n}", "1 INVITE", sdp(A, 4000)) for n in range(5)]
    stranger = sip(C, PROXY, "INVITE sip:x@y", "evil", "1 INVITE", sdp(A, 4000))
    files, counters = split(tmp_path, [*calls, stranger, rtp(B, A, 5000, 4000)])
    counts = {label.rpartition("_")[2]: len(packets) for label, packets in files.items()}
    assert counts == {"call-0": 1, "evil": 1, **{f"call-{n}": 2 for n in range(1, 5)}}
    assert counters.events("sink.beyond_ends") == 4


def test_names_are_safe(tmp_path):
    """Whatever a Call-ID and a user part say, files lie in the directory, and none replaces another."""
    evil = [
        "../../../tmp/x",
        "/etc/passwd",
        "..",
        "-rf",
        "a" * 250,
        "a" * 249 + "b",
        "%2e%2e%2f",
        "$(reboot)",
        "`x`",
        "a|b",
        "c\\d",
        "|x",
    ]
    packets = [sip(A, B, "INVITE sip:b@c", call, "1 INVITE", caller="../../x", callee="%00%2f") for call in evil]
    files, _ = split(tmp_path / "out", packets)
    assert len(files) == len(evil)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out"]
    assert all(len(label) < 200 and "/" not in label for label in files)


@pytest.mark.parametrize(
    "bad",
    [
        b"", b"INVITE", b"INVITE sip:a SIP/2.0", b"INVITE sip:a SIP/3.0\r\n\r\n", b"SIP/2.0 99 x\r\nCall-ID: a\r\n\r\n",
        message("INVITE sip:a", "a b", "1 INVITE"), message("INVITE sip:a", "a\0b", "1 INVITE"),
        message("INVITE sip:a", "a", "1 BYE"), message("INVITE sip:a", "a", "INVITE"),
        message("INVITE sip:a", "a", "1 INVITE").replace(b"Call-ID: a", b"Call-ID: a\r\nCall-ID: b"),
        message("INVITE sip:a", "a", "1 INVITE").replace(b"Via", b"V\xffa"),
        b"INVITE sip:a SIP/2.0\r\n" + b"A: b\r\n" * 500 + b"Call-ID: a\r\nCSeq: 1 INVITE\r\n\r\n", b"INVITE " + b"a" * 70_000,
    ],
)  # fmt: skip
def test_what_is_no_message(bad):
    assert parse(bad) is None


def test_hostile_descriptions_end_and_are_bounded():
    for body in (
        b"m=audio 1/99999 RTP/AVP 0\r\n" * 5000, b"c=IN IP4 1.2.3.4\r\nm=audio 65535/16 RTP/AVP 0\r\n", b"m=\r\nc=\r\na=rtcp:\r\n",
        b"c=IN IP4 1.2.3.4\r\n" + b"m=audio 4000 RTP/AVP 0\r\n" * 4000, b"a=candidate:" + b"1 " * 9000, b"\xff" * 1000,
        b"c=IN IP4 999.1.1.1\r\nm=audio 4 RTP/AVP 0", "c=IN IP4 ١.٢.٣.٤\r\nm=audio ٤ RTP/AVP 0".encode(), b"c=IN IP6 ::\r\nm=audio 4 a 0",
    ):  # fmt: skip
        ends = ends_of(body)
        assert len(ends) <= 64
        assert all(len(address) == 16 and 0 < port <= 65_535 for address, port in ends)
    assert ends_of(b"c=IN IP4 1.2.3.4\r\nm=audio 0 RTP/AVP 0\r\n") == []


def test_a_header_of_blanks_takes_no_longer_than_any_other():
    """Five headers of 4,096 blanks took two seconds: the time grew with the square of their number."""
    blanks = [f"{name}: x{' ' * 8_000}y" for name in ("Refer-To", "Referred-By", "Replaces")]
    data = message("INVITE sip:bob@b", "one", "1 INVITE", headers=blanks)
    begun_s = time.process_time()
    for _ in range(20):
        assert parse(data) is not None
    assert time.process_time() - begun_s < 4


def test_messages_are_put_together_whatever_the_segments():
    """Random messages, cut at random, some segments again and some changed over: what comes out is what went in."""
    chance = random.Random(3)
    for attempt in range(60):
        whole = [
            message("INVITE sip:a", f"id-{attempt}-{number}", "1 INVITE", "x" * chance.randrange(300), short=bool(number % 2))
            for number in range(chance.randrange(1, 5))
        ]  # fmt: skip
        data = b"".join(whole)
        start = chance.choice([5, (1 << 32) - 100])
        cuts = sorted({0, len(data), *(chance.randrange(20, len(data)) for _ in range(chance.randrange(8)))})
        segments = [(begin, data[begin:end]) for begin, end in itertools.pairwise(cuts)]
        for _ in range(3):
            place = chance.randrange(len(segments))
            segments.insert(min(len(segments), place + chance.randrange(1, 3)), segments[place])
        if len(segments) > 3:
            place = chance.randrange(1, len(segments) - 1)
            segments[place], segments[place + 1] = segments[place + 1], segments[place]
        streams, got = Streams(), []
        for begin, part in segments:
            taken, _ = streams.take((b"a", 1, b"b", 2), (start + begin) & 0xFFFFFFFF, part)
            got += taken
        assert got == whole, attempt
        datagrams, got = Datagrams(), []
        parts = [(begin, data[begin : begin + 64], begin + 64 < len(data)) for begin in range(0, len(data), 64)]
        chance.shuffle(parts)
        for begin, part, more in parts:
            got += datagrams.take(1, begin, more, part)[0]
        assert got == [data[8:]]


def test_early_words():
    data = message("INVITE sip:a", "here@x", "1 INVITE", "body")
    assert message_bytes(data) == len(data)
    assert message_bytes(data[:50]) == 0
    assert message_bytes(b"GET / HTTP/1.1\r\n\r\n") == -1
    assert early_call_id(data[: data.index(b"CSeq")]) == "here@x"
    assert early_call_id(data[:40]) == ""
    assert not begins(b"\x80\x08")
