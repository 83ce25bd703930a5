"""The sink for streams that have a `write` of their own: each has a sink, the run's takes the others."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from streamcore.core.config import Config
from streamcore.core.packets import Outgoing
from streamcore.sink.opening import open_sink
from streamcore.sink.protocol import OutputNote, Place, Sink, SinkNeeds
from streamcore.sink.split._divide import Divider, by_stream, part_of


def open_per_stream(config: Config, needs: SinkNeeds) -> PerStreamSink:
    """A sink for the run's `write`, and one for each stream that has its own. Blocks without packets stand in the
    run's. Raises SinkError."""
    sinks: dict[int, Sink] = {}
    turns: dict[int, Turn] = {}
    plain = [msgspec.structs.replace(each, write="") for each in config.stream]
    try:
        for number, path in enumerate((config.write, *(each.write for each in config.stream))):
            if path:
                turns[number] = Turn(needs.arena)
                of_stream = replace(needs, arena=turns[number], blocks=needs.blocks if number == 0 else None)
                sinks[number] = open_sink(msgspec.structs.replace(config, write=path, stream=plain), of_stream)
    except BaseException:
        for sink in sinks.values():
            sink.abandon()
        raise
    return PerStreamSink(sinks, turns, len(config.streams))


class Turn:
    """What one of several sinks says about its file. The arena learns it while that sink writes, so that workers
    truncate the right file if the run is killed."""

    def __init__(self, arena: OutputNote) -> None:
        self._arena = arena
        self._path = b""
        self._committed_bytes = 0
        self.active = False

    def set_output_path(self, path: bytes) -> None:
        self._path = path
        self._committed_bytes = 0
        if self.active:
            self._arena.set_output_path(path)

    def set_committed_bytes(self, size: int) -> None:
        self._committed_bytes = size
        if self.active:
            self._arena.set_committed_bytes(size)

    def take(self) -> None:
        """Makes this the sink that writes."""
        self.active = True
        self._arena.set_committed_bytes(0)
        self._arena.set_output_path(self._path)
        self._arena.set_committed_bytes(self._committed_bytes)


class PerStreamSink:
    """Divides packets by stream. One thread at a time. Raises SinkError."""

    def __init__(self, sinks: dict[int, Sink], turns: dict[int, Turn], streams: int) -> None:
        self._sinks, self._turns = sinks, turns
        self._divider = Divider(streams)
        self._own = np.array([number if number in sinks else 0 for number in range(streams)], np.uint32)
        self.name = sinks[0].name

    @property
    def place(self) -> Place | None:
        """None: several files cannot be continued."""
        return None

    @property
    def paces(self) -> bool:
        """False: files take packets at any time."""
        return False

    @property
    def unsure(self) -> tuple[int, int]:
        """(packets, captured bytes) of `write` that may not be in a file that failed."""
        each = [sink.unsure for sink in self._sinks.values()]
        return sum(packets for packets, _ in each), sum(byte_count for _, byte_count in each)

    @property
    def metadata_removed(self) -> int:
        """The number of options and blocks left out of all files so far."""
        return sum(sink.metadata_removed for sink in self._sinks.values())

    @property
    def incomplete(self) -> list[str]:
        """A line for each reason why not all was done that was asked for."""
        return [line for sink in self._sinks.values() for line in sink.incomplete]

    def write(self, outgoing: Outgoing) -> tuple[int, int]:
        """Writes packets. Returns the (packets, captured bytes) that are in files, or will be if compressed."""
        segments = [result.segment for result in outgoing.hold]
        if len({segment.stream for segment in segments}) == 1:
            return self._put(int(self._own[segments[0].stream]), outgoing)
        places, streams = by_stream(outgoing, segments)
        divided, numbers, stops = self._divider.divide(outgoing, places, self._own[streams])
        total = [0, 0]
        start = 0
        for number, stop in zip(numbers.tolist(), stops.tolist(), strict=True):
            packets, byte_count = self._put(number, part_of(divided, start, stop))
            total[0] += packets
            total[1] += byte_count
            start = stop
        return total[0], total[1]

    def flush(self) -> None:
        """Writes the gathered packets. Raises SinkError."""
        for number in self._sinks:
            self._take(number)
            self._sinks[number].flush()

    def stop(self) -> None:
        """Does nothing: writing a file never waits."""

    def close(self) -> None:
        """Writes the rest and closes all files, also if one of them fails. Raises SinkError."""
        failed: BaseException | None = None
        for number, sink in self._sinks.items():
            try:
                self._take(number)
                sink.close()
            except BaseException as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def abandon(self) -> None:
        """Closes all files after an error."""
        for sink in self._sinks.values():
            sink.abandon()

    def _put(self, number: int, outgoing: Outgoing) -> tuple[int, int]:
        self._take(number)
        return self._sinks[number].write(outgoing)

    def _take(self, number: int) -> None:
        for each in self._turns.values():
            each.active = False
        self._turns[number].take()
