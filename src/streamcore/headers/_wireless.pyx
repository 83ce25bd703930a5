"""IEEE 802.11, and what capturing machines put before it: radiotap, PPI, AVS, Prism. Each link type has a row at the end.

Sources: IEEE 802.11-2020 9.2, 9.3.2; https://www.radiotap.org; https://www.tcpdump.org/linktypes.html.
"""

from libc.stdint cimport uint8_t, uint32_t

from streamcore.headers._ether_types cimport step_llc
from streamcore.headers._walk cimport (
    LAYER_CAPTURE,
    LAYER_ETHERNET,
    LAYER_TAG,
    LAYER_WIFI,
    OUTCOME_ENCRYPTED,
    OUTCOME_FRAGMENT,
    OUTCOME_UNKNOWN,
    Walk,
    be16,
    be32,
    bound,
    ends,
    go_link,
    has,
    here,
    le16,
    malformed,
    register_link,
    several,
    take,
    taken,
)

cdef enum:
    TO_AND_FROM = 0x03       # second byte of frame control
    MORE_FRAGMENTS = 0x04
    PROTECTED = 0x40
    ORDER = 0x80
    FROM = 0x02
    AGGREGATE = 0x80         # first byte of QoS control: the body is an A-MSDU
    MESH_CONTROL = 0x01      # second byte: mesh control precedes the body


cdef void step_wifi(Walk *walk) noexcept nogil:
    wifi(walk, 0, False)


cdef void step_swapped_wifi(Walk *walk) noexcept nogil:
    """The two bytes of frame control are swapped, as some controllers write them."""
    wifi(walk, 1, False)


cdef void padded_wifi(Walk *walk) noexcept nogil:
    """The header is padded to a multiple of 4 bytes."""
    wifi(walk, 0, True)


cdef void wifi(Walk *walk, int swap, bint padded) noexcept nogil:
    """Frame control, duration, three addresses, sequence; a fourth address between access points; QoS, then HT control if Order is set. The walk
    goes on only in data frames with a body."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 24
    cdef uint8_t first, second
    cdef uint8_t quality = 0
    cdef bint mesh = False
    if not has(walk, 24):
        take(walk, LAYER_WIFI, 24)
        return
    first = p[swap]
    second = p[1 - swap]
    if first & 3 or first >> 2 & 3 != 2:
        take(walk, LAYER_WIFI, 24)
        ends(walk, OUTCOME_UNKNOWN)
        return
    if second & TO_AND_FROM == TO_AND_FROM:
        size += 6
    if first & 0x80:
        if has(walk, size + 2):
            quality = p[size]
            mesh = second & FROM and p[size + 1] & MESH_CONTROL
        size += 2
        if second & ORDER:
            size += 4
    if padded:
        size = (size + 3) & ~<uint32_t> 3
    if not take(walk, LAYER_WIFI, size):
        return
    if first & 0x40 or not has(walk, 1):   # no body
        ends(walk, OUTCOME_UNKNOWN)
    elif second & PROTECTED:
        ends(walk, OUTCOME_ENCRYPTED)
    elif p[22] & 15:
        ends(walk, OUTCOME_FRAGMENT)
    elif quality & AGGREGATE:
        taken(walk).detail = 1
        walk.next = subframe
    elif mesh and here(walk)[0] < 3:
        mesh_control(walk)
    else:
        walk.next = step_llc


cdef void mesh_control(Walk *walk) noexcept nogil:
    """Flags with the number of further addresses, TTL, sequence number; the addresses."""
    if take(walk, LAYER_TAG, 6 + 6 * <uint32_t> here(walk)[0]):
        walk.next = step_llc


cdef void subframe(Walk *walk) noexcept nogil:
    """The first frame of an A-MSDU: target, source, length, then LLC. Others may follow, each at a multiple of 4 bytes from the first."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t end
    if not take(walk, LAYER_ETHERNET, 14):
        return
    end = walk.at + be16(p + 12)
    if ((end - walk.at + 14 + 3) & ~<uint32_t> 3) + 14 < walk.end - walk.at + 14:
        several(walk)
    bound(walk, end)
    walk.next = step_llc


cdef inline uint32_t header_size(Walk *walk, uint32_t known_from) noexcept nogil:
    """The size that a header of radiotap or PPI gives itself, 8 if fewer than `known_from` bytes are there. 0: the header is malformed, which
    was reported."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = le16(p + 2) if has(walk, known_from) else 8
    if size < 8 or (has(walk, 1) and p[0]):
        malformed(walk)
        return 0
    return size


cdef void step_radiotap(Walk *walk) noexcept nogil:
    """Version 0, length, presence words. Of the fields only the flags matter: padding after the header, and a frame check sequence at the end."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = header_size(walk, 4)
    cdef uint32_t at = 8
    cdef uint8_t flags = 0
    if size == 0:
        return
    if has(walk, size):
        while at + 4 <= size and p[at - 1] & 0x80:
            at += 4
        if p[4] & 1:
            at = ((at + 7) & ~<uint32_t> 7) + 8
        if p[4] & 2 and at < size:
            flags = p[at]
    if not take(walk, LAYER_CAPTURE, size):
        return
    if flags & 0x10 and has(walk, 4):
        walk.end -= 4
    walk.next = padded_wifi if flags & 0x20 else step_wifi


cdef void avs(Walk *walk) noexcept nogil:
    """AVS: a magic number and the length, in network byte order. LINKTYPE_PRISM is AVS, or a header of 144 bytes."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 144
    if has(walk, 8) and be32(p) >> 12 == 0x80211:
        size = be32(p + 4)
    if size < 8:
        malformed(walk)
    elif take(walk, LAYER_CAPTURE, size):
        walk.next = step_wifi


cdef void ppi(Walk *walk) noexcept nogil:
    """Version 0, flags, length and link type; little-endian."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = header_size(walk, 8)
    cdef uint32_t at = 8
    cdef uint8_t flags = 0
    if size == 0:
        return
    if has(walk, size):
        while at + 4 <= size and le16(p + at) != 2:  # fields of type, length and value; 2: 802.11-Common
            at += 4 + le16(p + at + 2)
        if at + 14 <= size:
            flags = p[at + 12]
    if not take(walk, LAYER_CAPTURE, size):
        return
    if be16(p + 6):
        ends(walk, OUTCOME_UNKNOWN)
        return
    if flags & 1 and has(walk, 4) and le16(p + 4) == 105:
        walk.end -= 4
    go_link(walk, le16(p + 4))


register_link(105, step_wifi)
register_link(127, step_radiotap)
register_link(119, avs)
register_link(163, avs)
register_link(192, ppi)
