"""Transport messages that are about addresses: DHCP (RFC 2131, 2132), DHCPv6 (RFC 8415), SCTP chunks (RFC 9260, RFC 5061).

Anything of an unknown type is zeroed. Names are zeroed as well if `names` is set; otherwise they stay, as payload does.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from streamcore.service._fields cimport (
    KEEP,
    Rewrite,
    change4,
    change4_set,
    change4s,
    change6,
    change6s,
    change_mac,
    change_prefix6,
    load16,
    load32,
    zero,
)

cdef enum:
    # What an option contains.
    OPAQUE = 0               # or of unknown type
    PLAIN                    # numbers
    TEXT                     # names
    ADDRESSES                # of IPv4, in sequence
    PAIRS                    # address and mask, or address and address
    ROUTES                   # RFC 3442
    IDENTITY                 # of a client: hardware type and address
    RELAY                    # RFC 3046: further options

cdef uint8_t[256] dhcp_options
cdef uint8_t[256] relay_options
cdef uint8_t[256] plain_bytes  # of a plain option; 255: a list of any length


cdef void fill_options() noexcept:
    memset(dhcp_options, OPAQUE, sizeof(dhcp_options))
    memset(relay_options, OPAQUE, sizeof(relay_options))
    for size, kinds in (
        (0, (80,)), (1, (19, 20, 23, 27, 29, 30, 31, 34, 36, 37, 39, 46, 52, 53, 116, 151, 157)), (2, (13, 22, 26, 57)),
        (3, (94,)), (4, (1, 2, 24, 35, 38, 51, 58, 59, 91, 152)), (255, (25, 55, 93, 145)),
    ):
        for kind in kinds:
            dhcp_options[kind] = PLAIN
            plain_bytes[kind] = size
    for kind in (12, 14, 15, 17, 18, 40, 47, 56, 60, 62, 64, 66, 67, 77, 81, 86, 87, 88, 98, 100, 101, 114, 119):
        dhcp_options[kind] = TEXT
    for kind in (3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 28, 32, 41, 42, 44, 45, 48, 49, 50, 54, 65, 68, 69, 70, 71, 72, 73, 74, 75, 76, 85, 89, 92, 112, 118, 136, 138, 150):
        dhcp_options[kind] = ADDRESSES
    for kind in (21, 33):
        dhcp_options[kind] = PAIRS
    for kind in (121, 249):
        dhcp_options[kind] = ROUTES
    dhcp_options[61] = dhcp_options[97] = IDENTITY
    dhcp_options[82] = RELAY
    relay_options[5] = relay_options[11] = ADDRESSES
    relay_options[10] = PLAIN
    plain_bytes[10] = 1


cdef enum:
    COOKIE = 0x63825363
    PXE = 4011               # of servers that tell what to boot; it may be a client's own port, too


cdef bint is_dhcp(uint16_t source, uint16_t target) noexcept nogil:
    return is_bootp(source) or is_bootp(target) or source == 546 or source == 547 or target == 546 or target == 547 or source == PXE or target == PXE


cdef inline bint is_bootp(uint16_t port) noexcept nogil:
    return port == 67 or port == 68


cdef void change_dhcp(Rewrite *rewrite, uint8_t *p, int64_t n, uint16_t source, uint16_t target) noexcept nogil:
    if source == 546 or source == 547 or target == 546 or target == 547:
        change_dhcp6(rewrite, p, n, 0)
    elif is_bootp(source) or is_bootp(target) or (n >= 240 and load32(p + 236) == COOKIE):
        change_dhcp4(rewrite, p, n)


# DHCP.

cdef void change_dhcp4(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef int i
    cdef uint8_t overload
    if n < 240 or load32(p + 236) != COOKIE:  # not DHCP but another BOOTP or none, or cut
        zero(rewrite, p, n)
        return
    for i in range(4):
        change4_set(rewrite, p + 12 + 4 * i, n)
    change_mac(rewrite, p + 28, 16, min(<int64_t> p[2], <int64_t> 16))
    zero(rewrite, p + 28 + min(<int64_t> p[2], <int64_t> 16), 16 - min(<int64_t> p[2], <int64_t> 16))
    overload = overloaded(p + 240, n - 240)
    change_options(rewrite, p + 240, n - 240, dhcp_options)
    if overload & 2:
        change_options(rewrite, p + 44, 64, dhcp_options)
    else:
        change_text(rewrite, p + 44, 64)
    if overload & 1:
        change_options(rewrite, p + 108, 128, dhcp_options)
    else:
        change_text(rewrite, p + 108, 128)


cdef uint8_t overloaded(const uint8_t *p, int64_t n) noexcept nogil:
    """Which name fields contain options instead (RFC 2132 9.3): 1 the boot file, 2 the server name, 3 both."""
    cdef int64_t at = 0
    while at + 2 < n and p[at] != 255:
        if p[at] == 52:
            return p[at + 2] & 3
        at += 1 if p[at] == 0 else 2 + <int64_t> p[at + 1]
    return 0


cdef inline void change_text(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    if rewrite.names:
        zero(rewrite, p, n)


cdef void change_options(Rewrite *rewrite, uint8_t *p, int64_t n, const uint8_t *kinds) noexcept nogil:
    cdef int64_t at = 0
    cdef int64_t size, left
    cdef uint8_t what
    while at < n:
        if p[at] == 0:
            at += 1
            continue
        if p[at] == 255 and kinds == dhcp_options:
            zero(rewrite, p + at + 1, n - at - 1)
            return
        if at + 2 > n:
            return
        size = p[at + 1]
        left = min(size, n - at - 2)
        what = kinds[p[at]]
        at += 2
        if what == ADDRESSES:
            change4s(rewrite, p + at, left, (left + 3) // 4, 4)
        elif what == PAIRS:
            change4s(rewrite, p + at, left, (left + 7) // 8, 8)
            if kinds == dhcp_options and p[at - 2] == 33:
                change4s(rewrite, p + at + 4, left - 4, left // 8, 8)
        elif what == ROUTES:
            change_routes(rewrite, p + at, left)
        elif what == IDENTITY:
            if left == 7 and p[at] == 1:
                change_mac(rewrite, p + at + 1, 6, 6)
            elif rewrite.mac != KEEP or rewrite.names:
                zero(rewrite, p + at, left)
        elif what == RELAY:
            change_options(rewrite, p + at, left, relay_options)
        elif what == TEXT:
            change_text(rewrite, p + at, left)
        elif what == OPAQUE:
            zero(rewrite, p + at, left)
        elif plain_bytes[p[at - 2]] < 255:
            zero(rewrite, p + at + plain_bytes[p[at - 2]], left - plain_bytes[p[at - 2]])
        at += size


cdef void change_routes(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Prefix length, the significant bytes of the prefix, the router."""
    cdef int64_t at = 0
    cdef int64_t significant
    while at < n:
        significant = (min(<int64_t> p[at], <int64_t> 32) + 7) // 8
        if significant:
            change4(rewrite, p + at + 1, min(significant, n - at - 1))
        at += 1 + significant
        if at < n:
            change4_set(rewrite, p + at, n - at)
        at += 4


# DHCPv6.

cdef enum:
    NESTED_MAX = 16          # relays and options nested in each other


cdef void change_dhcp6(Rewrite *rewrite, uint8_t *p, int64_t n, int depth) noexcept nogil:
    if n > 0 and (p[0] == 12 or p[0] == 13):  # between relays: link and peer address
        change6s(rewrite, p + 2, n - 2, 2)
        change_options6(rewrite, p + 34, n - 34, depth)
    elif n > 0 and p[0] <= 36:
        change_options6(rewrite, p + 4, n - 4, depth)
    else:
        zero(rewrite, p, n)


cdef void change_options6(Rewrite *rewrite, uint8_t *p, int64_t n, int depth) noexcept nogil:
    cdef int64_t at = 0
    cdef int64_t size
    if depth > NESTED_MAX:
        zero(rewrite, p, n)
        return
    while at + 4 <= n:
        size = load16(p + at + 2)
        change_option6(rewrite, p + at + 4, min(size, n - at - 4), load16(p + at), depth + 1)
        at += 4 + size
    if at < n:
        zero(rewrite, p + at, n - at)


cdef void change_option6(Rewrite *rewrite, uint8_t *p, int64_t n, uint16_t kind, int depth) noexcept nogil:
    cdef int64_t kept
    if kind == 3 or kind == 25:      # IA_NA, IA_PD
        change_options6(rewrite, p + 12, n - 12, depth)
    elif kind == 4:                  # IA_TA
        change_options6(rewrite, p + 4, n - 4, depth)
    elif kind == 5:                  # an address
        change6(rewrite, p, min(n, <int64_t> 16))
        change_options6(rewrite, p + 24, n - 24, depth)
    elif kind == 26:                 # a prefix
        if n > 9:
            change_prefix6(rewrite, p + 9, min(n - 9, <int64_t> 16), p[8])
        change_options6(rewrite, p + 25, n - 25, depth)
    elif kind == 9:                  # a relayed message
        change_dhcp6(rewrite, p, n, depth)
    elif kind == 12 or kind == 22 or kind == 23 or kind == 27 or kind == 28 or kind == 31 or kind == 34 or kind == 40 or kind == 48:
        change6s(rewrite, p, n, (n + 15) // 16)
    elif kind == 56:                 # time servers: further options
        if n >= 20 and load16(p) <= 2:
            change6(rewrite, p + 4, 16)
            zero(rewrite, p + 20, n - 20)
        elif rewrite.names:
            zero(rewrite, p, n)
    elif kind == 1 or kind == 2:     # identity of client and server: contains a hardware address
        change_duid(rewrite, p, n)
    elif kind == 21 or kind == 24 or kind == 29 or kind == 30 or kind == 33 or kind == 39 or kind == 41 or kind == 42 or kind == 59 or kind == 65 or kind == 74:
        change_text(rewrite, p, n)
    elif kind == 13:                 # a status code with text
        change_text(rewrite, p + 2, n - 2)
    elif kind != 6:                  # a list of options' numbers
        kept = number_bytes(kind)
        zero(rewrite, p + kept, n - kept)


cdef inline int64_t number_bytes(uint16_t kind) noexcept nogil:
    """Of an option that is a number: preference, time, reconfiguration, refresh times, architecture."""
    if kind == 7 or kind == 19:
        return 1
    if kind == 8 or kind == 61:
        return 2
    return 4 if kind == 32 or kind == 82 or kind == 83 else 0


cdef void change_duid(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef uint16_t kind = load16(p) if n >= 2 else 0
    if kind == 1:
        change_mac(rewrite, p + 8, n - 8, n - 8)
    elif kind == 3:
        change_mac(rewrite, p + 4, n - 4, n - 4)
    elif rewrite.mac != KEEP or rewrite.names:
        zero(rewrite, p, n)


# SCTP.

cdef void change_sctp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """The chunks after the common header."""
    cdef int64_t at = 0
    cdef int64_t size
    while at + 4 <= n:
        size = load16(p + at + 2)
        if size < 4:
            break
        change_chunk(rewrite, p + at, min(size, n - at))
        at += (size + 3) // 4 * 4
    if at < n:
        zero(rewrite, p + at, n - at)


cdef void change_chunk(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef uint8_t kind = p[0]
    cdef int64_t kept
    if kind == 1 or kind == 2:       # INIT and INIT ACK
        change_parameters(rewrite, p + 20, n - 20, 0)
    elif kind == 4 or kind == 5:     # heartbeat: whatever its sender put there, mostly a socket address
        zero(rewrite, p + 8, n - 8)
    elif kind == 6 or kind == 9:     # abort, error
        change_causes(rewrite, p + 4, n - 4)
    elif kind == 0xC1:               # ASCONF
        change_parameters(rewrite, p + 8, n - 8, 0)
    elif kind == 0x80:
        change_parameters(rewrite, p + 8, n - 8, 0)
    elif kind == 10:                 # a cookie: what its maker needs to know of the association, including addresses
        zero(rewrite, p + 4, n - 4)
    elif kind != 0 and kind != 64:   # data is payload
        kept = numbers_end(p, n)
        zero(rewrite, p + kept, n - kept)


cdef int64_t numbers_end(const uint8_t *p, int64_t n) noexcept nogil:
    """Where the numbers of a chunk that has nothing else end: acknowledgement, shutdown, congestion, skipped data. 4: it has none that are
    known."""
    cdef uint8_t kind = p[0]
    if kind == 3:
        return 16 + 4 * (<int64_t> load16(p + 12) + load16(p + 14)) if n >= 16 else n
    if kind == 7 or kind == 12 or kind == 13:
        return 8
    return n if kind == 192 or kind == 194 else 4  # these: pairs of a stream and a number, as many as there are


cdef void change_parameters(Rewrite *rewrite, uint8_t *p, int64_t n, int depth) noexcept nogil:
    cdef int64_t at = 0, kept
    cdef Field field
    while next_field(rewrite, p, n, &at, &field):
        kept = 0
        if field.kind == 5:
            change4(rewrite, field.value, field.size)
            kept = 4
        elif field.kind == 6:
            change6(rewrite, field.value, field.size)
            kept = 16
        elif (field.kind == 0xC001 or field.kind == 0xC002 or field.kind == 0xC004) and depth < 4:
            change_parameters(rewrite, field.value + 4, field.size - 4, depth + 1)
            kept = field.size
        elif field.kind == 0xC003:
            change_causes(rewrite, field.value + 4, field.size - 4)
            kept = field.size
        elif field.kind == 11:  # a name
            kept = 0 if rewrite.names or rewrite.payload != KEEP else field.size
        elif field.kind == 12 or field.kind == 0x8008:  # lists of kinds
            kept = field.size
        elif field.kind == 9 or field.kind == 0xC005 or field.kind == 0xC006:
            kept = 4
        zero(rewrite, field.value + kept, field.size - kept)


cdef struct Field:
    # A parameter or an error cause of SCTP.
    uint16_t kind
    uint8_t *value
    int64_t size             # bytes of the value that are present


cdef inline bint next_field(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t *at, Field *field) noexcept nogil:
    """Read the field at p[at] and move `at` past it. False: there is no other, and what follows the last one is zeroed."""
    cdef int64_t size = load16(p + at[0] + 2) if at[0] + 4 <= n else 0
    if size < 4:
        if at[0] < n:
            zero(rewrite, p + at[0], n - at[0])
        return False
    field.kind = load16(p + at[0])
    field.value = p + at[0] + 4
    field.size = min(size, n - at[0]) - 4
    at[0] += (size + 3) // 4 * 4
    return True


cdef void change_causes(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Why a request was refused (RFC 9260 3.3.10): the unresolvable address, or the new addresses."""
    cdef int64_t at = 0, kept
    cdef Field field
    while next_field(rewrite, p, n, &at, &field):
        if field.kind == 5 or field.kind == 11:
            change_parameters(rewrite, field.value, field.size, 3)
        else:  # a stream, the age of a cookie, a sequence number
            kept = 4 if field.kind == 1 or field.kind == 3 or field.kind == 9 else 0
            zero(rewrite, field.value + kept, field.size - kept)


# CRC32c (RFC 9260 appendix A) with a table of 256 entries.

cdef uint32_t[256] crc_table


cdef void fill_crc() noexcept:
    cdef uint32_t value
    for i in range(256):
        value = i
        for _ in range(8):
            value = (value >> 1) ^ (<uint32_t> 0x82F63B78 if value & 1 else 0)
        crc_table[i] = value


cdef uint32_t crc32c(const uint8_t *p, int64_t n) noexcept nogil:
    """Over p[0:n]. Bytes 8 to 11 count as zero, as the common header's checksum requires."""
    cdef uint32_t value = ~<uint32_t> 0
    cdef int64_t i
    for i in range(n):
        value = crc_table[(value ^ (0 if 8 <= i < 12 else p[i])) & 0xFF] ^ (value >> 8)
    return ~value


fill_options()
fill_crc()
