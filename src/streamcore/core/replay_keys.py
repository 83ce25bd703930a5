"""The keys of a run that make other frames of what is read: headers, lengths, turns. run_keys.py has all others.

Annotations are evaluated here, so no `from __future__ import annotations`.
"""

from typing import Annotated, Literal

from msgspec import Meta

from streamcore.core.keys import Key

SENDING = "sending, and frames for it"

Loop = Annotated[
    int,
    Meta(ge=0, le=10**9),
    Key(
        "read the captures N times, each time later; 0: for ever",
        "", "N", SENDING,
        "A turn begins after the newest packet of the one before it, by the mean time between packets. For ever only "
        "to an interface or standard output, or with `count`",
        only="reads",
    ),
]  # fmt: skip
SourceAddress = Annotated[
    str,
    Key(
        "make this the source address of each frame",
        "", "MAC", SENDING,
        "Packets without an Ethernet header get one: IP alone, Linux cooked captures (which know the sender), and "
        "those of BSD's loopback. Services, filters and the output see the frames",
        only="reads",
    ),
]  # fmt: skip
TargetAddress = Annotated[
    str, Key("make this the target address of each frame", "", "MAC", SENDING, "As `source_mac`", only="reads")
]
VlanId = Annotated[
    Annotated[int, Meta(ge=0, le=4094)] | None,
    Key(
        "give each frame this VLAN id; 0: take the outermost tag away",
        "", "N", SENDING,
        "The outermost tag gets the id and keeps its priority; a frame without one gets one",
        default="as it is", only="reads",
    ),
]  # fmt: skip
Mtu = Annotated[
    int,
    Meta(ge=0, le=65_535),
    Key(
        "cut packets that have more than N bytes after the link header",
        "", "N", SENDING,
        default="0: any length", only="reads",
    ),
]  # fmt: skip
OverMtu = Annotated[
    Literal["segment", "cut"],
    Key(
        "how: TCP into segments and all else off, or all off",
        "", "segment|cut", SENDING,
        "Segments have true lengths, numbers and checksums. Only whole packets are segmented; what is cut off is "
        "counted",
        only="bounded by an MTU",
    ),
]  # fmt: skip
