"""The loop of the walk and its tables: link type, EtherType, IP protocol -> step. The other files here know what each header means.

Nothing here knows about columns, flows, batches or services.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from streamcore.core.packets cimport FLAG_DEPTH, FLAG_LINK_UNKNOWN
from streamcore.headers._ordinary cimport ordinary_frame

KINDS = {
    LAYER_CAPTURE: "capture", LAYER_ETHERNET: "ethernet", LAYER_LINK: "link", LAYER_FDDI: "fddi", LAYER_WIFI: "wifi", LAYER_VLAN: "vlan",
    LAYER_TAG: "tag", LAYER_LLC: "llc", LAYER_MPLS: "mpls", LAYER_CONTROL_WORD: "control word", LAYER_PPPOE: "pppoe", LAYER_PPP: "ppp",
    LAYER_ARP: "arp", LAYER_IP4: "ip4", LAYER_IP6: "ip6", LAYER_EXTENSION: "extension", LAYER_AH: "ah", LAYER_TCP: "tcp", LAYER_UDP: "udp",
    LAYER_UDP_LITE: "udp-lite", LAYER_SCTP: "sctp", LAYER_DCCP: "dccp", LAYER_ICMP4: "icmp4", LAYER_ICMP6: "icmp6", LAYER_IGMP: "igmp",
    LAYER_PIM: "pim", LAYER_OSPF: "ospf", LAYER_VRRP: "vrrp", LAYER_TUNNEL: "tunnel",
}
TUNNELS = {
    TUNNEL_NONE: "", TUNNEL_IP: "ip", TUNNEL_GRE: "gre", TUNNEL_PPTP: "pptp", TUNNEL_ERSPAN: "erspan", TUNNEL_WCCP: "wccp",
    TUNNEL_ETHERIP: "etherip", TUNNEL_PIM: "pim", TUNNEL_L2TP: "l2tp", TUNNEL_MPLS: "mpls", TUNNEL_NSH: "nsh", TUNNEL_VXLAN: "vxlan",
    TUNNEL_GENEVE: "geneve", TUNNEL_GTP: "gtp", TUNNEL_TEREDO: "teredo", TUNNEL_LISP: "lisp", TUNNEL_CAPWAP: "capwap", TUNNEL_TZSP: "tzsp",
    TUNNEL_GUE: "gue",
}
MARKS = ("", "cut", "quoted", "quoted cut")
OUTCOMES = {
    OUTCOME_UNKNOWN: "unknown", OUTCOME_TRANSPORT: "transport", OUTCOME_CONTROL: "control", OUTCOME_FRAGMENT: "fragment",
    OUTCOME_NOTHING: "nothing", OUTCOME_ENCRYPTED: "encrypted", OUTCOME_TRUNCATED: "truncated", OUTCOME_MALFORMED: "malformed",
    OUTCOME_TOO_DEEP: "too deep", OUTCOME_SEVERAL: "several", OUTCOME_LINK_UNKNOWN: "link unknown",
}

cdef enum:
    LINKS = 512              # link types from here on are unknown
    LINK_ETHERNET = 1
    USER_PORTS = 1024        # below are the system ports (RFC 6335)
    EPHEMERAL_PORTS = 32768  # from here on hosts hand out ports to clients

cdef Step[512] links
cdef Step[65536] ether_types
cdef Step[256] protocols
cdef Step[256] udp_tunnels


cdef void walk_headers(const UdpTable *udp, const uint8_t *packet, uint32_t size, uint16_t link_type, Walk *walk) noexcept nogil:
    if size >= NO_OFFSET:
        size = NO_OFFSET - 1
    begin(walk, udp, packet, 0, size)
    if link_type != LINK_ETHERNET or not ordinary_frame(walk, 0):
        begin_outer(walk)
        go_link(walk, link_type)
    go_on(walk)


cdef void walk_from(const UdpTable *udp, const uint8_t *packet, uint32_t at, uint32_t end, Step step, Walk *walk) noexcept nogil:
    """As walk_headers, but starts at a header inside a packet: at <= end <= captured bytes."""
    begin(walk, udp, packet, at, end if end < NO_OFFSET else NO_OFFSET - 1)
    begin_outer(walk)
    if at <= walk.end:
        walk.next = step
    go_on(walk)


cdef void walk_steps(const UdpTable *udp, const uint8_t *packet, uint32_t size, Walk *walk) noexcept nogil:
    """As walk_headers of Ethernet, without shortcuts."""
    begin(walk, udp, packet, 0, size if size < NO_OFFSET else NO_OFFSET - 1)
    walk.shortcuts = False
    begin_outer(walk)
    walk.next = step_ethernet
    go_on(walk)


cdef inline void begin(Walk *walk, const UdpTable *udp, const uint8_t *packet, uint32_t at, uint32_t end) noexcept nogil:
    memset(walk.vlan, 0, sizeof(walk.vlan))
    walk.udp = udp
    walk.packet = packet
    walk.at = at
    walk.end = end
    walk.next = NULL
    walk.ip = &walk.outer
    walk.marks = walk.outcome = walk.depth = walk.vlan_count = walk.number = walk.tunnel_kind = walk.tunnel_count = 0
    walk.ether_type = 0
    walk.more = False
    walk.shortcuts = True
    walk.tunnel_id = 0
    walk.layer_count = 0


cdef inline void begin_outer(Walk *walk) noexcept nogil:
    memset(&walk.outer, 0, sizeof(IpHeader))
    walk.outer.l3 = walk.outer.l4 = walk.outer.payload = NO_OFFSET


cdef inline void go_on(Walk *walk) noexcept nogil:
    cdef Step step
    while walk.next != NULL:
        step = walk.next
        walk.next = NULL
        step(walk)
    if walk.more and (walk.outcome == OUTCOME_TRANSPORT or walk.outcome == OUTCOME_CONTROL):
        walk.outcome = OUTCOME_SEVERAL


cdef void too_deep(Walk *walk) noexcept nogil:
    walk.next = NULL
    flag(walk, &walk.outer, FLAG_DEPTH)
    ends(walk, OUTCOME_TOO_DEEP)


# What comes next. A number that is in no table ends the walk.

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


cdef bint udp_opens(const UdpTable *udp, uint16_t source, uint16_t target) noexcept nogil:
    return is_tunnel_port(udp, source) or is_tunnel_port(udp, target) or is_unread_port(source) or is_unread_port(target)


cdef bint udp_hides(const UdpTable *udp, uint16_t source, uint16_t target) noexcept nogil:
    return is_suspect(udp, source, target) or is_suspect(udp, target, source)


cdef inline bint is_suspect(const UdpTable *udp, uint16_t port, uint16_t other) noexcept nogil:
    """Not where the port is by chance the one that a client of an ordinary service was given: the other port is a system port (RFC 6335),
    which no end of a tunnel has, or this one is among those that hosts hand out."""
    if udp.named[port >> 3] >> (port & 7) & 1:
        return True
    return (is_tunnel_port(udp, port) or is_unread_port(port)) and port < EPHEMERAL_PORTS and not 1 <= other < USER_PORTS


cdef inline bint is_unread_port(uint16_t port) noexcept nogil:
    """CAPWAP control, and the older VXLAN or OTV: no step reads them, but they contain addresses."""
    return port == 5246 or port == 8472


cdef void go_udp_tunnel(Walk *walk, uint16_t source_port, uint16_t target_port) noexcept nogil:
    """Choose the tunnel to try, by the target port, otherwise by the source port."""
    if is_tunnel_port(walk.udp, target_port):
        walk.next = udp_tunnels[walk.udp.number[target_port]]
    elif is_tunnel_port(walk.udp, source_port):
        walk.next = udp_tunnels[walk.udp.number[source_port]]


cdef bint is_known_ether_type(uint16_t ether_type) noexcept nogil:
    return ether_type >= 1536 and ether_types[ether_type] != NULL


cdef bint plausible_frame(const uint8_t *p, uint32_t size) noexcept nogil:
    """Whether the bytes look like an Ethernet header with IP or ARP after it, possibly behind VLAN tags."""
    cdef uint32_t at = 14
    if size < 34:
        return False
    while be16(p + at - 2) == 0x8100 and size >= at + 24:
        at += 4
    if be16(p + at - 2) == 0x0800:
        return p[at] >> 4 == 4 and plausible_ip(p + at, size - at)
    if be16(p + at - 2) == 0x86DD:
        return p[at] >> 4 == 6
    return be16(p + at - 2) == 0x0806 and be16(p + at) == 1 and be16(p + at + 2) == 0x0800


cdef void isl(Walk *walk) noexcept nogil:
    """Cisco ISL: 26 bytes, then a whole frame."""
    if take(walk, LAYER_TAG, 26):
        walk.next = step_ethernet


cdef void step_ethernet(Walk *walk) noexcept nogil:
    cdef const uint8_t *p = here(walk)
    if has(walk, 26) and (be32(p) == 0x01000C00 or be32(p) == 0x03000C00) and p[4] == 0 and be16(p + 14) == 0xAAAA and p[16] == 3:
        walk.next = isl
        return
    if take(walk, LAYER_ETHERNET, 14):
        go_ether_type(walk, be16(p + 12))


# Filling the tables.

cdef void register_link(int link_type, Step step) except *:
    if not 0 <= link_type < LINKS or links[link_type] != NULL:
        raise ValueError(f"link type {link_type} is registered already, or is not a link type")
    links[link_type] = step


cdef void register_ether_type(int ether_type, Step step) except *:
    if not 0 <= ether_type < 65536 or ether_types[ether_type] != NULL:
        raise ValueError(f"EtherType {ether_type:#06x} is registered already, or is not an EtherType")
    ether_types[ether_type] = step


cdef void register_protocol(int protocol, Step step) except *:
    if not 0 <= protocol < 256 or protocols[protocol] != NULL:
        raise ValueError(f"IP protocol {protocol} is registered already, or is not an IP protocol")
    protocols[protocol] = step


cdef void register_udp_tunnel(int number, Step step) except *:
    if not 0 <= number < 256 or udp_tunnels[number] != NULL:
        raise ValueError(f"UDP tunnel {number} is registered already, or is not a number from 0 to 255")
    udp_tunnels[number] = step


cdef class UdpPorts:
    """UdpPorts([(port, number), …], named): which tunnel a walk tries on which UDP port. For a port given twice the last entry counts. Immutable.
    number: as given to register_udp_tunnel. named: ports on which the run was asked to try a tunnel. Raises ValueError.
    """

    def __init__(self, pairs, named=()):
        for port, number in pairs:
            if not 1 <= port <= 65535 or not 0 <= number <= 255 or udp_tunnels[number] == NULL:
                raise ValueError(f"no tunnel {number} for UDP port {port}")
            self.table.number[<int> port] = number
            self.table.bits[<int> port >> 3] |= 1 << (<int> port & 7)
            self.table.folded[<int> port & 2047] = 1
        for port in named:
            self.table.named[<int> port >> 3] |= 1 << (<int> port & 7)


def explain(const uint8_t[::1] packet, int link_type, UdpPorts ports=None, *, bint shortcut=True):
    """Describe one packet: (layers, outcome, where understanding ends, tunnel kind, tunnel id, fields). Slow: for looking at single packets.

    A layer is (kind, offset, length, end, detail, marks), marks being "", "cut", "quoted" or "quoted cut". fields: depth, EtherType, VLAN tags, then
    the outermost IP header's. shortcut=False: take the steps for an ordinary packet, too. ports: None for the standard ones."""
    cdef Walk walk
    if ports is None:
        from streamcore.headers._udp_tunnels import STANDARD_PORTS as ports
    cdef const uint8_t *p = &packet[0] if packet.shape[0] else NULL
    if shortcut or link_type != LINK_ETHERNET:
        walk_headers(&ports.table, p, <uint32_t> packet.shape[0], <uint16_t> link_type, &walk)
    else:
        walk_steps(&ports.table, p, <uint32_t> packet.shape[0], &walk)
    layers = []
    for i in range(walk.layer_count):
        layer = walk.layers[i]
        layers.append((KINDS[layer.kind], layer.offset, layer.length, layer.end, layer.detail, MARKS[layer.marks]))
    inner = ()
    if walk.depth > 1:
        inner = (walk.inner.version, walk.inner.protocol, walk.inner.flags, walk.inner.l3, walk.inner.l4, walk.inner.payload,
                 walk.inner.source_port, walk.inner.target_port, walk.inner.fragment_offset, walk.inner.identification,
                 walk.inner.source - p, walk.inner.target - p)
    return layers, OUTCOMES[walk.outcome], walk.at, TUNNELS[walk.tunnel_kind], walk.tunnel_id, (
        walk.depth, walk.ether_type, walk.vlan_count, walk.outer.version, walk.outer.protocol, walk.outer.flags, walk.outer.l3, walk.outer.l4,
        walk.outer.payload, walk.outer.source_port, walk.outer.target_port, walk.outer.fragment_offset, *inner)
