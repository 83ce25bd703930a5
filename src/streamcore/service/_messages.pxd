# Transport messages that are about addresses: DHCP, DHCPv6, SCTP chunks.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from streamcore.service._fields cimport Rewrite

cdef bint is_dhcp(uint16_t source, uint16_t target) noexcept nogil
cdef void change_dhcp(Rewrite *rewrite, uint8_t *p, int64_t n, uint16_t source, uint16_t target) noexcept nogil
cdef void change_sctp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef uint32_t crc32c(const uint8_t *p, int64_t n) noexcept nogil
