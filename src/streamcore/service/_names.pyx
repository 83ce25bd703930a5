"""Names and addresses in messages, for `names=replace`: DNS over UDP (RFC 1035), headers and SDP of SIP (RFC 3261, 8866), headers of HTTP/1.

Each word is replaced by one of equal length, which depends only on the key and the word: letters by letters, digits by digits, bytes that
are no text by letters. So lengths and DNS compression stay valid. In DNS, data of unknown type is zeroed, and so is everything after a part that
cannot be read.
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
    cdef int64_t at = 0, first
    if udp and (is_dns(source) or is_dns(target)):
        return DNS
    while at < n and (p[at] == 13 or p[at] == 10):  # empty lines may come before a message (RFC 3261 7.5, RFC 9112 2.2)
        at += 1
    first = line_end(p + at, n - at)
    if holds(p + at, first, b"sip/2.0", 7) or source == 5060 or target == 5060:
        return SIP
    return HTTP if holds(p + at, first, b"http/1.", 7) else NONE


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
        elif p[i] >= 128 or p[i] < 32:
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


cdef inline bint holds(const uint8_t *p, int64_t n, const char *lower, int64_t size) noexcept nogil:
    cdef int64_t i
    for i in range(n - size + 1):
        if begins(p + i, n - i, lower, size):
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


cdef enum Part:
    # Where in a message a line stands.
    BEGINNING                # of the packet, which may be the middle of a message
    HEADERS
    BODY


cdef void change_text(Rewrite *rewrite, uint8_t *p, int64_t n, bint sip) noexcept nogil:
    """Line by line. In SIP and SDP every line is changed except those that cannot identify anybody; in HTTP the headers that can. Several
    messages may follow one another."""
    cdef int64_t at = 0
    cdef int64_t size
    cdef Part part = BEGINNING
    cdef bint headers = False  # of this message were seen
    while at < n:
        size = line_end(p + at, n - at)
        if is_blank(p + at, size):
            if part == HEADERS:
                part = BODY
        elif ((part != HEADERS or not sip or not headers) and is_start(p + at, size, sip)) or (part == BEGINNING and not sip):
            change_start(rewrite, p + at, size, sip)
            part = HEADERS
            headers = True
        elif sip:
            change_sip_line(rewrite, p + at, size, part, headers)
            part = HEADERS if part == BEGINNING else part
        elif part == HEADERS and names_somebody(p + at, size):
            change_words(rewrite, p + at, header_end(p + at, size), size)
        at += size + 1


cdef inline bint is_blank(const uint8_t *p, int64_t n) noexcept nogil:
    return n == 0 or (n == 1 and p[0] == 13)


# The first line of a message.

cdef inline int64_t trimmed(const uint8_t *p, int64_t n) noexcept nogil:
    """Without the white space at its end."""
    while n > 0 and (p[n - 1] == 13 or p[n - 1] == 32 or p[n - 1] == 9):
        n -= 1
    return n


cdef bint is_start(const uint8_t *p, int64_t n, bint sip) noexcept nogil:
    """A method, what it is about, and the version; or the version and a status. In SIP the method has capital letters: the line may be the end of
    one that began in an earlier segment."""
    cdef int64_t at = method_end(p, n)
    n = trimmed(p, n)
    if sip:
        return begins(p, n, b"sip/2.0 ", 8) or (at > 0 and n > at + 8 and begins(p + n - 8, 8, b" sip/2.0", 8))
    return begins(p, n, b"http/1.", 7) or (n > 9 and begins(p + n - 9, 9, b" http/1.", 8))


cdef inline int64_t method_end(const uint8_t *p, int64_t n) noexcept nogil:
    """Where the space after a method in capital letters is. 0: there is none."""
    cdef int64_t at = 0
    while at < n and (65 <= p[at] <= 90 or p[at] == 45 or p[at] == 95):
        at += 1
    return at if at < n and p[at] == 32 else 0


cdef void change_start(Rewrite *rewrite, uint8_t *p, int64_t n, bint sip) noexcept nogil:
    """In SIP the address, or the reason behind the status, which is text. In HTTP what names a host: a whole address, or where a proxy is to
    connect to."""
    if sip:
        change_words(rewrite, p, 11 if begins(p, n, b"sip/2.0", 7) else method_end(p, n), n)
    elif holds(p, n, b"://", 3) or begins(p, n, b"connect ", 8):
        change_words(rewrite, p, 12 if begins(p, n, b"http/1.", 7) else method_end(p, n), n)


# Other lines.

cdef int64_t header_end(const uint8_t *p, int64_t n) noexcept nogil:
    """Where the name of a header ends, with its colon. 0: the line has none, as where it goes on with the one before."""
    cdef int64_t at = 0
    while at < n and (is_letter(p[at]) or p[at] == 45):
        at += 1
    if at == 0:
        return 0
    while at < n and (p[at] == 32 or p[at] == 9):  # allowed in SIP, and met elsewhere
        at += 1
    return at + 1 if at < n and p[at] == 58 else 0


cdef void change_sip_line(Rewrite *rewrite, uint8_t *p, int64_t n, Part part, bint headers) noexcept nogil:
    """headers: the message's are in this packet, so that it is known which lines are headers, and which are the body's."""
    cdef int64_t at
    if part == BEGINNING:  # perhaps the end of a line
        change_words(rewrite, p, 0, n)
        return
    if part == HEADERS or not headers:
        at = header_end(p, n)
        if at > 2 and not headers and is_letter(p[0]) and p[0] & 32:  # perhaps text of a body: headers' names are written with a capital letter
            at = 0
        if at and is_dull_header(p, at):
            if begins(p, n, b"c", 1):
                change_words(rewrite, p, after_boundary(p, n), n)
            return
        if at:
            change_words(rewrite, p, at, n)
            return
    at = 2 if n >= 2 and is_letter(p[0]) and p[1] == 61 else 0
    if not at or not is_dull_description(p, n):
        change_words(rewrite, p, at, n)


cdef inline bint is_header(const uint8_t *p, int64_t end, const char *lower, int64_t size) noexcept nogil:
    """end: as header_end says."""
    return end > size and begins(p, end, lower, size) and not is_letter(p[size]) and p[size] != 45


cdef bint is_dull_header(const uint8_t *p, int64_t end) noexcept nogil:
    """With the short forms (RFC 3261 7.3.3)."""
    return (is_header(p, end, b"cseq", 4) or is_header(p, end, b"content-length", 14) or is_header(p, end, b"l", 1)
            or is_header(p, end, b"content-type", 12) or is_header(p, end, b"c", 1) or is_header(p, end, b"max-forwards", 12)
            or is_header(p, end, b"allow", 5) or is_header(p, end, b"expires", 7))


cdef int64_t after_boundary(const uint8_t *p, int64_t n) noexcept nogil:
    """Of a content type: what stands between the parts of a body may hold a host's name, as message ids do."""
    cdef int64_t at
    for at in range(n):
        if begins(p + at, n - at, b"boundary", 8):
            return at + 8
    return n


cdef bint is_dull_description(const uint8_t *p, int64_t n) noexcept nogil:
    return (begins(p, n, b"v=", 2) or begins(p, n, b"t=", 2) or begins(p, n, b"m=", 2) or begins(p, n, b"a=rtpmap:", 9)
            or begins(p, n, b"a=fmtp:", 7))


cdef bint names_somebody(const uint8_t *p, int64_t n) noexcept nogil:
    cdef int64_t end = header_end(p, n)
    if p[0] == 32 or p[0] == 9:  # it goes on with a header
        return True
    return (is_header(p, end, b"host", 4) or is_header(p, end, b"referer", 7) or is_header(p, end, b"origin", 6)
            or is_header(p, end, b"location", 8) or begins(p, end, b"x-forwarded-", 12) or is_header(p, end, b"x-real-ip", 9)
            or is_header(p, end, b"forwarded", 9) or is_header(p, end, b"via", 3) or is_header(p, end, b"cookie", 6)
            or is_header(p, end, b"set-cookie", 10) or is_header(p, end, b"authorization", 13) or is_header(p, end, b"from", 4)
            or is_header(p, end, b"proxy-authorization", 19) or is_header(p, end, b"content-location", 16)
            or begins(p, end, b"x-original-", 11) or is_header(p, end, b"x-client-ip", 11) or is_header(p, end, b"x-cluster-client-ip", 19)
            or is_header(p, end, b"client-ip", 9) or is_header(p, end, b"true-client-ip", 14) or begins(p, end, b"cf-connecting-ip", 16)
            or is_header(p, end, b"access-control-allow-origin", 27) or is_header(p, end, b"destination", 11)
            or is_header(p, end, b"alt-svc", 7) or is_header(p, end, b"refresh", 7) or is_header(p, end, b"link", 4)
            or is_header(p, end, b"x-host", 6) or is_header(p, end, b"x-remote-ip", 11) or is_header(p, end, b"x-remote-addr", 13)
            or is_header(p, end, b"x-proxyuser-ip", 14) or is_header(p, end, b"x-envoy-external-address", 24))


# The words of a line.

cdef void change_words(Rewrite *rewrite, uint8_t *p, int64_t at, int64_t n) noexcept nogil:
    """Replace every word of p[at:n], except those of the protocol."""
    cdef int64_t start
    while at < n:
        if not is_letter(p[at]) and not is_digit(p[at]) and p[at] < 128:
            at += 1
            continue
        if begins(p + at, n - at, b"sip/2.0", 7):
            at += 7
            continue
        if begins(p + at, n - at, b"http/1.", 7):
            at = min(at + 8, n)
            continue
        start = at
        while at < n and (is_letter(p[at]) or is_digit(p[at]) or p[at] >= 128):
            at += 1
        if not is_kept(p, start, at, n):
            change_word(rewrite, p + start, at - start)


cdef bint is_kept(const uint8_t *p, int64_t start, int64_t end, int64_t n) noexcept nogil:
    """Whether the word p[start:end] of a line of n bytes is the protocol's: a scheme, a parameter, a transport, a network. Where it stands must
    show it, for a host may have such a name."""
    cdef const uint8_t *word = p + start
    cdef int64_t size = end - start
    cdef uint8_t before = p[start - 1] if start else 32
    cdef uint8_t after = p[end] if end < n else 13
    if size == 2 and memcmp(word, b"IN", 2) == 0 and (begins(p + end, n - end, b" ip4 ", 5) or begins(p + end, n - end, b" ip6 ", 5)):
        return True
    if after == 58:  # scheme:
        return before != 64 and ((size == 3 and (begins(word, 3, b"sip", 3) or begins(word, 3, b"tel", 3)))
                                 or (size == 4 and (begins(word, 4, b"sips", 4) or begins(word, 4, b"http", 4)))
                                 or (size == 5 and begins(word, 5, b"https", 5)))
    if before == 59 and (after == 61 or after == 59 or after == 62 or after == 13):  # ;parameter=
        return ((size == 2 and begins(word, 2, b"lr", 2)) or (size == 3 and begins(word, 3, b"tag", 3))
                or (size == 5 and begins(word, 5, b"rport", 5)) or (size == 6 and begins(word, 6, b"branch", 6))
                or (size == 8 and begins(word, 8, b"received", 8)) or (size == 9 and begins(word, 9, b"transport", 9)))
    if before == 47 or before == 61:  # SIP/2.0/UDP, transport=udp
        return size == 3 and (after == 32 or after == 59 or after == 62 or after == 13) and (
            begins(word, 3, b"udp", 3) or begins(word, 3, b"tcp", 3) or begins(word, 3, b"tls", 3))
    return (size == 3 and start >= 3 and memcmp(word - 3, b"IN ", 3) == 0 and after == 32
            and (begins(word, 3, b"ip4", 3) or begins(word, 3, b"ip6", 3)))
