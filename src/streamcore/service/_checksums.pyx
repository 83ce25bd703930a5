"""Adjusts the checksums of a rewritten packet, innermost first. Each changes by as much as the sum of the bytes that it covers, which is the
difference between the packet and its earlier copy. So a wrong checksum stays wrong by the same amount.

A new kind of layer with a checksum needs one line in `adjust_layer`. Checksums inside messages (OSPF link states, ICMP extensions) are
adjusted where the messages are rewritten.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from streamcore.headers._walk cimport (
    LAYER_DCCP,
    LAYER_EXTENSION,
    LAYER_ICMP4,
    LAYER_ICMP6,
    LAYER_IGMP,
    LAYER_IP4,
    LAYER_OSPF,
    LAYER_PIM,
    LAYER_SCTP,
    LAYER_TCP,
    LAYER_TUNNEL,
    LAYER_UDP,
    LAYER_UDP_LITE,
    LAYER_VRRP,
    TUNNEL_GRE,
    TUNNEL_PIM,
    Layer,
    Walk,
)
from streamcore.service._fields cimport (
    BEFORE_MAX,
    Rewrite,
    adjusted,
    adjusted_udp,
    difference,
    fold,
    load16,
    negative,
    placed,
    store16,
    sum_words,
)
from streamcore.service._messages cimport crc32c

cdef enum:
    DCCP = 33
    ICMP6 = 58
    MOBILITY = 135
    OSPF = 89
    PIM = 103
    VRRP = 112
    TCP = 6
    UDP = 17
    OSPF_DIGEST = 2      # AuType of OSPF version 2


cdef struct Covered:
    # The range start:stop of a running sum, and how much rewriting changed the sum of these bytes.
    int64_t start, stop
    uint64_t total


cdef struct Pseudo:
    # The pseudo-header of one layer, in words that begin at its addresses.
    bint six
    uint64_t change       # how much rewriting changed its sum
    uint64_t before       # the sum of its addresses before rewriting
    int64_t stop          # where its IP header says that its payload ends, perhaps beyond the captured bytes


cdef void adjust_layers(Rewrite *rewrite, const Walk *walk, const Places *places) noexcept nogil:
    cdef Covered covered
    cdef Pseudo pseudo
    cdef int i
    if not rewrite.rewriting or walk.layer_count == 0:
        return
    covered.start = covered.stop = walk.layers[walk.layer_count - 1].end
    covered.total = 0
    for i in range(walk.layer_count - 1, -1, -1):
        find_pseudo(rewrite, walk, places, i, &pseudo)
        adjust_layer(rewrite, &covered, &walk.layers[i], &pseudo)


cdef void find_pseudo(const Rewrite *rewrite, const Walk *walk, const Places *places, int i, Pseudo *pseudo) noexcept nogil:
    cdef int ip = places.ip[i]
    cdef uint32_t size, source, target
    pseudo.six = False
    pseudo.change = pseudo.before = 0
    pseudo.stop = 0
    if ip < 0:
        return
    pseudo.six = walk.layers[ip].kind != LAYER_IP4
    pseudo.stop = ip_stop(rewrite.packet + walk.layers[ip].offset, &walk.layers[ip])
    size = 16 if pseudo.six else 4
    source, target = places.source[ip], places.target[ip]
    pseudo.change = placed(difference(rewrite, source, source + size), source) + placed(difference(rewrite, target, target + size), target)
    if target + size <= rewrite.size and source + size <= rewrite.size:
        pseudo.before = (placed(sum_words(rewrite.before, source, source + size), source)
                         + placed(sum_words(rewrite.before, target, target + size), target))


cdef int64_t ip_stop(const uint8_t *p, const Layer *layer) noexcept nogil:
    """By its length; where it has none (offload, a jumbogram), where the layer ends."""
    if layer.length < 20:
        return layer.end
    if layer.kind == LAYER_IP4:
        return layer.offset + <int64_t> load16(p + 2) if load16(p + 2) else layer.end
    return layer.offset + 40 + <int64_t> load16(p + 4) if load16(p + 4) else layer.end


cdef void adjust_layer(Rewrite *rewrite, Covered *covered, const Layer *layer, const Pseudo *pseudo) noexcept nogil:
    """Adjust the checksum in one layer."""
    cdef uint8_t *p = rewrite.packet + layer.offset
    cdef int64_t n = <int64_t> layer.end - layer.offset
    cdef int kind = layer.kind
    cdef uint64_t inside
    if kind == LAYER_IP4:
        if n >= 12:
            inside = difference(rewrite, layer.offset, layer.offset + layer.length)
            adjust(rewrite, covered, layer.offset, 10, inside, 0, False, load16(p + 10) != 0 or was_right(rewrite, layer.offset, layer.offset + layer.length, 0))
        return
    if kind == LAYER_SCTP:
        adjust_sctp(rewrite, p, n)
        return
    if kind == LAYER_TCP and n >= 18:
        inside = cover(rewrite, covered, layer.offset, layer.end)
        if is_partial(rewrite, layer, 16, pseudo, TCP, pseudo.stop):
            adjust_partial(rewrite, covered, layer.offset + 16, pseudo.change)
        else:
            adjust(rewrite, covered, layer.offset, 16, inside, pseudo.change, False, load16(p + 16) != 0 or was_right_in(rewrite, layer, pseudo, TCP, pseudo.stop))
    elif (kind == LAYER_UDP or kind == LAYER_UDP_LITE) and n >= 8:
        inside = cover(rewrite, covered, layer.offset, covered_stop(p, layer))
        if kind == LAYER_UDP and is_partial(rewrite, layer, 6, pseudo, UDP, layer.offset + <int64_t> load16(p + 4)):
            adjust_partial(rewrite, covered, layer.offset + 6, pseudo.change)
        else:
            adjust(rewrite, covered, layer.offset, 6, inside, pseudo.change, True, True)
    elif kind == LAYER_DCCP and n >= 8:
        inside = cover(rewrite, covered, layer.offset, covered_stop(p, layer))
        adjust(rewrite, covered, layer.offset, 6, inside, pseudo.change, False, load16(p + 6) != 0 or was_right_in(rewrite, layer, pseudo, DCCP, covered_stop(p, layer)))
    elif kind == LAYER_ICMP6 and n >= 4:
        inside = cover(rewrite, covered, layer.offset, layer.end)
        adjust(rewrite, covered, layer.offset, 2, inside, pseudo.change, False, load16(p + 2) != 0 or was_right_in(rewrite, layer, pseudo, ICMP6, pseudo.stop))
    elif (kind == LAYER_ICMP4 or kind == LAYER_IGMP) and n >= 4:
        inside = cover(rewrite, covered, layer.offset, layer.end)
        adjust(rewrite, covered, layer.offset, 2, inside, 0, False, load16(p + 2) != 0 or was_right(rewrite, layer.offset, layer.end, 0))
    elif kind == LAYER_TUNNEL and layer.detail == TUNNEL_GRE and n >= 6 and p[0] & 0x80:
        inside = cover(rewrite, covered, layer.offset, layer.end)
        adjust(rewrite, covered, layer.offset, 4, inside, 0, False, load16(p + 4) != 0 or was_right(rewrite, layer.offset, layer.end, 0))
    elif kind == LAYER_EXTENSION and layer.detail == MOBILITY and n >= 6:
        inside = cover(rewrite, covered, layer.offset, layer.end)
        adjust(rewrite, covered, layer.offset, 4, inside, pseudo.change, False, load16(p + 4) != 0 or was_right_in(rewrite, layer, pseudo, MOBILITY, pseudo.stop))
    elif kind == LAYER_OSPF and n >= 16:
        adjust_ospf(rewrite, covered, layer, pseudo)
    elif kind == LAYER_VRRP and n >= 8:
        inside = cover(rewrite, covered, layer.offset, layer.end)
        adjust(rewrite, covered, layer.offset, 6, inside, pseudo.change if has_pseudo(rewrite, layer, pseudo) else 0, False,
               load16(p + 6) != 0 or was_right(rewrite, layer.offset, layer.end, 0) or was_right_in(rewrite, layer, pseudo, VRRP, pseudo.stop))
    elif kind == LAYER_PIM and n >= 4:
        inside = cover(rewrite, covered, layer.offset, layer.end)
        adjust(rewrite, covered, layer.offset, 2, inside, pseudo.change if pseudo.six else 0, False,
               load16(p + 2) != 0 or (was_right_in(rewrite, layer, pseudo, PIM, pseudo.stop) if pseudo.six
                                      else was_right(rewrite, layer.offset, layer.end, 0)))
    elif kind == LAYER_TUNNEL and layer.detail == TUNNEL_PIM and n >= 4:
        inside = cover(rewrite, covered, layer.offset, layer.end) if covers_packet(rewrite, layer, pseudo) else 0
        adjust(rewrite, covered, layer.offset, 2, inside, pseudo.change if pseudo.six else 0, False, True)  # mostly over 8 bytes of numbers


cdef uint64_t cover(const Rewrite *rewrite, Covered *covered, int64_t start, int64_t stop) noexcept nogil:
    """Extend the covered range, or shorten its end; start is never after the current one. In words that begin at even offsets."""
    if covered.start > stop:  # none of it is covered
        covered.start, covered.stop, covered.total = start, start, 0
    covered.total += difference(rewrite, start, covered.start)
    if stop > covered.stop:
        covered.total += difference(rewrite, covered.stop, stop)
    elif stop < covered.stop:
        covered.total += negative(difference(rewrite, stop, covered.stop))
    covered.start, covered.stop = start, stop
    covered.total = fold16(covered.total)
    return covered.total


cdef inline uint64_t fold16(uint64_t total) noexcept nogil:
    return <uint16_t> ~negative(total)


cdef void adjust(Rewrite *rewrite, Covered *covered, int64_t offset, int64_t at, uint64_t inside, uint64_t pseudo, bint udp, bint right) noexcept nogil:
    """Adjust the checksum at packet[offset + at]. inside: the change in the bytes that it covers, in words that begin at even offsets of the
    packet; pseudo: the change in the pseudo-header, in its own words. right: False where it was zero and wrong (asked only of a zero, which is rare)."""
    cdef uint8_t *p = rewrite.packet + offset + at
    cdef uint16_t old = load16(p)
    cdef uint64_t delta = placed(inside, <uint32_t> offset) + pseudo
    cdef uint16_t new
    if not right:  # it was left to the network card, and adjusted it would tell the sum of what was there before
        return
    new = adjusted_udp(old, delta) if udp else adjusted(old, delta)
    store16(p, new)
    if covered.start <= offset + at < covered.stop:
        covered.total = fold16(covered.total + placed(<uint16_t> ~old + <uint64_t> new, <uint32_t> (offset + at)))


cdef bint is_partial(const Rewrite *rewrite, const Layer *layer, int64_t at, const Pseudo *pseudo, uint64_t protocol, int64_t stop) noexcept nogil:
    """Whether a checksum, at `at` of the layer, was the sum of the pseudo-header alone, with the length or without: the sender left the rest
    to its network card. One that is right by chance, over the whole up to `stop`, is none."""
    cdef uint16_t old = load16(rewrite.before + layer.offset + at)
    cdef uint64_t sum = pseudo.before + protocol
    cdef uint64_t size = <uint64_t> max(stop - layer.offset, <int64_t> 0)
    if old == 0 or pseudo.before == 0 or layer.offset + at + 2 > BEFORE_MAX:
        return False
    if old != fold(sum) and old != fold(sum + size):
        return False
    return not was_right(rewrite, layer.offset, stop, sum + size)


cdef void adjust_partial(Rewrite *rewrite, Covered *covered, int64_t at, uint64_t pseudo) noexcept nogil:
    """It stays the sum of the pseudo-header, and says nothing of the one before."""
    cdef uint16_t old = load16(rewrite.packet + at)
    cdef uint16_t new = fold(<uint64_t> old + pseudo)
    store16(rewrite.packet + at, new)
    if covered.start <= at < covered.stop:
        covered.total = fold16(covered.total + placed(<uint16_t> ~old + <uint64_t> new, <uint32_t> at))


cdef bint was_right(const Rewrite *rewrite, int64_t start, int64_t stop, uint64_t more) noexcept nogil:
    """Whether the checksum over the packet's bytes start:stop, plus `more` from a pseudo-header, was right before."""
    if stop > <int64_t> min(rewrite.size, BEFORE_MAX):
        return False
    return fold(placed(sum_words(rewrite.before, <uint32_t> start, <uint32_t> stop), <uint32_t> start) + more) == 0xFFFF


cdef bint was_right_in(const Rewrite *rewrite, const Layer *layer, const Pseudo *pseudo, uint64_t protocol, int64_t stop) noexcept nogil:
    """was_right with a pseudo-header, whose length is that of the IP payload."""
    cdef int64_t at = layer.offset
    if pseudo.before == 0 or stop < at:
        return False
    return was_right(rewrite, at, stop, pseudo.before + protocol + <uint64_t> (pseudo.stop - at if pseudo.stop > at else 0))


cdef bint was_right_apart(const Rewrite *rewrite, int64_t at, int64_t after, int64_t stop) noexcept nogil:
    """was_right over at:at + 16 and after:stop, from even offsets on."""
    if stop > <int64_t> min(rewrite.size, BEFORE_MAX):
        return False
    return fold(placed(sum_words(rewrite.before, <uint32_t> at, <uint32_t> (at + 16)), <uint32_t> at)
                + placed(sum_words(rewrite.before, <uint32_t> after, <uint32_t> stop), <uint32_t> after)) == 0xFFFF


cdef int64_t covered_stop(const uint8_t *p, const Layer *layer) noexcept nogil:
    """Where the bytes that a layer's checksum covers end."""
    cdef int64_t length
    if (layer.kind == LAYER_UDP or layer.kind == LAYER_UDP_LITE) and layer.length >= 8:
        length = load16(p + 4)
        if length >= 8:
            return min(<int64_t> layer.offset + length, <int64_t> layer.end)
    if layer.kind == LAYER_DCCP and layer.length >= 12 and p[5] & 15:
        return min(<int64_t> layer.offset + 4 * p[4] + 4 * (<int64_t> (p[5] & 15) - 1), <int64_t> layer.end)
    return layer.end


cdef void adjust_sctp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """The checksum covers the packet alone. It is computed again if it was right, which can only be checked for a complete packet."""
    cdef int64_t at = p - rewrite.packet
    cdef const uint8_t *before = rewrite.before + at
    cdef uint32_t made
    if n < 12 or at + n > BEFORE_MAX or memcmp(p, before, n) == 0:
        return
    made = crc32c(before, n)
    if before[8] != made & 0xFF or before[9] != made >> 8 & 0xFF or before[10] != made >> 16 & 0xFF or before[11] != made >> 24:
        return
    made = crc32c(p, n)
    p[8], p[9], p[10], p[11] = made & 0xFF, made >> 8 & 0xFF, made >> 16 & 0xFF, made >> 24


cdef void adjust_ospf(Rewrite *rewrite, Covered *covered, const Layer *layer, const Pseudo *pseudo) noexcept nogil:
    """Covers the length that the header gives. Version 2 leaves out the 8 bytes of authentication, and has no checksum if they are a digest (RFC
    2328 D.4). Version 3 includes the pseudo-header, and has a checksum of zero if a trailer authenticates (RFC 7166)."""
    cdef uint8_t *p = rewrite.packet + layer.offset
    cdef int64_t at = layer.offset
    cdef int64_t stop = max(at + 16, min(at + load16(p + 2), <int64_t> layer.end))
    cdef uint64_t inside
    if p[0] == 3:
        if load16(p + 12) == 0 and not was_right(rewrite, at, stop, pseudo.before + OSPF + <uint64_t> (stop - at)):
            return
        adjust(rewrite, covered, at, 12, cover(rewrite, covered, at, stop), pseudo.change, False, True)
    elif load16(p + 14) != OSPF_DIGEST:
        inside = cover(rewrite, covered, at, stop) + negative(difference(rewrite, at + 16, min(at + 24, stop)))
        adjust(rewrite, covered, at, 12, inside, 0, False, load16(p + 12) != 0 or was_right_apart(rewrite, at, min(at + 24, stop), stop))


cdef bint has_pseudo(const Rewrite *rewrite, const Layer *layer, const Pseudo *pseudo) noexcept nogil:
    """Whether a VRRP checksum covers a pseudo-header. In version 3 it does (RFC 5798 5.2.8), but over IPv4 some makers leave it out."""
    if rewrite.before[layer.offset] >> 4 != 3:
        return False
    return pseudo.six or not was_right(rewrite, layer.offset, layer.end, 0)


cdef bint covers_packet(const Rewrite *rewrite, const Layer *layer, const Pseudo *pseudo) noexcept nogil:
    """Whether a PIM register's checksum covers the packet inside, as some makers compute it, instead of only the 8 bytes of the header
    (RFC 7761 4.9)."""
    cdef int64_t at = layer.offset
    cdef uint64_t more = pseudo.before + PIM if pseudo.six else 0
    if was_right(rewrite, at, at + 8, more + 8 if more else 0):
        return False
    return was_right(rewrite, at, layer.end, more + <uint64_t> (layer.end - at) if more else 0)
