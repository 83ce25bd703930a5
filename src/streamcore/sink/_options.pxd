# Options of pcapng packet blocks: counted, copied, turned into little-endian. _encode.pyx writes the blocks.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from streamcore.core.packets cimport RECORD_SPB, Columns, record_size, record_start, swap32

cdef enum:
    EPB_BYTES = 32         # an enhanced packet block without packet and options
    OPTION_FLAGS = 2
    OPTION_DROPS = 4
    OPTION_PACKET_ID = 5
    OPTION_QUEUE = 6


cdef inline uint32_t load32(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline void store32(uint8_t *at, uint32_t value) noexcept nogil:
    memcpy(at, &value, 4)


cdef inline uint32_t padded(uint32_t size) noexcept nogil:
    return (size + 3) & ~<uint32_t> 3


cdef inline bint more_than_packet(const Columns *c, uint32_t row, const uint8_t *packet) noexcept nogil:
    """Whether an enhanced or simple packet block has options, or anything in its padding."""
    cdef uint32_t captured = c.captured_length[row]
    cdef uint32_t i
    if record_size(c, row) != (16 if c.record[row] == RECORD_SPB else EPB_BYTES) + padded(captured):
        return True
    for i in range(captured, padded(captured)):
        if packet[i]:
            return True
    return False


cdef inline uint32_t copy_options(uint8_t *target, const uint8_t *options, uint32_t size, bint swapped, uint64_t *removed) noexcept nogil:
    """Copies a packet block's options up to their end, or to the first that does not fit, as little-endian. Returns the
    bytes written. removed: if not NULL, only numbers are copied, and the others counted."""
    cdef uint32_t at = 0, put = 0, value_bytes, code
    cdef uint32_t word
    while at + 4 <= size:
        word = load32(options + at)
        if swapped:
            word = swap32(word)
            code = word >> 16
            value_bytes = word & 0xFFFF
        else:
            code = word & 0xFFFF
            value_bytes = word >> 16
        if code == 0 or padded(value_bytes) > size - at - 4:
            break
        if removed != NULL and not is_number(code, value_bytes):
            removed[0] += 1
            at += 4 + padded(value_bytes)
            continue
        store32(target + put, code | value_bytes << 16)
        memcpy(target + put + 4, options + at + 4, padded(value_bytes))
        if swapped:
            turn_value(target + put + 4, code, value_bytes)
        at += 4 + padded(value_bytes)
        put += 4 + padded(value_bytes)
    return put


cdef inline uint64_t options_of(const Columns *c, uint32_t row) noexcept nogil:
    """The number of options of an enhanced or obsolete packet block."""
    cdef uint32_t at = 28 + padded(c.captured_length[row]), end = record_size(c, row) - 4, word
    cdef const uint8_t *record = c.data + record_start(c, row)
    cdef uint64_t count = 0
    while at + 4 <= end:
        word = load32(record + at)
        if c.record[row] & 1:
            word = swap32(word)
            word = word >> 16 | word << 16
        if word & 0xFFFF == 0 or padded(word >> 16) > end - at - 4:
            break
        count += 1
        at += 4 + padded(word >> 16)
    return count


cdef inline bint is_number(uint32_t code, uint32_t value_bytes) noexcept nogil:
    if code == OPTION_FLAGS or code == OPTION_QUEUE:
        return value_bytes == 4
    return (code == OPTION_DROPS or code == OPTION_PACKET_ID) and value_bytes == 8


cdef inline void turn_value(uint8_t *value, uint32_t code, uint32_t size) noexcept nogil:
    """Byte-swaps the numbers in a packet block's options: flags and queue (32 bits), drop count and packet id (64
    bits), the enterprise number of custom options."""
    cdef uint32_t low, high
    if (code == OPTION_DROPS or code == OPTION_PACKET_ID) and size == 8:
        low = load32(value)
        high = load32(value + 4)
        store32(value, swap32(high))
        store32(value + 4, swap32(low))
    elif ((code == OPTION_FLAGS or code == OPTION_QUEUE) and size == 4) or (
            (code == 2988 or code == 2989 or code == 19372 or code == 19373) and size >= 4):
        store32(value, swap32(load32(value)))
