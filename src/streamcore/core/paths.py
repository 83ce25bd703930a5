"""What stands in the way where a path may not be used. Nothing here opens a file."""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path


def in_the_way(error: OSError, path: str | os.PathLike[str]) -> str:
    """Words to add to an error of permissions: the directory on the way to the path that this user may not pass; "" for
    other errors, and where the path itself is what they may not use."""
    if error.errno not in (errno.EACCES, errno.EPERM):
        return ""
    for directory in reversed(Path(os.path.abspath(path)).parents):
        if not os.access(directory, os.X_OK, effective_ids=True):
            return f": the directory {directory} is closed to {user()}"
    return ""


def user() -> str:
    """The name of the user that this process acts as, or its number."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"
