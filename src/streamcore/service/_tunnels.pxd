# Addresses in the headers of tunnels, seen from C.
from libc.stdint cimport int64_t, uint8_t

from streamcore.service._fields cimport Rewrite

cdef void change_tunnel(Rewrite *rewrite, uint8_t *p, int64_t n, int tunnel) noexcept nogil
