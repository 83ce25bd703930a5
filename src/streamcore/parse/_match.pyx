"""Which packets of a batch match which expressions: runs BPF programs over all rows, without the GIL.

A packet may be matched as it is, or by what is in its innermost tunnel. Later fragments may follow their first one: a bounded table
(_fragments.pyx) keeps its answer across batches. The machine is in _bpf.pyx.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from streamcore.core.packets cimport FLAG_FRAGMENT, Columns, PacketBatch
from streamcore.headers._walk cimport (
    LAYER_ETHERNET,
    LAYER_EXTENSION,
    LAYER_IP4,
    LAYER_IP6,
    MARK_QUOTED,
    IpHeader,
    Layer,
    UdpPorts,
    UdpTable,
    Walk,
    be16,
    is_tunnel_port,
    walk_headers,
)
from streamcore.parse._bpf cimport Instruction, Program, run
from streamcore.parse._fragments cimport FragmentEntry, Fragments, inner_context, outer_context

cdef enum:
    STREAMS_MAX = 256
    LINKS = 65536
    ETHERNET = 1
    SCRATCH_BYTES = 65536    # no layer reaches beyond it
    FRAGMENT_HEADER = 44

cdef struct Choice:
    # The programs of one expression.
    const Instruction **by_link  # LINKS of them; set for the batch's link types
    const Instruction *frame     # for what is in a tunnel: an Ethernet frame, an IP packet; NULL: tunnels are not looked into
    const Instruction *ip

cdef struct Within:
    # What is in a packet's innermost tunnel.
    const uint8_t *at            # NULL: it is not in a tunnel, or nothing in the tunnel is known
    uint32_t captured
    uint32_t wire
    bint framed


cdef class Matcher:
    """Matcher(seed, fragments_max, ports). seed: of the fragment table, which keeps at least fragments_max first fragments; with 0, each fragment
    is matched alone. ports: which tunnels over UDP are tried. For one thread at a time.

    A choice is (programs, within): link type -> Program, and None or the two programs for an Ethernet frame and an IP packet in a tunnel.
    A later fragment follows its first one if both were captured at most 60 seconds apart, and the first one came in an earlier batch or anywhere
    in the same batch. Otherwise it is matched alone, and counted in `orphans`. A first fragment of IPv6 is matched as it is and also without
    its fragment header, because libpcap does not look for ports behind one.
    """

    cdef Fragments fragments
    cdef UdpPorts ports
    cdef bint follows
    cdef Choice *choices     # of the last batch; the tables stay allocated, because allocating one takes longer than matching a batch
    cdef Py_ssize_t choices_count
    cdef uint8_t *scratch    # SCRATCH_BYTES; NULL: fragments are not followed
    cdef readonly uint64_t orphans

    def __init__(self, uint64_t seed, Py_ssize_t fragments_max, UdpPorts ports not None):
        self.fragments = Fragments(fragments_max, seed)
        self.ports = ports
        self.follows = fragments_max > 0
        if self.follows:
            self.scratch = <uint8_t *> malloc(SCRATCH_BYTES)
            if self.scratch == NULL:
                raise MemoryError("not enough memory for a packet")

    def __dealloc__(self):
        self.forget()
        free(self.scratch)

    cdef void forget(self) noexcept:
        cdef Py_ssize_t i
        for i in range(self.choices_count):
            free(<void *> self.choices[i].by_link)
        free(self.choices)
        self.choices = NULL
        self.choices_count = 0

    cdef int prepare(self, PacketBatch batch, list chosen) except -1:
        """Convert the programs to C, for the link types of this batch. The caller keeps `chosen`, which owns the instructions."""
        cdef Program program
        cdef Py_ssize_t i
        links = link_types_of(batch)
        if self.choices_count != len(chosen):
            self.forget()
            self.choices = <Choice *> calloc(len(chosen) + 1, sizeof(Choice))
            if self.choices == NULL:
                raise MemoryError
            self.choices_count = len(chosen)
        for i, (programs, within) in enumerate(chosen):
            if self.choices[i].by_link == NULL:
                self.choices[i].by_link = <const Instruction **> calloc(LINKS, sizeof(void *))
                if self.choices[i].by_link == NULL:
                    raise MemoryError
            for link_type in links:
                program = programs[link_type]
                self.choices[i].by_link[<uint16_t> link_type] = program.instructions
            self.choices[i].frame = self.choices[i].ip = NULL
            if within is not None:
                program = within[0]
                self.choices[i].frame = program.instructions
                program = within[1]
                self.choices[i].ip = program.instructions
        return 0

    def select(self, PacketBatch batch not None, tuple choice not None):
        """Keep the rows in use that the choice accepts; returns (packets, captured bytes) of the others.

        Its programs must cover every link type that link_types_of names; otherwise raises KeyError. A batch that loses no row stays as it is.
        """
        cdef Py_ssize_t kept
        cdef uint64_t dropped_bytes = 0
        cdef int failed = 0
        cdef uint8_t *labels = NULL
        cdef bint plain = not self.follows and choice[1] is None
        self.prepare(batch, [choice])
        try:
            if not plain:
                labels = <uint8_t *> malloc(batch.row_count + 1)
                if labels == NULL:
                    raise MemoryError
            with nogil:
                if not plain:
                    failed = self.label(batch, self.choices, 1, labels)
                kept = -1 if failed else keep_rows(batch, self.choices, labels, &dropped_bytes)
            if failed:
                raise MemoryError
        finally:
            free(labels)
        dropped = batch.row_count - kept
        if dropped:
            batch.row_count = kept
            batch.arranged = True
        return dropped, dropped_bytes

    def classify(self, PacketBatch batch not None, list chosen not None):
        """Sort the rows in use by stream, keeping their order within each; returns where each stream's rows end, list[int].

        chosen: one choice for each stream from 1 on. A packet belongs to the first stream whose choice accepts it, otherwise to stream 0. If all
        rows belong to one stream, they stay as they are. Raises KeyError as `select` does.
        """
        cdef Py_ssize_t stream, count = len(chosen) + 1
        cdef int failed
        cdef Py_ssize_t *stops
        cdef uint8_t *labels
        if count > STREAMS_MAX:
            raise ValueError(f"there cannot be {count} streams")
        self.prepare(batch, chosen)
        stops = <Py_ssize_t *> calloc(count + 1, sizeof(Py_ssize_t))
        labels = <uint8_t *> malloc(batch.row_count + 1)
        try:
            if stops == NULL or labels == NULL:
                raise MemoryError
            with nogil:
                failed = self.label(batch, self.choices, count - 1, labels) or sort_by_stream(batch, labels, count, stops)
            if failed:
                raise MemoryError
            return [stops[stream] for stream in range(count)]
        finally:
            free(labels)
            free(stops)

    cdef int label(self, PacketBatch batch, const Choice *choices, Py_ssize_t count, uint8_t *labels) noexcept nogil:
        """labels[i]: number of the first choice, from 1, that accepts the i-th row in use; 0: none does. Returns 1 if memory runs out."""
        cdef const uint16_t *links = batch.chunk.arena.control.link_type
        cdef Columns *c = &batch.columns
        cdef bint inner = False
        cdef Py_ssize_t i, waiting_count = 0
        cdef uint32_t row
        cdef uint8_t *waiting = NULL
        for i in range(count):
            inner = inner or choices[i].ip != NULL
        if self.follows:
            waiting = <uint8_t *> calloc(batch.row_count + 1, 1)
            if waiting == NULL:
                return 1
        for i in range(batch.row_count):
            row = c.rows[i] if batch.arranged else <uint32_t> i
            if (not self.follows and not inner) or self.is_plain(c.data + c.offset[row], c.captured_length[row], links[c.interface[row]], inner):
                labels[i] = first_of(choices, count, c.data + c.offset[row], c.captured_length[row], c.wire_length[row],
                                     links[c.interface[row]], NULL)
            elif not self.label_walked(c, row, links[c.interface[row]], choices, count, inner, &labels[i]):
                waiting[i] = 1
                waiting_count += 1
        for i in range(batch.row_count if waiting_count else 0):
            if waiting[i]:  # its first fragment may come later in this batch
                row = c.rows[i] if batch.arranged else <uint32_t> i
                self.orphans += not self.label_walked(c, row, links[c.interface[row]], choices, count, inner, &labels[i])
        free(waiting)
        return 0

    cdef inline bint is_plain(self, const uint8_t *p, uint32_t size, uint16_t link_type, bint inner) noexcept nogil:
        """Whether the packet is surely not a fragment and, if that matters, not in a tunnel. Nearly every packet is plain: 2 ns, a walk takes 20."""
        cdef const UdpTable *udp = &self.ports.table
        cdef const uint8_t *ip = p + 14
        cdef const uint8_t *upper
        cdef uint8_t protocol
        cdef uint16_t ether_type
        if link_type != ETHERNET or size < 38:  # IPv4 and the ports must be there
            return False
        ether_type = be16(p + 12)
        if ether_type == 0x8100:
            ether_type = be16(p + 16)
            ip = p + 18
            size -= 4
            if size < 38:
                return False
        if ether_type == 0x0800 and ip[0] == 0x45 and not be16(ip + 6) & 0x3FFF:
            protocol = ip[9]
            upper = ip + 20
        elif ether_type == 0x86DD and ip[0] >> 4 == 6 and size >= 58:
            protocol = ip[6]
            upper = ip + 40
        else:
            return False
        if protocol == 6:
            return True
        return protocol == 17 and not (inner and (is_tunnel_port(udp, be16(upper)) or is_tunnel_port(udp, be16(upper + 2))))

    cdef bint label_walked(self, const Columns *c, uint32_t row, uint16_t link_type, const Choice *choices, Py_ssize_t count, bint inner,
                           uint8_t *label) noexcept nogil:
        """Label any packet. False: it is a later fragment whose first one is not known, so it was matched alone."""
        cdef Walk walk
        cdef Within within
        cdef const IpHeader *ip
        cdef FragmentEntry *first
        cdef const uint8_t *p = c.data + c.offset[row]
        cdef uint32_t size = c.captured_length[row], wire_length = c.wire_length[row]
        cdef uint8_t other
        walk_headers(&self.ports.table, p, size, link_type, &walk)
        ip = fragmented(&walk, inner) if self.follows else NULL
        if ip != NULL:
            first = self.fragments.resolve(ip, outer_context(&walk) if ip == &walk.outer else inner_context(&walk), c.timestamp_ns[row])
            if ip.fragment_offset and first != NULL:
                label[0] = first.stream
                return True
        look_within(&walk, size, wire_length, &within)
        label[0] = first_of(choices, count, p, size, wire_length, link_type, &within)
        if ip == NULL:
            return True
        if ip.fragment_offset:
            return False
        if ip.version == 6 and size <= SCRATCH_BYTES and join(&walk, ip, size, self.scratch):
            walk_headers(&self.ports.table, self.scratch, size - 8, link_type, &walk)
            wire_length -= 8 if wire_length >= size else 0
            look_within(&walk, size - 8, wire_length, &within)
            other = first_of(choices, count, self.scratch, size - 8, wire_length, link_type, &within)
            label[0] = other if label[0] == 0 or 0 < other < label[0] else label[0]
        if first != NULL:
            first.stream = label[0]
        return True


cdef inline const IpHeader *fragmented(const Walk *walk, bint inner) noexcept nogil:
    """The IP header that marks the packet as a fragment: the outermost, or the innermost if tunnels are looked into; NULL: it does not."""
    if walk.outer.flags & FLAG_FRAGMENT:
        return &walk.outer
    if inner and walk.tunnel_kind and walk.depth > 1 and walk.inner.flags & FLAG_FRAGMENT:
        return &walk.inner
    return NULL


cdef bint join(const Walk *walk, const IpHeader *ip, uint32_t size, uint8_t *target) noexcept nogil:
    """Copy a packet without this IPv6 header's fragment header; target has room for `size` bytes. False: it is cut."""
    cdef const Layer *layer
    cdef uint32_t at, length
    cdef int i
    for i in range(1, walk.layer_count):
        layer = &walk.layers[i]
        if layer.kind == LAYER_EXTENSION and layer.detail == FRAGMENT_HEADER and layer.offset > ip.l3 and not layer.marks:
            # The header before it, which is the IPv6 header or another extension header, must name what follows.
            at = walk.layers[i - 1].offset + (6 if walk.layers[i - 1].kind == LAYER_IP6 else 0)
            length = be16(walk.packet + ip.l3 + 4)
            memcpy(target, walk.packet, layer.offset)
            memcpy(target + layer.offset, walk.packet + layer.offset + 8, size - layer.offset - 8)
            target[at] = walk.packet[layer.offset]
            if length >= 8:
                target[ip.l3 + 4], target[ip.l3 + 5] = <uint8_t> (length - 8 >> 8), <uint8_t> (length - 8)
            return True
    return False


cdef inline void look_within(const Walk *walk, uint32_t captured_length, uint32_t wire_length, Within *within) noexcept nogil:
    """The Ethernet frame or the IP packet in the innermost tunnel, whichever comes first."""
    cdef const Layer *layer
    cdef int i
    within.at = NULL
    if walk.tunnel_count == 0:
        return
    for i in range(walk.tunnels[walk.tunnel_count - 1].layer, walk.layer_count):
        layer = &walk.layers[i]
        if layer.marks & MARK_QUOTED:
            return
        if layer.kind == LAYER_ETHERNET or layer.kind == LAYER_IP4 or layer.kind == LAYER_IP6:
            within.at = walk.packet + layer.offset
            within.captured = within.wire = layer.end - layer.offset
            if layer.end == captured_length and wire_length > captured_length:
                within.wire += wire_length - captured_length
            within.framed = layer.kind == LAYER_ETHERNET
            return


cdef inline uint8_t first_of(const Choice *choices, Py_ssize_t count, const uint8_t *p, uint32_t captured, uint32_t wire, uint16_t link_type,
                             const Within *within) noexcept nogil:
    """The first choice, from 1, that accepts a packet; 0: none. within: NULL if the packet is not in a tunnel."""
    cdef const Choice *choice
    cdef uint32_t accepted
    cdef Py_ssize_t i
    for i in range(count):
        choice = &choices[i]
        if choice.ip != NULL and within != NULL and within.at != NULL:
            accepted = run(choice.frame if within.framed else choice.ip, within.at, within.captured, within.wire)
        else:
            accepted = run(choice.by_link[link_type], p, captured, wire)
        if accepted:
            return <uint8_t> (i + 1)
    return 0


cdef Py_ssize_t keep_rows(PacketBatch batch, const Choice *choice, const uint8_t *labels, uint64_t *dropped_bytes) noexcept nogil:
    """Write the accepted rows to columns.rows in order; each goes to or before the place it was read from. labels: NULL if not made."""
    cdef Columns *c = &batch.columns
    cdef const uint16_t *links = batch.chunk.arena.control.link_type
    cdef bint arranged = batch.arranged
    cdef Py_ssize_t i, kept = 0
    cdef uint32_t row
    cdef bint accepted
    for i in range(batch.row_count):
        row = c.rows[i] if arranged else <uint32_t> i
        if labels == NULL:
            accepted = run(choice.by_link[links[c.interface[row]]], c.data + c.offset[row], c.captured_length[row], c.wire_length[row]) != 0
        else:
            accepted = labels[i] != 0
        if accepted:
            c.rows[kept] = row
            kept += 1
        else:
            dropped_bytes[0] += c.captured_length[row]
    return kept


cdef int sort_by_stream(PacketBatch batch, const uint8_t *labels, Py_ssize_t count, Py_ssize_t *stops) noexcept nogil:
    """Stable counting sort: stops[i] becomes the end of stream i; stops must be 0 before. Returns 1 if memory runs out."""
    cdef Columns *c = &batch.columns
    cdef Py_ssize_t i, at, total = 0, rows = batch.row_count
    cdef uint32_t *before
    for i in range(rows):
        stops[labels[i]] += 1
    for i in range(count):
        if stops[i] == rows and rows:  # all belong to one stream
            for at in range(count):
                stops[at] = rows if at >= i else 0
            return 0
    before = <uint32_t *> malloc((rows + 1) * sizeof(uint32_t))
    if before == NULL:
        return 1
    for i in range(rows):
        before[i] = c.rows[i] if batch.arranged else <uint32_t> i
    for i in range(count):  # counts -> starts
        at = stops[i]
        stops[i] = total
        total += at
    for i in range(rows):  # each start moves to its stop while the rows are placed
        c.rows[stops[labels[i]]] = before[i]
        stops[labels[i]] += 1
    batch.arranged = rows > 0 or batch.arranged
    free(before)
    return 0


def link_types_of(PacketBatch batch not None):
    """dict[int, int]: the link types of the batch's rows in use, each with the first interface that has it."""
    cdef const uint16_t *links = batch.chunk.arena.control.link_type
    cdef Py_ssize_t i, row
    cdef int last = -1
    found = {}
    for i in range(batch.row_count):
        row = batch.columns.rows[i] if batch.arranged else i
        if batch.columns.interface[row] != last:
            last = batch.columns.interface[row]
            found.setdefault(links[last], last)
    return found
