"""Rotation: splits the second stream into several files, which are named and divided as by tcpdump's -C, -G and -W,
but begin on the clock and replace nothing.

Each file is written by a separate CaptureSink, from the header to the last whole record. names.py and
rotation_names.py find names, windows.py divides time, finished.py does what follows when a file is complete.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from streamcore.core.capture_form import CaptureForm, Interface
from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import SinkError
from streamcore.core.packets import Outgoing
from streamcore.sink._encode import rest_of
from streamcore.sink.finished import FinishedFiles, part_of
from streamcore.sink.names import refuse_claimed
from streamcore.sink.protocol import Place, SinkNeeds
from streamcore.sink.rotation_names import Names
from streamcore.sink.sections import Sections
from streamcore.sink.windows import Window, window_of
from streamcore.sink.writer import CaptureSink, sections_of, shape_of

ROOM_BYTES = 1 << 20  # of a file beyond rotate_mb: its last packets
QUIET_NS = 5 * 10**9  # how long after its end a live file waits for late packets, if none come
NO_LIMIT_BYTES, NO_LIMIT_NS = (1 << 64) - 1, (1 << 63) - 1


def open_rotating(config: Config, needs: SinkNeeds) -> RotatingSink:
    """The sink of `write` with rotation; the arena tells the workers which file to truncate. Raises SinkError."""
    assert needs.form is not None
    return RotatingSink(
        config, interfaces=needs.interfaces, form=needs.form, counters=needs.counters,
        on_commit=needs.arena.set_committed_bytes, on_file=needs.arena.set_output_path,
        sections=sections_of(config, needs),
    )  # fmt: skip


class RotatingSink:
    """Writes files one after the other, by config's rotate_mb, rotate_s and rotate_files. One thread at a time.

    A packet starts a new file if the file has more than rotate_mb million bytes (for compressed files, bytes written),
    or if its time is that of the next window of rotate_s (windows.py). tcpdump uses the clock; this uses packet times,
    so that captures are divided like live packets. While a file is written, its name ends in .part.

    interfaces, form, on_commit: as in a CaptureSink. on_file: called with the path of each new file, after
    on_commit(0). Raises SinkError.
    """

    def __init__(
        self, config: Config, *, interfaces: Sequence[Interface], form: CaptureForm, counters: Counters,
        on_commit: Callable[[int], None], on_file: Callable[[bytes], None], sections: Sections | None = None,
    ) -> None:  # fmt: skip
        self._config = config
        self.name = config.write
        self._path = ""  # of the file that is being written, once it is complete
        self._interfaces = interfaces
        self._form = form
        self._counters = counters
        self._on_commit = on_commit
        self._on_file = on_file
        self._sections = sections
        self._shape = shape_of(config.write, form)
        self._sink: CaptureSink | None = None
        self._begun = False
        self._removed = 0
        self._written = [0, 0]  # packets and bytes in the file that is being written
        self._window = Window(0, NO_LIMIT_NS)
        self._names = Names(config)
        self._finished = FinishedFiles(config, counters, form.files, self._names.earlier())
        self._check(config.write if config.rotate_s else self._names.of_window(0))

    def write(self, outgoing: Outgoing) -> tuple[int, int]:
        """Writes packets. Returns the (packets, captured bytes) that are in files, or will be if compressed. Raises
        SinkError."""
        packets = byte_count = 0
        first = 0 if self._sink is None else -1  # the place of the first packet that starts the next file
        if self._sink is not None:
            packets, byte_count, first = self._put(self._sink, outgoing, 0)
        while first >= 0:
            left, _, time_ns = rest_of(outgoing, first)
            if not left:
                break
            before = first
            written, written_bytes, first = self._put(self._turn(time_ns), outgoing, first)
            if first == before:  # or file after file would be made without a packet
                raise SinkError(f"{self._path}: what stands before the packets leaves no room for one in such a file")
            packets, byte_count = packets + written, byte_count + written_bytes
        return packets, byte_count

    def _put(self, sink: CaptureSink, outgoing: Outgoing, first: int) -> tuple[int, int, int]:
        try:
            packets, byte_count, first = sink.write_some(outgoing, first)
        except SinkError as error:
            raise self._explained(error) from None
        self._written[0] += packets
        self._written[1] += byte_count
        return packets, byte_count, first

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
        """(packets, captured bytes) of `write` that may not be in the file that failed."""
        return self._sink.unsure if self._sink is not None else (0, 0)

    @property
    def metadata_removed(self) -> int:
        """The number of options and blocks left out of all files so far."""
        sections = self._sections.removed if self._sections is not None else 0
        return self._removed + sections + (self._sink.metadata_removed if self._sink is not None else 0)

    @property
    def incomplete(self) -> list[str]:
        """A line for each reason why not all was done that was asked for."""
        return self._finished.incomplete

    def flush(self) -> None:
        """Writes the gathered packets. Raises SinkError."""
        self._finished.look()
        if self._sink is None:
            return
        if self._config.interface and self._config.rotate_s and time.time_ns() > self._window.end_ns + QUIET_NS:
            self._sink.is_last = False
            self._complete(self._sink)  # nobody sends: the file need not wait for a packet of the next one
        else:
            self._sink.flush()

    def stop(self) -> None:
        """Does nothing: writing a file never waits."""

    def close(self) -> None:
        """Writes the rest and closes; a stream without packets gets a file too. Waits for the commands on complete
        files. Raises SinkError."""
        try:
            if self._sink is not None or not self._begun:
                self._complete(self._sink or self._turn(time.time_ns()))
        finally:
            self._finished.close()

    def abandon(self) -> None:
        """Closes after an error; every file is valid, and the last one keeps the name of one that is not complete."""
        try:
            if self._sink is not None:
                self._sink.abandon()
        finally:
            self._finished.close()

    def _turn(self, time_ns: int) -> CaptureSink:
        """Begins the next file, with a packet of this time."""
        config = self._config
        first = self._sink is None
        if self._sink is not None:
            self._sink.is_last = False
            self._complete(self._sink)
        if not first and (not config.rotate_s or time_ns < self._window.end_ns):
            return self._begin(self._names.of_next())
        if config.rotate_s:
            self._window = window_of(time_ns, config.rotate_s, config.rotate_aligned)
        return self._begin(self._names.of_window(self._window.begin_ns))

    def _complete(self, sink: CaptureSink) -> None:
        """Closes the file that is being written, and gives it its name."""
        sink.close()
        self._removed += sink.metadata_removed
        self._sink = None
        self._finished.complete(sink.path, self._path, *self._written)

    def _begin(self, path: str) -> CaptureSink:
        self._finished.make_room(self._config.rotate_mb * 1_000_000 + ROOM_BYTES if self._config.rotate_mb else 0)
        self._path, self._begun = path, True
        self._written = [0, 0]
        self._sink = sink = self._check(path)
        self._on_commit(0)
        self._on_file(os.fsencode(os.path.abspath(sink.path)))
        return sink

    def _check(self, path: str) -> CaptureSink:
        """A sink for a file that may be written. Raises SinkError."""
        refuse_claimed(path)
        sink = self._make(path)
        sink.check()
        return sink

    def _explained(self, error: SinkError) -> SinkError:
        """The error, and for a ring on a full disk what the ring needs."""
        config = self._config
        if self._sink is None or not self._sink.has_no_room or not (config.rotate_mb and config.rotate_files):
            return error
        return SinkError(
            f"{error}; a ring of {config.rotate_files} files of {config.rotate_mb} million bytes needs more"
        )

    def _make(self, path: str) -> CaptureSink:
        config = self._config
        sink = CaptureSink(part_of(path), self._interfaces, self._form, self._on_commit)
        sink.shape = self._shape  # a number follows the ending
        sink.sections, sink.shares_sections = self._sections, True
        sink.precision, sink.counters = config.precision, self._counters
        sink.replaces = True  # a part that nobody writes, with overwrite or in a ring; other names are free
        sink.limits = (config.rotate_mb * 1_000_000 if config.rotate_mb else NO_LIMIT_BYTES, self._window.end_ns)
        return sink
