"""Mapped TPACKET_V3 receive rings: their blocks -> packets in place and their base columns, with the GIL released.

_port.py opens and binds the sockets. Layout of a ring: linux/if_packet.h, Documentation/networking/packet_mmap.rst.

Packets are not copied here. Only a VLAN tag that the kernel removed, or a cooked header, is written before its packet,
where the kernel leaves room. A batch borrows the blocks. They go back to the kernel when its packets have been copied
to a chunk, or when it is dropped.

The kernel hands a block over when it is full or its time is up. A ring that peeks also takes packets of the block that
the kernel still fills, so that a block's time can be long: then the ring holds as many bytes as it has, however slowly
they come. Each packet's header tells that the packet is whole (`packet_is_whole`).
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset
from posix.mman cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap,
)

from streamcore.core.packets cimport NEEDS_CHECKSUM, RECORD_BARE, Chunk, Columns, Offload, prefetch
from streamcore.offloads._cut cimport segments_at_most, segments_room

cdef extern from *:
    """
    #include <stdint.h>
    #include <linux/if_packet.h>
    #include <arpa/inet.h>
    #include <poll.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <time.h>
    /* The kernel hands a block over with a release store of its status, and so do we. */
    static inline int block_is_ours(const uint8_t *block)
    {
        return __atomic_load_n(&((const struct tpacket_block_desc *) block)->hdr.bh1.block_status, __ATOMIC_ACQUIRE)
               & TP_STATUS_USER;
    }
    static inline void give_back(uint8_t *block)
    {
        __atomic_store_n(&((struct tpacket_block_desc *) block)->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    }
    /* Whether the kernel has written all of a packet of a block that it still fills. It writes the header's fields after
       the packet's bytes, and the memory held zeros before (`release`), so a field that is not zero is written. Processors
       of this kind make stores visible in their order; on others no ring may peek. A header with a field that is truly
       zero, as one packet in 10^9 has, waits until its block is handed over. */
    #if defined(__x86_64__) || defined(__i386__)
    #define STORES_IN_ORDER 1
    #else
    #define STORES_IN_ORDER 0
    #endif
    static inline int packet_is_whole(const uint8_t *frame)
    {
        const struct tpacket3_hdr *head = (const struct tpacket3_hdr *) frame;
        if (!(__atomic_load_n(&head->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
            return 0;
        return __atomic_load_n(&head->tp_len, __ATOMIC_ACQUIRE) && __atomic_load_n(&head->tp_snaplen, __ATOMIC_ACQUIRE)
               && __atomic_load_n(&head->tp_mac, __ATOMIC_ACQUIRE) && __atomic_load_n(&head->tp_net, __ATOMIC_ACQUIRE)
               && __atomic_load_n(&head->tp_sec, __ATOMIC_ACQUIRE) && __atomic_load_n(&head->tp_nsec, __ATOMIC_ACQUIRE);
    }
    /* 0 where the kernel is closing the block: the packet is its last one. */
    static inline uint32_t next_offset(const uint8_t *frame)
    {
        return __atomic_load_n(&((const struct tpacket3_hdr *) frame)->tp_next_offset, __ATOMIC_ACQUIRE);
    }
    enum { BLOCK_HEAD = (sizeof(struct tpacket_block_desc) + 7) & ~7, FRAME_HEAD = TPACKET3_HDRLEN };
    static inline const struct tpacket_hdr_v1 *block_head(const uint8_t *block)
    {
        return &((const struct tpacket_block_desc *) block)->hdr.bh1;
    }
    static inline const struct sockaddr_ll *link_address(const uint8_t *frame)
    {
        return (const struct sockaddr_ll *) (frame + TPACKET_ALIGN(sizeof(struct tpacket3_hdr)));
    }
    /* Whether a block has no users, and removing one user. The release orders handing the block to the kernel before the count. */
    static inline int is_free(const uint32_t *users) { return __atomic_load_n(users, __ATOMIC_ACQUIRE) == 0; }
    static inline void one_fewer(uint32_t *users) { __atomic_store_n(users, *users - 1, __ATOMIC_RELEASE); }
    static inline int64_t now_ns(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000000000LL + now.tv_nsec;
    }
    /* What ended a sleep of at most ns: 0: the time; 1: `wake` is readable, a socket has an error, or a signal came;
       2: the bell (-1: none) rang. */
    static inline int slept(int wake, int packet_socket, int bell, int64_t ns)
    {
        struct pollfd watched[3] = {{.fd = wake, .events = POLLIN}, {.fd = packet_socket}, {.fd = bell, .events = POLLIN}};
        struct timespec longest = {ns / 1000000000LL, ns % 1000000000LL};
        if (ppoll(watched, 3, &longest, NULL) == 0)
            return 0;
        return watched[2].revents == POLLIN && !watched[0].revents && !watched[1].revents ? 2 : 1;
    }
    /* Empties the bell's queue, which holds three packets or so. */
    static inline void silence(int bell)
    {
        char byte;
        int i;
        for (i = 0; i < 16 && recv(bell, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) >= 0; i++) { }
    }
    """
    cdef struct tpacket_hdr_v1:
        uint32_t num_pkts
        uint32_t blk_len
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
    bint is_free(const uint32_t *users) noexcept nogil
    void one_fewer(uint32_t *users) noexcept nogil
    int64_t now_ns() noexcept nogil
    bint packet_is_whole(const uint8_t *frame) noexcept nogil
    uint32_t next_offset(const uint8_t *frame) noexcept nogil
    int slept(int wake, int packet_socket, int bell, int64_t ns) noexcept nogil
    void silence(int bell) noexcept nogil
    int STORES_IN_ORDER, BLOCK_HEAD, FRAME_HEAD
    uint16_t htons(uint16_t value) noexcept nogil
    uint32_t htonl(uint32_t value) noexcept nogil

cdef enum:
    RECORD_HEAD = 16
    COOKED_HEAD = 20       # LINKTYPE_LINUX_SLL2
    ADDRESSES = 12         # of an Ethernet frame: a VLAN tag follows them
    TAG = 4
    GROWTH = COOKED_HEAD + TAG
    TPID_CUSTOMER = 0x8100

cdef int64_t LOOK_AGAIN_NS = 2_000_000    # the bell may ring before its packet is in the ring

LINK_COOKED = 276
CAN_PEEK = bool(STORES_IN_ORDER)
SPACE_BYTES_MAX = (1 << 32) - 65536

cdef Py_ssize_t PAGE = 4096


cdef class RingSpace:
    """Reserves addresses for several rings, at most bytes_max, so that one batch can point into all of them.

    Raises ValueError if 32-bit offsets cannot reach them, MemoryError.
    """

    cdef uint8_t *base
    cdef Py_ssize_t size, used

    def __init__(self, Py_ssize_t bytes_max):
        if not 0 < bytes_max <= SPACE_BYTES_MAX:
            raise ValueError(f"rings of {bytes_max} bytes")
        # A parser may load a word after the last packet, so a page of zeros follows.
        cdef void *base = mmap(NULL, bytes_max + PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if base == MAP_FAILED:
            raise MemoryError(f"cannot reserve {bytes_max} bytes of addresses")
        self.base = <uint8_t *> base
        self.size = bytes_max + PAGE

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size)


cdef class Borrowed:
    """The blocks that one batch borrows from rings. When it is dropped, they go back to the kernel."""

    cdef list parts  # (ring, first block, number of blocks)
    cdef readonly bint offloads            # some packets left something to hardware
    cdef Py_ssize_t more_rows, more_bytes  # that the packets need beyond their own, if they are cut into segments

    def __init__(self):
        self.parts = []

    def __del__(self):
        cdef Ring ring
        cdef Py_ssize_t first, count, i
        for ring, first, count in self.parts:
            for i in range(count):
                ring.release((first + i) % ring.block_count)


cdef class Ring:
    """The ring of a packet socket for which PACKET_VERSION (3) and PACKET_RX_RING were set.

    Parameters: space to map it in; fd of the socket; block_bytes and block_count, as passed to the kernel; interface:
    the value in the column `interface`; cooked: a SOCK_DGRAM socket, whose packets get a LINKTYPE_LINUX_SLL2 header;
    snap_length: bytes kept of each packet; peeks: read the block that the kernel still fills, too (not if cooked: the
    kernel writes the link address last); bell: a descriptor that is readable when a packet has come, -1: there is none.
    virtio: PACKET_VNET_HDR was set; cuts: super-packets will be cut, and need room for it.
    Raises MemoryError if it cannot be mapped. It trusts what the kernel wrote into the ring. One thread reads it; any
    thread may drop a Borrowed.
    """

    cdef readonly Py_ssize_t block_count
    cdef RingSpace space
    cdef uint8_t *base
    cdef uint32_t *users                      # users of each block; this thread counts while the block has unread packets
    cdef int fd
    cdef Py_ssize_t block_bytes
    cdef Py_ssize_t current                   # the block that is being walked, or the next one
    cdef Py_ssize_t touched                   # blocks that this walk has read from
    cdef Py_ssize_t borrowed_before           # borrowed blocks when the walk began
    cdef Py_ssize_t kept_block                # the block with unread packets, which this thread uses; -1: none
    cdef bint begun                           # whether the current block is being read
    cdef bint closed                          # whether the kernel has handed it over: `left` is known
    cdef bint at_last                         # its last packet was taken; the kernel is handing it over
    cdef uint8_t *frame                       # the next packet in the current block
    cdef uint32_t taken                       # packets taken of it
    cdef uint32_t left                        # packets from `frame` on, if it is closed
    cdef bint peeks
    cdef int bell
    cdef uint16_t interface
    cdef bint cooked
    cdef bint virtio
    cdef bint cuts
    cdef uint32_t snap_length
    cdef bint offloads                        # as in Borrowed, while this thread walks; so are the next two
    cdef Py_ssize_t more_rows, more_bytes
    cdef Py_ssize_t rows_room                 # rows of the chunk

    def __init__(self, RingSpace space not None, int fd, Py_ssize_t block_bytes, Py_ssize_t block_count, uint16_t interface,
                 bint cooked, uint32_t snap_length, bint peeks=False, int bell=-1, *, bint virtio=False,
                 bint cuts=False):
        cdef Py_ssize_t size = block_bytes * block_count
        if peeks and (cooked or not STORES_IN_ORDER):
            raise ValueError("this ring cannot peek")
        if space.used + size + PAGE > space.size:
            raise MemoryError(f"no address space for a ring of {size} bytes")
        self.users = <uint32_t *> calloc(block_count, sizeof(uint32_t))
        cdef void *base = mmap(space.base + space.used, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0)
        if base == MAP_FAILED or self.users == NULL:
            raise MemoryError(f"cannot map a ring of {block_count} blocks of {block_bytes} bytes")
        space.used += size
        self.space = space
        self.fd = fd
        self.kept_block = -1
        self.base = <uint8_t *> base
        self.block_bytes = block_bytes
        self.block_count = block_count
        self.interface = interface
        self.cooked = cooked
        self.virtio = virtio
        self.cuts = cuts
        self.snap_length = snap_length
        self.peeks = peeks
        self.bell = bell

    def __dealloc__(self):
        free(self.users)

    @property
    def ready_count(self):
        """Blocks ready to be read."""
        cdef Py_ssize_t count = 1 if self.begun else 0
        while count < self.block_count and self.is_ready((self.current + count) % self.block_count):
            count += 1
        return count

    @property
    def borrowed_count(self):
        """Blocks that batches borrow."""
        cdef Py_ssize_t block, count = 0
        for block in range(self.block_count):
            count += self.users[block] > (block == self.kept_block)
        return count

    def gather_into(self, Chunk chunk not None, Borrowed borrowed not None, Py_ssize_t rows, Py_ssize_t used, Py_ssize_t rows_max,
             double due_s, double until_s, int wake):
        """Appends the columns of ready packets to a chunk that has `rows` packets, with `used` bytes including record
        headers. Once there are packets, waits until due_s (of the monotonic clock) for more; a ring with a bell waits
        until until_s for the first one. It stops waiting when the descriptor `wake` is readable.

        Returns (rows, used, whether it is enough: the chunk is full, or half of the ring is borrowed).
        """
        cdef Py_ssize_t bytes_max = chunk.arena.data_bytes_max
        cdef Py_ssize_t first, i
        cdef bint full
        if not (0 <= rows <= rows_max <= chunk.arena.rows_max and 0 <= used <= bytes_max):
            raise ValueError(f"{rows} rows and {used} bytes of a chunk")
        if bytes_max < <Py_ssize_t> self.snap_length + RECORD_HEAD + GROWTH:
            raise ValueError(f"a chunk of {bytes_max} bytes does not hold a packet of {self.snap_length}")
        chunk.borrow(self.space.base, self.space.size, borrowed)
        self.borrowed_before = self.borrowed_count
        self.offloads, self.rows_room = borrowed.offloads, chunk.arena.rows_max
        self.more_rows, self.more_bytes = borrowed.more_rows, borrowed.more_bytes
        first = self.begin_walk()
        with nogil:
            full = self.gather(&chunk.columns, &rows, &used, rows_max, bytes_max, nanoseconds(due_s), nanoseconds(until_s),
                               wake)
        for i in range(self.touched):
            self.users[(first + i) % self.block_count] += 1
        self.end_walk()
        borrowed.parts.append((self, first, self.touched))
        borrowed.offloads, borrowed.more_rows, borrowed.more_bytes = self.offloads, self.more_rows, self.more_bytes
        return rows, used, full

    def skip(self):
        """Discards the ready packets. Returns (packets, captured bytes)."""
        cdef uint64_t packets = 0, byte_count = 0
        cdef Py_ssize_t first = self.begin_walk(), i
        with nogil:
            while self.begin_block():
                while self.more():
                    if (<const tpacket3_hdr *> self.frame).tp_mac:
                        packets += 1
                        byte_count += self.kept(<const tpacket3_hdr *> self.frame)
                    self.step()
        for i in range(self.touched):
            self.users[(first + i) % self.block_count] += 1
        self.end_walk()
        for i in range(self.touched):
            self.release((first + i) % self.block_count)
        return packets, byte_count

    # The users of a block are counted with the GIL held: this thread while the block has unread packets, and each
    # batch. Between the two calls below, without the GIL, this thread only walks blocks without other users, and the
    # one that it kept.
    cdef Py_ssize_t begin_walk(self):
        self.touched = 1 if self.begun else 0
        return self.current

    cdef void end_walk(self):
        if self.kept_block >= 0:
            self.release(self.kept_block)
        self.kept_block = -1
        if self.begun:
            self.kept_block = self.current
            self.users[self.current] += 1

    cdef void release(self, Py_ssize_t block):
        """Removes one user of the block. It goes to the kernel before it counts as free; otherwise it could be walked
        twice. Where this ring peeks, it holds zeros then: `packet_is_whole` needs them. With virtio headers, too: the
        kernel leaves the header of a packet that virtio has no name for as it is, and counts the packet as dropped."""
        cdef uint8_t *at = self.base + block * self.block_bytes
        cdef Py_ssize_t used
        if self.users[block] == 1:
            if self.peeks or self.virtio:
                used = min(<Py_ssize_t> block_head(at).blk_len, self.block_bytes)
                if used > BLOCK_HEAD:
                    memset(at + BLOCK_HEAD, 0, used - BLOCK_HEAD)
            give_back(at)
        one_fewer(&self.users[block])

    cdef inline bint is_ready(self, Py_ssize_t block) noexcept nogil:
        return is_free(&self.users[block]) and block_is_ours(self.base + block * self.block_bytes)

    cdef bint gather(self, Columns *c, Py_ssize_t *rows, Py_ssize_t *used, Py_ssize_t rows_max, Py_ssize_t bytes_max,
                     int64_t due_ns, int64_t until_ns, int wake) noexcept nogil:
        """Returns whether it is enough. While packets wait for more, the ring is looked at twice in the time in which
        10 Gb/s fill it: the kernel does not say how full it is.
        """
        cdef int64_t step_ns = self.block_bytes * self.block_count * 2 // 5, rang_ns = 0, left_ns, at_ns
        cdef int woken
        while True:
            if self.take(c, rows, used, rows_max, bytes_max):
                return True
            at_ns = now_ns()
            if rows[0]:
                left_ns = due_ns - at_ns
                if left_ns <= 0 or slept(wake, self.fd, -1, min(left_ns, step_ns)):
                    return False
                continue
            left_ns = until_ns - at_ns
            if self.bell < 0 or left_ns <= 0:
                return False
            if at_ns - rang_ns < LOOK_AGAIN_NS:
                left_ns = min(left_ns, LOOK_AGAIN_NS // 10)
            woken = slept(wake, self.fd, self.bell, left_ns)
            if woken == 1:
                return False
            if woken:
                silence(self.bell)  # before the ring is looked at: what comes after that look rings again
                rang_ns = now_ns()

    # bench/peers_live.py compares its cost with a reader in C that only reads headers.
    cdef bint take(self, Columns *c, Py_ssize_t *rows, Py_ssize_t *used, Py_ssize_t rows_max,
                   Py_ssize_t bytes_max) noexcept nogil:
        """Returns whether it is enough. Invariant: row <= rows_max and at <= bytes_max; a packet is taken only if it
        fits whole."""
        cdef const tpacket3_hdr *head
        cdef Py_ssize_t row = rows[0], at = used[0], first = rows[0]
        cdef bint full = False
        while not full and self.begin_block():
            while self.more():
                head = <const tpacket3_hdr *> self.frame
                if head.tp_mac == 0:
                    self.step()
                    continue
                prefetch(self.frame + head.tp_next_offset)
                if row == rows_max or bytes_max - at - self.more_bytes < <Py_ssize_t> head.tp_snaplen + RECORD_HEAD + GROWTH:
                    full = True
                    break
                if self.cuts and not self.reserve(self.frame, row, bytes_max - at - head.tp_snaplen - RECORD_HEAD - GROWTH, bytes_max):
                    full = True
                    break
                at += RECORD_HEAD + self.put(c, row, self.frame)
                row += 1
                self.step()
            # The kernel hands a block over when its time is up, however empty: slow traffic fills many, over several
            # walks.
            if row and 2 * (self.borrowed_before + self.touched) >= self.block_count:
                full = True
        rows[0] = row
        used[0] = at
        for row in range(first, row):
            c.interface[row] = self.interface
            c.record[row] = RECORD_BARE
        return full

    cdef bint reserve(self, const uint8_t *frame, Py_ssize_t row, Py_ssize_t bytes_left, Py_ssize_t bytes_max) noexcept nogil:
        """Takes room for the segments of a packet, of what the chunk has left beside the packet. False: there is too
        little."""
        cdef const tpacket3_hdr *head = <const tpacket3_hdr *> frame
        cdef uint32_t count = 1
        if self.virtio:
            count = segments_at_most(virtio_head(frame), head.tp_snaplen + TAG, self.rows_room, bytes_max)
        if row + self.more_rows + count > self.rows_room or self.more_bytes + segments_room(count) > bytes_left:
            return False
        self.more_rows += count - 1
        self.more_bytes += segments_room(count)
        return True

    cdef inline uint32_t put(self, Columns *c, Py_ssize_t row, uint8_t *frame) noexcept nogil:
        """Completes a packet in place. Returns the bytes kept of it.

        The kernel puts it at least 68 bytes after the frame's start, a cooked one 96; our 4, or 24, bytes begin after
        the 48 bytes of tpacket3_hdr. They may lie on its virtio header, which is read first.
        """
        cdef const tpacket3_hdr *head = <const tpacket3_hdr *> frame
        cdef uint8_t *packet = frame + head.tp_mac
        cdef uint32_t captured = head.tp_snaplen, wire = head.tp_len, grown = 0, kept
        cdef uint16_t[2] tag
        cdef Offload offload = Offload(0, 0, 0, 0, 0, 0)
        if self.virtio:
            offload = virtio_head(frame)[0]
            offload.flags &= NEEDS_CHECKSUM
        elif head.tp_status & TP_STATUS_CSUMNOTREADY:
            offload.flags = NEEDS_CHECKSUM  # and no start: the kernel does not say where
        if self.cooked:
            grown = self.put_cooked(packet, head)
        elif head.tp_status & TP_STATUS_VLAN_VALID and captured >= ADDRESSES:
            grown = TAG
            tag[0] = htons(tpid_of(head))
            tag[1] = htons(<uint16_t> head.hv1.tp_vlan_tci)
            memmove(packet - TAG, packet, ADDRESSES)
            memcpy(packet - TAG + ADDRESSES, tag, TAG)
        packet -= grown
        captured += grown
        wire += grown
        kept = captured if captured < self.snap_length else self.snap_length
        c.offset[row] = <uint32_t> (packet - self.space.base)
        c.captured_length[row] = kept
        c.wire_length[row] = wire
        c.timestamp_ns[row] = <int64_t> head.tp_sec * 1_000_000_000 + <int64_t> head.tp_nsec
        if offload.flags | offload.segments:
            self.offloads = True
            if self.virtio:
                offload.header_bytes += <uint16_t> grown
                offload.checksum_start += <uint16_t> grown
        c.offload[row] = offload
        return kept

    cdef inline uint32_t put_cooked(self, uint8_t *packet, const tpacket3_hdr *head) noexcept nogil:
        """Writes the SLL2 header before the packet, and after it the VLAN tag that the kernel removed, followed by its
        protocol number. Returns the bytes of both."""
        cdef sockaddr_ll link = link_address(<const uint8_t *> head)[0]  # a copy, because the header may overwrite it
        cdef uint16_t protocol = link.sll_protocol, reserved = 0, kind = htons(link.sll_hatype)
        cdef uint32_t index = htonl(<uint32_t> link.sll_ifindex), grown = COOKED_HEAD
        cdef uint16_t[2] tag
        cdef uint8_t *to
        if head.tp_status & TP_STATUS_VLAN_VALID:
            grown += TAG
            tag[0] = htons(<uint16_t> head.hv1.tp_vlan_tci)
            tag[1] = protocol
            protocol = htons(tpid_of(head))
            memcpy(packet - TAG, tag, TAG)
        to = packet - grown
        memcpy(to, &protocol, 2)
        memcpy(to + 2, &reserved, 2)
        memcpy(to + 4, &index, 4)
        memcpy(to + 8, &kind, 2)
        to[10] = link.sll_pkttype
        to[11] = link.sll_halen
        memcpy(to + 12, link.sll_addr, 8)
        return grown

    cdef inline uint32_t kept(self, const tpacket3_hdr *head) noexcept nogil:
        """The bytes that `put` would keep of a packet."""
        cdef uint32_t captured = head.tp_snaplen
        if head.tp_status & TP_STATUS_VLAN_VALID and (self.cooked or captured >= ADDRESSES):
            captured += TAG
        if self.cooked:
            captured += COOKED_HEAD
        return captured if captured < self.snap_length else self.snap_length

    cdef inline bint begin_block(self) noexcept nogil:
        """Starts the next block if necessary. Returns whether there is a packet to take."""
        cdef uint8_t *block
        while not self.more():
            block = self.base + self.current * self.block_bytes
            if self.begun:
                if not self.closed:
                    return False  # the kernel still fills it
                self.current = self.current + 1 if self.current + 1 < self.block_count else 0
                self.begun = self.closed = self.at_last = False
                self.taken = self.left = 0
                continue
            # A block without users was given back: it holds zeros, or it is ours again.
            if self.touched == self.block_count or not is_free(&self.users[self.current]):
                return False
            self.frame = block + BLOCK_HEAD
            if not (block_is_ours(block) or (self.peeks and packet_is_whole(self.frame))):
                return False
            self.touched += 1
            self.begun = True
        return True

    cdef inline bint more(self) noexcept nogil:
        """Whether `frame` is a packet to take in the current block. A packet that is whole is no more written to, except
        that the last one's tp_next_offset becomes 0 when the kernel closes the block."""
        cdef uint8_t *block
        if self.left:
            return True
        if self.closed or not self.begun:
            return False
        block = self.base + self.current * self.block_bytes
        if block_is_ours(block):
            self.closed = True
            if self.taken == 0:
                self.frame = block + block_head(block).offset_to_first_pkt
            self.left = block_head(block).num_pkts - self.taken
            return self.left > 0
        return (self.peeks and not self.at_last and self.frame + FRAME_HEAD <= block + self.block_bytes
                and packet_is_whole(self.frame))

    cdef inline void step(self) noexcept nogil:
        """Moves to the next packet."""
        cdef uint32_t offset = next_offset(self.frame)
        self.frame += offset
        self.taken += 1
        if self.closed:
            self.left -= 1
        elif offset == 0:
            self.at_last = True


cdef inline int64_t nanoseconds(double seconds) noexcept nogil:
    return <int64_t> (min(max(seconds, 0.0), 4e9) * 1e9)


cdef inline const Offload *virtio_head(const uint8_t *frame) noexcept nogil:
    """It stands right before the packet."""
    return <const Offload *> (frame + (<const tpacket3_hdr *> frame).tp_mac - sizeof(Offload))


cdef inline uint16_t tpid_of(const tpacket3_hdr *head) noexcept nogil:
    return head.hv1.tp_vlan_tpid if head.tp_status & TP_STATUS_VLAN_TPID_VALID else <uint16_t> TPID_CUSTOMER
