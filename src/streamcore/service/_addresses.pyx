"""The slow, complete way to every address of one packet: the walk over the headers finds the layers, and each kind of layer has a line here
that says what rewrites it.

A packet is walked once, and its layers are visited twice: first to check that every address is known, then, after copying the packet, to
rewrite them. Checksums are adjusted last (_checksums.pyx). Bytes that were not captured are left out. A new kind of layer with addresses needs
one line in `change_layer`.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from streamcore.headers._ip cimport step_ip
from streamcore.headers._walk cimport (
    LAYER_AH,
    LAYER_CONTROL_WORD,
    LAYER_LINK,
    LAYER_LLC,
    LAYER_MPLS,
    LAYER_OSPF,
    LAYER_PIM,
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
    LAYER_VRRP,
    LAYER_WIFI,
    MARK_CUT,
    OUTCOME_CONTROL,
    OUTCOME_FRAGMENT,
    OUTCOME_NOTHING,
    OUTCOME_TRANSPORT,
    OUTCOME_TRUNCATED,
    OUTCOME_UNKNOWN,
    OUTCOMES_COUNT,
    TUNNEL_PIM,
    Layer,
    Walk,
    udp_hides,
    walk_from,
    walk_headers,
)
from streamcore.service._checksums cimport Places, adjust_layers
from streamcore.service._control cimport change_arp, change_icmp4, change_icmp6, change_igmp
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
    change4,
    change6,
    change_mac,
    load16,
    put_zeros,
    unknown,
)
from streamcore.service._frame_check cimport adjust_frame_check
from streamcore.service._fragments cimport is_alone, is_payload, note_first
from streamcore.service._header_options cimport change_dccp, change_extension, change_options4, change_tcp
from streamcore.service._links cimport change_capture, change_link, change_wifi
from streamcore.service._messages cimport change_dhcp, change_sctp, is_dhcp
from streamcore.service._names cimport change_names, holds_names
from streamcore.service._routing cimport change_ospf, change_pim, change_vrrp
from streamcore.service._tunnels cimport change_tunnel

cdef enum:
    PACKETS_MAX = 8          # packets quoted in the neighbour discovery options of one packet


cdef void change_packet(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Rewrite a packet quoted in an option, with a walk of its own. At most PACKETS_MAX, nested or side by side."""
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
    walk_from(rewrite.udp, rewrite.packet, <uint32_t> at, <uint32_t> (at + n), step_ip, &walk)
    end = change_layers(rewrite, &walk, &places)
    if not is_understood(rewrite, &walk) and walk.outcome != OUTCOME_TRUNCATED or rewrite.payload != KEEP:
        put_zeros(rewrite, rewrite.packet + end, at + n - end)  # padding: the option gives its own size
    put_zeros(rewrite, rewrite.packet + walk.end, at + n - walk.end)  # behind what its headers say that it has
    adjust_layers(rewrite, &walk, &places)
    rewrite.source_at, rewrite.target_at = source_at, target_at


# Addresses, from the outermost layer inwards.

cdef int64_t change_layer(Rewrite *rewrite, uint8_t *p, const Layer *layer) noexcept nogil:
    """Rewrite the addresses in one layer. Returns how many of its bytes are not payload."""
    cdef int64_t n = <int64_t> layer.end - layer.offset
    cdef int kind = layer.kind
    if n == 0:
        return 0
    if kind == LAYER_ETHERNET:
        change_mac(rewrite, p, n, 6)
        change_mac(rewrite, p + 6, n - 6, 6)
    elif kind == LAYER_IP4:
        rewrite.source_at, rewrite.target_at, rewrite.ip_version = layer.offset + 12, layer.offset + 16, 4
        change4(rewrite, p + 12, n - 12)
        change4(rewrite, p + 16, n - 16)
        if layer.length > 20:
            change_options4(rewrite, p, layer.length)
    elif kind == LAYER_IP6:
        rewrite.source_at, rewrite.target_at, rewrite.ip_version = layer.offset + 8, layer.offset + 24, 6
        change6(rewrite, p + 8, n - 8)
        change6(rewrite, p + 24, n - 24)
    elif kind == LAYER_EXTENSION:
        change_extension(rewrite, p, layer.length, layer.detail)
    elif kind == LAYER_TCP:
        if layer.length > 20:
            change_tcp(rewrite, p, layer.length)
    elif kind == LAYER_DCCP:
        if layer.length > 12:
            change_dccp(rewrite, p, layer.length)
    elif kind == LAYER_ICMP4:
        return change_icmp4(rewrite, p, n)
    elif kind == LAYER_ICMP6:
        return change_icmp6(rewrite, p, n)
    elif kind == LAYER_IGMP:
        return change_igmp(rewrite, p, n)
    elif kind == LAYER_OSPF:
        return change_ospf(rewrite, p, n)
    elif kind == LAYER_VRRP:
        return change_vrrp(rewrite, p, n)
    elif kind == LAYER_PIM:
        return change_pim(rewrite, p, n)
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
        change_link(rewrite, p, layer.length, rewrite.link_type, layer.offset == 0)
    elif kind == LAYER_TUNNEL:
        change_tunnel(rewrite, p, layer.length, layer.detail)
    elif kind == LAYER_TAG:
        if layer.length > 8:  # hardware addresses of ISL, batman-adv, mesh control and MACsec's channel, options of TRILL
            unknown(rewrite, p)
    elif not (kind == LAYER_VLAN or kind == LAYER_LLC or kind == LAYER_MPLS or kind == LAYER_CONTROL_WORD
              or kind == LAYER_PPPOE or kind == LAYER_PPP or kind == LAYER_UDP or kind == LAYER_UDP_LITE
              or kind == LAYER_SCTP):
        unknown(rewrite, p)  # the walk knows more kinds of layer than this function
    return layer.length


cdef int64_t change_layers(Rewrite *rewrite, const Walk *walk, Places *places) noexcept nogil:
    """Rewrite the addresses of a walked packet, or only check that all are known. Returns where its payload begins."""
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
        if current >= 0:  # options and extension headers may change which addresses count
            places.source[current], places.target[current] = rewrite.source_at, rewrite.target_at
        payload = max(payload, min(<int64_t> layer.offset + own, <int64_t> layer.end))
    if rewrite.payload == KEEP and walk.layer_count:
        change_message(rewrite, &walk.layers[walk.layer_count - 1], payload)
    return payload


cdef void change_message(Rewrite *rewrite, const Layer *layer, int64_t payload) noexcept nogil:
    """Rewrite a transport's message if addresses are what it is about."""
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


# The packet.

cdef bint is_understood(const Rewrite *rewrite, const Walk *walk) noexcept nogil:
    """Whether every header is understood, up to and including a transport header or a control protocol. If the capture cuts the transport header,
    the ports suffice, because the part that is there contains nothing else to rewrite. A later fragment depends on its first one."""
    cdef const Layer *last
    if walk.more:  # the others were not walked
        return False
    if walk.outcome == OUTCOME_TRANSPORT or walk.outcome == OUTCOME_CONTROL:
        return True
    if walk.outcome == OUTCOME_FRAGMENT:
        return is_payload(rewrite.firsts, walk, rewrite.hash_key)
    if walk.outcome == OUTCOME_NOTHING:
        return walk.at >= walk.end
    if walk.outcome == OUTCOME_TRUNCATED and walk.layer_count:
        if walk.tunnel_kind == TUNNEL_PIM and walk.at >= walk.end:  # a null register with just an IP header
            return True
        last = &walk.layers[walk.layer_count - 1]
        return is_transport(last.kind) and last.marks == MARK_CUT and last.length >= 4
    return False


cdef inline bint is_transport(uint8_t kind) noexcept nogil:
    return kind == LAYER_TCP or kind == LAYER_UDP or kind == LAYER_UDP_LITE or kind == LAYER_SCTP or kind == LAYER_DCCP


cdef bint hides_tunnel(const Walk *walk, const uint8_t *p, int64_t payload) noexcept nogil:
    """Whether a payload may be a tunnel over UDP that the walk does not know or did not accept."""
    cdef const Layer *last = &walk.layers[walk.layer_count - 1]
    return (walk.layer_count and last.kind == LAYER_UDP and last.length >= 4 and payload < last.end
            and udp_hides(walk.udp, load16(p + last.offset), load16(p + last.offset + 2)))


cdef bint ends_in_payload(const Rewrite *rewrite, const Walk *walk, const uint8_t *p, int64_t payload) noexcept nogil:
    """Whether nothing but payload follows an understood packet: no message about addresses goes on there."""
    cdef const Layer *last = &walk.layers[walk.layer_count - 1]
    cdef uint16_t source, target
    if walk.layer_count == 0 or last.marks:
        return False
    if rewrite.payload != KEEP:  # nothing of it will be left
        return True
    p += last.offset
    if last.kind == LAYER_ICMP4:
        return p[0] == 0 or p[0] == 8
    if last.kind == LAYER_ICMP6:
        return p[0] == 128 or p[0] == 129
    if last.kind == LAYER_SCTP or not is_transport(last.kind):
        return False
    source, target = load16(p), load16(p + 2)
    if last.kind == LAYER_UDP and is_dhcp(source, target):
        return False
    return not (rewrite.names and holds_names(rewrite.packet + payload, <int64_t> last.end - payload, source, target, last.kind == LAYER_UDP))


cdef uint8_t judged(Rewrite *rewrite, const Walk *walk, bint walked, bint alone, int64_t payload, uint32_t *kept) noexcept nogil:
    """The verdict on a packet whose layers were visited; if it is not understood, `kept` becomes the number of bytes that may stay. walked:
    is_understood, alone: is_alone, both asked before anything was rewritten. payload: where it begins."""
    if not walked:
        kept[0] = walk.at
        return <uint8_t> (NOT_UNDERSTOOD + (<int> OUTCOMES_COUNT if alone else <int> walk.outcome))
    if rewrite.unknown:
        kept[0] = rewrite.unknown_at
    elif rewrite.payload == KEEP and hides_tunnel(walk, rewrite.packet, payload):
        kept[0] = <uint32_t> payload
    else:
        return UNDERSTOOD
    return NOT_UNDERSTOOD + OUTCOME_UNKNOWN


cdef uint8_t rewrite_packet(Rewrite *rewrite, uint8_t *p, uint32_t n, uint16_t link_type, uint32_t *kept) noexcept nogil:
    cdef Walk walk
    cdef Places places
    cdef uint64_t[COUNTED] counts
    cdef int64_t payload
    cdef uint8_t verdict
    cdef bint walked
    cdef bint alone = False
    rewrite.packet = p
    rewrite.size = n
    rewrite.link_type = link_type
    rewrite.missing = rewrite.rewriting = rewrite.unknown = False
    rewrite.packets = 0
    kept[0] = n
    walk_headers(rewrite.udp, p, n, link_type, &walk)
    payload = change_layers(rewrite, &walk, &places)
    if rewrite.first_pass and walk.outcome == OUTCOME_FRAGMENT:
        return MISSING  # until all first fragments are noted
    walked = is_understood(rewrite, &walk)
    if walk.outcome == OUTCOME_FRAGMENT and not walked:
        alone = is_alone(rewrite.firsts, &walk, rewrite.hash_key)
    if rewrite.first_pass:
        verdict = judged(rewrite, &walk, walked, alone, payload, kept)
        note_first(rewrite.firsts, &walk, rewrite.hash_key, verdict == UNDERSTOOD and ends_in_payload(rewrite, &walk, p, payload), payload)
        kept[0] = n
    if rewrite.missing:
        return MISSING
    memcpy(counts, rewrite.counts, sizeof(counts))
    memcpy(rewrite.before, p, min(n, BEFORE_MAX))
    rewrite.rewriting = True
    rewrite.packets = 0
    payload = change_layers(rewrite, &walk, &places)
    verdict = judged(rewrite, &walk, walked, alone, payload, kept)
    if verdict == UNDERSTOOD and payload < n:
        if rewrite.payload == ZERO:
            put_zeros(rewrite, p + payload, n - payload)
        elif rewrite.payload == TRUNCATE:
            kept[0] = <uint32_t> payload
        rewrite.counts[LEFT_PAYLOAD if rewrite.payload == KEEP else COUNT_PAYLOAD] += 1
    if verdict != UNDERSTOOD and rewrite.drops:
        memcpy(rewrite.counts, counts, sizeof(counts))
        return verdict
    adjust_layers(rewrite, &walk, &places)
    if rewrite.payload == KEEP:
        adjust_frame_check(rewrite, &walk, payload)
    return verdict
