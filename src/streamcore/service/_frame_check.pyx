"""The check sequence that stands behind a frame, where the capture has it. It covers the addresses, and whoever knows the rest of the frame
could compute as many bits of them as it has: so it is made anew where it was right.

Sources: IEEE 802.3 3.2.9, IEEE 802.11 9.2.4.8, RFC 1662 appendix C.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from streamcore.headers._walk cimport (
    LAYER_CAPTURE,
    LAYER_ETHERNET,
    LAYER_FDDI,
    LAYER_IP4,
    LAYER_IP6,
    LAYER_LINK,
    LAYER_PPP,
    LAYER_WIFI,
    Walk,
)
from streamcore.service._fields cimport BEFORE_MAX, Rewrite, load16, put_zeros

cdef enum:
    TOKEN_RING = 6           # LINKTYPE_ values
    ERF = 197
    ERF_WIRE_LENGTH_AT = 14  # of the frame with its check sequence; padding may follow


cdef void adjust_frame_check(Rewrite *rewrite, const Walk *walk, int64_t payload) noexcept nogil:
    cdef int64_t size = min(rewrite.size, <uint32_t> BEFORE_MAX)
    cdef int64_t start
    cdef int64_t carried = payload  # where what the frame carries ends
    cdef int first = 0
    cdef int i
    cdef int kind
    while first < walk.layer_count and walk.layers[first].kind == LAYER_CAPTURE:
        first += 1
    if first == walk.layer_count:
        return
    for i in range(first, walk.layer_count):
        if walk.layers[i].kind == LAYER_IP4 or walk.layers[i].kind == LAYER_IP6:
            carried = walk.layers[i].end
            break
    start = walk.layers[first].offset
    if rewrite.link_type == ERF and start > ERF_WIRE_LENGTH_AT + 2:
        size = min(size, start + load16(rewrite.packet + ERF_WIRE_LENGTH_AT))
    kind = walk.layers[first].kind
    if kind == LAYER_ETHERNET or kind == LAYER_WIFI or kind == LAYER_FDDI or (kind == LAYER_LINK and rewrite.link_type == TOKEN_RING):
        made_anew(rewrite, start, size, carried, 4)
        if kind == LAYER_WIFI and walk.layers[first].end + 4 == size:
            forget_wrong(rewrite, start, size)
    elif kind == LAYER_PPP or kind == LAYER_LINK:
        if not made_anew(rewrite, start, size, carried, 2):
            made_anew(rewrite, start, size, carried, 4)


cdef bint made_anew(Rewrite *rewrite, int64_t start, int64_t size, int64_t carried, int64_t width) noexcept nogil:
    """Whether the last `width` bytes were a right check sequence, which then is one again."""
    cdef int64_t at = size - width
    cdef uint32_t made
    cdef int64_t i
    if at < carried or at <= start:
        return False
    if ends_as(rewrite.before + start, at - start, width):
        made = check_of(rewrite.packet + start, at - start, width)
        for i in range(width):
            rewrite.packet[at + i] = <uint8_t> (made >> (8 * i))
        return True
    return False


cdef void forget_wrong(Rewrite *rewrite, int64_t start, int64_t size) noexcept nogil:
    """Zero a check sequence that radiotap announces and that is wrong: mostly because padding was put into the frame, which does not count."""
    if not ends_as(rewrite.packet + start, size - 4 - start, 4):
        put_zeros(rewrite, rewrite.packet + size - 4, 4)


cdef inline bint ends_as(const uint8_t *p, int64_t n, int64_t width) noexcept nogil:
    """Whether the `width` bytes after p[0:n] are the check sequence of these. All zeros are taken for none."""
    cdef uint32_t found = 0
    cdef int64_t i
    for i in range(width):
        found |= <uint32_t> p[n + i] << (8 * i)
    return found != 0 and found == check_of(p, n, width)


# Both have their bits in reversed order: of 32 bits 04c11db7, of 16 bits 1021.

cdef uint32_t[256] table32
cdef uint32_t[256] table16


cdef void fill_tables() noexcept:
    cdef uint32_t wide, narrow
    for i in range(256):
        wide = narrow = i
        for _ in range(8):
            wide = (wide >> 1) ^ (<uint32_t> 0xEDB88320 if wide & 1 else 0)
            narrow = (narrow >> 1) ^ (<uint32_t> 0x8408 if narrow & 1 else 0)
        table32[i], table16[i] = wide, narrow


cdef uint32_t check_of(const uint8_t *p, int64_t n, int64_t width) noexcept nogil:
    cdef uint32_t value = ~<uint32_t> 0 if width == 4 else 0xFFFF
    cdef const uint32_t *table = &table32[0] if width == 4 else &table16[0]
    cdef int64_t i
    for i in range(n):
        value = table[(value ^ p[i]) & 0xFF] ^ (value >> 8)
    return ~value if width == 4 else value ^ 0xFFFF


fill_tables()
