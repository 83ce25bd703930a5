"""Lines for people, on standard error."""

from __future__ import annotations

import contextlib
import sys


def say(words: str) -> None:
    """A line for people, if anybody is there to read it."""
    with contextlib.suppress(OSError):
        print(words, file=sys.stderr, flush=True)
