"""Removes an incomplete record from the end of the output. A worker does this if the main process was killed.

It imports only the standard library, so it runs even if nothing else is loaded.
"""

import fcntl
import os
import stat
import time

PATIENCE_S, PAUSE_S = 1.0, 0.02  # until the lock of the killed process is gone


def seal(path: str, committed_bytes: int) -> bool:
    """Truncates the regular file at path to committed_bytes if it is longer. Returns whether it did. Raises OSError.

    With committed_bytes 0 nothing was written yet: a file of that name is not ours, and is left alone.
    """
    if committed_bytes == 0:
        return False
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode) or status.st_size <= committed_bytes:
        return False
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if not _is_ours(descriptor):
            return False
        os.ftruncate(descriptor, committed_bytes)
    finally:
        os.close(descriptor)
    return True


def _is_ours(descriptor: int) -> bool:
    """Whether nobody writes the file any more. Another run that has begun to has it locked."""
    ends_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > ends_s:
                return False
            time.sleep(PAUSE_S)
        except OSError:
            return True  # a file system without locks
