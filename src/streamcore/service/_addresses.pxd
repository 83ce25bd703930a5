# Rewriting all addresses of one packet, seen from C.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from streamcore.service._fields cimport Rewrite

cdef enum:
    # The verdict on a packet: one of these, or the walk's OUTCOME_* + 2 if its headers are not all understood; OUTCOMES_COUNT + 2: it is a
    # later fragment, and its first one is not in the segment.
    MISSING = 0              # an address is not in the table, and nothing was changed
    UNDERSTOOD
    NOT_UNDERSTOOD

# kept: how many of its bytes may stay: all of a packet that is understood but for its payload where that is truncated; else those before the
# place where understanding ends.
cdef uint8_t rewrite_packet(Rewrite *rewrite, uint8_t *p, uint32_t n, uint16_t link_type, uint32_t *kept) noexcept nogil

# A packet quoted in an option of one that is rewritten.
cdef void change_packet(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
