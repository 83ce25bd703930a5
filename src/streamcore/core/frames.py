"""How a run makes Ethernet frames of what it reads: addresses, VLAN and MTU, as a Config's keys say."""

from __future__ import annotations

import re
from typing import NamedTuple

MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
KEEP_TAG = -1


class Frames(NamedTuple):
    """What becomes of link headers, and of packets longer than the MTU."""

    source_mac: bytes = b""  # 6 bytes; none: as it is
    target_mac: bytes = b""
    vlan: int = KEEP_TAG  # 0: without the outermost tag
    mtu: int = 0  # bytes after the link header, 0: any
    segments: bool = True  # TCP that is longer is cut into segments, not cut off

    @property
    def changes(self) -> bool:
        """Whether anything is changed at all."""
        return self._replace(segments=True) != Frames()


def mac_bytes(words: str) -> bytes:
    """The 6 bytes of an Ethernet address, as 02:00:00:00:00:01. Raises ValueError."""
    if MAC.fullmatch(words) is None:
        raise ValueError("an Ethernet address as 02:00:00:00:00:01")
    return bytes.fromhex(re.sub("[:-]", "", words))
