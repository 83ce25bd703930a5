# Rewriting one field of a packet: addresses, hardware addresses, opaque bytes. Also checksum arithmetic (RFC 1071, RFC 1624).
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from streamcore.headers._walk cimport UdpTable
from streamcore.service._address_table cimport Table
from streamcore.service._fragments cimport FirstFragments

cdef enum:
    # What a rewrite counts. COUNTED_NAMES in _anonymise.pyx has the names.
    COUNT_IP4 = 0            # IPv4 addresses replaced
    COUNT_IP6
    COUNT_MAC                # hardware addresses replaced or zeroed
    COUNT_NAME               # names and addresses in text replaced
    COUNT_ZEROED             # fields of unknown or opaque type zeroed: options, cookies, passwords, names of interfaces and processes
    COUNT_PAYLOAD            # packets whose payload was zeroed or cut off
    LEFT_PAYLOAD             # packets whose payload stayed
    LEFT_MAC                 # hardware addresses that stayed
    LEFT_CHECK               # packets with an integrity check over addresses that only the holder of its key can compute (AH)
    COUNTED

cdef enum:
    KEEP = 0
    ZERO
    HASH
    TRUNCATE

cdef struct Rewrite:
    const Table *table
    const UdpTable *udp
    bint rewriting            # false: only check that every address is known
    bint missing              # set if one is not
    uint32_t *missing4        # unknown addresses, with repeats; at most missing_max of each family are recorded
    uint64_t *missing6        # the same for IPv6, two words per address
    Py_ssize_t missing4_count, missing6_count, missing_max
    # What was asked for.
    uint8_t mac               # KEEP, HASH or ZERO
    uint8_t payload           # KEEP, ZERO or TRUNCATE
    bint names
    bint special              # broadcast, multicast and other special addresses stay
    bint drops                # packets that are not understood are dropped, so nothing replaced in them is counted
    uint64_t[2] hash_key      # for hardware addresses and names
    uint64_t[COUNTED] counts
    # The segment being rewritten.
    FirstFragments *firsts
    bint first_pass           # the first pass over it: later fragments wait until all first ones are noted
    # The packet being rewritten.
    uint8_t *packet
    uint32_t size
    int link_type             # -1: it is inside another packet
    uint8_t *before           # its first BEFORE_MAX bytes before rewriting
    bint unknown              # a message that should be understood has a part that is not,
    uint32_t unknown_at       # from this byte on
    uint32_t source_at        # where the pseudo-header's source address is,
    uint32_t target_at        # and its target address, for the innermost IP header
    uint8_t ip_version        # of that header
    int packets               # number quoted in this packet's options so far

cdef enum:
    BEFORE_MAX = 65536        # no layer reaches beyond this

# For a field at p. n: how many bytes are there, which may be none, or fewer than the field has.
cdef void change4(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef void change6(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef void change4s(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t count, int64_t step) noexcept nogil
cdef void change6s(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t count) noexcept nogil
cdef void change4_set(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil  # unless it is 0.0.0.0, which means none
cdef void change_prefix6(Rewrite *rewrite, uint8_t *p, int64_t n, int bits) noexcept nogil
cdef void change_mac(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t size) noexcept nogil
cdef void zero(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil
cdef void put_zeros(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil  # as zero, but not counted
cdef void unknown(Rewrite *rewrite, const uint8_t *p) noexcept nogil
cdef uint64_t keyed_hash(const uint64_t *key, const uint8_t *p, int64_t n, uint64_t tweak) noexcept nogil
cdef uint64_t sum_words(const uint8_t *p, uint32_t start, uint32_t stop) noexcept nogil
cdef uint64_t difference(const Rewrite *rewrite, int64_t start, int64_t stop) noexcept nogil


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define sc_network(bits, value) __builtin_bswap##bits(value)
    #else
    #define sc_network(bits, value) (value)
    #endif

    /* Numbers in network byte order, at any address. Put together from bytes in C, gcc makes twenty instructions of two stores side by side. */
    static inline uint16_t sc_get16(const uint8_t *p) { uint16_t value; memcpy(&value, p, 2); return sc_network(16, value); }
    static inline uint32_t sc_get32(const uint8_t *p) { uint32_t value; memcpy(&value, p, 4); return sc_network(32, value); }
    static inline uint64_t sc_get64(const uint8_t *p) { uint64_t value; memcpy(&value, p, 8); return sc_network(64, value); }
    static inline void sc_put16(uint8_t *p, uint16_t value) { value = sc_network(16, value); memcpy(p, &value, 2); }
    static inline void sc_put32(uint8_t *p, uint32_t value) { value = sc_network(32, value); memcpy(p, &value, 4); }
    static inline void sc_put64(uint8_t *p, uint64_t value) { value = sc_network(64, value); memcpy(p, &value, 8); }
    """
    uint16_t load16 "sc_get16" (const uint8_t *p) noexcept nogil
    uint32_t load32 "sc_get32" (const uint8_t *p) noexcept nogil
    uint64_t load64 "sc_get64" (const uint8_t *p) noexcept nogil
    void store16 "sc_put16" (uint8_t *p, uint16_t value) noexcept nogil
    void store32 "sc_put32" (uint8_t *p, uint32_t value) noexcept nogil
    void store64 "sc_put64" (uint8_t *p, uint64_t value) noexcept nogil


cdef inline uint16_t fold(uint64_t total) noexcept nogil:
    """A sum reduced to 16 bits of ones' complement."""
    total = <uint64_t> (<uint32_t> total) + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t> ((total & 0xFFFF) + (total >> 16))


cdef inline uint64_t negative(uint64_t total) noexcept nogil:
    return <uint16_t> ~fold(total)


cdef inline uint64_t placed(uint64_t total, uint32_t offset) noexcept nogil:
    """Convert a sum of words that begin at even offsets of the packet to one of words that begin at `offset`, or back."""
    cdef uint16_t folded
    if not offset & 1:
        return total
    folded = fold(total)
    return <uint16_t> ((folded << 8) | (folded >> 8))


cdef inline uint16_t adjusted(uint16_t checksum, uint64_t delta) noexcept nogil:
    """RFC 1624, equation 3. A wrong checksum stays wrong by the same amount."""
    cdef uint16_t change = fold(delta)
    if change == 0 or change == 0xFFFF:  # both are zero in ones' complement
        return checksum
    return <uint16_t> ~fold(<uint64_t> (<uint16_t> ~checksum) + change)


cdef inline uint16_t adjusted_udp(uint16_t checksum, uint64_t delta) noexcept nogil:
    """A checksum of zero means that the sender made none, and stays. A result of zero is written as 0xFFFF (RFC 768)."""
    cdef uint16_t new
    if checksum == 0:
        return 0
    new = adjusted(checksum, delta)
    return new if new else 0xFFFF
