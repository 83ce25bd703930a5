"""Rewriting the addresses of a segment's packets in place, from the table: the fast path, and the walk for every other
packet.

A packet with an address that the table lacks stays untouched and is deferred; the caller fills the table and comes
again.
"""

import numpy as np

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from streamcore.core.packets cimport prefetch
from streamcore.service._address_table cimport AddressTable, Table, find4, slot4
from streamcore.service._address_walk cimport Walk, adjusted, adjusted_udp, delta32, load16, load32, store16, store32, walk_packet

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
        cdef Walk walk
        cdef uint32_t[::1] missing4 = self.missing4
        cdef uint64_t[:, ::1] missing6 = self.missing6
        if captured_length.shape[0] != count or link_type.shape[0] != count:
            raise ValueError(f"{count} offsets, {captured_length.shape[0]} lengths, {link_type.shape[0]} link types")
        for i in range(todo.shape[0]):
            if todo[i] >= count or <uint64_t> offset[todo[i]] + captured_length[todo[i]] > <uint64_t> data.shape[0]:
                raise ValueError(f"packet {todo[i]} lies outside the data")
        if todo.shape[0] == 0 or data.shape[0] == 0:
            return 0, self.missing4[:0], self.missing6[:0]
        walk.table = &self.table.table
        walk.missing4 = &missing4[0]
        walk.missing6 = &missing6[0, 0]
        walk.missing4_count = walk.missing6_count = 0
        walk.missing_max = MISSING_MAX
        walk.changed = 0
        with nogil:
            deferred = rewrite_all(&walk, &data[0], &offset[0], &captured_length[0], &link_type[0], &todo[0], todo.shape[0],
                                   &self.not_reached)
        self.addresses += walk.changed
        return deferred, self.missing4[:walk.missing4_count], self.missing6[:walk.missing6_count]


cdef inline bint is_plain(const uint8_t *p, uint32_t n, uint16_t link_type) noexcept nogil:
    """Ethernet, IPv4 without options, no fragment but perhaps a first one, TCP or UDP with its checksum captured."""
    if n < 42 or link_type != 1 or load16(p + 12) != 0x0800 or p[14] != 0x45 or load16(p + 20) & 0x1FFF:
        return False
    # A total length that leaves no room for the checksum is left to the walk.
    return (p[23] == 6 and n >= 52 and load16(p + 16) >= 38) or (p[23] == 17 and load16(p + 16) >= 28)


cdef Py_ssize_t rewrite_all(Walk *walk, uint8_t *data, const uint32_t *offset, const uint32_t *length, const uint16_t *link_type,
                            uint32_t *todo, Py_ssize_t count, uint64_t *not_reached) noexcept nogil:
    cdef const Table *table = walk.table
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
            if not (rewrite_plain(walk, p) if plain[i - start] else rewrite_any(walk, p, length[row], link_type[row], not_reached)):
                todo[deferred] = row  # never ahead of i
                deferred += 1
        start = stop
    return deferred


cdef inline bint rewrite_plain(Walk *walk, uint8_t *p) noexcept nogil:
    """False: an address is missing, and nothing was changed."""
    cdef uint32_t source = load32(p + 26)
    cdef uint32_t target = load32(p + 30)
    cdef uint32_t new_source, new_target
    cdef uint64_t delta
    cdef bint has_source = find4(walk.table, source, &new_source)
    cdef bint has_target = find4(walk.table, target, &new_target)
    if not (has_source and has_target):
        if not has_source and walk.missing4_count < walk.missing_max:
            walk.missing4[walk.missing4_count] = source
            walk.missing4_count += 1
        if not has_target and walk.missing4_count < walk.missing_max:
            walk.missing4[walk.missing4_count] = target
            walk.missing4_count += 1
        return False
    store32(p + 26, new_source)
    store32(p + 30, new_target)
    delta = delta32(source, new_source) + delta32(target, new_target)
    store16(p + 24, adjusted(load16(p + 24), delta))
    if p[23] == 6:
        store16(p + 50, adjusted(load16(p + 50), delta))
    else:
        store16(p + 40, adjusted_udp(load16(p + 40), delta))
    walk.changed += 2
    return True


cdef bint rewrite_any(Walk *walk, uint8_t *p, uint32_t n, uint16_t link_type, uint64_t *not_reached) noexcept nogil:
    walk.rewriting = False
    walk_packet(walk, p, n, link_type)
    if walk.missing:
        return False
    if not walk.known:
        not_reached[0] += 1
        return True
    walk.rewriting = True
    walk_packet(walk, p, n, link_type)
    return True
