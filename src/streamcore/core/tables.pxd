# What native hash tables share: their memory, and the multiplication that hashes their keys. All of it is inline.
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>
    #include <sys/mman.h>

    /* Memory for a table read at random: aligned to cache lines, and on large pages if the table is large. */
    static inline void *sc_table(size_t size)
    {
        size_t const large = (size_t) 1 << 21;
        void *table = NULL;
        if (posix_memalign(&table, size >= large ? large : 64, size) != 0)
            return NULL;
    #ifdef MADV_HUGEPAGE
        if (size >= large)
            madvise(table, size / large * large, MADV_HUGEPAGE);
    #endif
        return table;
    }

    /* The 128-bit product of two words, folded to 64 bits. Once secret operands are mixed in, nobody who does not know them
       can choose inputs that collide. It costs one multiplication. */
    static inline uint64_t sc_fold(uint64_t left, uint64_t right)
    {
        unsigned __int128 product = (unsigned __int128) left * right;
        return (uint64_t) product ^ (uint64_t) (product >> 64);
    }
    """
    void *table_memory "sc_table" (size_t size) noexcept nogil  # freed with free(); NULL: there is not enough memory
    uint64_t fold "sc_fold" (uint64_t left, uint64_t right) noexcept nogil
