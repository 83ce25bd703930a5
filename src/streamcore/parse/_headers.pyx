"""The general parser: one packet's bytes -> Headers. Never reads beyond `size`, trusts no length field beyond it, and keeps what it had.

Link types: Ethernet with VLAN tags and LLC/SNAP, raw IP, Linux SLL and SLL2, BSD loopback. Others are a new branch in `link_layer`; a tunnel
is a new branch in `upper_layer`, which says where the next IP header stands. Columns, flows and batches are not known here.
Sources: RFC 791, 8200, 4302, 9293, 768, 3828, 4340, 9260, 792, 4443; IEEE 802.1Q; the tcpdump group's LINKTYPE pages.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from streamcore.core.packets cimport (
    FLAG_DEPTH,
    FLAG_FRAGMENT,
    FLAG_LINK_UNKNOWN,
    FLAG_MALFORMED,
    FLAG_MORE_FRAGMENTS,
    FLAG_PORTS,
    FLAG_TRUNCATED,
    NO_OFFSET,
    VLAN_KEPT,
)

cdef enum:
    LAYERS_MAX = 16      # link, VLAN, IP and extension headers together would be no limit: IP headers stacked
    EXTENSIONS_MAX = 16  # IPv6 extension headers of one IP header
    ETHER_IPV4 = 0x0800
    ETHER_IPV6 = 0x86DD
    NOTHING = -1         # no IP header there


cdef inline uint16_t be16(const uint8_t *at) noexcept nogil:
    return <uint16_t> ((at[0] << 8) | at[1])


cdef inline uint32_t be32(const uint8_t *at) noexcept nogil:
    return (<uint32_t> at[0] << 24) | (at[1] << 16) | (at[2] << 8) | at[3]


cdef inline void clear(Layer *layer) noexcept nogil:
    memset(layer, 0, sizeof(Layer))
    layer.l3 = layer.l4 = layer.payload = NO_OFFSET


cdef void parse_headers(const uint8_t *packet, uint32_t size, uint16_t link_type, Headers *headers) noexcept nogil:
    """Fill headers. Offsets beyond 65534 count as truncated: no header that we parse stands there."""
    cdef int at
    cdef Layer further
    clear(&headers.outer)
    clear(&headers.inner)
    headers.depth = headers.vlan_count = 0
    memset(headers.vlan, 0, sizeof(headers.vlan))
    headers.ether_type = 0
    headers.known = True
    if size >= NO_OFFSET:
        size = NO_OFFSET - 1
    at = link_layer(packet, size, link_type, headers)
    while at != NOTHING:
        if headers.depth == LAYERS_MAX:
            headers.outer.flags |= FLAG_DEPTH
            return
        if headers.depth == 0:
            at = ip_layer(packet, &size, <uint32_t> at, &headers.outer)
            if headers.outer.version == 0:
                return
        else:
            clear(&further)
            at = ip_layer(packet, &size, <uint32_t> at, &further)
            if further.version == 0:  # the innermost one found stays what it was
                headers.outer.flags |= further.flags
                return
            headers.inner = further
        headers.depth += 1


cdef int link_layer(const uint8_t *packet, uint32_t size, uint16_t link_type, Headers *headers) noexcept nogil:
    """Where the IP header stands, or NOTHING."""
    cdef uint32_t family
    if link_type == 1:  # Ethernet
        if size < 14:
            headers.outer.flags |= FLAG_TRUNCATED
            return NOTHING
        return ether_type_layer(packet, size, 14, be16(packet + 12), headers)
    if link_type == 12 or link_type == 14 or link_type == 101 or link_type == 228 or link_type == 229:  # raw IP
        return 0
    if link_type == 113:  # Linux cooked
        if size < 16:
            headers.outer.flags |= FLAG_TRUNCATED
            return NOTHING
        if be16(packet + 2) == 824:  # netlink: the field is a netlink family
            return NOTHING
        return ether_type_layer(packet, size, 16, be16(packet + 14), headers)
    if link_type == 276:  # Linux cooked, version 2
        if size < 20:
            headers.outer.flags |= FLAG_TRUNCATED
            return NOTHING
        if be16(packet + 8) == 824:
            return NOTHING
        return ether_type_layer(packet, size, 20, be16(packet), headers)
    if link_type == 0 or link_type == 108:  # BSD loopback: an address family in the capturing host's order, or in network order
        if size < 4:
            headers.outer.flags |= FLAG_TRUNCATED
            return NOTHING
        family = be32(packet)
        if family > 0xFFFF:
            family = packet[0] | (packet[1] << 8)
        if family == 2 or family == 10 or family == 23 or family == 24 or family == 28 or family == 30:
            headers.ether_type = ETHER_IPV4 if family == 2 else ETHER_IPV6
            return 4
        return ether_type_layer(packet, size, 4, <uint16_t> family, headers) if family > 1500 else NOTHING
    headers.outer.flags |= FLAG_LINK_UNKNOWN
    headers.known = False
    return NOTHING


cdef int ether_type_layer(const uint8_t *packet, uint32_t size, uint32_t at, uint16_t kind, Headers *headers) noexcept nogil:
    """Follow what may stand between an EtherType and IP; at: the byte after it. Every turn moves `at` forward.

    Any number of VLAN tags; the tags of port extenders (IEEE 802.1BR, VN-Tag) and Cisco metadata; Ethernet in Ethernet (IEEE 802.1ah, FabricPath); LLC and
    SNAP (IEEE 802.2, RFC 1042); MPLS (RFC 3032) and its Ethernet pseudowire (RFC 4448); PPPoE (RFC 2516).
    """
    cdef uint32_t length, type_at
    cdef int encapsulations = 0
    while True:
        headers.ether_type = kind
        if kind == ETHER_IPV4 or kind == ETHER_IPV6:
            return <int> at
        if kind == 0x8100 or kind == 0x88A8 or kind == 0x9100:
            if at + 4 > size:
                return cut(headers)
            if headers.vlan_count < VLAN_KEPT:
                headers.vlan[headers.vlan_count] = be16(packet + at) & 0x0FFF
            if headers.vlan_count < 255:
                headers.vlan_count += 1
            kind = be16(packet + at + 2)
            at += 4
            continue
        if encapsulations == LAYERS_MAX:
            headers.outer.flags |= FLAG_DEPTH
            return NOTHING
        encapsulations += 1
        if kind <= 1500:
            if at + 3 <= size and packet[at] == 0x06 and packet[at + 1] == 0x06 and packet[at + 2] == 3:
                return <int> at + 3
            if at + 8 > size or packet[at] != 0xAA or packet[at + 1] != 0xAA or packet[at + 2] != 3 or be16(packet + at + 3) != 0 or (
                    packet[at + 5] != 0 and packet[at + 5] != 0xF8):
                return NOTHING
            length = 8
            type_at = at + 6
        elif kind == 0x8926:    # VN-Tag
            length = 6
            type_at = at + 4
        elif kind == 0x893F or kind == 0x8909:  # E-Tag; Cisco metadata
            length = 8
            type_at = at + 6
        elif kind == 0x88E7:    # I-Tag, then a whole Ethernet header
            length = 18
            type_at = at + 16
        elif kind == 0x8903:    # FabricPath: tree and time to live, then a whole Ethernet header
            length = 16
            type_at = at + 14
        elif kind == 0x8864:    # PPPoE: version and type, code, session, length; the PPP protocol
            if at + 8 > size:
                return cut(headers)
            kind = be16(packet + at + 6)
            return <int> at + 8 if kind == 0x0021 or kind == 0x0057 else NOTHING
        elif kind == 0x8847 or kind == 0x8848:
            while True:
                if at + 4 > size:
                    return cut(headers)
                at += 4
                if packet[at - 2] & 1:
                    break
            if at >= size:
                return NOTHING
            if packet[at] >> 4 == 4 or packet[at] >> 4 == 6:
                return <int> at
            if packet[at] >> 4 != 0:
                return NOTHING
            length = 18         # a pseudowire's control word, then a whole Ethernet header
            type_at = at + 16
        else:
            return NOTHING
        if at + length > size:
            return cut(headers)
        kind = be16(packet + type_at)
        at += length


cdef inline int cut(Headers *headers) noexcept nogil:
    headers.outer.flags |= FLAG_TRUNCATED
    return NOTHING


cdef int ip_layer(const uint8_t *packet, uint32_t *size, uint32_t at, Layer *layer) noexcept nogil:
    """Parse the IP header at `at`, by its version, and what follows. Returns where a further IP header stands, or NOTHING.

    What is behind the length that the header tells is padding: `size` ends there from now on, for headers further in too.
    """
    if at >= size[0]:
        layer.flags |= FLAG_TRUNCATED
        return NOTHING
    if packet[at] >> 4 == 4:
        return ipv4_layer(packet, size, at, layer)
    if packet[at] >> 4 == 6:
        return ipv6_layer(packet, size, at, layer)
    layer.flags |= FLAG_MALFORMED
    return NOTHING


cdef int ipv4_layer(const uint8_t *packet, uint32_t *size, uint32_t at, Layer *layer) noexcept nogil:
    cdef const uint8_t *header = packet + at
    cdef uint32_t length, total
    cdef uint16_t fragment
    if at + 20 > size[0]:
        layer.flags |= FLAG_TRUNCATED
        return NOTHING
    length = (header[0] & 15) * 4
    if length < 20:
        layer.flags |= FLAG_MALFORMED
        return NOTHING
    layer.version = 4
    layer.l3 = <uint16_t> at
    layer.protocol = header[9]
    layer.source = header + 12
    layer.target = header + 16
    fragment = be16(header + 6)
    layer.fragment_offset = fragment & 0x1FFF
    layer.identification = be16(header + 4)
    if fragment & 0x3FFF:
        layer.flags |= FLAG_FRAGMENT
    if fragment & 0x2000:
        layer.flags |= FLAG_MORE_FRAGMENTS
    total = be16(header + 2)
    if total >= length:
        if at + total < size[0]:
            size[0] = at + total
    elif total:  # 0: segmentation offload, the packet's own length counts
        layer.flags |= FLAG_MALFORMED
        return NOTHING
    if at + length > size[0]:
        layer.flags |= FLAG_TRUNCATED
        return NOTHING
    if layer.fragment_offset:
        return NOTHING
    return upper_layer(packet, size[0], at + length, layer.protocol, layer)


cdef int ipv6_layer(const uint8_t *packet, uint32_t *size, uint32_t at, Layer *layer) noexcept nogil:
    cdef const uint8_t *header = packet + at
    cdef uint32_t next_at, length
    cdef uint8_t kind
    cdef uint16_t fragment
    cdef int i
    if at + 40 > size[0]:
        layer.flags |= FLAG_TRUNCATED
        return NOTHING
    layer.version = 6
    layer.l3 = <uint16_t> at
    layer.source = header + 8
    layer.target = header + 24
    length = be16(header + 4)
    if length and at + 40 + length < size[0]:  # 0: a jumbogram or offload
        size[0] = at + 40 + length
    kind = header[6]
    next_at = at + 40
    for i in range(EXTENSIONS_MAX):
        layer.protocol = kind
        if kind != 0 and kind != 43 and kind != 60 and kind != 44:
            return upper_layer(packet, size[0], next_at, kind, layer)
        if next_at + 8 > size[0]:
            layer.flags |= FLAG_TRUNCATED
            return NOTHING
        header = packet + next_at
        kind = header[0]
        if layer.protocol == 44:
            fragment = be16(header + 2)
            layer.fragment_offset = fragment >> 3
            layer.identification = be32(header + 4)
            if fragment & 1:
                layer.flags |= FLAG_MORE_FRAGMENTS
            if fragment & 0xFFF9:
                layer.flags |= FLAG_FRAGMENT
            next_at += 8
            if layer.fragment_offset:
                layer.protocol = kind
                return NOTHING
        else:
            next_at += (header[1] + 1) * 8
            if next_at > size[0]:
                layer.protocol = kind
                layer.flags |= FLAG_TRUNCATED
                return NOTHING
    layer.flags |= FLAG_DEPTH
    return NOTHING


cdef int upper_layer(const uint8_t *packet, uint32_t size, uint32_t at, uint8_t protocol, Layer *layer) noexcept nogil:
    """Parse the header after an IP header: ports, and where the payload begins. Returns where a further IP header stands, or NOTHING."""
    cdef uint32_t length
    if protocol == 51:  # AH: what it protects follows
        if at + 12 > size:
            layer.flags |= FLAG_TRUNCATED
            return NOTHING
        length = (packet[at + 1] + 2) * 4
        if at + length > size:
            layer.flags |= FLAG_TRUNCATED
            return NOTHING
        protocol = packet[at]
        at += length
    if protocol == 4 or protocol == 41:  # IP in IP
        layer.l4 = <uint16_t> at
        if at >= size:
            layer.flags |= FLAG_TRUNCATED
            return NOTHING
        return <int> at
    if protocol == 6:
        length = 20
    elif protocol == 17 or protocol == 136 or protocol == 1 or protocol == 58:
        length = 8
    elif protocol == 132:
        length = 12
    elif protocol == 33:
        length = 12
    else:
        if at < size:
            layer.l4 = <uint16_t> at
        return NOTHING
    if at < size:
        layer.l4 = <uint16_t> at
    if protocol != 1 and protocol != 58 and at + 4 <= size:
        layer.source_port = be16(packet + at)
        layer.target_port = be16(packet + at + 2)
        layer.flags |= FLAG_PORTS
    if at + length > size:
        layer.flags |= FLAG_TRUNCATED
        return NOTHING
    if protocol == 6:
        length = (packet[at + 12] >> 4) * 4
        if length < 20:
            layer.flags |= FLAG_MALFORMED
            return NOTHING
    elif protocol == 33:
        length = packet[at + 4] * 4
        if length < 12:
            layer.flags |= FLAG_MALFORMED
            return NOTHING
    if at + length > size:
        layer.flags |= FLAG_TRUNCATED
        return NOTHING
    layer.payload = <uint16_t> (at + length)
    return NOTHING
