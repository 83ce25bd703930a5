"""Runs one command and tells what it took: wall time, processor time, and the memory of its whole process tree.

Linux only. Not here: which commands, how often, and what is made of the figures.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SAMPLE_INTERVAL_S = 0.005
OUTPUT_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Run:
    """One run. `cpu_s` is user and system time of the command and of every descendant that was waited for."""

    wall_s: float
    cpu_s: float
    status: int  # exit status, or minus the signal that ended it
    output: str  # its standard output
    complaint: str  # the last line of its standard error
    peak_bytes: int | None = None  # the largest sum of proportional set sizes; None: not sampled, or too short a run


def run(command: Sequence[str | Path], *, timeout_s: float = 900.0, sample_memory: bool = False) -> Run:
    """Runs `command` to its end; after `timeout_s` its process group is killed.

    Sampling reads page tables and takes a processor for itself: do not compare times of a run that was sampled.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
        )
        alarm = threading.Timer(timeout_s, _kill_group, [process.pid])
        alarm.daemon = True
        alarm.start()
        sampler = Sampler(process.pid) if sample_memory else None
        try:
            # os.wait4 and not process.wait: it alone tells what the descendants took.
            _, wait_status, usage = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - started
        except BaseException:  # interrupted: the command must not go on alone
            _kill_group(process.pid)
            process.wait()
            raise
        finally:
            alarm.cancel()
            peak_bytes = sampler.finish() if sampler else None
        process.returncode = os.waitstatus_to_exitcode(wait_status)
        cpu_s = usage.ru_utime + usage.ru_stime
        complaints = _text(errors).strip().splitlines()
        if process.returncode == -signal.SIGKILL and wall_s >= timeout_s:
            complaints.append(f"not finished after {timeout_s:g} s")
        return Run(wall_s, cpu_s, process.returncode, _text(output), complaints[-1] if complaints else "", peak_bytes)


class Sampler:
    """Follows the memory of a process and its descendants from a thread, about every 10 ms.

    Proportional set size counts a page that several processes share once in the sum, so that shared memory is not
    counted as often as it is mapped.
    """

    def __init__(self, root: int) -> None:
        self._members = {root}
        self._root = root
        self._peak_bytes = 0
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def finish(self) -> int | None:
        self._finished.set()
        self._thread.join()
        return self._peak_bytes or None

    def _follow(self) -> None:
        while True:
            self._members = family(self._root, self._members)
            self._peak_bytes = max(self._peak_bytes, sum(map(proportional_bytes, self._members)))
            if self._finished.wait(SAMPLE_INTERVAL_S):
                return


def family(root: int, known: set[int]) -> set[int]:
    """Processes now running that descend from `root`, share its session, or descend from one that was known to."""
    parents: dict[int, int] = {}
    members: set[int] = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
        except (OSError, UnicodeDecodeError):
            continue
        pid = int(entry)
        parents[pid] = int(fields[1])
        if pid in known or int(fields[3]) == root:
            members.add(pid)
    while found := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= found
    return members


def proportional_bytes(pid: int) -> int:
    """PSS of a process; 0 once it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            for line in rollup:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read(OUTPUT_BYTES_MAX).decode(errors="replace")
