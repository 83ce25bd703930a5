"""Progress on a terminal: how far the input is read, the rate, the time left. Elsewhere, nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamcore.pipeline import Pipeline

REFRESH_S = 0.25


@contextmanager
def following(pipeline: Pipeline, wanted: bool) -> Iterator[None]:
    """Show the pipeline's progress while the block runs, where standard error is a terminal."""
    if not wanted or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    ended = threading.Event()
    columns = (
        TextColumn("{task.percentage:>3.0f}%"), BarColumn(), TextColumn("{task.fields[packets]:,} packets"),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None, packets=0, rate="")

        def follow() -> None:
            while not ended.wait(REFRESH_S):
                consumed, size = pipeline.progress()
                written = pipeline.counters.packets("source.read")
                elapsed_s = shown.tasks[0].elapsed or 1.0
                rate = f"{written / elapsed_s / 1e6:.2f} M/s" if written else ""
                shown.update(task, completed=consumed, total=size, packets=written, rate=rate)

        thread = threading.Thread(target=follow, name="streamcore-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
