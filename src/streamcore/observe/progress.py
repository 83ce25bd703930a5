"""Shows progress on a terminal: the share of the input that was read, the rate and the time left. For live interfaces
it prints a line of figures every second. If standard error is not a terminal, it prints nothing.

Progress counts the file's bytes on disk, so it is correct for compressed captures, too.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from streamcore.core.counters import Counters
from streamcore.run.figures import Figures, line

REFRESH_S = 0.25
LINE_EVERY_S = 1.0


class Followed(Protocol):
    """The part of a Pipeline that the progress bar uses."""

    counters: Counters

    def progress(self) -> tuple[int, int | None]:
        """The bytes read from the input, and its size if known."""


@contextmanager
def following(pipeline: Followed, wanted: bool) -> Iterator[None]:
    """Shows the pipeline's progress while the block runs, if standard error is a terminal."""
    if not wanted or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[share]}"),
        BarColumn(),
        TextColumn("{task.fields[packets]:,} packets"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        begin_s = time.monotonic()
        task = shown.add_task("", total=None, packets=0, rate="", share="")

        def show() -> None:
            consumed, size = pipeline.progress()
            packets = pipeline.counters.packets("source.read")
            rate = f"{packets / max(time.monotonic() - begin_s, 1e-3) / 1e6:.2f} M/s" if packets else ""
            share = f"{100 * consumed // size:3d}%" if size else ""
            shown.update(task, completed=consumed, total=size, packets=packets, rate=rate, share=share)

        def follow(ended: threading.Event) -> None:
            while not ended.wait(REFRESH_S):
                show()

        try:
            with _beside(follow, "streamcore-progress"):
                yield
        finally:
            show()


@contextmanager
def _beside(follow: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Runs `follow` in a thread while the block runs; the event tells it that the block has ended."""
    ended = threading.Event()
    thread = threading.Thread(target=follow, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Looked(Protocol):
    """The part of a Pipeline that a line of figures uses."""

    def look(self) -> Figures: ...


@contextmanager
def each_second(pipeline: Looked, wanted: bool) -> Iterator[None]:
    """Prints a line of figures every second while the block runs, if standard error is a terminal."""
    if not wanted or not sys.stderr.isatty():
        yield
        return

    def follow(ended: threading.Event) -> None:
        before = pipeline.look()
        while not ended.wait(LINE_EVERY_S):
            now = pipeline.look()
            with suppress(OSError):  # nobody reads it
                print(f"{time.strftime('%H:%M:%S')}  {line(before, now)}", file=sys.stderr, flush=True)
            before = now

    with _beside(follow, "streamcore-figures"):
        yield
