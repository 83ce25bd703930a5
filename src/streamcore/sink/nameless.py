"""A file that gets its name only after its header is written. Even after a crash, a file with the name has a header.

The writer decides what to write into it.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)  # errors of file systems without nameless files


class Nameless:
    """A new file for `path`, open for writing as `descriptor`. It is in the same directory, but has no name until
    `appear`. If the file system cannot do that, it has a temporary name until then. Raises OSError."""

    def __init__(self, path: str, mode: int = 0o666) -> None:
        self._path = path
        self._other = ""  # the temporary name
        directory = os.path.dirname(path) or "."
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            self.descriptor = os.open(directory, flags | os.O_TMPFILE, mode)
        except OSError as error:
            if error.errno not in NO_NAMELESS:
                raise
            self._other = f"{path}.{os.getpid()}.begun"
            self.descriptor = os.open(self._other, flags | os.O_CREAT | os.O_TRUNC, mode)

    def appear(self, replace: bool) -> None:
        """Gives it its name. replace: a file that has the name loses it; otherwise FileExistsError. Raises OSError."""
        if self._other:
            if replace:
                os.replace(self._other, self._path)
            else:
                os.link(self._other, self._path)
                os.unlink(self._other)
            self._other = ""
            return
        if replace:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
        # Through /proc, because linking a descriptor directly needs a capability. With a src_dir_fd, which an absolute
        # path ignores, Python follows the link there.
        os.link(f"/proc/self/fd/{self.descriptor}", self._path, src_dir_fd=self.descriptor, follow_symlinks=True)

    def forget(self) -> None:
        """Removes a file that has not appeared; nothing is left once its descriptor is closed."""
        if self._other:
            with suppress(FileNotFoundError):
                os.unlink(self._other)
            self._other = ""
