"""The slow, complete walk to every address of one packet: ARP, IP headers and options, tunnels, ICMP errors,
discovery, groups.

It runs twice on a packet: once to see whether every address is known, and then to rewrite. Every function takes p
and n, the bytes captured from p on, and returns what its changes add to the sum of a checksum that covers it,
counted in 16-bit words from p; every header lies at an even distance from the one around it. n bounds every access;
what is not captured is not touched.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from streamcore.service._address_table cimport find4, find6

cdef enum:
    DEPTH_MAX = 16  # headers in one another


# One address. A part of one that the capture cut off is still rewritten: the first bytes of the result depend on no later ones.

cdef uint64_t change4(Walk *walk, uint8_t *p, int64_t n) noexcept nogil:
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
    if not find4(walk.table, old, &new):
        walk.missing = True
        if walk.missing4_count < walk.missing_max:
            walk.missing4[walk.missing4_count] = old
            walk.missing4_count += 1
        return 0
    if not walk.rewriting:
        return 0
    new &= mask
    store32(whole, new)
    for i in range(4):
        if i < n:
            p[i] = whole[i]
    walk.changed += 1
    return delta32(old, new)


cdef uint64_t change6(Walk *walk, uint8_t *p, int64_t n) noexcept nogil:
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
    if not find6(walk.table, high, low, &new_high, &new_low):
        walk.missing = True
        if walk.missing6_count < walk.missing_max:
            walk.missing6[2 * walk.missing6_count] = high
            walk.missing6[2 * walk.missing6_count + 1] = low
            walk.missing6_count += 1
        return 0
    if not walk.rewriting:
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
    walk.changed += 1
    return delta


cdef uint64_t change4s(Walk *walk, uint8_t *p, int64_t n, int64_t count, int64_t step) noexcept nogil:
    """Addresses at p, p + step, …"""
    cdef uint64_t delta = 0
    cdef int64_t i
    for i in range(count):
        if i * step >= n:
            break
        delta += change4(walk, p + i * step, n - i * step)
    return delta


cdef uint64_t change6s(Walk *walk, uint8_t *p, int64_t n, int64_t count) noexcept nogil:
    cdef uint64_t delta = 0
    cdef int64_t i
    for i in range(count):
        if 16 * i >= n:
            break
        delta += change6(walk, p + 16 * i, n - 16 * i)
    return delta


cdef uint64_t adjust(Walk *walk, uint8_t *p, uint64_t delta, bint udp) noexcept nogil:
    """Adjust the checksum at p; returns what that adds to a sum around it."""
    cdef uint16_t old, new
    if not walk.rewriting:
        return 0
    old = load16(p)
    new = adjusted_udp(old, delta) if udp else adjusted(old, delta)
    store16(p, new)
    return <uint16_t> ~old + <uint64_t> new


# IP.

cdef uint64_t walk_ip(Walk *walk, uint8_t *p, int64_t n, int depth) noexcept nogil:
    if n < 1 or depth > DEPTH_MAX:
        return 0
    if p[0] >> 4 == 4:
        walk.known = True
        return walk_ip4(walk, p, n, depth)
    if p[0] >> 4 == 6:
        walk.known = True
        return walk_ip6(walk, p, n, depth)
    return 0


cdef uint64_t walk_ip4(Walk *walk, uint8_t *p, int64_t n, int depth) noexcept nogil:
    cdef int64_t head = 4 * (p[0] & 15)
    cdef int64_t length = load16(p + 2) if n >= 4 else 0
    cdef uint64_t source = change4(walk, p + 12, n - 12)
    cdef uint64_t target = change4(walk, p + 16, n - 16)
    cdef uint64_t pseudo = source + target
    cdef uint64_t delta = pseudo
    cdef uint64_t final = target
    if head > 20:
        delta += walk_options4(walk, p, head if head < n else n, &final)
        pseudo = source + final
    if n >= 12:
        delta += adjust(walk, p + 10, delta, False)
    if length >= head and length < n:
        n = length  # behind it is padding; 0 stands in packets that the sender's card cuts up
    if head < 20 or n <= head or load16(p + 6) & 0x1FFF:
        return delta
    return delta + walk_upper(walk, p[9], p + head, n - head, pseudo, depth)


cdef uint64_t walk_options4(Walk *walk, uint8_t *p, int64_t n, uint64_t *final) noexcept nogil:
    """Routes that packets took or shall take (RFC 791 3.1). final: the change of the address that is the packet's last
    target.
    """
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
                change = change4(walk, p + i, n - i)
                delta += swapped(change) if i & 1 else change  # at an odd place the words of the sum begin amid ours
                if kind != 7 and p[at + 2] <= size and i + 8 > at + size:
                    final[0] = change
                i += 4
        at += size
    return delta


cdef inline uint64_t swapped(uint64_t delta) noexcept nogil:
    cdef uint16_t folded = fold(delta)
    return <uint16_t> ((folded << 8) | (folded >> 8))


cdef uint64_t walk_ip6(Walk *walk, uint8_t *p, int64_t n, int depth) noexcept nogil:
    cdef int64_t length = load16(p + 4) if n >= 6 else 0
    cdef uint64_t source = change6(walk, p + 8, n - 8)
    cdef uint64_t target = change6(walk, p + 24, n - 24)
    cdef uint64_t delta = source + target
    cdef uint64_t routed
    cdef uint8_t following
    cdef int64_t at = 40
    cdef int64_t size
    cdef int headers
    if n <= 40:
        return delta
    if length and length + 40 < n:
        n = length + 40
    following = p[6]
    for headers in range(DEPTH_MAX):
        if at + 8 > n or not (following == 0 or following == 43 or following == 44 or following == 60 or following == 135):
            break
        if following == 44:
            if load16(p + at + 2) & 0xFFF8:
                return delta
            size = 8
        else:
            size = 8 * (p[at + 1] + 1)
            if following == 43:
                routed = 0
                delta += walk_route6(walk, p + at, size if at + size < n else n - at, &routed)
                if p[at + 3]:
                    target = routed
        following = p[at]
        at += size
    if at >= n:
        return delta
    return delta + walk_upper(walk, following, p + at, n - at, source + target, depth)


cdef uint64_t walk_route6(Walk *walk, uint8_t *p, int64_t n, uint64_t *final) noexcept nogil:
    """A routing header of type 0 or 2 (RFC 2460, RFC 6275: the last address is the final target) or 4 (RFC 8754: the
    first is).
    """
    cdef uint64_t change, delta = 0
    cdef int64_t at = 8
    cdef int64_t stop
    if p[2] != 0 and p[2] != 2 and p[2] != 4:
        return 0
    stop = 8 * (p[1] + 1)
    if p[2] == 4:
        stop = min(stop, 8 + 16 * (<int64_t> p[4] + 1))
    while at + 16 <= stop and at < n:
        change = change6(walk, p + at, n - at)
        delta += change
        if p[2] != 4 or at == 8:
            final[0] = change
        at += 16
    return delta


# What stands in IP.

cdef uint64_t walk_upper(Walk *walk, uint8_t protocol, uint8_t *p, int64_t n, uint64_t pseudo, int depth) noexcept nogil:
    """pseudo: the change of the addresses that the checksum covers too."""
    cdef uint64_t body
    cdef int64_t size
    if protocol == 51 and n >= 8:  # authentication header
        size = 4 * (<int64_t> p[1] + 2)
        return walk_upper(walk, p[0], p + size, n - size, pseudo, depth + 1) if size < n and depth < DEPTH_MAX else 0
    if protocol == 6:
        return adjust(walk, p + 16, pseudo, False) if n >= 18 else 0
    if protocol == 17 or protocol == 136:
        return adjust(walk, p + 6, pseudo, True) if n >= 8 else 0
    if protocol == 33:
        return adjust(walk, p + 6, pseudo, False) if n >= 8 else 0
    if protocol == 4 or protocol == 41:
        return walk_ip(walk, p, n, depth + 1)
    if protocol == 47:
        return walk_gre(walk, p, n, depth)
    if n < 4:
        return 0
    if protocol == 1:
        body = walk_icmp4(walk, p, n, depth)
        return body + adjust(walk, p + 2, body, False)
    if protocol == 58:
        body = walk_icmp6(walk, p, n, depth)
        return body + adjust(walk, p + 2, body + pseudo, False)
    if protocol == 2:
        body = walk_igmp(walk, p, n)
        return body + adjust(walk, p + 2, body, False)
    return 0


cdef uint64_t walk_icmp4(Walk *walk, uint8_t *p, int64_t n, int depth) noexcept nogil:
    cdef uint64_t delta = 0
    cdef uint8_t kind = p[0]
    if kind == 9 and n >= 6:  # router advertisement
        return change4s(walk, p + 8, n - 8, p[4], 4 * p[5] if p[5] else 4)
    if kind != 3 and kind != 4 and kind != 5 and kind != 11 and kind != 12:
        return 0
    if kind == 5:  # redirect: the gateway
        delta = change4(walk, p + 4, n - 4)
    return delta + walk_ip(walk, p + 8, n - 8, depth + 1)


cdef uint64_t walk_icmp6(Walk *walk, uint8_t *p, int64_t n, int depth) noexcept nogil:
    cdef uint8_t kind = p[0]
    cdef uint64_t delta
    if 1 <= kind <= 4:
        return walk_ip(walk, p + 8, n - 8, depth + 1)
    if kind == 135 or kind == 136:
        return change6(walk, p + 8, n - 8)
    if kind == 134:
        return walk_discovery(walk, p, n, 16, depth)
    if kind == 137:
        delta = change6(walk, p + 8, n - 8) + change6(walk, p + 24, n - 24)
        return delta + walk_discovery(walk, p, n, 40, depth)
    if 130 <= kind <= 132:  # listener discovery
        delta = change6(walk, p + 8, n - 8)
        return delta + (change6s(walk, p + 28, n - 28, load16(p + 26)) if kind == 130 and n > 28 else 0)
    return walk_groups(walk, p, n, 16) if kind == 143 else 0


cdef uint64_t walk_discovery(Walk *walk, uint8_t *p, int64_t n, int64_t at, int depth) noexcept nogil:
    """Options of neighbour discovery (RFC 4861 4.6, RFC 8106): prefix, redirected packet, name servers."""
    cdef uint64_t delta = 0
    cdef int64_t size, left
    while at + 8 <= n and p[at + 1]:
        size = 8 * p[at + 1]
        left = min(size, n - at)
        if p[at] == 3 and size == 32:
            delta += change6(walk, p + at + 16, left - 16)
        elif p[at] == 4:
            delta += walk_ip(walk, p + at + 8, left - 8, depth + 1)
        elif p[at] == 25:
            delta += change6s(walk, p + at + 8, left - 8, (size - 8) // 16)
        at += size
    return delta


cdef uint64_t walk_igmp(Walk *walk, uint8_t *p, int64_t n) noexcept nogil:
    if p[0] == 0x22:
        return walk_groups(walk, p, n, 4)
    return change4(walk, p + 4, n - 4) + (change4s(walk, p + 12, n - 12, load16(p + 10), 4) if p[0] == 0x11 and n > 12 else 0)


cdef uint64_t walk_groups(Walk *walk, uint8_t *p, int64_t n, int64_t size) noexcept nogil:
    """The group records of an IGMPv3 (RFC 3376 4.2) or MLDv2 (RFC 3810 5.2) report; size: of an address."""
    cdef uint64_t delta = 0
    cdef int64_t at = 8
    cdef int64_t records = load16(p + 6) if n >= 8 else 0
    cdef int64_t addresses
    while records > 0 and at + 4 < n:
        addresses = 1 + <int64_t> load16(p + at + 2)
        if size == 4:
            delta += change4s(walk, p + at + 4, n - at - 4, addresses, 4)
        else:
            delta += change6s(walk, p + at + 4, n - at - 4, addresses)
        at += 4 + size * addresses + 4 * p[at + 1]
        records -= 1
    return delta


cdef uint64_t walk_gre(Walk *walk, uint8_t *p, int64_t n, int depth) noexcept nogil:
    """RFC 2784, 2890: an IP packet or an Ethernet frame inside, and a checksum over it all where the first bit is set."""
    cdef int64_t at = 4
    cdef uint64_t body
    if n < 4 or p[1] & 7:
        return 0
    at += 4 * ((p[0] >> 7) + (p[0] >> 5 & 1) + (p[0] >> 4 & 1))
    if load16(p + 2) == 0x6558:
        body = walk_ethernet(walk, p + at, n - at, depth + 1)
    else:
        body = walk_type(walk, load16(p + 2), p + at, n - at, depth + 1)
    return body + adjust(walk, p + 4, body, False) if p[0] & 0x80 and n >= 6 else body


# Link layers.

cdef uint64_t walk_arp(Walk *walk, uint8_t *p, int64_t n) noexcept nogil:
    """RFC 826, with protocol addresses of IPv4. Nothing sums over it, except around a tunnelled frame, at an even
    distance.
    """
    cdef int64_t hardware
    cdef uint64_t delta
    if n < 8:
        return 0
    walk.known = True
    if load16(p + 2) != 0x0800 or p[5] != 4:
        return 0
    hardware = p[4]
    delta = change4(walk, p + 8 + hardware, n - 8 - hardware)
    if hardware & 1:
        delta = swapped(delta)
    return delta + change4(walk, p + 12 + 2 * hardware, n - 12 - 2 * hardware)


cdef uint64_t walk_ethernet(Walk *walk, uint8_t *p, int64_t n, int depth) noexcept nogil:
    return walk_type(walk, load16(p + 12), p + 14, n - 14, depth) if n >= 14 else 0


cdef uint64_t walk_type(Walk *walk, uint16_t kind, uint8_t *p, int64_t n, int depth) noexcept nogil:
    """What follows an EtherType: tags, labels and frames in frames (the kinds that parse/ knows), then ARP or IP."""
    cdef int64_t size, type_at
    while True:
        if kind == 0x8100 or kind == 0x88A8 or kind == 0x9100 or kind == 0x9200 or kind == 0x9300:
            size, type_at = 4, 2
        elif kind == 0x8926:  # VN-Tag
            size, type_at = 6, 4
        elif kind == 0x893F or kind == 0x8909:  # E-Tag; Cisco metadata
            size, type_at = 8, 6
        elif kind == 0x88E7:  # IEEE 802.1ah: a tag, then a whole Ethernet header
            size, type_at = 18, 16
        elif kind == 0x8903:  # FabricPath, then a whole Ethernet header
            size, type_at = 16, 14
        elif kind == 0x8847 or kind == 0x8848:  # MPLS: the bottom label says that what follows is none
            if n < 5:
                return 0
            p, n = p + 4, n - 4
            if not (p - 2)[0] & 1:
                continue
            if p[0] >> 4:
                return walk_ip(walk, p, n, depth)
            size, type_at = 18, 16  # a pseudowire's control word, then a whole Ethernet header
        elif kind == 0x8864:  # PPPoE: what PPP calls IPv4 and IPv6
            if n < 8 or (load16(p + 6) != 0x0021 and load16(p + 6) != 0x0057):
                return 0
            return walk_ip(walk, p + 8, n - 8, depth)
        elif kind <= 1500 and n >= 3 and p[0] == 6 and p[1] == 6 and p[2] == 3:  # IEEE 802.2
            return swapped(walk_ip(walk, p + 3, n - 3, depth))
        elif kind <= 1500 and n >= 8 and load16(p) == 0xAAAA and p[2] == 3 and load16(p + 3) == 0:  # with SNAP
            size, type_at = 8, 6
        else:
            break
        if n < size:
            return 0
        kind = load16(p + type_at)
        p, n = p + size, n - size
    if depth > DEPTH_MAX:
        return 0
    if kind == 0x0800 or kind == 0x86DD:
        return walk_ip(walk, p, n, depth)
    if kind == 0x0806 or kind == 0x8035:
        return walk_arp(walk, p, n)
    return 0


cdef uint64_t walk_packet(Walk *walk, uint8_t *p, int64_t n, uint16_t link_type) noexcept nogil:
    """One packet of Ethernet, raw IP, Linux cooked (1 and 2) or BSD loopback. Packets of others stay as they are."""
    walk.missing = False
    walk.known = False
    if link_type == 1:
        return walk_ethernet(walk, p, n, 0)
    if link_type == 101 or link_type == 228 or link_type == 229 or link_type == 12 or link_type == 14:
        return walk_ip(walk, p, n, 0)
    if link_type == 113:
        return walk_type(walk, load16(p + 14), p + 16, n - 16, 0) if n >= 16 else 0
    if link_type == 276:
        return walk_type(walk, load16(p), p + 20, n - 20, 0) if n >= 20 else 0
    if link_type == 0 or link_type == 108:  # an address family in either byte order, or an EtherType
        if n < 4:
            return 0
        if load16(p) == 0 and load16(p + 2) > 1500:
            return walk_type(walk, load16(p + 2), p + 4, n - 4, 0)
        return walk_ip(walk, p + 4, n - 4, 0)
    return 0
