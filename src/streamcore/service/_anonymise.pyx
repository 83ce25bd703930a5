"""Rewriting the addresses of a segment's packets in place, from the table: the fast path, and the walk for every other
packet.

A packet with an address that the table lacks stays untouched and is deferred; the caller fills the table and comes
again.
"""

import numpy as np

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from streamcore.core.packets cimport prefetch
from streamcore.service._address_table cimport AddressTable, Table, find4, slot4
from streamcore.service._addresses cimport Rewrite, adjusted, adjusted_udp, delta32, load16, load32, store16, store32, rewrite_packet

cdef enum:
    BATCH = 32         # packets between asking memory for a table slot and reading it
    MISSING_MAX = 65536


cdef class Anonymiser:
    """Holds what a pass needs, so that a pass allocates nothing."""

    cdef AddressTable table
    cdef object missing4
    cdef object missing6
    cdef readonly uint64_t addresses   # rewritten so far
    cdef readonly uint64_t not_reached  # packets so far that are of no kind that the walk understands

    def __init__(self, AddressTable table not None):
        if table.entries_max < 4 * MISSING_MAX:
            raise ValueError(f"the table must hold {4 * MISSING_MAX} addresses, or passes would never end")
        self.table = table
        self.missing4 = np.empty(MISSING_MAX, np.uint32)
        self.missing6 = np.empty((MISSING_MAX, 2), np.uint64)

    def rewrite(self, uint8_t[::1] data not None, const uint32_t[::1] offset not None, const uint32_t[::1] captured_length not None,
                const uint16_t[::1] link_type not None, uint32_t[::1] todo not None):
        """Rewrite the packets numbered in todo; return (deferred, missing4, missing6).

        todo: uint32, in and out: its first `deferred` are then those that wait for the missing addresses, uint32[m]
        and uint64[m, 2] with repeats. Raises ValueError for a packet outside data. The GIL is released. About 20 ns
        a packet where everything is known (bench_service.py).
        """
        cdef Py_ssize_t count = offset.shape[0]
        cdef Py_ssize_t i
        cdef Py_ssize_t deferred = 0
        cdef Rewrite rewrite
        cdef uint32_t[::1] missing4 = self.missing4
        cdef uint64_t[:, ::1] missing6 = self.missing6
        if captured_length.shape[0] != count or link_type.shape[0] != count:
            raise ValueError(f"{count} offsets, {captured_length.shape[0]} lengths, {link_type.shape[0]} link types")
        for i in range(todo.shape[0]):
            if todo[i] >= count or <uint64_t> offset[todo[i]] + captured_length[todo[i]] > <uint64_t> data.shape[0]:
                raise ValueError(f"packet {todo[i]} lies outside the data")
        if todo.shape[0] == 0 or data.shape[0] == 0:
            return 0, self.missing4[:0], self.missing6[:0]
        rewrite.table = &self.table.table
        rewrite.missing4 = &missing4[0]
        rewrite.missing6 = &missing6[0, 0]
        rewrite.missing4_count = rewrite.missing6_count = 0
        rewrite.missing_max = MISSING_MAX
        rewrite.changed = 0
        with nogil:
            deferred = rewrite_all(&rewrite, &data[0], &offset[0], &captured_length[0], &link_type[0], &todo[0], todo.shape[0],
                                   &self.not_reached)
        self.addresses += rewrite.changed
        return deferred, self.missing4[:rewrite.missing4_count], self.missing6[:rewrite.missing6_count]


cdef inline bint is_plain(const uint8_t *p, uint32_t n, uint16_t link_type) noexcept nogil:
    """Ethernet, IPv4 without options, no fragment but perhaps a first one, TCP or UDP with its checksum captured."""
    if n < 42 or link_type != 1 or load16(p + 12) != 0x0800 or p[14] != 0x45 or load16(p + 20) & 0x1FFF:
        return False
    # A total length that leaves no room for the checksum is left to the rewrite.
    return (p[23] == 6 and n >= 52 and load16(p + 16) >= 38) or (p[23] == 17 and load16(p + 16) >= 28)


cdef Py_ssize_t rewrite_all(Rewrite *rewrite, uint8_t *data, const uint32_t *offset, const uint32_t *length, const uint16_t *link_type,
                            uint32_t *todo, Py_ssize_t count, uint64_t *not_reached) noexcept nogil:
    cdef const Table *table = rewrite.table
    cdef bint[BATCH] plain
    cdef Py_ssize_t stop, i
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t deferred = 0
    cdef uint8_t *p
    cdef uint32_t row
    while start < count:
        stop = min(start + BATCH, count)
        for i in range(start, stop):
            row = todo[i]
            p = data + offset[row]
            plain[i - start] = is_plain(p, length[row], link_type[row])
            if plain[i - start]:
                prefetch(&table.slots4[slot4(table, load32(p + 26))])
                prefetch(&table.slots4[slot4(table, load32(p + 30))])
        for i in range(start, stop):
            row = todo[i]
            p = data + offset[row]
            if not (rewrite_plain(rewrite, p) if plain[i - start] else rewrite_any(rewrite, p, length[row], link_type[row], not_reached)):
                todo[deferred] = row  # never ahead of i
                deferred += 1
        start = stop
    return deferred


cdef inline bint rewrite_plain(Rewrite *rewrite, uint8_t *p) noexcept nogil:
    """False: an address is missing, and nothing was changed."""
    cdef uint32_t source = load32(p + 26)
    cdef uint32_t target = load32(p + 30)
    cdef uint32_t new_source, new_target
    cdef uint64_t delta
    cdef bint has_source = find4(rewrite.table, source, &new_source)
    cdef bint has_target = find4(rewrite.table, target, &new_target)
    if not (has_source and has_target):
        if not has_source and rewrite.missing4_count < rewrite.missing_max:
            rewrite.missing4[rewrite.missing4_count] = source
            rewrite.missing4_count += 1
        if not has_target and rewrite.missing4_count < rewrite.missing_max:
            rewrite.missing4[rewrite.missing4_count] = target
            rewrite.missing4_count += 1
        return False
    store32(p + 26, new_source)
    store32(p + 30, new_target)
    delta = delta32(source, new_source) + delta32(target, new_target)
    store16(p + 24, adjusted(load16(p + 24), delta))
    if p[23] == 6:
        store16(p + 50, adjusted(load16(p + 50), delta))
    else:
        store16(p + 40, adjusted_udp(load16(p + 40), delta))
    rewrite.changed += 2
    return True


cdef bint rewrite_any(Rewrite *rewrite, uint8_t *p, uint32_t n, uint16_t link_type, uint64_t *not_reached) noexcept nogil:
    if not rewrite_packet(rewrite, p, n, link_type):
        return False
    if not rewrite.known:
        not_reached[0] += 1
    return True
