"""A keyed hash of packets, which workers compute, and the window that finds duplicates, which runs in the main process.
The service itself is in dedup.py.

The hash is NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: UMAC, 1999) with a key as long as the longest packet. If two packets differ in a
byte or a length, and nobody knows the key, their 128-bit sums in one lane are equal with a probability of at most 2**-64. Two lanes are
computed, the second with the key moved by two words. Each sum is then reduced to 61 bits by an inner product modulo 2**61 - 1. A longer packet
is hashed in blocks of that length, whose results are the digits of a number to a secret base, modulo the same prime.

Before that, what the options ignore is left out: the bytes before the IP header, those behind its end, TTL and header checksum.
"""

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport prefetch
from streamcore.headers._walk cimport (
    LAYER_ARP,
    LAYER_IP4,
    LAYER_IP6,
    LAYER_TCP,
    MARK_CUT,
    MARK_QUOTED,
    Layer,
    UdpPorts,
    UdpTable,
    Walk,
    be16,
    walk_headers,
)

cdef extern from *:
    """
    typedef unsigned __int128 streamcore_u128;
    #define STREAMCORE_PRIME (((uint64_t) 1 << 61) - 1)
    """
    ctypedef unsigned long long u128 "streamcore_u128"
    const uint64_t PRIME "STREAMCORE_PRIME"

cdef enum:
    BATCH = 16            # packets between prefetching a slot and reading it

IGNORE_LINK, IGNORE_TTL, IGNORE_PADDING, KEEP_EMPTY_TCP = 1, 2, 4, 8  # bits of `how`
BLOCK_BYTES = 262144  # of a packet that are hashed at once: the longest that libpcap takes
KEY_WORDS = 8 + 2 + BLOCK_BYTES // 8 + 4 + 2

cdef enum:
    LINK = 1
    TTL = 2
    PADDING = 4
    EMPTY_TCP = 8
    BLOCK = 262144
    BASES = 8 + 2 + BLOCK // 8 + 4  # where the two bases stand in the key

cdef uint64_t NO_COPY = 0xFFFFFFFFFFFFFFFF  # both words of the key of a packet that is nobody's copy; a hash is below 2**61


cdef struct Part:
    # What is compared of a packet.
    uint32_t start           # of its captured bytes
    uint32_t length
    uint32_t wire_length
    uint32_t counter         # where the TTL stands, from start; 0: it is compared
    uint32_t checksum        # where the checksum of the IPv4 header stands, or 0


def hash_packets(const uint8_t[::1] data not None, const uint32_t[::1] offset not None, const uint32_t[::1] captured_length not None,
                 const uint32_t[::1] wire_length not None, const uint64_t[::1] key not None, uint64_t[:, ::1] keys not None,
                 int how=0, const uint16_t[::1] link_type=None, UdpPorts ports=None):
    """keys uint64[n, 2]: a hash of what is compared of each packet, and of both its lengths. key: uint64[KEY_WORDS], random.

    how: IGNORE_ bits, and KEEP_EMPTY_TCP, which gives TCP segments without payload a key that is equal to none; they need link_type
    (uint16[n]) and ports. Releases the GIL. Raises ValueError for a packet outside data. About 12 ns for 64 bytes (bench_service.py), and
    a walk over the headers if `how` is set.
    """
    cdef Py_ssize_t count = offset.shape[0]
    cdef Py_ssize_t i
    cdef uint64_t[8] factors
    cdef uint64_t[2] bases
    cdef const UdpTable *udp = NULL
    cdef const uint8_t *packet
    cdef Part part
    if captured_length.shape[0] != count or wire_length.shape[0] != count or keys.shape[0] != count or keys.shape[1] != 2:
        raise ValueError("hash_packets: the arrays have different lengths")
    if key.shape[0] != KEY_WORDS:
        raise ValueError(f"the key must have {KEY_WORDS} words, not {key.shape[0]}")
    if how:
        if ports is None or link_type is None or link_type.shape[0] != count:
            raise ValueError("hash_packets: the headers need link types and ports")
        udp = &ports.table
    for i in range(count):
        if <uint64_t> offset[i] + captured_length[i] > <uint64_t> data.shape[0]:
            raise ValueError(f"packet {i} of {captured_length[i]} bytes is outside the data")
    if count == 0:
        return
    for i in range(8):
        factors[i] = key[i] % PRIME
    for i in range(2):
        bases[i] = key[BASES + i] % PRIME
    with nogil:
        for i in range(count):
            packet = &data[offset[i]] if captured_length[i] else NULL
            part.start, part.length, part.wire_length, part.counter, part.checksum = 0, captured_length[i], wire_length[i], 0, 0
            if how and not compare(udp, packet, link_type[i], how, &part):
                keys[i, 0] = keys[i, 1] = NO_COPY
                continue
            hash_one(packet, &part, &key[8], factors, bases, &keys[i, 0])


cdef bint compare(const UdpTable *udp, const uint8_t *packet, uint16_t link_type, int how, Part *part) noexcept nogil:
    """What is compared of a packet. False: it is a TCP segment without payload, and never a copy.

    All positions are of the outermost IP or ARP header. Without one the whole packet is compared.
    """
    cdef Walk walk
    cdef const Layer *layer
    cdef const Layer *network = NULL
    cdef uint32_t end = 0, captured = part.length
    cdef int number
    if packet == NULL:
        return True
    walk_headers(udp, packet, captured, link_type, &walk)
    for number in range(walk.layer_count):
        layer = &walk.layers[number]
        if layer.kind in (LAYER_IP4, LAYER_IP6, LAYER_ARP) and not layer.marks & (MARK_CUT | MARK_QUOTED):
            network = layer
            break
    if how & EMPTY_TCP and walk.layer_count:
        layer = &walk.layers[walk.layer_count - 1]
        # The layer's end is bounded by what was captured: a segment whose payload was cut off has one.
        if layer.kind == LAYER_TCP and not layer.marks & MARK_QUOTED and layer.offset + layer.length >= layer.end and (
                layer.end < captured or captured >= part.wire_length):
            return False
    if network == NULL:
        return True
    if network.kind == LAYER_ARP:
        end = network.offset + network.length
    elif network.kind == LAYER_IP4:
        end = be16(packet + network.offset + 2)
        end = network.offset + end if end >= network.length else 0  # 0: from an offload, so unknown
    elif be16(packet + network.offset + 4):
        end = network.offset + 40 + be16(packet + network.offset + 4)
    if how & PADDING and end and end <= part.wire_length:
        part.wire_length = end
        part.length = min(captured, end)
    if how & LINK:
        part.start = network.offset
        part.length -= part.start
        part.wire_length -= part.start
    if how & TTL and network.kind != LAYER_ARP:
        part.counter = network.offset - part.start + (8 if network.kind == LAYER_IP4 else 7)
        if network.kind == LAYER_IP4:
            part.checksum = network.offset - part.start + 10
    return True


cdef inline void hash_one(const uint8_t *packet, const Part *part, const uint64_t *k, const uint64_t *factors, const uint64_t *bases,
                          uint64_t *result) noexcept nogil:
    cdef const uint8_t *p = packet + part.start if packet != NULL else NULL
    cdef uint32_t at = 0, length = part.length, size
    cdef uint64_t[2] block
    result[0] = result[1] = 0
    while True:
        size = min(length - at, <uint32_t> BLOCK)
        hash_block(p, at, size, part, k, factors, block)
        if at == 0:
            result[0], result[1] = block[0], block[1]
        else:
            result[0] = modulo(<u128> result[0] * bases[0] + block[0])
            result[1] = modulo(<u128> result[1] * bases[1] + block[1])
        at += size
        if at >= length:
            return


cdef inline void hash_block(const uint8_t *p, uint32_t at, uint32_t size, const Part *part, const uint64_t *k, const uint64_t *factors,
                            uint64_t *result) noexcept nogil:
    """Hashes bytes at..at+size. The lengths that go in are those of the whole packet."""
    cdef u128 one = <u128> (k[0] + part.length) * (k[1] + part.wire_length)
    cdef u128 two = <u128> (k[2] + part.length) * (k[3] + part.wire_length)
    cdef uint64_t[2] words
    cdef uint32_t end = at + size, step
    k += 2
    while at < end:
        step = min(end - at, <uint32_t> 16)
        if step < 16:
            words[0] = words[1] = 0
        memcpy(words, p + at, step)
        if part.counter and at <= part.counter + 3:
            blank(<uint8_t *> words, at, part)
        one += <u128> (words[0] + k[0]) * (words[1] + k[1])
        two += <u128> (words[0] + k[2]) * (words[1] + k[3])
        k += 2
        at += step
    result[0] = reduced(one, factors)
    result[1] = reduced(two, factors + 4)


cdef inline void blank(uint8_t *words, uint32_t at, const Part *part) noexcept nogil:
    """Sets TTL and header checksum to zero, where they are among these 16 bytes."""
    if at <= part.counter < at + 16:
        words[part.counter - at] = 0
    if part.checksum:
        if at <= part.checksum < at + 16:
            words[part.checksum - at] = 0
        if at <= part.checksum + 1 < at + 16:
            words[part.checksum + 1 - at] = 0


cdef inline uint64_t reduced(u128 total, const uint64_t *factors) noexcept nogil:
    """The inner product of total's four 32-bit parts with four factors below 2**61 - 1, modulo that prime."""
    cdef u128 product = <u128> factors[0] * <uint32_t> total
    product += <u128> factors[1] * <uint32_t> (total >> 32)
    product += <u128> factors[2] * <uint32_t> (total >> 64)
    product += <u128> factors[3] * <uint32_t> (total >> 96)
    return modulo(product)


cdef inline uint64_t modulo(u128 value) noexcept nogil:
    """value modulo 2**61 - 1, of a value below 2**125."""
    cdef uint64_t folded = (<uint64_t> value & PRIME) + <uint64_t> (value >> 61)
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
        if first == NO_COPY:
            return False
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
