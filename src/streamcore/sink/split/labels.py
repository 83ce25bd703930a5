"""Names for the files of a split: what stands between the name of `write` and its ending. Safe whatever packets say."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from streamcore.core.capture_form import Interface
from streamcore.core.errors import SinkError
from streamcore.sink.windows import name_of

LABEL_MAX = 120  # characters, all ASCII: with the rest of the name they fit the 255 bytes of a file's name
UNSAFE = re.compile(r"[^A-Za-z0-9.@+=]+")
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 51: "ah", 58: "icmp6", 132: "sctp"}

End = tuple[bytes, int]  # an address as 16 bytes, and a port
Made = tuple[int, int, int, bool, End, End, tuple[int, ...]]  # a new key, as KeyTable.take_new returns it


def safe(text: str, characters_max: int = LABEL_MAX) -> str:
    """Text as a part of a file's name: letters, digits and . @ + = -; never empty, and no dot or dash comes first."""
    return UNSAFE.sub("-", text[: 4 * characters_max]).strip("-.")[:characters_max] or "none"


def of_flow(made: Made, interfaces: Sequence[Interface]) -> str:
    _, _, protocol, ports, source, target, vlans = made
    ends = [(address(end[0]), str(end[1])) if ports else (address(end[0]),) for end in (source, target)]
    vlan = ["vlan" + ".".join(map(str, vlans))] if vlans else []
    return "_".join([PROTOCOLS.get(protocol, f"ip{protocol}"), *ends[0], *ends[1], *vlan])


def of_host(made: Made, interfaces: Sequence[Interface]) -> str:
    return address(made[4][0])


def of_vlan(made: Made, interfaces: Sequence[Interface]) -> str:
    return "vlan" + ".".join(map(str, made[6]))


def of_interface(made: Made, interfaces: Sequence[Interface]) -> str:
    number = int.from_bytes(made[4][0][:2], "little")
    name = interfaces[number].name if number < len(interfaces) else ""
    return safe(name) if name else f"interface{number}"


def of_minute(made: Made, interfaces: Sequence[Interface]) -> str:
    minute = int.from_bytes(made[4][0][:8], "little", signed=True)
    try:
        return name_of("%Y%m%d-%H%M", minute * 60 * 10**9)
    except SinkError:
        return f"minute{minute}"


LABELS = {"flow": of_flow, "host": of_host, "vlan": of_vlan, "interface": of_interface, "minute": of_minute}


def address(raw: bytes) -> str:
    """10.0.0.1, or 2001=db8==1 for 2001:db8::1: colons are not for names of files."""
    value = ipaddress.IPv6Address(raw)
    return str(value.ipv4_mapped or value).replace(":", "=")
