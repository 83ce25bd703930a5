"""Gives up the rights of this process after it has opened live interfaces, and explains how to get missing rights.

Sources: capabilities(7), prctl(2), linux/capability.h.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shlex
import sys
from pathlib import Path

from streamcore.core.errors import StreamcoreError, UsageError

NET_RAW, DAC_OVERRIDE = 13, 1  # CAP_…
CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
SET_NO_NEW_PRIVILEGES, AMBIENT, AMBIENT_CLEAR_ALL = 38, 47, 4


def has(capability: int) -> bool:
    """Whether this thread may use a capability."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/thread-self/status").read_text().splitlines())
    return bool(int(status["CapEff"], 16) >> capability & 1)


def give_up(user: str = "") -> None:
    """Gives up every capability for good, also for processes started later, and becomes `user` if given.

    Root without a user stays root and keeps the right to write files anywhere (CAP_DAC_OVERRIDE), which it may need to
    write captures. Capabilities belong to threads, so call it while there is only one. Raises UsageError if there is no
    such user or this process may not become it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if user:
        become(user)
    libc.prctl(AMBIENT, AMBIENT_CLEAR_ALL, 0, 0, 0)
    kept = 1 << DAC_OVERRIDE if os.geteuid() == 0 and has(DAC_OVERRIDE) else 0
    head = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable; then their upper halves
    # Processes started from here on cannot gain capabilities either.
    if libc.capset(head, sets) != 0 or libc.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise StreamcoreError(f"cannot give up privileges: {os.strerror(ctypes.get_errno()).lower()}")


def become(user: str) -> None:
    """Becomes a user, with its groups. Raises UsageError."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise UsageError(f"there is no user {user!r} on this machine") from None
    if os.getuid() == os.geteuid() == entry.pw_uid:
        return
    try:
        os.initgroups(user, entry.pw_gid)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except PermissionError:
        raise UsageError(f"cannot continue as {user!r}: only a run started as root can") from None
    if not (os.access(sys.executable, os.X_OK) and os.access(__file__, os.R_OK)):  # workers start as that user
        raise UsageError(f"{user!r} may not read {sys.prefix}, where streamcore is installed: install it elsewhere")


def what_to_type() -> str:
    """The command line as it was typed, prefixed so that it gets the right that it needs and keeps no other."""
    typed = [os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    if os.path.basename(typed[0]) == "__main__.py":
        typed[:1] = [sys.executable, "-m", "streamcore"]
    if "--user" not in typed and "run" in typed:
        place = typed.index("run") + 1
        typed[place:place] = ["--user", pwd.getpwuid(os.getuid()).pw_name]
    return f"sudo {shlex.join(typed)}"
