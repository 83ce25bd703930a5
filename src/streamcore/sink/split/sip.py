"""SIP messages (RFC 3261) and the SDP in them (RFC 8866), as far as it takes to tell telephone calls apart.

dpkt reads the headers, after checks of the form; whatever does not pass is no message. All text is a stranger's:
lengths and counts are bounded, and nothing but the fields of Message leaves.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

import dpkt
from dpkt.sip import Request

MESSAGE_BYTES_MAX = 65_535
HEADER_LINES_MAX = 256
SDP_LINES_MAX = 1024
ENDS_MAX = 64  # addresses with ports that one message may name
METHODS = (
    "INVITE", "ACK", "BYE", "CANCEL", "PRACK", "UPDATE", "INFO", "REFER", "OPTIONS", "REGISTER", "SUBSCRIBE", "NOTIFY",
    "MESSAGE", "PUBLISH",
)  # fmt: skip
STARTS = (b"SIP/2.0 ", *(f"{method} ".encode() for method in METHODS))
SHORT = {"i": "call-id", "f": "from", "t": "to", "m": "contact", "c": "content-type", "l": "content-length",
         "r": "refer-to", "b": "referred-by"}  # fmt: skip

_REQUEST_LINE = re.compile(rb"([A-Z]{3,12}) ([!-~]{1,2048}) SIP/2\.0\Z")
_STATUS_LINE = re.compile(rb"SIP/2\.0 ([1-6][0-9]{2}) [^\r\n]{0,512}\Z")
_HEADER = re.compile(rb"([!#-'*+.0-9A-Z^-z|~-]{1,64})[ \t]*:[ \t]*([^\r\n\0]*)\Z")
_CALL_ID = re.compile(r"[!-~]{1,256}\Z")
_CALL_ID_LINE = re.compile(rb"(?:\A|\n)(?:call-id|i)[ \t]*:[ \t]*([!-~]{1,256})[ \t]*\r?\n", re.IGNORECASE)
_CSEQ = re.compile(r"[0-9]{1,10}[ \t]+([A-Z]{3,12})\Z")
_URI = re.compile(r"(?:sips?|tel):(?:([^@<>;?\s]{1,256})@)?([^<>;?\s]{1,256})([^>]{0,1024})", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,5}\Z")

End = tuple[bytes, int]  # an address as 16 bytes (IPv4 as ::ffff:a.b.c.d), and a port


class Message(NamedTuple):
    """A SIP message. Fields that are absent are ""."""

    method: str  # of a response: the one that it answers
    status: int  # 0: it is a request
    call_id: str
    uri: str  # user@host of the request, in lower case
    caller: str  # user@host of From
    callee: str  # user@host of To
    in_dialog: bool  # To has a tag
    replaces: str  # Call-ID of the call that this one takes over (RFC 3891)
    refer_to: str  # user@host that the other side shall call (RFC 3515)
    refer_replaces: str  # Call-ID of the call that this call shall take over
    referred_by: str  # user@host (RFC 3892)
    ends: tuple[End, ...]  # that its SDP names for UDP


def begins(data: bytes) -> bool:
    """Whether a message may begin here."""
    return data.startswith(STARTS)


def early_call_id(data: bytes) -> str:
    """The Call-ID of a message of which not all has arrived; "" if it is not there."""
    found = _CALL_ID_LINE.search(data[:MESSAGE_BYTES_MAX])
    return found[1].decode("ascii") if found and begins(data) else ""


def message_bytes(data: bytes) -> int:
    """The length of the message that begins here, in a stream; 0: its header is not whole; -1: there is none."""
    if not begins(data):
        return 0 if any(each.startswith(data) for each in STARTS) else -1
    end = data.find(b"\r\n\r\n", 0, MESSAGE_BYTES_MAX)
    if end < 0:
        return 0 if len(data) < MESSAGE_BYTES_MAX else -1
    headers = _headers_of(data[:end].split(b"\r\n")[1:])
    length = _one(headers, "content-length") if headers is not None else ""
    return end + 4 + (int(length) if _LENGTH.match(length) else 0) if headers is not None else -1


def parse(data: bytes) -> Message | None:
    """The message in a datagram, or taken from a stream; None if it is not one. Raises nothing."""
    if len(data) > MESSAGE_BYTES_MAX or not begins(data):
        return None
    head, _, body = data.partition(b"\r\n\r\n")
    lines = re.sub(rb"\r\n[ \t]+", b" ", head).split(b"\r\n")  # long headers may go on in the next line
    headers = _headers_of(lines[1:])
    request, status = _REQUEST_LINE.match(lines[0]), _STATUS_LINE.match(lines[0])
    if headers is None or not (request or status):
        return None
    call_id, cseq = _one(headers, "call-id").strip(), _CSEQ.match(_one(headers, "cseq").strip())
    if not _CALL_ID.match(call_id) or cseq is None or cseq[1] not in METHODS:
        return None
    if request and request[1].decode() != cseq[1]:
        return None
    length = _one(headers, "content-length")
    body = body[: int(length)] if _LENGTH.match(length) else body
    refer, _, refer_more = _uri(_one(headers, "refer-to"))
    return Message(
        method=cseq[1],
        status=int(status[1]) if status else 0,
        call_id=call_id,
        uri=_uri(request[2].decode("ascii"))[0] if request else "",
        caller=_uri(_one(headers, "from"))[0],
        callee=_uri(_one(headers, "to"))[0],
        in_dialog=";tag=" in _one(headers, "to").lower().replace(" ", ""),
        replaces=_first_word(_one(headers, "replaces")),
        refer_to=refer,
        refer_replaces=_replaces_in(refer_more),
        referred_by=_uri(_one(headers, "referred-by"))[0],
        ends=tuple(_ends_in(_one(headers, "content-type"), body)),
    )


def _headers_of(lines: list[bytes]) -> dict[str, Any] | None:
    """The headers by their long names in lower case, as dpkt reads them; None if one of them is not one."""
    if len(lines) > HEADER_LINES_MAX:
        return None
    kept = []
    for line in lines:
        found = _HEADER.match(line)
        if found is None:
            return None
        name = found[1].decode("ascii").lower()
        kept.append(b"%s: %s\r\n" % (f"x-{SHORT.get(name, name)}".encode(), found[2]))  # dpkt would read a body itself
    try:
        read = Request(b"OPTIONS sip:a SIP/2.0\r\n" + b"".join(kept) + b"\r\n").headers
    except (dpkt.UnpackError, ValueError, AttributeError, TypeError):
        return None
    return {name.removeprefix("x-"): value for name, value in read.items()}


def _one(headers: dict[str, Any], name: str) -> str:
    """The value of a header that stands once; "" otherwise: which of several counts is nobody's to guess."""
    value = headers.get(name, "")
    return value if isinstance(value, str) else ""


def _uri(text: str) -> tuple[str, str, str]:
    """(user@host in lower case, user, what follows) of the first URI; ("", "", "") if there is none."""
    found = _URI.search(text[:4096])
    if found is None:
        return "", "", ""
    user = unquote(found[1] or "").partition(":")[0]
    return f"{user}@{found[2]}".lower(), user, found[3]


def _first_word(text: str) -> str:
    word = text.partition(";")[0].strip()
    return word if _CALL_ID.match(word) else ""


def _replaces_in(more: str) -> str:
    """The Call-ID in ?Replaces= of a URI."""
    _, _, headers = more.partition("?")
    for each in headers.split("&")[:16]:
        name, _, value = each.partition("=")
        if name.lower() == "replaces":
            return _first_word(unquote(value))
    return ""


def _ends_in(content_type: str, body: bytes) -> Iterator[End]:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/sdp":
        yield from ends_of(body)
    elif kind.startswith("multipart/"):
        for part in body.split(b"\r\n--")[:16]:
            head, _, inner = part.partition(b"\r\n\r\n")
            if b"application/sdp" in head.lower():
                yield from ends_of(inner)


def ends_of(body: bytes) -> list[End]:
    """The addresses and ports for UDP that an SDP names: of RTP, of RTCP (the next port after an even one, or
    a=rtcp, RFC 3605), and of ICE candidates. At most ENDS_MAX."""
    session: bytes | None = None
    media: bytes | None = None
    port = ports = 0
    rtcp: End | None = None
    ends: list[End] = []

    def finish() -> None:
        if port and (host := media or session):
            for number in range(ports):
                ends.append((host, min(port + 2 * number, 65_535)))
                if port % 2 == 0 and not rtcp:
                    ends.append((host, port + 2 * number + 1))
            if rtcp:
                ends.append((rtcp[0] or host, rtcp[1]))

    in_media = False
    for line in body.decode("ascii", "replace").splitlines()[:SDP_LINES_MAX]:
        if line.startswith("m="):
            finish()
            in_media, media, rtcp = True, None, None
            port, ports = _media(line[2:])
        elif line.startswith("c="):
            host = _address(line[2:].split())
            if in_media:
                media = host
            else:
                session = host
        elif line.startswith("a=rtcp:") and in_media:
            words = line[7:].split()
            if words and (number := _port(words[0])):
                rtcp = (_address(words[1:]) or b"", number)
        elif line.startswith("a=candidate:"):
            words = line[12:].split()
            if len(words) >= 8 and words[2].lower() == "udp" and (number := _port(words[5])):
                host = _address(["IN", "", words[4]])
                if host:
                    ends.append((host, number))
        if len(ends) > ENDS_MAX:
            break
    finish()
    return list(dict.fromkeys(end for end in ends if end[1] <= 65_535))[:ENDS_MAX]


def _media(text: str) -> tuple[int, int]:
    """(port, how many pairs of ports) of a media description; (0, 0) if it is refused or not over UDP."""
    words = text.split()
    if len(words) < 3 or words[2].upper().startswith("TCP"):
        return 0, 0
    port, _, count = words[1].partition("/")
    many = int(count) if _LENGTH.match(count) else 1
    return _port(port), max(1, min(many, 16))


def _port(text: str) -> int:
    return int(text) if _LENGTH.match(text) and 0 < int(text) <= 65_535 else 0


def _address(words: list[str]) -> bytes | None:
    """16 bytes of the address in IN IP4 192.0.2.1/127; None for a name, and for 0.0.0.0, which is nobody's."""
    if len(words) < 3 or words[0] != "IN" or len(words[2]) > 64:
        return None
    try:
        value = ipaddress.ip_address(words[2].partition("/")[0].partition("%")[0])
    except ValueError:
        return None
    if value.is_unspecified:
        return None
    return b"\0" * 10 + b"\xff\xff" + value.packed if value.version == 4 else value.packed
