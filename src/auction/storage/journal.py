"""The journal: one entry for each command that changed something, each chained to the one before it by a hash.

Here are the entry, its encoding and the verification of the chain. The state applies entries, the store keeps them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from auction.model.errors import JournalBroken

FIRST_HASH: Final = bytes(32)
FORMAT: Final = 1  # of the records, stated by the first entry; raise it if older programs would misread them
_NUMBERS = struct.Struct(">qqIIIII")


class Entry(NamedTuple):
    """`sequence` counts from 1 without gaps. `key` and `request` (a SHA-256 of the command) belong to the idempotency
    key, or are empty. `body` has the records and transfers as JSON, `answer` is what the caller got."""

    sequence: int
    at_ms: int
    command: str
    key: str
    request: bytes
    body: bytes
    answer: bytes
    hash: bytes


def entry_hash(
    previous: bytes, sequence: int, at_ms: int, command: str, key: str, request: bytes, body: bytes, answer: bytes
) -> bytes:
    """SHA-256 over the previous hash, the numbers, the length of each field, and the fields."""
    name, key_bytes = command.encode(), key.encode()
    numbers = _NUMBERS.pack(sequence, at_ms, len(name), len(key_bytes), len(request), len(body), len(answer))
    return hashlib.sha256(b"".join((previous, numbers, name, key_bytes, request, body, answer))).digest()


def seal(
    previous: bytes, sequence: int, at_ms: int, command: str, key: str, request: bytes, body: bytes, answer: bytes
) -> Entry:
    """The entry with its hash."""
    sealed = entry_hash(previous, sequence, at_ms, command, key, request, body, answer)
    return Entry(sequence, at_ms, command, key, request, body, answer, sealed)


def verify_chain(
    entries: Iterable[Entry], previous: bytes = FIRST_HASH, sequence: int = 0, at_ms: int = 0
) -> Iterator[Entry]:
    """Passes the entries on. Raises JournalBroken at the first that is missing, altered, moved or earlier than its
    predecessor."""
    for entry in entries:
        sequence += 1
        if entry.sequence != sequence:
            raise JournalBroken(f"entry {sequence} is missing: {entry.sequence} follows {sequence - 1}")
        if entry_hash(previous, *entry[:-1]) != entry.hash:
            raise JournalBroken(f"entry {sequence} was altered: its hash does not verify")
        if entry.at_ms < at_ms:
            raise JournalBroken(f"entry {sequence} is earlier than the one before it")
        previous, at_ms = entry.hash, entry.at_ms
        yield entry


class Body(msgspec.Struct, array_like=True):
    """The body of an entry: the records that the command put, as (kind, id, record), and the transfers it made."""

    changes: list[tuple[str, str, msgspec.Raw]]
    transfers: list[tuple[str, str, int]]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Body)


def encode_body(changes: Sequence[tuple[str, str, Any]], transfers: Sequence[Any]) -> bytes:
    """The JSON of a `Body`."""
    return _encoder.encode((changes, transfers))


def decode_body(body: bytes) -> Body:
    """Decodes a body. Raises JournalBroken for anything that `encode_body` did not write."""
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError as reason:
        raise JournalBroken(f"an entry cannot be read: {reason}") from None


class Decided(msgspec.Struct, frozen=True, gc=False):
    """The parts of an entry that is not encoded yet, nor bound to the one before it."""

    sequence: int
    at_ms: int
    command: str
    key: str
    request: bytes
    changes: tuple[tuple[str, str, Any], ...]
    transfers: tuple[tuple[str, str, int], ...]
    answer: bytes

    def bound_to(self, previous: bytes) -> Entry:
        """The entry that follows the one with this hash."""
        body = encode_body(self.changes, self.transfers)
        return seal(previous, self.sequence, self.at_ms, self.command, self.key, self.request, body, self.answer)
