"""Groups packets by flow, protocol and time in native code, and merges such groups. count.py decides what is counted and
shown.
"""

import secrets

import numpy as np

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport prefetch
from streamcore.core.tables cimport fold

cdef extern from *:
    """
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define streamcore_big64(x) __builtin_bswap64(x)
    #else
    #define streamcore_big64(x) (x)
    #endif
    """
    uint64_t streamcore_big64(uint64_t value) noexcept nogil

cdef enum:
    BATCH = 32  # packets between prefetching a slot and reading it

# A flow. The end with the lower address and port comes first; addresses are 16 bytes in two numbers.
FLOW = np.dtype([
    ("low_high", np.uint64), ("low_low", np.uint64), ("high_high", np.uint64), ("high_low", np.uint64),
    ("ends", np.uint64),  # low port << 48 | high port << 32 | protocol << 8 | IP version
    ("packets", np.uint64), ("bytes", np.uint64),
])

cdef struct Flow:
    uint64_t[5] key
    uint64_t packets
    uint64_t bytes


cdef class Flows:
    """Flows(entries_max): packets and bytes of at most entries_max flows, in a dense array of FLOW. The caller must make
    room before it adds.
    """

    cdef readonly Py_ssize_t used
    cdef readonly Py_ssize_t entries_max
    cdef object array
    cdef object slot_array
    cdef Flow *entries
    cdef uint32_t *slots  # index into entries + 1; 0: empty; at most half are in use
    cdef uint64_t mask
    cdef uint64_t[6] secret

    def __init__(self, Py_ssize_t entries_max):
        cdef uint64_t slots = 64
        cdef uint8_t[::1] raw
        cdef uint32_t[::1] slot_view
        if not 1 <= entries_max <= 1 << 26:
            raise ValueError(f"a table cannot have room for {entries_max} flows")
        while slots < 2 * <uint64_t> entries_max:
            slots *= 2
        self.entries_max = entries_max
        self.array = np.empty(entries_max, FLOW)
        self.slot_array = np.zeros(slots, np.uint32)
        raw = self.array.view(np.uint8)
        slot_view = self.slot_array
        self.entries = <Flow *> &raw[0]
        self.slots = &slot_view[0]
        self.mask = slots - 1
        for i in range(6):
            self.secret[i] = secrets.randbits(64)

    def clear(self):
        self.used = 0
        memset(self.slots, 0, (self.mask + 1) * sizeof(uint32_t))

    def rows(self):
        """FLOW[used]: a view, valid until the next change."""
        return self.array[:self.used]

    def add_rows(self, rows not None):
        """Add groups, FLOW[n]. Raises ValueError if they might not all fit."""
        raw_array = np.ascontiguousarray(rows, FLOW).view(np.uint8)
        cdef const uint8_t[::1] raw = raw_array
        cdef Py_ssize_t count = raw.shape[0] // <Py_ssize_t> sizeof(Flow)
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t stop, i
        cdef uint64_t[BATCH] hashes
        cdef const Flow *flow
        if self.used + count > self.entries_max:
            raise ValueError(f"{count} more flows do not fit into {self.entries_max}")
        if count == 0:
            return
        flow = <const Flow *> &raw[0]
        with nogil:
            while start < count:
                stop = min(start + BATCH, count)
                for i in range(start, stop):
                    hashes[i - start] = hashed(flow[i].key, self.secret)
                    prefetch(&self.slots[hashes[i - start] & self.mask])
                self.fetch(hashes, stop - start)
                for i in range(start, stop):
                    self.add(flow[i].key, hashes[i - start], flow[i].packets, flow[i].bytes)
                start = stop

    def add_packets(self, const uint8_t[:, ::1] source_address not None, const uint8_t[:, ::1] target_address not None,
                    const uint16_t[::1] source_port not None, const uint16_t[::1] target_port not None,
                    const uint8_t[::1] protocol not None, const uint8_t[::1] ip_version not None,
                    const uint32_t[::1] wire_length not None):
        """Add packets by their header columns, leaving out those without an IP header. Releases the GIL.

        Raises ValueError if the flows might not all fit. About 30 ns per packet (bench_service.py).
        """
        cdef Py_ssize_t count = wire_length.shape[0]
        if (source_address.shape[0] != count or target_address.shape[0] != count or source_port.shape[0] != count
                or target_port.shape[0] != count or protocol.shape[0] != count or ip_version.shape[0] != count
                or source_address.shape[1] != 16 or target_address.shape[1] != 16):
            raise ValueError("add_packets: the columns have different lengths")
        if self.used + count > self.entries_max:
            raise ValueError(f"the flows of {count} packets might not fit into {self.entries_max}")
        if count:
            with nogil:
                self.group(&source_address[0, 0], &target_address[0, 0], &source_port[0], &target_port[0], &protocol[0],
                           &ip_version[0], &wire_length[0], count)

    cdef void group(self, const uint8_t *source, const uint8_t *target, const uint16_t *source_port, const uint16_t *target_port,
                    const uint8_t *protocol, const uint8_t *ip_version, const uint32_t *wire_length, Py_ssize_t count) noexcept nogil:
        cdef uint64_t[BATCH][5] keys
        cdef uint64_t[BATCH] hashes
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t stop, i
        while start < count:
            stop = min(start + BATCH, count)
            for i in range(start, stop):
                make_key(keys[i - start], source + 16 * i, target + 16 * i, source_port[i], target_port[i], protocol[i], ip_version[i])
                hashes[i - start] = hashed(keys[i - start], self.secret)
                prefetch(&self.slots[hashes[i - start] & self.mask])
            self.fetch(hashes, stop - start)
            for i in range(start, stop):
                if ip_version[i]:
                    self.add(keys[i - start], hashes[i - start], 1, wire_length[i])
            start = stop

    cdef inline void fetch(self, const uint64_t *hashes, Py_ssize_t count) noexcept nogil:
        """Prefetch the flows that the slots propose."""
        cdef Py_ssize_t i
        cdef uint32_t slot
        for i in range(count):
            slot = self.slots[hashes[i] & self.mask]
            if slot:
                prefetch(&self.entries[slot - 1])

    cdef inline void add(self, const uint64_t *key, uint64_t key_hash, uint64_t packets, uint64_t byte_count) noexcept nogil:
        """The caller made room, and at most half the slots are in use, so the search ends."""
        cdef uint64_t at = key_hash & self.mask
        cdef Flow *flow
        while self.slots[at]:
            flow = &self.entries[self.slots[at] - 1]
            if (flow.key[4] == key[4] and flow.key[1] == key[1] and flow.key[3] == key[3] and flow.key[0] == key[0]
                    and flow.key[2] == key[2]):
                flow.packets += packets
                flow.bytes += byte_count
                return
            at = (at + 1) & self.mask
        flow = &self.entries[self.used]
        self.used += 1
        self.slots[at] = <uint32_t> self.used
        memcpy(flow.key, key, sizeof(flow.key))
        flow.packets = packets
        flow.bytes = byte_count


cdef inline uint64_t hashed(const uint64_t *key, const uint64_t *secret) noexcept nogil:
    cdef uint64_t low = fold(key[0] ^ secret[0], key[1] ^ secret[1])
    cdef uint64_t high = fold(key[2] ^ secret[2], key[3] ^ secret[3])
    return fold(low ^ key[4] ^ secret[4], high ^ secret[5])


cdef inline void make_key(uint64_t *key, const uint8_t *source, const uint8_t *target, uint16_t source_port, uint16_t target_port,
                          uint8_t protocol, uint8_t ip_version) noexcept nogil:
    cdef uint64_t[2] s, t
    memcpy(s, source, 16)
    memcpy(t, target, 16)
    s[0], s[1] = streamcore_big64(s[0]), streamcore_big64(s[1])
    t[0], t[1] = streamcore_big64(t[0]), streamcore_big64(t[1])
    cdef uint64_t last = (<uint64_t> protocol << 8) | ip_version
    cdef bint in_order = s[0] < t[0] or (s[0] == t[0] and (s[1] < t[1] or (s[1] == t[1] and source_port <= target_port)))
    if in_order:
        key[0], key[1], key[2], key[3] = s[0], s[1], t[0], t[1]
        key[4] = (<uint64_t> source_port << 48) | (<uint64_t> target_port << 32) | last
    else:
        key[0], key[1], key[2], key[3] = t[0], t[1], s[0], s[1]
        key[4] = (<uint64_t> target_port << 48) | (<uint64_t> source_port << 32) | last


def by_protocol(const uint8_t[::1] protocol not None, const uint8_t[::1] ip_version not None, const uint32_t[::1] wire_length not None):
    """uint64[257, 2]: packets and bytes of each protocol number. The last row counts packets without an IP header."""
    cdef Py_ssize_t count = wire_length.shape[0]
    cdef Py_ssize_t i, row
    totals = np.zeros((257, 2), np.uint64)
    cdef uint64_t[:, ::1] total = totals
    if protocol.shape[0] != count or ip_version.shape[0] != count:
        raise ValueError("by_protocol: the columns have different lengths")
    with nogil:
        for i in range(count):
            row = protocol[i] if ip_version[i] else 256
            total[row, 0] += 1
            total[row, 1] += wire_length[i]
    return totals


def by_time(const int64_t[::1] timestamp_ns not None, const uint32_t[::1] wire_length not None, int64_t bin_ns):
    """int64[m, 3]: (bin, packets, bytes) of each run of packets in the same bin; bin = floor(timestamp / bin_ns)."""
    cdef Py_ssize_t count = wire_length.shape[0]
    cdef Py_ssize_t i
    cdef Py_ssize_t run = -1
    cdef int64_t first = 0  # the current bin's first and last nanosecond
    cdef int64_t last = 0
    cdef int64_t number, into
    if timestamp_ns.shape[0] != count or bin_ns < 1:
        raise ValueError("by_time: the columns have different lengths, or the bins have no length")
    runs_array = np.empty((count, 3), np.int64)
    cdef int64_t[:, ::1] runs = runs_array
    with nogil:
        for i in range(count):
            if run < 0 or timestamp_ns[i] < first or timestamp_ns[i] > last:
                number = timestamp_ns[i] // bin_ns
                into = timestamp_ns[i] % bin_ns
                if into < 0:  # C rounds towards zero
                    number -= 1
                    into += bin_ns
                first = timestamp_ns[i] - into if timestamp_ns[i] >= INT64_MIN + into else INT64_MIN
                last = timestamp_ns[i] + (bin_ns - 1 - into) if timestamp_ns[i] <= INT64_MAX - (bin_ns - 1 - into) else INT64_MAX
                run += 1
                runs[run, 0] = number
                runs[run, 1] = runs[run, 2] = 0
            runs[run, 1] += 1
            runs[run, 2] += wire_length[i]
    return runs_array[:run + 1]
