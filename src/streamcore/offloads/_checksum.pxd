# The Internet checksum (RFC 1071) over bytes as they lie in memory: sums are in the byte order of the machine, as the fields that they go into.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    /* Four sums side by side, which the compiler keeps in vector registers; a 64-bit sum of 32-bit words holds 16 GiB. */
    static uint64_t internet_sum(const uint8_t *at, uint64_t size, uint64_t sum)
    {
        uint64_t sums[4] = {sum, 0, 0, 0};
        uint32_t words[4], word = 0;
        while (size >= 16) {
            memcpy(words, at, 16);
            for (int i = 0; i < 4; i++) sums[i] += words[i];
            at += 16;
            size -= 16;
        }
        while (size >= 4) {
            memcpy(&word, at, 4);
            sums[0] += word;
            at += 4;
            size -= 4;
        }
        word = 0;
        memcpy(&word, at, size);
        return sums[0] + sums[1] + sums[2] + sums[3] + word;
    }
    static inline uint16_t internet_fold(uint64_t sum)
    {
        sum = (sum & 0xFFFFFFFFu) + (sum >> 32);
        sum = (sum & 0xFFFF) + (sum >> 16 & 0xFFFF) + (sum >> 32);
        sum = (sum & 0xFFFF) + (sum >> 16);
        return (uint16_t) ((sum & 0xFFFF) + (sum >> 16));
    }
    """
    uint64_t internet_sum(const uint8_t *at, uint64_t size, uint64_t sum) noexcept nogil  # added to `sum`; not folded
    uint16_t internet_fold(uint64_t sum) noexcept nogil                                   # to 16 bits, not inverted


cdef inline uint16_t get16(const uint8_t *at) noexcept nogil:
    """As it lies in memory."""
    return (<const uint16_t *> at)[0]


cdef inline void set16(uint8_t *at, uint16_t value) noexcept nogil:
    (<uint16_t *> at)[0] = value


cdef inline uint16_t swap16(uint16_t value) noexcept nogil:
    return <uint16_t> ((value >> 8) | (value << 8))
