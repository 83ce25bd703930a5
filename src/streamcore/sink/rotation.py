"""Rotation: splits the second stream into several files, which are named and divided as by tcpdump's -C, -G and -W,
but replace nothing.

Each file is written by a separate CaptureSink, from the header to the last whole record.
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
from streamcore.sink.names import free_name, is_taken, refuse_claimed
from streamcore.sink.protocol import Place, SinkNeeds
from streamcore.sink.sections import Sections
from streamcore.sink.writer import CaptureSink, sections_of, shape_of

ROOM_BYTES = 1 << 20  # of a file beyond rotate_mb: its last packets
NO_LIMIT_BYTES, NO_LIMIT_NS = (1 << 64) - 1, (1 << 63) - 1


def open_rotating(config: Config, needs: SinkNeeds) -> RotatingSink:
    """The sink of `write` with rotation; the arena tells the workers which file to truncate. Raises SinkError."""
    assert needs.form is not None
    if config.write != "-":
        needs.arena.set_output_path(os.fsencode(os.path.abspath(config.write)))
    return RotatingSink(
        config, interfaces=needs.interfaces, form=needs.form, counters=needs.counters,
        on_commit=needs.arena.set_committed_bytes, on_file=needs.arena.set_output_path, on_last=needs.on_last,
        sections=sections_of(config, needs),
    )  # fmt: skip


class RotatingSink:
    """Writes files one after the other, by config's rotate_mb, rotate_s and rotate_files. One thread at a time.

    A packet starts a new file if the file has more than rotate_mb million bytes (for compressed files, bytes written),
    or if the packet is rotate_s or more later than the file's first packet. Names: `write`; with rotate_s, strftime
    expands it in local time, and -N is added to a name that is taken; with rotate_mb a number follows, from 1 on, or
    with rotate_files from 0 on with as many digits as needed, and then the first file is overwritten. With rotate_s
    alone, rotate_files ends the run. tcpdump uses the clock; this uses packet times, so that captures are divided like
    live packets.

    interfaces, form, on_commit: as in a CaptureSink. on_file: called with the path of each new file, after
    on_commit(0). on_last: called when the last file is full; later packets are counted as sink.after_last_file. Raises
    SinkError.
    """

    def __init__(
        self, config: Config, *, interfaces: Sequence[Interface], form: CaptureForm, counters: Counters,
        on_commit: Callable[[int], None], on_file: Callable[[bytes], None], on_last: Callable[[], None],
        sections: Sections | None = None,
    ) -> None:  # fmt: skip
        self._config = config
        self.name = config.write
        self._path = ""  # of the file that is being written
        self._interfaces = interfaces
        self._form = form
        self._counters = counters
        self._on_commit = on_commit
        self._on_file = on_file
        self._on_last = on_last
        self._sections = sections
        self._shape = shape_of(config.write, form)
        self._sink: CaptureSink | None = None
        self._full = False
        self._removed = 0
        self._names = Names(config)
        self._left: dict[str, tuple[int, int]] = {}  # file of this run -> packets and bytes written into it
        self._windows = 0  # of rotate_s, so far
        self._window_ns = 0  # when this one began
        self._make(config.write if config.rotate_s else self._names.of_window(0)).check()

    def write(self, outgoing: Outgoing) -> tuple[int, int]:
        """Writes packets. Returns the (packets, captured bytes) that are in files, or will be if compressed. Raises
        SinkError."""
        packets = byte_count = 0
        first = 0 if self._sink is None else -1  # the place of the first packet that starts the next file
        if self._sink is not None:
            packets, byte_count, first = self._put(self._sink, outgoing, 0)
        while first >= 0:
            left, left_bytes, time_ns = rest_of(outgoing, first)
            if not left:
                break
            self._turn(time_ns)
            if self._sink is None:
                self._counters.count("sink.after_last_file", left, left_bytes)
                break
            written, written_bytes, first = self._put(self._sink, outgoing, first)
            packets, byte_count = packets + written, byte_count + written_bytes
        return packets, byte_count

    def _put(self, sink: CaptureSink, outgoing: Outgoing, first: int) -> tuple[int, int, int]:
        try:
            packets, byte_count, first = sink.write_some(outgoing, first)
        except SinkError as error:
            raise self._explained(error) from None
        before = self._left[self._path]
        self._left[self._path] = (before[0] + packets, before[1] + byte_count)
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
            self._begin(self._names.of_window(self._window_ns))
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
                self._window_ns = time_ns
                self._windows += 1
                if self._windows == config.rotate_files and not config.rotate_mb:
                    self._full = True
                    self._on_last()
                    return
            else:
                self._begin(self._names.of_next())
                return
        self._begin(self._names.of_window(self._window_ns))

    def _begin(self, path: str) -> None:
        self._make_room(path)
        if path in self._left:
            self._counters.count("sink.replaced", *self._left.pop(path))
        self._left[path] = (0, 0)
        self._path = path
        self._sink = self._make(path)
        self._sink.check()
        self._on_commit(0)
        self._on_file(os.fsencode(os.path.abspath(path)))

    def _make_room(self, path: str) -> None:
        """In a ring: removes this run's oldest files until the disk has room for one more file."""
        if not (self._config.rotate_mb and self._config.rotate_files):
            return
        needed = self._config.rotate_mb * 1_000_000 + ROOM_BYTES
        for oldest in [each for each in self._left if each != path]:
            if free_bytes(path) >= needed:
                return
            try:
                os.unlink(oldest)
            except OSError:
                continue  # somebody has moved it
            self._counters.count("sink.replaced", *self._left.pop(oldest))
            self._counters.bump("sink.files_removed")

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
        sink = CaptureSink(path, self._interfaces, self._form, self._on_commit)
        sink.shape = self._shape  # a number follows the ending
        sink.sections, sink.shares_sections = self._sections, True
        sink.precision, sink.counters = config.precision, self._counters
        sink.replaces = config.overwrite or bool(config.rotate_mb and config.rotate_files)
        sink.limits = (
            config.rotate_mb * 1_000_000 if config.rotate_mb else NO_LIMIT_BYTES,
            self._window_ns + config.rotate_s * 10**9 if config.rotate_s else NO_LIMIT_NS,
        )
        return sink


def free_bytes(path: str) -> int:
    """What the file system of a path's directory has room for."""
    try:
        status = os.statvfs(os.path.dirname(path) or ".")
    except OSError:
        return 1 << 62  # opening the file says why not
    return status.f_bavail * status.f_frsize


class Names:
    """The names of a rotation's files, one after the other. Without config.overwrite they replace nothing, but in a
    ring (rotate_mb with rotate_files): it goes on at its oldest file.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._base = ""
        self._number = 0  # of the file, under rotate_mb
        self._ring = config.rotate_files if config.rotate_mb else 0

    def of_window(self, window_ns: int) -> str:
        """The name of the first file of a window of rotate_s, or of all. Raises SinkError."""
        config = self._config
        self._base, self._number = config.write, 0
        if config.rotate_s:
            try:
                self._base = time.strftime(config.write, time.localtime(window_ns // 10**9))
            except (ValueError, OverflowError, OSError) as error:
                raise SinkError(f"cannot name a file of {config.write} for a packet of its time: {error}") from None
            if not config.overwrite:
                self._base = free_name(self._base, lambda base: any(map(is_taken, self._files(base))))
        elif self._ring and not config.overwrite:
            self._number = self._oldest()
        return self._next_free()

    def of_next(self) -> str:
        """The name of the next file of the window."""
        self._number += 1
        if self._number == self._ring:
            self._number = 0
        return self._next_free()

    def _next_free(self) -> str:
        config = self._config
        if config.rotate_mb and not self._ring and not config.overwrite:
            while is_taken(self._name(self._base, self._number)):
                self._number += 1
        return self._name(self._base, self._number)

    def _oldest(self) -> int:
        """Where the ring of an earlier run goes on: at its first free number, or else at its oldest file."""
        files = self._files(self._base)
        for path in files:
            refuse_claimed(path)
        free = [number for number, path in enumerate(files) if not is_taken(path)]
        return free[0] if free else min(range(len(files)), key=lambda number: os.stat(files[number]).st_mtime_ns)

    def _files(self, base: str) -> list[str]:
        """All names in the ring of a window; without a ring its first name."""
        return [self._name(base, number) for number in range(max(1, self._ring))]

    def _name(self, base: str, number: int) -> str:
        if not self._config.rotate_mb:
            return base
        digits = len(str(self._ring - 1)) if self._ring > 1 else 0
        return f"{base}{number:0{digits}d}" if digits or number else base
