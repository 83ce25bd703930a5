"""The names of a rotation's files, one after the other, and those of earlier runs that its ring goes on with."""

from __future__ import annotations

import os
import re
import stat
import time

from streamcore.core.config import Config
from streamcore.sink.finished import PART, adopt, in_use
from streamcore.sink.names import divided, free_name
from streamcore.sink.windows import name_of


class Names:
    """The names in order. Without config.overwrite they replace nothing, but in a ring: it goes on at its oldest file.

    With rotate_s, `write` with strftime's codes replaced for the begin of the window, and -N if that is taken. With
    rotate_mb a number follows, from 1 on, or in a ring (rotate_mb with rotate_files, without rotate_s) from 0 on with
    as many digits as needed.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._base = config.write
        self._number = 0  # of the file, under rotate_mb
        self._ring = config.rotate_files if config.rotate_mb and not config.rotate_s else 0

    def of_window(self, begin_ns: int) -> str:
        """The name of the first file of a window of rotate_s, or of all. Raises SinkError."""
        config = self._config
        self._base, self._number = config.write, 0
        if config.rotate_s:
            self._base = name_of(config.write, begin_ns)
            if not config.overwrite:
                self._base = free_name(self._base, in_use)
        elif self._ring and not config.overwrite:
            self._number = self._next_of_ring()
        return self._next_free()

    def of_next(self) -> str:
        """The name of the next file of the window."""
        self._number += 1
        if self._number == self._ring:
            self._number = 0
        return self._next_free()

    def earlier(self) -> list[str]:
        """The files of earlier runs that the ring goes on with, the oldest first: by number, or those whose names
        `write` with its codes can make, in a directory without codes; with them the parts of runs that were killed.
        Raises SinkError if another run is writing one of them."""
        config = self._config
        if not config.rotate_files or config.overwrite:
            return []
        if self._ring:
            files = [self._name(self._base, number) for number in range(self._ring)]
            for path in files:
                adopt(path)
            begin = self._next_of_ring()
            return [path for path in files[begin:] + files[:begin] if in_use(path)]
        found = []
        directory = os.path.dirname(config.write) or "."
        if "%" in directory or "%" not in config.write:
            return []
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    name, status = entry.name.removesuffix(PART), entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and self._could_make(name):
                        path = os.path.join(os.path.dirname(config.write), name)
                        adopt(path)
                        found.append((status.st_mtime_ns, path))
        except OSError:
            return []  # opening the first file says why not
        return [path for _, path in sorted(found)]

    def _could_make(self, name: str) -> bool:
        """Whether this is a name that the pattern makes for a time, with a number or without."""
        pattern = os.path.basename(self._config.write)
        for each in _without_numbers(name, bool(self._config.rotate_mb)):
            try:
                moment = time.strptime(each, pattern)
                if time.strftime(pattern, moment) == each:
                    return True
            except (ValueError, re.error, OverflowError):  # %s and the like can be written, not read
                continue
        return False

    def _next_free(self) -> str:
        config = self._config
        if config.rotate_mb and not self._ring and not config.overwrite:
            while in_use(self._name(self._base, self._number)):
                self._number += 1
        return self._name(self._base, self._number)

    def _next_of_ring(self) -> int:
        """Where the ring of an earlier run goes on: at its first free number, or else at its oldest file."""
        files = [self._name(self._base, number) for number in range(self._ring)]
        free = [number for number, path in enumerate(files) if not in_use(path)]
        return free[0] if free else min(range(len(files)), key=lambda number: os.stat(files[number]).st_mtime_ns)

    def _name(self, base: str, number: int) -> str:
        if not self._config.rotate_mb:
            return base
        digits = len(str(self._ring - 1)) if self._ring > 1 else 0
        return f"{base}{number:0{digits}d}" if digits or number else base


def _without_numbers(name: str, numbered: bool) -> list[str]:
    """The name, and what it may have been before a number was added behind it or before its endings."""
    names = [name]
    if numbered and (found := re.fullmatch(r"(.*?)[0-9]+", name)):
        names.append(found[1])
    for each in list(names):
        stem, ending = divided(each)
        if found := re.fullmatch(r"(.+)-[0-9]+", stem):
            names.append(found[1] + ending)
    return names
