# The cache of anonymised addresses, seen from C: open addressing, at most half full, so every search ends.
from libc.stdint cimport uint32_t, uint64_t

cdef struct Slot6:
    uint64_t high, low            # the address in host order; both 0: empty
    uint64_t new_high, new_low    # its replacement

cdef struct Table:
    uint64_t *slots4              # (address << 32) | replacement; 0: empty
    Slot6 *slots6
    uint64_t mask4, mask6         # number of slots - 1; the number is a power of two
    int shift4, shift6            # 64 - bits of a slot number
    uint64_t factor, factor_low   # odd and random, so nobody can choose addresses that collide
    uint32_t zero4                # replacement of 0.0.0.0, whose slot would look empty
    uint64_t zero6_high, zero6_low


cdef class AddressTable:
    cdef Table table
    cdef readonly Py_ssize_t entries_max  # of each family
    cdef readonly Py_ssize_t used4
    cdef readonly Py_ssize_t used6
    cdef int resize4(self, uint64_t slots) except -1
    cdef int resize6(self, uint64_t slots) except -1


cdef inline uint64_t slot4(const Table *table, uint32_t address) noexcept nogil:
    return (address * table.factor) >> table.shift4


cdef inline uint64_t probe4(const Table *table, uint64_t at, uint64_t number) noexcept nogil:
    """Where an address may stand whose slot is `at`: number 0 to mask4 are all slots, each once, first the 8 of its line of the cache."""
    return ((at + (number & ~<uint64_t> 7)) & table.mask4) ^ (number & 7)


cdef inline uint64_t slot6(const Table *table, uint64_t high, uint64_t low) noexcept nogil:
    cdef uint64_t mixed = (high ^ (high >> 29)) * table.factor + low
    return ((mixed ^ (mixed >> 32)) * table.factor_low) >> table.shift6


cdef inline bint find4(const Table *table, uint32_t address, uint32_t *value) noexcept nogil:
    """The first two slots are looked at without a branch between them: which of them it is nobody can foresee. Both are on the line of the cache
    that was asked for, as are the six after them."""
    cdef uint64_t at = slot4(table, address)
    cdef uint64_t slot = table.slots4[at]
    cdef uint64_t next = table.slots4[at ^ 1]
    cdef uint64_t here = <uint64_t> 0 - <uint64_t> (<uint32_t> (slot >> 32) == address)
    if address == 0:
        value[0] = table.zero4
        return True
    next = (slot & here) | (next & ~here)
    value[0] = <uint32_t> next
    return <uint32_t> (next >> 32) == address or (slot != 0 and search4(table, address, at, value))


cdef inline bint search4(const Table *table, uint32_t address, uint64_t at, uint32_t *value) noexcept nogil:
    """find4 in all slots. It ends, because the table is half full at most."""
    cdef uint64_t number = 0
    cdef uint64_t slot = table.slots4[at]
    while slot != 0:
        if <uint32_t> (slot >> 32) == address:
            value[0] = <uint32_t> slot
            return True
        number += 1
        slot = table.slots4[probe4(table, at, number)]
    return False


cdef inline bint find6(const Table *table, uint64_t high, uint64_t low, uint64_t *new_high, uint64_t *new_low) noexcept nogil:
    cdef uint64_t at = slot6(table, high, low)
    cdef const Slot6 *slot
    if high == 0 and low == 0:
        new_high[0] = table.zero6_high
        new_low[0] = table.zero6_low
        return True
    while True:
        slot = &table.slots6[at]
        if slot.high == high and slot.low == low:
            new_high[0] = slot.new_high
            new_low[0] = slot.new_low
            return True
        if slot.high == 0 and slot.low == 0:
            return False
        at = (at + 1) & table.mask6
