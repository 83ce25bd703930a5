"""Flow rows in others' formats: a plan of pieces (a literal, then a value of the row) is written for each row, without an object for any of them.

text.py and ipfix.py make plans; which formats there are is writers.py's. Nothing here knows what a format is.
"""

import numpy as np

cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, strlen
from libc.time cimport gmtime_r, time_t, tm

from streamcore.parse._flow_rows cimport FlowRow
from streamcore.tools._write cimport write_hex_bytes, write_ip, write_mac, write_number, write_padded, write_signed
from streamcore.tools.flows._community_id cimport COMMUNITY_ID_LENGTH, community_id

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t sc_swap64(uint64_t value) { return __builtin_bswap64(value); }
    """
    uint64_t swap64 "sc_swap64" (uint64_t value) noexcept nogil

cnp.import_array()

cdef enum Kind:
    KIND_END = 0             # nothing: the literal alone
    KIND_UNSIGNED            # a number of `width` bytes
    KIND_SIGNED              # of 8 bytes
    KIND_ADDRESS             # 16 bytes; `other`: where the IP version stands, 0: a MAC address or nothing
    KIND_MAC                 # 6 bytes; nothing without has_macs
    KIND_VLANS
    KIND_NAME                # of a number of one byte
    KIND_LETTERS             # 16 bytes, to the first 0
    KIND_ICMP                # a number of one byte; nothing unless the flow is ICMP
    KIND_SECONDS             # ns as seconds with 6 decimals
    KIND_DURATION            # last_ns - first_ns as seconds with 6 decimals; nothing if they are the same
    KIND_WHOLE_SECONDS       # the same without decimals
    KIND_TIME                # ns as 2026-11-27T20:00:00.123456+0000
    KIND_COMMUNITY_ID        # nothing without IP
    KIND_LENGTHS             # first_lengths, with commas between them; `other`: how many there is room for
    KIND_GAPS                # first_gaps_ns
    KIND_HEX                 # a number of one byte, or-ed with the one at `other`, in two hexadecimal digits
    KIND_PORT                # a port; of ICMP the number of one byte at `other`
    KIND_EVE_VLANS           # ,"vlan":[5,6]; nothing without VLANs
    KIND_EVE_FLAGS           # ,"syn":true,"ack":true: the names of TCP flags in two numbers of one byte, or-ed
    # Binary ones, of so many bytes in every row:
    KIND_BIG                 # a number of `width` bytes, in network order
    KIND_BYTES               # `width` bytes as they are
    KIND_MILLISECONDS        # ns as milliseconds, 8 bytes in network order
    KIND_NTP                 # ns as 32 bits of seconds since 1900 and 32 of their fraction, rounded up, so that it names the nanosecond
    KIND_ICMP_PAIR           # type and code of ICMP, or two zeros

KINDS = {
    "end": KIND_END, "unsigned": KIND_UNSIGNED, "signed": KIND_SIGNED, "address": KIND_ADDRESS, "mac": KIND_MAC, "vlans": KIND_VLANS,
    "name": KIND_NAME, "letters": KIND_LETTERS, "icmp": KIND_ICMP, "seconds": KIND_SECONDS, "duration": KIND_DURATION,
    "whole_seconds": KIND_WHOLE_SECONDS, "time": KIND_TIME, "community_id": KIND_COMMUNITY_ID, "lengths": KIND_LENGTHS, "gaps": KIND_GAPS,
    "hex": KIND_HEX, "port": KIND_PORT, "eve_vlans": KIND_EVE_VLANS, "eve_flags": KIND_EVE_FLAGS,
    "big": KIND_BIG, "bytes": KIND_BYTES, "milliseconds": KIND_MILLISECONDS, "ntp": KIND_NTP, "icmp_pair": KIND_ICMP_PAIR,
}

cdef enum:
    VALUE_MAX = 96           # bytes of any value but names and lists
    LIST_ITEM_MAX = 21
    LITERAL_PADDING = 16     # literals are copied so many bytes at a time
    SECONDS_TO_1970 = 2_208_988_800  # since 1900

cdef struct Piece:
    int kind
    uint32_t offset
    uint32_t other
    uint32_t width
    int only                 # IP protocol of the flows that it is written for; -1: of all
    const char *literal
    uint32_t literal_length
    const char *empty        # what is written for no value
    uint32_t empty_length
    const char **names       # 256
    uint32_t value_max


cdef class Plan:
    """Plan(pieces): each (literal, kind, offset, other, width, empty, names, only); texts are bytes, names a list of 256 or None."""

    cdef Piece *pieces
    cdef int count
    cdef Py_ssize_t row_max
    cdef list held           # the texts that the pieces point into, literals padded

    def __init__(self, pieces):
        cdef Piece *piece
        cdef int place
        self.held = [(literal, literal + bytes(LITERAL_PADDING), *rest) for literal, *rest in pieces]
        self.pieces = <Piece *> calloc(max(1, len(self.held)), sizeof(Piece))
        if self.pieces == NULL:
            raise MemoryError
        for literal, padded, kind, offset, other, width, empty, names, only in self.held:
            piece = self.pieces + self.count
            piece.kind, piece.offset, piece.other, piece.width, piece.only = KINDS[kind], offset, other, width, only
            piece.literal, piece.literal_length = <bytes?> padded, len(literal)
            piece.empty, piece.empty_length = empty, len(empty)
            piece.value_max = VALUE_MAX
            if names is not None:
                piece.names = <const char **> calloc(256, sizeof(char *))
                if piece.names == NULL:
                    raise MemoryError
                for place in range(256):
                    piece.names[place] = <bytes?> names[place]
                piece.value_max = max(map(len, names))
            if piece.kind == KIND_LENGTHS or piece.kind == KIND_GAPS:
                piece.value_max = LIST_ITEM_MAX * max(1, other)
            self.count += 1
            self.row_max += piece.literal_length + LITERAL_PADDING + max(piece.value_max, piece.empty_length)

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            free(self.pieces[i].names)
        free(self.pieces)

    def text(self, cnp.ndarray rows not None, int version=-1):
        """memoryview: the text of rows (a dtype of flow_dtype), one after the other; version: only of those with this IP version."""
        cdef cnp.ndarray into = np.empty(len(rows) * self.row_max, np.uint8)
        cdef const uint8_t *row = <const uint8_t *> cnp.PyArray_DATA(rows)
        cdef uint8_t *start = <uint8_t *> cnp.PyArray_DATA(into)
        cdef uint8_t *at = start
        cdef Py_ssize_t i, count = len(rows), stride = rows.dtype.itemsize
        assert rows.flags.c_contiguous and stride >= sizeof(FlowRow)
        with nogil:
            for i in range(count):
                if version < 0 or (<const FlowRow *> (row + i * stride)).ip_version == version:
                    at = write_row_text(self.pieces, self.count, row + i * stride, at)
        return memoryview(into)[:at - start]


cdef uint8_t *write_row_text(const Piece *pieces, int count, const uint8_t *row, uint8_t *at) noexcept nogil:
    """Writes at most Plan.row_max bytes; returns where the text ends."""
    cdef const FlowRow *flow = <const FlowRow *> row
    cdef const Piece *piece
    cdef uint8_t *begin
    cdef uint32_t done
    cdef int i
    for i in range(count):
        piece = pieces + i
        if piece.only >= 0 and piece.only != flow.protocol:
            continue
        done = 0
        while done < piece.literal_length:  # up to LITERAL_PADDING bytes more than there are, which are overwritten
            memcpy(at + done, piece.literal + done, LITERAL_PADDING)
            done += LITERAL_PADDING
        at += piece.literal_length
        if piece.kind == KIND_END:
            continue
        begin = at
        at = write_value(piece, row, at)
        if at == begin:
            memcpy(at, piece.empty, piece.empty_length)
            at += piece.empty_length
    return at


cdef uint8_t *write_value(const Piece *piece, const uint8_t *row, uint8_t *at) noexcept nogil:
    cdef const FlowRow *flow = <const FlowRow *> row
    cdef const uint8_t *value = row + piece.offset
    cdef uint32_t i
    cdef int kind = piece.kind
    if kind >= KIND_BIG:
        return write_binary(piece, flow, value, at)
    if kind == KIND_UNSIGNED:
        return write_number(number_at(value, piece.width), at)
    elif kind == KIND_SIGNED:
        return write_signed(<int64_t> number_at(value, 8), at)
    elif kind == KIND_ADDRESS:
        return write_address(value, row[piece.other], at)
    elif kind == KIND_MAC:
        return write_mac(value, at) if flow.has_macs else at
    elif kind == KIND_NAME:
        i = <uint32_t> strlen(piece.names[value[0]])
        memcpy(at, piece.names[value[0]], i)
        return at + i
    elif kind == KIND_LETTERS:
        for i in range(16):
            if value[i] == 0:
                break
            at[0] = value[i]
            at += 1
        return at
    elif kind == KIND_ICMP:
        return write_number(value[0], at) if flow.ip_version and (flow.protocol == 1 or flow.protocol == 58) else at
    elif kind == KIND_HEX:
        return write_hex_bytes(value[0] | row[piece.other] if piece.other else value[0], 1, at)
    elif kind == KIND_PORT:
        return write_number(row[piece.other] if flow.protocol == 1 or flow.protocol == 58 else number_at(value, 2), at)
    elif kind == KIND_VLANS:
        return write_vlans(flow, at)
    elif kind == KIND_EVE_VLANS:
        if flow.vlan_count == 0:
            return at
        memcpy(at, b',"vlan":[', 9)
        at = write_vlans(flow, at + 9)
        at[0] = c']'
        return at + 1
    elif kind == KIND_EVE_FLAGS:
        return write_flag_names(value[0] | row[piece.other], at)
    elif kind == KIND_SECONDS:
        return write_seconds(<int64_t> number_at(value, 8), at)
    elif kind == KIND_DURATION:
        if flow.last_ns == flow.first_ns:
            return at
        return write_seconds(<int64_t> (<uint64_t> flow.last_ns - <uint64_t> flow.first_ns), at)
    elif kind == KIND_WHOLE_SECONDS:
        return write_number((<uint64_t> flow.last_ns - <uint64_t> flow.first_ns) // 1_000_000_000, at)
    elif kind == KIND_TIME:
        return write_time(<int64_t> number_at(value, 8), at)
    elif kind == KIND_COMMUNITY_ID:
        if not flow.ip_version:
            return at
        if flow.protocol == 1 or flow.protocol == 58:
            community_id(flow.source_address, flow.target_address, flow.ip_version, flow.protocol, flow.icmp_type, flow.icmp_code, at)
        else:
            community_id(flow.source_address, flow.target_address, flow.ip_version, flow.protocol, flow.source_port, flow.target_port, at)
        return at + COMMUNITY_ID_LENGTH
    for i in range(min(<uint32_t> number_at(row + sizeof(FlowRow), 4), piece.other)):
        if i:
            at[0] = c','
            at += 1
        if kind == KIND_LENGTHS:
            at = write_signed(<int32_t> number_at(value + 4 * i, 4), at)
        else:
            at = write_signed(<int64_t> number_at(value + 8 * i, 8), at)
    return at


cdef inline uint8_t *write_binary(const Piece *piece, const FlowRow *flow, const uint8_t *value, uint8_t *at) noexcept nogil:
    cdef int kind = piece.kind
    cdef uint64_t ns
    if kind == KIND_BIG:
        return write_big(number_at(value, piece.width), piece.width, at)
    elif kind == KIND_BYTES:
        memcpy(at, value, 16)  # there are as many bytes behind every field that is copied so, and room for them
        return at + piece.width
    elif kind == KIND_ICMP_PAIR:
        at[0] = at[1] = 0
        if flow.protocol == 1 or flow.protocol == 58:
            at[0], at[1] = flow.icmp_type, flow.icmp_code
        return at + 2
    ns = number_at(value, 8)
    if kind == KIND_MILLISECONDS:
        return write_big(ns // 1_000_000, 8, at)
    at = write_big(ns // 1_000_000_000 + SECONDS_TO_1970, 4, at)
    return write_big(((ns % 1_000_000_000 << 32) + 999_999_999) // 1_000_000_000, 4, at)


cdef inline uint8_t *write_big(uint64_t value, uint32_t width, uint8_t *at) noexcept nogil:
    """The last `width` bytes of a number, 1 to 8, in network order; writes 8."""
    value = swap64(value << (8 * (8 - width)))
    memcpy(at, &value, 8)
    return at + width


cdef inline uint64_t number_at(const uint8_t *at, uint32_t width) noexcept nogil:
    """A number of 1, 2, 4 or 8 bytes in the machine's order, which is little-endian."""
    cdef uint64_t value = 0
    if width == 1:
        return at[0]
    elif width == 2:
        memcpy(&value, at, 2)
    elif width == 4:
        memcpy(&value, at, 4)
    else:
        memcpy(&value, at, 8)
    return value


cdef uint8_t *write_vlans(const FlowRow *flow, uint8_t *at) noexcept nogil:
    cdef uint32_t i
    for i in range(min(<uint32_t> flow.vlan_count, <uint32_t> 4)):
        if i:
            at[0] = c','
            at += 1
        at = write_number(flow.vlan[i], at)
    return at


cdef uint8_t *write_flag_names(uint8_t flags, uint8_t *at) noexcept nogil:
    cdef const char *names = b"finsynrstpshackurgececwr"  # from the lowest bit
    cdef int i
    for i in range(8):
        if flags >> i & 1:
            at[0], at[1] = c',', c'"'
            memcpy(at + 2, names + 3 * i, 3)
            memcpy(at + 5, b'":true', 6)
            at += 11
    return at


cdef inline uint8_t *write_seconds(int64_t ns, uint8_t *at) noexcept nogil:
    cdef uint64_t size = <uint64_t> ns
    if ns < 0:
        at[0] = c'-'
        at += 1
        size = -<uint64_t> ns
    at = write_number(size // 1_000_000_000, at)
    at[0] = c'.'
    return write_padded(size % 1_000_000_000 // 1000, 6, at + 1)


cdef uint8_t *write_time(int64_t ns, uint8_t *at) noexcept nogil:
    cdef int64_t rest = ns % 1_000_000_000
    cdef time_t seconds = ns // 1_000_000_000
    cdef tm parts
    if rest < 0:  # before 1970: division rounds towards 0
        rest += 1_000_000_000
        seconds -= 1
    gmtime_r(&seconds, &parts)
    at = write_padded(parts.tm_year + 1900, 4, at)
    at[0] = c'-'
    at = write_padded(parts.tm_mon + 1, 2, at + 1)
    at[0] = c'-'
    at = write_padded(parts.tm_mday, 2, at + 1)
    at[0] = c'T'
    at = write_padded(parts.tm_hour, 2, at + 1)
    at[0] = c':'
    at = write_padded(parts.tm_min, 2, at + 1)
    at[0] = c':'
    at = write_padded(parts.tm_sec, 2, at + 1)
    at[0] = c'.'
    at = write_padded(rest // 1000, 6, at + 1)
    memcpy(at, b"+0000", 5)
    return at + 5


cdef uint8_t *write_address(const uint8_t *value, uint8_t version, uint8_t *at) noexcept nogil:
    """IPv4 stands in the last four bytes. Without IP: a MAC address in the first six, or nothing."""
    cdef int i
    if version:
        return write_ip(value, version, at)
    for i in range(6):
        if value[i]:
            return write_mac(value, at)
    return at
