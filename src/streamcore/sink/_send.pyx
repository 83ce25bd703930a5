"""The sender: Outgoings -> packet sockets, many packets a system call, when each is due, with the GIL released.

The kernel copies packets straight from the chunk; nothing is copied here. live.py handles packets that the kernel
refuses. It uses sendmmsg instead of a mapped ring: on a veth pair with 60-byte packets sendmmsg sent 250,000 to 330,000
a second, the ring 150,000 to 175,000, and the ring needs a copy of every packet.
"""

from libc.errno cimport EINTR, EINVAL, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memset

from cpython.exc cimport PyErr_CheckSignals

from streamcore.core.packets cimport Columns, Outgoing, outgoing_data

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

cdef int64_t SLICE_NS = 50000000     # the longest time between checks of signals and `stop`
cdef int64_t BURST_NS = 10000000     # how much a rate may catch up after a time without packets
cdef int64_t FOREVER_NS = 1 << 60


cdef inline int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t> now.tv_sec * 1000000000 + now.tv_nsec


cdef class Sender:
    """Sends packets on one packet socket, or on the one of two that the column `interface` names.

    Parameters: descriptors of one or two bound packet sockets; trouble, called as trouble(number of the socket, errno,
    captured bytes) for a packet that was not sent: it returns True to retry, False to give up, or raises; time_scale:
    real seconds for a second between packets' timestamps, 0: timestamps do not pace; ns_per_packet and ns_per_byte of a
    rate, 0: as fast as possible.
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
    cdef iovec[MESSAGES] vectors
    cdef uint8_t[MESSAGES] shorter   # than on the wire
    cdef int gathered
    cdef int current                 # the socket of the gathered packets

    def __init__(self, list descriptors, trouble, double time_scale=0.0, double ns_per_packet=0.0, double ns_per_byte=0.0):
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
        memset(self.messages, 0, sizeof(self.messages))
        for i in range(MESSAGES):
            self.messages[i].msg_hdr.msg_iov = &self.vectors[i]
            self.messages[i].msg_hdr.msg_iovlen = 1

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
        if not self.begun and self.is_paced():
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
        cdef bint paced = self.is_paced()
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
            if self.stopped:
                return 0
            self.current = number
            if captured < LINK_HEADER_BYTES:
                with gil:
                    self.trouble(number, EINVAL, captured)
                continue
            self.vectors[self.gathered].iov_base = packet
            self.vectors[self.gathered].iov_len = captured
            self.shorter[self.gathered] = captured < wire
            self.gathered += 1
        return self.flush(counts)

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
                    counts[1] += self.vectors[i].iov_len
                    self.shortened += self.shorter[i]
                counts[0] += count
                self.sent[self.current] += count
                at += count
                continue
            problem = errno
            with gil:
                PyErr_CheckSignals()
                if problem != EINTR and not self.trouble(self.current, problem, self.vectors[at].iov_len):
                    at += 1
        self.gathered = 0
        return 0
