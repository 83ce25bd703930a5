"""Addresses that do not identify one host: with `special=keep` they stay, and no other address becomes one of them.

Sources: RFC 1122, 3927, 5771, 4291, 3306, 4038. Nothing here looks at packets.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Maps(Protocol):
    """A permutation of the addresses of each family."""

    def map4(self, addresses: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """uint32[n] in host order -> uint32[n]."""

    def map6(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """uint64[n, 2], high and low half in host order -> uint64[n, 2]."""


class Special4(NamedTuple):
    """Addresses that begin with the first `bits` of `prefix`; their first `kept` bits stay."""

    prefix: int
    bits: int
    kept: int


class Special6(NamedTuple):
    """The same for IPv6; the prefix is in two halves."""

    high: int
    low: int
    bits: int
    kept: int


# The first matching row counts.
SPECIAL4 = (
    Special4(0x00000000, 32, 32),  # this host
    Special4(0xFFFFFFFF, 32, 32),  # broadcast
    Special4(0x7F000000, 8, 32),  # loopback
    Special4(0xA9FE0000, 16, 16),  # link-local
    Special4(0xE9000000, 8, 8),  # multicast that contains somebody's number
    Special4(0xEA000000, 8, 8),  # multicast that contains somebody's prefix
    Special4(0xE0000000, 4, 32),  # multicast
)
SPECIAL6 = (
    Special6(0, 0, 128, 128),  # unspecified
    Special6(0, 1, 128, 128),  # loopback
    Special6(0, 0x0000_FFFF_0000_0000, 96, 96),  # IPv4-mapped; the rest is the replacement of the IPv4 address
    Special6(0xFE80_0000_0000_0000, 0, 64, 64),  # link-local
    Special6(0xFE80_0000_0000_0000, 0, 10, 10),
    Special6(0xFF02_0000_0000_0000, 0x0000_0001_FF00_0000, 104, 104),  # solicited node: contains the end of an address
    Special6(0xFF02_0000_0000_0000, 0x0000_0002_FF00_0000, 104, 104),  # node information: contains a hash of a name
    Special6(0xFF00_0000_0000_0000, 0, 12, 128),  # multicast, well-known groups
    Special6(0xFF00_0000_0000_0000, 0, 8, 16),  # other groups: only their scope stays
)
MAPPED = 2  # the row of IPv4-mapped


class SpecialKeeper:
    """Two permutations that keep special and other addresses apart. An address that would become a special one is
    mapped again until it is not (cycle walking, which returns to its start at the latest). So a prefix shorter than a
    special one is not always kept.
    """

    def __init__(self, inner: Maps) -> None:
        self._inner = inner

    def map4(self, addresses: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """uint32[n] in host order -> uint32[n]."""
        mapped = self._inner.map4(addresses)
        kept = kept4(addresses)
        special = kept >= 0
        while (again := ~special & (kept4(mapped) >= 0)).any():
            mapped[again] = self._inner.map4(np.ascontiguousarray(mapped[again]))
        mask = _masks(np.maximum(kept, 0), 32).astype(np.uint32)
        return np.where(special, (addresses & mask) | (mapped & ~mask), mapped)

    def map6(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """uint64[n, 2], high and low half in host order -> uint64[n, 2]."""
        mapped = self._inner.map6(addresses)
        kept, row = kept6(addresses)
        special = kept >= 0
        while (again := ~special & (kept6(mapped)[0] >= 0)).any():
            mapped[again] = self._inner.map6(np.ascontiguousarray(mapped[again]))
        bits = np.maximum(kept, 0)
        mask = np.stack([_masks(np.minimum(bits, 64), 64), _masks(np.maximum(bits - 64, 0), 64)], axis=1)
        result = np.where(special[:, None], (addresses & mask) | (mapped & ~mask), mapped)
        four = row == MAPPED
        if four.any():
            low = self.map4((addresses[four, 1] & np.uint64(0xFFFF_FFFF)).astype(np.uint32))
            result[four, 1] = (addresses[four, 1] & ~np.uint64(0xFFFF_FFFF)) | low
        return np.ascontiguousarray(result, np.uint64)


def kept4(addresses: NDArray[np.uint32]) -> NDArray[np.int64]:
    """int64[n]: how many first bits stay; -1: it is not a special address."""
    kept = np.full(len(addresses), -1, np.int64)
    for each in reversed(SPECIAL4):
        shift = 32 - each.bits
        kept[(addresses >> np.uint32(shift)) == np.uint32(each.prefix >> shift)] = each.kept
    return kept


def kept6(addresses: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """int64[n]: how many first bits stay, -1: not a special address; int64[n]: its row of SPECIAL6."""
    kept, row = (np.full(len(addresses), -1, np.int64) for _ in range(2))
    for number in reversed(range(len(SPECIAL6))):
        each = SPECIAL6[number]
        high, low = np.uint64(_mask(min(each.bits, 64), 64)), np.uint64(_mask(max(each.bits - 64, 0), 64))
        suits = (addresses[:, 0] & high) == np.uint64(each.high) & high
        suits &= (addresses[:, 1] & low) == np.uint64(each.low) & low
        kept[suits], row[suits] = each.kept, number
    return kept, row


def _mask(bits: int, width: int) -> int:
    return ((1 << bits) - 1) << (width - bits)


def _masks(bits: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
    """uint64[n]: words of `width` bits whose first bits[i] are set."""
    masks: NDArray[np.uint64] = np.array([_mask(each, width) for each in range(width + 1)], np.uint64)[bits]
    return masks
