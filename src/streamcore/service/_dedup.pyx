"""A keyed hash of packets, which workers compute, and the window that finds duplicates, which runs in the main process.
The service itself is in dedup.py.

The hash is NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: UMAC, 1999) with a key as long as the longest packet. If two packets differ in a
byte or a length, and nobody knows the key, their 128-bit sums in one lane are equal with a probability of at most 2**-64. Two lanes are
computed, the second with the key moved by two words. Each sum is then reduced to 61 bits by an inner product modulo 2**61 - 1.
"""

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport prefetch

cdef extern from *:
    """
    typedef unsigned __int128 streamcore_u128;
    #define STREAMCORE_PRIME (((uint64_t) 1 << 61) - 1)
    """
    ctypedef unsigned long long u128 "streamcore_u128"
    const uint64_t PRIME "STREAMCORE_PRIME"

cdef enum:
    BATCH = 16            # packets between prefetching a slot and reading it
PACKET_BYTES_MAX = 262144  # the longest packet that libpcap takes
KEY_WORDS = 8 + 2 + PACKET_BYTES_MAX // 8 + 4


def hash_packets(const uint8_t[::1] data not None, const uint32_t[::1] offset not None, const uint32_t[::1] captured_length not None,
                 const uint32_t[::1] wire_length not None, const uint64_t[::1] key not None, uint64_t[:, ::1] keys not None):
    """keys uint64[n, 2]: a hash of each packet's captured bytes and both its lengths. key: uint64[KEY_WORDS], random.

    Releases the GIL. Raises ValueError for a packet outside data or longer than PACKET_BYTES_MAX. About 12 ns for 64 bytes
    (bench_service.py).
    """
    cdef Py_ssize_t count = offset.shape[0]
    cdef Py_ssize_t i
    cdef uint32_t longest = PACKET_BYTES_MAX
    cdef uint64_t[8] factors
    if captured_length.shape[0] != count or wire_length.shape[0] != count or keys.shape[0] != count or keys.shape[1] != 2:
        raise ValueError("hash_packets: the arrays have different lengths")
    if key.shape[0] != KEY_WORDS:
        raise ValueError(f"the key must have {KEY_WORDS} words, not {key.shape[0]}")
    for i in range(count):
        if captured_length[i] > longest or <uint64_t> offset[i] + captured_length[i] > <uint64_t> data.shape[0]:
            raise ValueError(f"packet {i} of {captured_length[i]} bytes is outside the data, or too long")
    if count == 0:
        return
    for i in range(8):
        factors[i] = key[i] % PRIME
    with nogil:
        for i in range(count):
            hash_one(&data[offset[i]] if captured_length[i] else NULL, captured_length[i], wire_length[i], &key[8], factors,
                     &keys[i, 0])


cdef inline void hash_one(const uint8_t *p, uint32_t length, uint32_t wire_length, const uint64_t *k, const uint64_t *factors,
                          uint64_t *result) noexcept nogil:
    cdef u128 one = <u128> (k[0] + length) * (k[1] + wire_length)
    cdef u128 two = <u128> (k[2] + length) * (k[3] + wire_length)
    cdef uint64_t[2] words
    k += 2
    while length >= 16:
        memcpy(words, p, 16)
        one += <u128> (words[0] + k[0]) * (words[1] + k[1])
        two += <u128> (words[0] + k[2]) * (words[1] + k[3])
        k += 2
        p += 16
        length -= 16
    if length:
        words[0] = words[1] = 0
        memcpy(words, p, length)
        one += <u128> (words[0] + k[0]) * (words[1] + k[1])
        two += <u128> (words[0] + k[2]) * (words[1] + k[3])
    result[0] = reduced(one, factors)
    result[1] = reduced(two, factors + 4)


cdef inline uint64_t reduced(u128 total, const uint64_t *factors) noexcept nogil:
    """The inner product of total's four 32-bit parts with four factors below 2**61 - 1, modulo that prime."""
    cdef u128 product = <u128> factors[0] * <uint32_t> total
    product += <u128> factors[1] * <uint32_t> (total >> 32)
    product += <u128> factors[2] * <uint32_t> (total >> 64)
    product += <u128> factors[3] * <uint32_t> (total >> 96)
    cdef uint64_t folded = (<uint64_t> product & PRIME) + <uint64_t> (product >> 61)
    folded = (folded & PRIME) + (folded >> 61)
    return folded if folded < PRIME else folded - PRIME


cdef struct Seen:
    uint64_t first, second  # the packet's key
    uint64_t number         # of its last copy, from 1; 0: empty
    int64_t timestamp_ns    # of its last copy


cdef class Window:
    """Window(packets, nanoseconds) says whether a packet repeats one that came at most `packets` packets and at most
    `nanoseconds` before it.

    nanoseconds < 0: time does not matter. Two tables of at most `packets` entries take turns; what is in neither is too far
    back.
    """

    cdef readonly uint64_t packets
    cdef readonly int64_t nanoseconds
    cdef uint64_t number     # packets seen
    cdef uint64_t used       # entries used in the table being filled
    cdef uint64_t mask
    cdef Seen *current
    cdef Seen *previous

    def __init__(self, uint64_t packets, int64_t nanoseconds):
        cdef uint64_t slots = 16
        if not 1 <= packets <= 1 << 22:
            raise ValueError(f"a window cannot have {packets} packets")
        while slots < 2 * packets:
            slots *= 2
        self.packets = packets
        self.nanoseconds = nanoseconds
        self.mask = slots - 1
        self.current = <Seen *> calloc(slots, sizeof(Seen))
        self.previous = <Seen *> calloc(slots, sizeof(Seen))
        if self.current == NULL or self.previous == NULL:
            raise MemoryError(f"not enough memory for a window of {packets} packets")

    def __dealloc__(self):
        free(self.current)
        free(self.previous)

    def duplicates(self, const uint64_t[:, ::1] keys not None, const int64_t[::1] timestamp_ns not None):
        """bool[n]: which of the stream's next n packets are duplicates. keys: uint64[n, 2] from hash_packets."""
        cdef Py_ssize_t count = keys.shape[0]
        cdef Py_ssize_t i, ahead
        if timestamp_ns.shape[0] != count or keys.shape[1] != 2:
            raise ValueError("duplicates: the arrays have different lengths")
        mask = np.zeros(count, np.uint8)
        cdef uint8_t[::1] mark = mask
        with nogil:
            for i in range(count):
                if i % BATCH == 0:
                    for ahead in range(i, min(i + BATCH, count)):
                        prefetch(&self.current[keys[ahead, 0] & self.mask])
                        prefetch(&self.previous[keys[ahead, 0] & self.mask])
                mark[i] = self.see(keys[i, 0], keys[i, 1], timestamp_ns[i])
        return mask.view(np.bool_)

    cdef bint see(self, uint64_t first, uint64_t second, int64_t timestamp_ns) noexcept nogil:
        cdef Seen *seen = find(self.current, self.mask, first, second)
        cdef Seen *older
        cdef uint64_t number = 0
        cdef int64_t then_ns = 0
        self.number += 1
        if seen.number:
            number, then_ns = seen.number, seen.timestamp_ns
        else:
            older = find(self.previous, self.mask, first, second)
            number, then_ns = older.number, older.timestamp_ns
            if self.used == self.packets:
                self.current, self.previous = self.previous, self.current
                memset(self.current, 0, (self.mask + 1) * sizeof(Seen))
                self.used = 0
                seen = find(self.current, self.mask, first, second)
            self.used += 1
            seen.first, seen.second = first, second
        seen.number, seen.timestamp_ns = self.number, timestamp_ns
        if number == 0 or self.number - number > self.packets:
            return False
        if self.nanoseconds < 0:
            return True
        # Timestamps may go backwards. The unsigned difference fits even if the signed one does not.
        return (<uint64_t> timestamp_ns - <uint64_t> then_ns if timestamp_ns >= then_ns
                else <uint64_t> then_ns - <uint64_t> timestamp_ns) <= <uint64_t> self.nanoseconds


cdef inline Seen *find(Seen *table, uint64_t mask, uint64_t first, uint64_t second) noexcept nogil:
    """The key's entry, or the empty one where it belongs. A table is at most half full, and keys are random enough to serve
    as slot numbers.
    """
    cdef uint64_t at = first & mask
    while table[at].number and (table[at].first != first or table[at].second != second):
        at = (at + 1) & mask
    return &table[at]
