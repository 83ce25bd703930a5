# Rewriting control messages. p: the first byte; n: how many bytes are present.
from libc.stdint cimport int64_t, uint8_t

from streamcore.service._fields cimport Rewrite

# These return how many bytes belong to the message; the rest is payload.
cdef int64_t change_icmp4(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef int64_t change_icmp6(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef int64_t change_igmp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef int64_t change_arp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
