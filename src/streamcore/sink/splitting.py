"""The sink that splits the second stream: a file for each flow, host, VLAN, interface, minute or telephone call.

split/ says which files a packet belongs into; this writes them: one encoder, few open files, headers as in writer.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections import OrderedDict
from collections.abc import Callable, Sequence

from streamcore.core.capture_form import CaptureForm, Interface
from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import SinkError
from streamcore.core.packets import Outgoing
from streamcore.sink import _headers
from streamcore.sink._encode import Encoder, TimeNotHeld, rest_of
from streamcore.sink.finished import PART, FinishedFiles, in_use
from streamcore.sink.names import claim, divided, free_name
from streamcore.sink.protocol import Place, SinkNeeds
from streamcore.sink.sections import NEVER, Sections
from streamcore.sink.split._divide import Divider, link_type_of
from streamcore.sink.split.sorter import REST, Sorter, open_sorter
from streamcore.sink.writer import (
    DIRECT_BYTES,
    RECORD_EPB,
    RECORD_NONE,
    RECORD_PCAP,
    STAGING_BYTES,
    CaptureSink,
    sections_of,
    shape_of,
)  # fmt: skip

OPEN_MAX = 512  # files open at once
REPEATED = (b"\x0a\0\0\0", b"\x04\0\0\0")  # blocks that each file gets: decryption secrets, names
REPEATED_BYTES_MAX = 1 << 20  # of them


def open_splitting(config: Config, needs: SinkNeeds) -> SplitSink:
    """The sink of `write` with `split`; the arena tells the workers which file to truncate. Raises SinkError."""
    assert needs.form is not None
    return SplitSink(
        config, interfaces=needs.interfaces, form=needs.form, counters=needs.counters,
        on_commit=needs.arena.set_committed_bytes, on_file=needs.arena.set_output_path,
        sections=sections_of(config, needs),
    )  # fmt: skip


class File:
    """One of the files: how far it is written, and its descriptor while it is open."""

    __slots__ = ("blocks", "byte_count", "described", "descriptor", "identity", "link_type", "packets", "path", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor = -1
        self.identity = (0, 0)  # device and inode
        self.size = 0  # bytes: whole records
        self.described = self.blocks = 0  # pcapng: interfaces and blocks that it has
        self.link_type = -1  # pcap: the header's
        self.packets = self.byte_count = 0


class SplitSink:
    """Writes each packet into the file that it belongs into, some into two (`host`: both ends), and those that belong
    to none into OUT-rest. One thread at a time. Each file is a whole capture; names end in .part until the run ends.

    interfaces, form, on_commit: as in a CaptureSink; on_file: called with the path before each file is written. Raises
    SinkError.
    """

    def __init__(
        self, config: Config, *, interfaces: Sequence[Interface], form: CaptureForm, counters: Counters,
        on_commit: Callable[[int], None], on_file: Callable[[bytes], None], sections: Sections | None = None,
        sorter: Sorter | None = None,
    ) -> None:  # fmt: skip
        self.name = config.write
        self._config, self._interfaces, self._form, self._counters = config, interfaces, form, counters
        self._on_commit, self._on_file = on_commit, on_file
        self._sections = sections
        if sections is not None:
            sections.whole = False  # every file has one section
        self._pcapng = shape_of(config.write, form).pcapng
        self._stem, self._ending = divided(config.write)
        self._sorter = sorter or open_sorter(config, interfaces, counters)
        self._divider = Divider(config.split_files + 1)
        self._finished = FinishedFiles(config, counters, form.files)
        self._files: dict[int, File] = {}
        self._open: OrderedDict[int, File] = OrderedDict()  # the one written last comes last
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._open_max = OPEN_MAX if limit == resource.RLIM_INFINITY else max(2, min(OPEN_MAX, limit // 2 - 32))
        self._labels: dict[int, str] = {REST: "rest"}  # of files that are not begun
        self._names: set[str] = set()
        self._repeated: list[bytes] = []
        self._removed = 0
        self._encoder: Encoder | None = None
        self._over = False
        CaptureSink(self._path("rest") + PART, interfaces, form, None).check()

    @property
    def place(self) -> Place | None:
        """None: several files cannot be continued."""
        return None

    @property
    def paces(self) -> bool:
        """False: files take packets at any time."""
        return False

    @property
    def unsure(self) -> tuple[int, int]:
        """(0, 0): every write is in its file."""
        return 0, 0

    @property
    def metadata_removed(self) -> int:
        """The number of options and blocks left out of all files so far."""
        encoded = self._encoder.options_removed if self._encoder is not None else 0
        return self._removed + encoded + (self._sections.removed if self._sections is not None else 0)

    @property
    def incomplete(self) -> list[str]:
        """A line for each reason why not all was done that was asked for."""
        return self._finished.incomplete

    def write(self, outgoing: Outgoing) -> tuple[int, int]:
        """Writes packets. Returns the (packets, captured bytes) that are in files. Raises SinkError."""
        packets, byte_count, _ = rest_of(outgoing, 0)
        if not packets:
            return 0, 0
        encoder = self._encoder = self._encoder or self._begin()
        self._take_blocks()
        places, numbers = self._sorter.assign(outgoing)
        self._labels.update(self._sorter.take_new())
        comments = {row: _headers.comment_options(texts) for row, texts in outgoing.comments.items()}
        if not self._pcapng:
            self._removed += sum(map(len, outgoing.comments.values()))
        for number, interface in enumerate(self._interfaces):
            encoder.set_tick(number, 10 ** max(0, 9 - interface.resolution))
        one_link = len({interface.link_type for interface in self._interfaces}) <= 1
        only = int(numbers[0])
        if len(numbers) == packets and one_link and (numbers == only).all():
            self._put(encoder, only, outgoing, comments, None, -1)
        else:
            sorted_out, files, stops = self._divider.divide(outgoing, places, numbers)
            start = 0
            for number, stop in zip(files.tolist(), stops.tolist(), strict=True):
                link_type = -1 if one_link else self._link_type(number, sorted_out, start, stop)
                self._put(encoder, number, sorted_out, comments, (start, stop), link_type)
                start = stop
        if len(places) > packets:
            self._counters.bump("sink.copies", len(places) - packets)
        return packets, byte_count

    def flush(self) -> None:
        """Takes note of commands that have ended. Every write is in its file."""
        self._finished.look()

    def stop(self) -> None:
        """Does nothing: writing a file never waits."""

    def close(self) -> None:
        """Closes all files and gives them their names. Waits for the commands on them. Raises SinkError."""
        if self._over:
            return
        self._over = True
        self._shut()
        self._sorter.close()
        if self._encoder is not None:
            self._counters.bump("sink.without_time", self._encoder.without_time)
        try:
            if self._sections is not None:
                self._take_blocks()
            rest = self._files.get(REST)
            if rest is not None:
                self._counters.count("sink.in_rest", rest.packets, rest.byte_count)
            for file in self._files.values():
                self._finished.complete(file.path + PART, file.path, file.packets, file.byte_count)
        finally:
            self._finished.close()

    def abandon(self) -> None:
        """Closes after an error; every file is valid, and keeps the name of one that is not complete."""
        if not self._over:
            self._over = True
            self._shut()
            self._finished.close()

    def _shut(self) -> None:
        for file in self._open.values():
            os.close(file.descriptor)
            file.descriptor = -1
        self._open.clear()

    def _begin(self) -> Encoder:
        form = self._form
        source_digits = form.resolution if form.family == "pcap" else 9
        digits = _headers.digits_of(self._config.precision, form, self._interfaces)
        alike = form.family == "pcapng" if self._pcapng else form.family == "pcap" and digits == source_digits
        copied = (RECORD_EPB if self._pcapng else RECORD_PCAP) if alike else RECORD_NONE
        self._digits = digits
        return Encoder(
            -1, self._pcapng, digits, copied, source_digits, None, STAGING_BYTES, DIRECT_BYTES, form.bare, False,
            bool(self._config.precision),
        )  # fmt: skip

    def _take_blocks(self) -> None:
        """Takes the blocks without packets: secrets and names go into every file, others are counted."""
        if self._sections is None:
            return
        if not self._pcapng:
            self._sections.lose()
            return
        for block in self._sections.due(NEVER - 1):
            if block[:4] in REPEATED and sum(map(len, self._repeated)) + len(block) <= REPEATED_BYTES_MAX:
                self._repeated.append(block)
            elif block:
                self._removed += 1

    def _put(
        self, encoder: Encoder, number: int, outgoing: Outgoing, comments: dict[int, bytes],
        part: tuple[int, int] | None, link_type: int,
    ) -> None:  # fmt: skip
        """Writes packets into one file: all, or those of a part. link_type: of a new pcap; -1: there is one only."""
        file = self._files.get(number)
        name = (file.path if file is not None else self._labels.get(number, "rest")) + PART
        try:
            file = self._ready(number, file, outgoing, link_type)
            name = file.path + PART
            self._on_commit(0)
            self._on_file(os.fsencode(os.path.abspath(name)))
            self._on_commit(file.size)
            encoder.turn_to(file.descriptor, file.size)
            if self._pcapng:
                self._describe(encoder, file)
            if part is None:
                packets, byte_count, _ = encoder.write(outgoing, comments, True)
            else:
                packets, byte_count, _ = encoder.write(outgoing, comments, True, part[0], place_limit=part[1])
        except TimeNotHeld as error:
            encoder.flush()
            self._fail(encoder, file)
            raise SinkError(f"cannot write {name}: {error}") from None
        except OSError as error:
            self._fail(encoder, file)
            words = os.strerror(error.errno).lower() if error.errno else str(error)
            raise SinkError(f"cannot write {name}: {words}; the packets written before are intact") from None
        file.size = encoder.committed_bytes
        file.packets += packets
        file.byte_count += byte_count
        self._on_commit(file.size)

    def _fail(self, encoder: Encoder, file: File | None) -> None:
        """Truncates the file that was being written after its last whole record."""
        if file is not None and file.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(file.descriptor, max(file.size, encoder.committed_bytes))

    def _ready(self, number: int, file: File | None, outgoing: Outgoing, link_type: int) -> File:
        """The file, open for writing at its end. Raises OSError, SinkError."""
        if file is None:
            file = self._create(number, outgoing, link_type)
        elif file.descriptor < 0:
            descriptor = self._opened(file.path + PART, os.O_WRONLY | os.O_APPEND)
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino, status.st_size) != (*file.identity, file.size):
                os.close(descriptor)
                raise SinkError(f"cannot write {file.path + PART}: somebody else has changed it")
            file.descriptor = descriptor
        self._open[number] = file
        self._open.move_to_end(number)
        return file

    def _create(self, number: int, outgoing: Outgoing, link_type: int) -> File:
        path = self._path(self._labels.pop(number, f"file{number}"))
        if not self._config.overwrite:
            path = free_name(path, lambda each: each in self._names or in_use(each))
        else:
            path = free_name(path, self._names.__contains__)
        file = File(path)
        file.link_type = link_type
        file.descriptor = descriptor = self._opened(path + PART, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            claim(descriptor, path + PART)
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) in self._form.files:
                raise SinkError(f"cannot write {path + PART}: it is also the input, name another file")
            os.ftruncate(descriptor, 0)
            file.identity = (status.st_dev, status.st_ino)
            header = self._header(file, outgoing)
            if os.write(descriptor, header) < len(header):
                raise OSError(errno.ENOSPC, "cannot write")
        except BaseException:
            os.close(descriptor)
            raise
        file.size = len(header)
        self._names.add(path)
        self._files[number] = file
        return file

    def _opened(self, path: str, flags: int) -> int:
        """A descriptor; files written long ago are closed for it."""
        while len(self._open) >= self._open_max:
            self._close_oldest()
        while True:
            try:
                return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                    raise
                self._close_oldest()

    def _close_oldest(self) -> None:
        _, file = self._open.popitem(last=False)
        os.close(file.descriptor)
        file.descriptor = -1

    def _header(self, file: File, outgoing: Outgoing) -> bytes:
        if self._pcapng:
            self._removed += len(self._form.options) if self._form.bare else 0
            return _headers.section_block(self._form)
        interface = self._interfaces[0] if self._interfaces else Interface(1)
        if file.link_type >= 0:
            interface = next(each for each in self._interfaces if each.link_type == file.link_type)
        return _headers.pcap_header(self._form, interface, self._digits, outgoing)

    def _describe(self, encoder: Encoder, file: File) -> None:
        """Stages what must stand before the packets: interfaces, secrets, names."""
        for interface in self._interfaces[file.described :]:
            encoder.stage(_headers.interface_block(interface, self._form.bare))
        file.described = len(self._interfaces)
        for block in self._repeated[file.blocks :]:
            encoder.stage(block)
        file.blocks = len(self._repeated)

    def _link_type(self, number: int, outgoing: Outgoing, start: int, stop: int) -> int:
        """The link type of these packets; -1: a pcapng may have several. Raises SinkError if they have several."""
        if self._pcapng:
            return -1
        file = self._files.get(number)
        wanted = file.link_type if file is not None else link_type_of(outgoing, start, start + 1, -1)
        if (other := link_type_of(outgoing, start, stop, wanted)) >= 0:
            raise SinkError(
                f"cannot write {file.path + PART if file else self.name}: packets of link types {wanted} and {other} "
                "cannot share one pcap file; write .pcapng instead"
            )
        return wanted

    def _path(self, label: str) -> str:
        return f"{self._stem}-{label}{self._ending}"
