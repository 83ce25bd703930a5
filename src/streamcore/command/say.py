"""Lines for people, on standard error."""

from __future__ import annotations

import contextlib
import sys

from streamcore.core.text import shown_lines


def say(words: str) -> None:
    """Prints lines on standard error, without control characters: text of others may stand in them. If nobody reads
    standard error any more, they are lost."""
    with contextlib.suppress(OSError):
        print(shown_lines(words), file=sys.stderr, flush=True)
