"""Run targets, each in a process of its own: `python -m tests.streamcore.fuzz [TARGET …] --seconds 60`. See --help.

What a failure needs to be repeated is printed: target, seed and batch.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
SANITIZED = ROOT / "build" / "fuzz" / "lib"  # where `make fuzz` builds the modules with AddressSanitizer


def main() -> int:
    from tests.streamcore.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.streamcore.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all without any")
    parser.add_argument("--seconds", type=float, default=10, help="for each target (10)")
    parser.add_argument("--runs", type=int, default=0, help="for each target, instead of --seconds")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run; without it one is drawn")
    parser.add_argument("--batch", type=int, default=None, help="this batch alone")
    parser.add_argument("--sanitized", action="store_true", help="the modules that `make fuzz` built")
    parser.add_argument("--together", action="store_true", help="in one process, which starts once")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [each for each in options.targets if each not in TARGETS]:
        parser.error(f"no target {unknown[0]}: use one of {', '.join(TARGETS)}")
    seed = secrets.randbits(32) if options.seed is None else options.seed
    if options.child:
        return child(options, seed)
    print(f"seed {seed}, {'with AddressSanitizer' if options.sanitized else 'modules as they are'}", flush=True)
    targets = options.targets or list(TARGETS)
    several = [targets] if options.together else [[each] for each in targets]
    return 1 if [each for each in several if not watched(each, seed, options)] else 0


def watched(targets: list[str], seed: int, options: argparse.Namespace) -> bool:
    """Run targets in a process, one after the other; say how it went."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        note = Path(directory) / "note"
        note.write_bytes(b"")
        words = [sys.executable, "-m", "tests.streamcore.fuzz", *targets, "--child", str(note), "--seed", str(seed)]
        words += ["--seconds", str(options.seconds), "--runs", str(options.runs)]
        words += ["--batch", str(options.batch)] if options.batch is not None else []
        environment = dict(os.environ)
        if options.sanitized:
            environment |= sanitized()
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        lines = [line.split() for line in note.read_text().splitlines()]  # of each target begun: its state at last
    last = lines.pop() if lines and done.returncode else None
    for target, runs, _, seconds in lines:
        rate = int(int(runs) / max(float(seconds), 1e-3))
        print(f"{target:<10} {int(runs):>12,} runs {float(seconds):>8.1f} s {rate:>10,}/s", flush=True)
    if done.returncode == 0:
        return True
    target, _, batch, _ = last or (targets[0], "0", "0", "0")
    print(f"{target:<10} FAILED in batch {batch}, status {done.returncode}: repeat it with", flush=True)
    more = " --sanitized" if options.sanitized else ""
    print(f"    python -m tests.streamcore.fuzz {target} --seed {seed} --batch {batch}{more}")
    print("\n".join("    " + line for line in done.stderr.strip().splitlines()[-60:]), flush=True)
    return False


def sanitized() -> dict[str, str]:
    """The environment in which the modules built with AddressSanitizer are the ones that are loaded."""
    if not SANITIZED.is_dir():
        raise SystemExit(f"there are no modules in {SANITIZED}: run make fuzz")
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    return {
        "LD_PRELOAD": os.path.realpath(library.stdout.strip()),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:handle_segv=1:exitcode=99",
        "PYTHONPATH": f"{SANITIZED}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep),
    }


def child(options: argparse.Namespace, seed: int) -> int:
    from tests.streamcore.fuzz.inputs import packets
    from tests.streamcore.fuzz.targets import TARGETS

    if "ASAN_OPTIONS" not in os.environ:
        faulthandler.enable()
    packets()  # made once, before the clock runs
    note = os.open(options.child, os.O_WRONLY)
    written = 0
    for target in options.targets:
        one_batch = TARGETS[target]()
        runs, batch, begun_s = 0, options.batch or 0, time.monotonic()
        while True:
            seconds = time.monotonic() - begun_s
            line = f"{target} {runs} {batch} {seconds:.3f}".ljust(63) + "\n"
            os.pwrite(note, line.encode(), written)
            enough = runs >= options.runs if options.runs else seconds >= options.seconds
            if runs and (options.batch is not None or enough):
                break
            runs += one_batch(random.Random(f"{seed} {target} {batch}"), batch)
            batch += 1
        written += 64
    return 0


if __name__ == "__main__":
    sys.exit(main())
