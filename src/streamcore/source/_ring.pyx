"""A mapped TPACKET_V3 receive ring: its blocks -> records in a chunk and their base columns, with the GIL released.

Sockets are opened and bound in live.py. Layout of the ring: linux/if_packet.h, Documentation/networking/packet_mmap.rst.

Each packet is copied once, out of the ring. Rows that pointed into the ring instead would keep its blocks from the kernel for as long as
workers and sink need, so that a slow worker became a loss in the kernel, and every worker would have to map the socket. The copy makes it
a record as a capture file has them, which the sink then writes in runs.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from streamcore.packets cimport RECORD_PCAP, Chunk, Columns

cdef extern from *:
    """
    #include <stdint.h>
    #include <linux/if_packet.h>
    #include <arpa/inet.h>
    /* The kernel gives a block away with a release of its status, and takes it back when we do the same. */
    static inline int block_is_ours(const uint8_t *block)
    {
        return __atomic_load_n(&((const struct tpacket_block_desc *) block)->hdr.bh1.block_status, __ATOMIC_ACQUIRE)
               & TP_STATUS_USER;
    }
    static inline void give_back(uint8_t *block)
    {
        __atomic_store_n(&((struct tpacket_block_desc *) block)->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    }
    static inline const struct tpacket_hdr_v1 *block_head(const uint8_t *block)
    {
        return &((const struct tpacket_block_desc *) block)->hdr.bh1;
    }
    static inline const struct sockaddr_ll *link_address(const uint8_t *frame)
    {
        return (const struct sockaddr_ll *) (frame + TPACKET_ALIGN(sizeof(struct tpacket3_hdr)));
    }
    static inline void prefetch(const uint8_t *at) { __builtin_prefetch(at); }
    """
    cdef struct tpacket_hdr_v1:
        uint32_t num_pkts
        uint32_t offset_to_first_pkt
    cdef struct tpacket_hdr_variant1:
        uint32_t tp_vlan_tci
        uint16_t tp_vlan_tpid
    cdef struct tpacket3_hdr:
        uint32_t tp_next_offset
        uint32_t tp_sec
        uint32_t tp_nsec
        uint32_t tp_snaplen
        uint32_t tp_len
        uint32_t tp_status
        uint16_t tp_mac
        tpacket_hdr_variant1 hv1
    cdef struct sockaddr_ll:
        uint16_t sll_protocol  # in network order
        int sll_ifindex
        uint16_t sll_hatype
        uint8_t sll_pkttype
        uint8_t sll_halen
        uint8_t sll_addr[8]
    uint32_t TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID, TP_STATUS_CSUMNOTREADY
    bint block_is_ours(const uint8_t *block) noexcept nogil
    void give_back(uint8_t *block) noexcept nogil
    const tpacket_hdr_v1 *block_head(const uint8_t *block) noexcept nogil
    const sockaddr_ll *link_address(const uint8_t *frame) noexcept nogil
    void prefetch(const uint8_t *at) noexcept nogil
    uint16_t htons(uint16_t value) noexcept nogil
    uint32_t htonl(uint32_t value) noexcept nogil

cdef enum:
    RECORD_HEAD = 16
    COOKED_HEAD = 20       # LINKTYPE_LINUX_SLL2
    ADDRESSES = 12         # of an Ethernet frame: a VLAN tag stands behind them
    TAG = 4
    GROWTH = COOKED_HEAD + TAG
    TPID_CUSTOMER = 0x8100

LINK_COOKED = 276


cdef class Ring:
    """The ring of a packet socket for which PACKET_VERSION (3) and PACKET_RX_RING were set.

    Parameters: fd of the socket; block_bytes and block_count, as told to the kernel; interface: the number in the column `interface`;
    cooked: a SOCK_DGRAM socket, whose packets get a LINKTYPE_LINUX_SLL2 header; snap_length: bytes of a packet that are kept.
    Raises MemoryError where it cannot be mapped. What the kernel wrote into the ring is trusted.
    """

    cdef readonly uint64_t checksums_missing  # packets taken so far whose checksum was left to hardware
    cdef readonly Py_ssize_t block_count
    cdef uint8_t *base
    cdef Py_ssize_t block_bytes
    cdef Py_ssize_t current                   # the block that is walked, or the next one
    cdef const uint8_t *frame                 # the next packet in it
    cdef uint32_t left                        # packets from there on; 0: the block was not begun
    cdef uint16_t interface
    cdef bint cooked
    cdef uint32_t snap_length

    def __init__(self, int fd, Py_ssize_t block_bytes, Py_ssize_t block_count, uint16_t interface, bint cooked,
                 uint32_t snap_length):
        cdef void *base = mmap(NULL, block_bytes * block_count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if base == MAP_FAILED:
            raise MemoryError(f"cannot map a ring of {block_count} blocks of {block_bytes} bytes")
        self.base = <uint8_t *> base
        self.block_bytes = block_bytes
        self.block_count = block_count
        self.interface = interface
        self.cooked = cooked
        self.snap_length = snap_length

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.block_bytes * self.block_count)

    @property
    def ready_count(self):
        """Blocks that wait to be read."""
        cdef Py_ssize_t count = 0
        while count < self.block_count and block_is_ours(self.base + (self.current + count) % self.block_count * self.block_bytes):
            count += 1
        return count

    def walk(self, Chunk chunk not None, Py_ssize_t rows, Py_ssize_t used, Py_ssize_t rows_max):
        """Append what is ready to a chunk that holds `rows` packets in its first `used` bytes: (rows, used, whether it is full)."""
        cdef Py_ssize_t bytes_max = chunk.arena.data_bytes_max
        cdef bint full
        if not (0 <= rows <= rows_max <= chunk.arena.rows_max and 0 <= used <= bytes_max):
            raise ValueError(f"walk into {rows} rows and {used} bytes of a chunk")
        if bytes_max < <Py_ssize_t> self.snap_length + RECORD_HEAD + GROWTH:
            raise ValueError(f"a chunk of {bytes_max} bytes does not hold a packet of {self.snap_length}")
        with nogil:
            full = self.take(&chunk.columns, &rows, &used, rows_max, bytes_max)
        return rows, used, full

    def skip(self):
        """(packets, captured bytes) that were ready and are thrown away."""
        cdef uint64_t packets = 0, byte_count = 0
        cdef Py_ssize_t blocks = 0
        with nogil:
            while blocks <= self.block_count and self.begin_block():  # bounded: the kernel may be as fast as we are
                while self.left:
                    packets += 1
                    byte_count += self.kept(<const tpacket3_hdr *> self.frame)
                    self.step()
                blocks += 1
        return packets, byte_count

    # bench_live.py has what it costs beside a reader in C that copies nothing.
    cdef bint take(self, Columns *c, Py_ssize_t *rows, Py_ssize_t *used, Py_ssize_t rows_max,
                   Py_ssize_t bytes_max) noexcept nogil:
        """Whether the chunk is full. Invariant: row <= rows_max and at <= bytes_max; a packet is taken only where it fits whole."""
        cdef const tpacket3_hdr *head
        cdef Py_ssize_t row = rows[0], at = used[0], first = rows[0]
        cdef uint32_t captured
        cdef bint full = False
        while not full and self.begin_block():
            while self.left:
                head = <const tpacket3_hdr *> self.frame
                prefetch(self.frame + head.tp_next_offset)
                captured = head.tp_snaplen
                if row == rows_max or bytes_max - at < <Py_ssize_t> captured + RECORD_HEAD + GROWTH:
                    full = True
                    break
                at = self.put(c, row, at, head)
                row += 1
                self.step()
        rows[0] = row
        used[0] = at
        for row in range(first, row):
            c.interface[row] = self.interface
            c.record[row] = RECORD_PCAP
        return full

    cdef inline Py_ssize_t put(self, Columns *c, Py_ssize_t row, Py_ssize_t at, const tpacket3_hdr *head) noexcept nogil:
        """Write one record at `at`; returns where it ends."""
        cdef const uint8_t *packet = <const uint8_t *> head + head.tp_mac
        cdef uint8_t *record = c.data + at
        cdef uint8_t *to = record + RECORD_HEAD
        cdef uint32_t captured = head.tp_snaplen, wire = head.tp_len, kept
        cdef uint16_t[2] tag
        cdef uint32_t[4] words
        if self.cooked:
            to = self.put_cooked(to, head)
            memcpy(to, packet, captured)
            captured += <uint32_t> (to - record) - RECORD_HEAD
            wire += <uint32_t> (to - record) - RECORD_HEAD
        elif head.tp_status & TP_STATUS_VLAN_VALID and captured >= ADDRESSES:
            tag[0] = htons(tpid_of(head))
            tag[1] = htons(<uint16_t> head.hv1.tp_vlan_tci)
            memcpy(to, packet, ADDRESSES)
            memcpy(to + ADDRESSES, tag, TAG)
            memcpy(to + ADDRESSES + TAG, packet + ADDRESSES, captured - ADDRESSES)
            captured += TAG
            wire += TAG
        else:
            memcpy(to, packet, captured)
        kept = captured if captured < self.snap_length else self.snap_length
        words[0] = head.tp_sec
        words[1] = head.tp_nsec
        words[2] = kept
        words[3] = wire
        memcpy(record, words, RECORD_HEAD)  # records stand at any alignment
        c.offset[row] = <uint32_t> (at + RECORD_HEAD)
        c.captured_length[row] = kept
        c.wire_length[row] = wire
        c.timestamp_ns[row] = <int64_t> head.tp_sec * 1_000_000_000 + <int64_t> head.tp_nsec
        if head.tp_status & TP_STATUS_CSUMNOTREADY:
            self.checksums_missing += 1
        return at + RECORD_HEAD + <Py_ssize_t> kept

    cdef inline uint8_t *put_cooked(self, uint8_t *to, const tpacket3_hdr *head) noexcept nogil:
        """The SLL2 header, and behind it the tag that was taken out, which then stands before its own protocol number."""
        cdef const sockaddr_ll *link = link_address(<const uint8_t *> head)
        cdef uint16_t protocol = link.sll_protocol, reserved = 0, kind = htons(link.sll_hatype)
        cdef uint32_t index = htonl(<uint32_t> link.sll_ifindex)
        cdef uint16_t[2] tag
        if head.tp_status & TP_STATUS_VLAN_VALID:
            tag[0] = htons(<uint16_t> head.hv1.tp_vlan_tci)
            tag[1] = protocol
            protocol = htons(tpid_of(head))
            memcpy(to + COOKED_HEAD, tag, TAG)
        memcpy(to, &protocol, 2)
        memcpy(to + 2, &reserved, 2)
        memcpy(to + 4, &index, 4)
        memcpy(to + 8, &kind, 2)
        to[10] = link.sll_pkttype
        to[11] = link.sll_halen
        memcpy(to + 12, link.sll_addr, 8)
        return to + COOKED_HEAD + (TAG if head.tp_status & TP_STATUS_VLAN_VALID else 0)

    cdef inline uint32_t kept(self, const tpacket3_hdr *head) noexcept nogil:
        """Bytes that `put` would keep of a packet."""
        cdef uint32_t captured = head.tp_snaplen
        if head.tp_status & TP_STATUS_VLAN_VALID and (self.cooked or captured >= ADDRESSES):
            captured += TAG
        if self.cooked:
            captured += COOKED_HEAD
        return captured if captured < self.snap_length else self.snap_length

    cdef inline bint begin_block(self) noexcept nogil:
        """Whether there is a packet to take."""
        cdef uint8_t *block
        cdef Py_ssize_t tries
        if self.left:
            return True
        for tries in range(self.block_count):  # an empty block is possible, and given back
            block = self.base + self.current * self.block_bytes
            if not block_is_ours(block):
                return False
            self.left = block_head(block).num_pkts
            self.frame = block + block_head(block).offset_to_first_pkt
            if self.left:
                return True
            self.end_block()
        return False

    cdef inline void step(self) noexcept nogil:
        """On to the next packet; the last one's block goes back to the kernel."""
        self.frame += (<const tpacket3_hdr *> self.frame).tp_next_offset
        self.left -= 1
        if self.left == 0:
            self.end_block()

    cdef inline void end_block(self) noexcept nogil:
        give_back(self.base + self.current * self.block_bytes)
        self.current = self.current + 1 if self.current + 1 < self.block_count else 0


cdef inline uint16_t tpid_of(const tpacket3_hdr *head) noexcept nogil:
    return head.hv1.tp_vlan_tpid if head.tp_status & TP_STATUS_VLAN_TPID_VALID else <uint16_t> TPID_CUSTOMER
