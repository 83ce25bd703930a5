# Rewriting options of IPv4, TCP and DCCP, and extension headers of IPv6. p: the first byte; n: how many bytes are present.
from libc.stdint cimport int64_t, uint8_t

from streamcore.service._fields cimport Rewrite

cdef void change_options4(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef void change_extension(Rewrite *rewrite, uint8_t *p, int64_t n, int kind) noexcept nogil
cdef void change_tcp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef void change_dccp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
