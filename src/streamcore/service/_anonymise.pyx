"""Rewrites a segment's packets in place from the table: a fast path for ordinary packets, the walk for all others.

A packet with an address that is not in the table stays unchanged and is deferred. The caller then fills the table and
calls again.
"""

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport prefetch
from streamcore.headers._walk cimport UdpPorts, udp_opens
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
    change_mac,
    fold,
    load16,
    load32,
    load64,
    store16,
    store64,
    sum_words,
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

cdef enum:
    ETHERNET = 1

cdef struct ClosedPorts:
    # UDP ports to or from which more than payload may go.
    uint8_t[8192] bits       # one for each port
    uint8_t[2048] folded     # a byte for all ports that are equal up to 2048: few are closed, so that this nearly always tells, from the first cache

cdef struct Plain:
    # A plain packet between the two looks at it.
    uint32_t source          # of IPv4
    uint32_t target
    uint8_t kind             # NOT_PLAIN: nothing else is set
    uint8_t tag              # bytes of it
    uint8_t protocol


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
    cdef ClosedPorts closed_ports     # by them

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
        memset(&self.closed_ports, 0, sizeof(self.closed_ports))
        for port in range(65536):
            if udp_opens(&ports.table, <uint16_t> port, <uint16_t> port) or is_dhcp(<uint16_t> port, <uint16_t> port):
                self.closed_ports.bits[port >> 3] |= 1 << (port & 7)
                self.closed_ports.folded[port & 2047] = 1

    def counts(self):
        """uint64[COUNTED]: what was replaced and left so far; COUNTED_NAMES names the entries."""
        return np.array([self.shared.counts[i] for i in range(COUNTED)], np.uint64)

    def rewrite(self, uint8_t[::1] data not None, const uint32_t[::1] offset not None, const uint32_t[::1] captured_length not None,
                const uint16_t[::1] link_type not None, uint32_t[::1] todo not None, uint8_t[::1] verdict not None,
                uint32_t[::1] kept not None, UdpPorts ports not None, bint again=False, const uint8_t[::1] source=None):
        """Rewrite the packets numbered in todo; return (deferred, missing4, missing6).

        todo: uint32, in and out: its first `deferred` are then those that wait for the missing addresses, uint32[m]
        and uint64[m, 2] with repeats; they are what comes `again`. The first time, later fragments wait, too: for all
        first ones to be seen. verdict, kept: out, of the packets that are done: 1 where all headers are understood, 2 + the walk's
        outcome where not; how many of its bytes may stay. ports: which tunnels over
        UDP are tried. source: as long as data; all of it is copied to data first, piece by piece, each just before its packets are
        rewritten. Raises ValueError for a packet outside data. The GIL is released. About 23 ns a packet of 64 bytes if all its addresses are
        known, with the copy (bench_service.py).
        """
        cdef Py_ssize_t count = offset.shape[0]
        cdef Py_ssize_t i
        cdef Py_ssize_t deferred = 0
        cdef uint64_t end = 0
        cdef bint ascending = True
        cdef Rewrite *rewrite = &self.shared
        cdef Pieces pieces
        cdef uint32_t[::1] missing4 = self.missing4
        cdef uint64_t[:, ::1] missing6 = self.missing6
        if captured_length.shape[0] != count or link_type.shape[0] != count or verdict.shape[0] != count or kept.shape[0] != count:
            raise ValueError(f"{count} offsets, {captured_length.shape[0]} lengths, {link_type.shape[0]} link types, {verdict.shape[0]} verdicts")
        if source is not None and source.shape[0] != data.shape[0]:
            raise ValueError(f"{source.shape[0]} bytes to be copied to {data.shape[0]}")
        for i in range(todo.shape[0]):
            if todo[i] >= count or <uint64_t> offset[todo[i]] + captured_length[todo[i]] > <uint64_t> data.shape[0]:
                raise ValueError(f"packet {todo[i]} is outside the data")
            ascending = ascending and offset[todo[i]] >= end
            end = <uint64_t> offset[todo[i]] + captured_length[todo[i]]
        pieces.data = &data[0] if data.shape[0] else NULL
        pieces.source = &source[0] if source is not None and source.shape[0] else NULL
        pieces.at = 0
        if not ascending:  # a piece that is copied later would overwrite what was rewritten
            copy_up_to(&pieces, data.shape[0])
        if todo.shape[0] == 0:
            copy_up_to(&pieces, data.shape[0])
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
            deferred = rewrite_all(rewrite, &self.closed_ports, &pieces, &offset[0], &captured_length[0], &link_type[0], &todo[0], todo.shape[0],
                                   &verdict[0], &kept[0])
            copy_up_to(&pieces, data.shape[0])
        return deferred, self.missing4[:rewrite.missing4_count], self.missing6[:rewrite.missing6_count]


cdef struct Pieces:
    # Bytes that are copied from source to data as their packets' turn comes; NULL: they are there.
    uint8_t *data
    const uint8_t *source
    size_t at


cdef inline void copy_up_to(Pieces *pieces, size_t stop) noexcept nogil:
    """stop: at most the length of both."""
    if pieces.source != NULL and stop > pieces.at:
        memcpy(pieces.data + pieces.at, pieces.source + pieces.at, stop - pieces.at)
        pieces.at = stop


cdef inline bint is_closed(const ClosedPorts *ports, uint32_t both) noexcept nogil:
    """both: as they stand in the packet, the source's first. In 32 bits: gcc keeps numbers of 16 bits on the stack and reads them back as 32,
    for which the processor waits."""
    cdef uint32_t source = both >> 16
    cdef uint32_t target = both & 0xFFFF
    if not ports.folded[source & 2047] | ports.folded[target & 2047]:
        return False
    return (ports.bits[source >> 3] >> (source & 7) | ports.bits[target >> 3] >> (target & 7)) & 1


cdef Py_ssize_t rewrite_all(Rewrite *rewrite, const ClosedPorts *ports, Pieces *pieces, const uint32_t *offset, const uint32_t *length,
                            const uint16_t *link_type, uint32_t *todo, Py_ssize_t count, uint8_t *verdict, uint32_t *kept) noexcept nogil:
    cdef Table table = rewrite.table[0]  # of our own: what is written into packets cannot change it, which the compiler sees
    cdef uint8_t *data = pieces.data
    cdef Plain[BATCH] block
    cdef Plain *plain
    cdef Py_ssize_t stop, i
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t deferred = 0
    cdef uint32_t row
    cdef bint simple = rewrite.payload == KEEP and not rewrite.names
    while start < count:
        stop = min(start + BATCH, count)
        copy_up_to(pieces, <size_t> offset[todo[stop - 1]] + length[todo[stop - 1]])
        for i in range(start, stop):
            row = todo[i]
            if i + BATCH < count:  # addresses stand on one line with the EtherType or the next
                prefetch((data if pieces.source == NULL else pieces.source) + offset[todo[i + BATCH]] + 26)
            plain = &block[i - start]
            plain.kind = NOT_PLAIN
            if simple and link_type[row] == ETHERNET:
                look_at(&table, ports, data + offset[row], length[row], plain)
        for i in range(start, stop):
            row = todo[i]
            plain = &block[i - start]
            kept[row] = length[row]
            if plain.kind == PLAIN4:
                verdict[row] = UNDERSTOOD if rewrite_plain4(rewrite, &table, data + offset[row], length[row], plain) else MISSING
            elif plain.kind == PLAIN6:
                verdict[row] = UNDERSTOOD if rewrite_plain6(rewrite, &table, data + offset[row], length[row], plain) else MISSING
            else:
                verdict[row] = rewrite_packet(rewrite, data + offset[row], length[row], link_type[row], &kept[row])
            if verdict[row] == MISSING:
                todo[deferred] = row  # deferred <= i, so this overwrites nothing unread
                deferred += 1
        start = stop
    return deferred


cdef inline void look_at(const Table *table, const ClosedPorts *ports, const uint8_t *p, uint32_t n, Plain *plain) noexcept nogil:
    """Whether a packet is plain, and if it is, ask memory for its addresses' slots. Every length is checked: headers that are cut or
    contradict themselves are the walk's."""
    cdef uint32_t end, source, target
    cdef uint8_t protocol
    plain.tag = 0
    if n >= 46 and load16(p + 12) == 0x8100:
        plain.tag = 4
        p += 4  # what stands in front of the EtherType is not looked at
        n -= 4
    if n < 42:
        return
    if load32(p + 12) >> 8 != 0x080045:
        if load16(p + 12) == 0x86DD:
            look_at6(table, ports, p, n, plain)
        return
    if load16(p + 20) & 0x3FFF:
        return
    end = min(14 + <uint32_t> load16(p + 16), n)
    if n - end >= 4 and load32(p + n - 4):  # perhaps the frame's check sequence
        return
    protocol = p[23]
    if protocol != 17:
        if protocol != 6 or not is_plain_tcp(p + 34, <int64_t> end - 34):
            return
    elif end < 42 or is_closed(ports, load32(p + 34)):
        return
    source, target = load32(p + 26), load32(p + 30)
    prefetch(&table.slots4[slot4(table, source)])
    prefetch(&table.slots4[slot4(table, target)])
    plain.source, plain.target = source, target
    plain.protocol = protocol
    plain.kind = PLAIN4


cdef void look_at6(const Table *table, const ClosedPorts *ports, const uint8_t *p, uint32_t n, Plain *plain) noexcept nogil:
    cdef uint32_t end
    if p[14] >> 4 != 6 or n < 62 or load16(p + 18) == 0:
        return
    end = min(54 + <uint32_t> load16(p + 18), n)
    if n - end >= 4 and load32(p + n - 4):
        return
    if p[20] != 17:
        if p[20] != 6 or not is_plain_tcp(p + 54, <int64_t> end - 54):
            return
    elif end < 62 or is_closed(ports, load32(p + 54)):
        return
    prefetch(&table.slots6[slot6(table, load64(p + 22), load64(p + 30))])
    prefetch(&table.slots6[slot6(table, load64(p + 38), load64(p + 46))])
    plain.protocol = p[20]
    plain.kind = PLAIN6


cdef inline bint is_plain_tcp(const uint8_t *p, int64_t n) noexcept nogil:
    """Without options, or with times alone."""
    return n >= 20 and (p[12] >> 4 == 5 or (p[12] >> 4 == 8 and n >= 32 and load32(p + 20) == 0x0101080A))


# Sums here are of few 16-bit words, and in ones' complement: equal where they differ by multiples of 0xFFFF.

cdef inline uint32_t words32(uint32_t value) noexcept nogil:
    return (value >> 16) + (value & 0xFFFF)


cdef inline uint16_t fold_few(uint32_t total) noexcept nogil:
    """As fold, of fewer than 65536 words."""
    total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t> ((total & 0xFFFF) + (total >> 16))


cdef inline uint16_t between(uint32_t before, uint32_t after, uint32_t words) noexcept nogil:
    """What a sum of so many words grows by: 0 to 0xFFFE."""
    cdef uint16_t change = fold_few(after + words * 0xFFFF - before)
    return 0 if change == 0xFFFF else change


cdef inline uint16_t moved(uint16_t checksum, uint16_t change) noexcept nogil:
    """As adjusted (RFC 1624, equation 3)."""
    cdef uint32_t total = <uint16_t> ~checksum + <uint32_t> change
    return <uint16_t> ~((total & 0xFFFF) + (total >> 16))


cdef inline void adjust_plain(uint8_t *p, uint8_t protocol, uint32_t covered, uint32_t captured, uint32_t before, uint16_t change) noexcept nogil:
    """The checksum of the transport header at p, of UDP or TCP. covered: bytes that it is about; captured: bytes there are; before: the sum of
    both addresses, change: what it grew by."""
    cdef uint8_t *at = p + (6 if protocol == 17 else 16)
    cdef uint16_t old = load16(at)
    cdef uint32_t pseudo = before + protocol
    cdef uint16_t new = moved(old, change)
    if old == 0 and (protocol == 17 or is_partial(p, covered, captured, pseudo + covered)):  # the sender made none, or left it to its network card
        return
    if protocol == 17 and new == 0:
        new = 0xFFFF
    if (old == fold_few(pseudo + covered) or old == fold_few(pseudo)) and is_partial(p, covered, captured, pseudo + covered):
        new = fold_few(<uint32_t> old + change)
    store16(at, new)


cdef bint is_partial(const uint8_t *p, uint32_t covered, uint32_t captured, uint32_t pseudo) noexcept nogil:
    """Of a checksum that is the sum of the pseudo-header: whether it covers nothing more, because the sender left the rest to its network
    card. By chance it may be the right one of the whole."""
    return covered > captured or fold(pseudo + sum_words(p, 0, covered)) != 0xFFFF


cdef inline void change_ends(Rewrite *rewrite, uint8_t *packet, bint has_payload) noexcept nogil:
    """What is the same for all plain packets: hardware addresses, and whether there is a payload."""
    if rewrite.mac == KEEP:
        rewrite.counts[LEFT_MAC] += 2
    else:
        rewrite.rewriting = True
        change_mac(rewrite, packet, 6, 6)
        change_mac(rewrite, packet + 6, 6, 6)
    rewrite.counts[LEFT_PAYLOAD] += has_payload


cdef inline uint32_t header_bytes(const uint8_t *p, uint8_t protocol) noexcept nogil:
    return 8 if protocol == 17 else 4 * <uint32_t> (p[12] >> 4)


cdef inline bint rewrite_plain4(Rewrite *rewrite, const Table *table, uint8_t *packet, uint32_t n, const Plain *plain) noexcept nogil:
    """False: an address is missing, and nothing was changed."""
    cdef uint8_t *p = packet + plain.tag  # as if there were no tag
    cdef uint32_t source = plain.source
    cdef uint32_t target = plain.target
    cdef uint8_t protocol = plain.protocol
    cdef uint32_t new_source, new_target, before, covered
    cdef uint16_t change
    cdef bint has_source = find4(table, source, &new_source)
    cdef bint has_target = find4(table, target, &new_target)
    if not (has_source and has_target):
        miss4(rewrite, has_source, source, has_target, target)
        return False
    before = words32(source) + words32(target)
    change = between(before, words32(new_source) + words32(new_target), 4)
    if load16(p + 24) or fold(sum_words(p + 14, 0, 20)) == 0xFFFF:  # a zero that is wrong was left to the network card
        store16(p + 24, moved(load16(p + 24), change))
    store64(p + 26, (<uint64_t> new_source << 32) | new_target)
    covered = load16(p + 38) if protocol == 17 else <uint32_t> load16(p + 16) - 20
    adjust_plain(p + 34, protocol, covered, n - plain.tag - 34, before, change)
    rewrite.counts[COUNT_IP4] += 2
    change_ends(rewrite, packet, n - plain.tag > 34 + header_bytes(p + 34, protocol))
    return True


cdef void miss4(Rewrite *rewrite, bint has_source, uint32_t source, bint has_target, uint32_t target) noexcept nogil:
    if not has_source and rewrite.missing4_count < rewrite.missing_max:
        rewrite.missing4[rewrite.missing4_count] = source
        rewrite.missing4_count += 1
    if not has_target and rewrite.missing4_count < rewrite.missing_max:
        rewrite.missing4[rewrite.missing4_count] = target
        rewrite.missing4_count += 1


cdef bint rewrite_plain6(Rewrite *rewrite, const Table *table, uint8_t *packet, uint32_t n, const Plain *plain) noexcept nogil:
    """False: an address is missing, and nothing was changed."""
    cdef uint8_t *p = packet + plain.tag  # as if there were no tag
    cdef uint64_t[2][2] new
    cdef uint32_t before = 0
    cdef uint32_t after = 0
    cdef uint32_t covered
    cdef uint16_t change
    cdef bint[2] has
    cdef int i, j
    cdef uint8_t *at
    for i in range(2):
        at = p + 22 + 16 * i
        has[i] = find6(table, load64(at), load64(at + 8), &new[i][0], &new[i][1])
        if not has[i] and rewrite.missing6_count < rewrite.missing_max:
            rewrite.missing6[2 * rewrite.missing6_count] = load64(at)
            rewrite.missing6[2 * rewrite.missing6_count + 1] = load64(at + 8)
            rewrite.missing6_count += 1
    if not (has[0] and has[1]):
        return False
    for i in range(2):
        at = p + 22 + 16 * i
        for j in range(2):
            before += words32(load32(at + 8 * j)) + words32(load32(at + 8 * j + 4))
            after += words32(<uint32_t> (new[i][j] >> 32)) + words32(<uint32_t> new[i][j])
            store64(at + 8 * j, new[i][j])
    change = between(before, after, 16)
    covered = load16(p + 58) if plain.protocol == 17 else load16(p + 18)
    adjust_plain(p + 54, plain.protocol, covered, n - plain.tag - 54, before, change)
    rewrite.counts[COUNT_IP6] += 2
    change_ends(rewrite, packet, n - plain.tag > 54 + header_bytes(p + 54, plain.protocol))
    return True
