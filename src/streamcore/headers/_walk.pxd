# The walk over one packet's headers, seen from C: what it reports, and what a step may do.
#
# A step is a function for one kind of header. It reads the bytes walk.packet[walk.at:walk.end], checks them, calls `take` for a header that
# passes, and names the next step with one of the go_ functions. It must not read at or beyond walk.end. The walk ends at a step that takes
# nothing. So every walk ends: each header taken fills one of the LAYERS_MAX places.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from streamcore.core.packets cimport FLAG_MALFORMED, FLAG_TRUNCATED, NO_OFFSET, VLAN_KEPT

cdef enum:
    LAYERS_MAX = 255         # headers of one packet; consecutive VLAN tags count as one, and so does an MPLS label stack
    DEPTH_MAX = 32           # IP headers nested in each other
    TUNNELS_KEPT = 32        # tunnels whose entrance is recorded

cdef enum Kind:
    # What a layer is. KINDS in _walk.pyx has their names.
    LAYER_CAPTURE = 1        # what the capturing machine put before the frame: radiotap, cooked, NFLOG, PKTAP, a loopback's family, …
    LAYER_ETHERNET           # addresses and EtherType: 14 bytes
    LAYER_LINK               # header of another link layer: PPP, HDLC, Frame Relay, ARCNET, …
    LAYER_FDDI               # frame control, target and source
    LAYER_WIFI               # IEEE 802.11
    LAYER_VLAN               # one or more tags of 4 bytes
    LAYER_TAG                # VN-Tag, E-Tag, I-Tag, Cisco metadata, FabricPath, HSR, R-Tag, MACsec, …
    LAYER_LLC                # IEEE 802.2, and SNAP if it follows
    LAYER_MPLS               # the whole label stack
    LAYER_CONTROL_WORD       # of a pseudowire (RFC 4385)
    LAYER_PPPOE
    LAYER_PPP                # the protocol field, and address and control if they are present
    LAYER_ARP                # with all its addresses
    LAYER_IP4                # with options
    LAYER_IP6                # 40 bytes
    LAYER_EXTENSION          # of IPv6; detail: its protocol number
    LAYER_AH
    LAYER_TCP
    LAYER_UDP
    LAYER_UDP_LITE
    LAYER_SCTP
    LAYER_DCCP
    LAYER_ICMP4
    LAYER_ICMP6
    LAYER_IGMP
    LAYER_PIM
    LAYER_OSPF
    LAYER_VRRP
    LAYER_TUNNEL             # the header of a tunnel; detail: TUNNEL_*

cdef enum Tunnel:
    # In the column tunnel_kind. TUNNELS in _walk.pyx has their names.
    TUNNEL_NONE = 0
    TUNNEL_IP                # IP in IP; it has no header of its own
    TUNNEL_GRE               # id: key
    TUNNEL_PPTP              # GRE version 1; id: call
    TUNNEL_ERSPAN            # id: session
    TUNNEL_WCCP
    TUNNEL_ETHERIP
    TUNNEL_PIM               # a register message
    TUNNEL_L2TP              # id: in version 2 tunnel << 16 | session, in version 3 the session
    TUNNEL_MPLS              # MPLS in IP or UDP; id: in UDP the first label
    TUNNEL_NSH               # id: service path
    TUNNEL_VXLAN             # also GPE; id: VNI
    TUNNEL_GENEVE            # id: VNI
    TUNNEL_GTP               # id: TEID
    TUNNEL_TEREDO
    TUNNEL_LISP              # id: instance
    TUNNEL_CAPWAP
    TUNNEL_TZSP
    TUNNEL_GUE
    TUNNEL_KINDS

cdef enum Outcome:
    # How far the headers of a packet are understood. OUTCOMES in _walk.pyx has their names.
    OUTCOME_UNKNOWN = 0      # the header at walk.at is of no known kind, or does not look like the kind that was announced
    OUTCOME_TRANSPORT        # to a whole transport header (TCP, UDP, UDP-Lite, SCTP, DCCP); the rest is payload
    OUTCOME_CONTROL          # to one of these control protocols, which is a layer of its own: ARP, ICMP, ICMPv6, IGMP,
                             # OSPF, VRRP, PIM
    OUTCOME_FRAGMENT         # to the IP header of a later fragment; the rest is payload
    OUTCOME_NOTHING          # to an IP header that says that nothing follows (protocol 59)
    OUTCOME_ENCRYPTED        # to a header that says that the rest is encrypted
    OUTCOME_TRUNCATED        # the header at walk.at goes beyond the captured bytes, or beyond the length that an outer header gives
    OUTCOME_MALFORMED        # the header at walk.at contradicts itself
    OUTCOME_TOO_DEEP         # LAYERS_MAX or DEPTH_MAX is reached, and more follows
    OUTCOME_SEVERAL          # as transport or control, but the packet holds several (A-MSDU), and only the first was walked
    OUTCOME_LINK_UNKNOWN     # the link type is not known: nothing was read
    OUTCOMES_COUNT

cdef enum:
    # Bits of Layer.marks.
    MARK_CUT = 1             # the header is longer than the bytes present; length counts those present, and it is the last layer
    MARK_QUOTED = 2          # it belongs to a packet that an ICMP error quotes, not to this packet

cdef struct Layer:
    uint32_t offset          # from the packet's first byte
    uint32_t length          # of the header
    uint32_t end             # where the header and its contents end: offset + length <= end <= captured bytes
    uint16_t detail          # see Kind
    uint8_t kind
    uint8_t marks

cdef struct IpHeader:
    # One IP header and what follows it, in the form that the columns need.
    uint8_t version          # 4 or 6; 0: no IP header
    uint8_t protocol         # upper-layer protocol, after IPv6 extension headers
    uint16_t flags           # FLAG_*
    uint16_t l3              # NO_OFFSET if absent; so are the next two
    uint16_t l4
    uint16_t payload
    uint16_t source_port
    uint16_t target_port
    uint16_t fragment_offset # in units of 8 bytes
    uint32_t identification  # of the fragmented datagram
    const uint8_t *source    # 4 or 16 bytes in the packet
    const uint8_t *target

cdef struct Walk
ctypedef void (*Step)(Walk *walk) noexcept nogil

cdef struct UdpTable:
    # Which tunnel is tried on which UDP port. Each run has its own table (UdpPorts in _walk.pyx), so walks in one process may differ.
    uint8_t[2048] folded     # one byte for all ports that are equal up to 2048, set if a tunnel is tried on one; for most packets nothing else is read
    uint8_t[8192] bits       # one bit per port, set if a tunnel is tried there
    uint8_t[65536] number    # the tunnel's number in register_udp_tunnel, valid if the bit is set
    uint8_t[8192] named      # one bit per port, set if the run was asked to try a tunnel there (--decode-as)

cdef struct Entrance:
    # Where a tunnel was entered.
    uint32_t id
    uint8_t kind             # TUNNEL_*
    uint8_t layer            # number of the first layer inside the tunnel, if there is one

cdef struct Walk:
    # The cursor.
    const UdpTable *udp
    const uint8_t *packet
    uint32_t at              # where the next header begins; after the walk, where understanding ends
    uint32_t end             # the next header lies before this byte; it never grows
    Step next                # NULL: the walk has ended
    uint8_t marks            # marks of the layers to come
    bint more                # the packet holds several, and only the first is walked
    bint shortcuts           # ordinary headers may be reported without the steps; only tests say that they may not
    # What was found.
    uint8_t outcome          # OUTCOME_*
    uint8_t depth            # IP headers
    uint8_t vlan_count       # before the outermost IP header, at most 255
    uint16_t[4] vlan         # the first VLAN_KEPT ids, the outermost first
    uint16_t ether_type      # the last one before the outermost IP header; 0: none
    uint8_t number           # the IP protocol number that announced the next header
    uint8_t tunnel_kind      # of the innermost tunnel, TUNNEL_*
    uint8_t tunnel_count     # entries used in `tunnels`
    uint32_t tunnel_id       # its key, VNI, TEID, session, …; 0 if it has none
    IpHeader *ip             # the innermost so far; &outer until the first
    IpHeader outer
    IpHeader inner           # the innermost, set only if depth > 1
    IpHeader quoted          # scratch for the packet in an ICMP error
    int layer_count
    Layer[255] layers        # the outermost first
    Entrance[32] tunnels     # the first TUNNELS_KEPT entered, the outermost first

# The walk. A layer that reaches beyond byte 65534 counts as cut.
cdef void walk_headers(const UdpTable *udp, const uint8_t *packet, uint32_t size, uint16_t link_type, Walk *walk) noexcept nogil
cdef void walk_from(const UdpTable *udp, const uint8_t *packet, uint32_t at, uint32_t end, Step step, Walk *walk) noexcept nogil

cdef class UdpPorts:
    cdef UdpTable table

# Filling the tables, only while modules are imported. Raises ValueError if the number is taken.
cdef void register_link(int link_type, Step step) except *
cdef void register_ether_type(int ether_type, Step step) except *
cdef void register_protocol(int protocol, Step step) except *
cdef void register_udp_tunnel(int number, Step step) except *  # number: 0 to 255, as in UdpTable.number

# Whether the walk might find a tunnel in a UDP datagram between these ports.
cdef bint udp_opens(const UdpTable *udp, uint16_t source, uint16_t target) noexcept nogil

# Whether a UDP datagram between these ports of which no tunnel was accepted may still be a tunnel, in a form that the walk does not read.
cdef bint udp_hides(const UdpTable *udp, uint16_t source, uint16_t target) noexcept nogil

# For steps: say what comes next at walk.at.
cdef void go_link(Walk *walk, int link_type) noexcept nogil
cdef void go_ether_type(Walk *walk, uint16_t ether_type) noexcept nogil  # up to 1500 it is a length, and LLC follows
cdef void go_udp_tunnel(Walk *walk, uint16_t source_port, uint16_t target_port) noexcept nogil
cdef bint is_known_ether_type(uint16_t ether_type) noexcept nogil        # False for a length
cdef bint plausible_frame(const uint8_t *p, uint32_t size) noexcept nogil
cdef void go_protocol(Walk *walk, uint8_t protocol) noexcept nogil       # after an IP header or one of its extensions
cdef void step_ethernet(Walk *walk) noexcept nogil


cdef inline uint16_t be16(const uint8_t *at) noexcept nogil:
    return <uint16_t> ((at[0] << 8) | at[1])


cdef inline uint32_t be32(const uint8_t *at) noexcept nogil:
    return (<uint32_t> at[0] << 24) | (at[1] << 16) | (at[2] << 8) | at[3]


cdef inline uint16_t le16(const uint8_t *at) noexcept nogil:
    return <uint16_t> ((at[1] << 8) | at[0])


cdef inline const uint8_t *here(const Walk *walk) noexcept nogil:
    return walk.packet + walk.at


cdef inline bint has(const Walk *walk, uint32_t length) noexcept nogil:
    """Whether `length` more bytes may be read."""
    return walk.end - walk.at >= length


cdef inline void ends(Walk *walk, uint8_t outcome) noexcept nogil:
    """Record how far the headers are understood. A quoted packet is nearly always cut short, so that changes nothing; nor does it that the
    packet ends well."""
    if not walk.marks & MARK_QUOTED or not (outcome == OUTCOME_TRUNCATED or outcome == OUTCOME_TRANSPORT or outcome == OUTCOME_CONTROL):
        walk.outcome = outcome


cdef inline void flag(Walk *walk, IpHeader *ip, uint16_t bit) noexcept nogil:
    """FLAG_* of the packet's own headers alone: a quoted one fills no column, this one neither."""
    if not walk.marks & MARK_QUOTED:
        ip.flags |= bit


cdef inline void cut(Walk *walk) noexcept nogil:
    flag(walk, walk.ip, FLAG_TRUNCATED)
    ends(walk, OUTCOME_TRUNCATED)


cdef inline void malformed(Walk *walk) noexcept nogil:
    flag(walk, walk.ip, FLAG_MALFORMED)
    ends(walk, OUTCOME_MALFORMED)


cdef void too_deep(Walk *walk) noexcept nogil


cdef inline bint take(Walk *walk, uint8_t kind, uint32_t length) noexcept nogil:
    """Report a header of `length` bytes at walk.at and move past it. False: it is cut, or there are too many; the step then returns."""
    cdef Layer *layer
    if walk.layer_count == LAYERS_MAX:
        too_deep(walk)
        return False
    layer = &walk.layers[walk.layer_count]
    walk.layer_count += 1
    layer.offset = walk.at
    layer.end = walk.end
    layer.detail = 0
    layer.kind = kind
    layer.marks = walk.marks
    if not has(walk, length):
        layer.length = walk.end - walk.at
        layer.marks |= MARK_CUT
        cut(walk)
        return False
    layer.length = length
    walk.at += length
    return True


cdef inline Layer *taken(Walk *walk) noexcept nogil:
    """The layer taken last."""
    return &walk.layers[walk.layer_count - 1]


cdef inline void bound(Walk *walk, uint32_t end) noexcept nogil:
    """A length field limits what follows to `end`. Never moves before walk.at."""
    if end < walk.end:
        walk.end = end if end > walk.at else walk.at


cdef inline bint enter(Walk *walk, uint8_t tunnel, uint32_t id) noexcept nogil:
    """Record that a tunnel begins: more headers follow."""
    if not walk.marks & MARK_QUOTED:
        walk.tunnel_kind = tunnel
        walk.tunnel_id = id
        walk.outcome = OUTCOME_UNKNOWN
        if walk.tunnel_count < TUNNELS_KEPT:
            walk.tunnels[walk.tunnel_count] = Entrance(id, tunnel, <uint8_t> walk.layer_count)
            walk.tunnel_count += 1
    return True


cdef inline bint take_tunnel(Walk *walk, uint8_t tunnel, uint32_t id, uint32_t length) noexcept nogil:
    """take() and enter() for the header of a tunnel."""
    if not take(walk, LAYER_TUNNEL, length):
        return False
    taken(walk).detail = tunnel
    return enter(walk, tunnel, id)


cdef inline void upper(Walk *walk) noexcept nogil:
    """Record that what follows the IP header and its extensions begins here."""
    if walk.at < walk.end:
        walk.ip.l4 = <uint16_t> walk.at


cdef inline void several(Walk *walk) noexcept nogil:
    """Record that more packets follow this one."""
    walk.more = True


cdef inline uint16_t all_flags(const Walk *walk) noexcept nogil:
    """FLAG_* of the outermost and innermost IP headers combined."""
    return walk.outer.flags | walk.inner.flags if walk.depth > 1 else walk.outer.flags


cdef inline bint is_tunnel_port(const UdpTable *udp, uint32_t port) noexcept nogil:
    return udp.folded[port & 2047] and udp.bits[port >> 3] >> (port & 7) & 1


cdef inline bint plausible_ip(const uint8_t *p, uint32_t size) noexcept nogil:
    """Whether the bytes at p look like an IP header, possibly cut."""
    if size == 0:
        return False
    if p[0] >> 4 == 4:
        return p[0] & 15 >= 5 and (size < 4 or be16(p + 2) >= 20)
    return p[0] >> 4 == 6
