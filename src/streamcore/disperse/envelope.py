"""The messages between the dispatcher and a worker, field by field. All integers are little-endian. A changed field
needs a new VERSION.

A message is a ZeroMQ multipart message. Its first frame is a header, followed by as many descriptors as the header's
`count` says:

    header      magic u32 "SCE1" · version u16 · kind u16 · slot u32 · count u32 · incarnation u64
    slot        the dispatcher's number for the worker; incarnation: a random number for this process in that slot

    kind HELLO  a worker is ready. No descriptors.
    kind REFUSE a worker cannot do its work (its service does not start). Second frame: one line of UTF-8 that says why.
    kind STOP   the worker should end. No descriptors.
    kind WORK   segments to process, in order:
        number u64        the segment's number
        first_number u64  number in the first stream of the batch's first packet
        attempt u32       1 for the first lease of the segment
        chunk u32         of the arena that holds the batch (not used inline)
        region u32        of the worker's own arena, for what it changes
        region_start u32, region_bytes u32   the part of it that is this segment's
        packets u32       rows of the batch
        start u32, stop u32   the segment's rows: columns.rows[start:stop], or start..stop if not ARRANGED
        row_count u32     rows in use of the batch
        groups u32        parse columns that are filled
        flags u32         ARRANGED 1 · INLINE 2: a frame follows for this segment, its columns and records (_inline.pyx)
        stream u32        whose packets they are: which of the chains in the worker's set-up is run
    kind RESULT the results of segments:
        number u64, attempt u32
        status u16        DONE 0 · FAILED 1: the extra frame is one line of UTF-8 that says why
        flags u16         what the region holds: PACKED 1 · LENGTHS 2 · KEEP 4 · KEYS 8 (see _results.pyx)
        packed u32        bytes of packets in the region
        region u32        as in the lease
        frames u32        EXTRA 1: a frame of MessagePack follows (comments, reports, drops) · INLINE 2: then a frame
        with the region's bytes
        reserved u32      0
        busy_ns u64       time the worker spent on it
        digest 16 bytes   of the segment's frame (inline.Digest), all zero if the segment did not leave the machine
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

MAGIC = 0x31454353
VERSION = 2

HELLO, WORK, RESULT, STOP, REFUSE = range(1, 6)
ARRANGED, INLINE = 1, 2  # flags of WORK
DONE, FAILED = 0, 1  # status of RESULT
EXTRA, INLINE_REGION = 1, 2  # frames of RESULT
NO_DIGEST = bytes(16)
EXTRA_BYTES_MAX = 1 << 19  # of an extra frame

_HEADER = struct.Struct("<IHHIIQ")
_WORK = struct.Struct("<QQIIIIIIIIIIII")
_RESULT = struct.Struct("<QIHHIIIIQ16s")


class EnvelopeError(ValueError):
    """A message does not have this version and layout."""


class Header(NamedTuple):
    kind: int
    slot: int
    descriptors: int
    incarnation: int


class Work(NamedTuple):
    number: int
    first_number: int
    attempt: int
    chunk: int
    region: int
    region_start: int
    region_bytes: int
    packets: int
    start: int
    stop: int
    row_count: int
    groups: int
    flags: int
    stream: int


class Outcome(NamedTuple):
    number: int
    attempt: int
    status: int
    flags: int
    packed: int
    region: int
    frames: int
    reserved: int
    busy_ns: int
    digest: bytes


def pack(kind: int, slot: int, incarnation: int, descriptors: Sequence[tuple[Any, ...]] = ()) -> bytes:
    """The first frame of a message. descriptors: the fields of Work or of Outcome."""
    form = _WORK if kind == WORK else _RESULT
    head = _HEADER.pack(MAGIC, VERSION, kind, slot, len(descriptors), incarnation)
    return head + b"".join(form.pack(*descriptor) for descriptor in descriptors)


def unpack_header(frame: bytes | memoryview) -> Header:
    """Raises EnvelopeError unless it is a header of this version, followed by as many descriptors as it counts."""
    if len(frame) < _HEADER.size:
        raise EnvelopeError(f"a message of {len(frame)} bytes is shorter than its header")
    magic, version, kind, slot, count, incarnation = _HEADER.unpack_from(frame)
    if magic != MAGIC or version != VERSION:
        raise EnvelopeError(
            f"a message has magic {magic:#x} and version {version}: run the same version of streamcore on both sides"
        )
    size = {WORK: _WORK.size, RESULT: _RESULT.size}.get(kind, 0)
    if not HELLO <= kind <= REFUSE or len(frame) != _HEADER.size + count * size:
        raise EnvelopeError(f"a message of {len(frame)} bytes cannot have kind {kind} with {count} descriptors")
    return Header(kind, slot, count, incarnation)


def unpack_work(frame: bytes | memoryview, count: int) -> list[Work]:
    return [Work(*_WORK.unpack_from(frame, _HEADER.size + i * _WORK.size)) for i in range(count)]


def unpack_results(frame: bytes | memoryview, count: int) -> list[Outcome]:
    """Raises EnvelopeError for a status or for frames that do not exist."""
    outcomes = [Outcome(*_RESULT.unpack_from(frame, _HEADER.size + i * _RESULT.size)) for i in range(count)]
    for each in outcomes:
        if each.status > FAILED or each.frames > EXTRA | INLINE_REGION or each.reserved:
            raise EnvelopeError("a result with a status or with frames that do not exist")
    return outcomes
