"""The flow table: which flow each packet belongs to, and what each flow amounts to.

A flow is what _key.pxd says: both directions of addresses, ports and protocol, and the VLAN ids, of the outermost header or of what is in a
tunnel; keys are compared whole, not by hash. It ends by time (idle_ms, active_ms) and, with closed_ms, as TCP ends it; _flow_rows.pxd has what is
kept of it, _flow_state.pxd what TCP makes of it.
Bounded: at most flows_max flows are kept. When one more comes, the one idle for the longest among its neighbours in the index gives way.
What ended is handed out by `ended`: a sweep over the records, a few at each block of packets, finds flows that get no more packets.

The table takes packets in blocks of BLOCK, in three passes, so that memory arrives while it works on other packets: compute key and hash and
prefetch the index entry; prefetch the record that the index proposes; compare the whole key and count. bench/bench_parse.py measures it.
"""

import secrets

import numpy as np

from streamcore.headers import STANDARD_PORTS
from streamcore.parse.flow_rows import FLOW_DTYPE, flow_dtype

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from streamcore.core.packets cimport Columns, Control, PacketBatch, prefetch, prefetch_write
from streamcore.core.tables cimport fold
from streamcore.headers._walk cimport UdpPorts, UdpTable, Walk, walk_headers
from streamcore.parse._flow_block cimport (
    BLOCK,
    NO_RECORD,
    WITHIN_NOTHING,
    WITHIN_TUNNEL,
    WITHIN_UNSEEN,
    Block,
    same,
    take_header,
    take_upper,
    widen,
)
from streamcore.parse._flow_count cimport count_rare, count_sums, is_another, keep_early, note
from streamcore.parse._flow_index cimport Entry, Index, entry_near, entry_of, grow_index, grown_table, insert, proposed, remove
from streamcore.parse._flow_rows cimport (
    ENDED_ACTIVE,
    ENDED_CLOSED,
    ENDED_EVICTED,
    ENDED_IDLE,
    ENDED_NOT,
    ENDED_REUSED,
    FIRST_PACKETS_MAX,
    Early,
    FlowRow,
    Origin,
    Record,
    write_row,
)
from streamcore.parse._flow_state cimport CLOSED, FROM_HIGH, TCP_ACK, TCP_CONTROL, TCP_SYN
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
    likely,
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
    NEIGHBOURS = 16          # index entries looked at for the one to give way
    RECORDS_FIRST = 4096
    PREFETCH_BYTES = 512
    ETHERNET = 1
    SWEPT = 8                # records looked at after a block, and
    SWEPT_FOR_NEW = 2        # as many more for each flow that began in it: so at most about half of the records are of flows that ended

cdef uint64_t WIDE = <uint64_t> 1 << 63  # in Record.first of a key that does not fit two words; a narrow key's top byte is 4

cdef int64_t LATEST = 0x7FFFFFFFFFFFFFFF


cdef class FlowTable:
    """FlowTable(flows_max, seed, idle_ms, …): numbers flows from 0 and keeps their sums.

    flows_max: flows kept at a time, 1 to 2**26; the table grows up to it, some 300 bytes a flow. seed: of the table of fragments, None: random;
    the hash of flows always has a random one, so nobody can make flows collide. All times are of the capture. idle_ms: after which a flow without a packet
    ends; active_ms: after which one with packets ends, and its next packet begins a new one; closed_ms: as idle_ms, for TCP that was closed, and with
    it a SYN of a new connection begins a new flow; each 0: never. first_packets: of each flow, whose lengths and gaps are kept, at most
    FIRST_PACKETS_MAX. fragments_max, ports: as Parser's. by: BY_* of _key.pxd. One thread at a time.
    """

    cdef Seed seed
    cdef Fragments fragments
    cdef UdpPorts ports
    cdef bint deep           # a flow is not told by its outermost header alone
    cdef Index index
    cdef Record *records
    cdef Origin *origins     # of each record
    cdef Around *arounds     # of each record, as its first packet was; NULL: there was no tunnel yet
    cdef Early *earlies      # of each record; NULL: none are kept
    cdef readonly uint32_t count
    cdef uint32_t room       # records
    cdef uint32_t flows_max
    cdef uint64_t idle_ns    # 0: never, likewise the next two
    cdef uint64_t active_ns
    cdef uint64_t closed_ns
    cdef uint64_t look_ns    # a gap that is longer may end a flow
    cdef int unit_shift      # of Record.begun
    cdef uint8_t units_max   # an age in units from which active_ns may have passed; without active_ns, 255: every unit is of 2**62 ns
    cdef readonly uint32_t first_packets
    cdef uint64_t next_id
    cdef int64_t clock_ns    # the time of the last packet that has one
    cdef uint32_t since_sweep  # packets
    cdef int64_t low_ns      # the time of the first one
    cdef uint64_t swept_id   # next_id at the last sweep
    cdef uint32_t sweep_at   # the next record to be looked at
    cdef int64_t sweep_due_ns
    cdef uint8_t *gone       # rows that `ended` has not handed out yet
    cdef Py_ssize_t gone_count
    cdef Py_ssize_t gone_room
    cdef readonly object dtype  # of rows
    cdef Py_ssize_t row_bytes
    cdef readonly uint64_t evicted
    cdef bint failed         # no memory

    def __init__(self, Py_ssize_t flows_max, seed=None, int64_t idle_ms=0, *, int64_t active_ms=0, int64_t closed_ms=0, int first_packets=0,
                 Py_ssize_t fragments_max=1 << 16, UdpPorts ports=STANDARD_PORTS, int by=BY_OUTER):
        if not 1 <= flows_max <= 1 << 26 or not 0 <= min(idle_ms, active_ms, closed_ms) or not max(idle_ms, active_ms, closed_ms) <= 1 << 40:
            raise ValueError(f"a flow table of {flows_max} flows, idle after {idle_ms} ms, active for {active_ms} ms, closed for {closed_ms} ms")
        if not 0 <= first_packets <= FIRST_PACKETS_MAX:
            raise ValueError(f"a flow table with {first_packets} first packets: 0 to {FIRST_PACKETS_MAX}")
        cdef uint64_t number = secrets.randbits(64) if seed is None else seed % (1 << 64)
        fill_seed(&self.seed, secrets.randbits(64))
        self.fragments = Fragments(fragments_max, number, by)
        self.ports = ports
        self.deep = by != BY_OUTER
        self.flows_max = <uint32_t> flows_max
        self.idle_ns, self.active_ns, self.closed_ns = idle_ms * 1_000_000, active_ms * 1_000_000, closed_ms * 1_000_000
        # An age in units is known modulo 256. Between two packets at most half of active_ns passes unlooked at, so none is missed.
        self.unit_shift = 0 if self.active_ns else 62
        while self.active_ns >> self.unit_shift >= 64:
            self.unit_shift += 1
        self.units_max = <uint8_t> (self.active_ns >> self.unit_shift) if self.active_ns else 255
        self.look_ns = min(self.idle_ns or <uint64_t> LATEST, self.active_ns // 2 or <uint64_t> LATEST)
        self.first_packets = first_packets
        self.dtype = flow_dtype(first_packets)
        self.row_bytes = self.dtype.itemsize
        assert FLOW_DTYPE.itemsize == sizeof(FlowRow) and sizeof(Record) == 64 and sizeof(Origin) == 192
        if self.grow() != 0:
            raise MemoryError("no room for the flow table")

    def __dealloc__(self):
        free(self.index.entries)
        free(self.records)
        free(self.origins)
        free(self.arounds)
        free(self.earlies)
        free(self.gone)

    def find(self, PacketBatch batch not None):
        """uint64[count]: each packet's flow. Adds all packets of the batch to their flows."""
        cdef cnp.ndarray ids = np.empty(batch.count, np.uint64)
        self.take(batch, <uint64_t *> cnp.PyArray_DATA(ids))
        return ids

    def add(self, PacketBatch batch not None):
        """Adds all packets of the batch to their flows: find, in less time."""
        self.take(batch, NULL)

    cdef void take(self, PacketBatch batch, uint64_t *ids) except *:
        cdef Block block
        cdef Py_ssize_t start = 0, count
        with nogil:
            while start < batch.count and not self.failed:
                # Sweeps come after every BLOCK packets of the capture, so flows do not depend on how it is divided into batches.
                count = min(<Py_ssize_t> (BLOCK - self.since_sweep), batch.count - start)
                self.find_block(&batch.columns, batch.chunk.arena.control, start, count, &block, ids)
                self.low_ns = block.time_ns[0] if self.since_sweep == 0 else self.low_ns
                start += count
                self.since_sweep += <uint32_t> count
                if self.since_sweep == BLOCK:
                    self.since_sweep = 0
                    self.sweep(min(self.low_ns, block.time_ns[count - 1]))
        if self.failed:
            raise MemoryError("no room for more flows")

    def export(self):
        """Structured array (dtype): the flows in the table, in the order of their ids.

        The source is who sent the first packet, or to whom it went if that was a SYN-ACK; packets and bytes (on the wire, of IP, of what TCP, UDP and the
        like carry) count its direction, _back the other. Without IP, the addresses are MAC addresses in the first 6 bytes, or nothing. Whatever
        flows are told by, these columns are of the first packet's outermost header; tunnel_kind, tunnel_id of its innermost tunnel, the inner_
        ones of its innermost header where that is another.
        """
        return np.concatenate([np.zeros(0, self.dtype), *self.exported()])

    def exported(self, Py_ssize_t rows_max=1 << 11):
        """The rows of `export` in arrays of at most rows_max, so that they need not be in memory together, and stay in the cache."""
        cdef cnp.ndarray ids = np.empty(self.count, np.uint64)
        cdef uint64_t *id = <uint64_t *> cnp.PyArray_DATA(ids)
        cdef cnp.ndarray order, table
        cdef const int64_t *from_
        cdef uint8_t *into
        cdef uint32_t record
        cdef Py_ssize_t i, start
        for i in range(self.count):
            id[i] = self.origins[i].id
        order = np.argsort(ids, kind="stable").astype(np.int64)
        for start in range(0, self.count, rows_max):
            table = np.empty(min(rows_max, self.count - start), self.dtype)
            from_ = (<const int64_t *> cnp.PyArray_DATA(order)) + start
            into = <uint8_t *> cnp.PyArray_DATA(table)
            for i in range(len(table)):
                record = <uint32_t> from_[i]
                self.write(record, ENDED_CLOSED if self.records[record].marks & CLOSED else ENDED_NOT, into + i * self.row_bytes)
            yield table

    def ended(self):
        """Structured array (dtype): the flows that left the table since the last call; `ended` says why (ENDED)."""
        cdef cnp.ndarray table = np.empty(self.gone_count, self.dtype)
        if self.gone_count:
            memcpy(cnp.PyArray_DATA(table), self.gone, self.gone_count * self.row_bytes)
        self.gone_count = 0
        return table

    cdef void write(self, uint32_t record, uint8_t ended, uint8_t *into) noexcept nogil:
        cdef const Early *early
        cdef uint32_t count = self.first_packets
        write_row(self.records + record, self.origins + record, self.around(record), ended, <FlowRow *> into)
        if count:
            early = self.earlies + record
            memcpy(into + sizeof(FlowRow), &early.count, 4)
            memcpy(into + sizeof(FlowRow) + 4, early.length, 4 * count)
            memcpy(into + sizeof(FlowRow) + 4 + 4 * count, early.gap_ns, 8 * count)

    cdef void find_block(self, Columns *c, const Control *control, Py_ssize_t start, Py_ssize_t count, Block *block,
                         uint64_t *ids) noexcept nogil:
        """Rows start..start+count; count <= BLOCK."""
        cdef Py_ssize_t i
        for i in range(count):
            self.take_key(c, control, start + i, block, i)
            prefetch(entry_near(&self.index, block.hash[i]))
        for i in range(count):
            block.record[i] = proposed(&self.index, block.hash[i])
            if block.record[i] != NO_RECORD:
                prefetch_write(self.records + block.record[i])
        for i in range(count):
            # What was proposed may belong to another flow: by chance, or because a new flow has pushed it out since.
            if block.record[i] == NO_RECORD or not self.holds(block.record[i], block, i):
                block.record[i] = self.found_or_new(c, control, start + i, block, i)
                if self.failed:
                    return
            self.count_packet(c, control, start + i, block, i)
            if ids != NULL:
                ids[start + i] = self.origins[block.record[i]].id

    cdef inline void take_key(self, Columns *c, const Control *control, Py_ssize_t row, Block *block, Py_ssize_t i) noexcept nogil:
        cdef const uint8_t *p = c.data + c.offset[row]
        cdef const uint8_t *ip
        cdef const UdpTable *udp = &self.ports.table
        cdef uint32_t size = c.captured_length[row]
        cdef uint16_t link_type = control.link_type[c.interface[row]]
        cdef bint swapped
        prefetch(p + PREFETCH_BYTES)
        block.within[i] = WITHIN_UNSEEN
        block.time_ns[i] = c.timestamp_ns[row]
        if block.time_ns[i] == 0 and c.record[row] >= 4:
            block.time_ns[i] = self.clock_ns  # a simple packet block: it has no time
        self.clock_ns = block.time_ns[i]
        block.packet[i] = 1 | (<uint64_t> c.wire_length[row] << 32)
        if link_type == ETHERNET:
            if (ordinary4(p, size, &block.first[i], &block.second[i], &swapped)
                    and not (self.deep and opens_tunnel(udp, block.first[i], block.second[i]))):
                block.swapped[i] = swapped
                block.hash[i] = narrow_hash(&self.seed, block.first[i], block.second[i])
                ip = p + (18 if block.second[i] >> 48 else 14)
                block.l3[i] = <uint16_t> (ip - p)
                block.l4[i] = <uint16_t> (ip - p + 20)
                block.ttl[i] = ip[8]
                take_upper(block, i, ip[9], ip + 20, 20, network16(ip + 2) - 20, size - block.l4[i])
                return
            if ordinary6(p, size, &block.key[i]) and not (self.deep and opens_tunnel6(udp, &block.key[i])):
                ip = p + (18 if block.key[i].vlan_count else 14)
                block.l3[i] = <uint16_t> (ip - p)
                block.l4[i] = <uint16_t> (ip - p + 40)
                block.ttl[i] = ip[7]
                take_upper(block, i, ip[6], ip + 40, 40, network16(ip + 4), size - block.l4[i])
                self.take_wide(block, i)
                return
        self.take_walked(p, size, link_type, block, i)

    cdef void take_walked(self, const uint8_t *p, uint32_t size, uint16_t link_type, Block *block, Py_ssize_t i) noexcept nogil:
        """What take_key does, for any packet."""
        cdef Walk headers
        walk_headers(&self.ports.table, p, size, link_type, &headers)
        block.within[i] = self.fragments.key(p, link_type, block.time_ns[i], &headers, &block.key[i], &block.around[i])
        take_header(block, i, &headers.inner if self.deep and headers.depth > 1 else &headers.outer, p, size)
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

    cdef inline bint holds(self, uint32_t record, const Block *block, Py_ssize_t i) noexcept nogil:
        """Whether a record is that of packet i's flow."""
        cdef const Record *r = self.records + record
        if r.first != block.first[i] or r.second != block.second[i]:
            return False
        if not r.first & WIDE:
            return True
        return same(&self.origins[record].key, &block.key[i]) and (
            not block.key[i].version & WITH_OUTER or self.same_outside(record, block, i))

    cdef bint same_outside(self, uint32_t record, const Block *block, Py_ssize_t i) noexcept nogil:
        """Of a record and a packet with WITH_OUTER whose keys are the same: whether the addresses, protocols and VLAN ids outside are."""
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
        """Note what is around a new flow's first packet, which is walked for that where it may be in a tunnel."""
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
        """The record of packet i's flow; a new flow gets one, which may push another flow out."""
        cdef Index *index = &self.index
        cdef uint32_t at = <uint32_t> block.hash[i] & index.mask, tag = <uint32_t> (block.hash[i] >> 32), record
        cdef Record *r
        cdef Origin *origin
        while index.entries[at].record:
            if index.entries[at].tag == tag and self.holds(index.entries[at].record - 1, block, i):
                return index.entries[at].record - 1
            at = (at + 1) & index.mask
        if self.count == self.room and self.room < self.flows_max and self.grow() != 0:
            self.failed = True
            return 0
        if self.count < self.room:
            record = self.count
            self.count += 1
        else:
            record = self.evict(<uint32_t> block.hash[i])
        insert(index, block.hash[i], record)
        r = self.records + record
        origin = self.origins + record
        memset(r, 0, sizeof(Record))
        memset(origin, 0, sizeof(Origin))
        r.first = block.first[i]
        r.second = block.second[i]
        origin.hash = <uint32_t> block.hash[i]
        if r.first & WIDE:
            origin.key = block.key[i]
        else:
            widen(r.first, r.second, &origin.key)
        self.begin(record, c, control, row, block, i)
        return record

    cdef void begin(self, uint32_t number, Columns *c, const Control *control, Py_ssize_t row, Block *block, Py_ssize_t i) noexcept nogil:
        """A flow from nothing, of which packet i is the first one. Its record has the key already."""
        cdef Record *record = self.records + number
        cdef Origin *origin = self.origins + number
        cdef bint turned = block.tcp_flags[i] & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK  # the answer of whoever was asked
        cdef uint32_t hash = origin.hash
        cdef FlowKey key = origin.key
        memset(origin, 0, sizeof(Origin))
        memset(record.sums, 0, sizeof(record.sums))
        origin.hash = hash
        origin.key = key
        origin.key.swapped = block.swapped[i]
        origin.id = self.next_id
        self.next_id += 1
        origin.first_ns = record.last_ns = block.time_ns[i]
        origin.turned = turned
        origin.is_icmp = key.version >= 4 and (key.protocol == 1 or key.protocol == 58)
        record.begun = <uint8_t> (block.time_ns[i] >> self.unit_shift)
        record.marks = FROM_HIGH if block.swapped[i] != turned else 0
        record.tcp_flags[0] = record.tcp_flags[1] = record.ttl_max[0] = record.ttl_max[1] = 0
        record.ttl_min[0] = record.ttl_min[1] = 255  # so the first packet of a direction is outside
        if self.earlies != NULL:
            memset(self.earlies + number, 0, sizeof(Early))
        self.keep_around(number, c, control, row, block, i)
        if turned:
            note(origin, c'^')
            origin.key.swapped ^= 1
            if self.arounds != NULL:
                self.arounds[number].outer.swapped ^= 1
                self.arounds[number].inner.swapped ^= 1

    cdef inline void count_packet(self, Columns *c, const Control *control, Py_ssize_t row, Block *block, Py_ssize_t i) noexcept nogil:
        """One packet more, of the flow of block.record[i]: it may be the first one of a new flow with the same key."""
        cdef uint32_t number = block.record[i]
        cdef Record *record = self.records + number
        cdef Origin *origin = self.origins + number
        cdef int64_t time_ns = block.time_ns[i]
        cdef uint64_t gap_ns = <uint64_t> time_ns - <uint64_t> record.last_ns  # large where times run backwards
        cdef uint8_t way = block.swapped[i], flags = block.tcp_flags[i], ttl = block.ttl[i]
        if likely(gap_ns <= self.look_ns and <uint8_t> (<uint8_t> (time_ns >> self.unit_shift) - record.begun) < self.units_max
                  and not (flags & (TCP_CONTROL | ~record.tcp_flags[way])) | ((block.seen[i] << way) & ~record.marks) | (record.marks & CLOSED)
                  and ttl <= record.ttl_max[way] and ttl >= record.ttl_min[way] and self.earlies == NULL):
            record.last_ns = time_ns
            count_sums(record, origin, block, i)
        else:
            self.count_slowly(c, control, row, block, i)

    cdef void count_slowly(self, Columns *c, const Control *control, Py_ssize_t row, Block *block, Py_ssize_t i) noexcept nogil:
        """What count_packet does, for a packet that may end its flow, be the first of its kind in it, or be out of order."""
        cdef uint32_t number = block.record[i]
        cdef Record *record = self.records + number
        cdef Origin *origin = self.origins + number
        cdef int64_t time_ns = block.time_ns[i]
        self.end_if_over(c, control, row, block, i)
        if self.earlies != NULL:
            keep_early(record, self.earlies + number, self.first_packets, block, i)
        count_rare(record, origin, c.data + c.offset[row], c.captured_length[row], control.link_type[c.interface[row]] == ETHERNET,
                   self.closed_ns != 0, block, i)
        count_sums(record, origin, block, i)
        if time_ns > record.last_ns:
            record.last_ns = time_ns
        elif time_ns < origin.first_ns:
            origin.first_ns = time_ns

    cdef void end_if_over(self, Columns *c, const Control *control, Py_ssize_t row, Block *block, Py_ssize_t i) noexcept nogil:
        """End the flow of packet i and begin a new one with the packet, if it is not of this flow any more."""
        cdef uint32_t number = block.record[i]
        cdef const Record *record = self.records + number
        cdef const Origin *origin = self.origins + number
        cdef int64_t time_ns = block.time_ns[i]
        cdef uint8_t why = ENDED_NOT
        if self.is_stale(record, time_ns):
            why = ENDED_CLOSED if record.marks & CLOSED else ENDED_IDLE
        elif self.active_ns and time_ns > origin.first_ns and <uint64_t> time_ns - <uint64_t> origin.first_ns > self.active_ns:
            why = ENDED_CLOSED if record.marks & CLOSED else ENDED_ACTIVE
        elif self.closed_ns and block.tcp_flags[i] & (TCP_SYN | TCP_ACK) == TCP_SYN and is_another(record, origin, c.data + c.offset[row], block, i):
            why = ENDED_CLOSED if record.marks & CLOSED else ENDED_REUSED
        if why:
            self.retire(number, why)
            if not self.failed:
                self.begin(number, c, control, row, block, i)

    cdef inline bint is_stale(self, const Record *record, int64_t time_ns) noexcept nogil:
        """Whether a flow has had no packet for too long."""
        cdef uint64_t most = self.closed_ns if record.marks & CLOSED else self.idle_ns
        return most and time_ns > record.last_ns and <uint64_t> time_ns - <uint64_t> record.last_ns > most

    cdef void sweep(self, int64_t now_ns) noexcept nogil:
        """Take some flows out of the table that have had no packet for too long. now_ns: the lower time of the first and the last of BLOCK packets,
        so that one packet whose time is far ahead of the others' ends no flow but its own."""
        cdef uint64_t steps = SWEPT + SWEPT_FOR_NEW * (self.next_id - self.swept_id)
        cdef uint64_t every_ns = min(self.idle_ns or <uint64_t> -1, self.closed_ns or <uint64_t> -1)
        cdef uint32_t record
        self.swept_id = self.next_id
        if every_ns == <uint64_t> -1 or (self.sweep_at == 0 and now_ns < self.sweep_due_ns):
            return
        while steps and self.sweep_at < self.count:
            record = self.sweep_at
            if self.is_stale(self.records + record, now_ns):
                self.retire(record, ENDED_CLOSED if self.records[record].marks & CLOSED else ENDED_IDLE)
                if self.failed:
                    return
                self.drop(record)  # the last record stands here now
            else:
                self.sweep_at += 1
            steps -= 1
        if self.sweep_at >= self.count:
            self.sweep_at = 0
            if now_ns < LATEST - <int64_t> every_ns:
                self.sweep_due_ns = now_ns + <int64_t> (every_ns // 2)

    cdef void drop(self, uint32_t record) noexcept nogil:
        """Free a record: the last one takes its place."""
        cdef uint32_t last = self.count - 1
        remove(&self.index, self.origins, entry_of(&self.index, self.origins, record))
        if record != last:
            self.index.entries[entry_of(&self.index, self.origins, last)].record = record + 1
            self.records[record] = self.records[last]
            self.origins[record] = self.origins[last]
            if self.arounds != NULL:
                self.arounds[record] = self.arounds[last]
            if self.earlies != NULL:
                self.earlies[record] = self.earlies[last]
        self.count = last

    cdef uint32_t evict(self, uint32_t hash) noexcept nogil:
        """Take the flow that was idle for the longest among the NEIGHBOURS after `hash` out of the table; returns its record."""
        cdef const Entry *entries = self.index.entries
        cdef uint32_t at = hash & self.index.mask, seen = 0, victim = 0, record
        cdef int64_t oldest_ns = 0
        cdef bint any = False
        while seen < NEIGHBOURS or not any:
            if entries[at].record and (not any or self.records[entries[at].record - 1].last_ns < oldest_ns):
                victim = at
                oldest_ns = self.records[entries[at].record - 1].last_ns
                any = True
            at = (at + 1) & self.index.mask
            seen += 1
        record = entries[victim].record - 1
        self.retire(record, ENDED_EVICTED)
        self.evicted += 1
        remove(&self.index, self.origins, victim)
        return record

    cdef void retire(self, uint32_t record, uint8_t why) noexcept nogil:
        """Keep the row of a flow that leaves the table for `ended`."""
        cdef Py_ssize_t room = self.gone_room
        cdef uint8_t *grown
        if self.gone_count == room:
            room = room * 2 if room else 1024
            grown = <uint8_t *> realloc(self.gone, room * self.row_bytes)
            if grown == NULL:
                self.failed = True
                return
            self.gone = grown
            self.gone_room = room
        self.write(record, why, self.gone + self.gone_count * self.row_bytes)
        self.gone_count += 1

    cdef int grow(self) noexcept nogil:
        """Twice the room for flows, up to flows_max, and an index to match. Returns -1 where there is no memory."""
        cdef uint32_t room = min(self.flows_max, self.room * 2 if self.room else RECORDS_FIRST)
        cdef Record *records = <Record *> grown_table(self.records, self.count * sizeof(Record), room * sizeof(Record))
        cdef Origin *origins = <Origin *> grown_table(self.origins, self.count * sizeof(Origin), room * sizeof(Origin))
        cdef Around *arounds = NULL
        cdef Early *earlies = NULL
        if records != NULL:
            self.records = records
        if origins != NULL:
            self.origins = origins
        if self.arounds != NULL:
            arounds = <Around *> realloc(self.arounds, room * sizeof(Around))
            if arounds != NULL:
                self.arounds = arounds
        if self.first_packets:
            earlies = <Early *> realloc(self.earlies, room * sizeof(Early))
            if earlies != NULL:
                self.earlies = earlies
        if records == NULL or origins == NULL or (arounds == NULL and self.arounds != NULL) or (earlies == NULL and self.first_packets):
            return -1
        if grow_index(&self.index, origins, room) != 0:
            return -1
        self.room = room
        return 0
