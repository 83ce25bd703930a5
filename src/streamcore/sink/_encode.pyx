"""The encoder: Outgoings -> bytes of a pcap or pcapng file, written with the GIL released.

Records that are already in the output's form are copied in runs, long runs straight from the chunk; all others are
built. File headers and interface blocks come from writer.py as bytes. Native code measured by bench_sink.py.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from posix.unistd cimport write

from cpython.exc cimport PyErr_CheckSignals

from streamcore.core.packets cimport (RECORD_EPB, RECORD_KUZNETZOV, RECORD_KUZNETZOV_SWAPPED, RECORD_OPB_SWAPPED, RECORD_PCAP,
                                 RECORD_EPB_SWAPPED, RECORD_OPB, RECORD_PCAP_SWAPPED, RECORD_SPB, RECORD_SPB_SWAPPED, Columns, Outgoing, outgoing_data,
                                 record_head, record_size, record_start, swap32)

from streamcore.sink._options cimport EPB_BYTES, copy_options, load32, more_than_packet, options_of, padded, store32

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout_ms)
    short POLLOUT

cdef enum:
    NO_RECORD = 255        # no kind of record can be copied unchanged


cdef uint64_t NO_LIMIT_BYTES = 0xFFFFFFFFFFFFFFFF
cdef int64_t NO_LIMIT_NS = 0x7FFFFFFFFFFFFFFF


ALL_ROWS = 1 << 40
cdef Py_ssize_t ALL_PLACES = ALL_ROWS


class TimeNotHeld(Exception):
    """The file's format cannot hold a packet's time; str() says which."""


cdef class Encoder:
    """Writes packets to a descriptor.

    Parameters: descriptor; pcapng, or else pcap with `digits` (6 or 9) of a second; copied_kind: the RECORD_ value that
    can be copied unchanged, or 255; source_digits: those of a pcap source; compress: bytes-like -> bytes, a complete
    member or frame, or None; staging_bytes: gathered before a write; direct_bytes: a run of this size or more is
    written without being gathered; bare: keep only numeric packet options (flags, drops, number, queue); sectioned: the
    output has the sections of a pcapng source, and their interface numbers; rounds: cut times to `digits`.
    """

    cdef readonly uint64_t committed_bytes  # written: whole records, whole members
    cdef public uint64_t limit_bytes        # packets are not written once the file has more bytes (compressed: written bytes)
    cdef public int64_t limit_ns            # nor are packets of this time or later
    cdef readonly uint64_t options_removed  # with bare, and of pcapng packets in a pcap
    cdef readonly uint64_t without_time     # simple packet blocks that were written with the time 0
    cdef readonly bint stopped_by_row       # the last write stopped at its row limit
    cdef bint sectioned
    cdef bint rounds
    cdef Py_ssize_t stopped_at              # the place of the first packet that was not written, -1: none
    cdef int descriptor
    cdef object compress
    cdef bint pcapng
    cdef bint bare
    cdef unsigned digits
    cdef unsigned source_digits
    cdef uint8_t copied_kind
    cdef uint8_t *staging
    cdef size_t staged
    cdef size_t room
    cdef size_t direct_bytes
    cdef uint64_t tick_ns[65536]            # of each interface that is not from a pcapng source

    def __init__(self, int descriptor, bint pcapng, unsigned digits, uint8_t copied_kind, unsigned source_digits, compress,
                 size_t staging_bytes, size_t direct_bytes, bint bare=False, bint sectioned=False, bint rounds=False):
        if digits not in (6, 9) or source_digits not in (6, 9) or direct_bytes > staging_bytes:
            raise ValueError(f"encoder with {digits} digits, {staging_bytes} and {direct_bytes} bytes")
        self.descriptor = descriptor
        self.pcapng = pcapng
        self.bare = bare and pcapng
        self.sectioned = sectioned and pcapng
        self.rounds = rounds
        self.digits = digits
        self.source_digits = source_digits
        self.copied_kind = copied_kind
        self.compress = compress
        self.direct_bytes = direct_bytes
        self.staging = <uint8_t *> malloc(staging_bytes)
        if self.staging == NULL:
            raise MemoryError("no memory for gathering packets")
        self.room = staging_bytes
        self.limit_bytes = NO_LIMIT_BYTES
        self.limit_ns = NO_LIMIT_NS

    def __dealloc__(self):
        free(self.staging)

    @property
    def staged_bytes(self):
        """Bytes that are gathered and not yet written."""
        return self.staged

    def set_tick(self, uint16_t interface, uint64_t tick_ns):
        """Sets the nanoseconds in one tick of the output's interface, for packets whose records have no ticks."""
        self.tick_ns[interface] = tick_ns

    def stage(self, bytes data):
        """Adds a header or block before the next packets. Raises OSError."""
        cdef const uint8_t *at = data
        cdef size_t size = len(data)
        with nogil:
            self.reserve(size)
            memcpy(self.staging + self.staged, at, size)
            self.staged += size

    def turn_to(self, int descriptor, uint64_t committed_bytes):
        """Goes on in another file, which has so many bytes. Raises ValueError while bytes are gathered for this one."""
        if self.staged:
            raise ValueError(f"{self.staged} bytes are for the file before")
        self.descriptor, self.committed_bytes = descriptor, committed_bytes

    def flush(self):
        """Writes the gathered bytes. Raises OSError; then they are lost."""
        with nogil:
            self.drain()

    def write(self, Outgoing out not None, dict comments, bint flush, Py_ssize_t first=0, Py_ssize_t row_limit=ALL_ROWS,
              Py_ssize_t place_limit=ALL_ROWS):
        """Encodes the packets of out from place `first` on, up to the limits, to the first of the batch's rows from
        row_limit on, and to place_limit. comments: row -> pcapng options, encoded.

        Returns (packets, captured bytes, place of the first packet that was not written or -1). Raises OSError,
        TimeNotHeld.
        """
        cdef Columns *c = &out.batch.columns
        cdef uint8_t *commented = NULL
        cdef uint64_t[2] counts
        cdef Py_ssize_t row
        cdef Py_ssize_t stop
        counts[0] = counts[1] = 0
        if not 0 <= first <= (out.stop - out.start if out.unchanged else out.count):
            raise ValueError(f"packet {first} of an Outgoing that is shorter")
        self.stopped_at = -1
        self.stopped_by_row = False
        try:
            if comments and self.pcapng:
                commented = <uint8_t *> calloc(out.batch.count + 1, 1)
                if commented == NULL:
                    raise MemoryError("no room for comments")
                for row in comments:
                    if not 0 <= row < out.batch.count:
                        raise ValueError(f"a comment on row {row} of {out.batch.count}")
                    commented[row] = 1
            with nogil:
                if (place_limit == ALL_PLACES and out.unchanged and not out.arranged and out.batch.contiguous and commented == NULL and not self.bare
                        and out.stop > out.start and c.record[out.start] == self.copied_kind):
                    stop = self.stop_of(c, out.start + first, min(out.stop, max(row_limit, out.start + first)))
                    self.stopped_by_row = stop == row_limit and stop < out.stop
                    if stop < out.stop:
                        self.stopped_at = stop - out.start
                    if stop > out.start + first:
                        self.copy_all(c, outgoing_data(c, out), out.start + first, stop, counts)
                else:
                    self.encode_all(out, c, commented, comments, counts, first, row_limit, place_limit)
                if flush:
                    self.drain()
        finally:
            free(commented)
        return counts[0], counts[1], self.stopped_at

    cdef inline bint is_limited(self) noexcept nogil:
        return self.limit_bytes != NO_LIMIT_BYTES or self.limit_ns != NO_LIMIT_NS

    cdef inline uint64_t filled(self) noexcept nogil:
        """Bytes in the file, including gathered bytes that will be written uncompressed."""
        return self.committed_bytes + (self.staged if self.compress is None else 0)

    cdef bint is_late(self, int64_t timestamp_ns) noexcept nogil:
        return timestamp_ns >= self.limit_ns and self.limit_ns != NO_LIMIT_NS  # a time may be as late as can be

    cdef Py_ssize_t stop_of(self, Columns *c, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
        """The first of the rows start..stop that the limits exclude; their records are copied."""
        cdef uint64_t filled = self.filled()
        cdef bint grows = self.compress is None
        cdef Py_ssize_t row
        if self.is_limited():
            for row in range(start, stop):
                if filled > self.limit_bytes or self.is_late(c.timestamp_ns[row]):
                    return row
                if grows:
                    filled += record_size(c, row)
        return stop

    cdef int copy_all(self, Columns *c, const uint8_t *data, Py_ssize_t start, Py_ssize_t stop, uint64_t *counts) except -1 nogil:
        """Copies rows start..stop as one run: their records are adjacent and in the output's form."""
        cdef Py_ssize_t row
        cdef uint64_t captured = 0
        cdef uint32_t first = record_start(c, start)
        for row in range(start, stop):
            captured += c.captured_length[row]
        counts[0] += <uint64_t> (stop - start)
        counts[1] += captured
        return self.put_run(data + first, record_start(c, stop - 1) + record_size(c, stop - 1) - first)

    # bench_sink.py::test_arranged: about 3 ns for a packet that is copied in a run, 8 to 10 ns for one that is built.
    cdef int encode_all(self, Outgoing out, Columns *c, const uint8_t *commented, dict comments,
                        uint64_t *counts, Py_ssize_t first, Py_ssize_t row_limit, Py_ssize_t place_limit) except -1 nogil:
        cdef Py_ssize_t i, count = min(place_limit, out.stop - out.start if out.unchanged else out.count)
        cdef const uint8_t *run = NULL
        cdef const uint8_t *data = outgoing_data(c, out)
        cdef bint limited = self.is_limited()
        cdef const uint8_t *packet
        cdef size_t run_bytes = 0
        cdef uint32_t row, captured, wire, head, size
        cdef uint8_t kind
        cdef bint whole
        for i in range(first, count):
            if out.unchanged:
                row = c.rows[out.start + i] if out.arranged else <uint32_t> (out.start + i)
                packet = data + c.offset[row]
                captured = c.captured_length[row]
                wire = c.wire_length[row]
                whole = True
            else:
                packet = out.packet[i]
                if packet == NULL:
                    continue
                row = out.row[i]
                captured = out.captured_length[i]
                wire = out.wire_length[i]
                whole = out.whole[i]
            if row >= row_limit:
                self.stopped_at = i
                self.stopped_by_row = True
                break
            if limited and (self.is_late(c.timestamp_ns[row])
                            or self.filled() + (run_bytes if run != NULL and self.compress is None else 0) > self.limit_bytes):
                self.stopped_at = i
                break
            counts[0] += 1
            counts[1] += captured
            kind = c.record[row]
            if (whole and (kind == self.copied_kind or self.stays_simple(c, row)) and (commented == NULL or not commented[row])
                    and (kind != RECORD_EPB or self.sectioned or load32(c.data + c.offset[row] - 20) == c.interface[row])
                    and not (self.bare and more_than_packet(c, row, packet))):
                head = record_head(kind)
                size = record_size(c, row)
                if packet - head == run + run_bytes and run != NULL:
                    run_bytes += size
                    continue
                if run != NULL:
                    self.put_run(run, run_bytes)
                run = packet - head
                run_bytes = size
                continue
            if run != NULL:
                self.put_run(run, run_bytes)
                run = NULL
            if not self.pcapng:
                self.make_pcap(c, row, packet, captured, wire)
            elif ((kind == RECORD_SPB_SWAPPED or kind == RECORD_SPB) and self.is_of_first(c, row)
                  and (commented == NULL or not commented[row])
                  and captured == c.captured_length[row] and wire == c.wire_length[row]):
                self.make_spb(packet, captured, wire)
            elif commented != NULL and commented[row]:
                with gil:
                    self.make_commented(c, row, packet, captured, wire, comments[row])
            else:
                self.make_epb(c, row, packet, captured, wire, NULL, 0)
        if run != NULL:
            self.put_run(run, run_bytes)
        return 0

    cdef inline bint is_of_first(self, Columns *c, uint32_t row) noexcept nogil:
        """Whether a packet is of its section's first interface in the output, too, as those of simple blocks must be."""
        return self.copied_kind == RECORD_EPB and (self.sectioned or c.interface[row] == 0)

    cdef inline bint stays_simple(self, Columns *c, uint32_t row) noexcept nogil:
        """Whether a record is a simple packet block that can be copied."""
        return c.record[row] == RECORD_SPB and self.is_of_first(c, row)

    cdef inline uint32_t local_interface(self, Columns *c, uint32_t row) noexcept nogil:
        """The number of a packet's interface in its section of the output."""
        cdef uint8_t kind = c.record[row]
        cdef uint32_t number
        if not self.sectioned:
            return c.interface[row]
        if kind == RECORD_SPB or kind == RECORD_SPB_SWAPPED:
            return 0
        number = load32(c.data + c.offset[row] - 20)
        if kind == RECORD_EPB_SWAPPED or kind == RECORD_OPB_SWAPPED:
            number = swap32(number)
        if kind == RECORD_OPB:
            return number & 0xFFFF
        return number >> 16 if kind == RECORD_OPB_SWAPPED else number

    cdef int make_spb(self, const uint8_t *packet, uint32_t captured, uint32_t wire) except -1 nogil:
        cdef uint32_t size = 16 + padded(captured)
        cdef uint8_t *at
        self.reserve(size)
        at = self.staging + self.staged
        memset(at + size - 8, 0, 4)  # the padding
        store32(at, 3)
        store32(at + 4, size)
        store32(at + 8, wire)
        memcpy(at + 12, packet, captured)
        store32(at + size - 4, size)
        self.staged += size
        return 0

    cdef int refuse_time(self, int64_t ns) except -1 nogil:
        """Raises TimeNotHeld if a pcap record does not hold a time as it is."""
        with gil:
            if ns < 0 or ns // 1_000_000_000 > 0xFFFFFFFF:
                raise TimeNotHeld(f"a packet is of {ns} ns since 1970, which a pcap cannot hold: write .pcapng")
            raise TimeNotHeld(f"a packet of {ns} ns since 1970 has nanoseconds, and the file has microseconds: give "
                              "--precision ns, or us to cut them")

    cdef int make_pcap(self, Columns *c, uint32_t row, const uint8_t *packet, uint32_t captured,
                       uint32_t wire) except -1 nogil:
        cdef uint8_t kind = c.record[row]
        cdef uint8_t *at
        cdef const uint8_t *record
        cdef int64_t ns, seconds
        cdef int64_t unit_ns = 1000 if self.digits == 6 else 1
        self.reserve(16 + <size_t> captured)
        at = self.staging + self.staged
        if kind == RECORD_SPB or kind == RECORD_SPB_SWAPPED:
            self.without_time += 1
        elif RECORD_EPB <= kind <= RECORD_OPB_SWAPPED:
            self.options_removed += options_of(c, row)
        if self.digits == self.source_digits and (kind <= RECORD_PCAP_SWAPPED or RECORD_KUZNETZOV <= kind <= RECORD_KUZNETZOV_SWAPPED):
            record = c.data + record_start(c, row)  # the ticks unchanged, even invalid ones
            store32(at, swap32(load32(record)) if kind & 1 else load32(record))
            store32(at + 4, swap32(load32(record + 4)) if kind & 1 else load32(record + 4))
        else:
            ns = c.timestamp_ns[row]
            seconds = ns // <int64_t> 1000000000
            if ns < 0 or seconds > <int64_t> 0xFFFFFFFF or (unit_ns > 1 and not self.rounds and ns % unit_ns):
                self.refuse_time(ns)
            store32(at, <uint32_t> seconds)
            store32(at + 4, <uint32_t> ((ns - seconds * <int64_t> 1000000000) // unit_ns))
        store32(at + 8, captured)
        store32(at + 12, wire)
        memcpy(at + 16, packet, captured)
        self.staged += 16 + <size_t> captured
        return 0

    cdef int make_commented(self, Columns *c, uint32_t row, const uint8_t *packet, uint32_t captured, uint32_t wire,
                            bytes options) except -1:
        return self.make_epb(c, row, packet, captured, wire, options, <uint32_t> len(options))

    cdef int make_epb(self, Columns *c, uint32_t row, const uint8_t *packet, uint32_t captured, uint32_t wire,
                      const uint8_t *more, uint32_t more_bytes) except -1 nogil:
        """Builds an enhanced packet block: keeps the options of its record, and adds `more`."""
        cdef uint8_t kind = c.record[row]
        cdef const uint8_t *record = c.data + record_start(c, row)
        cdef const uint8_t *options = NULL
        cdef uint32_t options_bytes = 0, kept, size, high, low
        cdef uint64_t ticks
        cdef uint8_t *at
        cdef bint swapped = kind & 1
        if RECORD_EPB <= kind <= RECORD_OPB_SWAPPED and kind != RECORD_SPB and kind != RECORD_SPB_SWAPPED:
            options = record + 28 + padded(c.captured_length[row])
            options_bytes = record_size(c, row) - EPB_BYTES - padded(c.captured_length[row])
            high = swap32(load32(record + 12)) if swapped else load32(record + 12)
            low = swap32(load32(record + 16)) if swapped else load32(record + 16)
        else:
            ticks = <uint64_t> c.timestamp_ns[row] // self.tick_ns[c.interface[row]] if c.timestamp_ns[row] > 0 else 0
            high = <uint32_t> (ticks >> 32)
            low = <uint32_t> ticks
            self.without_time += kind == RECORD_SPB or kind == RECORD_SPB_SWAPPED
        self.reserve(EPB_BYTES + 8 + <size_t> captured + options_bytes + more_bytes)
        at = self.staging + self.staged
        size = 28 + padded(captured)
        memset(at + size - 4, 0, 4)
        memcpy(at + 28, packet, captured)
        kept = copy_options(at + size, options, options_bytes, swapped, &self.options_removed if self.bare else NULL)
        size += kept
        if more_bytes:
            memcpy(at + size, more, more_bytes)
            size += more_bytes
        if kept or more_bytes:
            store32(at + size, 0)
            size += 4
        size += 4
        store32(at, 6)
        store32(at + 4, size)
        store32(at + 8, self.local_interface(c, row))
        store32(at + 12, high)
        store32(at + 16, low)
        store32(at + 20, captured)
        store32(at + 24, wire)
        store32(at + size - 4, size)
        self.staged += size
        return 0

    cdef int put_run(self, const uint8_t *run, size_t size) except -1 nogil:
        if size >= self.direct_bytes:
            self.drain()
            return self.put(run, size)
        self.reserve(size)
        memcpy(self.staging + self.staged, run, size)
        self.staged += size
        return 0

    cdef int reserve(self, size_t size) except -1 nogil:
        """Makes room for `size` more bytes. The gathered bytes are whole records and may be written."""
        if self.staged + size <= self.room:
            return 0
        self.drain()
        if size > self.room:
            free(self.staging)
            self.room = 0
            self.staging = <uint8_t *> malloc(size)
            if self.staging == NULL:
                with gil:
                    raise MemoryError(f"no room for a record of {size} bytes")
            self.room = size
        return 0

    cdef int drain(self) except -1 nogil:
        cdef size_t size = self.staged
        self.staged = 0
        return self.put(self.staging, size) if size else 0

    cdef int put(self, const uint8_t *data, size_t size) except -1 nogil:
        """Writes whole records, plain or as one compressed member."""
        if self.compress is not None:
            with gil:
                self.put_compressed(data, size)
            return 0
        self.write_all(data, size)
        self.committed_bytes += size
        return 0

    cdef int put_compressed(self, const uint8_t *data, size_t size) except -1:
        cdef bytes member = self.compress(<const uint8_t[:size]> data)
        cdef const uint8_t *at = member
        cdef size_t member_bytes = len(member)
        with nogil:
            self.write_all(at, member_bytes)
        self.committed_bytes += member_bytes
        return 0

    cdef int write_all(self, const uint8_t *data, size_t size) except -1 nogil:
        """Calls write(2) until all is written. Waits for a non-blocking pipe."""
        cdef size_t at = 0
        cdef ssize_t put
        cdef int problem
        cdef pollfd wait
        while at < size:
            put = write(self.descriptor, data + at, size - at)
            if put >= 0:
                at += <size_t> put
                continue
            problem = errno
            if problem == EINTR:
                with gil:
                    PyErr_CheckSignals()
            elif problem == EAGAIN:
                wait.fd = self.descriptor
                wait.events = POLLOUT
                wait.revents = 0
                if poll(&wait, 1, 200) < 0 and errno == EINTR:
                    with gil:
                        PyErr_CheckSignals()
            else:
                with gil:
                    raise OSError(problem, "cannot write")
        return 0


def highest_interface(Outgoing out not None):
    """The highest interface number among the packets of out; -1: no packets."""
    cdef Columns *c = &out.batch.columns
    cdef int highest = -1
    cdef Py_ssize_t i
    with nogil:
        if out.unchanged and not out.arranged:
            for i in range(out.start, out.stop):
                if c.interface[i] > highest:
                    highest = c.interface[i]
        elif out.unchanged:
            for i in range(out.start, out.stop):
                if c.interface[c.rows[i]] > highest:
                    highest = c.interface[c.rows[i]]
        else:
            for i in range(out.count):
                if out.packet[i] != NULL and c.interface[out.row[i]] > highest:
                    highest = c.interface[out.row[i]]
    return highest


def first_not_accepted(Outgoing out not None, bytearray accepted not None):
    """The interface of the first packet whose interface is not marked in accepted (65536 bytes); -1 if there is
    none."""
    cdef Columns *c = &out.batch.columns
    cdef const uint8_t *mark = accepted
    cdef Py_ssize_t i, count = out.stop - out.start if out.unchanged else out.count
    cdef uint32_t row
    cdef int found = -1
    if len(accepted) != 65536:
        raise ValueError(f"{len(accepted)} marks for 65536 interfaces")
    with nogil:
        for i in range(count):
            if not out.unchanged:
                if out.packet[i] == NULL:
                    continue
                row = out.row[i]
            else:
                row = c.rows[out.start + i] if out.arranged else <uint32_t> (out.start + i)
            if not mark[c.interface[row]]:
                found = c.interface[row]
                break
    return found


def rest_of(Outgoing out not None, Py_ssize_t first):
    """(packets, captured bytes, timestamp of the first of them) of the packets of out from place `first` on; time 0 if
    there are none."""
    cdef Columns *c = &out.batch.columns
    cdef Py_ssize_t i, count = out.stop - out.start if out.unchanged else out.count
    cdef uint64_t packets = 0, captured = 0
    cdef int64_t time_ns = 0
    cdef uint32_t row
    if not 0 <= first <= count:
        raise ValueError(f"packet {first} of an Outgoing of {count}")
    for i in range(first, count):
        if out.unchanged:
            row = c.rows[out.start + i] if out.arranged else <uint32_t> (out.start + i)
            captured += c.captured_length[row]
        elif out.packet[i] == NULL:
            continue
        else:
            row = out.row[i]
            captured += out.captured_length[i]
        if packets == 0:
            time_ns = c.timestamp_ns[row]
        packets += 1
    return packets, captured, time_ns
