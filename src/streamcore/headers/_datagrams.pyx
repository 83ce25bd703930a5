"""Where packets may be divided so that the fragments of a datagram stay together: looks at the last packets before the end alone.

Fragments of one datagram follow each other closely, so a few hundred packets hold nearly all that are under way. What this finds is advice: nothing
depends on it but how many datagrams are divided. Fragments in tunnels count, too, on the standard ports.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from streamcore.core.packets cimport FLAG_FRAGMENT, Columns, Control
from streamcore.headers._walk cimport (
    LAYER_EXTENSION,
    LAYER_IP4,
    LAYER_IP6,
    Layer,
    UdpPorts,
    UdpTable,
    Walk,
    all_flags,
    be16,
    be32,
    is_tunnel_port,
    walk_headers,
)

from streamcore.headers._udp_tunnels import STANDARD_PORTS

cdef enum:
    ETHERNET = 1
    FRAGMENT_HEADER = 44
    DATAGRAMS_MAX = 2 * DATAGRAMS_WINDOW  # of the outermost header and of one in a tunnel; any others of a packet are not looked at

cdef struct Datagram:
    uint64_t key             # of its addresses and those around it, and its identification; strangers can make two alike, and gain nothing
    int64_t sizes            # of all its fragments together
    int64_t size             # of the datagram; -1: the last fragment is not there
    Py_ssize_t row           # of the fragment seen first, and of the one seen last, from the window's first row on
    Py_ssize_t row_last
    bint begins              # the fragment seen first is its first one

cdef struct Seen:
    int count
    Datagram[DATAGRAMS_MAX] datagrams

cdef UdpPorts _ports = STANDARD_PORTS
cdef const UdpTable *standard = &_ports.table  # lives as long as the module, which holds _ports


cdef Py_ssize_t between_datagrams(const Columns *columns, const Control *control, bint arranged, Py_ssize_t least, Py_ssize_t stop) noexcept nogil:
    cdef Py_ssize_t begin = max(least, stop - DATAGRAMS_WINDOW)
    cdef Py_ssize_t at
    cdef uint32_t row
    cdef const uint8_t *p
    cdef Walk walk
    cdef Seen seen
    seen.count = 0
    for at in range(begin, stop):
        row = columns.rows[at] if arranged else <uint32_t> at
        p = columns.data + columns.offset[row]
        if control.link_type[columns.interface[row]] == ETHERNET and is_whole(p, columns.captured_length[row]):
            continue
        walk_headers(standard, p, columns.captured_length[row], control.link_type[columns.interface[row]], &walk)
        if all_flags(&walk) & FLAG_FRAGMENT:
            see_packet(&seen, &walk, at - begin)
    return begin + best_place(&seen, stop - begin) if seen.count else stop


cdef inline bint is_whole(const uint8_t *p, uint32_t n) noexcept nogil:
    """Whether a frame is of TCP, or of UDP without a tunnel, and no fragment. This is nearly every one, and read without the walk."""
    cdef const uint8_t *upper
    cdef uint8_t protocol
    if n >= 38 and be32(p + 12) >> 8 == 0x080045:
        if be16(p + 20) & 0x3FFF:
            return False
        protocol, upper = p[23], p + 34
    elif n >= 58 and be16(p + 12) == 0x86DD:
        protocol, upper = p[20], p + 54
    else:
        return False
    return protocol == 6 or (protocol == 17 and not is_tunnel_port(standard, be16(upper)) and not is_tunnel_port(standard, be16(upper + 2)))


cdef void see_packet(Seen *seen, const Walk *walk, Py_ssize_t at) noexcept nogil:
    """Note the fragments that a packet is, or that are in it."""
    cdef const Layer *layer
    cdef const uint8_t *p
    cdef uint64_t key = 0
    cdef int64_t end = 0     # of the IP packet, from its header on, as that says
    cdef int64_t begin = 0   # of that header in the packet
    cdef int i
    for i in range(walk.layer_count):
        layer = &walk.layers[i]
        if layer.marks:  # quoted, or cut
            return
        p = walk.packet + layer.offset
        if layer.kind == LAYER_IP4:
            key = mixed(key, p + 12, 8)
            if be16(p + 6) & 0x3FFF:
                see(seen, mixed(mixed(key, p + 4, 2), p + 9, 1), 8 * (be16(p + 6) & 0x1FFF), <int64_t> be16(p + 2) - layer.length,
                    be16(p + 6) & 0x2000, at)
        elif layer.kind == LAYER_IP6:
            key = mixed(key, p + 8, 32)
            begin, end = layer.offset, 40 + be16(p + 4)
        elif layer.kind == LAYER_EXTENSION and layer.detail == FRAGMENT_HEADER and be16(p + 2) & 0xFFF9:
            see(seen, mixed(key, p + 4, 4), be16(p + 2) & 0xFFF8, begin + end - layer.offset - layer.length, p[3] & 1, at)


cdef void see(Seen *seen, uint64_t key, int64_t offset, int64_t size, bint more, Py_ssize_t at) noexcept nogil:
    """Note a fragment of `size` bytes. A search through at most DATAGRAMS_MAX entries, in at most as many packets."""
    cdef Datagram *datagram
    cdef int i = 0
    while i < seen.count and seen.datagrams[i].key != key:
        i += 1
    if i == DATAGRAMS_MAX:
        return
    datagram = &seen.datagrams[i]
    if i == seen.count:
        seen.count += 1
        datagram.key, datagram.sizes, datagram.size, datagram.begins = key, 0, -1, offset == 0
        datagram.row = at
    datagram.sizes += size
    datagram.row_last = at
    if not more:
        datagram.size = offset + size


cdef Py_ssize_t best_place(const Seen *seen, Py_ssize_t count) noexcept nogil:
    """The last of the places 0 to count that divide the fewest datagrams. One that lacks fragments began before the window if it is seen in the
    first half of that, and not from its first fragment on; any other goes on after the window."""
    cdef int[DATAGRAMS_WINDOW + 2] change  # in the number of divided datagrams, from one place to the next
    cdef const Datagram *datagram
    cdef Py_ssize_t place, best = 0
    cdef Py_ssize_t begin, end
    cdef int i, divided = 0, fewest = DATAGRAMS_MAX + 1
    memset(change, 0, sizeof(change))
    for i in range(seen.count):
        datagram = &seen.datagrams[i]
        begin, end = datagram.row + 1, datagram.row_last + 1
        if datagram.size < 0 or datagram.sizes < datagram.size:
            if not datagram.begins and datagram.row < count // 2:
                begin = 0
            else:
                end = count + 1
        change[begin] += 1
        change[end] -= 1
    for place in range(count + 1):
        divided += change[place]
        if divided <= fewest:
            best, fewest = place, divided
    return best


cdef inline uint64_t mixed(uint64_t key, const uint8_t *p, int n) noexcept nogil:
    """FNV-1a."""
    cdef int i
    for i in range(n):
        key = (key ^ p[i]) * <uint64_t> 0x100000001B3
    return key ^ (key >> 29)
