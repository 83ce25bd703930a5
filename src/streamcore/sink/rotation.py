"""Rotation: splits the second stream into several files, which are named and divided as by tcpdump's -C, -G and -W.

Each file is written by a separate CaptureSink, from the header to the last whole record.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from streamcore.core.capture_form import CaptureForm, Interface
from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.packets import Outgoing
from streamcore.sink._encode import rest_of
from streamcore.sink.protocol import Place, SinkNeeds
from streamcore.sink.writer import CaptureSink, shape_of

NO_LIMIT_BYTES, NO_LIMIT_NS = (1 << 64) - 1, (1 << 63) - 1


def open_rotating(config: Config, needs: SinkNeeds) -> RotatingSink:
    """The sink of `write` with rotation; the arena tells the workers which file to truncate. Raises SinkError."""
    assert needs.form is not None
    if config.write != "-":
        needs.arena.set_output_path(os.fsencode(os.path.abspath(config.write)))
    return RotatingSink(
        config, interfaces=needs.interfaces, form=needs.form, counters=needs.counters,
        on_commit=needs.arena.set_committed_bytes, on_file=needs.arena.set_output_path, on_last=needs.on_last,
    )  # fmt: skip


class RotatingSink:
    """Writes files one after the other, by config's rotate_mb, rotate_s and rotate_files. One thread at a time.

    A packet starts a new file if the file has more than rotate_mb million bytes (for compressed files, bytes written),
    or if the packet is rotate_s or more later than the file's first packet. Names: `write`; with rotate_s, strftime
    expands it in local time; with rotate_mb a number follows, from 1 on, or with rotate_files from 0 on with as many
    digits as needed, and then the first file is overwritten. With rotate_s alone, rotate_files ends the run. tcpdump
    uses the clock; this uses packet times, so that captures are divided like live packets.

    interfaces, form, on_commit: as in a CaptureSink. on_file: called with the path of each new file, after
    on_commit(0). on_last: called when the last file is full; later packets are counted as sink.after_last_file. Raises
    SinkError.
    """

    def __init__(
        self, config: Config, *, interfaces: Sequence[Interface], form: CaptureForm, counters: Counters,
        on_commit: Callable[[int], None], on_file: Callable[[bytes], None], on_last: Callable[[], None],
    ) -> None:  # fmt: skip
        self._config = config
        self._interfaces = interfaces
        self._form = form
        self._counters = counters
        self._on_commit = on_commit
        self._on_file = on_file
        self._on_last = on_last
        self._shape = shape_of(config.write, form)
        self._sink: CaptureSink | None = None
        self._full = False
        self._removed = 0
        self._number = 0  # of the file, under rotate_mb
        self._windows = 0  # of rotate_s, so far
        self._window_ns = 0  # when this one began
        self._make(config.write).check()

    def write(self, outgoing: Outgoing) -> tuple[int, int]:
        """Writes packets. Returns the (packets, captured bytes) that are in files, or will be if compressed. Raises
        SinkError."""
        packets = byte_count = 0
        first = 0 if self._sink is None else -1  # the place of the first packet that starts the next file
        if self._sink is not None:
            packets, byte_count, first = self._sink.write_some(outgoing, 0)
        while first >= 0:
            left, left_bytes, time_ns = rest_of(outgoing, first)
            if not left:
                break
            self._turn(time_ns)
            if self._sink is None:
                self._counters.count("sink.after_last_file", left, left_bytes)
                break
            written, written_bytes, first = self._sink.write_some(outgoing, first)
            packets, byte_count = packets + written, byte_count + written_bytes
        return packets, byte_count

    @property
    def place(self) -> Place | None:
        """None: several files cannot be continued."""
        return None

    @property
    def paces(self) -> bool:
        """False: files take packets at any time."""
        return False

    @property
    def metadata_removed(self) -> int:
        """The number of options left out of all files so far, with a bare form."""
        return self._removed + (self._sink.metadata_removed if self._sink is not None else 0)

    def flush(self) -> None:
        """Writes the gathered packets. Raises SinkError."""
        if self._sink is not None:
            self._sink.flush()

    def stop(self) -> None:
        """Does nothing: writing a file never waits."""

    def close(self) -> None:
        """Writes the rest and closes; a stream without packets gets a file too. Raises SinkError."""
        if self._sink is None and not self._full:
            self._window_ns = time.time_ns()
            self._begin()
        if self._sink is not None:
            self._sink.close()

    def abandon(self) -> None:
        """Closes after an error; every file is valid."""
        if self._sink is not None:
            self._sink.abandon()

    def _turn(self, time_ns: int) -> None:
        """Begins the next file with a packet of this time, or none after the last file."""
        config = self._config
        if self._full:
            return
        if self._sink is None:
            self._window_ns = time_ns
        else:
            self._sink.close()
            self._removed += self._sink.metadata_removed
            self._sink = None
            if config.rotate_s and time_ns >= self._window_ns + config.rotate_s * 10**9:
                self._window_ns, self._number = time_ns, 0
                self._windows += 1
                if self._windows == config.rotate_files and not config.rotate_mb:
                    self._full = True
                    self._on_last()
                    return
            else:
                self._number += 1
                if self._number == config.rotate_files:
                    self._number = 0
        self._begin()

    def _begin(self) -> None:
        path = self._path()
        self._sink = self._make(path)
        self._sink.check()
        self._on_commit(0)
        self._on_file(os.fsencode(os.path.abspath(path)))

    def _make(self, path: str) -> CaptureSink:
        config = self._config
        sink = CaptureSink(path, self._interfaces, self._form, self._on_commit)
        sink.shape = self._shape  # a number follows the ending
        sink.limits = (
            config.rotate_mb * 1_000_000 if config.rotate_mb else NO_LIMIT_BYTES,
            self._window_ns + config.rotate_s * 10**9 if config.rotate_s else NO_LIMIT_NS,
        )
        return sink

    def _path(self) -> str:
        """The name of the file that begins now."""
        config = self._config
        path = config.write
        if config.rotate_s:
            path = time.strftime(path, time.localtime(self._window_ns // 10**9))
        if not config.rotate_mb:
            return path
        digits = len(str(config.rotate_files - 1)) if config.rotate_files > 1 else 0
        return f"{path}{self._number:0{digits}d}" if digits or self._number else path
