"""Lines for people, on standard error. Where that is the journal, each line says how severe it is; the journal has the
time.
"""

from __future__ import annotations

import contextlib
import os
import sys

from streamcore.core.text import shown_lines

ERROR, WARNING, INFO = 3, 4, 6  # syslog(3)


def say(words: str, severity: int = INFO) -> None:
    """Prints lines on standard error, without control characters: text of others may stand in them. If nobody reads
    standard error any more, they are lost."""
    lines = shown_lines(words)
    if is_the_journal():
        lines = "\n".join(f"<{severity}>{line}" for line in lines.splitlines())
    with contextlib.suppress(OSError):
        print(lines, file=sys.stderr, flush=True)


def is_the_journal() -> bool:
    """Whether standard error goes to the journal: systemd names the stream in JOURNAL_STREAM (systemd.exec(5))."""
    named = os.environ.get("JOURNAL_STREAM", "")
    if not named:
        return False
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{status.st_dev}:{status.st_ino}"
