# Addresses in the messages of routing protocols, seen from C. p and n: the message's first byte, and how many are there.
from libc.stdint cimport int64_t, uint8_t

from streamcore.service._fields cimport Rewrite

# These return n: nothing in such a message is payload.
cdef int64_t change_ospf(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef int64_t change_vrrp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef int64_t change_pim(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
