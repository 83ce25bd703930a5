# How a packet is added to its flow's records, beyond the sums that every packet touches (_flows.pyx). All of it is inline.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from streamcore.core.packets cimport NO_OFFSET
from streamcore.parse._flow_block cimport Block, sequence_of
from streamcore.parse._flow_rows cimport SUM_IP, SUM_PACKETS, SUM_PAYLOAD, SUM_WIRE, SUMS, Early, Origin, Record, near_sum
from streamcore.parse._flow_state cimport (
    ACK_SEEN,
    CLOSED,
    FROM_HIGH,
    HISTORY_KEPT,
    SEEN,
    SYNS_SEEN,
    TCP_ACK,
    TCP_FIN,
    TCP_RST,
    TCP_SYN,
)
from streamcore.parse._key cimport likely

cdef enum:
    TOP_BITS = 0x8000000080000000


cdef inline void note(Origin *origin, uint8_t letter) noexcept nogil:
    """A letter more in the history, unless it is there already."""
    cdef int i
    for i in range(origin.history_length):
        if origin.history[i] == letter:
            return
    if origin.history_length < HISTORY_KEPT:
        origin.history[origin.history_length] = letter
        origin.history_length += 1


cdef inline void count_sums(Record *record, Origin *origin, const Block *block, Py_ssize_t i) noexcept nogil:
    """Packet i to the sums, two of 32 bits in a word: as long as both summands have a top bit of 0, none runs over into its neighbour."""
    cdef uint64_t *sums = record.sums + 2 * block.swapped[i]
    cdef uint64_t *far
    cdef int kind
    if likely((sums[0] | sums[1] | block.packet[i] | block.content[i]) & TOP_BITS == 0):
        sums[0] += block.packet[i]
        sums[1] += block.content[i]
        return
    far = origin.sums + SUMS * block.swapped[i]
    for kind in range(SUMS):
        far[kind] += near_sum(record, block.swapped[i], kind)
    sums[0] = sums[1] = 0
    far[SUM_PACKETS] += 1
    far[SUM_WIRE] += block.packet[i] >> 32
    far[SUM_IP] += <uint32_t> block.content[i]
    far[SUM_PAYLOAD] += block.content[i] >> 32


cdef inline void keep_early(const Record *record, Early *early, uint32_t most, const Block *block, Py_ssize_t i) noexcept nogil:
    """Length and gap of packet i, if it is one of the first ones of its flow."""
    cdef uint32_t place = early.count
    cdef int32_t length = <int32_t> min(block.packet[i] >> 32, <uint64_t> 0x7FFFFFFF)  # no packet is longer, only what a record says
    if place >= most:
        return
    early.length[place] = length if block.swapped[i] == (record.marks & FROM_HIGH != 0) else -length
    early.gap_ns[place] = block.time_ns[i] - record.last_ns if place else 0
    early.count += 1


cdef inline bint is_another(const Record *record, const Origin *origin, const uint8_t *packet, const Block *block, Py_ssize_t i) noexcept nogil:
    """Whether packet i, a SYN without ACK, begins another connection than that of its flow."""
    cdef uint8_t way = block.swapped[i]
    if not origin.begun:
        return False  # it is the first packet
    if record.marks & CLOSED:
        return True
    if record.marks & (SYNS_SEEN << way):
        return origin.sequence[way] != sequence_of(packet, block, i)
    return (record.marks & SEEN) or ((record.tcp_flags[0] | record.tcp_flags[1]) & TCP_FIN)  # more than SYNs that crossed


cdef inline void keep_first(Origin *origin, const uint8_t *packet, uint32_t size, bint ethernet, const Block *block, Py_ssize_t i) noexcept nogil:
    """What packet i leaves, the first one of its direction."""
    cdef uint32_t l3 = block.l3[i], l4 = block.l4[i]
    cdef uint8_t way = block.swapped[i]
    if origin.begun == 0 and ethernet and size >= 14:
        memcpy(origin.macs, packet, 12)
        origin.has_macs = 1
    origin.begun |= <uint8_t> (1 << way)
    if l3 != NO_OFFSET and l3 + 2 <= size:
        origin.tos[way] = packet[l3 + 1] if packet[l3] >> 4 == 4 else <uint8_t> ((packet[l3] << 4) | (packet[l3 + 1] >> 4))
    if l4 != NO_OFFSET and l4 + 2 <= size and origin.is_icmp:
        origin.icmp_type[way], origin.icmp_code[way] = packet[l4], packet[l4 + 1]


cdef inline void count_rare(Record *record, Origin *origin, const uint8_t *packet, uint32_t size, bint ethernet, bint closes,
                            const Block *block, Py_ssize_t i) noexcept nogil:
    """What only the first packet of a direction, TCP's control packets, new flags and another TTL say. closes: TCP may close the flow."""
    cdef uint8_t way = block.swapped[i], flags = block.tcp_flags[i], seen = <uint8_t> (block.seen[i] << way)
    cdef uint8_t small = 0 if way == (record.marks & FROM_HIGH != 0) else 32  # what makes a letter a small one
    if not origin.begun & (1 << way):
        keep_first(origin, packet, size, ethernet, block, i)
    if flags & TCP_SYN:
        note(origin, (c'H' if flags & TCP_ACK else c'S') + small)
        if not flags & TCP_ACK and not record.marks & (SYNS_SEEN << way):
            record.marks |= <uint8_t> (SYNS_SEEN << way)
            origin.sequence[way] = sequence_of(packet, block, i)
    if seen & ~record.marks:
        record.marks |= seen
        note(origin, (c'A' if block.seen[i] == ACK_SEEN else c'D') + small)
    if flags & TCP_FIN:
        note(origin, c'F' + small)
    if flags & TCP_RST:
        note(origin, c'R' + small)
    if closes and (flags & TCP_RST or (flags & TCP_FIN and record.tcp_flags[1 - way] & TCP_FIN)):
        record.marks |= CLOSED
    record.tcp_flags[way] |= flags
    record.ttl_max[way] = max(record.ttl_max[way], block.ttl[i])
    record.ttl_min[way] = min(record.ttl_min[way], block.ttl[i])
