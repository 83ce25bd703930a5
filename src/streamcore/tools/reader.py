"""`streamcore.read`: reads a capture as batches of numpy columns, in one process and without a pipeline."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Literal

from streamcore.core.capture_form import CaptureForm, Interface
from streamcore.core.errors import SourceError, UsageError
from streamcore.core.packets import Arena, Chunk, PacketBatch
from streamcore.headers import udp_ports
from streamcore.parse.parser import FLOW_KEYS, Parser
from streamcore.source.capture import CaptureSource, Damage

CHUNK_BYTES = 4 << 20
ROWS_MAX = 65_536
CHUNKS_AT_ONCE = 4


class DamageWarning(RuntimeWarning):
    """A capture could not be read to its end. The packets before the damage were delivered."""


def read(
    path: str | os.PathLike[str],
    *,
    strict: bool = False,
    hash_seed: int | None = None,
    decode_as: Sequence[str] = (),
    flow_key: Literal["outer", "inner", "both"] = "outer",
) -> Reader:
    """Reads a capture: `for batch in read("x.pcapng.zst"): …`.

    path: pcap or pcapng, plain or in gzip, zstd or lz4, "-": standard input. Each PacketBatch has one numpy array per
    column (its attributes), one row per packet; header columns are parsed when first read. strict: if the capture is
    damaged, raise SourceError instead of issuing a DamageWarning, after everything before the damage was delivered.
    hash_seed: of the flow hash, None: random; flow_key: the headers that it covers, the outermost, those in a tunnel,
    or both. decode_as: tunnels to try on further UDP ports, such as "udp.port=8472,vxlan". Raises SourceError with one
    line when path cannot be read or is no capture, UsageError for a bad decode_as.
    """
    return Reader(path, strict=strict, hash_seed=hash_seed, decode_as=decode_as, flow_key=flow_key)


class Reader:
    """An iterator over a capture's PacketBatches; close it, use it in `with`, or read it to its end.

    Several threads may take batches from one Reader; each batch goes to one of them. Batches and arrays made from them
    stay valid after close. Memory is reused once a batch and its arrays are gone: keep your results, not the batches.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        strict: bool = False,
        hash_seed: int | None = None,
        decode_as: Sequence[str] = (),
        flow_key: Literal["outer", "inner", "both"] = "outer",
    ) -> None:
        self._strict = strict
        self._warned = False
        if flow_key not in FLOW_KEYS:
            raise UsageError(f"flow_key must be one of {', '.join(FLOW_KEYS)}, not {flow_key!r}")
        parser = Parser(seed=hash_seed, ports=udp_ports(decode_as), flow_key=flow_key)
        self._source = CaptureSource(path, ChunkSupply(), parser=_one_at_a_time(parser))

    @property
    def interfaces(self) -> list[Interface]:
        """The interfaces found so far; the column `interface` has indexes into this list."""
        return self._source.interfaces

    @property
    def form(self) -> CaptureForm:
        """The format of the capture."""
        return self._source.form

    @property
    def damage(self) -> Damage | None:
        """Where and why the capture could not be read to its end, known after the last batch; None if it could."""
        return self._source.damage

    def progress(self) -> tuple[int, int | None]:
        """(bytes of the file read so far, its size or None if it has none)."""
        return self._source.progress()

    def close(self) -> None:
        """Ends the iteration and closes the file."""
        self._source.close()

    def __iter__(self) -> Iterator[PacketBatch]:
        return self

    def __next__(self) -> PacketBatch:
        try:
            return next(self._source)
        except StopIteration:
            self.close()
            if self._source.damage is not None and not self._warned:
                self._warned = True
                self._complain(self._source.damage)
            raise

    def _complain(self, damage: Damage) -> None:
        line = f"{self._source.name} is damaged: {damage}"
        if self._strict:
            raise SourceError(line) from None
        warnings.warn(line, DamageWarning, stacklevel=3)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _one_at_a_time(parser: Parser) -> Callable[[PacketBatch, int], None]:
    """A parser for batches that several threads may use."""
    parsing = threading.Lock()

    def parse(batch: PacketBatch, groups: int) -> None:
        with parsing:
            parser(batch, groups)

    return parse


class ChunkSupply:
    """Supplies chunks like an Arena, but never waits: if a caller keeps all batches of a capture, it takes more
    memory."""

    data_bytes_max = CHUNK_BYTES
    rows_max = ROWS_MAX

    def __init__(self) -> None:
        self._link_types: dict[int, int] = {}
        self._arenas: list[Arena] = []

    def acquire(self, timeout_s: float | None = None) -> Chunk | None:
        """Returns a chunk at once."""
        for arena in self._arenas:
            if arena.free_count:
                chunk = arena.acquire(0)
                if chunk is not None:
                    return chunk
        arena = Arena(CHUNKS_AT_ONCE, CHUNK_BYTES, ROWS_MAX)
        for interface, link_type in self._link_types.items():
            arena.set_link_type(interface, link_type)
        self._arenas.append(arena)
        return arena.acquire(0)

    def set_link_type(self, interface: int, link_type: int) -> None:
        """Makes the link type of an interface known to parsers."""
        self._link_types[interface] = link_type
        for arena in self._arenas:
            arena.set_link_type(interface, link_type)
