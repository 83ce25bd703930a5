"""Addresses in options of IPv4, TCP and DCCP, and in extension headers of IPv6.

An option of unknown type is zeroed.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from streamcore.service._fields cimport (
    Rewrite,
    change4,
    change6,
    put_zeros,
    unknown,
    zero,
)


# IPv4 and TCP.

cdef void change_options4(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """The options of an IPv4 header of n bytes (RFC 791 3.1, RFC 1393). For checksums, a source route's last address replaces the target."""
    cdef int64_t at = 20
    cdef int64_t i
    cdef int64_t size = next_option(rewrite, p, n, &at)
    cdef uint8_t kind
    while size:
        kind = p[at]
        if kind == 7 or kind == 131 or kind == 137:  # record route, loose and strict source route
            i = at + 3
            while i + 4 <= at + size and i < n:
                change4(rewrite, p + i, n - i)
                if kind != 7 and p[at + 2] <= size and i + 8 > at + size:
                    rewrite.target_at = <uint32_t> (p + i - rewrite.packet)
                i += 4
            put_zeros(rewrite, p + i, min(n, at + size) - i)
        elif kind == 68:
            change_timestamps(rewrite, p + at, min(n - at, size))
        elif kind == 82:
            change4(rewrite, p + at + 8, min(n - at, size) - 8)
            zero(rewrite, p + at + 12, min(n - at, size) - 12)
        else:
            i = 4 if kind == 11 or kind == 12 or kind == 136 or kind == 148 else 8 if kind == 25 else 11 if kind == 130 else 2  # bytes that stay
            zero(rewrite, p + at + i, min(n - at, size) - i)
        at += size
        size = next_option(rewrite, p, n, &at)


cdef inline int64_t next_option(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t *at) noexcept nogil:
    """Move `at` past padding to the next option of IPv4 or TCP; returns its size, at least 2. 0: there is no other, and what follows the last
    one is zeroed."""
    while at[0] < n and p[at[0]] == 1:
        at[0] += 1
    if at[0] >= n:
        return 0
    if p[at[0]] == 0 or at[0] + 2 > n or p[at[0] + 1] < 2:
        zero(rewrite, p + at[0], n - at[0])
        return 0
    return p[at[0] + 1]


cdef void change_timestamps(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Timestamps, or pairs of an address and a timestamp (flags 1 and 3)."""
    cdef int64_t at = 4
    if n < 4 or p[3] & 15 == 0:
        return
    if p[3] & 15 != 1 and p[3] & 15 != 3:
        zero(rewrite, p + 4, n - 4)
        return
    while at < n:
        change4(rewrite, p + at, n - at)
        at += 8


cdef void change_tcp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """The options of a TCP header of n bytes. Those of RFC 9293 and the common ones stay; multipath TCP has addresses (RFC 8684 3.4.1)."""
    cdef int64_t at = 20
    cdef int64_t kept
    cdef int64_t size = next_option(rewrite, p, n, &at)
    while size:
        if p[at] == 30 and at + 3 < n and p[at + 2] >> 4 == 3:
            change_added(rewrite, p + at, min(n - at, size))
        else:
            kept = plain_option(p[at])
            zero(rewrite, p + at + kept, min(n - at, size) - kept)
        at += size
        size = next_option(rewrite, p, n, &at)


cdef void change_added(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Multipath TCP announces an address, perhaps with a port and a digest over both. The digest's keys are exchanged when the connection begins,
    so whoever captured them could try all addresses."""
    cdef int64_t address = 4 if n < 20 else 16
    cdef int64_t stop = 4 + address
    if address == 4:
        change4(rewrite, p + 4, min(n, stop) - 4)
    else:
        change6(rewrite, p + 4, min(n, stop) - 4)
    if n == stop + 2 or n == stop + 10:  # a port
        stop += 2
    zero(rewrite, p + stop, n - stop)


cdef inline int64_t plain_option(uint8_t kind) noexcept nogil:
    """How many bytes of a TCP option contain no address. Digests and cookies (19, 29, 34), multipath TCP and SACK vary in length."""
    if kind == 5 or kind == 15 or kind == 19 or kind == 29 or kind == 30 or kind == 34:
        return 40
    return 4 if kind == 2 else 3 if kind == 3 or kind == 14 else 6 if kind == 6 or kind == 7 else 10 if kind == 8 else 2


cdef void change_dccp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """The options of a DCCP header of n bytes (RFC 4340 5.1, 5.8). Numbers and the known features stay."""
    cdef int64_t at = 16 if p[8] & 1 else 12
    cdef int64_t size
    cdef uint8_t kind = p[8] >> 1 & 15
    if kind == 1 or 3 <= kind <= 9:  # an acknowledgement number
        at += 8 if p[8] & 1 else 4
    if kind == 0 or kind == 1 or kind == 7:  # a service code, or the reason for a reset
        at += 4
    while at < n:
        if p[at] < 32:
            at += 1
            continue
        if at + 2 > n or p[at + 1] < 2:
            zero(rewrite, p + at, n - at)
            return
        size = p[at + 1]
        if not (32 <= p[at] <= 44) or p[at] == 36:  # 36: a cookie
            zero(rewrite, p + at + 2, min(n - at, size) - 2)
        at += size


# Extension headers of IPv6.

cdef void change_extension(Rewrite *rewrite, uint8_t *p, int64_t n, int kind) noexcept nogil:
    """kind: the header's protocol number; n: bytes of it that are present."""
    if kind == 43:
        change_route6(rewrite, p, n)
    elif kind == 0 or kind == 60:
        change_options6(rewrite, p, n, 2)
    elif kind == 135:
        change_mobility(rewrite, p, n)
    elif kind != 44:
        unknown(rewrite, p)


cdef void change_options6(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t at) noexcept nogil:
    """Hop-by-hop and destination options. For checksums, a home address replaces the source (RFC 6275 6.3)."""
    cdef int64_t size, left, kept
    cdef uint8_t kind
    while at < n:
        kind = p[at]
        if kind == 0:
            at += 1
            continue
        if at + 2 > n:
            return
        size = p[at + 1]
        left = min(size, n - at - 2)
        if kind == 0xC9:
            change6(rewrite, p + at + 2, left)
            zero(rewrite, p + at + 18, left - 16)
            if size == 16 and left == 16:
                rewrite.source_at = <uint32_t> (p + at + 2 - rewrite.packet)
        else:  # only numbers: tunnel limit, router alert, quick start, RPL, jumbo payload
            kept = 1 if kind == 0x04 else 2 if kind == 0x05 else 6 if kind == 0x26 else 4 if kind == 0x63 or kind == 0x23 or kind == 0xC2 else 0
            zero(rewrite, p + at + 2 + kept, left - kept)
        at += 2 + size


cdef void change_route6(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """A routing header of type 0 or 2 (the final target is the last address: RFC 2460, RFC 6275), or 4 (it is the first: RFC 8754). While segments
    are left, checksums use the final target."""
    cdef int64_t at = 8
    cdef int64_t stop
    if n < 4:
        return
    if p[2] != 0 and p[2] != 2 and p[2] != 4:
        zero(rewrite, p + 4, n - 4)
        if p[3]:  # checksums are about a target that is not known
            unknown(rewrite, p)
        return
    stop = 8 * (p[1] + 1)
    if p[2] == 4:
        stop = min(stop, 8 + 16 * (<int64_t> p[4] + 1)) if n > 4 else 8
    while at + 16 <= stop and at < n:
        change6(rewrite, p + at, n - at)
        if p[3] and (p[2] != 4 or at == 8):
            rewrite.target_at = <uint32_t> (p + at - rewrite.packet)
        at += 16
    if p[2] == 4:
        zero_values(rewrite, p, n, at)
    else:
        zero(rewrite, p + at, n - at)


cdef void zero_values(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t at) noexcept nogil:
    """Zero the values of TLVs; types and lengths stay."""
    while at < n:
        if p[at] == 0:
            at += 1
            continue
        if at + 2 > n:
            return
        zero(rewrite, p + at + 2, min(<int64_t> p[at + 1], n - at - 2))
        at += 2 + <int64_t> p[at + 1]


cdef void change_mobility(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """RFC 6275 6.1: bindings. The alternate care-of address is one of their options."""
    cdef int64_t at, size, left, kept
    cdef uint8_t kind = p[2] if n >= 3 else 255
    if kind > 7:
        unknown(rewrite, p)
        return
    if kind == 7:
        change6(rewrite, p + 8, min(n, <int64_t> 24) - 8)
    at = 8 if kind == 0 else 16 if kind <= 2 else 24 if kind <= 4 or kind == 7 else 12
    while at + 2 <= n:
        if p[at] == 0:
            at += 1
            continue
        size = p[at + 1]
        left = min(size, n - at - 2)
        if p[at] == 3:
            change6(rewrite, p + at + 2, left)
            zero(rewrite, p + at + 18, left - 16)
        elif p[at] != 5:  # a digest; of the others, advice about refreshing (2) and nonces (4) are numbers
            kept = 2 if p[at] == 2 else 4 if p[at] == 4 else 0
            zero(rewrite, p + at + 2 + kept, left - kept)
        at += 2 + size
