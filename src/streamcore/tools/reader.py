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
from streamcore.core.packets import PacketBatch
from streamcore.headers import udp_ports
from streamcore.parse.parser import FLOW_KEYS, Parser
from streamcore.source._supply import Chunks
from streamcore.source.capture import CaptureSource, Damage
from streamcore.source.merged import Damages, MergedSource

INPUTS = ("merge", "chain")


class DamageWarning(RuntimeWarning):
    """A capture could not be read to its end. The packets before the damage were delivered."""


def read(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    inputs: Literal["merge", "chain"] = "merge",
    strict: bool = False,
    hash_seed: int | None = None,
    decode_as: Sequence[str] = (),
    flow_key: Literal["outer", "inner", "both"] = "outer",
) -> Reader:
    """Reads a capture: `for batch in read("x.pcapng.zst"): …`.

    path: pcap or pcapng, plain or in gzip, zstd or lz4, "-": standard input; or several of them, which are
    merged by time, or with inputs="chain" read one after the other. Each PacketBatch has one numpy array per
    column (its attributes), one row per packet; header columns are parsed when first read. strict: if the capture is
    damaged, raise SourceError instead of issuing a DamageWarning, after everything before the damage was delivered.
    hash_seed: of the flow hash, None: random; flow_key: the headers that it covers, the outermost, those in a tunnel,
    or both. decode_as: tunnels to try on further UDP ports, such as "udp.port=8472,vxlan". Raises SourceError with one
    line when path cannot be read or is no capture, UsageError for a bad decode_as.
    """
    return Reader(path, inputs=inputs, strict=strict, hash_seed=hash_seed, decode_as=decode_as, flow_key=flow_key)


class Reader:
    """An iterator over a capture's PacketBatches; close it, use it in `with`, or read it to its end.

    Several threads may take batches from one Reader; each batch goes to one of them. Batches and arrays made from them
    stay valid after close. Memory is reused once a batch and its arrays are gone: keep your results, not the batches.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        inputs: Literal["merge", "chain"] = "merge",
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
        if inputs not in INPUTS:
            raise UsageError(f"inputs must be one of {', '.join(INPUTS)}, not {inputs!r}")
        parse = _one_at_a_time(parser)
        self._source: CaptureSource | MergedSource
        if isinstance(path, str | os.PathLike):
            self._source = CaptureSource(path, Chunks(), parser=parse)
        elif path:
            self._source = MergedSource(path, Chunks(), by_time=inputs == "merge", parser=parse)
        else:
            raise UsageError("no capture is named")

    @property
    def interfaces(self) -> list[Interface]:
        """The interfaces found so far; the column `interface` has indexes into this list."""
        return self._source.interfaces

    @property
    def form(self) -> CaptureForm:
        """The format of the capture."""
        return self._source.form

    @property
    def damage(self) -> Damage | Damages | None:
        """Where and why the capture could not be read to its end, known after the last batch; None if it could. Of
        several captures, those that could not with their names."""
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

    def _complain(self, damage: Damage | Damages) -> None:
        each = damage if isinstance(damage, Damages) else ((self._source.name, damage),)
        line = "\n".join(f"{name} is damaged: {why}" for name, why in each)
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
