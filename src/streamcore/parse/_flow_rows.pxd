# A flow as the table stores it, and as a row of FLOW_DTYPE (_flows.pyx). Everything is inline.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from streamcore.parse._key cimport KEY_LINK_ONLY, Around, FlowKey, network16

cdef struct Record:
    # One cache line, touched by every packet of the flow.
    uint64_t first           # narrow key: its first word. wide key: WIDE and hashes of the key, which is in Origin
    uint64_t second
    uint64_t[2] packets      # from the key's lower endpoint to the higher one, and the other way
    uint64_t[2] byte_counts
    int64_t last_ns
    uint32_t id
    uint8_t tcp_flags
    uint8_t from_high        # the higher endpoint sent the first packet
    uint8_t ended
    uint8_t unused

cdef struct Origin:
    # What the first packet leaves. It is separate from Record so that the cache does not fetch it with every packet.
    int64_t first_ns
    FlowKey key              # 48 bytes
    uint32_t hash            # the lower half
    uint32_t unused

cdef packed struct FlowRow:
    uint32_t id
    uint8_t ip_version
    uint8_t protocol
    uint8_t tcp_flags
    uint8_t ended
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
    uint64_t packets
    uint64_t packets_back
    uint64_t bytes
    uint64_t bytes_back
    int64_t first_ns
    int64_t last_ns


cdef inline void write_ends(const FlowKey *key, bint from_high, uint8_t *source_address, uint8_t *target_address,
                            uint16_t *source_port, uint16_t *target_port) noexcept nogil:
    """Addresses, and for IP the ports; the arrays and numbers must be 0 before."""
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


cdef inline void write_row(const Record *record, const Origin *origin, const Around *around, FlowRow *row) noexcept nogil:
    """Write a flow in the direction of its first packet."""
    cdef bint within = around != NULL and around.tunnel_kind
    cdef const FlowKey *key = &around.outer if within else &origin.key
    cdef uint8_t way = record.from_high
    cdef uint16_t source_port = 0, target_port = 0  # the row is packed, so its 2-byte fields cannot have pointers
    cdef int i
    row.id = record.id
    row.ip_version = key.version if key.version >= 4 else 0
    row.protocol = key.protocol
    row.tcp_flags = record.tcp_flags
    row.ended = record.ended
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
    row.packets = record.packets[way]
    row.packets_back = record.packets[1 - way]
    row.bytes = record.byte_counts[way]
    row.bytes_back = record.byte_counts[1 - way]
    row.first_ns = origin.first_ns
    row.last_ns = record.last_ns
