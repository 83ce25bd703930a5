"""The slow, complete way to every address of one packet: the walk over its headers says where they stand, and each kind of layer has a
function here that rewrites the addresses in it.

A packet is walked once, without changing it; if every address is known, it is rewritten, in two turns over the layers. From the outside in,
the addresses change; each layer keeps what that adds to the sum of a checksum over it, in 16-bit words that begin at even offsets of the packet.
From the inside out, these sums are added up, and each checksum is adjusted by what has changed in what it covers. What is not captured is not
touched. A new kind of layer with addresses is one function and one line in `change_layer`.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from streamcore.headers._ip cimport step_ip
from streamcore.headers._walk cimport (
    LAYER_ARP,
    LAYER_DCCP,
    LAYER_EXTENSION,
    LAYER_ICMP4,
    LAYER_ICMP6,
    LAYER_IGMP,
    LAYER_IP4,
    LAYER_IP6,
    LAYER_TCP,
    LAYER_TUNNEL,
    LAYER_UDP,
    LAYER_UDP_LITE,
    LAYERS_MAX,
    MARK_QUOTED,
    TUNNEL_GRE,
    Layer,
    Walk,
    walk_from,
    walk_headers,
)
from streamcore.service._address_table cimport find4, find6

cdef enum:
    PACKETS_MAX = 8          # packets that one packet's neighbour discovery quotes in options


# One address. A part of one that the capture cut off is still rewritten: the first bytes of the result depend on no later ones.

cdef uint64_t change4(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef uint8_t[4] whole
    cdef uint32_t old, new = 0, mask = ~<uint32_t> 0
    cdef int i
    if n <= 0:
        return 0
    if n >= 4:
        old = load32(p)
    else:
        for i in range(4):
            whole[i] = p[i] if i < n else 0
        old = load32(whole)
        mask = ~(~<uint32_t> 0 >> (8 * n))
    if not find4(rewrite.table, old, &new):
        rewrite.missing = True
        if rewrite.missing4_count < rewrite.missing_max:
            rewrite.missing4[rewrite.missing4_count] = old
            rewrite.missing4_count += 1
        return 0
    if not rewrite.rewriting:
        return 0
    new &= mask
    store32(whole, new)
    for i in range(4):
        if i < n:
            p[i] = whole[i]
    rewrite.changed += 1
    return delta32(old, new)


cdef uint64_t change6(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef uint8_t[16] whole
    cdef uint64_t high, low, new_high = 0, new_low = 0
    cdef uint64_t delta = 0
    cdef int i
    if n <= 0:
        return 0
    for i in range(16):
        whole[i] = p[i] if i < n else 0
    high = (<uint64_t> load32(whole) << 32) | load32(whole + 4)
    low = (<uint64_t> load32(whole + 8) << 32) | load32(whole + 12)
    if not find6(rewrite.table, high, low, &new_high, &new_low):
        rewrite.missing = True
        if rewrite.missing6_count < rewrite.missing_max:
            rewrite.missing6[2 * rewrite.missing6_count] = high
            rewrite.missing6[2 * rewrite.missing6_count + 1] = low
            rewrite.missing6_count += 1
        return 0
    if not rewrite.rewriting:
        return 0
    for i in range(4):
        delta += (~load32(whole + 4 * i) >> 16 & 0xFFFF) + (~load32(whole + 4 * i) & 0xFFFF)
    store32(whole, <uint32_t> (new_high >> 32))
    store32(whole + 4, <uint32_t> new_high)
    store32(whole + 8, <uint32_t> (new_low >> 32))
    store32(whole + 12, <uint32_t> new_low)
    for i in range(16):
        if i < n:
            p[i] = whole[i]
        else:
            whole[i] = 0
    for i in range(4):
        delta += (load32(whole + 4 * i) >> 16) + (load32(whole + 4 * i) & 0xFFFF)
    rewrite.changed += 1
    return delta


cdef uint64_t change4s(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t count, int64_t step) noexcept nogil:
    """Addresses at p, p + step, …"""
    cdef uint64_t delta = 0
    cdef int64_t i
    for i in range(count):
        if i * step >= n:
            break
        delta += change4(rewrite, p + i * step, n - i * step)
    return delta


cdef uint64_t change6s(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t count) noexcept nogil:
    cdef uint64_t delta = 0
    cdef int64_t i
    for i in range(count):
        if 16 * i >= n:
            break
        delta += change6(rewrite, p + 16 * i, n - 16 * i)
    return delta


cdef inline uint64_t swapped(uint64_t delta) noexcept nogil:
    """The same change a byte further on."""
    cdef uint16_t folded = fold(delta)
    return <uint16_t> ((folded << 8) | (folded >> 8))


cdef inline uint64_t placed(uint64_t delta, uint32_t offset) noexcept nogil:
    """A change counted in words from `offset`, in words from the packet's first byte; and back."""
    return swapped(delta) if offset & 1 else delta


cdef uint64_t adjust(Rewrite *rewrite, uint8_t *p, uint64_t delta, bint udp) noexcept nogil:
    """Adjust the checksum at p by a change in what it covers; returns what that adds to a sum around it."""
    cdef uint16_t old, new
    if not rewrite.rewriting:
        return 0
    old = load16(p)
    new = adjusted_udp(old, delta) if udp else adjusted(old, delta)
    store16(p, new)
    return <uint16_t> ~old + <uint64_t> new


# One layer's addresses: p and n, its first byte and the captured bytes that it is about. Each returns the change, in words from p.

cdef uint64_t change_ip4(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t head, uint64_t *pseudo) noexcept nogil:
    cdef uint64_t source = change4(rewrite, p + 12, n - 12)
    cdef uint64_t target = change4(rewrite, p + 16, n - 16)
    cdef uint64_t final = target
    cdef uint64_t delta = source + target
    if head > 20:
        delta += change_options4(rewrite, p, head, &final)
    pseudo[0] = source + final
    return delta


cdef uint64_t change_options4(Rewrite *rewrite, uint8_t *p, int64_t n, uint64_t *final) noexcept nogil:
    """Routes that packets took or shall take (RFC 791 3.1). final: the change of the address that is the packet's last target."""
    cdef int64_t at = 20
    cdef int64_t size, i
    cdef uint64_t change, delta = 0
    cdef uint8_t kind
    while at + 2 < n:
        kind = p[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        size = p[at + 1]
        if size < 3:
            break
        if kind == 7 or kind == 131 or kind == 137:  # record route, loose and strict source route
            i = at + 3
            while i + 4 <= at + size and i < n:
                change = change4(rewrite, p + i, n - i)
                delta += swapped(change) if i & 1 else change  # at an odd place the words of the sum begin amid ours
                if kind != 7 and p[at + 2] <= size and i + 8 > at + size:
                    final[0] = change
                i += 4
        at += size
    return delta


cdef uint64_t change_route6(Rewrite *rewrite, uint8_t *p, int64_t n, uint64_t *final) noexcept nogil:
    """A routing header of type 0 or 2 (RFC 2460, RFC 6275: the last address is the final target) or 4 (RFC 8754: the first is)."""
    cdef uint64_t change, delta = 0
    cdef int64_t at = 8
    cdef int64_t stop
    if n < 8 or (p[2] != 0 and p[2] != 2 and p[2] != 4):
        return 0
    stop = 8 * (p[1] + 1)
    if p[2] == 4:
        stop = min(stop, 8 + 16 * (<int64_t> p[4] + 1))
    while at + 16 <= stop and at < n:
        change = change6(rewrite, p + at, n - at)
        delta += change
        if p[2] != 4 or at == 8:
            final[0] = change
        at += 16
    return delta


cdef uint64_t change_icmp4(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    if n >= 6 and p[0] == 9:  # router advertisement
        return change4s(rewrite, p + 8, n - 8, p[4], 4 * p[5] if p[5] else 4)
    return change4(rewrite, p + 4, n - 4) if p[0] == 5 else 0  # redirect: the gateway


cdef uint64_t change_icmp6(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef uint8_t kind = p[0]
    cdef uint64_t delta
    if kind == 135 or kind == 136:
        return change6(rewrite, p + 8, n - 8)
    if kind == 134:
        return change_discovery(rewrite, p, n, 16)
    if kind == 137:
        delta = change6(rewrite, p + 8, n - 8) + change6(rewrite, p + 24, n - 24)
        return delta + change_discovery(rewrite, p, n, 40)
    if 130 <= kind <= 132:  # listener discovery
        delta = change6(rewrite, p + 8, n - 8)
        return delta + (change6s(rewrite, p + 28, n - 28, load16(p + 26)) if kind == 130 and n > 28 else 0)
    return change_groups(rewrite, p, n, 16) if kind == 143 else 0


cdef uint64_t change_discovery(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t at) noexcept nogil:
    """Options of neighbour discovery (RFC 4861 4.6, RFC 8106): prefix, redirected packet, name servers."""
    cdef uint64_t delta = 0
    cdef int64_t size, left
    while at + 8 <= n and p[at + 1]:
        size = 8 * p[at + 1]
        left = min(size, n - at)
        if p[at] == 3 and size == 32:
            delta += change6(rewrite, p + at + 16, left - 16)
        elif p[at] == 4:
            delta += change_packet(rewrite, p + at + 8, left - 8)
        elif p[at] == 25:
            delta += change6s(rewrite, p + at + 8, left - 8, (size - 8) // 16)
        at += size
    return delta


cdef uint64_t change_packet(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """A packet quoted in an option, with a walk of its own; at most PACKETS_MAX of them, in one another or side by side."""
    cdef Walk walk
    if n <= 0 or rewrite.packets == PACKETS_MAX:
        return 0
    rewrite.packets += 1
    walk_from(p, 0, <uint32_t> n, step_ip, &walk)
    return change_layers(rewrite, &walk, p)


cdef uint64_t change_igmp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    if p[0] == 0x22:
        return change_groups(rewrite, p, n, 4)
    return change4(rewrite, p + 4, n - 4) + (change4s(rewrite, p + 12, n - 12, load16(p + 10), 4) if p[0] == 0x11 and n > 12 else 0)


cdef uint64_t change_groups(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t size) noexcept nogil:
    """The group records of an IGMPv3 (RFC 3376 4.2) or MLDv2 (RFC 3810 5.2) report; size: of an address."""
    cdef uint64_t delta = 0
    cdef int64_t at = 8
    cdef int64_t records = load16(p + 6) if n >= 8 else 0
    cdef int64_t addresses
    while records > 0 and at + 4 < n:
        addresses = 1 + <int64_t> load16(p + at + 2)
        if size == 4:
            delta += change4s(rewrite, p + at + 4, n - at - 4, addresses, 4)
        else:
            delta += change6s(rewrite, p + at + 4, n - at - 4, addresses)
        at += 4 + size * addresses + 4 * p[at + 1]
        records -= 1
    return delta


cdef uint64_t change_arp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """RFC 826, with protocol addresses of IPv4."""
    cdef int64_t hardware
    cdef uint64_t delta
    if n < 8 or load16(p + 2) != 0x0800 or p[5] != 4:
        return 0
    hardware = p[4]
    delta = change4(rewrite, p + 8 + hardware, n - 8 - hardware)
    if hardware & 1:
        delta = swapped(delta)
    return delta + change4(rewrite, p + 12 + 2 * hardware, n - 12 - 2 * hardware)


# All layers of a packet.

cdef uint64_t change_layer(Rewrite *rewrite, uint8_t *p, const Layer *layer, uint64_t *pseudo) noexcept nogil:
    """Rewrite the addresses that stand in one layer itself. pseudo: the change in the innermost IP header's pseudo-header."""
    cdef int64_t n = <int64_t> layer.end - layer.offset
    cdef uint64_t routed = 0
    cdef uint64_t delta
    if n == 0:
        return 0
    if layer.kind == LAYER_IP4:
        return change_ip4(rewrite, p, n, layer.length, pseudo)
    if layer.kind == LAYER_IP6:
        pseudo[0] = change6(rewrite, p + 8, n - 8)
        rewrite.target6 = change6(rewrite, p + 24, n - 24)
        pseudo[0] += rewrite.target6
        return pseudo[0]
    if layer.kind == LAYER_EXTENSION and layer.detail == 43:
        delta = change_route6(rewrite, p, layer.length, &routed)
        if layer.length >= 4 and p[3]:  # segments left: the checksums are about the final target
            pseudo[0] += routed + negative(rewrite.target6)
            rewrite.target6 = routed
        return delta
    if layer.kind == LAYER_ICMP4:
        return change_icmp4(rewrite, p, n)
    if layer.kind == LAYER_ICMP6:
        return change_icmp6(rewrite, p, n)
    if layer.kind == LAYER_IGMP:
        return change_igmp(rewrite, p, n)
    if layer.kind == LAYER_ARP:
        return change_arp(rewrite, p, n)
    return 0


cdef inline uint64_t negative(uint64_t delta) noexcept nogil:
    return <uint16_t> ~fold(delta)


cdef uint64_t adjust_layer(Rewrite *rewrite, uint8_t *p, const Layer *layer, uint64_t inside, uint64_t pseudo) noexcept nogil:
    """Adjust the checksum that stands in one layer; inside: the change in all that it covers, in words from p. Returns the change of the
    checksum itself."""
    cdef int64_t n = <int64_t> layer.end - layer.offset
    if layer.kind == LAYER_IP4:
        return 0  # of the header alone: see change_layers
    if layer.kind == LAYER_TCP:
        return adjust(rewrite, p + 16, inside + pseudo, False) if n >= 18 else 0
    if layer.kind == LAYER_UDP or layer.kind == LAYER_UDP_LITE:
        return adjust(rewrite, p + 6, inside + pseudo, True) if n >= 8 else 0
    if layer.kind == LAYER_DCCP:
        return adjust(rewrite, p + 6, inside + pseudo, False) if n >= 8 else 0
    if layer.kind == LAYER_ICMP6:
        return adjust(rewrite, p + 2, inside + pseudo, False) if n >= 4 else 0
    if layer.kind == LAYER_ICMP4 or layer.kind == LAYER_IGMP:
        return adjust(rewrite, p + 2, inside, False) if n >= 4 else 0
    if layer.kind == LAYER_TUNNEL and layer.detail == TUNNEL_GRE and n >= 6 and p[0] & 0x80:
        return adjust(rewrite, p + 4, inside, False)
    return 0


cdef uint64_t change_layers(Rewrite *rewrite, const Walk *walk, uint8_t *packet) noexcept nogil:
    """Rewrite a walked packet, or only look whether all its addresses are known. Returns the change, in words from its first byte."""
    cdef uint64_t[LAYERS_MAX] own      # each layer's change, in words from the packet's first byte
    cdef uint64_t[LAYERS_MAX] pseudo   # of IP layers; the ones behind them use it
    cdef int[LAYERS_MAX] ip            # the layer of the IP header around each
    cdef uint64_t total = 0
    cdef uint64_t nothing = 0
    cdef const Layer *layer
    cdef uint8_t *p
    cdef int i
    cdef int current = -1
    for i in range(walk.layer_count):
        layer = &walk.layers[i]
        p = packet + layer.offset
        if layer.kind == LAYER_IP4 or layer.kind == LAYER_IP6:
            current = i
            pseudo[i] = 0
        ip[i] = current
        own[i] = change_layer(rewrite, p, layer, &pseudo[current] if current >= 0 else &nothing)
        if layer.kind == LAYER_IP4 and layer.end - layer.offset >= 12:
            own[i] += adjust(rewrite, p + 10, own[i], False)
        own[i] = placed(own[i], layer.offset)
    if not rewrite.rewriting:
        return 0
    for i in range(walk.layer_count - 1, -1, -1):
        layer = &walk.layers[i]
        total += own[i]
        total += placed(adjust_layer(rewrite, packet + layer.offset, layer, placed(total, layer.offset), pseudo[ip[i]] if ip[i] >= 0 else 0),
                        layer.offset)
    return total


cdef bint rewrite_packet(Rewrite *rewrite, uint8_t *p, uint32_t n, uint16_t link_type) noexcept nogil:
    cdef Walk walk
    cdef int i
    walk_headers(p, n, link_type, &walk)
    rewrite.missing = rewrite.known = False
    for i in range(walk.layer_count):
        if walk.layers[i].kind == LAYER_ARP or walk.layers[i].kind == LAYER_IP4 or walk.layers[i].kind == LAYER_IP6:
            rewrite.known = True
    rewrite.rewriting = False
    rewrite.packets = 0
    change_layers(rewrite, &walk, p)
    if rewrite.missing:
        return False
    rewrite.rewriting = True
    rewrite.packets = 0
    change_layers(rewrite, &walk, p)
    return True
