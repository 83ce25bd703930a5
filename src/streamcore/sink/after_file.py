"""Runs the command of `after_file` on each file that is complete: few at a time, never through a shell.

What the command does is its own affair: it runs as the run's user, with the file as its last argument.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import deque

from streamcore.core.text import shown
from streamcore.core.words import command_words

AT_ONCE = 4  # processes
WAITING_MAX = 10_000  # files that wait for their command
PATIENCE_S = 60.0  # at the end of a run, for all that still runs or waits


class Commands:
    """The commands of a run. They never keep packets waiting. One thread at a time."""

    def __init__(self, command: str, at_once: int = AT_ONCE, patience_s: float = PATIENCE_S) -> None:
        self._words = command_words(command)
        self._at_once, self._patience_s = at_once, patience_s
        self._waiting: deque[str] = deque()
        self._running: list[tuple[subprocess.Popen[bytes], str]] = []
        self._failed = self._left = 0
        self._first = ""  # the first that failed, in words

    @property
    def incomplete(self) -> list[str]:
        """A line for what failed and for what was not run."""
        lines = []
        if self._failed:
            lines.append(f"after_file: {self._failed:,} commands failed, the first: {self._first}")
        if self._left:
            lines.append(
                f"after_file: {self._left:,} files without their command: too many at once, or it took too long"
            )
        return lines

    def run(self, path: str) -> None:
        """Runs the command on a file, now or later."""
        if not self._words:
            return
        if len(self._waiting) >= WAITING_MAX:
            self._left += 1
        else:
            self._waiting.append(path)
        self.look()

    def look(self) -> None:
        """Takes note of commands that have ended, and begins those that wait."""
        for each in [each for each in self._running if each[0].poll() is not None]:
            self._running.remove(each)
            process, path = each
            if process.returncode:
                code = process.returncode
                self._note(path, f"status {code}" if code > 0 else f"killed by signal {-code}")
        while self._waiting and len(self._running) < self._at_once:
            self._start(self._waiting.popleft())

    def close(self) -> None:
        """Waits for all, for PATIENCE_S; what still runs then is ended."""
        ends_s = time.monotonic() + self._patience_s
        self.look()
        while self._running and time.monotonic() < ends_s:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._running[0][0].wait(min(0.1, max(0.0, ends_s - time.monotonic())))
            self.look()
        self._left += len(self._running) + len(self._waiting)
        self._waiting.clear()
        for process, _ in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running.clear()

    def _start(self, path: str) -> None:
        argument = path if os.path.isabs(path) else os.path.join(".", path)  # no name begins with a dash
        try:
            process = subprocess.Popen(
                [*self._words, argument], stdin=subprocess.DEVNULL, stdout=2, process_group=0
            )  # fmt: skip
        except OSError as error:
            self._note(path, (error.strerror or str(error)).lower())
            return
        self._running.append((process, path))

    def _note(self, path: str, why: str) -> None:
        self._failed += 1
        self._first = self._first or shown(f"{self._words[0]} {path}: {why}")
