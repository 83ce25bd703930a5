# Names, and addresses written as text, in the payload of transports.
from libc.stdint cimport int64_t, uint8_t, uint16_t

from streamcore.service._fields cimport Rewrite

cdef void change_names(Rewrite *rewrite, uint8_t *p, int64_t n, uint16_t source, uint16_t target, bint udp) noexcept nogil

# Whether the payload is a message in which change_names replaces anything.
cdef bint holds_names(const uint8_t *p, int64_t n, uint16_t source, uint16_t target, bint udp) noexcept nogil
