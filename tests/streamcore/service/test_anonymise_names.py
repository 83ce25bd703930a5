"""names=replace in messages as the wild writes them: short and folded headers, empty lines in front, several messages
in one packet, messages over several segments, texts in bodies, names with compression. What frames a message stays.
"""

from __future__ import annotations

import logging
import struct

import pytest
from packets_by_hand import make_segment, packets_of, run

from streamcore.service.anonymise import Anonymise

logging.getLogger("scapy").setLevel(logging.ERROR)
s = pytest.importorskip("scapy.all", reason="scapy is not installed")

KEY = bytes(range(7, 39)).hex()
NEEDLES = [b"needle", b"192.0.2.99", b"2001:db8:7", b"pbx", b"elsewhere"]
FOUR = s.IP(src="198.51.100.23", dst="203.0.113.77")


def replaced(payload: bytes, upper: object) -> bytes:
    """The payload that leaves."""
    packet = bytes(s.Ether() / FOUR / upper / s.Raw(payload))
    service = Anonymise(key=KEY, names="replace")
    service.start()
    (got,) = packets_of(run(make_segment([packet]), service))
    assert len(got) == len(packet)
    return got[len(packet) - len(payload) :]


SHORT = b"""INVITE sip:needle@pbx.example SIP/2.0\r
v: SIP/2.0/UDP 192.0.2.99:5060;branch=z9hG4bKneedle;received=192.0.2.99;rport=5060\r
f: "Needle" <sip:needle@pbx.example>;tag=1\r
t: <sip:needle@pbx.example>\r
m: <sip:needle@[2001:db8:7::1]:5060;transport=tcp;lr>\r
i: 77needle@pbx.example\r
c: application/sdp\r
l: 142\r
Record-Route: <sip:pbx.example;lr>\r
P-Asserted-Identity : "Needle" <tel:+49needle>\r
CSeq : 314159 INVITE\r
Max-Forwards: 70\r
\r
v=0\r
o=needle 1 2 IN IP4 192.0.2.99\r
s=call of needle\r
c=IN IP6 2001:db8:7::1\r
t=0 0\r
m=audio 49170 RTP/AVP 0\r
a=rtpmap:0 PCMU/8000\r
a=candidate:1 1 UDP 1 192.0.2.99 9 typ host\r
"""
KEPT = b""" SIP/2.0\r
v: SIP/2.0/UDP
;branch=
;received=
;rport=
;tag=
<sip:
<tel:
;transport=tcp;lr>
c: application/sdp\r
l: 142\r
CSeq : 314159 INVITE\r
Max-Forwards: 70\r
 IN IP4
c=IN IP6
m=audio 49170 RTP/AVP 0\r
a=rtpmap:0 PCMU/8000\r
t=0 0\r""".split(b"\n")
FOLDED = b"""SIP/2.0 302 needle moved elsewhere\r
From:\r
 Needle of pbx <sip:needle@192.0.2.99>\r
To: "x"\r
\telsewhere: needle\r
Content-Type: multipart/mixed;boundary=needle\r
Content-Length: 99\r
\r
--needle\r
needle: elsewhere\r
<presence entity="sip:needle@pbx"><note>needle: pbx</note>\r
"""
REST = b"edle@pbx.example SIP/2.0\r\nneedle@elsewhere>;tag=1\r\nTo: needle\r\n needle\r\n"
SIP = {
    "short": SHORT,
    "folded": FOLDED,
    "empty lines in front": b"\r\n\r\n" + SHORT,
    "several": b"OPTIONS sip:needle SIP/2.0\r\nl: 0\r\n\r\nBYE sip:needle@pbx SIP/2.0\r\nFrom: needle\r\nl: 0\r\n\r\n",
    "version in small letters": b"INVITE sip:needle@pbx sip/2.0\r\nTo: needle\r\n\r\n",
}
GET = b"GET / HTTP/1.1\r\nHost: needle.example\r\nAccept: text/html\r\n\r\n"
HTTP = {
    "host": GET,
    "spaces": b"GET / HTTP/1.1\r\nHost : needle.example\r\nHOST:needle\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nHost:\r\n needle.example:8080\r\nCookie: a=b;\r\n needle=elsewhere\r\n\r\n",
    "pipelined": GET + GET + b"POST / HTTP/1.1\r\nContent-Length: 0\r\nOrigin: http://needle\r\n\r\n" + GET,
    "empty lines in front": b"\r\n" + GET,
    "small letters": b"get / http/1.1\r\nhost: needle\r\n\r\n",
    "whole address": b"GET http://needle.example/x HTTP/1.1\r\n\r\n",
    "proxy": b"CONNECT needle.example:443 HTTP/1.1\r\n\r\n",
    "answer": b"HTTP/1.1 302 Found\r\nLocation: http://needle.example/\r\nSet-Cookie: needle=pbx\r\n"
    b"Access-Control-Allow-Origin: https://needle.example\r\n\r\n",
    "host by the protocol's words": b"GET / HTTP/1.1\r\nHost: tag.needle.branch\r\n\r\n",
}


def left(payload: bytes) -> list[bytes]:
    return [each for each in NEEDLES if each in payload.lower()]


def test_sip_over_any_port_and_transport():
    for name, message in SIP.items():
        for upper in (s.UDP(sport=5060, dport=5060), s.UDP(sport=7000, dport=7001), s.TCP(sport=7000, dport=7001)):
            assert left(message), name
            assert not left(replaced(message, upper)), name


def test_what_frames_sip_stays():
    got = replaced(SHORT, s.UDP(sport=5060, dport=5060))
    assert not [each for each in KEPT if each not in got]
    assert [line.split(b":")[0] for line in got.split(b"\r\n\r\n")[0].splitlines()[1:]] == [
        line.split(b":")[0] for line in SHORT.split(b"\r\n\r\n")[0].splitlines()[1:]
    ]
    got = replaced(FOLDED, s.UDP(sport=5060, dport=5060))
    assert got.startswith(b"SIP/2.0 302 ")
    assert b"Content-Length: 99\r\n" in got
    boundary = got.split(b"boundary=")[1].split(b"\r\n")[0]
    assert b"\r\n--" + boundary + b"\r\n" in got


def test_sip_cut_into_segments_anywhere():
    """On its port each segment is taken for SIP, wherever the one before ended."""
    message = SHORT + FOLDED
    upper = s.TCP(sport=5060, dport=40_000)
    for at in range(1, len(message)):
        ends = [message[:at], message[at : at + 300]]
        found = left(b"".join(replaced(each, upper) for each in ends if each))
        assert not found, (at, found)
    assert not left(replaced(REST, upper))


def test_http():
    for name, message in HTTP.items():
        for upper in (s.TCP(sport=40_000, dport=80), s.TCP(sport=8000, dport=40_000)):
            assert left(message), name
            assert not left(replaced(message, upper)), name
    assert b"Accept: text/html\r\n" in replaced(GET, s.TCP(dport=80))
    got = replaced(HTTP["host by the protocol's words"], s.TCP(dport=80))
    assert b"tag" not in got
    assert b"branch" not in got


def label(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def record(name: bytes, kind: int, data: bytes) -> bytes:
    return name + struct.pack(">HHIH", kind, 1, 60, len(data)) + data


NAME = label(b"www") + label(b"needle") + label(b"example") + b"\0"
AT = struct.pack(">H", 0xC00C)  # the question's name
RECORDS = [
    record(AT, 5, label(b"needle7") + struct.pack(">H", 0xC010)),
    record(AT, 1, bytes([192, 0, 2, 99])),
    record(b"\xc0\x10", 28, bytes.fromhex("20010db8000700000000000000000063")),
    record(AT, 33, bytes(6) + label(b"needle9") + AT),
    record(AT, 15, bytes(2) + label(b"needle8") + AT),
    record(AT, 6, label(b"needle") + AT + label(b"pbx") + b"\0" + bytes(20)),
    record(b"\0", 41, b"\0\x08\0\x08\0\1\x20\0" + bytes([192, 0, 2, 99])),  # a client's subnet, RFC 7871
    record(AT, 16, label(b"needle")),
    record(label(b"\1\2needle\3") + b"\0", 12, label(b"needle's book") + NAME),
    record(AT, 65, b"\0\1" + NAME + b"\0\4\0\4" + bytes([192, 0, 2, 99])),
]
ANSWER = struct.pack(">6H", 1, 0x8400, 1, len(RECORDS), 0, 0) + NAME + b"\0\1\0\1" + b"".join(RECORDS)


def test_dns_with_compression():
    needles = [b"needle", b"pbx", b"www", b"\1\2", bytes([192, 0, 2, 99]), bytes.fromhex("20010db80007")]
    for port in (53, 5353, 5355):
        assert all(each in ANSWER for each in needles)
        got = replaced(ANSWER, s.UDP(sport=port, dport=port))
        assert not [each for each in needles if each in got]
        told = s.DNS(got)
        assert told.ancount == len(RECORDS)
        assert [each.type for each in told.an] == [each.type for each in s.DNS(ANSWER).an]
        assert {len(each.rrname) for each in told.an[:2]} == {len(b"www.needle.example.")}
        assert told.an[0].rrname == told.qd[0].qname == told.an[1].rrname
    for at in range(len(ANSWER)):  # cut by the capture, or broken
        got = replaced(ANSWER[:at] + b"\x3f" + ANSWER[at + 1 :], s.UDP(sport=53, dport=53))
        assert b"needle" not in got, at
