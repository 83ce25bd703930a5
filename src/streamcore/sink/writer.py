"""The sink for captures. It opens the output and writes headers and packets, so that the file is valid at any time.

_encode.pyx encodes packets, _headers.py headers. Every write ends with a whole record, and returns the position.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from streamcore.core.capture_form import CaptureForm, Interface
from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import ReaderGone, SinkError
from streamcore.core.packets import Outgoing
from streamcore.core.paths import in_the_way
from streamcore.sink import _headers
from streamcore.sink._encode import ALL_ROWS, Encoder, TimeNotHeld, first_not_accepted, highest_interface
from streamcore.sink.nameless import Nameless
from streamcore.sink.names import COMPRESSIONS, PCAP_ENDINGS, PCAPNG_ENDINGS, claim, free_name, refuse_claimed
from streamcore.sink.protocol import Place, SinkNeeds
from streamcore.sink.sections import NEVER, Sections

STAGING_BYTES, DIRECT_BYTES = 1 << 20, 64 << 10
MEMBER_BYTES = 4 << 20  # of packets in one compressed member
LINGER_S = 1.0  # how long packets of a slow stream wait for a member to fill
STATISTICS = b"\x05\0\0\0"  # the type of interface statistics blocks
RECORD_PCAP, RECORD_EPB, RECORD_NONE = 0, 2, 255  # as in packets.pxd: records that can be copied unchanged


class Shape(NamedTuple):
    """The format and compression of an output."""

    pcapng: bool
    compression: str  # one of COMPRESSIONS, or ""


def shape_of(path: str, form: CaptureForm) -> Shape:
    """The shape for path: by its ending, or else that of the first stream."""
    name = os.path.basename(path).lower()
    compression = next((ending for ending in COMPRESSIONS if name.endswith(ending)), "")
    name = name.removesuffix(compression)
    if name.endswith(PCAPNG_ENDINGS):
        return Shape(True, compression)
    if name.endswith(PCAP_ENDINGS):
        return Shape(False, compression)
    return Shape(form.family == "pcapng", compression)


def open_output(config: Config, needs: SinkNeeds) -> CaptureSink:
    """The sink of `write`; the arena tells the workers where to truncate the file. A live run replaces no file, and
    takes another name. Raises SinkError."""
    assert needs.form is not None
    path = config.write
    if path != "-":
        path = free_name(path) if config.interface and not config.overwrite else path
        needs.arena.set_output_path(os.fsencode(os.path.abspath(path)))
    return open_capture(
        path, interfaces=needs.interfaces, form=needs.form, on_commit=needs.arena.set_committed_bytes,
        place=needs.place, precision=config.precision, counters=needs.counters, sections=sections_of(config, needs),
    )  # fmt: skip


def sections_of(config: Config, needs: SinkNeeds) -> Sections | None:
    """What a capture says besides its packets; None if the source does not pass it on."""
    assert needs.form is not None
    if needs.blocks is None:
        return None
    whole = config.order == "total" and needs.form.family == "pcapng" and not needs.form.one_section
    return Sections(needs.blocks, whole, needs.form.bare, needs.form.changed)


def open_capture(
    path: str | os.PathLike[str],
    *,
    interfaces: Sequence[Interface],
    form: CaptureForm,
    on_commit: Callable[[int], None] | None = None,
    place: Place | None = None,
    private: bool = False,
    precision: str = "",
    counters: Counters | None = None,
    sections: Sections | None = None,
) -> CaptureSink:
    """A CaptureSink for path; "-": standard output. It checks the file now and opens it with the first packet: it
    empties the file, or truncates it at `place` and continues there.

    interfaces: the first stream's, which may grow; form: the first stream's format; on_commit: called with the size up
    to which all records in the file are whole, whenever it has grown; private: only the owner may read the file;
    precision: of times in a pcap, "us", "ns" or "": the source's; counters: get what was left out; sections: what else
    the source says. Raises SinkError if path clearly cannot be written.
    """
    sink = CaptureSink(os.fspath(path), interfaces, form, on_commit, place, private)
    sink.precision, sink.counters, sink.sections = precision, counters, sections
    sink.check()
    return sink


class CaptureSink:
    """A capture file that is being written. One thread at a time. See open_capture."""

    def __init__(
        self,
        path: str,
        interfaces: Sequence[Interface],
        form: CaptureForm,
        on_commit: Callable[[int], None] | None,
        place: Place | None = None,
        private: bool = False,
    ) -> None:
        self.path = path
        self._private = private
        self._from = place
        self.name = "standard output" if path == "-" else path
        self.shape = shape_of(path, form)  # may be set until the first packet, like the limits
        self.limits: tuple[int, int] | None = None  # file size and time from which on packets are not written
        self.precision = ""
        self.counters: Counters | None = None
        self.sections: Sections | None = None
        self.shares_sections = False  # with other files of a rotation, which counts what they leave out
        self.is_last = True  # no other file of a rotation follows
        self.replaces = False  # whether a new file takes the name of one that is there, as in a ring
        self._interfaces = interfaces
        self._form = form
        self._on_commit = on_commit
        self._encoder: Encoder | None = None
        self._descriptor = -1
        self._nameless: Nameless | None = None  # until the file has a header
        self._base = 0  # the position of our first byte in the file
        self._regular = False
        self._over = False
        self._described = 0  # interfaces whose block is written
        self._accepted = bytearray(1 << 16)  # pcap: interfaces whose link type is the header's
        self._link_type = -1  # pcap: the header's
        self._drained_s = 0.0
        self.has_no_room = False  # why it failed
        self._unsure = (0, 0)
        self._removed = 0  # options of sections and interfaces that were left out

    @property
    def committed_bytes(self) -> int:
        """The size up to which all records in the file are whole. 0 until it is opened."""
        return 0 if self._encoder is None else self._base + self._encoder.committed_bytes

    @property
    def place(self) -> Place | None:
        """The place at which the output could be truncated and continued; None while packets are staged."""
        if self._encoder is None or self._encoder.staged_bytes or not self._regular:
            return None
        blocks = self.sections.taken if self.sections is not None else 0
        return Place(self.committed_bytes, self._described, self._link_type, blocks)

    @property
    def paces(self) -> bool:
        """False: files take packets at any time."""
        return False

    @property
    def metadata_removed(self) -> int:
        """The number of options and blocks left out so far: the form is bare, or a pcap cannot hold them."""
        sections = 0 if self.sections is None or self.shares_sections else self.sections.removed
        return self._removed + sections + (self._encoder.options_removed if self._encoder is not None else 0)

    @property
    def incomplete(self) -> list[str]:
        """Nothing: what is not written is counted, or an error."""
        return []

    @property
    def _sectioned(self) -> bool:
        """Whether the output has the sections of the first stream."""
        return self.shape.pcapng and self.sections is not None and self.sections.whole

    def check(self) -> None:
        """Raises SinkError if the output clearly cannot be written. Does not touch it."""
        if self.path == "-":
            if os.isatty(1):
                raise SinkError("standard output is a terminal: redirect it, or name a file with -w")
            self._check_status(os.fstat(1))
            return
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            directory = os.path.dirname(self.path) or "."
            if not os.path.isdir(directory):
                raise SinkError(f"cannot write {self.name}: there is no directory {directory}") from None
            if not os.access(directory, os.W_OK | os.X_OK):
                raise SinkError(f"cannot write {self.name}: the directory {directory} is not writable") from None
            return
        except OSError as error:
            raise SinkError(f"cannot write {self.name}: {_words(error)}{in_the_way(error, self.path)}") from None
        self._check_status(status)
        if not os.access(self.path, os.W_OK):
            raise SinkError(f"cannot write {self.name}: permission denied")
        if stat.S_ISREG(status.st_mode):
            refuse_claimed(self.path)

    def _check_status(self, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            raise SinkError(f"cannot write {self.name}: it is a directory, name a file")
        if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) in self._form.files:
            raise SinkError(f"cannot write {self.name}: it is also the input, name another file")

    def write(self, outgoing: Outgoing) -> tuple[int, int]:
        """Writes packets. Returns the (packets, captured bytes) that are in the file, or will be if compressed. Raises
        SinkError."""
        return self.write_some(outgoing, 0)[:2]

    def write_some(self, outgoing: Outgoing, first: int) -> tuple[int, int, int]:
        """Writes packets from place `first` on, up to the limits. Returns the counts as `write`, and the place of the
        first packet not written, or -1. Raises SinkError.
        """
        if self._over:
            raise SinkError(f"cannot write {self.name}: it was closed")
        comments = {row: _headers.comment_options(texts) for row, texts in outgoing.comments.items()}
        try:
            if self._encoder is None and highest_interface(outgoing) < 0:
                return 0, 0, -1
            encoder = self._encoder or self._open(outgoing)
            flush = not self.shape.compression or time.monotonic() - self._drained_s > LINGER_S
            committed_bytes = encoder.committed_bytes
            if self._sectioned:
                counts = self._write_sections(encoder, outgoing, comments, flush, first)
            else:
                self._prepare(encoder, outgoing)
                counts = encoder.write(outgoing, comments, flush, first)
            if encoder.committed_bytes != committed_bytes:
                self._committed()
                self._unsure = (0, 0)  # all that was gathered before has left
            if encoder.staged_bytes:
                self._unsure = (self._unsure[0] + counts[0], self._unsure[1] + counts[1])
            return counts
        except SinkError:
            raise
        except TimeNotHeld as error:
            self.flush()  # the packets before it
            self.abandon()
            raise SinkError(f"cannot write {self.name}: {error}") from None
        except OSError as error:
            raise self._failed(error) from None
        except BaseException:
            self.abandon()
            raise

    def _write_sections(
        self, encoder: Encoder, outgoing: Outgoing, comments: dict[int, bytes], flush: bool, first: int
    ) -> tuple[int, int, int]:
        """Writes packets, and before each of them the blocks that stand before it in the first stream."""
        assert self.sections is not None
        packets = byte_count = 0
        while True:
            row_limit = min(max(0, self.sections.next_number - outgoing.batch.first_number), ALL_ROWS)
            written, written_bytes, stop = encoder.write(outgoing, comments, False, first, row_limit)
            packets, byte_count = packets + written, byte_count + written_bytes
            if not encoder.stopped_by_row:
                break
            first = stop
            for block in self.sections.due(self.sections.next_number):
                encoder.stage(block)
        if flush:
            encoder.flush()
        return packets, byte_count, stop

    def _prepare(self, encoder: Encoder, outgoing: Outgoing) -> None:
        """Writes what must stand before these packets in an output of one section; a pcap has no place for it."""
        if not self.shape.pcapng:
            self._check_link_types(outgoing)
            if self.sections is not None:
                self.sections.lose()
            self._removed += sum(map(len, outgoing.comments.values()))
            return
        self._describe(encoder, outgoing)
        self._write_others(encoder)

    def _write_others(self, encoder: Encoder) -> None:
        """Writes the blocks that are neither sections nor interfaces, as far as they are known."""
        if self.sections is None:
            return
        for block in self.sections.due(NEVER - 1):
            if block[:4] == STATISTICS:
                self._describe_up_to(encoder, int.from_bytes(block[8:12], "little") + 1)
            encoder.stage(block)

    def flush(self) -> None:
        """Writes the gathered packets, because no more may follow for a while. Raises SinkError."""
        if self._encoder is None or self._over or not self._encoder.staged_bytes:
            return
        try:
            self._encoder.flush()
            self._unsure = (0, 0)
        except OSError as error:
            raise self._failed(error) from None
        except BaseException:
            self.abandon()
            raise
        self._committed()

    @property
    def unsure(self) -> tuple[int, int]:
        """(packets, captured bytes) of `write` that may not be in the file: gathered when it failed."""
        return self._unsure

    def stop(self) -> None:
        """Does nothing: writing a file never waits."""

    def close(self) -> None:
        """Writes the rest and closes; a stream without packets gets its headers too. Raises SinkError."""
        if self._over:
            return
        try:
            encoder = self._encoder or self._open(None)
            self._finish(encoder)
            self.flush()
            if self.counters is not None:
                self.counters.bump("sink.without_time", encoder.without_time)
            self._over = True
            if self._descriptor > 2:
                os.close(self._descriptor)
        except OSError as error:
            raise self._failed(error) from None

    def _finish(self, encoder: Encoder) -> None:
        """Writes what stands after the last packet."""
        if self._sectioned and self.is_last:
            assert self.sections is not None
            for block in self.sections.due(NEVER - 1):
                encoder.stage(block)
        elif self._sectioned:
            pass  # the blocks to come stand in the next file
        elif self.shape.pcapng:
            self._write_others(encoder)
            self._describe_up_to(encoder, len(self._interfaces))
        elif self.sections is not None:
            self.sections.lose()

    def abandon(self) -> None:
        """Closes the file after an error, truncated after its last whole record."""
        if self._over:
            return
        self._over = True
        if self._descriptor < 0:
            return
        try:
            if self._nameless is not None:
                self._nameless.forget()
            elif self._regular:
                os.ftruncate(self._descriptor, self.committed_bytes)
        finally:
            if self._descriptor > 2:
                os.close(self._descriptor)

    def _open(self, outgoing: Outgoing | None) -> Encoder:
        """Opens, locks and empties the file, and writes its header."""
        mode = 0o600 if self._private else 0o666
        if self.path == "-":
            self._descriptor = 1
        elif self._is_new():
            self._nameless = Nameless(self.path, mode)
            self._descriptor = self._nameless.descriptor
            claim(self._descriptor, self.name)
        else:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode)
            self._take_over(self._descriptor)
        self._regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        if self.path == "-" and self._regular:
            self._base = os.lseek(1, 0, os.SEEK_END if _appends(1) else os.SEEK_CUR)
        form, pcapng = self._form, self.shape.pcapng
        source_digits = form.resolution if form.family == "pcap" else 9
        digits = _headers.digits_of(self.precision, form, self._interfaces)
        alike = form.family == "pcapng" if pcapng else form.family == "pcap" and digits == source_digits
        compressed = bool(self.shape.compression)
        self._encoder = Encoder(
            self._descriptor,
            pcapng,
            digits,
            (RECORD_EPB if pcapng else RECORD_PCAP) if alike else RECORD_NONE,
            source_digits,
            _compressor(self.shape.compression) if compressed else None,
            MEMBER_BYTES if compressed else STAGING_BYTES,
            MEMBER_BYTES if compressed else DIRECT_BYTES,
            form.bare,
            self._sectioned,
            bool(self.precision),
        )
        if self.limits is not None:
            self._encoder.limit_bytes, self._encoder.limit_ns = self.limits
        if self._from is not None:
            return self._go_on(self._encoder, self._from)
        self._encoder.stage(self._pcapng_header() if pcapng else self._pcap_header(outgoing, digits))
        self._encoder.flush()
        if self._nameless is not None:
            self._appear(self._nameless)
            self._nameless = None
        self._committed()
        return self._encoder

    def _take_over(self, descriptor: int) -> None:
        """Locks and empties a file that was there, unless it is continued. Raises SinkError."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return
        try:
            self._check_status(status)
            claim(descriptor, self.name)
        except SinkError:
            os.close(descriptor)
            self._over, self._descriptor = True, -1  # it is not ours to truncate
            raise
        if self._private:
            os.fchmod(descriptor, 0o600)
        if self._from is None:
            os.ftruncate(descriptor, 0)

    def _appear(self, nameless: Nameless) -> None:
        """Gives a new file its name. Raises SinkError if another run has taken the name meanwhile."""
        try:
            nameless.appear(replace=self.replaces)
        except FileExistsError:
            self.abandon()
            raise SinkError(f"cannot write {self.name}: another run has begun to write it") from None

    def _is_new(self) -> bool:
        """Whether a new file may take the name: there is none, or a rotation replaces it."""
        if self._from is not None:
            return False
        try:
            there = os.lstat(self.path)
        except FileNotFoundError:
            return True
        directory = os.path.dirname(self.path) or "."
        return self.replaces and stat.S_ISREG(there.st_mode) and os.access(directory, os.W_OK | os.X_OK)

    def _go_on(self, encoder: Encoder, place: Place) -> Encoder:
        """Truncates the file at place, and continues as if everything before had just been written."""
        os.ftruncate(self._descriptor, place.size)
        self._base = os.lseek(self._descriptor, 0, os.SEEK_END)
        self._described, self._link_type = place.described, place.link_type
        for number in range(place.described):
            encoder.set_tick(number, 10 ** max(0, 9 - self._interfaces[number].resolution))
        if self.sections is not None:
            self.sections.skip(place.blocks)
        self._committed()
        return encoder

    def _pcapng_header(self) -> bytes:
        """The section that the file begins in."""
        if self._sectioned:
            assert self.sections is not None
            return self.sections.preamble or b"".join(self.sections.due(0))
        self._removed += len(self._form.options) if self._form.bare else 0
        return _headers.section_block(self._form)

    def _pcap_header(self, outgoing: Outgoing | None, digits: int) -> bytes:
        """The header for the link type of the first packet's interface."""
        first = first_not_accepted(outgoing, self._accepted) if outgoing is not None else -1
        interfaces = self._interfaces
        interface = interfaces[max(first, 0)] if interfaces else Interface(1)
        self._link_type = interface.link_type
        return _headers.pcap_header(self._form, interface, digits, outgoing)

    def _check_link_types(self, outgoing: Outgoing) -> None:
        while (interface := first_not_accepted(outgoing, self._accepted)) >= 0:
            link_type = self._interfaces[interface].link_type
            if link_type != self._link_type:
                raise SinkError(
                    f"cannot write {self.name}: packets of link types {self._link_type} and {link_type} cannot share "
                    "one pcap file; write .pcapng instead"
                )
            self._accepted[interface] = 1

    def _describe(self, encoder: Encoder, outgoing: Outgoing) -> None:
        """Writes interface blocks up to the highest interface of these packets, so that the blocks depend only on the
        packets."""
        if self._described < len(self._interfaces):
            self._describe_up_to(encoder, highest_interface(outgoing) + 1)

    def _describe_up_to(self, encoder: Encoder, count: int) -> None:
        for number in range(self._described, count):
            interface = self._interfaces[number]
            encoder.stage(_headers.interface_block(interface, self._form.bare))
            if self._form.bare:
                self._removed += sum(code not in _headers.READING for code, _ in interface.options)
            encoder.set_tick(number, 10 ** max(0, 9 - interface.resolution))
        self._described = max(self._described, count)

    def _committed(self) -> None:
        self._drained_s = time.monotonic()
        if self._on_commit is not None:
            self._on_commit(self.committed_bytes)

    def _failed(self, error: OSError) -> SinkError:
        """Truncates the file after its last whole record, and closes it."""
        with contextlib.suppress(OSError):  # only the first error is reported
            self.abandon()
        if isinstance(error, BrokenPipeError):
            return ReaderGone(f"cannot write {self.name}: its reader has closed it")
        kept = "; the packets written before are intact" if self._regular and self.committed_bytes else ""
        self.has_no_room = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return SinkError(f"cannot write {self.name}: {_words(error)}{in_the_way(error, self.path)}{kept}")


def _compressor(compression: str) -> Callable[[memoryview], bytes]:
    """bytes-like -> one complete gzip member, zstd frame or lz4 frame."""
    if compression == ".gz":

        def gzip_member(data: memoryview) -> bytes:
            member = zlib.compressobj(6, zlib.DEFLATED, 31)
            return member.compress(data) + member.flush()

        return gzip_member
    if compression == ".zst":
        import zstandard

        return zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=True).compress  # type: ignore[no-any-return]
    import lz4.frame

    return lambda data: lz4.frame.compress(data, content_checksum=True)  # type: ignore[no-any-return]


def _appends(descriptor: int) -> bool:
    import fcntl

    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)


def _words(error: OSError) -> str:
    if error.errno == errno.EBADF:
        return "it is closed"
    return os.strerror(error.errno).lower() if error.errno else str(error)
