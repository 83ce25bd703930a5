"""Hardware addresses and names of interfaces and processes, in what a capturing machine puts before a packet and in IEEE 802.11.

Source: https://www.tcpdump.org/linktypes.html.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t

from streamcore.service._fields cimport Rewrite, change4, change6, change_mac, load16, unknown, zero


cdef inline int64_t le16(const uint8_t *p) noexcept nogil:
    return p[0] | (<int64_t> p[1] << 8)


cdef void change_capture(Rewrite *rewrite, uint8_t *p, int64_t n, int link_type) noexcept nogil:
    """n: bytes of the header that are present; link_type: the LINKTYPE_ that it belongs to."""
    cdef int64_t at
    if link_type == 113 and n > 6:
        change_cooked(rewrite, p + 6, n - 6, load16(p + 2), load16(p + 4))
    elif link_type == 276 and n > 12:
        change_cooked(rewrite, p + 12, n - 12, load16(p + 8), p[11])
    elif link_type == 239:
        change_nflog(rewrite, p, n)
    elif link_type == 258 or link_type == 149:  # PKTAP: the interface's name; process numbers and names
        zero(rewrite, p + 12, min(n, <int64_t> 36) - 12)
        zero(rewrite, p + 52, n - 52)
    elif link_type == 192:
        change_ppi(rewrite, p, n)
    elif (link_type == 119 or link_type == 163) and n >= 2 and load16(p) == 0x8021:  # AVS: the receiver's address follows 64 bytes of numbers and two more
        change_mac(rewrite, p + 72, min(n, <int64_t> 78) - 72, 6)
        zero(rewrite, p + 78, n - 78)
    elif link_type == 119:  # Prism: the device's name
        zero(rewrite, p + 8, min(n, <int64_t> 24) - 8)
    elif link_type == 127:  # radiotap
        if has_strange_fields(p, n):
            unknown(rewrite, p)
        else:
            at = radiotap_end(p, n)
            zero(rewrite, p + at, n - at)
    elif link_type == 117:  # PFLOG: names of interface and rules, users, perhaps addresses before translation
        zero(rewrite, p + 4, n - 4)
    elif link_type == 8:  # SLIP: a direction, and the original compressed header
        zero(rewrite, p + 1, n - 1)
    elif is_juniper(link_type):  #: an extension after magic number, flags and length
        zero(rewrite, p + 6, n - 6)
    elif link_type == 197:  # ERF: extension headers after time, type and lengths
        zero(rewrite, p + 16, n - 16)
    elif not (link_type == 0 or link_type == 108 or link_type == 109 or link_type == 123
              or link_type == 226 or link_type == 282 or link_type == 166 or 204 <= link_type <= 206):
        unknown(rewrite, p)  # it may contain names and addresses


cdef bint has_strange_fields(const uint8_t *p, int64_t n) noexcept nogil:
    """Whether radiotap's presence words (32 bits each, from byte 4 on) announce vendor fields or TLVs."""
    cdef int64_t at = 7
    while at < n:
        if p[at] & 0x50:
            return True
        if not p[at] & 0x80:
            return False
        at += 4
    return False


cdef uint8_t[28] radiotap_size
cdef uint8_t[28] radiotap_alignment
for _bit, (_alignment, _size) in enumerate((
    (8, 8), (1, 1), (1, 1), (2, 4), (1, 2), (1, 1), (1, 1), (2, 2), (2, 2), (2, 2), (1, 1), (1, 1), (1, 1), (1, 1),
    (2, 2), (2, 2), (1, 1), (1, 1), (4, 8), (1, 3), (4, 8), (2, 12), (8, 12), (2, 12), (2, 12), (2, 6), (1, 1), (2, 4),
)):  # https://www.radiotap.org/fields/defined
    radiotap_alignment[_bit], radiotap_size[_bit] = _alignment, _size


cdef int64_t radiotap_end(const uint8_t *p, int64_t n) noexcept nogil:
    """Where the fields end that the presence words announce; all of them have numbers."""
    cdef int64_t word = 4
    cdef int64_t at = 8
    cdef int bit
    while at < n and p[at - 1] & 0x80:
        at += 4
    while True:
        for bit in range(28):
            if word + 4 <= n and p[word + bit // 8] >> (bit % 8) & 1:
                at = (at + radiotap_alignment[bit] - 1) // radiotap_alignment[bit] * radiotap_alignment[bit] + radiotap_size[bit]
        if word + 4 > n or not p[word + 3] & 0x80:
            return min(at, n)
        word += 4


cdef void change_cooked(Rewrite *rewrite, uint8_t *p, int64_t n, uint16_t hardware, int64_t size) noexcept nogil:
    """The sender's address, of which at most 8 bytes are present. Kernel tunnels have IP addresses here."""
    n = min(n, <int64_t> 8)
    if size == 4 and (hardware == 768 or hardware == 776 or hardware == 778):
        change4(rewrite, p, min(n, <int64_t> 4))
    elif size == 16 and (hardware == 769 or hardware == 823):
        change6(rewrite, p, n)
    else:
        change_mac(rewrite, p, n, min(size, <int64_t> 8))
    if size < 8:
        zero(rewrite, p + size, n - size)


cdef void change_nflog(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Attributes after four bytes, in the capturing host's byte order, told as the walk does. What follows the packet may be further ones."""
    cdef int64_t at = 4
    cdef int64_t size, left
    cdef uint16_t kind
    cdef bint little = n >= 8 and le16(p + 4) >= 4 and rewrite.size >= 4 + le16(p + 4) and p[7] & 0x7F == 0
    while at + 4 <= n:
        size = le16(p + at) if little else load16(p + at)
        kind = <uint16_t> (le16(p + at + 2) if little else load16(p + at + 2)) & 0x7FFF
        left = min(size, n - at)
        if size < 4:
            return
        if kind == 9:  # the packet itself
            zero(rewrite, p + at + size, rewrite.size - at - size)
            return
        if kind == 8:
            change_mac(rewrite, p + at + 8, left - 8, 6)
            zero(rewrite, p + at + 14, left - 14)
        elif kind == 16 and size == 18:  # an Ethernet header
            change_mac(rewrite, p + at + 4, left - 4, 6)
            change_mac(rewrite, p + at + 10, left - 10, 6)
        elif kind == 16:  # another header, perhaps IP
            zero(rewrite, p + at + 4, left - 4)
        elif kind == 10 or kind == 18 or kind > 20:
            zero(rewrite, p + at + 4, left - 4)
        else:  # numbers, the longest of them the time
            zero(rewrite, p + at + 20, left - 20)
        at += (size + 3) // 4 * 4


cdef void change_ppi(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Fields after eight bytes, each with a kind, a length and a value. Those of 802.11 are numbers, as many as their kind has. What exceeds
    them, spectra (of any length), locations, processes with their users and others are zeroed."""
    cdef int64_t at = 8
    cdef int64_t numbers
    while at + 4 <= n:
        numbers = ppi_numbers(le16(p + at))
        zero(rewrite, p + at + 4 + numbers, min(le16(p + at + 2), n - at - 4) - numbers)
        at += 4 + le16(p + at + 2)


cdef inline int64_t ppi_numbers(int64_t kind) noexcept nogil:
    """Bytes of numbers in a field: common, of the MAC, of MAC and PHY, of aggregates (PPI Packet Header Format 1.0.10)."""
    if kind == 2:
        return 20
    if kind == 3:
        return 12
    if kind == 4:
        return 48
    return 4 if kind == 8 else 0


cdef void change_wifi(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Three addresses, or four between distribution systems; control frames have one or two."""
    cdef int i
    for i in range(3):
        change_mac(rewrite, p + 4 + 6 * i, min(n, <int64_t> (10 + 6 * i)) - 4 - 6 * i, 6)
    if n >= 30 and (p[0] | p[1]) & 3 == 3:  # some controllers swap these two bytes; the other one's bits are then zero
        change_mac(rewrite, p + 24, 6, 6)


cdef inline bint is_juniper(int link_type) noexcept nogil:
    return 178 <= link_type <= 181 or link_type == 130 or link_type == 135 or link_type == 137


cdef void change_link(Rewrite *rewrite, uint8_t *p, int64_t n, int link_type, bint first) noexcept nogil:
    """n: bytes of the header that are present; first: it is the packet's first header. PPP, C-HDLC and Frame Relay address only lines."""
    cdef uint8_t routed
    if (link_type == 9 or link_type == 50 or link_type == 51 or link_type == 104 or link_type == 107
            or (not first and (is_juniper(link_type) or link_type == 197 or link_type == 166 or 204 <= link_type <= 206))):
        return
    if not first:
        unknown(rewrite, p)
    elif link_type == 6:  # token ring; the first bit of the source announces a route
        change_mac(rewrite, p + 2, min(n, <int64_t> 8) - 2, 6)
        routed = p[8] & 0x80 if n > 8 else 0
        change_mac(rewrite, p + 8, min(n, <int64_t> 14) - 8, 6)
        if n > 8 and rewrite.rewriting:
            p[8] = (p[8] & 0x7F) | routed
    elif link_type == 7 or link_type == 129:  # ARCNET: one byte each
        change_mac(rewrite, p, n, 1)
        change_mac(rewrite, p + 1, n - 1, 1)
    elif link_type == 242:  # InfiniBand's global header, with addresses like IPv6's
        change6(rewrite, p + 8, min(n, <int64_t> 24) - 8)
        change6(rewrite, p + 24, min(n, <int64_t> 40) - 24)
    elif link_type == 138:  # FireWire
        change_mac(rewrite, p, n, 8)
        change_mac(rewrite, p + 8, n - 8, 8)
    elif link_type == 281 or link_type == 284 or link_type == 285:  # switch tags after the addresses
        change_mac(rewrite, p, n, 6)
        change_mac(rewrite, p + 6, n - 6, 6)
    else:
        unknown(rewrite, p)
