# Names, and addresses in text, in what transports carry.
from libc.stdint cimport int64_t, uint8_t, uint16_t

from streamcore.service._fields cimport Rewrite

cdef void change_names(Rewrite *rewrite, uint8_t *p, int64_t n, uint16_t source, uint16_t target, bint udp) noexcept nogil

# Whether that message is one in which it replaces anything.
cdef bint holds_names(const uint8_t *p, int64_t n, uint16_t source, uint16_t target, bint udp) noexcept nogil
