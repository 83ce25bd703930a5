"""What follows when a file of several is complete: it gets its name, a ring removes its oldest, a command runs.

While a file is written, PART follows its name. A run that is killed leaves a valid file with such a name.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import SinkError
from streamcore.sink.after_file import Commands
from streamcore.sink.names import free_name, is_taken, refuse_claimed

PART = ".part"
AT_WORKING_DIRECTORY, NO_REPLACE = -100, 1  # as in fcntl.h and linux/fs.h
KNOWN_MAX = 65_536  # files of this run whose packets are remembered, in case that one is replaced


def in_use(path: str) -> bool:
    """Whether a file has this name, or would get it: one is being written, or was when a run was killed."""
    return is_taken(path) or is_taken(path + PART)


def part_of(path: str) -> str:
    """The name under which a file is written until it is complete. A device or a pipe keeps its own."""
    try:
        return path + PART if stat.S_ISREG(os.stat(path).st_mode) else path
    except OSError:
        return path + PART


def adopt(path: str) -> None:
    """Gives a part that a killed run left its name, unless a file has it. Raises SinkError if a run is writing it."""
    refuse_claimed(path)
    if is_taken(path + PART):
        refuse_claimed(path + PART)
        if not os.path.lexists(path):
            os.rename(path + PART, path)


class FinishedFiles:
    """The complete files of a run, the oldest first, after `earlier` ones of its ring. One thread at a time.

    inputs: (device, inode) of the captures that the run reads, which it neither replaces nor removes.
    """

    def __init__(
        self, config: Config, counters: Counters, inputs: Collection[tuple[int, int]], earlier: Iterable[str] = ()
    ) -> None:
        self._inputs = inputs
        self._kept_max = config.rotate_files
        self._replaces = config.overwrite
        self._counters = counters
        self._commands = Commands(config.after_file)
        self._ring = deque(path for path in earlier if not self._is_input(path))
        self._counts: OrderedDict[str, tuple[int, int]] = OrderedDict()  # of files that may be replaced

    @property
    def incomplete(self) -> list[str]:
        """A line for each reason why not all was done that was asked for."""
        return self._commands.incomplete

    def make_room(self, needed_bytes: int) -> None:
        """In a ring, removes the oldest files before a new one begins, and this run's oldest ones until the disk has
        room for it. Raises SinkError."""
        if not self._kept_max:
            return
        while len(self._ring) >= self._kept_max:
            self._remove(self._ring.popleft())
        for path in [path for path in self._ring if path in self._counts] if needed_bytes else ():
            if free_bytes(path) >= needed_bytes:
                return
            self._ring.remove(path)
            self._remove(path)
            self._counters.bump("sink.files_removed")

    def _remove(self, path: str) -> None:
        try:
            if stat.S_ISREG(os.lstat(path).st_mode):
                os.unlink(path)
        except FileNotFoundError:
            pass  # a command, or a person, took it away
        except OSError as error:
            raise SinkError(f"cannot remove {path}: {(error.strerror or str(error)).lower()}") from None
        self._replaced(path)

    def complete(self, part: str, path: str, packets: int, byte_count: int) -> str:
        """Gives a complete file (part_of its path) its name, and runs the command on it. Without overwrite it replaces
        nothing: if the name was taken meanwhile, it gets a number. Returns its name. Raises SinkError."""
        try:
            if part != path:
                path = self._rename(part, path)
        except OSError as error:
            raise SinkError(f"cannot rename {part}: {(error.strerror or str(error)).lower()}") from None
        if self._kept_max:
            self._ring.append(path)
        if self._kept_max or self._replaces:
            self._counts[path] = (packets, byte_count)
            if len(self._counts) > KNOWN_MAX:
                self._counts.popitem(last=False)
        self._commands.run(path)
        return path

    def look(self) -> None:
        """Takes note of commands that have ended."""
        self._commands.look()

    def close(self) -> None:
        """Waits for the commands that run."""
        self._commands.close()

    def _rename(self, part: str, path: str) -> str:
        if self._replaces and not self._is_input(path):
            refuse_claimed(path)
            self._replaced(path)
            os.replace(part, os.path.realpath(path))
            return path
        while True:
            try:
                rename_to_new(part, path)
                return path
            except FileExistsError:
                if _is_empty(path):
                    os.replace(part, path)
                    return path
                path = free_name(path, os.path.lexists)

    def _is_input(self, path: str) -> bool:
        try:
            status = os.stat(path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) in self._inputs

    def _replaced(self, path: str) -> None:
        if counts := self._counts.pop(path, None):
            self._counters.count("sink.replaced", *counts)


def rename_to_new(path: str, to: str) -> None:
    """Renames a file at one stroke, if no file has the new name. Raises FileExistsError, OSError."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        if renameat2(AT_WORKING_DIRECTORY, os.fsencode(path), AT_WORKING_DIRECTORY, os.fsencode(to), NO_REPLACE) == 0:
            return
        problem = ctypes.get_errno()
        if problem not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(problem, os.strerror(problem), path)
    if os.path.lexists(to):  # a file system, or a kernel, that cannot do both at once
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to)
    os.rename(path, to)


def free_bytes(path: str) -> int:
    """What the file system of a path's directory has room for."""
    try:
        status = os.statvfs(os.path.dirname(path) or ".")
    except OSError:
        return 1 << 62  # opening the file says why not
    return status.f_bavail * status.f_frsize


def _is_empty(path: str) -> bool:
    status = os.lstat(path)
    return stat.S_ISREG(status.st_mode) and status.st_size == 0
