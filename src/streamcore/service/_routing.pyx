"""Addresses in OSPF (RFC 2328, RFC 5340), VRRP (RFC 3768, RFC 5798) and PIM (RFC 7761, 3973, 5059, 5015), and checksums of OSPF link states.

Router and area ids count as IPv4 addresses. Anything of an unknown type is zeroed, and so are passwords, digests and whatever follows a
message's end. A message of unknown type makes the packet one that is not understood.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from streamcore.service._fields cimport Rewrite, change4, change4_set, change4s, change6, change_prefix6, load16, load32, unknown, zero

cdef enum:
    LSA_HEADER = 20


# OSPF. Captures cut messages, so each field gets the bytes that are present, perhaps none.

cdef int64_t change_ospf(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef bint new = n >= 1 and p[0] == 3
    cdef int64_t body = 16 if new else 24
    cdef int64_t stop = min(n, <int64_t> load16(p + 2)) if n >= 4 else n
    if n >= 2 and not 1 <= p[1] <= 5:
        unknown(rewrite, p)
        return n
    change4(rewrite, p + 4, n - 4)
    change4_set(rewrite, p + 8, n - 8)
    if not new and n > 16 and load16(p + 14) <= 1:  # a password, or bytes that are ignored
        zero(rewrite, p + 16, min(n, body) - 16)
    if stop > body:
        change_ospf_body(rewrite, p[1], p + body, stop - body, new)
    else:
        stop = body
    zero(rewrite, p + stop, n - stop)  # a digest, local signalling (RFC 5613)
    return n


cdef void change_ospf_body(Rewrite *rewrite, uint8_t kind, uint8_t *p, int64_t n, bint new) noexcept nogil:
    cdef int64_t at = 0
    cdef int64_t states, size
    if kind == 1:      # hello: the designated router and its backup, neighbours
        while 12 + at < n:
            change4_set(rewrite, p + 12 + at, n - 12 - at)
            at += 4
    elif kind == 2 or kind == 5:  # descriptions and acknowledgements: link state headers
        at = 0 if kind == 5 else 12 if new else 8
        while at < n:
            change_state_head(rewrite, p + at, min(n - at, <int64_t> LSA_HEADER), new)
            at += LSA_HEADER
    elif kind == 3:    # requests: type, id, router
        while at < n:
            change_request(rewrite, p + at, min(n - at, <int64_t> 12), new)
            at += 12
    else:              # updates
        states = load32(p) if n >= 4 else 0
        at = 4
        while states > 0 and at + LSA_HEADER <= n:
            size = max(<int64_t> load16(p + at + 18), <int64_t> LSA_HEADER)
            change_state(rewrite, p + at, min(size, n - at), size, new)
            at += size
            states -= 1
        zero(rewrite, p + at, n - at)


cdef inline bint is_address(uint16_t kind, bint new) noexcept nogil:
    """Whether a link state's id is an address. In version 2 it is, except in opaque ones; in version 3 only that of an inter-area router is."""
    return kind == 0x2004 if new else not 9 <= kind & 0xFF <= 11


cdef void change_request(Rewrite *rewrite, uint8_t *p, int64_t n, bint new) noexcept nogil:
    if n < 4 or is_address(load16(p + 2), new):
        change4_set(rewrite, p + 4, n - 4)
    change4(rewrite, p + 8, n - 8)


cdef void change_state_head(Rewrite *rewrite, uint8_t *p, int64_t n, bint new) noexcept nogil:
    """Age, options, type, id, router; sequence number, checksum and length, which stay."""
    if n < 4 or is_address(load16(p + 2) if new else p[3], new):
        change4_set(rewrite, p + 4, min(n, <int64_t> 8) - 4)
    change4(rewrite, p + 8, min(n, <int64_t> 12) - 8)


cdef void change_state(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t size, bint new) noexcept nogil:
    """n of the size bytes are present, at least the header."""
    change_state_head(rewrite, p, LSA_HEADER, new)
    if new:
        change_state3(rewrite, p, n, load16(p + 2))
    else:
        change_state2(rewrite, p, n, p[3])
    if rewrite.rewriting and n == size and fletcher_fits(rewrite.before + (p - rewrite.packet), n):
        set_fletcher(p, n)


cdef void change_state2(Rewrite *rewrite, uint8_t *p, int64_t n, uint8_t kind) noexcept nogil:
    """RFC 2328 A.4. Masks, metrics and tags stay. Those of types of service (RFC 1583), which are no longer used, are zeroed."""
    cdef int64_t at = 24
    cdef int64_t services
    if kind == 1:    # router: links with id, data (a mask if stub), type, number of metrics
        while at < n:
            change4_set(rewrite, p + at, n - at)
            if not (at + 8 < n and p[at + 8] == 3):
                change4_set(rewrite, p + at + 4, n - at - 4)
            services = 4 * <int64_t> p[at + 9] if at + 9 < n else 0
            zero(rewrite, p + at + 12, min(services, n - at - 12))
            at += 12 + services
    elif kind == 2:  # network: mask, routers
        change4s(rewrite, p + 24, n - 24, n, 4)
    elif kind == 3 or kind == 4:  # summary: mask, metric
        zero(rewrite, p + 28, n - 28)
    elif kind == 5 or kind == 7:  # external: mask; metric, forwarding address, tag
        change4_set(rewrite, p + 28, min(n, <int64_t> 32) - 28)
        zero(rewrite, p + 36, n - 36)
    else:
        zero(rewrite, p + LSA_HEADER, n - LSA_HEADER)


cdef void change_state3(Rewrite *rewrite, uint8_t *p, int64_t n, uint16_t kind) noexcept nogil:
    """RFC 5340 A.4."""
    cdef int64_t at = 24
    if kind == 0x2001:    # router: links with type, metric, interface numbers, router
        while at < n:
            change4(rewrite, p + at + 12, n - at - 12)
            at += 16
    elif kind == 0x2002:  # network: options, routers
        change4s(rewrite, p + 24, n - 24, n, 4)
    elif kind == 0x2003:  # inter-area prefix
        at = change_prefixes(rewrite, p, at, n, 1)
        zero(rewrite, p + at, n - at)
    elif kind == 0x2004:  # inter-area router: options, metric, router
        change4(rewrite, p + 28, n - 28)
        zero(rewrite, p + 32, n - 32)
    elif kind == 0x4005 or kind == 0x2007:  # external: flags, metric, prefix, then what the flags announce
        at = change_prefixes(rewrite, p, at, n, 1)
        if n > 20 and p[20] & 2:
            change6(rewrite, p + at, n - at)
            at += 16
        if n > 28:  # a tag, a referenced link state
            at += 4 * ((p[20] & 1) + (load16(p + 26) != 0))
        zero(rewrite, p + at, n - at)
    elif kind == 0x0008:  # link: priority, options, address, prefixes
        change6(rewrite, p + 24, min(n, <int64_t> 40) - 24)
        at = change_prefixes(rewrite, p, 44, n, load32(p + 40) if n >= 44 else 0)
        zero(rewrite, p + at, n - at)
    elif kind == 0x2009:  # intra-area prefixes: count, referenced link state, prefixes
        change4(rewrite, p + 28, min(n, <int64_t> 32) - 28)
        at = change_prefixes(rewrite, p, 32, n, load16(p + 20) if n >= 22 else 0)
        zero(rewrite, p + at, n - at)
    else:
        zero(rewrite, p + LSA_HEADER, n - LSA_HEADER)


cdef int64_t change_prefixes(Rewrite *rewrite, uint8_t *p, int64_t at, int64_t n, int64_t count) noexcept nogil:
    """Prefixes: length in bits, options, two bytes, and as many words as the bits need. Returns where they end."""
    cdef int64_t size
    while count > 0 and at < n:
        if p[at] > 128:
            zero(rewrite, p + at, n - at)
            return n
        size = 4 * ((p[at] + 31) // 32)
        if size and at + 4 < n:
            change_prefix6(rewrite, p + at + 4, min(n - at - 4, size), p[at])
        at += 4 + size
        count -= 1
    return min(at, n)


# The checksum of a link state (RFC 2328 12.1.7, ISO 8473 6.11) covers everything except the age.

cdef inline void fletcher(const uint8_t *p, int64_t n, uint32_t *c0, uint32_t *c1) noexcept nogil:
    cdef int64_t i
    c0[0] = c1[0] = 0
    for i in range(2, n):
        c0[0] = (c0[0] + p[i]) % 255
        c1[0] = (c1[0] + c0[0]) % 255


cdef bint fletcher_fits(const uint8_t *p, int64_t n) noexcept nogil:
    cdef uint32_t c0, c1
    fletcher(p, n, &c0, &c1)
    return c0 == 0 and c1 == 0 and load16(p + 16) != 0


cdef void set_fletcher(uint8_t *p, int64_t n) noexcept nogil:
    cdef uint32_t c0, c1
    cdef int64_t x, y
    p[16] = p[17] = 0
    fletcher(p, n, &c0, &c1)
    x = ((n - 17) * <int64_t> c0 - c1) % 255
    if x <= 0:  # in C a remainder has the sign of the dividend
        x += 255
    y = 510 - c0 - x
    p[16] = <uint8_t> x
    p[17] = <uint8_t> (y - 255 if y > 255 else y)


# VRRP.

cdef int64_t change_vrrp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """As many addresses, of the IP header's version, as the message announces; then an optional password (RFC 2338)."""
    cdef int64_t at = 8
    cdef int64_t count = p[3] if n >= 4 else 0
    cdef bint six = rewrite.ip_version == 6
    while count > 0 and at < n:
        if six:
            change6(rewrite, p + at, n - at)
        else:
            change4(rewrite, p + at, n - at)
        at += 16 if six else 4
        count -= 1
    zero(rewrite, p + at, n - at)
    return n


# PIM.

cdef int64_t change_pim(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """By message type. Every encoded address begins with its family. A register with a packet inside is a tunnel."""
    cdef int64_t at = 4
    cdef uint8_t kind
    if n < 1 or p[0] >> 4 != 2:
        unknown(rewrite, p)
        return n
    kind = p[0] & 15
    if kind == 0:    # hello
        change_hello(rewrite, p, n)
        return n
    if kind == 2:    # register-stop: group, source
        at = encoded(rewrite, p, encoded(rewrite, p, at, n, 4), n, 2)
    elif kind == 3 or kind == 6 or kind == 7:  # join and prune, graft
        at = change_joins(rewrite, p, at, n)
    elif kind == 4:  # bootstrap
        at = change_bootstrap(rewrite, p, at, n)
    elif kind == 5:  # assert: group, source, preference and metric
        at = encoded(rewrite, p, encoded(rewrite, p, at, n, 4), n, 2) + 8
    elif kind == 8:  # candidate: number of prefixes, priority, hold time, itself, groups
        at = encoded(rewrite, p, at + 4, n, 2)
        while at < n:
            at = encoded(rewrite, p, at, n, 4)
    elif kind == 9:  # state refresh: group, source, originator, numbers
        at = encoded(rewrite, p, encoded(rewrite, p, encoded(rewrite, p, at, n, 4), n, 2), n, 2) + 12
    elif kind == 10:  # forwarder election: the rendezvous point, preference and metric, perhaps the other forwarder's too
        at = encoded(rewrite, p, at, n, 2) + 8
        if at < n:
            at = encoded(rewrite, p, at, n, 2) + 10
    else:
        unknown(rewrite, p)
        return n
    zero(rewrite, p + at, n - at)
    return n


cdef int64_t encoded(Rewrite *rewrite, uint8_t *p, int64_t at, int64_t n, int64_t head) noexcept nogil:
    """An address after the `head` bytes at p[at], which are its family and encoding, and for groups and sources flags and the prefix length.
    Returns where it ends; n if it cannot be read, and then the rest is zeroed."""
    if at >= n:
        return n
    if (p[at] == 1 or p[at] == 2) and (at + 1 >= n or p[at + 1] == 0):
        if p[at] == 1:
            change4(rewrite, p + at + head, min(n - at - head, <int64_t> 4))
            return at + head + 4
        change6(rewrite, p + at + head, min(n - at - head, <int64_t> 16))
        return at + head + 16
    zero(rewrite, p + at, n - at)
    return n


cdef void change_hello(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Options of type, length and value: hold time, delays, priority, generation, refresh and capability stay; addresses (24, 65001) do not."""
    cdef int64_t at = 4
    cdef int64_t size, next
    cdef uint16_t kind
    while at + 4 <= n:
        kind, size = load16(p + at), load16(p + at + 2)
        next = at + 4 + size
        if kind == 24 or kind == 65001:
            at += 4
            while at < min(next, n):
                at = encoded(rewrite, p, at, min(next, n), 2)
        elif not (kind <= 2 or 19 <= kind <= 22) or size > 4:
            zero(rewrite, p + at + 4, min(size, n - at - 4))
        at = next
    zero(rewrite, p + at, n - at)


cdef int64_t change_joins(Rewrite *rewrite, uint8_t *p, int64_t at, int64_t n) noexcept nogil:
    """The neighbour; number of groups, hold time; each group with the numbers of its joined and pruned sources, then the sources."""
    cdef int64_t groups, sources
    at = encoded(rewrite, p, at, n, 2)
    if at + 4 > n:
        return at
    groups = p[at + 1]
    at += 4
    while groups > 0 and at < n:
        at = encoded(rewrite, p, at, n, 4)
        if at + 4 > n:
            return at
        sources = <int64_t> load16(p + at) + load16(p + at + 2)
        at += 4
        while sources > 0 and at < n:
            at = encoded(rewrite, p, at, n, 4)
            sources -= 1
        groups -= 1
    return at


cdef int64_t change_bootstrap(Rewrite *rewrite, uint8_t *p, int64_t at, int64_t n) noexcept nogil:
    """Tag, mask length, priority; the router; groups with their rendezvous points, each with hold time and priority."""
    cdef int64_t points
    at = encoded(rewrite, p, at + 4, n, 2)
    while at < n:
        at = encoded(rewrite, p, at, n, 4)
        if at + 4 > n:
            return at
        points = p[at + 1]  # in this fragment
        at += 4
        while points > 0 and at < n:
            at = encoded(rewrite, p, at, n, 2) + 4
            points -= 1
    return at
