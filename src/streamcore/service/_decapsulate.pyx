"""Takes packets out of their tunnels: decides which bytes of a packet stay, and makes their new link header. The walk finds everything.

Link headers: RFC 894, 2464 (Ethernet), 1661, 1332, 5072 (PPP); for the others, https://www.tcpdump.org/linktypes.html.
"""

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from streamcore.core.packets cimport FLAG_FRAGMENT
from streamcore.headers._walk cimport (
    LAYER_ETHERNET,
    LAYER_EXTENSION,
    LAYER_IP4,
    LAYER_IP6,
    MARK_CUT,
    MARK_QUOTED,
    TUNNEL_KINDS,
    Layer,
    UdpPorts,
    UdpTable,
    Walk,
    be16,
    walk_headers,
)

cdef enum Fate:
    # What became of a packet. FATES has their names.
    STRIPPED = 0
    NO_TUNNEL                # it is not in a tunnel
    OTHER_KIND               # its tunnels are not among those to strip
    FRAGMENT                 # the packet inside is a fragment, which would have to be reassembled first
    NOTHING_WITHIN           # the tunnel contains no Ethernet frame and no IP packet that the walk found
    NO_LINK_HEADER           # its link type has no header for what is inside
    FATES_COUNT

FATES = ("stripped", "in_no_tunnel", "in_other_tunnels", "fragments", "nothing_found_within", "no_link_header_for_it")

cdef enum:
    HEAD_MAX = 20
    NO_HEAD = 0xFFFF         # larger than any length
    FRAGMENT_HEADER = 44
    LINK_NULL = 0
    LINK_ETHERNET = 1
    LINK_PPP = 9
    LINK_HDLC = 104
    LINK_LOOP = 108
    LINK_COOKED = 113
    LINK_IP4 = 228
    LINK_IP6 = 229
    LINK_COOKED2 = 276


def strip(const uint8_t[::1] data not None, const uint32_t[::1] offset not None, const uint32_t[::1] captured_length not None,
          const uint32_t[::1] wire_length not None, const uint16_t[::1] link_type not None, UdpPorts ports not None,
          const uint8_t[::1] kinds not None, int tunnels_max):
    """Strip the tunnels; returns (data, offset, captured_length, wire_length, fates[6], packets stripped by kind of their outermost tunnel).

    ports: which tunnels over UDP are tried. kinds: uint8[TUNNEL_KINDS], 1 for those to strip. tunnels_max: how many tunnels to strip, counted from
    the outside, as long as each is of these kinds. A packet that is not stripped stays as it is. Raises ValueError for a packet outside data.
    Releases the GIL.
    """
    cdef Py_ssize_t count = offset.shape[0]
    cdef Py_ssize_t i
    cdef uint64_t total = 0
    cdef uint32_t used = 0
    cdef int fate
    cdef uint8_t kind = 0
    if captured_length.shape[0] != count or wire_length.shape[0] != count or link_type.shape[0] != count or kinds.shape[0] != TUNNEL_KINDS:
        raise ValueError("the columns have different lengths")
    for i in range(count):
        if <uint64_t> offset[i] + captured_length[i] > <uint64_t> data.shape[0]:
            raise ValueError(f"packet {i} is outside the data")
        total += captured_length[i]
    if total > 0xFFFFFFFF:
        raise ValueError(f"the packets have {total} bytes, which is too much")
    # No packet grows: strip_one checks that the removed bytes outweigh the new link header, which has at most HEAD_MAX.
    cdef uint8_t[::1] stripped = np.empty(total + 1, np.uint8)
    cdef uint32_t[::1] placed = np.empty(count, np.uint32)
    cdef uint32_t[::1] captured = np.empty(count, np.uint32)
    cdef uint32_t[::1] wire = np.empty(count, np.uint32)
    cdef uint32_t[FATES_COUNT] fates
    cdef uint32_t[TUNNEL_KINDS] by_kind
    for i in range(FATES_COUNT):
        fates[i] = 0
    for i in range(TUNNEL_KINDS):
        by_kind[i] = 0
    with nogil:
        for i in range(count):
            placed[i] = used
            captured[i] = captured_length[i]
            wire[i] = wire_length[i]
            fate = strip_one(&ports.table, &data[0] + offset[i], link_type[i], &kinds[0], tunnels_max, &stripped[used], &captured[i], &wire[i],
                             &kind)
            fates[fate] += 1
            by_kind[kind] += fate == STRIPPED
            used += captured[i]
    return (np.asarray(stripped)[:used], np.asarray(placed), np.asarray(captured), np.asarray(wire), [fates[i] for i in range(FATES_COUNT)],
            [by_kind[i] for i in range(TUNNEL_KINDS)])


cdef int strip_one(const UdpTable *udp, const uint8_t *p, uint16_t link_type, const uint8_t *kinds, int tunnels_max, uint8_t *target,
                   uint32_t *captured, uint32_t *wire, uint8_t *kind) noexcept nogil:
    """Write one packet to target, which has room for its captured bytes, and return its fate. kind: of its outermost tunnel."""
    cdef Walk walk
    cdef uint8_t[HEAD_MAX] head
    cdef uint32_t head_size, size
    cdef const Layer *layer = NULL
    cdef int fate
    walk_headers(udp, p, captured[0], link_type, &walk)
    fate = find(&walk, p, link_type, kinds, tunnels_max, &layer)
    if fate == STRIPPED:
        head_size = link_head(p, link_type, &walk, layer, head)
        if head_size > layer.offset:  # true for NO_HEAD, too
            fate = NO_LINK_HEADER
    if fate != STRIPPED:
        memcpy(target, p, captured[0])
        return fate
    kind[0] = walk.tunnels[0].kind
    size = layer.end - layer.offset
    memcpy(target, head, head_size)
    memcpy(target + head_size, p + layer.offset, size)
    wire[0] = head_size + max(size, wire_end(&walk, p, layer, captured[0], wire[0]) - layer.offset)
    captured[0] = head_size + size
    return STRIPPED


cdef int find(const Walk *walk, const uint8_t *p, uint16_t link_type, const uint8_t *kinds, int tunnels_max, const Layer **layer) noexcept nogil:
    """The header with which the packet inside the stripped tunnels begins, or the reason why there is none.

    A cut header suffices if the packet was captured in part: what stays is then a packet captured in part, too.
    """
    cdef int count = 0, i
    if walk.tunnel_count == 0:
        return FRAGMENT if walk.outer.flags & FLAG_FRAGMENT and walk.outer.fragment_offset else NO_TUNNEL
    while count < walk.tunnel_count and count < tunnels_max and kinds[walk.tunnels[count].kind]:
        count += 1
    if count == 0:
        return OTHER_KIND
    # From the innermost: a tunnel stays if nothing is found in it or if it holds a fragment, and only those around it go.
    while count:
        for i in range(walk.tunnels[count - 1].layer, walk.layer_count):
            if walk.layers[i].marks & MARK_QUOTED:
                break
            if walk.layers[i].kind == LAYER_IP4 or walk.layers[i].kind == LAYER_IP6 or (
                    walk.layers[i].kind == LAYER_ETHERNET and link_type == LINK_ETHERNET):
                if walk.layers[i].marks & MARK_CUT and walk.layers[i].length == 0:
                    break
                if fragmented(walk, p, i):
                    break
                layer[0] = &walk.layers[i]
                return STRIPPED
        count -= 1
    return FRAGMENT if fragmented(walk, p, walk.tunnels[0].layer) else NOTHING_WITHIN


cdef bint fragmented(const Walk *walk, const uint8_t *p, int stop) noexcept nogil:
    """Whether an IP header in the layers before `stop` marks its packet as a fragment."""
    cdef const Layer *layer
    cdef int i
    for i in range(stop):
        layer = &walk.layers[i]
        if layer.kind == LAYER_IP4 and layer.length >= 20 and be16(p + layer.offset + 6) & 0x3FFF:
            return True
        if layer.kind == LAYER_EXTENSION and layer.detail == FRAGMENT_HEADER and layer.length >= 8 and be16(p + layer.offset + 2) & 0xFFF9:
            return True
    return False


cdef int64_t wire_end(const Walk *walk, const uint8_t *p, const Layer *within, uint32_t captured, uint32_t wire) noexcept nogil:
    """Where the packet that begins with `within` ended on the wire: beyond the captured bytes only if the capture cut it, and no later than its own
    IP headers and those around it allow."""
    cdef const Layer *layer
    cdef int64_t end = max(wire, captured), said
    cdef int i
    if within.end < captured or wire <= captured:
        return within.end
    for i in range(walk.layer_count):
        layer = &walk.layers[i]
        if layer.offset > within.offset:
            break
        said = 0
        if layer.kind == LAYER_IP4 and layer.length >= 20:
            said = be16(p + layer.offset + 2)
        elif layer.kind == LAYER_IP6 and layer.length >= 40 and be16(p + layer.offset + 4):
            said = 40 + be16(p + layer.offset + 4)
        if said and layer.offset + said < end:
            end = layer.offset + said
    return end


cdef uint32_t link_head(const uint8_t *p, uint16_t link_type, const Walk *walk, const Layer *within, uint8_t *head) noexcept nogil:
    """Write the link header for what begins with `within`; returns its length, or NO_HEAD if this link type has none for that.

    Its addresses are those of the outer packet. The outer tags and labels go, because they concern the outer path only.
    """
    cdef bint six = within.kind == LAYER_IP6
    cdef uint16_t ether_type = 0x86DD if six else 0x0800
    cdef uint32_t size
    if within.kind == LAYER_ETHERNET:
        return 0
    if link_type == 12 or link_type == 14 or link_type == 101 or (link_type == LINK_IP6 if six else link_type == LINK_IP4):
        return 0
    if link_type == LINK_NULL or link_type == LINK_LOOP:  # each system has its own number for the IPv6 family
        if walk.outer.version != (6 if six else 4):
            return NO_HEAD
        memcpy(head, p, 4)
        return 4
    if link_type == LINK_PPP:
        head[0], head[1], head[2], head[3] = 0xFF, 0x03, 0x00, 0x57 if six else 0x21
        return 4
    if link_type == LINK_ETHERNET:
        size = 14
    elif link_type == LINK_COOKED:
        size = 16
    elif link_type == LINK_HDLC:
        size = 4
    elif link_type == LINK_COOKED2:
        memcpy(head, p, 20)
        head[0], head[1] = <uint8_t> (ether_type >> 8), <uint8_t> ether_type
        return 20
    else:
        return NO_HEAD
    memcpy(head, p, size)
    head[size - 2], head[size - 1] = <uint8_t> (ether_type >> 8), <uint8_t> ether_type
    return size
