# What makes a flow: the key, its seeded hash, and the fast path that reads an ordinary packet's key. Everything is inline because the loops of
# _columns.pyx and _flows.pyx spend their time here. All other packets go through headers/ and _fragments.pyx.
#
# A flow is both directions of (address, port) x 2, protocol, and the VLAN ids. Nearly all packets are IPv4 with at most one VLAN tag. Their
# whole key fits two words ("narrow"), so two keys are equal exactly if both words are. Every other key is "wide": a FlowKey.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from streamcore.core.tables cimport fold
from streamcore.headers._walk cimport UdpTable, is_tunnel_port

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    static inline uint16_t sc_load16(const uint8_t *at) { uint16_t value; memcpy(&value, at, 2); return value; }
    static inline uint32_t sc_load32(const uint8_t *at) { uint32_t value; memcpy(&value, at, 4); return value; }
    static inline uint64_t sc_load64(const uint8_t *at) { uint64_t value; memcpy(&value, at, 8); return value; }

    #define sc_likely(condition) __builtin_expect(!!(condition), 1)
    """
    uint16_t load16 "sc_load16" (const uint8_t *at) noexcept nogil   # in the machine's byte order: for keys
    uint32_t load32 "sc_load32" (const uint8_t *at) noexcept nogil
    uint64_t load64 "sc_load64" (const uint8_t *at) noexcept nogil
    bint likely "sc_likely" (bint condition) noexcept nogil

cdef enum:
    SECRETS = 8
    KEY_NO_IP = 0            # FlowKey.version: the key is EtherType and MAC addresses
    KEY_LINK_ONLY = 1        # one flow per link type

cdef enum KeyBy:
    # Which headers the key comes from. FLOW_KEYS in parser.py has the names.
    BY_OUTER = 0             # the outermost IP header
    BY_INNER                 # in a tunnel: the innermost IP header, and the tunnel
    BY_BOTH                  # in a tunnel: both headers, and the tunnel

cdef enum:
    # Added to FlowKey.version in a tunnel, unless the key is BY_OUTER.
    IN_TUNNEL = 16           # `vlan` holds the innermost tunnel's id and, 32 bits higher, its kind; vlan_count is 0
    WITH_OUTER = 32          # the outermost header counts, too: its addresses, protocol and VLAN ids, which are in Around

cdef struct Seed:
    uint64_t secret[SECRETS]

cdef struct FlowKey:
    uint64_t low[2]          # address of the lower endpoint, in the machine's byte order; IPv4 uses low[0] alone
    uint64_t high[2]
    uint64_t vlan            # the first four ids, the outermost lowest; see IN_TUNNEL
    uint16_t low_port        # in network byte order, as loaded
    uint16_t high_port
    uint8_t protocol
    uint8_t version          # 4, 6 or KEY_*, plus IN_TUNNEL and WITH_OUTER
    uint8_t vlan_count       # tags present, at most 255
    uint8_t swapped          # the packet's source is the higher endpoint; this does not count for equality


cdef struct Around:
    # A packet in a tunnel: its outermost and its innermost header. Each puts its own lower endpoint first.
    FlowKey outer
    FlowKey inner            # version 0: no IP header inside
    uint32_t tunnel_id
    uint8_t tunnel_kind      # TUNNEL_*; 0: not in a tunnel, and the other fields are not set


cdef inline void fill_seed(Seed *seed, uint64_t value) noexcept nogil:
    """The secrets derived from a seed by SplitMix64, which makes good ones of any number."""
    cdef int i
    for i in range(SECRETS):
        value += <uint64_t> 0x9E3779B97F4A7C15
        seed.secret[i] = fold(value ^ <uint64_t> 0xBF58476D1CE4E5B9, value ^ <uint64_t> 0x94D049BB133111EB) | 1


cdef inline uint16_t network16(const uint8_t *at) noexcept nogil:
    return <uint16_t> ((at[0] << 8) | at[1])


cdef inline uint32_t network32(const uint8_t *at) noexcept nogil:
    return (<uint32_t> at[0] << 24) | (<uint32_t> at[1] << 16) | (<uint32_t> at[2] << 8) | at[3]


cdef inline uint64_t narrow_hash(const Seed *seed, uint64_t first, uint64_t second) noexcept nogil:
    cdef uint64_t mixed = fold(first ^ seed.secret[0], second ^ seed.secret[1])
    return fold(mixed ^ seed.secret[2], seed.secret[3])


cdef inline uint64_t wide_hash(const Seed *seed, const FlowKey *key) noexcept nogil:
    cdef const uint64_t *s = seed.secret
    cdef uint64_t ports = <uint64_t> key.low_port | (<uint64_t> key.high_port << 16)
    cdef uint64_t rest = ports | (<uint64_t> key.protocol << 32) | (<uint64_t> key.version << 40) | (<uint64_t> key.vlan_count << 48)
    cdef uint64_t low = fold(key.low[0] ^ s[0], key.low[1] ^ s[1])
    cdef uint64_t high = fold(key.high[0] ^ s[2], key.high[1] ^ s[3])
    cdef uint64_t other = fold(rest ^ s[4], key.vlan ^ s[5])
    return fold(fold(low ^ s[6], high ^ s[7]) ^ s[5], other ^ s[4])


cdef inline bint is_narrow(const FlowKey *key) noexcept nogil:
    return key.version == 4 and key.vlan_count <= 1


cdef inline void narrow_words(const FlowKey *key, uint64_t *first, uint64_t *second) noexcept nogil:
    """The two words of a narrow key: address and port of each endpoint, with version and protocol in one and the marked VLAN id in the other."""
    cdef uint64_t tag = (0x1000 | (key.vlan & 0xFFF)) if key.vlan_count else 0
    first[0] = (key.low[0] << 16) | key.low_port | (<uint64_t> key.protocol << 48) | (<uint64_t> 4 << 56)
    second[0] = (key.high[0] << 16) | key.high_port | (tag << 48)


cdef inline uint64_t key_hash(const Seed *seed, const FlowKey *key) noexcept nogil:
    cdef uint64_t first, second
    if is_narrow(key):
        narrow_words(key, &first, &second)
        return narrow_hash(seed, first, second)
    return wide_hash(seed, key)


cdef inline bint crossed(const FlowKey *key, const Around *around) noexcept nogil:
    """Whether the inner lower endpoint is behind the outer higher address: the same for both directions. False if either pair is equal."""
    cdef const FlowKey *outer = &around.outer
    if outer.low[0] == outer.high[0] and outer.low[1] == outer.high[1]:
        return False
    if key.low[0] == key.high[0] and key.low[1] == key.high[1] and key.low_port == key.high_port:
        return False
    return key.swapped != outer.swapped


cdef inline uint64_t deep_hash(const Seed *seed, const FlowKey *key, const Around *around) noexcept nogil:
    """key_hash for a key with IN_TUNNEL. It leaves the outer ports out, because a tunnel's end chooses a different one for each direction."""
    cdef const uint64_t *s = seed.secret
    cdef const FlowKey *outer = &around.outer
    cdef uint64_t rest, low, high
    if not key.version & WITH_OUTER:
        return wide_hash(seed, key)
    rest = outer.protocol | (<uint64_t> outer.version << 8) | (<uint64_t> outer.vlan_count << 16) | (<uint64_t> crossed(key, around) << 24)
    low = fold(outer.low[0] ^ s[0], outer.low[1] ^ s[1])
    high = fold(outer.high[0] ^ s[2], outer.high[1] ^ s[3])
    rest = fold(rest ^ s[4], outer.vlan ^ s[5])
    return fold(wide_hash(seed, key) ^ s[6], fold(low ^ s[6], high ^ s[7]) ^ rest ^ s[7])


cdef inline bint opens_tunnel(const UdpTable *udp, uint64_t first, uint64_t second) noexcept nogil:
    """Whether the two words of an ordinary packet describe UDP on a tunnel's port."""
    return (first >> 48 & 0xFF) == 17 and (is_tunnel_port(udp, swap16(<uint16_t> first)) or is_tunnel_port(udp, swap16(<uint16_t> second)))


cdef inline bint opens_tunnel6(const UdpTable *udp, const FlowKey *key) noexcept nogil:
    return key.protocol == 17 and (is_tunnel_port(udp, swap16(key.low_port)) or is_tunnel_port(udp, swap16(key.high_port)))


cdef inline uint16_t swap16(uint16_t value) noexcept nogil:
    """Keys hold ports in the packet's byte order, which is how the fast path loads them."""
    return <uint16_t> ((value << 8) | (value >> 8))


cdef inline void set_endpoints(FlowKey *key, uint64_t source0, uint64_t source1, uint16_t source_port,
                               uint64_t target0, uint64_t target1, uint16_t target_port) noexcept nogil:
    """Put the endpoints in canonical order, which gives both directions the same key."""
    cdef bint swap
    if source0 != target0:
        swap = source0 > target0
    elif source1 != target1:
        swap = source1 > target1
    else:
        swap = source_port > target_port
    key.swapped = swap
    if swap:
        key.low[0], key.low[1], key.low_port = target0, target1, target_port
        key.high[0], key.high[1], key.high_port = source0, source1, source_port
    else:
        key.low[0], key.low[1], key.low_port = source0, source1, source_port
        key.high[0], key.high[1], key.high_port = target0, target1, target_port


cdef inline bint ordinary4(const uint8_t *packet, uint32_t captured, uint64_t *first, uint64_t *second,
                           bint *swapped) noexcept nogil:
    """The narrow key of Ethernet[, one VLAN tag], unfragmented IPv4 without options, TCP or UDP with its ports. False: it is another packet.

    Reads no byte at or beyond `captured`.
    """
    cdef uint64_t source, target, tag = 0
    cdef const uint8_t *ip = packet + 14
    if captured < 38:
        return False
    if packet[12] == 0x81 and packet[13] == 0x00 and captured >= 42 and packet[16] == 0x08 and packet[17] == 0x00:
        tag = 0x1000 | (network16(packet + 14) & 0xFFF)
        ip = packet + 18
    elif not (packet[12] == 0x08 and packet[13] == 0x00):
        return False
    if ip[0] != 0x45 or (load16(ip + 6) & 0xFF3F) != 0 or (ip[9] != 6 and ip[9] != 17) or network16(ip + 2) < 24:
        return False  # 0x3FFF is the offset and More Fragments, as a little-endian machine loads them
    source = (<uint64_t> load32(ip + 12) << 16) | load16(ip + 20)
    target = (<uint64_t> load32(ip + 16) << 16) | load16(ip + 22)
    swapped[0] = source > target
    first[0] = (target if source > target else source) | (<uint64_t> ip[9] << 48) | (<uint64_t> 4 << 56)
    second[0] = (source if source > target else target) | (tag << 48)
    return True


cdef inline bint ordinary6(const uint8_t *packet, uint32_t captured, FlowKey *key) noexcept nogil:
    """The key of Ethernet[, one VLAN tag], IPv6 without extension headers, TCP or UDP with its ports. False: it is another packet."""
    cdef const uint8_t *ip = packet + 14
    if captured < 58:
        return False
    key.vlan = 0
    key.vlan_count = 0
    if packet[12] == 0x81 and packet[13] == 0x00 and captured >= 62 and packet[16] == 0x86 and packet[17] == 0xDD:
        key.vlan = network16(packet + 14) & 0xFFF
        key.vlan_count = 1
        ip = packet + 18
    elif not (packet[12] == 0x86 and packet[13] == 0xDD):
        return False
    if (ip[0] >> 4) != 6 or (ip[6] != 6 and ip[6] != 17) or network16(ip + 4) < 4:
        return False
    key.protocol = ip[6]
    key.version = 6
    set_endpoints(key, load64(ip + 8), load64(ip + 16), load16(ip + 40), load64(ip + 24), load64(ip + 32), load16(ip + 42))
    return True
