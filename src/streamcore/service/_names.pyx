"""Names and addresses in messages, for `names=replace`: DNS over UDP (RFC 1035), headers and SDP of SIP (RFC 3261, 8866), headers of HTTP/1.

Each word is replaced by one of equal length, which depends only on the key and the word: letters by letters, digits by digits. So lengths and
DNS compression stay valid. In DNS, data of unknown type is zeroed, and so is everything after a part that cannot be read.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memcmp

from streamcore.service._fields cimport COUNT_NAME, Rewrite, change4, change6, keyed_hash, load16, zero

cdef enum:
    WORD_MAX = 64            # a longer word is replaced in pieces


cdef enum:
    NONE = 0
    DNS
    SIP
    HTTP


cdef int message_kind(const uint8_t *p, int64_t n, uint16_t source, uint16_t target, bint udp) noexcept nogil:
    cdef int64_t first
    if udp and (is_dns(source) or is_dns(target)):
        return DNS
    first = line_end(p, n)
    if holds(p, first, b"SIP/2.0", 7) or source == 5060 or target == 5060:
        return SIP
    return HTTP if holds(p, first, b"HTTP/1.", 7) else NONE


cdef bint holds_names(const uint8_t *p, int64_t n, uint16_t source, uint16_t target, bint udp) noexcept nogil:
    return message_kind(p, n, source, target, udp) != NONE


cdef void change_names(Rewrite *rewrite, uint8_t *p, int64_t n, uint16_t source, uint16_t target, bint udp) noexcept nogil:
    cdef int kind = message_kind(p, n, source, target, udp)
    if kind == DNS:
        change_dns(rewrite, p, n)
    elif kind != NONE:
        change_text(rewrite, p, n, kind == SIP)


cdef inline bint is_dns(uint16_t port) noexcept nogil:
    return port == 53 or port == 5353 or port == 5355


# One word.

cdef inline bint is_letter(uint8_t c) noexcept nogil:
    return 97 <= c | 32 <= 122


cdef inline bint is_digit(uint8_t c) noexcept nogil:
    return 48 <= c <= 57


cdef void change_word(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef uint8_t[WORD_MAX] lower
    cdef uint64_t hashed = 0
    cdef int64_t i
    if n > WORD_MAX:
        change_word(rewrite, p + WORD_MAX, n - WORD_MAX)
        n = WORD_MAX
    if n <= 0 or not rewrite.rewriting:
        return
    for i in range(n):
        lower[i] = p[i] | 32 if is_letter(p[i]) else p[i]
    for i in range(n):
        if i % 8 == 0:
            hashed = keyed_hash(rewrite.hash_key, lower, n, 0x6E616D65 + <uint64_t> i)
        if is_letter(p[i]):
            p[i] = <uint8_t> ((p[i] & 32) + 65 + (hashed & 0xFF) % 26)
        elif is_digit(p[i]):
            p[i] = <uint8_t> (48 + (hashed & 0xFF) % 10)
        elif p[i] >= 128:
            p[i] = <uint8_t> (97 + (hashed & 0xFF) % 26)
        hashed >>= 8
    rewrite.counts[COUNT_NAME] += 1


# DNS.

cdef int64_t change_name(Rewrite *rewrite, uint8_t *p, int64_t at, int64_t n) noexcept nogil:
    """The labels from p[at] to the root or a pointer. Returns where the next field begins, or -1."""
    cdef int64_t size
    while at < n:
        size = p[at]
        if size == 0:
            return at + 1
        if size >= 0xC0:
            return at + 2
        if size > 63 or at + 1 + size > n:
            return -1
        if not (size == 4 and memcmp(p + at + 1, b"arpa", 4) == 0):
            change_word(rewrite, p + at + 1, size)
        at += 1 + size
    return -1


cdef void change_dns(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    cdef int64_t at = 12, next = 0, size
    cdef int64_t questions, records
    cdef uint16_t kind
    if n < 12:
        zero(rewrite, p, n)
        return
    questions = load16(p + 4)
    records = <int64_t> load16(p + 6) + load16(p + 8) + load16(p + 10)
    while questions > 0 and at >= 0 and at < n:
        next = change_name(rewrite, p, at, n)
        if next < 0 or next + 4 > n:
            break
        at = next + 4
        questions -= 1
    while questions == 0 and records > 0 and at < n:
        next = change_name(rewrite, p, at, n)
        if next < 0 or next + 10 > n:
            break
        kind, size = load16(p + next), load16(p + next + 8)
        next += 10
        if next + size > n:
            break
        change_data(rewrite, p, next, next + size, kind)
        at = next + size
        records -= 1
    zero(rewrite, p + at, n - at)


cdef void change_data(Rewrite *rewrite, uint8_t *p, int64_t at, int64_t stop, uint16_t kind) noexcept nogil:
    cdef int64_t start = at
    if kind == 1 and stop - at == 4:
        change4(rewrite, p + at, 4)
        return
    if kind == 28 and stop - at == 16:
        change6(rewrite, p + at, 16)
        return
    if kind == 2 or kind == 5 or kind == 12 or kind == 39:
        at = change_name(rewrite, p, at, stop)
    elif kind == 15:
        at = change_name(rewrite, p, at + 2, stop)
    elif kind == 33:
        at = change_name(rewrite, p, at + 6, stop)
    elif kind == 6:
        at = change_name(rewrite, p, at, stop)
        if at >= 0:
            at = change_name(rewrite, p, at, stop)
        if at >= 0 and at + 20 == stop:  # serial number and times
            return
    else:
        zero(rewrite, p + at, stop - at)
        return
    if at < 0:  # not a name
        at = start
    zero(rewrite, p + at, stop - at)


# Text.

cdef inline int64_t line_end(const uint8_t *p, int64_t n) noexcept nogil:
    cdef int64_t i
    for i in range(n):
        if p[i] == 10:
            return i
    return n


cdef inline bint holds(const uint8_t *p, int64_t n, const char *word, int64_t size) noexcept nogil:
    cdef int64_t i
    for i in range(n - size + 1):
        if memcmp(p + i, word, size) == 0:
            return True
    return False


cdef inline bint begins(const uint8_t *p, int64_t n, const char *lower, int64_t size) noexcept nogil:
    cdef int64_t i
    if n < size:
        return False
    for i in range(size):
        if (p[i] | 32 if is_letter(p[i]) else p[i]) != <uint8_t> lower[i]:
            return False
    return True


cdef void change_text(Rewrite *rewrite, uint8_t *p, int64_t n, bint sip) noexcept nogil:
    """Line by line, up to the empty line: in SIP and SDP every line except those that cannot identify anybody, in HTTP the headers that can."""
    cdef int64_t at = 0
    cdef int64_t size
    cdef bint first = True
    while at < n:
        size = line_end(p + at, n - at)
        if not sip and not first and size <= 1:
            return
        if sip and not is_dull(p + at, size):
            change_line(rewrite, p + at, size, first)
        elif not sip and (names_somebody(p + at, size) or (first and (holds(p + at, size, b"://", 3) or begins(p + at, size, b"connect ", 8)))):
            change_line(rewrite, p + at, size, first)
        first = False
        at += size + 1


cdef bint is_dull(const uint8_t *p, int64_t n) noexcept nogil:
    return (begins(p, n, b"cseq:", 5) or begins(p, n, b"content-length:", 15) or begins(p, n, b"content-type:", 13)
            or begins(p, n, b"max-forwards:", 13) or begins(p, n, b"allow:", 6) or begins(p, n, b"expires:", 8)
            or begins(p, n, b"v=", 2) or begins(p, n, b"t=", 2) or begins(p, n, b"m=", 2) or begins(p, n, b"a=rtpmap:", 9)
            or begins(p, n, b"a=fmtp:", 7) or begins(p, n, b"sip/2.0 ", 8))


cdef bint names_somebody(const uint8_t *p, int64_t n) noexcept nogil:
    return (begins(p, n, b"host:", 5) or begins(p, n, b"referer:", 8) or begins(p, n, b"origin:", 7) or begins(p, n, b"location:", 9)
            or begins(p, n, b"x-forwarded-", 12) or begins(p, n, b"x-real-ip:", 10) or begins(p, n, b"forwarded:", 10)
            or begins(p, n, b"via:", 4) or begins(p, n, b"cookie:", 7) or begins(p, n, b"set-cookie:", 11)
            or begins(p, n, b"authorization:", 14) or begins(p, n, b"from:", 5) or begins(p, n, b"proxy-authorization:", 20)
            or begins(p, n, b"content-location:", 17) or begins(p, n, b"x-original-", 11) or begins(p, n, b"x-client-ip:", 12)
            or begins(p, n, b"x-cluster-client-ip:", 20) or begins(p, n, b"client-ip:", 10) or begins(p, n, b"true-client-ip:", 15)
            or begins(p, n, b"cf-connecting-ip", 16) or (n > 0 and (p[0] == 32 or p[0] == 9)))


cdef void change_line(Rewrite *rewrite, uint8_t *p, int64_t n, bint first) noexcept nogil:
    """Replace every word after the header's name or the method, except words of the protocol."""
    cdef int64_t at = 0
    cdef int64_t start
    while at < n and p[at] != 58 and p[at] != 61 and not (first and p[at] == 32):
        at += 1
    if at == n or (first and not holds(p, n, b"SIP/2.0", 7) and not holds(p, n, b"HTTP/1.", 7)):  # the end of a line, or plain text
        at = 0
    while at < n:
        if not is_letter(p[at]) and not is_digit(p[at]) and p[at] < 128:
            at += 1
            continue
        if begins(p + at, n - at, b"sip/2.0", 7) or begins(p + at, n - at, b"http/1.", 7):
            at += 8
            continue
        start = at
        while at < n and (is_letter(p[at]) or is_digit(p[at]) or p[at] >= 128):
            at += 1
        if not is_kept(p + start, at - start):
            change_word(rewrite, p + start, at - start)


cdef bint is_kept(const uint8_t *p, int64_t n) noexcept nogil:
    return ((n == 2 and memcmp(p, b"IN", 2) == 0)
            or (n == 3 and (begins(p, n, b"sip", 3) or begins(p, n, b"udp", 3) or begins(p, n, b"tcp", 3) or begins(p, n, b"tls", 3)
                            or begins(p, n, b"tag", 3) or begins(p, n, b"ip4", 3) or begins(p, n, b"ip6", 3) or begins(p, n, b"tel", 3)))
            or (n == 4 and (begins(p, n, b"sips", 4) or begins(p, n, b"http", 4)))
            or (n == 5 and begins(p, n, b"https", 5)) or (n == 6 and begins(p, n, b"branch", 6)))
