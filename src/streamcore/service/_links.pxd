# Link layers whose addresses are not just their first bytes.
from libc.stdint cimport int64_t, uint8_t

from streamcore.service._fields cimport Rewrite

cdef void change_capture(Rewrite *rewrite, uint8_t *p, int64_t n, int link_type) noexcept nogil
cdef void change_link(Rewrite *rewrite, uint8_t *p, int64_t n, int link_type, bint first) noexcept nogil  # for a LAYER_LINK
cdef void change_wifi(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
