# The Community ID of a flow, version 1 (https://github.com/corelight/community-id-spec): base64 of the SHA-1 (FIPS 180-4) of seed, addresses, protocol and
# ports, the lower endpoint first. All of it is inline. What is hashed is at most 40 bytes, so SHA-1 has one block.
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

cdef enum:
    COMMUNITY_ID_LENGTH = 30  # "1:" and 28 letters


cdef inline uint32_t rotated(uint32_t word, int by) noexcept nogil:
    return (word << by) | (word >> (32 - by))


cdef inline void sha1_of_few(const uint8_t *bytes, int length, uint8_t *digest) noexcept nogil:
    """The SHA-1 of at most 55 bytes, in 20 bytes."""
    cdef uint8_t block[64]
    cdef uint32_t w[80]
    cdef uint32_t h[5]
    cdef uint32_t a, b, c, d, e, f, k, t
    cdef int i
    memset(block, 0, 64)
    memcpy(block, bytes, length)
    block[length] = 0x80
    block[62], block[63] = <uint8_t> (length * 8 >> 8), <uint8_t> (length * 8)
    for i in range(16):
        w[i] = (<uint32_t> block[4 * i] << 24) | (block[4 * i + 1] << 16) | (block[4 * i + 2] << 8) | block[4 * i + 3]
    for i in range(16, 80):
        w[i] = rotated(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1)
    h[0], h[1], h[2], h[3], h[4] = 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0
    a, b, c, d, e = h[0], h[1], h[2], h[3], h[4]
    for i in range(80):
        if i < 20:
            f, k = (b & c) | (~b & d), 0x5A827999
        elif i < 40:
            f, k = b ^ c ^ d, 0x6ED9EBA1
        elif i < 60:
            f, k = (b & c) | (b & d) | (c & d), 0x8F1BBCDC
        else:
            f, k = b ^ c ^ d, 0xCA62C1D6
        t = rotated(a, 5) + f + e + k + w[i]
        e, d, c, b, a = d, c, rotated(b, 30), a, t
    h[0] += a
    h[1] += b
    h[2] += c
    h[3] += d
    h[4] += e
    for i in range(20):
        digest[i] = <uint8_t> (h[i // 4] >> (24 - 8 * (i % 4)))


cdef inline int answer_to(uint8_t protocol, uint8_t type) noexcept nogil:
    """The ICMP type that answers another one, of those of the specification; -1: none does."""
    if protocol == 1:
        if type in (8, 0):
            return 8 - type
        if type in (13, 14):
            return 27 - type
        if type in (15, 16):
            return 31 - type
        if type in (10, 9):
            return 19 - type
        if type in (17, 18):
            return 35 - type
        return -1
    if type in (128, 129):
        return 257 - type
    if type in (133, 134):
        return 267 - type
    if type in (135, 136):
        return 271 - type
    if type in (130, 131):
        return 261 - type
    if type in (144, 145):
        return 289 - type
    if type in (139, 140):
        return 279 - type
    return -1


cdef inline void community_id(const uint8_t *source, const uint8_t *target, uint8_t version, uint8_t protocol, uint16_t source_port,
                              uint16_t target_port, uint8_t *text) noexcept nogil:
    """30 characters. Addresses in 16 bytes, as FlowRow has them; ports of ICMP: its type and code."""
    cdef const char *letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef int size = 4 if version == 4 else 16, skip = 12 if version == 4 else 0, length, order, answer, i
    cdef bint one_way = False, has_ports = protocol in (6, 17, 132, 1, 58)
    cdef uint8_t bytes[40]
    cdef uint8_t digest[21]
    cdef uint16_t low, high
    cdef uint32_t group
    if protocol == 1 or protocol == 58:
        answer = answer_to(protocol, <uint8_t> source_port)
        one_way = answer < 0
        if not one_way:
            target_port = <uint16_t> answer
    order = memcmp(source + skip, target + skip, size)
    if order == 0:
        order = 1 if source_port > target_port else -1
    if order > 0 and not one_way:
        source, target = target, source
        source_port, target_port = target_port, source_port
    low, high = source_port, target_port
    bytes[0] = bytes[1] = 0  # the seed
    memcpy(bytes + 2, source + skip, size)
    memcpy(bytes + 2 + size, target + skip, size)
    length = 2 + 2 * size
    bytes[length], bytes[length + 1] = protocol, 0
    length += 2
    if has_ports:
        bytes[length], bytes[length + 1] = <uint8_t> (low >> 8), <uint8_t> low
        bytes[length + 2], bytes[length + 3] = <uint8_t> (high >> 8), <uint8_t> high
        length += 4
    sha1_of_few(bytes, length, digest)
    digest[20] = 0
    text[0], text[1] = c'1', c':'
    for i in range(7):
        group = (<uint32_t> digest[3 * i] << 16) | (digest[3 * i + 1] << 8) | digest[3 * i + 2]
        text[2 + 4 * i] = letters[group >> 18]
        text[3 + 4 * i] = letters[(group >> 12) & 63]
        text[4 + 4 * i] = letters[(group >> 6) & 63]
        text[5 + 4 * i] = letters[group & 63]
    text[29] = c'='
