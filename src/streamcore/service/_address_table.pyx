"""Crypto-PAn in bulk: the cache of anonymised addresses, the blocks that AES encrypts, and what is read from the result.
The cipher itself is elsewhere.

Crypto-PAn (Xu, Fan, Ammar, Moon: Prefix-Preserving IP Address Anonymization, 2002): bit i of the result is bit i of the address, xor the
first bit of AES(the first i bits of the address, completed to 128 with the bits of a secret pad).
"""

import secrets

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from streamcore.core.tables cimport table_memory

FIRST_SLOTS = 1 << 12


cdef class AddressTable:
    """AddressTable(entries_max): address -> replacement. It holds at most entries_max addresses of each family; a full table
    is emptied.
    """

    def __init__(self, Py_ssize_t entries_max):
        if entries_max < FIRST_SLOTS:
            raise ValueError(f"an address table cannot have {entries_max} entries: use at least {FIRST_SLOTS}")
        self.entries_max = entries_max
        self.table.factor = secrets.randbits(64) | 1
        self.table.factor_low = secrets.randbits(64) | 1
        self.resize4(FIRST_SLOTS)
        self.resize6(FIRST_SLOTS)

    def __dealloc__(self):
        free(self.table.slots4)
        free(self.table.slots6)

    def set_zero(self, uint32_t zero4, uint64_t high, uint64_t low):
        """Set the replacements of 0.0.0.0 and ::, which the table cannot hold."""
        self.table.zero4 = zero4
        self.table.zero6_high = high
        self.table.zero6_low = low

    def learn4(self, const uint32_t[::1] addresses not None, const uint32_t[::1] values not None):
        """Add addresses that the table does not hold yet, each once."""
        cdef Py_ssize_t count = addresses.shape[0]
        cdef Py_ssize_t i
        if values.shape[0] != count:
            raise ValueError(f"{values.shape[0]} values for {count} addresses")
        if count > self.entries_max:
            raise ValueError(f"{count} addresses do not fit into a table of {self.entries_max}")
        if self.used4 + count > self.entries_max:
            memset(self.table.slots4, 0, (self.table.mask4 + 1) * sizeof(uint64_t))
            self.used4 = 0
        while 2 * <uint64_t> (self.used4 + count) > self.table.mask4:
            self.resize4(2 * (self.table.mask4 + 1))
        for i in range(count):
            put4(&self.table, (<uint64_t> addresses[i] << 32) | values[i])
        self.used4 += count

    def learn6(self, const uint64_t[:, ::1] addresses not None, const uint64_t[:, ::1] values not None):
        """As learn4: uint64[n, 2], high and low half in host order."""
        cdef Py_ssize_t count = addresses.shape[0]
        cdef Py_ssize_t i
        cdef Slot6 slot
        if values.shape[0] != count or addresses.shape[1] != 2 or values.shape[1] != 2:
            raise ValueError("addresses and values must be uint64[n, 2]")
        if count > self.entries_max:
            raise ValueError(f"{count} addresses do not fit into a table of {self.entries_max}")
        if self.used6 + count > self.entries_max:
            memset(self.table.slots6, 0, (self.table.mask6 + 1) * sizeof(Slot6))
            self.used6 = 0
        while 2 * <uint64_t> (self.used6 + count) > self.table.mask6:
            self.resize6(2 * (self.table.mask6 + 1))
        for i in range(count):
            slot.high, slot.low = addresses[i, 0], addresses[i, 1]
            slot.new_high, slot.new_low = values[i, 0], values[i, 1]
            put6(&self.table, &slot)
        self.used6 += count

    cdef int resize4(self, uint64_t slots) except -1:
        cdef uint64_t *old = self.table.slots4
        cdef uint64_t old_slots = self.table.mask4 + 1 if old != NULL else 0
        cdef uint64_t *new = <uint64_t *> table_memory(slots * sizeof(uint64_t))
        cdef uint64_t i
        if new == NULL:
            raise MemoryError(f"not enough memory for {slots} addresses")
        memset(new, 0, slots * sizeof(uint64_t))
        self.table.slots4 = new
        self.table.mask4 = slots - 1
        self.table.shift4 = 64 - (int(slots).bit_length() - 1)
        for i in range(old_slots):
            if old[i]:
                put4(&self.table, old[i])
        free(old)
        return 0

    cdef int resize6(self, uint64_t slots) except -1:
        cdef Slot6 *old = self.table.slots6
        cdef uint64_t old_slots = self.table.mask6 + 1 if old != NULL else 0
        cdef Slot6 *new = <Slot6 *> table_memory(slots * sizeof(Slot6))
        cdef uint64_t i
        if new == NULL:
            raise MemoryError(f"not enough memory for {slots} addresses")
        memset(new, 0, slots * sizeof(Slot6))
        self.table.slots6 = new
        self.table.mask6 = slots - 1
        self.table.shift6 = 64 - (int(slots).bit_length() - 1)
        for i in range(old_slots):
            if old[i].high or old[i].low:
                put6(&self.table, &old[i])
        free(old)
        return 0


cdef void put4(Table *table, uint64_t entry) noexcept nogil:
    cdef uint64_t at = slot4(table, <uint32_t> (entry >> 32))
    cdef uint64_t number = 0
    while table.slots4[probe4(table, at, number)] != 0:
        number += 1
    table.slots4[probe4(table, at, number)] = entry


cdef void put6(Table *table, const Slot6 *entry) noexcept nogil:
    cdef uint64_t at = slot6(table, entry.high, entry.low)
    while table.slots6[at].high or table.slots6[at].low:
        at = (at + 1) & table.mask6
    table.slots6[at] = entry[0]


cdef inline void store64(uint8_t *p, uint64_t value) noexcept nogil:
    cdef int i
    for i in range(8):
        p[i] = <uint8_t> (value >> (56 - 8 * i))


cdef inline uint64_t load64(const uint8_t *p) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(8):
        value = (value << 8) | p[i]
    return value


def prefix_blocks(const uint64_t[:, ::1] addresses not None, int bits, const uint8_t[::1] pad not None, uint8_t[::1] blocks not None):
    """Write what AES must encrypt: `bits` blocks of 16 bytes for each address, which is left-aligned in 128 bits. Block i holds
    the address's first i bits, then the pad.
    """
    cdef Py_ssize_t count = addresses.shape[0]
    cdef Py_ssize_t at, i
    cdef uint64_t pad_high, pad_low, mask_high, mask_low
    cdef uint8_t *block
    if not 1 <= bits <= 128 or pad.shape[0] != 16 or addresses.shape[1] != 2 or blocks.shape[0] != count * bits * 16:
        raise ValueError("prefix_blocks: the arrays have wrong shapes")
    if count == 0:
        return
    pad_high, pad_low = load64(&pad[0]), load64(&pad[8])
    block = &blocks[0]
    with nogil:
        for at in range(count):
            for i in range(bits):
                mask_high = 0 if i == 0 else ~<uint64_t> 0 if i >= 64 else ~(~<uint64_t> 0 >> i)
                mask_low = 0 if i <= 64 else ~(~<uint64_t> 0 >> (i - 64))
                store64(block, (addresses[at, 0] & mask_high) | (pad_high & ~mask_high))
                store64(block + 8, (addresses[at, 1] & mask_low) | (pad_low & ~mask_low))
                block += 16


def apply_first_bits(const uint64_t[:, ::1] addresses not None, int bits, const uint8_t[::1] encrypted not None,
                     uint64_t[:, ::1] values not None):
    """values: the addresses; flips bit i if the first bit of encrypted block i is set."""
    cdef Py_ssize_t count = addresses.shape[0]
    cdef Py_ssize_t at, i
    cdef uint64_t high, low, bit
    cdef const uint8_t *block
    if (not 1 <= bits <= 128 or encrypted.shape[0] != count * bits * 16 or addresses.shape[1] != 2
            or values.shape[0] != count or values.shape[1] != 2):
        raise ValueError("apply_first_bits: the arrays have wrong shapes")
    if count == 0:
        return
    block = &encrypted[0]
    with nogil:
        for at in range(count):
            high = low = 0
            for i in range(bits):
                bit = block[0] >> 7
                if i < 64:
                    high |= bit << (63 - i)
                else:
                    low |= bit << (127 - i)
                block += 16
            values[at, 0] = addresses[at, 0] ^ high
            values[at, 1] = addresses[at, 1] ^ low
