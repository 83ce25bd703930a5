"""The dead-letter capture keeps segments that no worker could process. Their packets are dropped or forwarded."""

from __future__ import annotations

from streamcore.core.config import Config
from streamcore.core.errors import SinkError
from streamcore.core.packets import Outgoing, Result
from streamcore.disperse.dispatcher import NO_AGREEMENT
from streamcore.run.streams import Streams
from streamcore.sink.names import free_name
from streamcore.sink.writer import CaptureSink, open_capture
from streamcore.source.protocol import Source

REASONS_MAX = 100  # a worker chooses its words
OTHER = "other reasons"


class DeadLetters:
    """One capture, opened with the first segment that it keeps, and readable by its owner alone. It replaces no file,
    unless config.overwrite says so. Only the thread that takes results uses it.
    """

    def __init__(self, config: Config, streams: Streams, source: Source) -> None:
        self.reasons: dict[str, int] = {}  # reason -> segments
        self._path = config.dead_letter_path
        self._overwrite = config.overwrite
        self._streams = streams
        self._sent = streams.sends_first  # what only observing services failed on has left already
        self._source = source
        self._sink: CaptureSink | None = None

    @property
    def path(self) -> str:
        """The path of the capture; "" if it has no segments."""
        return self._path if self._sink is not None else ""

    def replace(self, result: Result) -> Result:
        """Keeps a dead segment. Returns the packets that its stream's rule forwards. Raises SinkError."""
        segment = result.segment
        stream = self._streams[segment.stream]
        passes = self._sent or stream.on_failure == "pass"
        if result.reason == NO_AGREEMENT and stream.subcontract is not None:
            passes = stream.subcontract.otherwise == "pass"
        name = "disperse.passed_unprocessed" if passes else "disperse.dead_lettered"
        self._streams.count(segment.stream, name, len(segment), segment.byte_count)
        if result.reason == NO_AGREEMENT and passes:
            return Result(segment)
        if self._sink is None:
            self._path = self._path if self._overwrite else free_name(self._path)
            self._sink = open_capture(
                self._path, interfaces=self._source.interfaces, form=self._source.form, private=True
            )
        self._sink.write(Outgoing(segment.batch, segment.start, segment.stop))
        reason = result.reason if result.reason in self.reasons or len(self.reasons) < REASONS_MAX else OTHER
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        return Result(segment) if passes else result

    def __enter__(self) -> DeadLetters:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        """Closes the capture, also after an error; its records stay whole. Only the first error counts."""
        if self._sink is None:
            return
        try:
            self._sink.close()
        except SinkError:
            if kind is None:
                raise
