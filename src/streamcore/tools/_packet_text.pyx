"""Text of packets: one line for each packet of a batch, tab-separated, with PACKET_COLUMNS of tables.py. No object is made for any of them."""

from streamcore.core.packets import ALL_GROUPS, COLUMN_GROUPS

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from streamcore.core.packets cimport (
    FLAG_FRAGMENT,
    FLAG_MORE_FRAGMENTS,
    FLAG_PORTS,
    RECORD_SPB,
    RECORD_SPB_SWAPPED,
    VLAN_KEPT,
    Columns,
    Control,
    PacketBatch,
)
from streamcore.tools._write cimport write_hex_bytes, write_ip, write_number, write_padded, write_text

HEADER_GROUPS = ALL_GROUPS & ~COLUMN_GROUPS["flow"]

cdef enum:
    ROWS_MAX = 4096          # of which the text is made at a time
    # Of a line, at most: 24 tabs, 20 numbers of 20 digits, four addresses of 45 bytes, 8 digits of the checksum and a sign. And the label and the tunnel's name.
    LINE_MAX = 24 + 20 * 20 + 4 * 45 + 8 + 8
    POLYNOMIAL = 0xEDB88320  # of CRC-32 (ISO 3309), reflected

ROWS = ROWS_MAX

cdef uint32_t[8][256] crc_tables  # [n][byte]: what a byte does to the checksum n bytes later


cdef void fill_crc_tables() noexcept nogil:
    cdef uint32_t i, n, value
    for i in range(256):
        value = i
        for n in range(8):
            value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
        crc_tables[0][i] = value
    for n in range(1, 8):
        for i in range(256):
            value = crc_tables[n - 1][i]
            crc_tables[n][i] = (value >> 8) ^ crc_tables[0][value & 0xFF]


fill_crc_tables()


cdef uint32_t crc32(const uint8_t *p, uint32_t size) noexcept nogil:
    """CRC-32 as zlib's, eight bytes at a time."""
    cdef uint32_t value = 0xFFFFFFFF, low
    while size >= 8:
        low = value ^ (p[0] | <uint32_t> p[1] << 8 | <uint32_t> p[2] << 16 | <uint32_t> p[3] << 24)
        value = (crc_tables[7][low & 0xFF] ^ crc_tables[6][low >> 8 & 0xFF] ^ crc_tables[5][low >> 16 & 0xFF] ^ crc_tables[4][low >> 24]
                 ^ crc_tables[3][p[4]] ^ crc_tables[2][p[5]] ^ crc_tables[1][p[6]] ^ crc_tables[0][p[7]])
        p += 8
        size -= 8
    while size:
        value = (value >> 8) ^ crc_tables[0][(value ^ p[0]) & 0xFF]
        p += 1
        size -= 1
    return ~value


cdef class PacketText:
    """PacketText(label, tunnels): makes lines that begin with `label`. tunnels: the name of each TUNNEL_* in bytes, 256 of them."""

    cdef bytes label
    cdef list tunnels
    cdef const char *name[256]  # of a tunnel
    cdef Py_ssize_t name_length[256]
    cdef const char *head
    cdef Py_ssize_t head_length
    cdef uint8_t *text
    cdef Py_ssize_t line_max

    def __init__(self, bytes label not None, list tunnels not None):
        cdef Py_ssize_t i
        self.label, self.tunnels = label, list(tunnels)
        self.head, self.head_length = self.label, len(label)
        for i in range(256):
            self.name[i], self.name_length[i] = <bytes?> self.tunnels[i], len(self.tunnels[i])
        self.line_max = LINE_MAX + self.head_length + max(map(len, self.tunnels))
        free(self.text)
        self.text = <uint8_t *> malloc(ROWS_MAX * self.line_max)
        if self.text == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.text)

    def lines(self, PacketBatch batch not None, uint32_t start):
        """bytes: the lines of at most ROWS rows from `start`."""
        cdef uint8_t *at = self.text
        cdef Py_ssize_t row, stop = min(batch.count, <Py_ssize_t> start + ROWS_MAX)
        cdef uint64_t number = batch.first_number + 1
        cdef const Columns *c
        cdef const Control *control = batch.chunk.arena.control
        batch.prepare_columns(HEADER_GROUPS)
        c = &batch.columns
        with nogil:
            for row in range(start, stop):
                at = write_text(self.head, self.head_length, at)
                at[0] = c'\t'
                at = write_record(c, row, number + row, control.link_type[c.interface[row]], at + 1)
                at = write_headers(c, row, at)
                if c.tunnel_kind[row]:
                    at = write_text(self.name[c.tunnel_kind[row]], self.name_length[c.tunnel_kind[row]], at)
                    at[0] = c'\t'
                    at = write_number(c.tunnel_id[row], at + 1)
                else:
                    at[0] = c'\t'
                    at += 1
                at[0] = c'\n'
                at += 1
        return PyBytes_FromStringAndSize(<char *> self.text, at - self.text)


cdef inline uint8_t *tab(uint8_t *at) noexcept nogil:
    at[0] = c'\t'
    return at + 1


cdef uint8_t *write_record(const Columns *c, Py_ssize_t row, uint64_t number, uint16_t link_type, uint8_t *at) noexcept nogil:
    """n, ts, len, caplen, crc32, lt and vlan, each with a tab behind it."""
    cdef uint32_t i
    at = tab(write_number(number, at))
    if c.record[row] != RECORD_SPB and c.record[row] != RECORD_SPB_SWAPPED:
        at = write_time(c.timestamp_ns[row], at)
    at = tab(write_number(c.wire_length[row], tab(at)))
    at = tab(write_number(c.captured_length[row], at))
    at = tab(write_hex_bytes(crc32(c.data + c.offset[row], c.captured_length[row]), 4, at))
    at = tab(write_number(link_type, at))
    for i in range(min(c.vlan_count[row], VLAN_KEPT)):
        if i:
            at[0] = c','
            at += 1
        at = write_number(c.vlan[VLAN_KEPT * row + i], at)
    return tab(at)


cdef inline uint8_t *write_time(int64_t ns, uint8_t *at) noexcept nogil:
    """Epoch seconds with nine decimals."""
    cdef uint64_t size = <uint64_t> ns
    if ns < 0:
        at[0] = c'-'
        at += 1
        size = -<uint64_t> ns
    at = write_number(size // 1_000_000_000, at)
    at[0] = c'.'
    return write_padded(size % 1_000_000_000, 9, at + 1)


cdef uint8_t *write_headers(const Columns *c, Py_ssize_t row, uint8_t *at) noexcept nogil:
    """ipver to idport, each with a tab behind it."""
    cdef uint16_t flags = c.flags[row]
    cdef int i
    if not c.ip_version[row]:
        for i in range(8):
            at = tab(at)
        at[0] = c'0'  # depth
        at = tab(at + 1)
    else:
        at = tab(write_number(c.ip_version[row], at))
        at = tab(write_ip(c.source_address + 16 * row, c.ip_version[row], at))
        at = tab(write_ip(c.target_address + 16 * row, c.ip_version[row], at))
        at = tab(write_number(c.protocol[row], at))
        at = write_ports(flags & FLAG_PORTS, c.source_port[row], c.target_port[row], at)
        if flags & FLAG_FRAGMENT:
            at = write_number(c.fragment_offset[row], at)
            if flags & FLAG_MORE_FRAGMENTS:
                at[0] = c'+'
                at += 1
        at = tab(write_number(c.l3_offset[row], tab(at)))
        at = tab(write_number(c.depth[row], at))
    if not c.ip_version[row] or c.depth[row] < 2:
        for i in range(5):
            at = tab(at)
        return at
    at = tab(write_ip(c.inner_source_address + 16 * row, c.inner_ip_version[row], at))
    at = tab(write_ip(c.inner_target_address + 16 * row, c.inner_ip_version[row], at))
    at = tab(write_number(c.inner_protocol[row], at))
    return write_ports(c.inner_flags[row] & FLAG_PORTS, c.inner_source_port[row], c.inner_target_port[row], at)


cdef inline uint8_t *write_ports(bint there, uint16_t source, uint16_t target, uint8_t *at) noexcept nogil:
    """Both, each with a tab behind it; only the tabs if there are none."""
    if not there:
        return tab(tab(at))
    return tab(write_number(target, tab(write_number(source, at))))
