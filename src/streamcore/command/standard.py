"""The standard streams of a command: what stands in for those that are closed at the start, and how a command ends
whose reader has gone away.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import NoReturn

READING, WRITING, ERRORS = 0, 1, 2


def fill_closed() -> None:
    """Puts /dev/null in the place of standard streams that are closed, so that nothing else is opened there.

    It is opened for the other direction: reading standard input fails, and so does writing standard output, as if they
    were still closed. What is written to standard error is lost.
    """
    for descriptor, flags in ((READING, os.O_WRONLY), (WRITING, os.O_RDONLY), (ERRORS, os.O_RDWR)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, flags)  # the lowest number that is free
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            else:
                os.set_inheritable(descriptor, True)
    if sys.stdout is None:
        sys.stdout = open(WRITING, "w", closefd=False)  # noqa: SIM115  for as long as the process
    if sys.stderr is None:  # print() would write to standard output
        sys.stderr = open(ERRORS, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may have any bytes
        sys.stdout.reconfigure(errors="surrogateescape")


def what_went_wrong(error: OSError) -> str:
    """Why standard output cannot be written."""
    return "it is closed" if error.errno == errno.EBADF else (error.strerror or str(error)).lower()


def forget_output() -> None:
    """Replaces standard output, which cannot be written any more: the interpreter must not flush it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), WRITING)


def settle_output() -> None:
    """Writes what is buffered for standard output, or forgets it if that fails."""
    try:
        sys.stdout.flush()
    except OSError:
        forget_output()


def end_as_by_sigpipe() -> NoReturn:
    """Ends the process without a word, as SIGPIPE ends other programs whose reader has gone away."""
    forget_output()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPIPE])
    os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(128 + signal.SIGPIPE)  # not reached
