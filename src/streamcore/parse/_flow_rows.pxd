# A flow as the table keeps it, and as a row of FLOW_DTYPE (_flows.pyx). All of it is inline. What TCP makes of a flow is in _flow_state.pxd.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from streamcore.parse._flow_state cimport CLOSED, FROM_HIGH, HISTORY_KEPT, state_of
from streamcore.parse._key cimport KEY_LINK_ONLY, Around, FlowKey, network16

cdef enum:
    SUMS = 4                 # of each direction: packets, bytes on the wire, of IP, of payload
    SUM_PACKETS = 0
    SUM_WIRE = 1
    SUM_IP = 2
    SUM_PAYLOAD = 3
    FIRST_PACKETS_MAX = 32

cdef enum:
    # Why a flow is no longer in the table (FlowRow.ended). ENDED in flow_rows.py has their names.
    ENDED_NOT = 0
    ENDED_IDLE = 1           # no packet for longer than idle_ms
    ENDED_EVICTED = 2        # it gave way
    ENDED_ACTIVE = 3         # its next packet came later than active_ms after its first one
    ENDED_CLOSED = 4         # FIN from both sides or RST; and a new SYN, or nothing for closed_ms
    ENDED_REUSED = 5         # a SYN that is none of this connection's

cdef struct Record:
    # One cache line, which every packet of the flow touches. [0]: from the key's lower endpoint to the higher one; [1]: back.
    uint64_t first           # narrow: the key. wide: WIDE and hashes of the key, which stands in Origin
    uint64_t second
    int64_t last_ns
    uint64_t[4] sums         # of one direction packets and, 32 bits up, wire bytes; IP bytes and, 32 bits up, payload bytes; then of the other. What goes
                             # beyond 2**31 is moved to Origin.sums, so that two sums are added as one word
    uint8_t[2] tcp_flags
    uint8_t[2] ttl_min
    uint8_t[2] ttl_max
    uint8_t marks            # of _flow_state.pxd
    uint8_t begun            # the time of the first packet in units of the table, modulo 256

cdef struct Origin:
    # Apart from Record, or it would be fetched with it: three cache lines. The last one is what first packets and TCP's control packets touch.
    int64_t first_ns
    FlowKey key              # 48 bytes
    uint64_t id
    uint64_t[8] sums         # SUM_* of one direction, then of the other: added to Record.sums
    uint32_t hash            # the lower half
    uint32_t[2] sequence     # of the first SYN of a direction
    uint8_t[2] tos           # of the first packet of a direction, likewise the next two
    uint8_t[2] icmp_type
    uint8_t[2] icmp_code
    uint8_t is_icmp
    uint8_t begun            # bit 0, 1: a packet of this direction was seen
    uint8_t turned           # the first packet seen was an answer
    uint8_t[12] macs         # of the first packet's Ethernet header: target, source
    uint8_t has_macs
    uint8_t history_length
    uint8_t[16] history      # HISTORY_KEPT letters at most
    uint8_t[13] unused

cdef struct Early:
    # Of each record, if first packets are kept: some of them.
    uint32_t count
    int32_t[32] length       # on the wire; negative: towards the source
    int64_t[32] gap_ns

cdef packed struct FlowRow:
    uint64_t id
    int64_t first_ns
    int64_t last_ns
    uint64_t[8] sums         # SUM_* there, then back
    uint8_t ip_version
    uint8_t protocol
    uint8_t ended
    uint8_t state
    uint8_t[16] history
    uint8_t tcp_flags
    uint8_t tcp_flags_back
    uint8_t tos
    uint8_t tos_back
    uint8_t ttl_min
    uint8_t ttl_max
    uint8_t ttl_min_back
    uint8_t ttl_max_back
    uint8_t icmp_type
    uint8_t icmp_code
    uint8_t icmp_type_back
    uint8_t icmp_code_back
    uint8_t has_macs
    uint8_t[6] source_mac
    uint8_t[6] target_mac
    uint8_t vlan_count
    uint16_t[4] vlan
    uint16_t ether_type
    uint8_t[16] source_address
    uint8_t[16] target_address
    uint16_t source_port
    uint16_t target_port
    uint8_t tunnel_kind
    uint32_t tunnel_id
    uint8_t inner_ip_version
    uint8_t inner_protocol
    uint8_t[16] inner_source_address
    uint8_t[16] inner_target_address
    uint16_t inner_source_port
    uint16_t inner_target_port


cdef inline uint64_t near_sum(const Record *record, int way, int kind) noexcept nogil:
    return <uint32_t> (record.sums[2 * way + kind // 2] >> (32 * (kind & 1)))


cdef inline void write_ends(const FlowKey *key, bint from_high, uint8_t *source_address, uint8_t *target_address,
                            uint16_t *source_port, uint16_t *target_port) noexcept nogil:
    """Addresses, and the ports of IP; the arrays and numbers are 0 before."""
    cdef const uint64_t *source = &key.high[0] if from_high else &key.low[0]
    cdef const uint64_t *target = &key.low[0] if from_high else &key.high[0]
    if key.version >= 4:
        source_port[0] = network16(<const uint8_t *> (&key.high_port if from_high else &key.low_port))
        target_port[0] = network16(<const uint8_t *> (&key.low_port if from_high else &key.high_port))
    if key.version == 4:
        source_address[10] = source_address[11] = target_address[10] = target_address[11] = 0xFF
        memcpy(source_address + 12, source, 4)
        memcpy(target_address + 12, target, 4)
    elif key.version == 6:
        memcpy(source_address, source, 16)
        memcpy(target_address, target, 16)
    elif key.version != KEY_LINK_ONLY:
        memcpy(source_address, source, 6)
        memcpy(target_address, target, 6)


cdef inline void write_row(const Record *record, const Origin *origin, const Around *around, uint8_t ended, FlowRow *row) noexcept nogil:
    """A flow as its source saw it: the sender of the first packet, or of the SYN that the first packet answers."""
    cdef bint within = around != NULL and around.tunnel_kind
    cdef const FlowKey *key = &around.outer if within else &origin.key
    cdef int way = 1 if record.marks & FROM_HIGH else 0
    cdef uint16_t source_port = 0, target_port = 0  # the row is packed: no pointer to its fields of two bytes
    cdef int i
    memset(row, 0, sizeof(FlowRow))
    row.id = origin.id
    row.first_ns = origin.first_ns
    row.last_ns = record.last_ns
    for i in range(SUMS):
        row.sums[i] = origin.sums[SUMS * way + i] + near_sum(record, way, i)
        row.sums[SUMS + i] = origin.sums[SUMS * (1 - way) + i] + near_sum(record, 1 - way, i)
    row.ip_version = key.version if key.version >= 4 else 0
    row.protocol = key.protocol
    row.ended = ended
    row.state = state_of(origin.key.protocol if origin.key.version >= 4 else 0, origin.history, origin.history_length)
    memcpy(row.history, origin.history, HISTORY_KEPT)
    row.tcp_flags, row.tcp_flags_back = record.tcp_flags[way], record.tcp_flags[1 - way]
    row.tos, row.tos_back = origin.tos[way], origin.tos[1 - way]
    if origin.begun & (1 << way):
        row.ttl_min, row.ttl_max = record.ttl_min[way], record.ttl_max[way]
    if origin.begun & (1 << (1 - way)):
        row.ttl_min_back, row.ttl_max_back = record.ttl_min[1 - way], record.ttl_max[1 - way]
    row.icmp_type, row.icmp_code = origin.icmp_type[way], origin.icmp_code[way]
    row.icmp_type_back, row.icmp_code_back = origin.icmp_type[1 - way], origin.icmp_code[1 - way]
    row.has_macs = origin.has_macs
    memcpy(row.source_mac, origin.macs + (0 if origin.turned else 6), 6)
    memcpy(row.target_mac, origin.macs + (6 if origin.turned else 0), 6)
    row.vlan_count = key.vlan_count
    for i in range(4):
        row.vlan[i] = <uint16_t> (key.vlan >> (16 * i))
    if key.version < 4:
        row.ether_type = <uint16_t> key.low[1] if key.version == KEY_LINK_ONLY else key.low_port
    write_ends(key, key.swapped if within else way, row.source_address, row.target_address, &source_port, &target_port)
    row.source_port, row.target_port = source_port, target_port
    if within:
        row.tunnel_kind = around.tunnel_kind
        row.tunnel_id = around.tunnel_id
        row.inner_ip_version = around.inner.version
        row.inner_protocol = around.inner.protocol
        if around.inner.version:
            write_ends(&around.inner, around.inner.swapped, row.inner_source_address, row.inner_target_address, &source_port, &target_port)
            row.inner_source_port, row.inner_target_port = source_port, target_port
