"""The loop of the walk and its tables: link type, EtherType, IP protocol -> step. What a header means stands in the other files here.

Nothing here knows a column, a flow, a batch or a service.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from streamcore.core.packets cimport FLAG_DEPTH, FLAG_LINK_UNKNOWN

KINDS = {
    LAYER_CAPTURE: "capture", LAYER_ETHERNET: "ethernet", LAYER_LINK: "link", LAYER_FDDI: "fddi", LAYER_WIFI: "wifi", LAYER_VLAN: "vlan",
    LAYER_TAG: "tag", LAYER_LLC: "llc", LAYER_MPLS: "mpls", LAYER_CONTROL_WORD: "control word", LAYER_PPPOE: "pppoe", LAYER_PPP: "ppp",
    LAYER_ARP: "arp", LAYER_IP4: "ip4", LAYER_IP6: "ip6", LAYER_EXTENSION: "extension", LAYER_AH: "ah", LAYER_TCP: "tcp", LAYER_UDP: "udp",
    LAYER_UDP_LITE: "udp-lite", LAYER_SCTP: "sctp", LAYER_DCCP: "dccp", LAYER_ICMP4: "icmp4", LAYER_ICMP6: "icmp6", LAYER_IGMP: "igmp",
    LAYER_TUNNEL: "tunnel",
}
TUNNELS = {TUNNEL_NONE: "", TUNNEL_IP: "ip", TUNNEL_GRE: "gre"}
MARKS = ("", "cut", "quoted", "quoted cut")
OUTCOMES = {
    OUTCOME_UNKNOWN: "unknown", OUTCOME_TRANSPORT: "transport", OUTCOME_CONTROL: "control", OUTCOME_FRAGMENT: "fragment",
    OUTCOME_NOTHING: "nothing", OUTCOME_ENCRYPTED: "encrypted", OUTCOME_TRUNCATED: "truncated", OUTCOME_MALFORMED: "malformed",
    OUTCOME_TOO_DEEP: "too deep", OUTCOME_LINK_UNKNOWN: "link unknown",
}

cdef enum:
    LINKS = 512              # link types beyond are not known

cdef Step[512] links
cdef Step[65536] ether_types
cdef Step[256] protocols
cdef uint8_t[65536] opening  # 1: a UDP port of tunnels


cdef void walk_headers(const uint8_t *packet, uint32_t size, uint16_t link_type, Walk *walk) noexcept nogil:
    if size >= NO_OFFSET:
        size = NO_OFFSET - 1
    begin(walk, packet, 0, size)
    go_link(walk, link_type)
    go_on(walk)


cdef void walk_from(const uint8_t *packet, uint32_t at, uint32_t end, Step step, Walk *walk) noexcept nogil:
    """As walk_headers, from a header in the midst of a packet: at <= end <= what is captured."""
    begin(walk, packet, at, end if end < NO_OFFSET else NO_OFFSET - 1)
    if at <= walk.end:
        walk.next = step
    go_on(walk)


cdef inline void begin(Walk *walk, const uint8_t *packet, uint32_t at, uint32_t end) noexcept nogil:
    memset(&walk.outer, 0, sizeof(IpHeader))
    memset(&walk.inner, 0, sizeof(IpHeader))
    walk.outer.l3 = walk.outer.l4 = walk.outer.payload = NO_OFFSET
    walk.inner.l3 = walk.inner.l4 = walk.inner.payload = NO_OFFSET
    memset(walk.vlan, 0, sizeof(walk.vlan))
    walk.packet = packet
    walk.at = at
    walk.end = end
    walk.next = NULL
    walk.ip = &walk.outer
    walk.marks = walk.outcome = walk.depth = walk.vlan_count = walk.tunnel_kind = 0
    walk.ether_type = 0
    walk.tunnel_id = 0
    walk.layer_count = 0


cdef inline void go_on(Walk *walk) noexcept nogil:
    cdef Step step
    while walk.next != NULL:
        step = walk.next
        walk.next = NULL
        step(walk)


cdef void too_deep(Walk *walk) noexcept nogil:
    walk.next = NULL
    walk.outer.flags |= FLAG_DEPTH
    ends(walk, OUTCOME_TOO_DEEP)


# What stands next. A number that no table knows ends the walk.

cdef void go_link(Walk *walk, int link_type) noexcept nogil:
    walk.next = links[link_type] if 0 <= link_type < LINKS else NULL
    if walk.next == NULL:
        walk.outer.flags |= FLAG_LINK_UNKNOWN
        ends(walk, OUTCOME_LINK_UNKNOWN)


cdef void go_ether_type(Walk *walk, uint16_t ether_type) noexcept nogil:
    if walk.depth == 0:
        walk.ether_type = ether_type
    walk.next = ether_types[ether_type]
    if walk.next == NULL:
        ends(walk, OUTCOME_UNKNOWN)


cdef void go_protocol(Walk *walk, uint8_t protocol) noexcept nogil:
    walk.number = protocol
    walk.next = protocols[protocol]
    if walk.next == NULL:
        if walk.at < walk.end:
            walk.ip.l4 = <uint16_t> walk.at
        ends(walk, OUTCOME_UNKNOWN)


cdef bint udp_opens(uint16_t source, uint16_t target) noexcept nogil:
    return opening[source] | opening[target]


cdef void step_ethernet(Walk *walk) noexcept nogil:
    cdef const uint8_t *p = here(walk)
    if take(walk, LAYER_ETHERNET, 14):
        go_ether_type(walk, be16(p + 12))


# Filling the tables.

# GTP-U, L2TP, Teredo, LISP, GRE, VXLAN and GPE, CAPWAP, Geneve, MPLS, VXLAN of old, TZSP.
for _port in (2152, 1701, 3544, 4341, 4754, 4789, 4790, 5246, 5247, 6081, 6635, 8472, 37008):
    opening[_port] = 1


cdef void register_link(int link_type, Step step) except *:
    if not 0 <= link_type < LINKS or links[link_type] != NULL:
        raise ValueError(f"link type {link_type} is known already, or no link type")
    links[link_type] = step


cdef void register_ether_type(int ether_type, Step step) except *:
    if not 0 <= ether_type < 65536 or ether_types[ether_type] != NULL:
        raise ValueError(f"EtherType {ether_type:#06x} is known already, or no EtherType")
    ether_types[ether_type] = step


cdef void register_protocol(int protocol, Step step) except *:
    if not 0 <= protocol < 256 or protocols[protocol] != NULL:
        raise ValueError(f"IP protocol {protocol} is known already, or no IP protocol")
    protocols[protocol] = step


def explain(const uint8_t[::1] packet, int link_type):
    """(layers, outcome, where understanding ends, tunnel kind, tunnel id) of one packet; a layer is (kind, offset, length, end, detail,
    marks: "", "cut", "quoted" or both). Slow: for looking at one."""
    cdef Walk walk
    walk_headers(&packet[0] if packet.shape[0] else NULL, <uint32_t> packet.shape[0], <uint16_t> link_type, &walk)
    layers = []
    for i in range(walk.layer_count):
        layer = walk.layers[i]
        layers.append((KINDS[layer.kind], layer.offset, layer.length, layer.end, layer.detail, MARKS[layer.marks]))
    return layers, OUTCOMES[walk.outcome], walk.at, TUNNELS[walk.tunnel_kind], walk.tunnel_id
