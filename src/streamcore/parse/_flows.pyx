"""The flow table: it assigns each packet to a flow, and keeps each flow's totals.

_key.pxd defines a flow: both directions of addresses, ports and protocol, and the VLAN ids, taken from the outermost header or from what is in
a tunnel. The table compares whole keys, not only their hashes.
Bounded: the table keeps at most flows_max flows. A new flow that finds it full evicts the longest idle flow among its neighbours in the index;
`ended` hands the evicted one out.

The table takes packets in blocks of BLOCK, in three passes, so that memory arrives while it works on other packets: compute key and hash and
prefetch the index entry; prefetch the record that the index proposes; compare the whole key and count. bench/bench_parse.py measures it.
"""

import secrets

import numpy as np

from streamcore.headers import STANDARD_PORTS

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport Columns, Control, PacketBatch, prefetch, prefetch_write
from streamcore.core.tables cimport fold, table_memory
from streamcore.headers._walk cimport LAYER_TCP, MARK_QUOTED, IpHeader, Layer, UdpPorts, UdpTable, Walk, walk_headers
from streamcore.parse._flow_rows cimport FlowRow, Origin, Record, write_row
from streamcore.parse._fragments cimport Fragments
from streamcore.parse._key cimport (
    BY_OUTER,
    IN_TUNNEL,
    WITH_OUTER,
    Around,
    FlowKey,
    Seed,
    crossed,
    deep_hash,
    fill_seed,
    is_narrow,
    narrow_hash,
    narrow_words,
    network16,
    opens_tunnel,
    opens_tunnel6,
    ordinary4,
    ordinary6,
    wide_hash,
)

cnp.import_array()

cdef enum:
    BLOCK = 64
    NEIGHBOURS = 16          # index entries searched for a flow to evict
    RECORDS_FIRST = 4096
    PREFETCH_BYTES = 512
    ETHERNET = 1
    TCP = 6

cdef enum:
    # Why a flow left the table (FlowRow.ended).
    ENDED_NOT = 0
    ENDED_IDLE = 1           # its next packet came more than idle_ms later, and began a new flow
    ENDED_EVICTED = 2        # another flow needed its place

cdef uint64_t WIDE = <uint64_t> 1 << 63  # set in Record.first if the key does not fit two words; in a narrow key the top byte is 4

cdef struct Entry:
    uint32_t tag             # the upper half of the hash; the lower half is the entry's preferred place
    uint32_t record          # its number + 1; 0: free

cdef struct Gone:
    Record record
    Origin origin
    Around around

FLOW_DTYPE = np.dtype([
    ("id", "u4"), ("ip_version", "u1"), ("protocol", "u1"), ("tcp_flags", "u1"), ("ended", "u1"), ("vlan_count", "u1"), ("vlan", "u2", 4),
    ("ether_type", "u2"), ("source_address", "u1", 16), ("target_address", "u1", 16), ("source_port", "u2"), ("target_port", "u2"),
    ("tunnel_kind", "u1"), ("tunnel_id", "u4"), ("inner_ip_version", "u1"), ("inner_protocol", "u1"), ("inner_source_address", "u1", 16),
    ("inner_target_address", "u1", 16), ("inner_source_port", "u2"), ("inner_target_port", "u2"),
    ("packets", "u8"), ("packets_back", "u8"), ("bytes", "u8"), ("bytes_back", "u8"), ("first_ns", "i8"), ("last_ns", "i8"),
])
ENDED = {ENDED_NOT: "", ENDED_IDLE: "idle", ENDED_EVICTED: "evicted"}

cdef enum:
    NO_RECORD = 0xFFFFFFFF

cdef enum:
    # Whether a packet of a block is in a tunnel.
    WITHIN_NOTHING = 0
    WITHIN_TUNNEL
    WITHIN_UNSEEN            # not walked: an ordinary packet

cdef struct Block:
    # BLOCK packets between two passes.
    uint64_t[BLOCK] first
    uint64_t[BLOCK] second
    uint64_t[BLOCK] hash
    uint32_t[BLOCK] record   # proposed by the index, or NO_RECORD
    uint8_t[BLOCK] swapped
    uint8_t[BLOCK] tcp_flags
    uint8_t[BLOCK] within    # WITHIN_*
    FlowKey[BLOCK] key       # set for wide keys
    Around[BLOCK] around     # set if within is WITHIN_TUNNEL


cdef class FlowTable:
    """FlowTable(flows_max, seed, idle_ms, …): numbers flows from 0 and keeps their totals.

    flows_max: how many flows are kept at once, 1 to 2**26; the table grows up to it, using about 150 bytes per flow. seed: of the fragment
    table, None: random. The flow hash always has a random seed, so nobody can make flows collide. idle_ms: after this much capture time without
    a packet, the next packet begins a new flow; 0: never. fragments_max, ports: as in Parser. by: BY_* of _key.pxd. For one thread at a time.
    """

    cdef Seed seed
    cdef Fragments fragments
    cdef UdpPorts ports
    cdef bint deep           # flows depend on more than the outermost header
    cdef Entry *index
    cdef Record *records
    cdef Origin *origins     # one per record
    cdef Around *arounds     # one per record, from its first packet; NULL: no packet was in a tunnel yet
    cdef uint32_t mask       # index entries - 1; the index has at least twice as many entries as there is room for records
    cdef readonly uint32_t count
    cdef uint32_t room       # for records
    cdef uint32_t flows_max
    cdef int64_t idle_ns
    cdef uint32_t next_id
    cdef Gone *gone          # flows that `ended` has yet to hand out
    cdef Py_ssize_t gone_count
    cdef Py_ssize_t gone_room
    cdef readonly uint64_t evicted
    cdef bint failed         # out of memory

    def __init__(self, Py_ssize_t flows_max, seed=None, int64_t idle_ms=0, *, Py_ssize_t fragments_max=1 << 16, UdpPorts ports=STANDARD_PORTS,
                 int by=BY_OUTER):
        if not 1 <= flows_max <= 1 << 26 or not 0 <= idle_ms <= 1 << 40:
            raise ValueError(f"a flow table cannot have {flows_max} flows and idle_ms {idle_ms}")
        cdef uint64_t number = secrets.randbits(64) if seed is None else seed % (1 << 64)
        fill_seed(&self.seed, secrets.randbits(64))
        self.fragments = Fragments(fragments_max, number, by)
        self.ports = ports
        self.deep = by != BY_OUTER
        self.flows_max = <uint32_t> flows_max
        self.idle_ns = idle_ms * 1_000_000
        if self.grow() != 0:
            raise MemoryError("not enough memory for the flow table")

    def __dealloc__(self):
        free(self.index)
        free(self.records)
        free(self.origins)
        free(self.arounds)
        free(self.gone)

    def find(self, PacketBatch batch not None):
        """uint32[count]: each packet's flow. Adds every packet of the batch to its flow."""
        cdef cnp.ndarray ids = np.empty(batch.count, np.uint32)
        cdef uint32_t *into = <uint32_t *> cnp.PyArray_DATA(ids)
        cdef Block block
        cdef Py_ssize_t start = 0, count
        with nogil:
            while start < batch.count:
                count = min(<Py_ssize_t> BLOCK, batch.count - start)
                self.find_block(&batch.columns, batch.chunk.arena.control, start, count, &block, into)
                start += count
        if self.failed:
            raise MemoryError("not enough memory for more flows")
        return ids

    def export(self):
        """Structured array (FLOW_DTYPE): the flows in the table, in the order of their ids.

        `source` is the sender of the first packet; `packets` and `bytes` (on the wire) count its direction, the columns in _back the other one.
        Without IP, the addresses are MAC addresses in the first 6 bytes, or zeros. Whichever headers the key comes from, these columns describe
        the first packet's outermost header; tunnel_kind and tunnel_id its innermost tunnel; the inner_ columns its innermost header, if that is a
        different one.
        """
        cdef cnp.ndarray table = empty_rows(self.count)
        cdef FlowRow *into = <FlowRow *> cnp.PyArray_DATA(table)
        cdef Py_ssize_t i
        for i in range(self.count):
            write_row(self.records + i, self.origins + i, self.around(<uint32_t> i), into + i)
        return np.sort(table, order="id")

    def ended(self):
        """Structured array (FLOW_DTYPE): the flows that left the table since the last call. `ended` says why (ENDED)."""
        cdef cnp.ndarray table = empty_rows(self.gone_count)
        cdef FlowRow *into = <FlowRow *> cnp.PyArray_DATA(table)
        cdef Py_ssize_t i
        for i in range(self.gone_count):
            write_row(&self.gone[i].record, &self.gone[i].origin, &self.gone[i].around, into + i)
        self.gone_count = 0
        return table

    cdef void find_block(self, Columns *c, const Control *control, Py_ssize_t start, Py_ssize_t count, Block *block,
                         uint32_t *ids) noexcept nogil:
        """Take rows start..start+count; count <= BLOCK."""
        cdef Py_ssize_t i
        for i in range(count):
            self.take_key(c, control, start + i, block, i)
            prefetch(self.index + (block.hash[i] & self.mask))
        for i in range(count):
            block.record[i] = self.proposed(block.hash[i])
            if block.record[i] != NO_RECORD:
                prefetch_write(self.records + block.record[i])
        for i in range(count):
            # The proposed record may belong to another flow, by chance or because a new flow has evicted the right one since.
            if block.record[i] == NO_RECORD or not self.holds(block.record[i], block, i):
                block.record[i] = self.found_or_new(c, control, start + i, block, i)
                if self.failed:
                    return
            self.add(block.record[i], c.timestamp_ns[start + i], c.wire_length[start + i], block.swapped[i], block.tcp_flags[i])
            ids[start + i] = self.records[block.record[i]].id

    cdef inline void take_key(self, Columns *c, const Control *control, Py_ssize_t row, Block *block, Py_ssize_t i) noexcept nogil:
        cdef const uint8_t *p = c.data + c.offset[row]
        cdef const uint8_t *ip
        cdef const UdpTable *udp = &self.ports.table
        cdef uint32_t size = c.captured_length[row]
        cdef uint16_t link_type = control.link_type[c.interface[row]]
        cdef bint swapped
        cdef Walk headers
        prefetch(p + PREFETCH_BYTES)
        block.tcp_flags[i] = 0
        block.within[i] = WITHIN_UNSEEN
        if link_type == ETHERNET:
            if (ordinary4(p, size, &block.first[i], &block.second[i], &swapped)
                    and not (self.deep and opens_tunnel(udp, block.first[i], block.second[i]))):
                block.swapped[i] = swapped
                block.hash[i] = narrow_hash(&self.seed, block.first[i], block.second[i])
                ip = p + (18 if block.second[i] >> 48 else 14)
                if ip[9] == TCP and network16(ip + 2) >= 34 and (ip - p) + 34 <= size:
                    block.tcp_flags[i] = ip[33]
                return
            if ordinary6(p, size, &block.key[i]) and not (self.deep and opens_tunnel6(udp, &block.key[i])):
                ip = p + (18 if block.key[i].vlan_count else 14)
                if ip[6] == TCP and network16(ip + 4) >= 14 and (ip - p) + 54 <= size:
                    block.tcp_flags[i] = ip[53]
                self.take_wide(block, i)
                return
        walk_headers(udp, p, size, link_type, &headers)
        block.within[i] = self.fragments.key(p, link_type, c.timestamp_ns[row], &headers, &block.key[i], &block.around[i])
        block.tcp_flags[i] = tcp_flags_of(&headers, &headers.inner if self.deep and headers.depth > 1 else &headers.outer)
        if is_narrow(&block.key[i]):
            narrow_words(&block.key[i], &block.first[i], &block.second[i])
            block.swapped[i] = block.key[i].swapped
            block.hash[i] = narrow_hash(&self.seed, block.first[i], block.second[i])
        else:
            self.take_wide(block, i)

    cdef inline void take_wide(self, Block *block, Py_ssize_t i) noexcept nogil:
        cdef const FlowKey *key = &block.key[i]
        cdef uint64_t value = deep_hash(&self.seed, key, &block.around[i]) if key.version & IN_TUNNEL else wide_hash(&self.seed, key)
        block.first[i] = value | WIDE
        block.second[i] = fold(value ^ self.seed.secret[6], self.seed.secret[7])
        block.hash[i] = value
        block.swapped[i] = block.key[i].swapped

    cdef inline uint32_t proposed(self, uint64_t hash) noexcept nogil:
        """The first record whose hash matches, or NO_RECORD. The search ends because the index is never full."""
        cdef uint32_t at = <uint32_t> hash & self.mask, tag = <uint32_t> (hash >> 32)
        while self.index[at].record:
            if self.index[at].tag == tag:
                return self.index[at].record - 1
            at = (at + 1) & self.mask
        return NO_RECORD

    cdef inline bint holds(self, uint32_t record, const Block *block, Py_ssize_t i) noexcept nogil:
        """Whether a record belongs to packet i's flow."""
        cdef const Record *r = self.records + record
        if r.first != block.first[i] or r.second != block.second[i]:
            return False
        if not r.first & WIDE:
            return True
        return same(&self.origins[record].key, &block.key[i]) and (
            not block.key[i].version & WITH_OUTER or self.same_outside(record, block, i))

    cdef bint same_outside(self, uint32_t record, const Block *block, Py_ssize_t i) noexcept nogil:
        """Whether a record and a packet with WITH_OUTER and equal keys also have equal addresses, protocols and VLAN ids outside the tunnel."""
        cdef const Around *here = self.arounds + record
        cdef const FlowKey *one = &here.outer
        cdef const FlowKey *other = &block.around[i].outer
        return (self.arounds != NULL and one.low[0] == other.low[0] and one.low[1] == other.low[1] and one.high[0] == other.high[0] and one.high[1] == other.high[1]
                and one.vlan == other.vlan and one.protocol == other.protocol and one.version == other.version
                and one.vlan_count == other.vlan_count
                and crossed(&self.origins[record].key, here) == crossed(&block.key[i], &block.around[i]))

    cdef const Around *around(self, uint32_t record) noexcept nogil:
        return NULL if self.arounds == NULL else self.arounds + record

    cdef void keep_around(self, uint32_t record, Columns *c, const Control *control, Py_ssize_t row, Block *block, Py_ssize_t i) noexcept nogil:
        """Record what is around a new flow's first packet. A packet that may be in a tunnel is walked for it."""
        cdef const uint8_t *p = c.data + c.offset[row]
        cdef const UdpTable *udp = &self.ports.table
        cdef uint16_t link_type = control.link_type[c.interface[row]]
        cdef FlowKey key
        cdef Walk headers
        if block.within[i] == WITHIN_UNSEEN:
            block.within[i] = WITHIN_NOTHING
            if opens_tunnel6(udp, &block.key[i]) if block.first[i] & WIDE else opens_tunnel(udp, block.first[i], block.second[i]):
                walk_headers(udp, p, c.captured_length[row], link_type, &headers)
                block.within[i] = self.fragments.key(p, link_type, c.timestamp_ns[row], &headers, &key, &block.around[i])
        if block.within[i] != WITHIN_TUNNEL:
            if self.arounds != NULL:
                self.arounds[record].tunnel_kind = 0
            return
        if self.arounds == NULL:
            self.arounds = <Around *> calloc(self.room, sizeof(Around))
            if self.arounds == NULL:
                self.failed = True
                return
        self.arounds[record] = block.around[i]

    cdef uint32_t found_or_new(self, Columns *c, const Control *control, Py_ssize_t row, Block *block, Py_ssize_t i) noexcept nogil:
        """The record of packet i's flow. A new flow gets one, and may evict another flow."""
        cdef uint32_t at = <uint32_t> block.hash[i] & self.mask, tag = <uint32_t> (block.hash[i] >> 32), record
        cdef Record *r
        cdef Origin *origin
        while self.index[at].record:
            if self.index[at].tag == tag and self.holds(self.index[at].record - 1, block, i):
                return self.index[at].record - 1
            at = (at + 1) & self.mask
        if self.count == self.room and self.room < self.flows_max and self.grow() != 0:
            self.failed = True
            return 0
        if self.count < self.room:
            record = self.count
            self.count += 1
        else:
            record = self.evict(<uint32_t> block.hash[i])
        at = <uint32_t> block.hash[i] & self.mask
        while self.index[at].record:
            at = (at + 1) & self.mask
        self.index[at].tag = tag
        self.index[at].record = record + 1
        r = self.records + record
        origin = self.origins + record
        memset(r, 0, sizeof(Record))
        memset(origin, 0, sizeof(Origin))
        r.first = block.first[i]
        r.second = block.second[i]
        r.from_high = block.swapped[i]
        origin.hash = <uint32_t> block.hash[i]
        if r.first & WIDE:
            origin.key = block.key[i]
        else:
            widen(r.first, r.second, &origin.key)
        self.begin(record, block.swapped[i], c.timestamp_ns[row])
        self.keep_around(record, c, control, row, block, i)
        return record

    cdef inline void begin(self, uint32_t number, uint8_t from_high, int64_t time_ns) noexcept nogil:
        """Start a flow's totals from zero."""
        cdef Record *record = self.records + number
        if self.arounds != NULL and record.from_high != from_high:  # the flow begins again, with a packet from the other side
            self.arounds[number].outer.swapped ^= 1
            self.arounds[number].inner.swapped ^= 1
            self.origins[number].key.swapped ^= 1
        record.packets[0] = record.packets[1] = record.byte_counts[0] = record.byte_counts[1] = 0
        self.origins[number].first_ns = record.last_ns = time_ns
        record.id = self.next_id
        record.tcp_flags = 0
        record.from_high = from_high
        self.next_id += 1

    cdef inline void add(self, uint32_t number, int64_t time_ns, uint32_t wire_length, uint8_t from_high,
                         uint8_t tcp_flags) noexcept nogil:
        """Count one more packet."""
        cdef Record *record = self.records + number
        if self.idle_ns and time_ns > record.last_ns and <uint64_t> time_ns - <uint64_t> record.last_ns > <uint64_t> self.idle_ns:
            self.retire(number, ENDED_IDLE)
            self.begin(number, from_high, time_ns)
        record.packets[from_high] += 1
        record.byte_counts[from_high] += wire_length
        record.tcp_flags |= tcp_flags
        if time_ns > record.last_ns:
            record.last_ns = time_ns
        elif time_ns < record.last_ns and time_ns < self.origins[number].first_ns:
            self.origins[number].first_ns = time_ns

    cdef uint32_t evict(self, uint32_t hash) noexcept nogil:
        """Evict the longest idle flow among the NEIGHBOURS after `hash`; returns its record."""
        cdef uint32_t at = hash & self.mask, seen = 0, victim = 0
        cdef int64_t oldest_ns = 0
        cdef bint any = False
        while seen < NEIGHBOURS or not any:
            if self.index[at].record and (not any or self.records[self.index[at].record - 1].last_ns < oldest_ns):
                victim = at
                oldest_ns = self.records[self.index[at].record - 1].last_ns
                any = True
            at = (at + 1) & self.mask
            seen += 1
        cdef uint32_t record = self.index[victim].record - 1
        self.retire(record, ENDED_EVICTED)
        self.evicted += 1
        self.remove(victim)
        return record

    cdef void remove(self, uint32_t hole) noexcept nogil:
        """Free an index entry. Later entries that were displaced by it move up (Knuth, volume 3, 6.4, algorithm R)."""
        cdef uint32_t at = hole
        while True:
            at = (at + 1) & self.mask
            if self.index[at].record == 0:
                break
            if ((at - self.origins[self.index[at].record - 1].hash) & self.mask) >= ((at - hole) & self.mask):
                self.index[hole] = self.index[at]
                hole = at
        self.index[hole].record = 0

    cdef void retire(self, uint32_t record, uint8_t why) noexcept nogil:
        """Keep a flow that leaves the table until `ended` hands it out."""
        cdef Py_ssize_t room = self.gone_room
        cdef Gone *grown
        if self.gone_count == room:
            room = room * 2 if room else 1024
            grown = <Gone *> realloc(self.gone, room * sizeof(Gone))
            if grown == NULL:
                self.failed = True
                return
            self.gone = grown
            self.gone_room = room
        self.gone[self.gone_count].record = self.records[record]
        self.gone[self.gone_count].record.ended = why
        self.gone[self.gone_count].origin = self.origins[record]
        self.gone[self.gone_count].around.tunnel_kind = 0
        if self.arounds != NULL:
            self.gone[self.gone_count].around = self.arounds[record]
        self.gone_count += 1

    cdef int grow(self) noexcept nogil:
        """Double the room for flows, up to flows_max, and grow the index to match. Returns -1 if memory runs out."""
        cdef uint32_t room = min(self.flows_max, self.room * 2 if self.room else RECORDS_FIRST)
        cdef uint32_t entries = 2
        cdef uint32_t i, at
        cdef Record *records = <Record *> table_memory(room * sizeof(Record))
        cdef Origin *origins = <Origin *> table_memory(room * sizeof(Origin))
        cdef Around *arounds = NULL
        cdef Entry *index
        cdef Entry *old = self.index
        while entries < 2 * room:
            entries *= 2
        index = <Entry *> table_memory(entries * sizeof(Entry))
        if self.arounds != NULL:
            arounds = <Around *> calloc(room, sizeof(Around))
        if records == NULL or origins == NULL or index == NULL or (arounds == NULL and self.arounds != NULL):
            free(records)
            free(origins)
            free(arounds)
            free(index)
            return -1
        memset(index, 0, entries * sizeof(Entry))
        if old != NULL:
            memcpy(records, self.records, self.count * sizeof(Record))
            memcpy(origins, self.origins, self.count * sizeof(Origin))
            free(self.records)
            free(self.origins)
        if arounds != NULL:
            memcpy(arounds, self.arounds, self.count * sizeof(Around))
            free(self.arounds)
            self.arounds = arounds
        self.records = records
        self.origins = origins
        if old != NULL:
            for i in range(self.mask + 1):
                if old[i].record:
                    at = origins[old[i].record - 1].hash & (entries - 1)
                    while index[at].record:
                        at = (at + 1) & (entries - 1)
                    index[at] = old[i]
        free(old)
        self.index = index
        self.mask = entries - 1
        self.room = room
        return 0


cdef inline uint8_t tcp_flags_of(const Walk *walk, const IpHeader *ip) noexcept nogil:
    """Of the TCP header that stands on this IP header of the packet; never of a quoted one."""
    cdef const Layer *layer
    cdef int i
    if ip.protocol == TCP:
        for i in range(walk.layer_count):
            layer = &walk.layers[i]
            if layer.kind == LAYER_TCP and layer.offset == ip.l4:
                return walk.packet[layer.offset + 13] if layer.length >= 14 and not layer.marks & MARK_QUOTED else 0
    return 0


cdef inline bint same(const FlowKey *one, const FlowKey *other) noexcept nogil:
    return (one.low[0] == other.low[0] and one.low[1] == other.low[1] and one.high[0] == other.high[0] and one.high[1] == other.high[1]
            and one.vlan == other.vlan and one.low_port == other.low_port and one.high_port == other.high_port
            and one.protocol == other.protocol and one.version == other.version and one.vlan_count == other.vlan_count)


cdef void widen(uint64_t first, uint64_t second, FlowKey *key) noexcept nogil:
    """The FlowKey from which narrow_words made these two words."""
    cdef uint64_t tag = second >> 48
    memset(key, 0, sizeof(FlowKey))
    key.low[0] = <uint32_t> (first >> 16)
    key.low_port = <uint16_t> first
    key.high[0] = <uint32_t> (second >> 16)
    key.high_port = <uint16_t> second
    key.protocol = <uint8_t> (first >> 48)
    key.version = 4
    if tag:
        key.vlan_count = 1
        key.vlan = tag & 0xFFF


cdef cnp.ndarray empty_rows(Py_ssize_t count):
    assert FLOW_DTYPE.itemsize == sizeof(FlowRow)
    return np.zeros(count, FLOW_DTYPE)
