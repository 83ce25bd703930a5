# What _keys.pyx and _media.pyx share: a packet of an Outgoing, and a table of fragments.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport Columns, Outgoing
from streamcore.core.tables cimport fold
from streamcore.headers._walk cimport IpHeader

cdef enum:
    FRAGMENTS = 4096         # fragmented packets that are remembered; of two in one place the later one stays

cdef struct Fragment:
    uint64_t name            # a hash of addresses, protocol and identification; 0: empty
    uint32_t value           # what the first fragment was found to be

cdef inline bint packet_at(Outgoing out, Columns *c, const uint8_t *data, Py_ssize_t i, uint32_t *row, const uint8_t **packet,
                           uint32_t *captured) noexcept nogil:
    """The packet at a place. False: it was dropped."""
    if out.unchanged:
        row[0] = c.rows[out.start + i] if out.arranged else <uint32_t> (out.start + i)
        packet[0] = data + c.offset[row[0]]
        captured[0] = c.captured_length[row[0]]
        return True
    row[0] = out.row[i]
    packet[0] = out.packet[i]
    captured[0] = out.captured_length[i]
    return packet[0] != NULL


cdef inline void put_address(uint8_t *target, const uint8_t *source, uint8_t version) noexcept nogil:
    """16 bytes; IPv4 as ::ffff:a.b.c.d (RFC 4291 2.5.5.2)."""
    if version == 6:
        memcpy(target, source, 16)
        return
    memset(target, 0, 10)
    target[10] = target[11] = 0xFF
    memcpy(target + 12, source, 4)


cdef inline uint64_t hash_bytes(const uint8_t *at, int words, uint64_t secret) noexcept nogil:
    """Of a key of so many 8-byte words. secret: random and odd, so that nobody can choose keys that collide."""
    cdef uint64_t value, total = secret
    cdef int i
    for i in range(words):
        memcpy(&value, at + 8 * i, 8)
        total = fold(total ^ value, secret ^ (secret << 31))
    return total


cdef inline uint64_t fragment_name(const IpHeader *ip, uint64_t secret) noexcept nogil:
    """Never 0."""
    cdef uint8_t[40] key
    memset(key, 0, 40)
    put_address(key, ip.source, ip.version)
    put_address(key + 16, ip.target, ip.version)
    memcpy(key + 32, &ip.identification, 4)
    key[36] = ip.version
    if ip.version == 4:
        key[37] = ip.protocol
    return hash_bytes(key, 5, secret) | 1
