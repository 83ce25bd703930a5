# Numbers and addresses as text, for rows of tables. Each function writes at `at` and returns where its text ends. All of it is inline.
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    static const char sc_pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960"
        "616263646566676869707172737475767778798081828384858687888990919293949596979899";

    /* A number in decimal, at most 20 digits. */
    static inline uint8_t *sc_number(uint64_t value, uint8_t *at)
    {
        uint8_t digits[20], *from = digits + 20;
        if (value < 10) {
            *at = (uint8_t) ('0' + value);
            return at + 1;
        }
        while (value >= 100) {
            uint64_t rest = value / 100;
            from -= 2;
            memcpy(from, sc_pairs + 2 * (value - 100 * rest), 2);
            value = rest;
        }
        if (value >= 10) {
            memcpy(at, sc_pairs + 2 * value, 2);
            at += 2;
        } else
            *at++ = (uint8_t) ('0' + value);
        memcpy(at, from, (size_t) (digits + 20 - from));
        return at + (digits + 20 - from);
    }

    static inline uint8_t *sc_hex(unsigned value, uint8_t *at)  /* at most 4 digits, no zeros before the first one */
    {
        static const char digits[] = "0123456789abcdef";
        int shift = value > 0xFFF ? 12 : value > 0xFF ? 8 : value > 0xF ? 4 : 0;
        for (; shift >= 0; shift -= 4)
            *at++ = (uint8_t) digits[value >> shift & 15];
        return at;
    }

    static inline uint8_t *sc_ipv4(const uint8_t *value, uint8_t *at)
    {
        for (int i = 0; i < 4; i++) {
            unsigned octet = value[i];
            if (octet >= 100) {
                *at++ = (uint8_t) ('0' + octet / 100);
                memcpy(at, sc_pairs + 2 * (octet % 100), 2);
                at += 2;
            } else if (octet >= 10) {
                memcpy(at, sc_pairs + 2 * octet, 2);
                at += 2;
            } else
                *at++ = (uint8_t) ('0' + octet);
            *at++ = '.';
        }
        return at - 1;
    }

    /* As inet_ntop does (RFC 5952): the first longest run of at least two zero groups is left out, and an IPv4 address at the end of
       ::/96 or ::ffff:0:0/96 has dots. At most 45 bytes. */
    static inline uint8_t *sc_ipv6(const uint8_t *value, uint8_t *at)
    {
        unsigned group[8];
        int begin = -1, length = 1, run = 0;
        for (int i = 0; i < 8; i++) {
            group[i] = (unsigned) value[2 * i] << 8 | value[2 * i + 1];
            run = group[i] ? 0 : run + 1;
            if (run > length) {
                length = run;
                begin = i + 1 - run;
            }
        }
        for (int i = 0; i < 8; i++) {
            if (i == begin) {
                *at++ = ':';
                i += length - 1;
                if (i == 7)
                    *at++ = ':';
                continue;
            }
            if (i)
                *at++ = ':';
            if (i == 6 && begin == 0 && (length == 6 || (length == 5 && group[5] == 0xFFFF)))
                return sc_ipv4(value + 12, at);
            at = sc_hex(group[i], at);
        }
        return at;
    }
    """
    uint8_t *write_number "sc_number" (uint64_t value, uint8_t *at) noexcept nogil
    uint8_t *write_ipv4 "sc_ipv4" (const uint8_t *value, uint8_t *at) noexcept nogil
    uint8_t *write_ipv6 "sc_ipv6" (const uint8_t *value, uint8_t *at) noexcept nogil


cdef inline uint8_t *write_signed(int64_t value, uint8_t *at) noexcept nogil:
    if value >= 0:
        return write_number(<uint64_t> value, at)
    at[0] = c'-'
    return write_number(-<uint64_t> value, at + 1)


cdef inline uint8_t *write_padded(uint64_t value, int width, uint8_t *at) noexcept nogil:
    """The last `width` digits."""
    cdef int i
    for i in range(width):
        at[width - 1 - i] = c'0' + <uint8_t> (value % 10)
        value //= 10
    return at + width


cdef inline uint8_t *write_hex_bytes(uint64_t value, int count, uint8_t *at) noexcept nogil:
    """The last `count` bytes of a number, two digits each."""
    cdef const char *digits = b"0123456789abcdef"
    cdef int shift = 8 * count
    while shift:
        shift -= 4
        at[0] = digits[value >> shift & 15]
        at += 1
    return at


cdef inline uint8_t *write_mac(const uint8_t *value, uint8_t *at) noexcept nogil:
    cdef int i
    for i in range(6):
        if i:
            at[0] = c':'
            at += 1
        at = write_hex_bytes(value[i], 1, at)
    return at


cdef inline uint8_t *write_ip(const uint8_t *value, uint8_t version, uint8_t *at) noexcept nogil:
    """An address of 16 bytes from a header of IP version 4, which stands in the last four, or 6."""
    return write_ipv6(value, at) if version == 6 else write_ipv4(value + 12, at)


cdef inline uint8_t *write_text(const char *text, Py_ssize_t length, uint8_t *at) noexcept nogil:
    memcpy(at, text, length)
    return at + length
