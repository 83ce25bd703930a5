# Addresses in the messages of routing protocols, seen from C. p: the message's first byte; n: how many bytes are present.
from libc.stdint cimport int64_t, uint8_t

from streamcore.service._fields cimport Rewrite

# These return n: nothing in such a message is payload.
cdef int64_t change_ospf(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef int64_t change_vrrp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef int64_t change_pim(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
