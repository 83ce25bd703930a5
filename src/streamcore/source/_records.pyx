"""The record walker: bytes of a capture in a chunk -> base columns, in one native call with the GIL released.

It finds packets. _reading.pyx reads the bytes into chunks, capture.py parses section and interface blocks in Python.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport (RECORD_EPB, RECORD_KUZNETZOV, RECORD_OPB, RECORD_PCAP, RECORD_SPB, Chunk, Columns,
                                 record_size, record_start, swap32)
from streamcore.headers._datagrams cimport DATAGRAMS_WINDOW, between_datagrams

cdef extern from *:
    """
    /* Ticks of 10^-(9+k) or 2^-k seconds to nanoseconds. The product of 64 and 30 bits needs more than 64. */
    static int64_t scale_ticks(uint64_t ticks, uint64_t multiply, uint64_t divide, unsigned shift, int64_t offset_s)
    {
        __int128 ns = shift > 127 ? 0 : (__int128) (((unsigned __int128) ticks * multiply / divide) >> shift);
        ns += (__int128) offset_s * 1000000000;
        return ns > INT64_MAX ? INT64_MAX : ns < INT64_MIN ? INT64_MIN : (int64_t) ns;
    }
    """
    int64_t scale_ticks(uint64_t ticks, uint64_t multiply, uint64_t divide, unsigned shift, int64_t offset_s) nogil

# How a walk ended.
cdef enum:
    WALK_MORE = 0         # the record at `position` is not complete, or there is none
    WALK_FULL = 1         # the chunk's rows are used up
    WALK_BLOCK = 2        # a whole section or interface block is at `position`
    WALK_SKIP = 3         # a block without packets, too large for a chunk, begins at `position`: `value` bytes
    WALK_DAMAGE_LENGTH = 4     # a packet of `value` captured bytes, more than `bound`
    WALK_DAMAGE_BLOCK = 5      # a block of `value` bytes: too short, or no multiple of 4
    WALK_DAMAGE_TRAILER = 6    # a block whose trailing length is `value`, not `bound`
    WALK_DAMAGE_PACKET = 7     # a packet of `value` captured bytes in a block with room for `bound`
    WALK_DAMAGE_INTERFACE = 8  # a packet of interface `value` in a section that has `bound`
    WALK_DAMAGE_CHUNK = 9      # a record of `value` bytes, more than a chunk's `bound`
    WALK_DAMAGE_SECTION = 10   # a section block with neither byte order's magic
    WALK_DAMAGE_CAPTURE = 11   # another capture's header

MORE, FULL, BLOCK, SKIP = WALK_MORE, WALK_FULL, WALK_BLOCK, WALK_SKIP
DAMAGE_LENGTH, DAMAGE_BLOCK, DAMAGE_TRAILER = WALK_DAMAGE_LENGTH, WALK_DAMAGE_BLOCK, WALK_DAMAGE_TRAILER
DAMAGE_PACKET, DAMAGE_INTERFACE, DAMAGE_CHUNK = WALK_DAMAGE_PACKET, WALK_DAMAGE_INTERFACE, WALK_DAMAGE_CHUNK
DAMAGE_SECTION, DAMAGE_CAPTURE = WALK_DAMAGE_SECTION, WALK_DAMAGE_CAPTURE

cdef enum:
    BLOCK_SECTION = 0x0A0D0D0A  # the same in both byte orders
    BYTE_ORDER = 0x1A2B3C4D     # in a section of this machine's byte order
    BLOCK_INTERFACE = 1
    BLOCK_OPB = 2
    BLOCK_SPB = 3
    BLOCK_EPB = 6

cdef struct Clock:
    # One interface of the current section.
    uint64_t multiply
    uint64_t divide
    uint64_t plain_below    # for ticks below this, the time is ticks * multiply
    int64_t offset_s
    unsigned shift
    uint32_t snap_length
    uint32_t captured_max
    uint16_t number         # in the stream


cdef inline uint32_t load32(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)  # records can have any alignment
    return value


cdef inline uint32_t order32(const uint8_t *at, bint swapped) noexcept nogil:
    cdef uint32_t value = load32(at)
    return swap32(value) if swapped else value


cdef inline bint begins_capture(const uint8_t *at, bint swapped) noexcept nogil:
    """Whether these 8 bytes of a record without a packet are the beginning of a pcap header of this byte order."""
    cdef uint32_t magic = order32(at, swapped)
    return (magic == 0xA1B2C3D4u or magic == 0xA1B23C4Du) and load32(at + 4) == (0x04000200u if swapped else 0x00040002u)


cdef uint64_t power_of_ten(unsigned exponent) noexcept:
    cdef uint64_t power = 1
    cdef unsigned i
    for i in range(exponent):
        power *= 10
    return power


cdef class Walker:
    """Finds the records of one capture, chunk after chunk.

    pcap: Walker() and `set_pcap`; pcapng: `set_section` at every section block, `add_interface` at every interface
    block. After `begin(chunk)`, `walk(chunk, start, stop)` appends rows to the chunk's columns and returns how it
    ended; `position` is where.
    """

    cdef readonly Py_ssize_t rows          # of the current chunk
    cdef readonly Py_ssize_t position      # bytes of the chunk walked so far
    cdef readonly uint64_t value           # the value for the status
    cdef readonly uint64_t bound
    cdef readonly uint64_t blocks_skipped  # pcapng blocks that are neither packets, interfaces nor sections
    cdef readonly uint64_t times_clamped   # times beyond 64-bit nanoseconds
    cdef public bint keeps                 # `walk` stops at those blocks, too
    cdef bint renumbered                   # an interface of the section has another number in the stream
    cdef readonly bint contiguous          # the current chunk's records are adjacent, of one kind, and have the stream's interface numbers
    cdef bint pcapng
    cdef bint swapped
    cdef uint8_t pcap_kind
    cdef uint32_t captured_max
    cdef uint64_t fraction_ns              # pcap: nanoseconds in one unit of the second timestamp field
    cdef Clock *clocks
    cdef Py_ssize_t clock_count            # interfaces of the current section
    cdef Py_ssize_t clock_room

    def __dealloc__(self):
        free(self.clocks)

    def set_pcap(self, bint swapped, uint32_t fraction_ns, uint32_t captured_max, *, bint kuznetzov=False):
        """Says that pcap records follow."""
        self.pcapng = False
        self.pcap_kind = (RECORD_KUZNETZOV if kuznetzov else RECORD_PCAP) + swapped
        self.swapped = swapped
        self.fraction_ns = fraction_ns
        self.captured_max = captured_max

    def set_section(self, bint swapped):
        """Says that the blocks of a pcapng section follow."""
        self.pcapng = True
        self.swapped = swapped
        self.renumbered = False
        self.clock_count = 0

    def add_interface(self, uint8_t resolution, int64_t offset_s, uint32_t snap_length, uint32_t captured_max,
                      uint16_t number):
        """Adds the section's next interface. resolution: as if_tsresol; captured_max: a longer packet counts as
        damage; number: in the stream."""
        cdef Clock *clock
        cdef unsigned exponent = resolution & 0x7F
        if self.clock_count == self.clock_room:
            clock = <Clock *> realloc(self.clocks, (self.clock_room * 2 + 8) * sizeof(Clock))
            if clock == NULL:
                raise MemoryError("no room for another interface")
            self.clocks = clock
            self.clock_room = self.clock_room * 2 + 8
        clock = &self.clocks[self.clock_count]
        memset(clock, 0, sizeof(Clock))
        clock.multiply = clock.divide = 1
        clock.offset_s = offset_s
        clock.snap_length = snap_length
        clock.captured_max = captured_max
        clock.number = number
        self.renumbered = self.renumbered or number != self.clock_count
        if resolution & 0x80:
            clock.multiply = 1_000_000_000
            clock.shift = exponent
        elif exponent <= 9:
            clock.multiply = power_of_ten(9 - exponent)
            clock.plain_below = <uint64_t> INT64_MAX // clock.multiply + 1 if offset_s == 0 else 0
        elif exponent <= 28:
            clock.divide = power_of_ten(exponent - 9)
        else:
            clock.shift = 128  # finer than any tick count can reach: all times are 0
        self.clock_count += 1

    def count_skipped(self):
        """Counts a block that the caller has skipped."""
        self.blocks_skipped += 1

    def begin(self, Chunk chunk not None):
        """Starts a chunk without rows."""
        self.rows = 0
        self.position = 0
        self.contiguous = True

    def walk(self, Chunk chunk not None, Py_ssize_t start, Py_ssize_t stop):
        """Appends the records in data[start:stop] to the columns. Returns the status (MORE, FULL, BLOCK, SKIP,
        DAMAGE_…)."""
        cdef int status
        if not 0 <= start <= stop <= chunk.arena.data_bytes_max:
            raise ValueError(f"walk of {start}:{stop} in a chunk of {chunk.arena.data_bytes_max} bytes")
        with nogil:
            if self.pcapng:
                status = self.walk_pcapng(&chunk.columns, start, stop, chunk.arena.rows_max, chunk.arena.data_bytes_max)
            elif self.pcap_kind == RECORD_PCAP:
                status = self.walk_pcap(&chunk.columns, start, stop, chunk.arena.rows_max)
            else:
                status = self.walk_other_pcap(&chunk.columns, start, stop, chunk.arena.rows_max)
        return status

    def give_back(self, Chunk chunk not None):
        """Takes the last rows back, so that the chunk ends where it divides the fewest fragmented datagrams: at most half
        of the rows, and an eighth of the chunk's bytes. Call it after a walk that ended with MORE or FULL; `rows` and
        `position` are then those of the rows that are left."""
        cdef const Columns *c = &chunk.columns
        cdef Py_ssize_t least = self.rows, half = (self.rows + 1) // 2, left
        cdef Py_ssize_t begin = self.position, begin_min = self.position - chunk.arena.data_bytes_max // 8
        with nogil:
            # Only records side by side: what stands between others was looked at, and would be again. No clamped times: they are counted.
            while (least > half and self.rows - least < DATAGRAMS_WINDOW and record_start(c, least - 1) >= begin_min
                    and record_start(c, least - 1) + record_size(c, least - 1) == begin and INT64_MIN < c.timestamp_ns[least - 1] < INT64_MAX):
                least -= 1
                begin = record_start(c, least)
            left = between_datagrams(c, chunk.arena.control, False, least, self.rows)
        if left < self.rows:
            self.rows = left
            self.position = record_start(c, left)

    # bench_source.py::test_walk: 3.5 to 5 ns a record in chunks of 4 MiB. Each record's position depends on the load of
    # the one before it, which is what the loop waits for; constant columns are set afterwards.
    cdef int walk_pcap(self, Columns *c, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t rows_max) noexcept nogil:
        cdef const uint8_t *data = c.data
        cdef Py_ssize_t at = start, row = self.rows, first = self.rows
        cdef uint64_t fraction_ns = self.fraction_ns
        cdef uint32_t captured_max = self.captured_max
        cdef uint32_t captured
        cdef int status = WALK_MORE
        # Invariant: at <= stop and row <= rows_max; a record is taken only if header and packet end at or before stop.
        while stop - at >= 16:
            if row == rows_max:
                status = WALK_FULL
                break
            captured = load32(data + at + 8)
            if captured > captured_max:
                self.value = captured
                self.bound = captured_max
                status = WALK_DAMAGE_LENGTH
                break
            if captured == 0 and begins_capture(data + at, False):
                status = WALK_DAMAGE_CAPTURE
                break
            if stop - at - 16 < <Py_ssize_t> captured:
                break
            c.offset[row] = <uint32_t> (at + 16)
            c.captured_length[row] = captured
            c.wire_length[row] = load32(data + at + 12)
            c.timestamp_ns[row] = <int64_t> (<uint64_t> load32(data + at) * 1_000_000_000u
                                             + <uint64_t> load32(data + at + 4) * fraction_ns)
            row += 1
            at += 16 + <Py_ssize_t> captured
        memset(c.interface + first, 0, (row - first) * sizeof(uint16_t))
        memset(c.record + first, RECORD_PCAP, row - first)
        self.rows = row
        self.position = at
        return status

    cdef int walk_other_pcap(self, Columns *c, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t rows_max) noexcept nogil:
        """The other byte order, and Kuznetzov's 24-byte record headers."""
        cdef const uint8_t *data = c.data
        cdef Py_ssize_t at = start, row = self.rows
        cdef Py_ssize_t head = 24 if self.pcap_kind >= RECORD_KUZNETZOV else 16
        cdef uint32_t captured
        cdef bint swapped = self.swapped
        cdef int status = WALK_MORE
        while stop - at >= head:
            if row == rows_max:
                status = WALK_FULL
                break
            captured = order32(data + at + 8, swapped)
            if captured > self.captured_max:
                self.value = captured
                self.bound = self.captured_max
                status = WALK_DAMAGE_LENGTH
                break
            if captured == 0 and begins_capture(data + at, swapped):
                status = WALK_DAMAGE_CAPTURE
                break
            if stop - at - head < <Py_ssize_t> captured:
                break
            c.offset[row] = <uint32_t> (at + head)
            c.captured_length[row] = captured
            c.wire_length[row] = order32(data + at + 12, swapped)
            c.timestamp_ns[row] = <int64_t> (<uint64_t> order32(data + at, swapped) * 1_000_000_000u
                                             + <uint64_t> order32(data + at + 4, swapped) * self.fraction_ns)
            c.interface[row] = 0
            c.record[row] = self.pcap_kind
            row += 1
            at += head + <Py_ssize_t> captured
        self.rows = row
        self.position = at
        return status

    cdef int walk_pcapng(self, Columns *c, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t rows_max,
                         Py_ssize_t block_max) noexcept nogil:
        cdef const uint8_t *block
        cdef Py_ssize_t at = start, touching = start if self.rows == 0 else -1
        cdef uint32_t kind, size
        cdef bint swapped = self.swapped
        cdef int status = WALK_MORE
        if self.renumbered:
            self.contiguous = False
        if self.rows > 0:
            self.contiguous = False  # a block between packets interrupted the walk
        # Invariant: at <= stop; a block is read only if all its `size` bytes end at or before stop.
        while stop - at >= 8:
            block = c.data + at
            kind = order32(block, swapped)
            if kind == BLOCK_SECTION:
                if stop - at < 12:
                    break
                if load32(block + 8) != BYTE_ORDER and swap32(load32(block + 8)) != BYTE_ORDER:
                    status = WALK_DAMAGE_SECTION
                    break
                size = order32(block + 4, load32(block + 8) != BYTE_ORDER)  # it starts a section with its own byte order
            else:
                size = order32(block + 4, swapped)
            if size < 12 or size & 3:
                status = WALK_DAMAGE_BLOCK
                self.value = size
                break
            if size > block_max:
                self.value = size
                self.bound = block_max
                status = WALK_DAMAGE_CHUNK
                if kind != BLOCK_SECTION and kind != BLOCK_INTERFACE and kind != BLOCK_OPB and kind != BLOCK_SPB \
                        and kind != BLOCK_EPB:
                    status = WALK_SKIP
                break
            if stop - at < <Py_ssize_t> size:
                break
            if kind == BLOCK_SECTION or kind == BLOCK_INTERFACE:
                status = WALK_BLOCK
                break
            if order32(block + size - 4, swapped) != size:
                self.value = order32(block + size - 4, swapped)
                self.bound = size
                status = WALK_DAMAGE_TRAILER
                break
            if kind != BLOCK_EPB and kind != BLOCK_SPB and kind != BLOCK_OPB:
                self.blocks_skipped += 1
                if self.keeps:
                    status = WALK_BLOCK
                    break
                at += size
                continue
            if self.rows == rows_max:
                status = WALK_FULL
                break
            if at != touching and self.rows > 0:
                self.contiguous = False
            status = self.take_simple(c, at, size) if kind == BLOCK_SPB else self.take_enhanced(c, at, size, kind)
            if status != WALK_MORE:
                break
            if c.record[self.rows] != c.record[0]:
                self.contiguous = False
            self.rows += 1
            at += size
            touching = at
        self.position = at
        return status

    cdef inline int take_enhanced(self, Columns *c, Py_ssize_t at, uint32_t size, uint32_t kind) noexcept nogil:
        """Fills row self.rows from the enhanced or obsolete packet block of `size` bytes at `at`."""
        cdef const uint8_t *block = c.data + at
        cdef Py_ssize_t row = self.rows
        cdef bint swapped = self.swapped
        cdef uint32_t captured, interface
        cdef uint64_t ticks
        cdef Clock *clock
        if size < 32:
            self.value = size
            return WALK_DAMAGE_BLOCK
        interface = order32(block + 8, swapped)
        if kind == BLOCK_OPB:
            interface = interface & 0xFFFF if not swapped else interface >> 16  # a 16-bit number, then a 16-bit drop count
        if interface >= <uint64_t> self.clock_count:
            self.value = interface
            self.bound = self.clock_count
            return WALK_DAMAGE_INTERFACE
        clock = &self.clocks[interface]
        captured = order32(block + 20, swapped)
        if captured > size - 32:
            self.value = captured
            self.bound = size - 32
            return WALK_DAMAGE_PACKET
        if captured > clock.captured_max:
            self.value = captured
            self.bound = clock.captured_max
            return WALK_DAMAGE_LENGTH
        ticks = (<uint64_t> order32(block + 12, swapped) << 32) | order32(block + 16, swapped)
        c.offset[row] = <uint32_t> (at + 28)
        c.captured_length[row] = captured
        c.wire_length[row] = order32(block + 24, swapped)
        if ticks < clock.plain_below:
            c.timestamp_ns[row] = <int64_t> (ticks * clock.multiply)
        else:
            c.timestamp_ns[row] = scale_ticks(ticks, clock.multiply, clock.divide, clock.shift, clock.offset_s)
            if c.timestamp_ns[row] == INT64_MAX or c.timestamp_ns[row] == INT64_MIN:
                self.times_clamped += 1
        c.interface[row] = clock.number
        c.record[row] = <uint8_t> ((RECORD_EPB if kind == BLOCK_EPB else RECORD_OPB) + swapped)
        return WALK_MORE

    cdef int take_simple(self, Columns *c, Py_ssize_t at, uint32_t size) noexcept nogil:
        """Takes a simple packet block. It belongs to the section's first interface and is truncated at that one's snap
        length."""
        cdef const uint8_t *block = c.data + at
        cdef Py_ssize_t row = self.rows
        cdef uint32_t wire, captured
        if size < 16:
            self.value = size
            return WALK_DAMAGE_BLOCK
        if self.clock_count == 0:
            self.value = 0
            self.bound = 0
            return WALK_DAMAGE_INTERFACE
        wire = order32(block + 8, self.swapped)
        captured = wire
        if self.clocks[0].snap_length and captured > self.clocks[0].snap_length:
            captured = self.clocks[0].snap_length
        if captured > size - 16:
            self.value = captured
            self.bound = size - 16
            return WALK_DAMAGE_PACKET
        if captured > self.clocks[0].captured_max:
            self.value = captured
            self.bound = self.clocks[0].captured_max
            return WALK_DAMAGE_LENGTH
        c.offset[row] = <uint32_t> (at + 12)
        c.captured_length[row] = captured
        c.wire_length[row] = wire
        c.timestamp_ns[row] = 0
        c.interface[row] = self.clocks[0].number
        c.record[row] = RECORD_SPB + self.swapped
        return WALK_MORE
