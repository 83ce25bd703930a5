# Link layers whose addresses are not simply the first bytes of them.
from libc.stdint cimport int64_t, uint8_t

from streamcore.service._fields cimport Rewrite

cdef void change_capture(Rewrite *rewrite, uint8_t *p, int64_t n, int link_type) noexcept nogil
cdef bint is_plain_link(int link_type) noexcept nogil  # a LAYER_LINK of it holds no address
cdef void change_wifi(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
