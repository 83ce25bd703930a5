"""Lines for people, on standard error."""

from __future__ import annotations

import contextlib
import sys


def say(words: str) -> None:
    """Prints a line on standard error. If nobody reads it any more, the line is lost."""
    with contextlib.suppress(OSError):
        print(words, file=sys.stderr, flush=True)
