"""Rewrites one field: replaces an address by its entry in the table, hashes a hardware address, zeroes opaque bytes. Nothing here knows where
fields are.

Each packet is visited twice: first to check that every address is known (rewrite.rewriting is false, and nothing changes), then to rewrite it.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from streamcore.service._address_table cimport find4, find6


# Addresses. If the capture cut an address, the part that is there is rewritten: later bytes do not affect the first bytes of the result.

cdef void change4(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef uint8_t[4] whole
    cdef uint32_t old, new = 0
    cdef int i
    if n <= 0:
        return
    for i in range(4):
        whole[i] = p[i] if i < n else 0
    old = load32(whole)
    if not find4(rewrite.table, old, &new):
        rewrite.missing = True
        if rewrite.missing4_count < rewrite.missing_max:
            rewrite.missing4[rewrite.missing4_count] = old
            rewrite.missing4_count += 1
        return
    if not rewrite.rewriting:
        return
    store32(whole, new)
    for i in range(4):
        if i < n:
            p[i] = whole[i]
    rewrite.counts[COUNT_IP4] += 1


cdef void change6(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef uint8_t[16] whole
    cdef uint64_t high, low, new_high = 0, new_low = 0
    cdef int i
    if n <= 0:
        return
    for i in range(16):
        whole[i] = p[i] if i < n else 0
    high = (<uint64_t> load32(whole) << 32) | load32(whole + 4)
    low = (<uint64_t> load32(whole + 8) << 32) | load32(whole + 12)
    if not find6(rewrite.table, high, low, &new_high, &new_low):
        rewrite.missing = True
        if rewrite.missing6_count < rewrite.missing_max:
            rewrite.missing6[2 * rewrite.missing6_count] = high
            rewrite.missing6[2 * rewrite.missing6_count + 1] = low
            rewrite.missing6_count += 1
        return
    if not rewrite.rewriting:
        return
    store32(whole, <uint32_t> (new_high >> 32))
    store32(whole + 4, <uint32_t> new_high)
    store32(whole + 8, <uint32_t> (new_low >> 32))
    store32(whole + 12, <uint32_t> new_low)
    memcpy(p, whole, 16 if n >= 16 else n)
    rewrite.counts[COUNT_IP6] += 1


cdef void change4s(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t count, int64_t step) noexcept nogil:
    """Rewrite `count` addresses at p, p + step, …"""
    cdef int64_t i
    for i in range(count):
        if i * step >= n:
            break
        change4(rewrite, p + i * step, n - i * step)


cdef void change6s(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t count) noexcept nogil:
    cdef int64_t i
    for i in range(count):
        if 16 * i >= n:
            break
        change6(rewrite, p + 16 * i, n - 16 * i)


cdef void change4_set(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    if n < 4 or load32(p):
        change4(rewrite, p, n)


cdef void change_prefix6(Rewrite *rewrite, uint8_t *p, int64_t n, int bits) noexcept nogil:
    """Rewrite the first bytes of an address; its bits after the first `bits` become 0."""
    cdef int64_t i
    if bits <= 0 or bits > 128:  # not a prefix length, so no address is meant
        zero(rewrite, p, n)
        return
    change6(rewrite, p, n)
    if rewrite.rewriting:
        for i in range(min(n, <int64_t> 16)):
            if 8 * i >= bits:
                p[i] = 0
            elif 8 * i + 8 > bits:
                p[i] &= <uint8_t> (0xFF << (8 * i + 8 - bits))


# Hardware addresses.

cdef void change_mac(Rewrite *rewrite, uint8_t *p, int64_t n, int64_t size) noexcept nogil:
    """Rewrite an address of `size` bytes. All zeros and all ones stay, because they identify nobody. In 48 bits the group bit stays, and the
    result is marked as locally administered."""
    cdef int64_t kept = 0, i
    cdef uint64_t hashed = 0
    cdef uint8_t first
    if n <= 0 or size <= 0 or not rewrite.rewriting or all_same(p, min(n, size)):
        return
    if rewrite.mac == KEEP:
        rewrite.counts[LEFT_MAC] += 1
        return
    rewrite.counts[COUNT_MAC] += 1
    if rewrite.mac == ZERO:
        memset(p, 0, min(n, size))
        return
    if size == 6 and n >= 6 and rewrite.special and p[0] & 1:
        kept = group_bytes(p)
    first = p[0]
    for i in range(kept, min(n, size)):
        if (i - kept) % 8 == 0:  # the bytes from here on are still unchanged
            hashed = keyed_hash(rewrite.hash_key, p + i, min(n, size) - i, hashed + <uint64_t> size)
        p[i] = <uint8_t> (hashed >> (8 * ((i - kept) % 8)))
    if size == 6 and kept == 0:
        p[0] = (p[0] & 0xFC) | 2 | (first & 1)


cdef inline bint all_same(const uint8_t *p, int64_t n) noexcept nogil:
    cdef int64_t i
    if p[0] != 0 and p[0] != 0xFF:
        return False
    for i in range(1, n):
        if p[i] != p[0]:
            return False
    return True


cdef inline int64_t group_bytes(const uint8_t *p) noexcept nogil:
    """How many first bytes of a group address only say which well-known group it is."""
    if p[0] == 0x33 and p[1] == 0x33:  # IPv6 multicast: all but the last four bytes
        return 3 if p[2] == 0xFF else 6 if p[2] == 0 and p[4] == 0 else 2
    if p[0] == 1 and p[1] == 0 and p[2] == 0x5E:  # IPv4 multicast: all but 23 bits of the group, in which a prefix may stand (RFC 6034)
        return 6 if p[3] & 0x7F == 0 and p[4] == 0 else 3
    if p[0] == 1 and (p[1] == 0 or p[1] == 0x80):  # Cisco and IEEE
        return 6
    return 0


# Bytes.

cdef void put_zeros(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    if n > 0 and rewrite.rewriting:
        memset(p, 0, n)


cdef void zero(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Zero a field of unknown type, or one that only its maker can read."""
    cdef int64_t i
    if rewrite.rewriting:
        for i in range(n):
            if p[i]:
                memset(p, 0, n)
                rewrite.counts[COUNT_ZEROED] += 1
                return


cdef void unknown(Rewrite *rewrite, const uint8_t *p) noexcept nogil:
    cdef uint32_t at = <uint32_t> (p - rewrite.packet)
    if not rewrite.unknown or at < rewrite.unknown_at:
        rewrite.unknown_at = at
    rewrite.unknown = True


# SipHash-2-4 (Aumasson, Bernstein: SipHash, a fast short-input PRF, 2012). The tweak is hashed first.

cdef inline uint64_t turned(uint64_t value, int by) noexcept nogil:
    return (value << by) | (value >> (64 - by))


cdef inline void sip_rounds(uint64_t *v, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        v[0] += v[1]
        v[1] = turned(v[1], 13) ^ v[0]
        v[0] = turned(v[0], 32)
        v[2] += v[3]
        v[3] = turned(v[3], 16) ^ v[2]
        v[0] += v[3]
        v[3] = turned(v[3], 21) ^ v[0]
        v[2] += v[1]
        v[1] = turned(v[1], 17) ^ v[2]
        v[2] = turned(v[2], 32)


cdef inline void sip_word(uint64_t *v, uint64_t word) noexcept nogil:
    v[3] ^= word
    sip_rounds(v, 2)
    v[0] ^= word


cdef uint64_t keyed_hash(const uint64_t *key, const uint8_t *p, int64_t n, uint64_t tweak) noexcept nogil:
    cdef uint64_t[4] v
    cdef uint64_t word
    cdef int64_t at = 0
    v[0] = key[0] ^ <uint64_t> 0x736F6D6570736575
    v[1] = key[1] ^ <uint64_t> 0x646F72616E646F6D
    v[2] = key[0] ^ <uint64_t> 0x6C7967656E657261
    v[3] = key[1] ^ <uint64_t> 0x7465646279746573
    sip_word(v, tweak)
    while n - at >= 8:
        memcpy(&word, p + at, 8)
        sip_word(v, word)
        at += 8
    word = 0
    memcpy(&word, p + at, n - at)
    sip_word(v, word | (<uint64_t> (n + 8) << 56))
    v[2] ^= 0xFF
    sip_rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


# Sums.

cdef uint64_t sum_words(const uint8_t *p, uint32_t start, uint32_t stop) noexcept nogil:
    """The sum of p[start:stop] in 16-bit words at even offsets of p; the missing halves of the first and last word count as zero."""
    cdef uint64_t total = 0
    cdef uint32_t at = start
    cdef uint32_t wide
    if at < stop and at & 1:
        total = p[at]
        at += 1
    cdef uint64_t turned_total = 0
    while stop - at >= 4 and at < stop:
        memcpy(&wide, p + at, 4)
        turned_total += wide
        at += 4
    cdef uint16_t folded = fold(turned_total)  # words in this machine's byte order, which ones' complement sums allow
    total += load16(<const uint8_t *> &folded)
    if at + 1 < stop:
        total += load16(p + at)
        at += 2
    if at < stop:
        total += <uint64_t> p[at] << 8
    return total


cdef uint64_t difference(const Rewrite *rewrite, int64_t start, int64_t stop) noexcept nogil:
    """How much rewriting changed the sum of the packet's bytes start:stop, in words at even offsets."""
    stop = min(stop, <int64_t> min(rewrite.size, BEFORE_MAX))
    if start >= stop:
        return 0
    return fold(sum_words(rewrite.packet, <uint32_t> start, <uint32_t> stop)) + negative(
        sum_words(rewrite.before, <uint32_t> start, <uint32_t> stop))
