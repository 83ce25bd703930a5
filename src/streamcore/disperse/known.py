"""Which keys of workers are known while a run goes on: a folder's, which is watched, and those that the placer adds.

remote.py asks here whenever somebody connects; places.py refuses a struck key that is still connected.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from streamcore.core.counters import Counters
from streamcore.core.errors import UsageError
from streamcore.core.text import shown

LOOK_S = 1.0  # between two looks at the folder
SETTLED_NS = 2_000_000_000  # a file that was changed this lately is read again, and not judged if it holds no key
FILES_MAX = 1024  # .key files of a folder,
ENTRIES_MAX = 8192  # and files of any kind: a look at 1,024 takes some 3 ms
FILE_BYTES_MAX = 16_384
EVER_MAX = 65_536  # keys that were ever known in one run, or struck: what is kept by key is bounded by it
LINES_MAX = 100  # of what is said about files
KEY = re.compile(rb"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")  # Z85 (ZeroMQ RFC 32) of 32 bytes


def read_key(path: str) -> str:
    """The public key (Z85) of a key file. Raises OSError if it cannot be read, ValueError if it holds no key."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)  # a FIFO must not hold us up
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        raw = os.read(descriptor, FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(raw) > FILE_BYTES_MAX:
        raise ValueError(f"it is longer than {FILE_BYTES_MAX:,} bytes")
    lines = [line.strip() for line in raw.splitlines()]
    found = [line.partition(b"=")[2].strip(b" \t'\"") for line in lines if line.startswith(b"public-key")]
    if len(found) != 1:
        raise ValueError(f"it has {len(found)} public keys" if found else "it has no public key")
    if not KEY.fullmatch(found[0]):
        raise ValueError("its public key is not 40 characters of Z85")
    return found[0].decode("ascii")


class Stamp(NamedTuple):
    """By which a changed file is known. The time is that of the last change of content, name or rights."""

    inode: int
    size: int
    changed_ns: int


class KeyFile(NamedTuple):
    """A .key file as it was read. stamp: None if it is to be read again. key, why: "" if there is none."""

    stamp: Stamp | None
    key: str
    why: str


class KeyFolder:
    """The .key files of a folder. tell: says one line. Raises UsageError if one of them is bad now, or none is there.
    Later a bad one only gets a line:

        a file is gone, or holds no key   its key is not known any more
        a file cannot be read             its key stays as it was
        the folder cannot be listed       all stay as they were; no key is added
    """

    def __init__(self, path: str, tell: Callable[[str], None]) -> None:
        self._path = path
        self._tell = tell
        self._trouble = self._crowd = ""  # what was said last of the folder, and of files for which there is no room
        self._files: dict[str, KeyFile] = {}
        try:
            found = self._list()
        except OSError as error:
            raise UsageError(f"cannot list {path}: {words_of(error)}") from None
        if not found:
            raise UsageError(f"{path} has no .key file: put the workers' public keys there")
        if len(found) > FILES_MAX:
            raise UsageError(f"{path} has {len(found):,} .key files: at most {FILES_MAX:,} are allowed")
        for name in sorted(found):
            file = os.path.join(path, name)
            try:
                self._files[name] = KeyFile(None, read_key(file), "")
            except (OSError, ValueError) as error:
                raise UsageError(f"{file} is not a CURVE key file ({words_of(error)})") from None

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(file.key for file in self._files.values() if file.key)

    def look(self, wall_ns: int) -> None:
        """Reads what has changed. wall_ns: the time of day."""
        try:
            found = self._list()
        except OSError as error:
            self._say_of_folder(f"cannot list {self._path}: {words_of(error)}: the known keys stay, none is added")
            return
        self._say_of_folder("")
        for name in self._files.keys() - found.keys():
            del self._files[name]
        beyond = [name for name in sorted(found) if not self._take(name, found[name], wall_ns)]
        crowd = f"{self._path} has more than {FILES_MAX:,} .key files: {beyond[0]} is not taken" if beyond else ""
        if crowd and not self._crowd:
            self._tell(crowd)
        self._crowd = crowd

    def _list(self) -> dict[str, Stamp | None]:
        """The .key files. Raises OSError."""
        found: dict[str, Stamp | None] = {}
        with os.scandir(self._path) as entries:
            for count, entry in enumerate(entries):
                if count >= ENTRIES_MAX:
                    raise OSError(errno.EFBIG, f"it has more than {ENTRIES_MAX:,} entries")
                if not entry.name.endswith(".key"):
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:  # removed meanwhile, or a link to nothing
                    continue
                except OSError:  # reading it says why
                    found[entry.name] = None
                else:
                    found[entry.name] = Stamp(status.st_ino, status.st_size, status.st_ctime_ns)
        return found

    def _take(self, name: str, stamp: Stamp | None, wall_ns: int) -> bool:
        """Reads one file if it has changed. False: there is no room for it."""
        before = self._files.get(name)
        if before is not None and before.stamp is not None and before.stamp == stamp:
            return True
        if before is None and len(self._files) >= FILES_MAX:
            return False
        old_key, old_why = (before.key, before.why) if before is not None else ("", "")
        settled = stamp is not None and not 0 <= wall_ns - stamp.changed_ns < SETTLED_NS
        path = os.path.join(self._path, name)
        try:
            file = KeyFile(stamp if settled else None, read_key(path), "")
        except FileNotFoundError:
            self._files.pop(name, None)
            return True
        except OSError as error:
            file = KeyFile(None, old_key, f"cannot read {path}: {words_of(error)}")
        except ValueError as error:
            if settled:
                file = KeyFile(stamp, "", f"{path} is not a CURVE key file ({error})")
            else:  # somebody may be writing it
                file = KeyFile(None, old_key, old_why)
        self._files[name] = file
        if file.why and file.why != old_why:
            self._tell(file.why)
        return True

    def _say_of_folder(self, words: str) -> None:
        if words and words != self._trouble:
            self._tell(words)
        self._trouble = words


class KnownKeys:
    """The keys that are known now: the folder's and those that were added, without those that were struck.

    folder: "" for none. expected: whether this is the key of a provider that may join, which needs no file;
    is_provider: whether the folder has no say about a key. Any thread may call `add`, `strike` and `callback`; one
    thread `changes`. Raises UsageError for a folder that is not fit.
    """

    def __init__(
        self, folder: str, counters: Counters, expected: Callable[[str], bool], is_provider: Callable[[str], bool]
    ) -> None:
        self._counters = counters
        self._expected = expected
        self._is_provider = is_provider
        self.lines: list[str] = []  # what was said about the folder and its files
        self.say: Callable[[str], None] = lambda words: None
        self._lock = threading.Lock()  # for all that follows
        self._folder = KeyFolder(folder, self._tell) if folder else None
        self._of_folder = self._folder.keys if self._folder is not None else frozenset()
        self._added: set[str] = set()
        self._struck: set[str] = set()  # by the placer: whatever the folder says, until they are added
        self._known = self._of_folder
        self._ever = set(self._known)
        self._gone: set[str] = set()  # struck in one way or the other, and not known since
        self._to_strike: set[str] = set()  # what `changes` returns next
        self._to_know: set[str] = set()
        self._next_look_s = 0.0

    def callback(self, _domain: str, key: bytes) -> bool:
        """Whether this key may connect (ZAP)."""
        text = key.decode("ascii", "replace")
        if text in self._known:
            return True
        if not self._expected(text):
            return False
        with self._lock:
            if text in self._struck:
                return False
            if text in self._gone:  # the folder's removal has no say any more
                self._gone.discard(text)
                self._to_know.add(text)
        return True

    def add(self, key: str) -> None:
        """Makes a key known, whatever the folder has. Raises UsageError."""
        self._check(key)
        with self._lock:
            self._struck.discard(key)
            self._added.add(key)
            self._settle(frozenset())

    def strike(self, key: str) -> None:
        """From now on this key cannot connect, though a file has it, until `add`. Raises UsageError."""
        self._check(key)
        with self._lock:
            self._added.discard(key)
            self._struck.add(key)
            self._ever.add(key)
            self._settle(frozenset())
            if key not in self._gone:  # a provider's
                self._note_struck(key)

    def changes(self, now_s: float) -> tuple[set[str], set[str]]:
        """The keys that were struck since the last call, and those that are known now; first all of the former count,
        then the latter. Looks at the folder if it is time."""
        if self._folder is not None and now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_S
            self._folder.look(time.time_ns())
            if (keys := self._folder.keys) != self._of_folder:
                spared = frozenset(key for key in self._of_folder - keys if self._is_provider(key))
                with self._lock:
                    self._of_folder = keys
                    self._settle(spared)
        if not self._to_strike and not self._to_know:
            return set(), set()
        with self._lock:
            struck, known = self._to_strike, self._to_know
            self._to_strike, self._to_know = set(), set()
        return struck, known

    def _settle(self, spared: frozenset[str]) -> None:
        """Works out what is known now, and what has changed. spared: keys that are not struck though they are gone."""
        wanted = (self._of_folder | self._added) - self._struck
        for key in self._known - wanted - spared:
            self._note_struck(key)
        fresh = sorted(wanted - self._known)
        if len(self._ever) + len(fresh) > EVER_MAX:
            without = [key for key in fresh if key not in self._ever]
            if refused := without[max(0, EVER_MAX - len(self._ever)) :]:
                self._tell(f"{EVER_MAX:,} keys were known in this run, as many as may: {len(refused):,} are not added")
                wanted -= set(refused)
                fresh = sorted(wanted - self._known)
        for key in fresh:
            self._ever.add(key)
            self._gone.discard(key)
            self._to_know.add(key)
            self._counters.bump("workers.keys_added")
        self._known = wanted

    def _note_struck(self, key: str) -> None:
        self._gone.add(key)
        self._to_know.discard(key)
        self._to_strike.add(key)
        self._counters.bump("workers.keys_struck")

    def _check(self, key: str) -> None:
        """Whether the placer may name this key."""
        if not (key.isascii() and KEY.fullmatch(key.encode("ascii"))):
            raise UsageError(f"a worker's key is 40 characters of Z85, not {shown(key)}")
        if key not in self._ever and len(self._ever) >= EVER_MAX:
            raise UsageError(f"{EVER_MAX:,} keys were known in this run, as many as may")

    def _tell(self, words: str) -> None:
        self._counters.bump("workers.keys_unread")
        if len(self.lines) >= LINES_MAX:
            return
        more = "; more such lines are only counted" if len(self.lines) == LINES_MAX - 1 else ""
        self.lines.append(shown(words) + more)
        self.say(self.lines[-1])


def words_of(error: Exception) -> str:
    """Why a file could not be read."""
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
