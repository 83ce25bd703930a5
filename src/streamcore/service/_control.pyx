"""Addresses in ICMP with neighbour discovery, in IGMP and in ARP.

An option of unknown type is zeroed. A message of unknown type makes the packet one that is not understood.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from streamcore.service._addresses cimport change_packet
from streamcore.service._fields cimport (
    KEEP,
    Rewrite,
    adjusted,
    change4,
    change4s,
    change6,
    change6s,
    change_mac,
    change_prefix6,
    difference,
    load16,
    placed,
    store16,
    unknown,
    zero,
)


# ICMP.

cdef int64_t change_icmp4(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef uint8_t kind = p[0]
    if kind == 0 or kind == 8 or kind == 10 or kind == 15 or kind == 16:
        return 8
    if kind == 13 or kind == 14:
        return 20
    if kind == 17 or kind == 18:
        return 12
    if kind == 3 or kind == 4 or kind == 11 or kind == 12:
        change_objects(rewrite, p + 8, n - 8, 4 * p[5] if kind != 4 and n >= 6 else 0)
        return 8
    if kind == 5:  # redirect: the new gateway
        change4(rewrite, p + 4, n - 4)
        zero_behind(rewrite, p + 8, n - 8, n - 8)
        return 8
    if kind == 9 and n >= 6:  # router advertisement
        return change_routers(rewrite, p, n)
    unknown(rewrite, p)
    return n


cdef int64_t change_routers(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """A router advertisement (RFC 1256): entries of an address, a preference, and nothing more that is known."""
    cdef int64_t size = 4 * p[5] if p[5] else 4
    cdef int64_t at = 8
    cdef int64_t entries = p[4]
    while entries > 0 and at < n:
        change4(rewrite, p + at, n - at)
        zero(rewrite, p + at + 8, min(size, n - at) - 8)
        at += size
        entries -= 1
    zero(rewrite, p + at, n - at)
    return n


cdef int64_t change_icmp6(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef uint8_t kind = p[0]
    cdef int64_t stop
    if 1 <= kind <= 4:
        if kind == 1 or kind == 3:
            change_objects(rewrite, p + 8, n - 8, 8 * p[4] if n >= 5 else 0)
        else:
            zero_behind(rewrite, p + 8, n - 8, n - 8)
        return 8
    if kind == 128 or kind == 129 or kind == 144 or 151 <= kind <= 153:
        return 8
    if 130 <= kind <= 132:  # listener discovery
        change6(rewrite, p + 8, min(n, <int64_t> 24) - 8)
        stop = 24
        if kind == 130 and n > 28:
            change6s(rewrite, p + 28, n - 28, load16(p + 26))
            stop = 28 + 16 * <int64_t> load16(p + 26)
        zero(rewrite, p + stop, n - stop)
        return n
    if kind == 133 or kind == 141 or kind == 142 or kind == 147:
        change_discovery(rewrite, p, n, 8)
    elif kind == 134:
        change_discovery(rewrite, p, n, 16)
    elif kind == 135 or kind == 136:
        change6(rewrite, p + 8, min(n, <int64_t> 24) - 8)
        change_discovery(rewrite, p, n, 24)
    elif kind == 137:
        change6s(rewrite, p + 8, n - 8, 2)
        change_discovery(rewrite, p, n, 40)
    elif kind == 143:
        change_groups(rewrite, p, n, 16)
    elif kind == 145:
        change6s(rewrite, p + 8, n - 8, n)
    elif kind == 146:
        change_discovery(rewrite, p, n, 8)
    else:
        unknown(rewrite, p)
    return n


cdef void change_discovery(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t at) noexcept nogil:
    """Options of neighbour discovery (RFC 4861 4.6, RFC 3122, 4191, 5568, 6775, 8106, 8781)."""
    cdef int64_t size, left, kept
    cdef uint8_t kind
    while at + 2 <= n and p[at + 1]:
        kind = p[at]
        size = 8 * p[at + 1]
        left = min(size, n - at)
        if kind == 1 or kind == 2:
            change_mac(rewrite, p + at + 2, left - 2, size - 2)
        elif kind == 3:
            change6(rewrite, p + at + 16, left - 16)
            zero(rewrite, p + at + 32, left - 32)
        elif kind == 4:
            change_packet(rewrite, p + at + 8, left - 8)
        elif kind == 9 or kind == 10 or kind == 25:
            change6s(rewrite, p + at + 8, left - 8, (size - 8) // 16)
        elif kind == 17 or kind == 35:
            change6(rewrite, p + at + 8, min(left, <int64_t> 24) - 8)
            zero(rewrite, p + at + 24, left - 24)
        elif kind == 24:
            change_prefix6(rewrite, p + at + 8, min(left, <int64_t> 24) - 8, p[at + 2] if left > 2 else 0)
            zero(rewrite, p + at + 24, left - 24)
        elif kind == 33:
            change_mac(rewrite, p + at + 8, left - 8, size - 8)
        elif kind == 38:
            change_prefix6(rewrite, p + at + 4, min(left, <int64_t> 16) - 4, 96)
            zero(rewrite, p + at + 16, left - 16)
        elif kind == 31:
            if rewrite.names or rewrite.payload != KEEP:
                zero(rewrite, p + at + 8, left - 8)
        else:  # only numbers: MTU, intervals, timestamps, nonces
            kept = 8 if kind == 5 or kind == 7 or kind == 8 or kind == 14 else 16 if kind == 13 else 2
            zero(rewrite, p + at + kept, left - kept)
        at += size
    if at < n:
        zero(rewrite, p + at, n - at)


cdef void change_objects(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t quoted) noexcept nogil:
    """The extension after a quoted packet (RFC 4884): after `quoted` bytes, or if no length is given after 128, provided that it looks like one:
    by its checksum, or if it has none (zero) by its objects. Interface information contains addresses and names (RFC 5837)."""
    cdef int64_t at = quoted if quoted else 128
    cdef int64_t start, size
    cdef uint16_t change
    if n < at + 4 or p[at] >> 4 != 2 or (quoted == 0 and not sums_up(p + at, n - at) and not adds_up(p + at, n - at)):
        zero_behind(rewrite, p, n, n)
        return
    zero_behind(rewrite, p, n, at)
    start = at
    at += 4
    while at + 4 <= n:
        size = load16(p + at)
        if size < 4:
            break
        if p[at + 2] == 2:
            change_interface(rewrite, p + at, min(size, n - at))
        elif p[at + 2] != 1:
            zero(rewrite, p + at + 4, min(size, n - at) - 4)
        at += size
    if at < n:
        zero(rewrite, p + at, n - at)
    if rewrite.rewriting and load16(p + start + 2):
        at = p + start - rewrite.packet
        store16(p + start + 2, adjusted(load16(p + start + 2), placed(difference(rewrite, at, at + n - start), <uint32_t> at)))


cdef void zero_behind(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t stop) noexcept nogil:
    """Zero what stands behind the end of a quoted packet, by its own length, up to p[stop]: padding, or something that is not read."""
    cdef int64_t size = stop
    if n >= 20 and p[0] >> 4 == 4 and load16(p + 2) >= 20:
        size = load16(p + 2)
    elif n >= 40 and p[0] >> 4 == 6 and load16(p + 4):
        size = 40 + load16(p + 4)
    zero(rewrite, p + size, min(stop, n) - size)


cdef bint sums_up(const uint8_t *p, int64_t n) noexcept nogil:
    cdef uint64_t total = 0
    cdef int64_t i
    for i in range(0, n - 1, 2):
        total += load16(p + i)
    if n & 1:
        total += <uint64_t> p[n - 1] << 8
    return total % 0xFFFF == 0


cdef bint adds_up(const uint8_t *p, int64_t n) noexcept nogil:
    """Whether objects fill an extension without a checksum."""
    cdef int64_t at = 4
    if n < 8 or p[0] != 0x20 or p[1] or load16(p + 2):
        return False
    while at + 4 <= n and load16(p + at) >= 4:
        at += load16(p + at)
    return at == n


cdef void change_interface(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef uint8_t has = p[3]
    cdef int64_t at = 8 if has & 8 else 4
    if has & 4:
        if n >= at + 2 and load16(p + at) == 1:
            change4(rewrite, p + at + 4, n - at - 4)
            at += 8
        elif n >= at + 2 and load16(p + at) == 2:
            change6(rewrite, p + at + 4, n - at - 4)
            at += 20
        else:
            zero(rewrite, p + at, n - at)
            return
    if has & 2 and n > at:
        zero(rewrite, p + at + 1, min(n - at, <int64_t> max(p[at], 1)) - 1)
        at += max(p[at], 1)
    zero(rewrite, p + at + (4 if has & 1 else 0), n - at - (4 if has & 1 else 0))


# IGMP.

cdef int64_t change_igmp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """What follows a message is no part of it, and zeroed."""
    cdef uint8_t kind = p[0]
    cdef int64_t stop
    if kind == 0x22:
        change_groups(rewrite, p, n, 4)
        return n
    if kind == 0x11 or kind == 0x12 or kind == 0x16 or kind == 0x17:
        change4(rewrite, p + 4, n - 4)
        stop = 8
        if kind == 0x11 and n > 12:
            change4s(rewrite, p + 12, n - 12, load16(p + 10), 4)
            stop = 12 + 4 * <int64_t> load16(p + 10)
        zero(rewrite, p + stop, n - stop)
        return n
    if 0x30 <= kind <= 0x32:  # RFC 4286
        zero(rewrite, p + 8, n - 8)
        return n
    unknown(rewrite, p)
    return n


cdef void change_groups(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t size) noexcept nogil:
    """The group records of an IGMPv3 (RFC 3376 4.2) or MLDv2 (RFC 3810 5.2) report. size: of an address. The bytes after the records are zeroed."""
    cdef int64_t at = 8
    cdef int64_t records = load16(p + 6) if n >= 8 else 0
    cdef int64_t addresses, auxiliary
    while records > 0 and at + 4 < n:
        addresses = 1 + <int64_t> load16(p + at + 2)
        auxiliary = 4 * <int64_t> p[at + 1]
        if size == 4:
            change4s(rewrite, p + at + 4, n - at - 4, addresses, 4)
        else:
            change6s(rewrite, p + at + 4, n - at - 4, addresses)
        at += 4 + size * addresses
        zero(rewrite, p + at, min(auxiliary, n - at))
        at += auxiliary
        records -= 1
    zero(rewrite, p + at, n - at)


# ARP.

cdef enum:
    ARP_ATM = 19             # RFC 2225
    ARP_FIREWIRE = 24        # RFC 2734


cdef int64_t change_arp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """RFC 826 with IP as the protocol, on any hardware. ATM and IEEE 1394 have layouts of their own."""
    cdef int64_t hardware, protocol, at = 8
    cdef int i
    if n < 8:
        return n
    if load16(p) == ARP_ATM:
        return change_atm_arp(rewrite, p, n)
    hardware, protocol = p[4], p[5]
    if is_tunnel(load16(p)) and hardware != 0 and hardware != 4 and hardware != 16:
        unknown(rewrite, p)
        return n
    if protocol != 0 and not (load16(p + 2) == 0x0800 and protocol == 4) and not (load16(p + 2) == 0x86DD and protocol == 16):
        unknown(rewrite, p)
        return n
    for i in range(2):
        if i == 0 or load16(p) != ARP_FIREWIRE:
            if is_tunnel(load16(p)):
                change_protocol(rewrite, p + at, n - at, hardware)
            else:
                change_mac(rewrite, p + at, n - at, hardware)
            at += hardware
        change_protocol(rewrite, p + at, n - at, protocol)
        at += protocol
    return at


cdef inline bint is_tunnel(uint16_t hardware) noexcept nogil:
    """Linux's tunnels over IP (ARPHRD_TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE) have IP addresses as their hardware's."""
    return hardware == 768 or hardware == 769 or hardware == 776 or hardware == 778 or hardware == 823


cdef inline void change_protocol(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t size) noexcept nogil:
    if size == 4:
        change4(rewrite, p, n)
    elif size == 16:
        change6(rewrite, p, n)


cdef int64_t change_atm_arp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Type and length of ATM number and subaddress, then protocol address: first the sender's, then the target's."""
    cdef int64_t at = 12
    cdef int i
    cdef int64_t number, protocol
    if n < 12 or load16(p + 2) != 0x0800 or (p[8] != 4 and p[8] != 0) or (p[11] != 4 and p[11] != 0):
        unknown(rewrite, p)
        return n
    for i in range(2):
        number = (p[9 if i else 4] & 63) + (p[10 if i else 5] & 63)
        protocol = p[11 if i else 8]
        change_mac(rewrite, p + at, n - at, number)
        at += number
        change_protocol(rewrite, p + at, n - at, protocol)
        at += protocol
    return at
