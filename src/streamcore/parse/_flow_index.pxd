# The index of the flow table: from a flow's hash to its record, by open addressing with linear probing; and memory for tables. All of it is inline.
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from streamcore.core.tables cimport table_memory
from streamcore.parse._flow_block cimport NO_RECORD
from streamcore.parse._flow_rows cimport Origin

cdef struct Entry:
    uint32_t tag             # the upper half of the hash; the lower half is the entry's preferred place
    uint32_t record          # its number + 1; 0: free

cdef struct Index:
    Entry *entries           # at least twice as many as there is room for records: it is never full
    uint32_t mask            # their number - 1


cdef inline void *grown_table(void *old, size_t used, size_t size) noexcept nogil:
    """A table of `size` bytes with the first `used` ones of the old one, which is freed. NULL: no memory, and the old one stays."""
    cdef void *table = table_memory(size)
    if table != NULL and old != NULL:
        memcpy(table, old, used)
        free(old)
    return table


cdef inline const Entry *entry_near(const Index *index, uint64_t hash) noexcept nogil:
    return index.entries + (hash & index.mask)


cdef inline uint32_t proposed(const Index *index, uint64_t hash) noexcept nogil:
    """The first record whose hash is this one, or NO_RECORD."""
    cdef uint32_t at = <uint32_t> hash & index.mask, tag = <uint32_t> (hash >> 32)
    while index.entries[at].record:
        if index.entries[at].tag == tag:
            return index.entries[at].record - 1
        at = (at + 1) & index.mask
    return NO_RECORD


cdef inline void insert(Index *index, uint64_t hash, uint32_t record) noexcept nogil:
    cdef uint32_t at = <uint32_t> hash & index.mask
    while index.entries[at].record:
        at = (at + 1) & index.mask
    index.entries[at].tag = <uint32_t> (hash >> 32)
    index.entries[at].record = record + 1


cdef inline uint32_t entry_of(const Index *index, const Origin *origins, uint32_t record) noexcept nogil:
    """Where a record's entry stands. Every record has one."""
    cdef uint32_t at = origins[record].hash & index.mask
    while index.entries[at].record != record + 1:
        at = (at + 1) & index.mask
    return at


cdef inline void remove(Index *index, const Origin *origins, uint32_t hole) noexcept nogil:
    """Free an entry; entries behind it that were pushed past it move up (Knuth, volume 3, 6.4, algorithm R)."""
    cdef uint32_t at = hole
    while True:
        at = (at + 1) & index.mask
        if index.entries[at].record == 0:
            break
        if ((at - origins[index.entries[at].record - 1].hash) & index.mask) >= ((at - hole) & index.mask):
            index.entries[hole] = index.entries[at]
            hole = at
    index.entries[hole].record = 0


cdef inline int grow_index(Index *index, const Origin *origins, uint32_t room) noexcept nogil:
    """Make it large enough for so many records. Returns -1 where there is no memory."""
    cdef uint32_t count = 2, i, at
    cdef Entry *entries
    while count < 2 * room:
        count *= 2
    entries = <Entry *> table_memory(count * sizeof(Entry))
    if entries == NULL:
        return -1
    memset(entries, 0, count * sizeof(Entry))
    if index.entries != NULL:
        for i in range(index.mask + 1):
            if index.entries[i].record:
                at = origins[index.entries[i].record - 1].hash & (count - 1)
                while entries[at].record:
                    at = (at + 1) & (count - 1)
                entries[at] = index.entries[i]
    free(index.entries)
    index.entries, index.mask = entries, count - 1
    return 0
