"""Rewrites a segment's packets in place from the table: a fast path for ordinary packets, the walk for all others.

A packet with an address that is not in the table stays unchanged and is deferred. The caller then fills the table and
calls again.
"""

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from streamcore.core.packets cimport prefetch
from streamcore.headers._walk cimport UdpPorts, UdpTable, udp_opens
from streamcore.service._address_table cimport AddressTable, Table, find4, find6, slot4, slot6
from streamcore.service._addresses cimport MISSING, UNDERSTOOD, rewrite_packet
from streamcore.service._fields cimport (
    BEFORE_MAX,
    COUNT_IP4,
    COUNT_IP6,
    COUNTED,
    KEEP,
    LEFT_MAC,
    LEFT_PAYLOAD,
    Rewrite,
    adjusted,
    adjusted_udp,
    change_mac,
    delta32,
    fold,
    load16,
    load32,
    store16,
    store32,
)
from streamcore.service._fragments cimport SLOTS, FirstFragments, Slot, next_round
from streamcore.service._messages cimport is_dhcp

COUNTED_NAMES = (
    "ipv4", "ipv6", "mac", "names", "fields_zeroed", "payloads", "payload_packets", "mac", "integrity_checks"
)  # first what was replaced, then what was left
REPLACED = 6  # how many of these are of replaced things
KEEPING = ("keep", "zero", "hash", "truncate")  # names of Keeping

cdef enum:
    BATCH = 32         # packets between prefetching a table slot and reading it
    MISSING_MAX = 65536

cdef enum:
    # What the fast path takes: Ethernet, at most one VLAN tag, IP without options or extension headers, TCP or UDP.
    NOT_PLAIN = 0
    PLAIN4
    PLAIN6


cdef class Anonymiser:
    """Holds what a pass needs, so that a pass allocates nothing.

    mac, payload: of KEEPING. names: whether names in messages are replaced. special: whether the table keeps special addresses. hash_key: 16
    bytes. drops: whether packets that are not understood will be dropped.
    """

    cdef AddressTable table
    cdef object missing4
    cdef object missing6
    cdef Rewrite shared
    cdef FirstFragments firsts
    cdef UdpPorts ports               # those of the last pass
    cdef uint8_t[8192] closed_ports   # by them, a bit for each UDP port to or from which more than payload may go

    def __cinit__(self):
        self.shared.before = NULL
        self.firsts.slots = NULL

    def __init__(self, AddressTable table not None, str mac="keep", str payload="keep", bint names=False, bint special=False,
                 bytes hash_key=bytes(16), bint drops=True):
        if table.entries_max < 4 * MISSING_MAX:
            raise ValueError(f"the address table must hold at least {4 * MISSING_MAX} addresses, otherwise passes might never end")
        if len(hash_key) != 16:
            raise ValueError(f"the hash key must have 16 bytes, not {len(hash_key)}")
        self.table = table
        self.missing4 = np.empty(MISSING_MAX, np.uint32)
        self.missing6 = np.empty((MISSING_MAX, 2), np.uint64)
        self.shared.before = <uint8_t *> malloc(BEFORE_MAX)
        self.firsts.slots = <Slot *> calloc(SLOTS, sizeof(Slot))
        if self.shared.before == NULL or self.firsts.slots == NULL:
            raise MemoryError("not enough memory for a packet and the fragments of a segment")
        self.shared.firsts = &self.firsts
        self.shared.mac = KEEPING.index(mac)
        self.shared.payload = KEEPING.index(payload)
        self.shared.names, self.shared.special, self.shared.drops = names, special, drops
        self.shared.hash_key[0] = int.from_bytes(hash_key[:8], "little")
        self.shared.hash_key[1] = int.from_bytes(hash_key[8:], "little")
        self.shared.missing_max = MISSING_MAX

    def __dealloc__(self):
        free(self.shared.before)
        free(self.firsts.slots)

    cdef void use_ports(self, UdpPorts ports):
        """Take a run's ports. They do not change during a run, so this happens once."""
        cdef int port
        if ports is self.ports:
            return
        self.ports = ports
        memset(self.closed_ports, 0, sizeof(self.closed_ports))
        for port in range(65536):
            if udp_opens(&ports.table, <uint16_t> port, <uint16_t> port) or is_dhcp(<uint16_t> port, <uint16_t> port):
                self.closed_ports[port >> 3] |= 1 << (port & 7)

    def counts(self):
        """uint64[COUNTED]: what was replaced and left so far; COUNTED_NAMES names the entries."""
        return np.array([self.shared.counts[i] for i in range(COUNTED)], np.uint64)

    def rewrite(self, uint8_t[::1] data not None, const uint32_t[::1] offset not None, const uint32_t[::1] captured_length not None,
                const uint16_t[::1] link_type not None, uint32_t[::1] todo not None, uint8_t[::1] verdict not None,
                uint32_t[::1] kept not None, UdpPorts ports not None, bint again=False):
        """Rewrite the packets numbered in todo; return (deferred, missing4, missing6).

        todo: uint32, in and out: its first `deferred` are then those that wait for the missing addresses, uint32[m]
        and uint64[m, 2] with repeats; they are what comes `again`. The first time, later fragments wait, too: for all
        first ones to be seen. verdict, kept: out, of the packets that are done: 1 where all headers are understood, 2 + the walk's
        outcome where not; how many of its bytes may stay. ports: which tunnels over
        UDP are tried. Raises ValueError for a packet outside data. The GIL is released. About 20 ns
        a packet where everything is known (bench_service.py).
        """
        cdef Py_ssize_t count = offset.shape[0]
        cdef Py_ssize_t i
        cdef Py_ssize_t deferred = 0
        cdef Rewrite *rewrite = &self.shared
        cdef uint32_t[::1] missing4 = self.missing4
        cdef uint64_t[:, ::1] missing6 = self.missing6
        if captured_length.shape[0] != count or link_type.shape[0] != count or verdict.shape[0] != count or kept.shape[0] != count:
            raise ValueError(f"{count} offsets, {captured_length.shape[0]} lengths, {link_type.shape[0]} link types, {verdict.shape[0]} verdicts")
        for i in range(todo.shape[0]):
            if todo[i] >= count or <uint64_t> offset[todo[i]] + captured_length[todo[i]] > <uint64_t> data.shape[0]:
                raise ValueError(f"packet {todo[i]} is outside the data")
        if todo.shape[0] == 0:
            return 0, self.missing4[:0], self.missing6[:0]
        rewrite.table = &self.table.table
        rewrite.udp = &ports.table  # valid during this call
        self.use_ports(ports)
        rewrite.missing4 = &missing4[0]
        rewrite.missing6 = &missing6[0, 0]
        rewrite.missing4_count = rewrite.missing6_count = 0
        rewrite.first_pass = not again
        if not again:
            next_round(&self.firsts)
        with nogil:
            deferred = rewrite_all(rewrite, self.closed_ports, &data[0] if data.shape[0] else NULL, &offset[0], &captured_length[0], &link_type[0], &todo[0],
                                   todo.shape[0], &verdict[0], &kept[0])
        return deferred, self.missing4[:rewrite.missing4_count], self.missing6[:rewrite.missing6_count]


cdef inline uint32_t tag_bytes(const uint8_t *p, uint32_t n) noexcept nogil:
    return 4 if n >= 46 and load16(p + 12) == 0x8100 else 0


cdef inline bint is_closed(const uint8_t *ports, uint16_t port) noexcept nogil:
    return ports[port >> 3] >> (port & 7) & 1


cdef inline int plain_kind(const uint8_t *ports, const uint8_t *p, uint32_t n, uint16_t link_type) noexcept nogil:
    """Which fast path the packet may take. Checks every length: a cut or inconsistent header is left to the walk. TCP must have no options, or
    timestamps only."""
    cdef uint32_t l4, end
    cdef uint8_t protocol
    cdef int kind
    if n < 42 or link_type != 1:
        return NOT_PLAIN
    if load16(p + 12) == 0x0800 and p[14] == 0x45 and not load16(p + 20) & 0x3FFF:
        l4, end, protocol, kind = 34, 14 + load16(p + 16), p[23], PLAIN4
    elif load16(p + 12) == 0x86DD and p[14] >> 4 == 6 and n >= 62 and load16(p + 18):
        l4, end, protocol, kind = 54, 54 + load16(p + 18), p[20], PLAIN6
    else:
        return NOT_PLAIN
    end = min(end, n)
    if protocol == 6 and end >= l4 + 20:
        if p[l4 + 12] >> 4 == 5 or (p[l4 + 12] >> 4 == 8 and end >= l4 + 32 and load32(p + l4 + 20) == 0x0101080A):
            return kind
    elif protocol == 17 and end >= l4 + 8 and not is_closed(ports, load16(p + l4)) and not is_closed(ports, load16(p + l4 + 2)):
        return kind
    return NOT_PLAIN


cdef Py_ssize_t rewrite_all(Rewrite *rewrite, const uint8_t *ports, uint8_t *data, const uint32_t *offset, const uint32_t *length, const uint16_t *link_type,
                            uint32_t *todo, Py_ssize_t count, uint8_t *verdict, uint32_t *kept) noexcept nogil:
    cdef const Table *table = rewrite.table
    cdef int[BATCH] plain
    cdef uint32_t[BATCH] tags
    cdef Py_ssize_t stop, i
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t deferred = 0
    cdef uint8_t *p
    cdef uint32_t row, tag
    cdef bint simple = rewrite.payload == KEEP and not rewrite.names
    while start < count:
        stop = min(start + BATCH, count)
        for i in range(start, stop):
            row = todo[i]
            p = data + offset[row]
            if i + BATCH < count:  # the copied bytes may have left the cache; the addresses share a cache line with the EtherType, or are on the next
                prefetch(data + offset[todo[i + BATCH]] + 26)
            tag = tags[i - start] = tag_bytes(p, length[row])
            p += tag  # the bytes before the EtherType are not read
            plain[i - start] = plain_kind(ports, p, length[row] - tag, link_type[row]) if simple else NOT_PLAIN
            if plain[i - start] == PLAIN4:
                prefetch(&table.slots4[slot4(table, load32(p + 26))])
                prefetch(&table.slots4[slot4(table, load32(p + 30))])
            elif plain[i - start] == PLAIN6:
                prefetch(&table.slots6[slot6(table, load64(p + 22), load64(p + 30))])
                prefetch(&table.slots6[slot6(table, load64(p + 38), load64(p + 46))])
        for i in range(start, stop):
            row = todo[i]
            p = data + offset[row]
            kept[row] = length[row]
            tag = tags[i - start]
            if plain[i - start] == PLAIN4:
                verdict[row] = UNDERSTOOD if rewrite_plain4(rewrite, p, length[row], tag) else MISSING
            elif plain[i - start] == PLAIN6:
                verdict[row] = UNDERSTOOD if rewrite_plain6(rewrite, p, length[row], tag) else MISSING
            else:
                verdict[row] = rewrite_packet(rewrite, p, length[row], link_type[row], &kept[row])
            if verdict[row] == MISSING:
                todo[deferred] = row  # deferred <= i, so this overwrites nothing unread
                deferred += 1
        start = stop
    return deferred


cdef inline uint64_t load64(const uint8_t *p) noexcept nogil:
    return (<uint64_t> load32(p) << 32) | load32(p + 4)


cdef inline void change_ends(Rewrite *rewrite, uint8_t *packet, uint32_t tag, uint32_t n, uint32_t l4) noexcept nogil:
    """Rewrite what all plain packets have in common: hardware addresses and payload."""
    cdef const uint8_t *p = packet + tag
    if rewrite.mac == KEEP:
        rewrite.counts[LEFT_MAC] += 2
    else:
        rewrite.rewriting = True
        change_mac(rewrite, packet, 6, 6)
        change_mac(rewrite, packet + 6, 6, 6)
    if n > tag + l4 + (8 if p[20 if l4 == 54 else 23] == 17 else 4 * (p[l4 + 12] >> 4)):
        rewrite.counts[LEFT_PAYLOAD] += 1


cdef inline void adjust_plain(uint8_t *p, uint32_t l4, uint8_t protocol, uint16_t change) noexcept nogil:
    if protocol == 6:
        store16(p + l4 + 16, adjusted(load16(p + l4 + 16), change))
    else:
        store16(p + l4 + 6, adjusted_udp(load16(p + l4 + 6), change))


cdef inline bint rewrite_plain4(Rewrite *rewrite, uint8_t *packet, uint32_t n, uint32_t tag) noexcept nogil:
    """False: an address is missing, and nothing was changed. p: the packet moved by the tag, so offsets are those without it."""
    cdef uint8_t *p = packet + tag
    cdef uint32_t source = load32(p + 26)
    cdef uint32_t target = load32(p + 30)
    cdef uint32_t new_source, new_target
    cdef uint64_t delta
    cdef uint16_t change
    cdef bint has_source = find4(rewrite.table, source, &new_source)
    cdef bint has_target = find4(rewrite.table, target, &new_target)
    if not (has_source and has_target):
        if not has_source and rewrite.missing4_count < rewrite.missing_max:
            rewrite.missing4[rewrite.missing4_count] = source
            rewrite.missing4_count += 1
        if not has_target and rewrite.missing4_count < rewrite.missing_max:
            rewrite.missing4[rewrite.missing4_count] = target
            rewrite.missing4_count += 1
        return False
    store32(p + 26, new_source)
    store32(p + 30, new_target)
    delta = delta32(source, new_source) + delta32(target, new_target)
    change = fold(delta)
    store16(p + 24, adjusted(load16(p + 24), change))
    adjust_plain(p, 34, p[23], change)
    rewrite.counts[COUNT_IP4] += 2
    change_ends(rewrite, packet, tag, n, 34)
    return True


cdef inline bint rewrite_plain6(Rewrite *rewrite, uint8_t *packet, uint32_t n, uint32_t tag) noexcept nogil:
    """False: an address is missing, and nothing was changed. p: the packet moved by the tag, so offsets are those without it."""
    cdef uint8_t *p = packet + tag
    cdef uint64_t[2][2] new
    cdef uint64_t delta = 0
    cdef bint[2] has
    cdef int i, j
    cdef uint8_t *at
    for i in range(2):
        at = p + 22 + 16 * i
        has[i] = find6(rewrite.table, load64(at), load64(at + 8), &new[i][0], &new[i][1])
        if not has[i] and rewrite.missing6_count < rewrite.missing_max:
            rewrite.missing6[2 * rewrite.missing6_count] = load64(at)
            rewrite.missing6[2 * rewrite.missing6_count + 1] = load64(at + 8)
            rewrite.missing6_count += 1
    if not (has[0] and has[1]):
        return False
    for i in range(2):
        at = p + 22 + 16 * i
        for j in range(2):
            delta += delta32(load32(at + 8 * j), <uint32_t> (new[i][j] >> 32)) + delta32(load32(at + 8 * j + 4), <uint32_t> new[i][j])
            store32(at + 8 * j, <uint32_t> (new[i][j] >> 32))
            store32(at + 8 * j + 4, <uint32_t> new[i][j])
    adjust_plain(p, 54, p[20], fold(delta))
    rewrite.counts[COUNT_IP6] += 2
    change_ends(rewrite, packet, tag, n, 54)
    return True
