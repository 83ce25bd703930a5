"""Applies Crypto-PAn to every address that a packet shows, adjusts checksums, and drops packets that are not
understood. The cipher encrypts in bulk; native code walks the packets.

docs/services.md lists what is not reached.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from streamcore.headers._walk import OUTCOMES
from streamcore.service._address_table import AddressTable, apply_first_bits, prefix_blocks
from streamcore.service._anonymise import COUNTED_NAMES, REPLACED, Anonymiser
from streamcore.service.figures import Figure
from streamcore.service.options import choice, key_bytes
from streamcore.service.protocol import Effect, SegmentView, Service
from streamcore.service.special import Maps, SpecialKeeper
from streamcore.service.specification import parse_specification

KEY_BYTES = 32
ADDRESSES_AT_ONCE = 1024  # IPv4 addresses; their AES blocks take 512 KiB
CACHE_ENTRIES = 1 << 19  # per family: 8 MiB for IPv4, 32 MiB for IPv6 when full
UNDERSTOOD = 1  # a verdict; a higher one is 2 + an index into STRANGE
STRANGE = (*OUTCOMES.values(), "first fragment elsewhere")
CHOICES: dict[str, tuple[str, ...]] = {  # each option's choices, the default first
    "mac": ("keep", "hash", "zero"),
    "payload": ("keep", "zero", "truncate"),
    "unknown": ("drop", "pass", "truncate"),
    "special": ("replace", "keep"),
    "names": ("keep", "replace"),
}
PRESETS: dict[str, dict[str, str]] = {
    "": {name: choices[0] for name, choices in CHOICES.items()},
    "share": {"mac": "hash", "payload": "zero", "unknown": "drop", "special": "keep", "names": "replace"},
}
NOT_UNDERSTOOD = {  # what happened to packets that are not understood, by option `unknown`
    "drop": "dropped", "pass": "passed_in_clear", "truncate": "cut_where_understanding_ends",
}  # fmt: skip


class CryptoPan:
    """Crypto-PAn with one key: 16 bytes for AES-128, 16 for the pad. Gives the same addresses as yacryptopan."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._encryptor = Cipher(
            algorithms.AES(key[:16]), modes.ECB()
        ).encryptor()  # ECB on purpose: each block stands alone
        self._pad = np.frombuffer(self._encryptor.update(key[16:]), np.uint8)
        # For hardware addresses and names. Blocks of map4 and map6 end with the pad's last bit, so none equals it.
        self.hash_key: bytes = self._encryptor.update((self._pad ^ np.uint8(0xFF)).tobytes())

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
        encrypted = np.empty(len(blocks) + 15, np.uint8)  # the library wants room for one more block
        for start in range(0, len(addresses), at_once):
            part = addresses[start : start + at_once]
            size = len(part) * bits * 16
            prefix_blocks(part, bits, self._pad, blocks[:size])
            self._encryptor.update_into(blocks[:size].data, encrypted.data)
            apply_first_bits(part, bits, encrypted[:size], values[start : start + at_once])
        return values


class Anonymise(Service):
    """Replace IPv4 and IPv6 addresses by Crypto-PAn, which keeps common prefixes; adjust the checksums; drop packets
    that are not understood.

    preset: "share" sets the options below so that you can give the capture to a stranger.
    key: 32 bytes, as 64 hexadecimal digits or 32 characters; key-file: a file with the key. The same key gives the same
    addresses in every run. Without a key, one is drawn at random for this run and then forgotten.
    mac: keep, hash or zero hardware addresses. payload: keep, zero or truncate what follows the headers.
    unknown: drop, pass or truncate packets whose headers are not all understood; if any passed, the run ends with
    status 3. special: keep leaves broadcast, multicast, loopback and the scope of link-local addresses as they are.
    A wrong checksum stays wrong by the same amount. A later fragment depends on its first one in the segment.
    """

    name: ClassVar[str] = "anonymise"
    effect: ClassVar[Effect] = "redact"
    removes_metadata: ClassVar[bool] = True
    reasons = MappingProxyType(
        {
            "not_understood": "anonymise does not understand all of their headers",
            "first_fragment_elsewhere": "their first fragment is not in the same segment",
        }
    )
    paths: ClassVar[tuple[str, ...]] = ("key_file",)
    report_type: ClassVar[Any] = tuple[Figure, list[Figure], list[Figure]]  # packets, COUNTED_NAMES, STRANGE or nothing

    def __init__(
        self,
        preset: Any = "",
        key: Any = "",
        key_file: Any = "",
        mac: Any = "",
        payload: Any = "",
        unknown: Any = "",
        special: Any = "",
        names: Any = "",
    ) -> None:
        if key and key_file:
            raise ValueError("give key or key-file, not both")
        self.random_key = not key and not key_file
        if key_file:
            self._key = _read_key(str(key_file))
        else:
            self._key = key_bytes("key", key, KEY_BYTES) if key else os.urandom(KEY_BYTES)
        preset_options = PRESETS[choice("preset", preset, tuple(PRESETS)) if preset else ""]
        given = {"mac": mac, "payload": payload, "unknown": unknown, "special": special, "names": names}
        self.options = {
            name: choice(name, value, CHOICES[name]) if value else preset_options[name] for name, value in given.items()
        }
        self._packets = 0
        self._counts = [0] * len(COUNTED_NAMES)
        self._not_understood = dict.fromkeys(STRANGE, 0)

    def prepared(self, specification: Any) -> Any:
        """The key itself goes to the workers: they must all use the same one, and may not have the file."""
        name, _ = parse_specification(specification)
        return {"name": name, "key": self._key.hex(), **self.options}

    def start(self) -> None:
        options = self.options
        cipher = CryptoPan(self._key)
        self._maps: Maps = SpecialKeeper(cipher) if options["special"] == "keep" else cipher
        self._table = AddressTable(CACHE_ENTRIES)
        zero6 = self._maps.map6(np.zeros((1, 2), np.uint64))[0]
        self._table.set_zero(int(self._maps.map4(np.zeros(1, np.uint32))[0]), int(zero6[0]), int(zero6[1]))
        self._anonymiser = Anonymiser(
            self._table,
            options["mac"],
            options["payload"],
            names=options["names"] == "replace",
            special=options["special"] == "keep",
            hash_key=cipher.hash_key,
            drops=options["unknown"] == "drop",
        )

    def process(self, segment: SegmentView) -> None:
        uncopied = segment.uncopied()
        source, data = uncopied if uncopied is not None else (None, segment.writable())
        count = len(segment)
        before = self._anonymiser.counts()
        todo = np.arange(count, dtype=np.uint32)
        verdict, kept = np.empty(count, np.uint8), np.empty(count, np.uint32)
        link_type = segment.link_type()
        again = False
        while len(todo) or source is not None:
            deferred, missing4, missing6 = self._anonymiser.rewrite(
                data, segment.offset, segment.captured_length, link_type, todo, verdict, kept, segment.ports, again,
                source,
            )  # fmt: skip
            again, source = True, None
            self._learn(missing4, missing6)
            todo = todo[:deferred]
        outcomes = self._leave_out(segment, verdict, kept)
        segment.report([count, (self._anonymiser.counts() - before).tolist(), outcomes])

    def _leave_out(self, segment: SegmentView, verdict: NDArray[np.uint8], kept: NDArray[np.uint32]) -> list[int]:
        """Drop or cut what must go; returns how many packets are not understood, by outcome."""
        strange = verdict != UNDERSTOOD
        some = bool(strange.any())
        unknown = self.options["unknown"]
        if self.options["payload"] == "truncate" or (some and unknown == "truncate"):
            segment.truncate(kept if unknown == "truncate" else np.where(strange, segment.captured_length, kept))
        if some and unknown == "drop":
            segment.drop(verdict == 2 + STRANGE.index("first fragment elsewhere"), "first_fragment_elsewhere")
            segment.drop(strange, "not_understood")
        return np.bincount(verdict[strange] - 2, minlength=len(STRANGE)).tolist() if some else []

    def _learn(self, missing4: NDArray[np.uint32], missing6: NDArray[np.uint64]) -> None:
        if len(missing4):
            addresses4 = np.unique(missing4)
            self._table.learn4(addresses4, self._maps.map4(addresses4))
        if len(missing6):
            addresses6 = np.unique(missing6, axis=0)
            self._table.learn6(addresses6, self._maps.map6(addresses6))

    def check_report(self, report: Any) -> None:
        super().check_report(report)
        if len(report[1]) != len(COUNTED_NAMES) or len(report[2]) not in (0, len(STRANGE)):
            raise ValueError("a report with another number of figures")

    def merge(self, report: Any) -> None:
        self.check_report(report)
        packets, counts, outcomes = report
        self._packets += packets
        self._counts = [a + b for a, b in zip(self._counts, counts, strict=True)]
        if outcomes:
            for name, value in zip(STRANGE, outcomes, strict=True):
                self._not_understood[name] += value

    def incomplete(self) -> str:
        passed = sum(self._not_understood.values())
        if not passed or self.options["unknown"] != "pass":
            return ""
        return f"{passed:,} packets whose headers are not all understood were passed on in clear"

    def summary(self) -> dict[str, Any]:
        key = "random, for this run only" if self.random_key else "given"
        told: dict[str, Any] = {"packets": self._packets, "key": key}
        counts = list(zip(COUNTED_NAMES, self._counts, strict=True))
        for name, figures in (
            ("replaced", counts[:REPLACED]),
            (NOT_UNDERSTOOD[self.options["unknown"]], list(self._not_understood.items())),
            ("left", counts[REPLACED:]),
        ):
            if more_than_none := {kind: count for kind, count in figures if count}:
                told[name] = more_than_none
        return told


def _read_key(path: str) -> bytes:
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"key-file {path} cannot be read: {error.strerror}") from error
    return key_bytes(f"key-file {path}", raw if len(raw) == KEY_BYTES else raw.strip(), KEY_BYTES)
