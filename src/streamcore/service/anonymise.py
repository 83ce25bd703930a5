"""Crypto-PAn over every address that a packet shows, with checksums adjusted. The cipher is asked in bulk; the packets
are walked natively.

Not reached: addresses in payloads (DNS, SIP, routing protocols) and in tunnels over UDP, and packets of other link
types.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamcore.service._address_table import AddressTable, apply_first_bits, prefix_blocks
from streamcore.service._anonymise import Anonymiser
from streamcore.service.options import key_bytes
from streamcore.service.protocol import Effect, SegmentView, Service
from streamcore.service.specification import parse_specification

KEY_BYTES = 32
ADDRESSES_AT_ONCE = 1024  # of IPv4: their AES blocks take 512 KiB
CACHE_ENTRIES = 1 << 19  # of each family: 8 MiB for IPv4, 32 MiB for IPv6 when full


class CryptoPan:
    """Crypto-PAn with one key: 16 bytes for AES-128, 16 for the pad. Equal to yacryptopan, address for address."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._encryptor = Cipher(
            algorithms.AES(key[:16]), modes.ECB()
        ).encryptor()  # each block on its own is what is meant
        self._pad = np.frombuffer(self._encryptor.update(key[16:]), np.uint8)

    def map4(self, addresses: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """uint32[n] in host order -> uint32[n]."""
        wide = np.zeros((len(addresses), 2), np.uint64)
        wide[:, 0] = addresses.astype(np.uint64) << np.uint64(32)
        return (self._map(wide, 32)[:, 0] >> np.uint64(32)).astype(np.uint32)

    def map6(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """uint64[n, 2], high and low half in host order -> uint64[n, 2]."""
        return self._map(np.ascontiguousarray(addresses, np.uint64), 128)

    def _map(self, addresses: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
        values = np.empty_like(addresses)
        at_once = ADDRESSES_AT_ONCE * 32 // bits
        blocks = np.empty(min(at_once, len(addresses)) * bits * 16, np.uint8)
        encrypted = np.empty(len(blocks) + 15, np.uint8)  # the library asks for room for a block more
        for start in range(0, len(addresses), at_once):
            part = addresses[start : start + at_once]
            size = len(part) * bits * 16
            prefix_blocks(part, bits, self._pad, blocks[:size])
            self._encryptor.update_into(blocks[:size].data, encrypted.data)
            apply_first_bits(part, bits, encrypted[:size], values[start : start + at_once])
        return values


class Anonymise(Service):
    """Replace IPv4 and IPv6 addresses by Crypto-PAn (prefixes are kept), and adjust the checksums.

    key: 32 bytes as 64 hexadecimal digits or 32 characters; key-file: a file that holds them. The same key gives
    the same addresses in every run; without one it is drawn at random for this run, and forgotten. A checksum that
    was wrong stays wrong by the same amount.
    """

    name: ClassVar[str] = "anonymise"
    effect: ClassVar[Effect] = "rewrite"

    def __init__(self, key: Any = "", key_file: Any = "") -> None:
        if key and key_file:
            raise ValueError("give key or key-file, not both")
        self.random_key = not key and not key_file
        if key_file:
            self._key = _read_key(str(key_file))
        else:
            self._key = key_bytes("key", key, KEY_BYTES) if key else os.urandom(KEY_BYTES)
        self._totals = {"packets": 0, "addresses": 0, "packets_without_known_header": 0}

    def prepared(self, specification: Any) -> Any:
        """The key itself goes to the workers: they must agree, and may not have the file."""
        name, _ = parse_specification(specification)
        return {"name": name, "key": self._key.hex()}

    def start(self) -> None:
        self._cipher = CryptoPan(self._key)
        self._table = AddressTable(CACHE_ENTRIES)
        zero6 = self._cipher.map6(np.zeros((1, 2), np.uint64))[0]
        self._table.set_zero(int(self._cipher.map4(np.zeros(1, np.uint32))[0]), int(zero6[0]), int(zero6[1]))
        self._anonymiser = Anonymiser(self._table)

    def process(self, segment: SegmentView) -> None:
        data = segment.writable()
        link_type = segment.link_type()
        before = self._anonymiser.addresses, self._anonymiser.not_reached
        todo = np.arange(len(segment), dtype=np.uint32)
        while len(todo):
            deferred, missing4, missing6 = self._anonymiser.rewrite(
                data, segment.offset, segment.captured_length, link_type, todo
            )
            self._learn(missing4, missing6)
            todo = todo[:deferred]
        segment.report([len(segment), self._anonymiser.addresses - before[0], self._anonymiser.not_reached - before[1]])

    def _learn(self, missing4: NDArray[np.uint32], missing6: NDArray[np.uint64]) -> None:
        if len(missing4):
            addresses4 = np.unique(missing4)
            self._table.learn4(addresses4, self._cipher.map4(addresses4))
        if len(missing6):
            addresses6 = np.unique(missing6, axis=0)
            self._table.learn6(addresses6, self._cipher.map6(addresses6))

    def merge(self, report: Any) -> None:
        for name, value in zip(self._totals, report, strict=True):
            self._totals[name] += value

    def summary(self) -> dict[str, Any]:
        return {**self._totals, "key": "random, for this run only" if self.random_key else "given"}


def _read_key(path: str) -> bytes:
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"key-file {path} cannot be read: {error.strerror}") from error
    return key_bytes(f"key-file {path}", raw if len(raw) == KEY_BYTES else raw.strip(), KEY_BYTES)
