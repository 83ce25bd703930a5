"""What follows an EtherType other than IP: tags, frames in frames, LLC, MPLS, PPPoE, ARP. Each has a row at the end.

Sources: IEEE 802.1Q, 802.1ah, 802.1BR, 802.1AE, 802.1CB, 802.2, IEC 62439-3; RFC 826, 1042, 2684, 3032, 4385, 4448, 2516, 6325.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from streamcore.core.packets cimport VLAN_KEPT
from streamcore.headers._ip cimport step_ip
from streamcore.headers._walk cimport (
    LAYER_ARP,
    LAYER_CONTROL_WORD,
    LAYER_LLC,
    LAYER_MPLS,
    LAYER_PPPOE,
    LAYER_TAG,
    LAYER_VLAN,
    OUTCOME_CONTROL,
    OUTCOME_ENCRYPTED,
    OUTCOME_UNKNOWN,
    Walk,
    be16,
    bound,
    ends,
    go_ether_type,
    has,
    here,
    plausible_frame,
    register_ether_type,
    register_link,
    step_ethernet,
    take,
)


cdef enum:
    PPP = 0x880B


cdef inline bint is_vlan(uint16_t ether_type) noexcept nogil:
    return ether_type == 0x8100 or ether_type == 0x88A8 or ether_type == 0x9100 or ether_type == 0x9200 or ether_type == 0x9300


cdef void vlan(Walk *walk) noexcept nogil:
    """Any number of tags. If the last one is cut, it still belongs to the layer."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 4
    while has(walk, size):
        if walk.depth == 0:
            if walk.vlan_count < VLAN_KEPT:
                walk.vlan[walk.vlan_count] = be16(p + size - 4) & 0x0FFF
            if walk.vlan_count < 255:
                walk.vlan_count += 1
        if not is_vlan(be16(p + size - 2)):
            break
        size += 4
    if take(walk, LAYER_VLAN, size):
        go_ether_type(walk, be16(p + size - 2))


cdef inline void tag(Walk *walk, uint32_t size) noexcept nogil:
    """A tag that ends with the EtherType of what follows."""
    cdef const uint8_t *p = here(walk)
    if take(walk, LAYER_TAG, size):
        go_ether_type(walk, be16(p + size - 2))


cdef void vn_tag(Walk *walk) noexcept nogil:
    tag(walk, 6)


cdef void e_tag(Walk *walk) noexcept nogil:
    """IEEE 802.1BR. Cisco metadata has the same length."""
    tag(walk, 8)


cdef void i_tag(Walk *walk) noexcept nogil:
    """IEEE 802.1ah: a service identifier, then a whole Ethernet frame."""
    if take(walk, LAYER_TAG, 4):
        walk.next = step_ethernet


cdef void fabric_path(Walk *walk) noexcept nogil:
    """Tree and TTL, then a whole Ethernet frame."""
    if take(walk, LAYER_TAG, 2):
        walk.next = step_ethernet


cdef void redundancy_tag(Walk *walk) noexcept nogil:
    """HSR (path, size, sequence number) and the R-Tag of IEEE 802.1CB (reserved, sequence number)."""
    tag(walk, 6)


cdef void macsec(Walk *walk) noexcept nogil:
    """IEEE 802.1AE: control bits, short length, packet number, optional channel. Plain text if neither E nor C is set; the last 16 bytes are an
    integrity check value."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 14 if has(walk, 1) and p[0] & 0x20 else 6
    if not has(walk, 1) or not p[0] & 0x0C:
        tag(walk, size + 2)
    elif take(walk, LAYER_TAG, size):
        ends(walk, OUTCOME_ENCRYPTED)


cdef void trill(Walk *walk) noexcept nogil:
    """RFC 6325: version, length of the options in words, hop count; egress and ingress; then a frame."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 6
    if has(walk, 2):
        if p[0] >> 6:
            ends(walk, OUTCOME_UNKNOWN)
            return
        size += 4 * (be16(p) >> 6 & 0x1F)
    if take(walk, LAYER_TAG, size):
        walk.next = step_ethernet


cdef void step_llc(Walk *walk) noexcept nogil:
    """IEEE 802.2: SNAP with an EtherType (RFC 1042; Cisco's f8) or a bridged frame (RFC 2684), the SAPs of IP, or a network layer protocol
    identifier (RFC 2684)."""
    cdef const uint8_t *p = here(walk)
    if has(walk, 3) and p[0] == 0x06 and p[1] == 0x06 and p[2] == 3:
        if take(walk, LAYER_LLC, 3):
            walk.next = step_ip
    elif has(walk, 4) and p[0] == 0xFE and p[1] == 0xFE and p[2] == 3 and p[3] == 0xCF:  # RFC 2364
        if take(walk, LAYER_LLC, 4):
            go_ether_type(walk, PPP)
    elif has(walk, 4) and p[0] == 0xFE and p[1] == 0xFE and p[2] == 3 and (p[3] == 0xCC or p[3] == 0x8E):
        if take(walk, LAYER_LLC, 4):
            walk.next = step_ip
    elif not (has(walk, 8) and p[0] == 0xAA and p[1] == 0xAA and p[2] == 3):
        ends(walk, OUTCOME_UNKNOWN)
    elif be16(p + 3) == 0 and (p[5] == 0 or p[5] == 0xF8):
        if take(walk, LAYER_LLC, 8):
            go_ether_type(walk, be16(p + 6))
    elif be16(p + 3) == 0x0080 and p[5] == 0xC2 and (be16(p + 6) == 1 or be16(p + 6) == 7):
        if take(walk, LAYER_LLC, 10):
            walk.next = step_ethernet
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef void step_mpls(Walk *walk) noexcept nogil:
    """The label stack (RFC 3032). Nothing says what follows, so it is told by its bytes: IP by the version; a pseudowire's control word, then
    Ethernet (RFC 4448); or Ethernet directly, if a known EtherType is in its place."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 4
    while has(walk, size) and not p[size - 2] & 1:
        size += 4
    if not take(walk, LAYER_MPLS, size):
        return
    p = here(walk)
    if not has(walk, 1):
        ends(walk, OUTCOME_UNKNOWN)
    elif p[0] >> 4 == 4 or p[0] >> 4 == 6:
        walk.next = step_ip
    elif plausible_frame(p, walk.end - walk.at):
        walk.next = step_ethernet
    elif p[0] >> 4 == 0:
        if take(walk, LAYER_CONTROL_WORD, 4):
            walk.next = step_ethernet
    elif p[0] >> 4 == 1 and has(walk, 4) and (be16(p + 2) == 0x0021 or be16(p + 2) == 0x0057):  # an associated channel of IP (RFC 4385, 5085)
        if take(walk, LAYER_CONTROL_WORD, 4):
            walk.next = step_ip
    else:
        ends(walk, OUTCOME_UNKNOWN)


cdef void batman(Walk *walk) noexcept nogil:
    """batman-adv, versions 14 and 15: type, version, TTL; in frames to one station a number, its address, and perhaps the source's; in those to all
    a sequence number and the source's address. Then a whole Ethernet frame."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 0
    if has(walk, 2) and p[1] == 15:
        size = 10 if p[0] == 0x40 else 18 if p[0] == 0x42 else 14 if p[0] == 0x01 else 0
    elif has(walk, 2) and p[1] == 14:
        size = 10 if p[0] == 0x03 else 14 if p[0] == 0x04 else 0
    if size == 0:
        ends(walk, OUTCOME_UNKNOWN)
    elif take(walk, LAYER_TAG, size):
        walk.next = step_ethernet


cdef void step_pppoe(Walk *walk) noexcept nogil:
    """RFC 2516: version and type, code (0: session data), session, length; then PPP."""
    cdef const uint8_t *p = here(walk)
    if not take(walk, LAYER_PPPOE, 6):
        return
    if p[1]:
        ends(walk, OUTCOME_UNKNOWN)
        return
    if be16(p + 4):  # 0: segmentation offload
        bound(walk, walk.at + be16(p + 4))
    go_ether_type(walk, PPP)


cdef void arp(Walk *walk) noexcept nogil:
    """RFC 826: 8 bytes, then addresses of the lengths given there. A cut packet is fine, because nothing follows."""
    cdef const uint8_t *p = here(walk)
    cdef uint32_t size = 8 + 2 * (<uint32_t> p[4] + p[5]) if has(walk, 8) else 8
    if take(walk, LAYER_ARP, size if has(walk, size) else walk.end - walk.at):
        ends(walk, OUTCOME_CONTROL)


for _kind in (0x8100, 0x88A8, 0x9100, 0x9200, 0x9300):  # is_vlan
    register_ether_type(_kind, vlan)
for _kind in range(1501):
    register_ether_type(_kind, step_llc)
register_ether_type(0x0806, arp)
register_ether_type(0x8035, arp)
register_ether_type(0x8926, vn_tag)
register_ether_type(0x893F, e_tag)
register_ether_type(0x8909, e_tag)
register_ether_type(0x88E7, i_tag)
register_ether_type(0x8903, fabric_path)
register_ether_type(0x8847, step_mpls)
register_ether_type(0x8848, step_mpls)
register_ether_type(0x8864, step_pppoe)
register_ether_type(0x88E5, macsec)
register_ether_type(0x892F, redundancy_tag)
register_ether_type(0xF1C1, redundancy_tag)
register_ether_type(0x22F3, trill)
register_ether_type(0x4305, batman)
register_ether_type(0x6558, step_ethernet)
register_link(219, step_mpls)
