"""Removes an incomplete record from the end of the output. A worker does this if the main process was killed.

It imports only the standard library, so it runs even if nothing else is loaded.
"""

import os
import stat


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
    os.truncate(path, committed_bytes)
    return True
