"""Packets as they travel: Arena, Chunk (memory), PacketBatch (one chunk's packets as columns), Segment (some of its rows).

Nothing here reads a capture, parses a header or knows a stage. The arena's two capacities fix the layout of a chunk, so a worker
that maps the same arena can compute where every column is.
"""

import collections
import os
import threading

import numpy as np

cimport numpy as cnp
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from posix.unistd cimport close as close_descriptor
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

cnp.import_array()

COLUMN_GROUPS = {"flow": GROUP_FLOW, "headers": GROUP_HEADERS, "addresses": GROUP_ADDRESSES, "vlan": GROUP_VLAN,
                 "inner": GROUP_INNER}
ALL_GROUPS = GROUP_ALL
FLAGS = {"truncated": FLAG_TRUNCATED, "malformed": FLAG_MALFORMED, "fragment": FLAG_FRAGMENT,
         "more_fragments": FLAG_MORE_FRAGMENTS, "orphan": FLAG_ORPHAN, "ports": FLAG_PORTS, "depth": FLAG_DEPTH,
         "link_unknown": FLAG_LINK_UNKNOWN}
ABSENT = NO_OFFSET
RECORD_HEADS = tuple(record_head(kind) for kind in range(RECORD_KINDS))

cdef Py_ssize_t PAGE = 4096
cdef Py_ssize_t CONTROL_BYTES = (sizeof(Control) + 4095) // 4096 * 4096 + PAGE  # the last page: the output's path


class ArenaClosed(Exception):
    """The arena was closed while a thread waited for a chunk."""


cdef Py_ssize_t aligned(Py_ssize_t size) noexcept nogil:
    """Whole cache lines, and three more: with 65,536 rows, columns would otherwise begin a power of two apart, where the first cache holds only 8
    lines of all of them. 64 columns after each other now begin in different sets."""
    return (size + 63) // 64 * 64 + 3 * 64


cdef Py_ssize_t layout(uint8_t *base, Py_ssize_t data_bytes, Py_ssize_t rows, Columns *c) noexcept nogil:
    """Sets every pointer of c for a chunk at base. Returns the bytes that it takes. Each column starts on a cache line."""
    cdef uint8_t *at = base
    c.data = at; at += aligned(data_bytes + GUARD_BYTES)
    c.offset = <uint32_t *> at; at += aligned(rows * 4); c.captured_length = <uint32_t *> at; at += aligned(rows * 4)
    c.wire_length = <uint32_t *> at; at += aligned(rows * 4); c.timestamp_ns = <int64_t *> at; at += aligned(rows * 8)
    c.interface = <uint16_t *> at; at += aligned(rows * 2)
    c.record = at; at += aligned(rows); c.rows = <uint32_t *> at; at += aligned(rows * 4)
    c.flow_hash = <uint32_t *> at; at += aligned(rows * 4)
    c.ip_version = at; at += aligned(rows); c.protocol = at; at += aligned(rows)
    c.flags = <uint16_t *> at; at += aligned(rows * 2); c.l3_offset = <uint16_t *> at; at += aligned(rows * 2)
    c.l4_offset = <uint16_t *> at; at += aligned(rows * 2); c.payload_offset = <uint16_t *> at; at += aligned(rows * 2)
    c.source_port = <uint16_t *> at; at += aligned(rows * 2); c.target_port = <uint16_t *> at; at += aligned(rows * 2)
    c.fragment_offset = <uint16_t *> at; at += aligned(rows * 2)
    c.source_address = at; at += aligned(rows * 16); c.target_address = at; at += aligned(rows * 16)
    c.vlan_count = at; at += aligned(rows); c.vlan = <uint16_t *> at; at += aligned(rows * 2 * VLAN_KEPT)
    c.depth = at; at += aligned(rows); c.inner_ip_version = at; at += aligned(rows)
    c.inner_protocol = at; at += aligned(rows); c.inner_flags = <uint16_t *> at; at += aligned(rows * 2)
    c.inner_l3_offset = <uint16_t *> at; at += aligned(rows * 2); c.inner_source_port = <uint16_t *> at; at += aligned(rows * 2)
    c.inner_target_port = <uint16_t *> at; at += aligned(rows * 2); c.inner_source_address = at; at += aligned(rows * 16)
    c.inner_target_address = at; at += aligned(rows * 16); c.tunnel_kind = at; at += aligned(rows)
    c.tunnel_id = <uint32_t *> at; at += aligned(rows * 4)
    c.offload = <Offload *> at; at += aligned(rows * sizeof(Offload))
    return at - base


cdef class Arena:
    """A mapping of equal chunks. Shared (a memfd, for worker processes) or private (for a reader in one process).

    Parameters: chunk_count; data_bytes_max of packet data and rows_max packets per chunk; shared: back it by a memfd;
    fd: attach to an arena that another process made with the same capacities; writable: not read-only. Pages are only
    touched when used, so columns that nobody reads cost nothing.
    """

    def __init__(self, Py_ssize_t chunk_count, Py_ssize_t data_bytes_max, Py_ssize_t rows_max, *, bint shared=False,
                 int fd=-1, bint writable=False):
        cdef Columns unused
        cdef void *base
        if chunk_count < 1 or data_bytes_max < 1 or rows_max < 1 or data_bytes_max >= 1 << 31 or rows_max >= 1 << 31:
            raise ValueError(f"arena of {chunk_count} chunks of {data_bytes_max} bytes and {rows_max} rows")
        self.fd = -1
        self.chunk_count = chunk_count
        self.data_bytes_max = data_bytes_max
        self.rows_max = rows_max
        self.stride = (layout(NULL, data_bytes_max, rows_max, &unused) + PAGE - 1) // PAGE * PAGE
        self.size = CONTROL_BYTES + self.stride * chunk_count
        self.writable = fd < 0 or writable
        if fd >= 0:
            self.fd = os.dup(fd)
            if os.fstat(self.fd).st_size < self.size:
                raise ValueError("the arena is smaller than its capacities say")
            base = mmap(NULL, self.size, PROT_READ | PROT_WRITE if writable else PROT_READ, MAP_SHARED, self.fd, 0)
        elif shared:
            self.fd = os.memfd_create("streamcore-arena", os.MFD_CLOEXEC)
            os.ftruncate(self.fd, self.size)
            base = mmap(NULL, self.size, PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, 0)
        else:
            base = mmap(NULL, self.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if base == MAP_FAILED:
            raise MemoryError(f"cannot map an arena of {self.size} bytes")
        self.base = <uint8_t *> base
        self.control = <Control *> base
        self.free = collections.deque(range(chunk_count) if fd < 0 else ())
        self.wake = threading.Condition()

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size)
        if self.fd >= 0:
            close_descriptor(self.fd)  # not os.close: its module may be gone while the interpreter ends

    cdef void columns(self, Py_ssize_t index, Columns *columns) noexcept nogil:
        layout(self.base + CONTROL_BYTES + self.stride * index, self.data_bytes_max, self.rows_max, columns)

    def acquire(self, timeout_s=None):
        """Takes a free chunk, or waits for one. Returns None after timeout_s seconds; raises ArenaClosed."""
        with self.wake:
            if not self.wake.wait_for(lambda: self.free or self.closed, timeout_s):
                return None
            if self.closed:
                raise ArenaClosed
            return Chunk(self, self.free.pop(), True)  # the last one freed is most likely in the cache

    def chunk(self, Py_ssize_t index):
        """The chunk at index, which is not returned to the arena: for a process that attached to it."""
        if not 0 <= index < self.chunk_count:
            raise ValueError(f"chunk {index} of {self.chunk_count}")
        return Chunk(self, index, False)

    def close(self):
        """Wakes and refuses all threads that wait for a chunk. The memory is freed with the last reference to a chunk."""
        with self.wake:
            self.closed = True
            self.wake.notify_all()

    @property
    def free_count(self):
        return len(self.free)

    def _release(self, Py_ssize_t index):
        with self.wake:
            self.free.append(index)
            self.wake.notify()

    def readonly_fd(self):
        """A new descriptor of the memfd that cannot be mapped for writing. The caller closes it."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)

    def set_link_type(self, uint16_t interface, uint16_t link_type):
        self.control.link_type[interface] = link_type

    def link_type(self, uint16_t interface):
        return self.control.link_type[interface]

    def set_committed_bytes(self, uint64_t size):
        self.control.committed_bytes = size

    @property
    def committed_bytes(self):
        """The length of the output file up to which its records are whole, as last set by the writer."""
        return self.control.committed_bytes

    def set_output_path(self, bytes path):
        """Sets the file that committed_bytes is about. Raises ValueError if the path has a page or more."""
        if len(path) >= PAGE:
            raise ValueError(f"a path of {len(path)} bytes")
        memcpy(self.base + CONTROL_BYTES - PAGE, <const char *> path, len(path) + 1)  # bytes end with a zero

    @property
    def output_path(self):
        """bytes: that file; b"": none that can be truncated."""
        return <bytes> <char *> (self.base + CONTROL_BYTES - PAGE)


cdef class Chunk:
    """One chunk of an arena. Arrays made from it keep it in use; after the last one it goes back to the arena."""

    def __init__(self, Arena arena, Py_ssize_t index, bint owned):
        self.arena = arena
        self.index = index
        self.owned = owned
        self.data_bytes = arena.data_bytes_max
        arena.columns(index, &self.columns)

    cdef void borrow(self, uint8_t *data, Py_ssize_t data_bytes, object borrowed_from):
        """Puts the packets into these bytes, which `borrowed_from` owns and keeps as long as this chunk refers to it."""
        self.columns.data = data
        self.data_bytes = data_bytes
        self.borrowed_from = borrowed_from

    def __del__(self):
        if self.owned:
            self.owned = False
            self.arena._release(self.index)

    @property
    def data(self):
        """uint8[…]: the bytes of the first stream: the chunk's own, or borrowed. Writable in the process that made the arena."""
        return self.array(cnp.NPY_UINT8, self.columns.data, self.data_bytes, 0)

    cdef cnp.ndarray array(self, int kind, void *pointer, Py_ssize_t count, Py_ssize_t width):
        cdef cnp.npy_intp[2] shape
        shape[0] = count
        shape[1] = width
        cdef cnp.ndarray result = cnp.PyArray_SimpleNewFromData(2 if width else 1, shape, kind, pointer)
        cnp.set_array_base(result, self)
        if not self.arena.writable:
            cnp.PyArray_CLEARFLAGS(result, cnp.NPY_ARRAY_WRITEABLE)
        return result


cdef class Copier:
    """Copies a live batch that has offloads to its chunk. offloads/_completion.pyx has the one that completes them."""

    cdef Py_ssize_t copy(self, PacketBatch batch, uint8_t *target) except -1:
        """The rows in use to target, a chunk's data, as `copy_to_chunk` says, with the batch's columns and counts. Returns the bytes."""
        raise NotImplementedError


cdef class PacketBatch:
    """The packets of one chunk as columns: one numpy array (a view) per column; row i is packet first_number + i.

    The arrays of section "parse" (ip_version … inner_target_address) are filled when first read, in one native call for all
    packets. Offsets of headers count from the packet's first byte; 65535 (ABSENT) means there is no such header.
    """

    def __init__(self, Chunk chunk not None, Py_ssize_t count, uint64_t first_number, list interfaces not None, *,
                 Py_ssize_t span_start=0, Py_ssize_t span_stop=0, parser=None, uint32_t groups=0,
                 bint arranged=False, Py_ssize_t row_count=-1):
        if not 0 <= count <= chunk.arena.rows_max or row_count > chunk.arena.rows_max:
            raise ValueError(f"batch of {count} packets in chunks of {chunk.arena.rows_max}")
        if not 0 <= span_start <= span_stop <= chunk.arena.data_bytes_max:
            raise ValueError(f"batch at {span_start}:{span_stop} in chunks of {chunk.arena.data_bytes_max} bytes")
        self.chunk = chunk
        self.count = count
        self.first_number = first_number
        self.interfaces = interfaces
        self.span_start = span_start
        self.span_stop = span_stop
        self.parser = parser
        self.groups = groups
        self.arranged = arranged
        self.row_count = count if row_count < 0 else row_count
        self.columns = chunk.columns

    def __len__(self):
        return self.count

    def __repr__(self):
        return f"<PacketBatch of {self.count} packets from number {self.first_number}>"

    cdef cnp.ndarray column(self, uint32_t group, int kind, void **pointer, Py_ssize_t width):
        if group & ~self.groups:
            if self.parser is None:
                raise AttributeError("this column was not parsed, and the batch has no parser")
            self.parser(self, group)
        return (self.own if group & self.own_groups else self.chunk).array(kind, pointer[0], self.count, width)

    cdef int prepare_columns(self, uint32_t groups) except -1:
        """Called before columns are filled. A worker maps the arena read-only, so its columns need separate memory."""
        groups &= ~self.groups
        if self.chunk.arena.writable or not groups:
            return 0
        self.own = self.own or Arena(1, 1, max(1, self.count)).chunk(0)
        choose_columns(&self.columns, &self.own.columns, groups)
        self.own_groups |= groups

    def packet(self, Py_ssize_t row):
        """uint8[captured_length]: the bytes of one packet, a view. Raises IndexError."""
        if not 0 <= row < self.count:
            raise IndexError(f"row {row} of {self.count}")
        return self.chunk.array(cnp.NPY_UINT8, self.columns.data + self.columns.offset[row],
                                self.columns.captured_length[row], 0)

    def arrange(self, rows):
        """Selects `rows` (uint32[…], each once), in this order."""
        cdef cnp.ndarray chosen = np.ascontiguousarray(rows, np.uint32)
        if chosen.shape[0] > self.count or (chosen.shape[0] and np.max(chosen) >= self.count):
            raise ValueError(f"{chosen.shape[0]} rows for a batch of {self.count} packets")
        self.chunk.array(cnp.NPY_UINT32, self.columns.rows, chosen.shape[0], 0)[:] = chosen
        self.row_count = chosen.shape[0]
        self.arranged = True

    def copy_to_chunk(self):
        """Copies the packets in use from borrowed memory (a live interface's ring) into the chunk, as pcap records with
        nanoseconds, and gives that memory back at once.

        Does nothing if they are in the chunk already. Rows not in use have no bytes afterwards; rows in use must
        ascend. `copier` may cut packets into several: then there are more rows. Returns the (packets, captured bytes)
        added. Raises ValueError if rows do not ascend, or do not fit.
        """
        cdef Columns own
        cdef Py_ssize_t used
        cdef uint64_t added = 0, added_bytes = 0
        if self.chunk.borrowed_from is None:
            return 0, 0
        self.chunk.arena.columns(self.chunk.index, &own)
        if self.offloads and self.copier is not None:
            added, added_bytes = self.copier.added, self.copier.added_bytes
            used = self.copier.copy(self, own.data)
            added, added_bytes = self.copier.added - added, self.copier.added_bytes - added_bytes
        else:
            with nogil:
                used = copy_records(&self.columns, own.data, self.arranged, self.count, self.row_count, self.chunk.arena.data_bytes_max)
        if used < 0:
            raise ValueError("the packets do not ascend, or do not fit into the chunk")
        self.columns.data = own.data
        self.chunk.borrow(own.data, self.chunk.arena.data_bytes_max, None)
        self.contiguous = not self.arranged
        self.span_start = 0
        self.span_stop = used
        return added, added_bytes

    @property
    def byte_count(self):
        """Captured bytes of all packets."""
        cdef uint64_t total = 0
        cdef Py_ssize_t row
        with nogil:
            for row in range(self.count):
                total += self.columns.captured_length[row]
        return total

    @property
    def data(self):
        """uint8[…]: the chunk's bytes, which `offset` indexes."""
        return self.chunk.data

    @property
    def rows(self):
        """uint32[row_count]: the rows in use, in the order of the segments; None: all rows in order."""
        if not self.arranged:
            return None
        return self.chunk.array(cnp.NPY_UINT32, self.columns.rows, self.row_count, 0)

    @property
    def offset(self):
        """uint32: index of the packet's first byte in `data`."""
        return self.column(0, cnp.NPY_UINT32, <void **> &self.columns.offset, 0)

    @property
    def captured_length(self):
        """uint32: bytes captured."""
        return self.column(0, cnp.NPY_UINT32, <void **> &self.columns.captured_length, 0)

    @property
    def wire_length(self):
        """uint32: bytes on the wire."""
        return self.column(0, cnp.NPY_UINT32, <void **> &self.columns.wire_length, 0)

    @property
    def timestamp_ns(self):
        """int64: nanoseconds since 1970, 0 if the record has no time."""
        return self.column(0, cnp.NPY_INT64, <void **> &self.columns.timestamp_ns, 0)

    @property
    def interface(self):
        """uint16: index into `interfaces`."""
        return self.column(0, cnp.NPY_UINT16, <void **> &self.columns.interface, 0)

    @property
    def record(self):
        """uint8: the form of the packet's record in the chunk (RECORD_ in packets.pxd)."""
        return self.column(0, cnp.NPY_UINT8, <void **> &self.columns.record, 0)

    @property
    def flow_hash(self):
        """uint32: symmetric over both directions, seeded at random for every run."""
        return self.column(GROUP_FLOW, cnp.NPY_UINT32, <void **> &self.columns.flow_hash, 0)

    @property
    def ip_version(self):
        """uint8: 4, 6, or 0 without an IP header."""
        return self.column(GROUP_HEADERS, cnp.NPY_UINT8, <void **> &self.columns.ip_version, 0)

    @property
    def protocol(self):
        """uint8: upper-layer protocol of the outermost IP header, after IPv6 extension headers."""
        return self.column(GROUP_HEADERS, cnp.NPY_UINT8, <void **> &self.columns.protocol, 0)

    @property
    def flags(self):
        """uint16: bits named in FLAGS."""
        return self.column(GROUP_HEADERS, cnp.NPY_UINT16, <void **> &self.columns.flags, 0)

    @property
    def l3_offset(self):
        """uint16: of the outermost IP header."""
        return self.column(GROUP_HEADERS, cnp.NPY_UINT16, <void **> &self.columns.l3_offset, 0)

    @property
    def l4_offset(self):
        """uint16: of the header after the outermost IP header and its extension headers."""
        return self.column(GROUP_HEADERS, cnp.NPY_UINT16, <void **> &self.columns.l4_offset, 0)

    @property
    def payload_offset(self):
        """uint16: of the first byte after the TCP, UDP, SCTP or ICMP header."""
        return self.column(GROUP_HEADERS, cnp.NPY_UINT16, <void **> &self.columns.payload_offset, 0)

    @property
    def source_port(self):
        """uint16: 0 if flags has no "ports"."""
        return self.column(GROUP_HEADERS, cnp.NPY_UINT16, <void **> &self.columns.source_port, 0)

    @property
    def target_port(self):
        """uint16: 0 if flags has no "ports"."""
        return self.column(GROUP_HEADERS, cnp.NPY_UINT16, <void **> &self.columns.target_port, 0)

    @property
    def fragment_offset(self):
        """uint16: in units of 8 bytes."""
        return self.column(GROUP_HEADERS, cnp.NPY_UINT16, <void **> &self.columns.fragment_offset, 0)

    @property
    def source_address(self):
        """uint8[n, 16]: network byte order; IPv4 as ::ffff:a.b.c.d."""
        return self.column(GROUP_ADDRESSES, cnp.NPY_UINT8, <void **> &self.columns.source_address, 16)

    @property
    def target_address(self):
        """uint8[n, 16]: network byte order; IPv4 as ::ffff:a.b.c.d."""
        return self.column(GROUP_ADDRESSES, cnp.NPY_UINT8, <void **> &self.columns.target_address, 16)

    @property
    def vlan_count(self):
        """uint8: number of VLAN tags before the outermost IP header."""
        return self.column(GROUP_VLAN, cnp.NPY_UINT8, <void **> &self.columns.vlan_count, 0)

    @property
    def vlan(self):
        """uint16[n, 4]: VLAN ids, outermost first; only the first vlan_count are valid."""
        return self.column(GROUP_VLAN, cnp.NPY_UINT16, <void **> &self.columns.vlan, VLAN_KEPT)

    @property
    def depth(self):
        """uint8: stacked IP headers."""
        return self.column(GROUP_INNER, cnp.NPY_UINT8, <void **> &self.columns.depth, 0)

    @property
    def inner_ip_version(self):
        """uint8: of the innermost IP header if depth > 1, else 0; likewise the other inner_ columns."""
        return self.column(GROUP_INNER, cnp.NPY_UINT8, <void **> &self.columns.inner_ip_version, 0)

    @property
    def inner_protocol(self):
        return self.column(GROUP_INNER, cnp.NPY_UINT8, <void **> &self.columns.inner_protocol, 0)

    @property
    def inner_flags(self):
        return self.column(GROUP_INNER, cnp.NPY_UINT16, <void **> &self.columns.inner_flags, 0)

    @property
    def inner_l3_offset(self):
        return self.column(GROUP_INNER, cnp.NPY_UINT16, <void **> &self.columns.inner_l3_offset, 0)

    @property
    def inner_source_port(self):
        return self.column(GROUP_INNER, cnp.NPY_UINT16, <void **> &self.columns.inner_source_port, 0)

    @property
    def inner_target_port(self):
        return self.column(GROUP_INNER, cnp.NPY_UINT16, <void **> &self.columns.inner_target_port, 0)

    @property
    def inner_source_address(self):
        return self.column(GROUP_INNER, cnp.NPY_UINT8, <void **> &self.columns.inner_source_address, 16)

    @property
    def inner_target_address(self):
        return self.column(GROUP_INNER, cnp.NPY_UINT8, <void **> &self.columns.inner_target_address, 16)

    @property
    def tunnel_kind(self):
        """uint8: the innermost tunnel that was entered, a key of streamcore.headers.TUNNELS; 0: none."""
        return self.column(GROUP_INNER, cnp.NPY_UINT8, <void **> &self.columns.tunnel_kind, 0)

    @property
    def offload(self):
        """uint8[n, 10]: what each packet left to hardware, as a virtio_net_hdr; None unless `offloads`."""
        if not self.offloads:
            return None
        return self.column(0, cnp.NPY_UINT8, <void **> &self.columns.offload, sizeof(Offload))

    @property
    def tunnel_id(self):
        """uint32: that tunnel's key, VNI, TEID, session or the like; 0 if it has none."""
        return self.column(GROUP_INNER, cnp.NPY_UINT32, <void **> &self.columns.tunnel_id, 0)


cdef class Segment:
    """The unit of dispersal: some rows of one batch. While a Segment lives, its chunk is not reused."""

    def __init__(self, uint64_t number, PacketBatch batch not None, Py_ssize_t start, Py_ssize_t stop, uint32_t lane=0,
                 uint64_t byte_count=0, uint32_t stream=0):
        if not 0 <= start <= stop <= batch.row_count:
            raise ValueError(f"segment of rows {start}:{stop} in a batch of {batch.row_count}")
        self.number = number
        self.batch = batch
        self.start = start
        self.stop = stop
        self.lane = lane
        self.byte_count = byte_count
        self.stream = stream

    def __len__(self):
        return self.stop - self.start

    def __repr__(self):
        return f"<Segment {self.number}: {self.stop - self.start} packets, lane {self.lane}>"

    @property
    def index(self):
        """slice or uint32[n]: the index of this segment's rows in a batch column."""
        if not self.batch.arranged:
            return slice(self.start, self.stop)
        return self.batch.rows[self.start:self.stop]


cdef class Result:
    """The result of one segment: unchanged, changed or dropped packets, or dead. The code that fills it checks its pointers."""

    def __init__(self, Segment segment not None, *, bint dead=False, str reason=""):
        self.segment = segment
        self.dead = dead
        self.unchanged = True
        self.comments = {}
        self.reports = []
        self.drops = {}
        self.reason = reason
        self.provider = ""


cdef class Outgoing:
    """Packets on their way into the second stream: rows of one batch, unchanged or as services changed them.

    Outgoing(batch, start, stop) has rows of unchanged lengths, arranged like the batch or, with arranged=False, the
    rows start..stop themselves; native code may say where their records have moved. Outgoing(batch, 0, 0, count=n) has
    room for n changed packets, which native code fills; every packet is dropped until then.
    """

    def __init__(self, PacketBatch batch not None, Py_ssize_t start, Py_ssize_t stop, *, bint arranged=True,
                 Py_ssize_t count=-1):
        self.batch = batch
        self.arranged = arranged and batch.arranged
        self.start = start
        self.stop = stop
        self.unchanged = count < 0
        self.comments = {}
        if count < 0:
            return
        self.count = count
        self.row = <uint32_t *> calloc(count + 1, sizeof(uint32_t))
        self.packet = <uint8_t **> calloc(count + 1, sizeof(uint8_t *))
        self.captured_length = <uint32_t *> calloc(count + 1, sizeof(uint32_t))
        self.wire_length = <uint32_t *> calloc(count + 1, sizeof(uint32_t))
        self.whole = <uint8_t *> calloc(count + 1, 1)
        if not (self.row and self.packet and self.captured_length and self.wire_length and self.whole):
            raise MemoryError(f"no room for {count} outgoing packets")

    def packets(self):
        """list[(number in the first stream, bytes)] of the packets that leave, in order. Slow: for inspecting a few."""
        first = self.batch.first_number
        if self.unchanged:
            rows = self.batch.rows[self.start:self.stop].tolist() if self.arranged else range(self.start, self.stop)
            c = self.batch.columns
            return [(first + row, (<char *> outgoing_data(&c, self) + c.offset[row])[:c.captured_length[row]]) for row in rows]
        return [(first + self.row[i], (<char *> self.packet[i])[:self.captured_length[i]])
                for i in range(self.count) if self.packet[i] != NULL]

    def __dealloc__(self):
        free(self.row)
        free(self.packet)
        free(self.captured_length)
        free(self.wire_length)
        free(self.whole)


def gather_records(Segment segment not None):
    """(records uint8[…], offset uint32[n]): a segment's whole records packed in row order, and the index of each packet
    in them.

    One copy; about 6 ns for a small packet, memory speed for large ones.
    """
    cdef Py_ssize_t count = segment.stop - segment.start
    cdef uint64_t size
    with nogil:
        size = records_size(&segment.batch.columns, segment.batch.arranged, segment.start, segment.stop)
    cdef cnp.ndarray records = np.empty(size, np.uint8)
    cdef cnp.ndarray offset = np.empty(count, np.uint32)
    cdef uint8_t *target = <uint8_t *> cnp.PyArray_DATA(records)
    cdef uint32_t *at = <uint32_t *> cnp.PyArray_DATA(offset)
    with nogil:
        pack_records(&segment.batch.columns, segment.batch.arranged, segment.start, segment.stop, target, size, at)
    return records, offset
