"""The slow, complete way to every address of one packet: the walk over its headers says where they stand, and each kind of layer has a
line here that says what rewrites it and which checksum covers it.

A packet is walked once, and its layers are gone through twice: to see whether every address is known, then to rewrite them, after the packet
was copied. Then, from the inside out, each checksum is adjusted by what has changed in what it covers, which is the difference of the sums over
the packet and over the copy. What is not captured is not touched. A new kind of layer with addresses is one line in `change_layer`, one with a
checksum one in `adjust_layer`.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from streamcore.headers._ip cimport step_ip
from streamcore.headers._walk cimport (
    LAYER_AH,
    LAYER_CONTROL_WORD,
    LAYER_LINK,
    LAYER_LLC,
    LAYER_MPLS,
    LAYER_PPP,
    LAYER_PPPOE,
    LAYER_TAG,
    LAYER_VLAN,
    LAYER_ARP,
    LAYER_CAPTURE,
    LAYER_DCCP,
    LAYER_ETHERNET,
    LAYER_EXTENSION,
    LAYER_FDDI,
    LAYER_ICMP4,
    LAYER_ICMP6,
    LAYER_IGMP,
    LAYER_IP4,
    LAYER_IP6,
    LAYER_SCTP,
    LAYER_TCP,
    LAYER_TUNNEL,
    LAYER_UDP,
    LAYER_UDP_LITE,
    LAYER_WIFI,
    LAYERS_MAX,
    MARK_CUT,
    MARK_QUOTED,
    OUTCOME_CONTROL,
    OUTCOME_FRAGMENT,
    OUTCOME_NOTHING,
    OUTCOME_TRANSPORT,
    OUTCOME_TRUNCATED,
    OUTCOME_UNKNOWN,
    TUNNEL_GRE,
    Layer,
    Walk,
    udp_opens,
    walk_from,
    walk_headers,
)
from streamcore.service._control cimport change_arp, change_extension, change_icmp4, change_icmp6, change_igmp, change_options4, change_tcp
from streamcore.service._fields cimport (
    BEFORE_MAX,
    COUNTED,
    COUNT_PAYLOAD,
    KEEP,
    LEFT_CHECK,
    LEFT_PAYLOAD,
    TRUNCATE,
    ZERO,
    Rewrite,
    adjusted,
    adjusted_udp,
    change4,
    change6,
    change_mac,
    difference,
    load16,
    negative,
    placed,
    put_zeros,
    store16,
    unknown,
)
from streamcore.service._links cimport change_capture, change_wifi, is_plain_link
from streamcore.service._messages cimport change_dhcp, change_sctp, crc32c, is_dhcp
from streamcore.service._names cimport change_names
from streamcore.service._tunnels cimport change_tunnel

cdef enum:
    PACKETS_MAX = 8          # packets that one packet's neighbour discovery quotes in options
    FRAGMENT_MIN = 256       # a later fragment that begins before that byte of its datagram may hold headers


cdef struct Places:
    # What the checksum of each layer must know of the IP header around it.
    int[LAYERS_MAX] ip            # its layer; -1: there is none
    uint32_t[LAYERS_MAX] source   # of IP layers: where the addresses stand that a pseudo-header takes
    uint32_t[LAYERS_MAX] target


cdef void change_packet(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """A packet quoted in an option, with a walk of its own; at most PACKETS_MAX of them, in one another or side by side."""
    cdef Walk walk
    cdef Places places
    cdef uint32_t source_at = rewrite.source_at, target_at = rewrite.target_at
    cdef int64_t end, at
    if n <= 0:
        return
    if rewrite.packets == PACKETS_MAX:
        put_zeros(rewrite, p, n)
        return
    rewrite.packets += 1
    at = p - rewrite.packet
    walk_from(rewrite.packet, <uint32_t> at, <uint32_t> (at + n), step_ip, &walk)
    end = change_layers(rewrite, &walk, &places)
    if not is_understood(&walk) and walk.outcome != OUTCOME_TRUNCATED or rewrite.payload != KEEP:
        put_zeros(rewrite, rewrite.packet + end, at + n - end)  # an option has a size of its own
    adjust_layers(rewrite, &walk, &places)
    rewrite.source_at, rewrite.target_at = source_at, target_at


# Addresses, from the outside in.

cdef int64_t change_layer(Rewrite *rewrite, uint8_t *p, const Layer *layer) noexcept nogil:
    """Rewrite the addresses that stand in one layer itself. Returns how many bytes of it are no payload."""
    cdef int64_t n = <int64_t> layer.end - layer.offset
    cdef int kind = layer.kind
    if n == 0:
        return 0
    if kind == LAYER_ETHERNET:
        change_mac(rewrite, p, n, 6)
        change_mac(rewrite, p + 6, n - 6, 6)
    elif kind == LAYER_IP4:
        rewrite.source_at, rewrite.target_at = layer.offset + 12, layer.offset + 16
        change4(rewrite, p + 12, n - 12)
        change4(rewrite, p + 16, n - 16)
        if layer.length > 20:
            change_options4(rewrite, p, layer.length)
    elif kind == LAYER_IP6:
        rewrite.source_at, rewrite.target_at = layer.offset + 8, layer.offset + 24
        change6(rewrite, p + 8, n - 8)
        change6(rewrite, p + 24, n - 24)
    elif kind == LAYER_EXTENSION:
        change_extension(rewrite, p, layer.length, layer.detail)
    elif kind == LAYER_TCP:
        if layer.length > 20:
            change_tcp(rewrite, p, layer.length)
    elif kind == LAYER_ICMP4:
        return change_icmp4(rewrite, p, n)
    elif kind == LAYER_ICMP6:
        return change_icmp6(rewrite, p, n)
    elif kind == LAYER_IGMP:
        return change_igmp(rewrite, p, n)
    elif kind == LAYER_ARP:
        return change_arp(rewrite, p, n)
    elif kind == LAYER_FDDI:
        change_mac(rewrite, p + 1, n - 1, 6)
        change_mac(rewrite, p + 7, n - 7, 6)
    elif kind == LAYER_WIFI:
        change_wifi(rewrite, p, layer.length)
    elif kind == LAYER_CAPTURE:
        change_capture(rewrite, p, layer.length, rewrite.link_type if layer.offset == 0 else -1)
    elif kind == LAYER_AH:
        if rewrite.rewriting:
            rewrite.counts[LEFT_CHECK] += 1
    elif kind == LAYER_LINK:
        if not is_plain_link(rewrite.link_type):
            unknown(rewrite, p)
    elif kind == LAYER_TUNNEL:
        change_tunnel(rewrite, p, layer.length, layer.detail)
    elif kind == LAYER_TAG:
        if layer.length > 8:  # ISL and MACsec's channel have hardware addresses, TRILL options
            unknown(rewrite, p)
    elif not (kind == LAYER_VLAN or kind == LAYER_LLC or kind == LAYER_MPLS or kind == LAYER_CONTROL_WORD
              or kind == LAYER_PPPOE or kind == LAYER_PPP or kind == LAYER_UDP or kind == LAYER_UDP_LITE or kind == LAYER_SCTP
              or kind == LAYER_DCCP):
        unknown(rewrite, p)  # the walk knows more kinds than stand here
    return layer.length


cdef int64_t change_layers(Rewrite *rewrite, const Walk *walk, Places *places) noexcept nogil:
    """Rewrite the addresses of a walked packet, or only look whether all are known. Returns where its payload begins."""
    cdef const Layer *layer
    cdef int64_t payload = walk.at
    cdef int64_t own
    cdef int i
    cdef int current = -1
    for i in range(walk.layer_count):
        layer = &walk.layers[i]
        if layer.kind == LAYER_IP4 or layer.kind == LAYER_IP6:
            current = i
        own = change_layer(rewrite, rewrite.packet + layer.offset, layer)
        places.ip[i] = current
        if current >= 0:  # options and extension headers move them
            places.source[current], places.target[current] = rewrite.source_at, rewrite.target_at
        payload = max(payload, min(<int64_t> layer.offset + own, <int64_t> layer.end))
    if rewrite.payload == KEEP and walk.layer_count:
        change_message(rewrite, &walk.layers[walk.layer_count - 1], payload)
    return payload


cdef void change_message(Rewrite *rewrite, const Layer *layer, int64_t payload) noexcept nogil:
    """What a transport carries, where its purpose is to tell addresses."""
    cdef uint8_t *p = rewrite.packet + layer.offset
    cdef uint8_t *body = rewrite.packet + payload
    cdef int64_t n = <int64_t> layer.end - payload
    if n <= 0:
        return
    if layer.kind == LAYER_SCTP and layer.length == 12:
        change_sctp(rewrite, body, n)
    elif layer.kind == LAYER_UDP and layer.length == 8 and is_dhcp(load16(p), load16(p + 2)):
        change_dhcp(rewrite, body, n, load16(p), load16(p + 2))
    elif rewrite.names and ((layer.kind == LAYER_UDP and layer.length == 8) or (layer.kind == LAYER_TCP and layer.length >= 20)):
        change_names(rewrite, body, n, load16(p), load16(p + 2), layer.kind == LAYER_UDP)


# Checksums, from the inside out.

cdef struct Covered:
    # What a running sum is about: the difference that rewriting made in the packet's bytes start:stop.
    int64_t start, stop
    uint64_t total


cdef uint64_t cover(const Rewrite *rewrite, Covered *covered, int64_t start, int64_t stop) noexcept nogil:
    """Widen what is covered, or narrow its end; start is at most what it was. In words that begin at even offsets."""
    if covered.start > stop:  # nothing of it is in here
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


cdef void adjust(Rewrite *rewrite, Covered *covered, int64_t offset, int64_t at, uint64_t inside, uint64_t pseudo, bint udp) noexcept nogil:
    """Adjust the checksum at packet[offset + at]. inside: the change in what it covers, in words that begin at even offsets of the packet;
    pseudo: in a pseudo-header, in its own words."""
    cdef uint8_t *p = rewrite.packet + offset + at
    cdef uint16_t old = load16(p)
    cdef uint64_t delta = placed(inside, <uint32_t> offset) + pseudo
    cdef uint16_t new = adjusted_udp(old, delta) if udp else adjusted(old, delta)
    store16(p, new)
    if covered.start <= offset + at < covered.stop:
        covered.total = fold16(covered.total + placed(<uint16_t> ~old + <uint64_t> new, <uint32_t> (offset + at)))


cdef int64_t covered_stop(const uint8_t *p, const Layer *layer) noexcept nogil:
    """Where what a layer's checksum covers ends."""
    cdef int64_t length
    if layer.kind == LAYER_UDP and layer.length >= 8:
        length = load16(p + 4)
        if length >= 8:
            return min(<int64_t> layer.offset + length, <int64_t> layer.end)
    if layer.kind == LAYER_UDP_LITE and layer.length >= 8:
        length = load16(p + 4)
        if length >= 8:
            return min(<int64_t> layer.offset + length, <int64_t> layer.end)
    if layer.kind == LAYER_DCCP and layer.length >= 12 and p[5] & 15:
        return min(<int64_t> layer.offset + 4 * p[4] + 4 * (<int64_t> (p[5] & 15) - 1), <int64_t> layer.end)
    return layer.end


cdef void adjust_layer(Rewrite *rewrite, Covered *covered, const Layer *layer, uint64_t pseudo) noexcept nogil:
    """Adjust the checksum that stands in one layer. pseudo: the change in the addresses around it."""
    cdef uint8_t *p = rewrite.packet + layer.offset
    cdef int64_t n = <int64_t> layer.end - layer.offset
    cdef int kind = layer.kind
    cdef uint64_t inside
    if kind == LAYER_IP4:
        if n >= 12:
            inside = difference(rewrite, layer.offset, layer.offset + layer.length)
            adjust(rewrite, covered, layer.offset, 10, inside, 0, False)
        return
    if kind == LAYER_SCTP:
        adjust_sctp(rewrite, p, n)
        return
    if kind == LAYER_TCP and n >= 18:
        inside = cover(rewrite, covered, layer.offset, layer.end)
        adjust(rewrite, covered, layer.offset, 16, inside, pseudo, False)
    elif (kind == LAYER_UDP or kind == LAYER_UDP_LITE) and n >= 8:
        inside = cover(rewrite, covered, layer.offset, covered_stop(p, layer))
        adjust(rewrite, covered, layer.offset, 6, inside, pseudo, True)
    elif kind == LAYER_DCCP and n >= 8:
        inside = cover(rewrite, covered, layer.offset, covered_stop(p, layer))
        adjust(rewrite, covered, layer.offset, 6, inside, pseudo, False)
    elif kind == LAYER_ICMP6 and n >= 4:
        inside = cover(rewrite, covered, layer.offset, layer.end)
        adjust(rewrite, covered, layer.offset, 2, inside, pseudo, False)
    elif (kind == LAYER_ICMP4 or kind == LAYER_IGMP) and n >= 4:
        inside = cover(rewrite, covered, layer.offset, layer.end)
        adjust(rewrite, covered, layer.offset, 2, inside, 0, False)
    elif kind == LAYER_TUNNEL and layer.detail == TUNNEL_GRE and n >= 6 and p[0] & 0x80:
        inside = cover(rewrite, covered, layer.offset, layer.end)
        adjust(rewrite, covered, layer.offset, 4, inside, 0, False)
    elif kind == LAYER_EXTENSION and layer.detail == 135 and n >= 6:
        inside = cover(rewrite, covered, layer.offset, layer.end)
        adjust(rewrite, covered, layer.offset, 4, inside, pseudo, False)


cdef void adjust_sctp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Over the packet alone: made anew where it was right, which shows only of a packet that is there as a whole."""
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


cdef uint64_t pseudo_change(const Rewrite *rewrite, const Walk *walk, const Places *places, int i) noexcept nogil:
    """What changed in the pseudo-header of layer i, in words that begin with its addresses."""
    cdef int ip = places.ip[i]
    cdef uint32_t size, source, target
    if ip < 0:
        return 0
    size = 4 if walk.layers[ip].kind == LAYER_IP4 else 16
    source, target = places.source[ip], places.target[ip]
    return placed(difference(rewrite, source, source + size), source) + placed(difference(rewrite, target, target + size), target)


cdef void adjust_layers(Rewrite *rewrite, const Walk *walk, const Places *places) noexcept nogil:
    cdef Covered covered
    cdef int i
    if not rewrite.rewriting or walk.layer_count == 0:
        return
    covered.start = covered.stop = walk.layers[walk.layer_count - 1].end
    covered.total = 0
    for i in range(walk.layer_count - 1, -1, -1):
        adjust_layer(rewrite, &covered, &walk.layers[i], pseudo_change(rewrite, walk, places, i))


# The packet.

cdef inline bint is_transport(uint8_t protocol) noexcept nogil:
    return protocol == 6 or protocol == 17 or protocol == 132 or protocol == 136 or protocol == 33


cdef bint is_understood(const Walk *walk) noexcept nogil:
    """Whether every header is, up to and including a transport header or a control protocol. Of a transport header that the capture cuts, the
    ports are enough: nothing else stands in what is there of it."""
    cdef const Layer *last
    if walk.more:  # packets that nobody looked at
        return False
    if walk.outcome == OUTCOME_TRANSPORT or walk.outcome == OUTCOME_CONTROL:
        return True
    if walk.outcome == OUTCOME_FRAGMENT:
        return is_transport(walk.ip.protocol) and 8 * <uint32_t> walk.ip.fragment_offset >= FRAGMENT_MIN
    if walk.outcome == OUTCOME_NOTHING:
        return walk.at >= walk.end
    if walk.outcome == OUTCOME_TRUNCATED and walk.layer_count:
        last = &walk.layers[walk.layer_count - 1]
        return (last.kind == LAYER_TCP or last.kind == LAYER_UDP or last.kind == LAYER_UDP_LITE or last.kind == LAYER_SCTP
                or last.kind == LAYER_DCCP) and last.marks == MARK_CUT and last.length >= 4
    return False


cdef bint hides_tunnel(const Walk *walk, const uint8_t *p, int64_t payload) noexcept nogil:
    """Whether what should be a tunnel over UDP is payload, because the walk does not know or does not believe it."""
    cdef const Layer *last = &walk.layers[walk.layer_count - 1]
    return (walk.layer_count and last.kind == LAYER_UDP and last.length >= 4 and payload < last.end
            and udp_opens(load16(p + last.offset), load16(p + last.offset + 2)))


cdef uint8_t rewrite_packet(Rewrite *rewrite, uint8_t *p, uint32_t n, uint16_t link_type, uint32_t *kept) noexcept nogil:
    cdef Walk walk
    cdef Places places
    cdef uint64_t[COUNTED] counts
    cdef int64_t payload
    cdef uint8_t verdict = UNDERSTOOD
    rewrite.packet = p
    rewrite.size = n
    rewrite.link_type = link_type
    rewrite.missing = rewrite.rewriting = rewrite.unknown = False
    rewrite.packets = 0
    kept[0] = n
    walk_headers(p, n, link_type, &walk)
    change_layers(rewrite, &walk, &places)
    if rewrite.missing:
        return MISSING
    memcpy(counts, rewrite.counts, sizeof(counts))
    memcpy(rewrite.before, p, min(n, BEFORE_MAX))
    rewrite.rewriting = True
    rewrite.packets = 0
    payload = change_layers(rewrite, &walk, &places)
    if not is_understood(&walk):
        verdict = NOT_UNDERSTOOD + walk.outcome
        kept[0] = walk.at
    elif rewrite.unknown:
        verdict = NOT_UNDERSTOOD + OUTCOME_UNKNOWN
        kept[0] = rewrite.unknown_at
    elif rewrite.payload == KEEP and hides_tunnel(&walk, p, payload):
        verdict = NOT_UNDERSTOOD + OUTCOME_UNKNOWN
        kept[0] = <uint32_t> payload
    elif payload < n:
        if rewrite.payload == ZERO:
            put_zeros(rewrite, p + payload, n - payload)
        elif rewrite.payload == TRUNCATE:
            kept[0] = <uint32_t> payload
        rewrite.counts[LEFT_PAYLOAD if rewrite.payload == KEEP else COUNT_PAYLOAD] += 1
    if verdict != UNDERSTOOD and rewrite.drops:
        memcpy(rewrite.counts, counts, sizeof(counts))
        return verdict
    adjust_layers(rewrite, &walk, &places)
    return verdict
