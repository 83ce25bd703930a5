"""Plays seeds of the simulation in processes that only take what the machine has left over.

`python tests/auction/seeds.py FIRST STEP END` plays every STEPth seed from FIRST on and ends with one JSON line. The
suite starts as many as there are cores with its first test, and asks what they have found with its last.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from simulation import Found, Simulation

EVENTS = 500


class Players:
    """The seeds 0 to `seeds` - 1, played by a process a core."""

    def __init__(self, seeds: int) -> None:
        cores = len(os.sched_getaffinity(0))
        self.processes = [
            subprocess.Popen(
                [sys.executable, __file__, str(first), str(cores), str(seeds)],
                stdout=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                text=True,
            )
            for first in range(cores)
        ]

    def results(self) -> dict[str, Any]:
        """Waits for the last of them; the figures of all together."""
        figures = [json.loads(process.communicate()[0]) for process in self.processes]
        summed = {name: sum(one[name] for one in figures) for name in ("seeds", "events", "taken", "seconds")}
        return {**summed, "found": [words for one in figures for words in one["found"]]}

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def play(seeds: range) -> dict[str, object]:
    taken, found, started = 0, [], time.process_time()
    for seed in seeds:
        simulation = Simulation(seed)
        try:
            simulation.run(EVENTS)
        except Found as reason:
            found.append(f"seed {seed}: {reason}")
        taken += simulation.done
    seconds = time.process_time() - started
    return {"seeds": len(seeds), "events": EVENTS * len(seeds), "taken": taken, "seconds": seconds, "found": found}


def main() -> None:
    with suppress(AttributeError, OSError):  # where the system has no such class of its scheduler
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    gc.set_threshold(100_000)  # a market has no cycles
    first, step, end = map(int, sys.argv[1:])
    print(json.dumps(play(range(first, end, step))))


if __name__ == "__main__":
    main()
