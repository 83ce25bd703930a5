"""Addresses and opaque fields in tunnel headers.

A kind without a line in `change_tunnel` is not understood. Sources: see streamcore/headers/_tunnels.pyx and _udp_tunnels.pyx.
"""

from libc.stdint cimport int64_t, uint8_t

from streamcore.headers._walk cimport (
    TUNNEL_CAPWAP,
    TUNNEL_ERSPAN,
    TUNNEL_ETHERIP,
    TUNNEL_GENEVE,
    TUNNEL_GRE,
    TUNNEL_GTP,
    TUNNEL_GUE,
    TUNNEL_L2TP,
    TUNNEL_LISP,
    TUNNEL_NSH,
    TUNNEL_PIM,
    TUNNEL_PPTP,
    TUNNEL_TEREDO,
    TUNNEL_TZSP,
    TUNNEL_VXLAN,
    TUNNEL_WCCP,
)
from streamcore.service._fields cimport Rewrite, change4s, change_mac, load16, unknown, zero


cdef void change_tunnel(Rewrite *rewrite, uint8_t *p, int64_t n, int tunnel) noexcept nogil:
    """n: bytes of the header that are present; tunnel: TUNNEL_*."""
    if tunnel == TUNNEL_GRE:
        change_gre(rewrite, p, n)
    elif tunnel == TUNNEL_GENEVE:
        change_geneve(rewrite, p, n)
    elif tunnel == TUNNEL_GTP:
        change_gtp(rewrite, p, n)
    elif tunnel == TUNNEL_CAPWAP:
        change_capwap(rewrite, p, n)
    elif tunnel == TUNNEL_TZSP:
        change_tzsp(rewrite, p, n)
    elif tunnel == TUNNEL_TEREDO:
        change_teredo(rewrite, p, n)
    elif tunnel == TUNNEL_NSH:  # metadata of any type
        zero(rewrite, p + 8, n - 8)
    elif tunnel == TUNNEL_GUE:
        zero(rewrite, p + 4, n - 4)
    elif tunnel == TUNNEL_L2TP:
        if n >= 2 and p[0] & 2 and p[1] & 15 == 2:  # the padding may contain anything
            unknown(rewrite, p)
    elif not (tunnel == TUNNEL_PPTP or tunnel == TUNNEL_ERSPAN or tunnel == TUNNEL_WCCP or tunnel == TUNNEL_ETHERIP or tunnel == TUNNEL_VXLAN
              or tunnel == TUNNEL_LISP or tunnel == TUNNEL_PIM):
        unknown(rewrite, p)


cdef void change_gre(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """The source routes of RFC 1701: family, offset, length, addresses."""
    cdef int64_t at = 8
    if n < 4 or not p[0] & 0x40:
        return
    at += 4 * ((p[0] >> 5 & 1) + (p[0] >> 4 & 1))
    while at + 4 <= n:
        if load16(p + at) == 0x0800:
            change4s(rewrite, p + at + 4, min(<int64_t> p[at + 3], n - at - 4), (p[at + 3] + 3) // 4, 4)
        else:
            zero(rewrite, p + at + 4, min(<int64_t> p[at + 3], n - at - 4))
        at += 4 + p[at + 3]


cdef void change_geneve(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Options: class, type, length in words; only their makers know what the values mean."""
    cdef int64_t at = 8
    while at + 4 <= n:
        zero(rewrite, p + at + 4, min(<int64_t> 4 * (p[at + 3] & 0x1F), n - at - 4))
        at += 4 + 4 * (p[at + 3] & 0x1F)


cdef void change_gtp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Extension headers: length in words, value, type of the next one. A PDU session container (0x85) has only numbers; others may have anything."""
    cdef int64_t at = 12
    cdef uint8_t kind
    if n < 12 or not p[0] & 4:
        return
    kind = p[11]
    while kind and at < n and p[at]:
        if kind != 0x85:
            zero(rewrite, p + at + 1, min(4 * <int64_t> p[at] - 2, n - at - 1))
        at += 4 * <int64_t> p[at]
        kind = p[at - 1] if at <= n else 0


cdef void change_capwap(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """The radio's address and information from the radio, if the flags announce them. Each comes after its length, and is padded to words."""
    cdef int64_t at = 8
    if n < 8 or p[0]:
        return
    if p[3] & 0x10 and at < n:
        change_mac(rewrite, p + at + 1, min(<int64_t> p[at], n - at - 1), p[at])
        at += (<int64_t> p[at] + 4) // 4 * 4
    zero(rewrite, p + at, n - at)


cdef void change_tzsp(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """Fields of type, length and value: signal, rate, channel and other numbers (10 to 18, 40, 41) stay."""
    cdef int64_t at = 4
    while at < n and p[at] != 1:
        if p[at] == 0 or at + 1 >= n:
            at += 1
            continue
        if not (10 <= p[at] <= 18 or p[at] == 40 or p[at] == 41) or p[at + 1] > 4:
            zero(rewrite, p + at + 2, min(<int64_t> p[at + 1], n - at - 2))
        at += 2 + <int64_t> p[at + 1]


cdef void change_teredo(Rewrite *rewrite, uint8_t *p, int64_t n) noexcept nogil:
    """An authentication (identity, value, nonce); an origin: port and address, inverted."""
    cdef int64_t at = 0
    if n >= 13 and load16(p) == 1:
        at = 13 + p[2] + p[3]
        zero(rewrite, p + 4, min(at, n) - 4)
    zero(rewrite, p + at + 2, n - at - 2)
