"""The sender: Outgoings -> packet sockets, many packets a system call, when each is due, with the GIL released.

The kernel copies packets straight from the chunk; nothing is copied here. live.py handles packets that the kernel
refuses. It uses sendmmsg instead of a mapped ring: on a veth pair with 60-byte packets sendmmsg sent 250,000 to 330,000
a second, the ring 150,000 to 175,000, and the ring needs a copy of every packet.

With PACKET_VNET_HDR the kernel is told what each packet leaves to hardware, and completes it where the interface does
not. It drops a super-packet that the interface cannot cut, as it passes the queueing discipline: then it is cut here.
"""

from libc.errno cimport EINTR, EINVAL, EMSGSIZE, ENOBUFS, errno
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cpython.exc cimport PyErr_CheckSignals

from streamcore.core.packets cimport (
    NEEDS_CHECKSUM, SEGMENT_ECN, SEGMENT_NONE, SEGMENT_TCP4, SEGMENT_TCP6, SEGMENT_UDP, Columns, Offload, Outgoing, outgoing_data,
)
from streamcore.headers import STANDARD_PORTS
from streamcore.headers._walk cimport UdpPorts, be16
from streamcore.offloads._checksum cimport get16, internet_fold, internet_sum, swap16
from streamcore.offloads._cut cimport Cut, plan_cut, segment_size, write_segment

cdef extern from "<sys/socket.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len
    cdef struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    cdef struct mmsghdr:
        msghdr msg_hdr
    int sendmmsg(int descriptor, mmsghdr *messages, unsigned count, int flags)
    int MSG_DONTWAIT

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now)
    int clock_nanosleep(int clock, int flags, const timespec *request, timespec *remain)

cdef extern from "<sys/prctl.h>" nogil:
    int PR_SET_TIMERSLACK
    int prctl(int option, unsigned long value)

cdef enum:
    MESSAGES = 256          # packets in one system call
    OUTPUTS = 2
    LINK_HEADER_BYTES = 14  # Ethernet: nothing shorter can be sent
    TAG_BYTES = 4           # of a VLAN
    TAGS_MAX = 4            # looked at
    PARTS = 4               # of a message: what it leaves to hardware, and up to three of the packet
    ROUND = 32              # segments in one system call
    BURST = 32              # packets that leave at once where they are spread: a receiver's queue holds 90 or so
    ROOM_BYTES = 1 << 20    # for them
    LINKTYPE_ETHERNET = 1

cdef enum Way:
    WAY_SEND                # as it is
    WAY_CUT                 # in segments that are made here
    WAY_TOO_LONG            # its segments exceed the MTU

cdef int64_t SLICE_NS = 50000000     # the longest time between checks of signals and `stop`
cdef int64_t BURST_NS = 10000000     # how much a rate may catch up after a time without packets
cdef int64_t FOREVER_NS = 1 << 60
cdef int64_t SPREAD_NS_MAX = 10000000 # the longest time over which the packets of one batch are spread
cdef int64_t SPREAD_NS_MIN = 20000    # shorter waits are not worth it
cdef int64_t REFUSED_NS = 1000000000 # how long an interface that did not take a super-packet gets none


cdef inline int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t> now.tv_sec * 1000000000 + now.tv_nsec


cdef double spread_share(const Columns *c, Outgoing out, Py_ssize_t count, int64_t *first_ns) noexcept nogil:
    """The part of the time between packets, as they came, that lies between them as they leave: a half, or less if that would take longer than
    SPREAD_NS_MAX. So a sender that fell behind catches up."""
    cdef uint32_t first = outgoing_row(c, out, 0), last = outgoing_row(c, out, count - 1)
    cdef int64_t span_ns = c.timestamp_ns[last] - c.timestamp_ns[first]
    first_ns[0] = c.timestamp_ns[first]
    if span_ns <= 0:
        return 0
    return min(0.5, <double> SPREAD_NS_MAX / <double> span_ns)


cdef inline uint32_t outgoing_row(const Columns *c, Outgoing out, Py_ssize_t i) noexcept nogil:
    if not out.unchanged:
        return out.row[i]
    return c.rows[out.start + i] if out.arranged else <uint32_t> (out.start + i)


cdef class Sender:
    """Sends packets on one packet socket, or on the one of two that the column `interface` names.

    Parameters: descriptors of one or two bound packet sockets; trouble, called as trouble(number of the socket, errno,
    captured bytes) for a packet that was not sent: it returns True to retry, False to give up, or raises; time_scale:
    real seconds for a second between packets' timestamps, 0: timestamps do not pace; ns_per_packet and ns_per_byte of a
    rate, 0: as fast as possible; spreads: packets that came one by one leave so, in bursts of BURST and at least twice as fast as
    they came; virtio: PACKET_VNET_HDR is set on the sockets; ports: of tunnels whose super-packets
    are cut.
    """

    cdef public bint stopped         # set it, from any thread, to end `send` soon without the remaining packets
    cdef readonly uint64_t shortened # packets sent shorter than they were on the wire
    cdef int[OUTPUTS] descriptors
    cdef uint64_t[OUTPUTS] sent
    cdef int outputs
    cdef object trouble
    cdef double time_scale
    cdef double ns_per_packet
    cdef double ns_per_byte
    cdef bint begun
    cdef int64_t begin_ns            # monotonic, when the first packet left
    cdef int64_t first_ns            # its timestamp
    cdef int64_t looked_ns           # when signals were last checked
    cdef double next_ns              # for a rate: when the next packet is due, after begin_ns
    cdef mmsghdr[MESSAGES] messages
    cdef iovec[MESSAGES * PARTS] parts
    cdef Offload[MESSAGES] heads     # what each leaves to hardware
    cdef uint16_t[MESSAGES] fields   # a checksum field, if the packet's own is complete and the kernel wants it begun
    cdef uint8_t *packets[MESSAGES]
    cdef uint32_t[MESSAGES] lengths
    cdef uint8_t[MESSAGES] shorter   # than on the wire
    cdef bint spreads
    cdef int burst                   # packets since the last wait that are no super-packets
    cdef bint virtio
    cdef UdpPorts ports
    cdef uint32_t[OUTPUTS] mtu
    cdef int64_t[OUTPUTS] refused_ns # until when a socket's interface gets no super-packets, monotonic
    cdef uint8_t *room               # for segments
    cdef int gathered
    cdef int current                 # the socket of the gathered packets

    def __init__(self, list descriptors, trouble, double time_scale=0.0, double ns_per_packet=0.0, double ns_per_byte=0.0, *,
                 bint spreads=False, bint virtio=False, UdpPorts ports=STANDARD_PORTS):
        cdef int i
        if not 1 <= len(descriptors) <= OUTPUTS or min(time_scale, ns_per_packet, ns_per_byte) < 0:
            raise ValueError(f"a sender on {len(descriptors)} sockets, paced by {time_scale}, {ns_per_packet}, {ns_per_byte}")
        self.outputs = len(descriptors)
        for i in range(self.outputs):
            self.descriptors[i] = descriptors[i]
        self.trouble = trouble
        self.time_scale = time_scale
        self.ns_per_packet = ns_per_packet
        self.ns_per_byte = ns_per_byte
        self.spreads = spreads
        self.virtio = virtio
        self.ports = ports
        self.room = <uint8_t *> malloc(ROOM_BYTES)
        if self.room == NULL:
            raise MemoryError("no room for segments")
        memset(self.messages, 0, sizeof(self.messages))
        for i in range(MESSAGES):
            self.parts[i * PARTS].iov_base = &self.heads[i]
            self.parts[i * PARTS].iov_len = sizeof(Offload)
            self.messages[i].msg_hdr.msg_iov = &self.parts[i * PARTS + (0 if virtio else 1)]

    def __dealloc__(self):
        free(self.room)

    def set_mtu(self, int number, uint32_t mtu):
        """The MTU of a socket's interface: the kernel does not check that of super-packets."""
        if not 0 <= number < self.outputs:
            raise ValueError(f"socket {number} of {self.outputs}")
        self.mtu[number] = mtu

    def sent_on(self, int number):
        """The packets sent so far on one of the sockets."""
        if not 0 <= number < self.outputs:
            raise ValueError(f"socket {number} of {self.outputs}")
        return self.sent[number]

    def send(self, Outgoing out not None):
        """Sends the packets of out, in order. Returns the (packets, captured bytes) sent. Raises OSError."""
        cdef uint64_t[2] counts
        counts[0] = counts[1] = 0
        self.gathered = 0
        if not self.begun and (self.is_paced() or self.spreads):
            self.begun = self.spreads
            prctl(PR_SET_TIMERSLACK, 1)  # for this thread, in nanoseconds: by default its waits may be 50 us too long
        with nogil:
            self.send_all(out, &out.batch.columns, counts)
        return counts[0], counts[1]

    cdef inline bint is_paced(self) noexcept nogil:
        return self.time_scale > 0 or self.ns_per_packet > 0 or self.ns_per_byte > 0

    cdef int send_all(self, Outgoing out, Columns *c, uint64_t *counts) except -1 nogil:
        cdef Py_ssize_t i, count = out.stop - out.start if out.unchanged else out.count
        cdef uint8_t *packet
        cdef uint8_t *data = outgoing_data(c, out)
        cdef uint32_t row, captured, wire
        cdef int number = 0
        cdef Way way
        cdef bint paced = self.is_paced()
        cdef int64_t begin_ns = 0, first_ns = 0
        cdef double share = 0
        if self.spreads and count > BURST:
            begin_ns = monotonic_ns()
            share = spread_share(c, out, count, &first_ns)
        self.burst = 0
        for i in range(count):
            if out.unchanged:
                row = c.rows[out.start + i] if out.arranged else <uint32_t> (out.start + i)
                packet = data + c.offset[row]
                captured = c.captured_length[row]
                wire = c.wire_length[row]
            else:
                packet = out.packet[i]
                if packet == NULL:
                    continue
                row = out.row[i]
                captured = out.captured_length[i]
                wire = out.wire_length[i]
            if self.outputs > 1:
                number = 1 if c.interface[row] else 0
            if self.gathered == MESSAGES or (self.gathered and number != self.current):
                self.flush(counts)
            if paced:
                self.wait(self.due_ns(c.timestamp_ns[row], captured), counts)
            if share > 0 and self.burst >= BURST:
                self.burst = 0
                self.flush(counts)
                self.pause(begin_ns + <int64_t> (<double> (c.timestamp_ns[row] - first_ns) * share))
            if self.stopped:
                return 0
            self.current = number
            self.burst += not (out.batch.offloads and c.offload[row].segments)
            if captured < LINK_HEADER_BYTES:
                with gil:
                    self.trouble(number, EINVAL, captured)
                continue
            self.put(packet, captured, captured < wire)
            if out.batch.offloads and captured == wire and captured == c.captured_length[row]:
                self.heads[self.gathered] = c.offload[row]
                if c.offload[row].segments != SEGMENT_NONE:
                    way = self.way_of(self.gathered)
                    if way != WAY_SEND:
                        self.flush(counts)
                        self.send_other_way(way, number, packet, captured, &c.offload[row], counts)
                        continue
            self.gathered += 1
        return self.flush(counts)

    cdef void pause(self, int64_t due_ns) noexcept nogil:
        """At most SPREAD_NS_MAX."""
        cdef int64_t left_ns = due_ns - monotonic_ns()
        cdef timespec request
        if left_ns > SPREAD_NS_MIN:
            request.tv_sec = 0
            request.tv_nsec = min(left_ns, SPREAD_NS_MAX)
            clock_nanosleep(CLOCK_MONOTONIC, 0, &request, NULL)

    cdef inline void put(self, uint8_t *packet, uint32_t captured, bint shorter) noexcept nogil:
        """Fills the next message; `gathered` does not count it yet."""
        cdef int at = self.gathered
        self.heads[at] = Offload(0, 0, 0, 0, 0, 0)
        self.parts[at * PARTS + 1].iov_base = packet
        self.parts[at * PARTS + 1].iov_len = captured
        self.messages[at].msg_hdr.msg_iovlen = 2 if self.virtio else 1
        self.packets[at] = packet
        self.lengths[at] = captured
        self.shorter[at] = shorter

    cdef Way way_of(self, int at) noexcept nogil:
        """How a super-packet is sent. If services had its checksum completed, it is begun again: the kernel wants that. Only plain TCP and UDP
        over IP go to the kernel, which would take the headers of a tunnel for those of the segments."""
        cdef Offload *head = &self.heads[at]
        cdef const uint8_t *packet = self.packets[at]
        cdef uint32_t size = self.lengths[at], link = LINK_HEADER_BYTES, transport, field, length
        cdef uint8_t kind = head.segments & ~SEGMENT_ECN, protocol
        cdef uint64_t sum
        cdef int tags = 0
        if size < 60:
            return WAY_CUT
        while be16(packet + link - 2) in (0x8100, 0x88A8) and tags < TAGS_MAX:
            link += TAG_BYTES
            tags += 1
        if size < link + 60:
            return WAY_CUT
        if be16(packet + link - 2) == 0x0800 and packet[link] >> 4 == 4 and packet[link] & 15 >= 5 and not be16(packet + link + 6) & 0x3FFF:
            transport = link + (packet[link] & 15) * 4
            protocol = packet[link + 9]
            sum = internet_sum(packet + link + 12, 8, 0)
        elif be16(packet + link - 2) == 0x86DD and packet[link] >> 4 == 6:
            transport = link + 40
            protocol = packet[link + 6]
            sum = internet_sum(packet + link + 8, 32, 0)
        else:
            return WAY_CUT
        length = 8
        field = transport + 6
        if protocol == 6 and kind == (SEGMENT_TCP4 if packet[link] >> 4 == 4 else SEGMENT_TCP6) and size >= transport + 20:
            length = (packet[transport + 12] >> 4) * 4
            field = transport + 16
        elif protocol != 17 or kind != SEGMENT_UDP or size < transport + 8 or get16(packet + field) == 0:
            return WAY_CUT
        if length < 8 or size <= transport + length or head.flags & NEEDS_CHECKSUM and head.checksum_start != transport:
            return WAY_CUT
        if self.is_too_long(min(size, transport + length + head.segment_bytes), tags):
            return WAY_TOO_LONG
        if self.refused_ns[self.current] > monotonic_ns():
            return WAY_CUT
        head.header_bytes = <uint16_t> (transport + length)
        if not head.flags & NEEDS_CHECKSUM:
            head.flags = NEEDS_CHECKSUM
            head.checksum_start = <uint16_t> transport
            head.checksum_offset = <uint16_t> (field - transport)
            self.fields[at] = internet_fold(sum + swap16(protocol) + swap16(<uint16_t> (size - transport)))
            self.put_part(at, 1, packet, field)
            self.put_part(at, 2, <const uint8_t *> &self.fields[at], 2)
            self.put_part(at, 3, packet + field + 2, size - field - 2)
            self.messages[at].msg_hdr.msg_iovlen = PARTS
        return WAY_SEND

    cdef inline void put_part(self, int at, int part, const uint8_t *base, uint32_t size) noexcept nogil:
        self.parts[at * PARTS + part].iov_base = <void *> base
        self.parts[at * PARTS + part].iov_len = size

    cdef inline bint is_too_long(self, uint32_t size, bint tagged) noexcept nogil:
        """As the kernel decides it for a packet that is no super-packet."""
        return self.mtu[self.current] > 0 and size > self.mtu[self.current] + LINK_HEADER_BYTES + (TAG_BYTES if tagged else 0)

    cdef int send_other_way(self, Way way, int number, uint8_t *packet, uint32_t captured, const Offload *offload, uint64_t *counts) except -1 nogil:
        """Sends a super-packet in segments that are made here, if it can be cut. It counts as one packet, which is sent when all of it is."""
        cdef Cut cut
        cdef uint32_t done = 0
        self.current = number
        if way == WAY_CUT and not plan_cut(&self.ports.table, packet, captured, LINKTYPE_ETHERNET, offload, &cut):
            if self.send_as_it_came(number, packet, captured, offload):
                counts[0] += 1
                counts[1] += captured
                return 0
            way = WAY_TOO_LONG
        if way == WAY_TOO_LONG or self.is_too_long(segment_size(&cut, 0), True):
            with gil:
                self.trouble(number, EMSGSIZE, captured)
            return 0
        while done < cut.count and not self.stopped:
            if not self.send_round(&cut, &done, number, captured):
                return 0
        if done == cut.count:
            counts[0] += 1
            counts[1] += captured
        return 0

    cdef bint send_as_it_came(self, int number, uint8_t *packet, uint32_t captured, const Offload *offload) noexcept nogil:
        """In a tunnel that is not cut here: whoever receives it from the kernel as one may understand it. Only if its checksum is as it came."""
        cdef iovec[2] parts
        cdef mmsghdr message
        if not offload.flags & NEEDS_CHECKSUM:
            return False
        memset(&message, 0, sizeof(message))
        parts[0] = iovec(<void *> offload, sizeof(Offload))
        parts[1] = iovec(packet, captured)
        message.msg_hdr.msg_iov = parts
        message.msg_hdr.msg_iovlen = 2
        if sendmmsg(self.descriptors[number], &message, 1, 0) != 1:
            return False
        self.sent[number] += 1
        return True

    cdef int send_round(self, const Cut *cut, uint32_t *first, int number, uint32_t captured) except -1 nogil:
        """Makes and sends some segments. Returns 0 if one was given up."""
        cdef Offload nothing = Offload(0, 0, 0, 0, 0, 0)
        cdef mmsghdr[ROUND] messages
        cdef iovec[ROUND * 2] parts
        cdef int i = 0, at = 0, count, problem
        cdef uint32_t used = 0
        memset(messages, 0, sizeof(messages))
        while i < ROUND and first[0] + i < cut.count and used + segment_size(cut, first[0] + i) <= ROOM_BYTES:
            parts[2 * i] = iovec(&nothing, sizeof(Offload))
            parts[2 * i + 1] = iovec(self.room + used, write_segment(cut, first[0] + i, self.room + used))
            used += <uint32_t> parts[2 * i + 1].iov_len
            messages[i].msg_hdr.msg_iov = &parts[2 * i]
            messages[i].msg_hdr.msg_iovlen = 2
            i += 1
        while at < i and not self.stopped:
            count = sendmmsg(self.descriptors[number], &messages[at], i - at, MSG_DONTWAIT)
            if count > 0:
                self.sent[number] += count
                at += count
                continue
            problem = errno
            with gil:
                PyErr_CheckSignals()
                if problem != EINTR and not self.trouble(number, problem, captured):
                    return 0
        first[0] += at
        return 1

    cdef int64_t due_ns(self, int64_t timestamp_ns, uint32_t captured) noexcept nogil:
        """When a packet is due, by the monotonic clock."""
        cdef int64_t due_ns
        cdef double after_ns
        if not self.begun:
            self.begun = True
            self.begin_ns = monotonic_ns()
            self.first_ns = timestamp_ns
        if self.time_scale > 0:
            after_ns = <double> (timestamp_ns - self.first_ns) * self.time_scale
            if timestamp_ns <= 0 or after_ns <= 0:  # no time, or a time before the first packet's
                return self.begin_ns
            return self.begin_ns + (<int64_t> after_ns if after_ns < <double> FOREVER_NS else FOREVER_NS)
        after_ns = <double> (monotonic_ns() - BURST_NS - self.begin_ns)
        if self.next_ns < after_ns:
            self.next_ns = after_ns
        due_ns = self.begin_ns + <int64_t> self.next_ns
        self.next_ns += self.ns_per_packet + self.ns_per_byte * captured
        return due_ns

    cdef int wait(self, int64_t due_ns, uint64_t *counts) except -1 nogil:
        """Waits until a packet is due. Sends gathered packets first, which are due already."""
        cdef int64_t left_ns = due_ns - monotonic_ns()
        cdef timespec request
        if left_ns <= 0:
            return 0
        self.flush(counts)
        while not self.stopped:
            left_ns = due_ns - monotonic_ns()
            if left_ns <= 0:
                break
            request.tv_sec = 0
            request.tv_nsec = min(left_ns, SLICE_NS)
            clock_nanosleep(CLOCK_MONOTONIC, 0, &request, NULL)
            if monotonic_ns() - self.looked_ns > SLICE_NS:  # another thread may have got a signal: EINTR is not enough
                self.looked_ns = monotonic_ns()
                with gil:
                    PyErr_CheckSignals()
        return 0

    # bench_live_send.py: about 2 us a packet, nearly all of it in the kernel.
    cdef int flush(self, uint64_t *counts) except -1 nogil:
        """Sends the gathered packets. Every packet is sent, given up by `trouble`, or left if `stopped`."""
        cdef int at = 0, i, count, problem
        while at < self.gathered and not self.stopped:
            count = sendmmsg(self.descriptors[self.current], &self.messages[at], self.gathered - at, MSG_DONTWAIT)
            if count > 0:
                for i in range(at, at + count):
                    counts[1] += self.lengths[i]
                    self.shortened += self.shorter[i]
                counts[0] += count
                self.sent[self.current] += count
                at += count
                continue
            problem = errno
            if self.heads[at].segments != SEGMENT_NONE and (problem == ENOBUFS or problem == EINVAL):
                self.refused_ns[self.current] = monotonic_ns() + REFUSED_NS
                if self.messages[at].msg_hdr.msg_iovlen == PARTS:  # the packet's own checksum is complete
                    self.heads[at].flags = 0
                self.send_other_way(WAY_CUT, self.current, self.packets[at], self.lengths[at], &self.heads[at], counts)
                at += 1
                continue
            with gil:
                PyErr_CheckSignals()
                if problem != EINTR and not self.trouble(self.current, problem, self.lengths[at]):
                    at += 1
        self.gathered = 0
        return 0
