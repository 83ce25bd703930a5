# Reaching the addresses of one packet, seen from C: what a rewrite needs, and the arithmetic of checksums (RFC 1624).
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from streamcore.service._address_table cimport Table

cdef struct Rewrite:
    const Table *table
    bint rewriting            # false: only look whether every address is known
    bint missing              # set where one is not
    uint32_t *missing4        # the unknown addresses, with repeats; missing_max of each family, more are not recorded
    uint64_t *missing6        # two for each address
    Py_ssize_t missing4_count, missing6_count, missing_max
    uint64_t changed          # addresses rewritten
    uint64_t target6          # the change of the innermost IPv6 header's target
    int packets               # quoted in options of this packet so far
    bint known                # the packet has an IP header or is ARP

# False: an address is missing from the table, which says so in missing4 and missing6; the packet is as it was.
cdef bint rewrite_packet(Rewrite *rewrite, uint8_t *p, uint32_t n, uint16_t link_type) noexcept nogil


cdef inline uint16_t load16(const uint8_t *p) noexcept nogil:
    return <uint16_t> ((p[0] << 8) | p[1])


cdef inline uint32_t load32(const uint8_t *p) noexcept nogil:
    return (<uint32_t> p[0] << 24) | (<uint32_t> p[1] << 16) | (<uint32_t> p[2] << 8) | p[3]


cdef inline void store16(uint8_t *p, uint16_t value) noexcept nogil:
    p[0] = <uint8_t> (value >> 8)
    p[1] = <uint8_t> value


cdef inline void store32(uint8_t *p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t> (value >> 24)
    p[1] = <uint8_t> (value >> 16)
    p[2] = <uint8_t> (value >> 8)
    p[3] = <uint8_t> value


cdef inline uint64_t delta32(uint32_t old, uint32_t new) noexcept nogil:
    """What a checksum's sum grows by when old becomes new, both at an even distance from its start."""
    return (<uint64_t> (~old >> 16)) + (~old & 0xFFFF) + (new >> 16) + (new & 0xFFFF)


cdef inline uint16_t fold(uint64_t total) noexcept nogil:
    """A sum as 16 bits of ones' complement."""
    total = <uint64_t> (<uint32_t> total) + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t> ((total & 0xFFFF) + (total >> 16))


cdef inline uint16_t adjusted(uint16_t checksum, uint64_t delta) noexcept nogil:
    """RFC 1624, equation 3. A wrong checksum stays wrong by the same amount."""
    cdef uint16_t change = fold(delta)
    if change == 0 or change == 0xFFFF:  # the two zeros of ones' complement
        return checksum
    return <uint16_t> ~fold(<uint64_t> (<uint16_t> ~checksum) + change)


cdef inline uint16_t adjusted_udp(uint16_t checksum, uint64_t delta) noexcept nogil:
    """Zero means that the sender made none, and stays; a sum of zero is written as 0xFFFF (RFC 768)."""
    cdef uint16_t new
    if checksum == 0:
        return 0
    new = adjusted(checksum, delta)
    return new if new else 0xFFFF
