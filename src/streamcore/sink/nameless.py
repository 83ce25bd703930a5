"""A file that gets its name only after its header is written. Even after a crash, a file with the name has a header.

The writer decides what to write into it.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)  # what file systems without nameless files say


class Nameless:
    """A new file that is to be `path`, open for writing as `descriptor`; in the same directory, but without a name
    until `appear`. Where that cannot be, it has a name of its own until then. Raises OSError."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._other = ""  # the name of its own
        directory = os.path.dirname(path) or "."
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            self.descriptor = os.open(directory, flags | os.O_TMPFILE, 0o666)
        except OSError as error:
            if error.errno not in NO_NAMELESS:
                raise
            self._other = f"{path}.{os.getpid()}.begun"
            self.descriptor = os.open(self._other, flags | os.O_CREAT | os.O_TRUNC, 0o666)

    def appear(self) -> None:
        """Give it its name, instead of a file that has it. Raises OSError."""
        if self._other:
            os.replace(self._other, self._path)
            self._other = ""
            return
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        # By way of /proc, because linking a descriptor itself would take a capability. With a src_dir_fd, which an
        # absolute path ignores, Python follows the link there.
        os.link(f"/proc/self/fd/{self.descriptor}", self._path, src_dir_fd=self.descriptor, follow_symlinks=True)

    def forget(self) -> None:
        """Nothing stays of a file that has not appeared, once its descriptor is closed."""
        if self._other:
            with suppress(FileNotFoundError):
                os.unlink(self._other)
            self._other = ""
