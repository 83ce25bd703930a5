"""Which packets belong to telephone calls: a table of the addresses and ports that calls have named, which is asked for every packet
of a batch, natively. What may be SIP is handed to Python, packet by packet; calls.py reads it and fills the table.
"""

import os

import numpy as np

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from streamcore.core.packets cimport (FLAG_FRAGMENT, FLAG_MORE_FRAGMENTS, FLAG_PORTS, Columns, Outgoing,
                                      outgoing_data)
from streamcore.headers._walk cimport OUTCOME_FRAGMENT, OUTCOME_TRANSPORT, IpHeader, UdpPorts, Walk, be32, walk_headers
from streamcore.sink.split._packets cimport FRAGMENTS, Fragment, fragment_name, hash_bytes, packet_at, put_address

cnp.import_array()

CALLS_OF_END = 4
DATAGRAM, SEGMENT, FIRST_FRAGMENT, FRAGMENT = 0, 1, 2, 3  # kinds of what is handed out

cdef enum:
    IN_REST = 0
    CALLS = 4                # calls that one end may belong to
    END_WORDS = 3
    SIP_PORT = 5060
    IS_SIP = 0xFFFFFFFF      # value of a fragment: its later ones go to Python
    FIRST_OF_MEDIA = 0xFFFFFFFE

cdef struct End:
    # An address and port with its calls.
    uint8_t[16] address
    uint16_t port
    uint8_t[6] spare
    uint32_t[4] file         # 0: none
    int64_t[4] until_ns      # packets after this time do not belong to the call; 0: no limit
    uint8_t[4] own           # 1: the end's own address sent the message that named it
    bint used


cdef class MediaTable:
    """MediaTable(ports, ends_max): ends and their files. One thread at a time."""

    cdef readonly uint64_t beyond    # ends for which there was no room, and calls that left one to others
    cdef readonly uint32_t used
    cdef UdpPorts ports
    cdef uint64_t secret
    cdef uint64_t mask
    cdef uint32_t ends_max
    cdef End *ends
    cdef Fragment *fragments
    cdef uint32_t *fragment_files    # 4 of each fragment
    cdef uint8_t[65536] sip_port     # 1: SIP over TCP was seen there
    cdef Outgoing out
    cdef Py_ssize_t at               # the next packet of out
    cdef uint32_t[::1] places
    cdef uint32_t[::1] files
    cdef Py_ssize_t found

    def __init__(self, UdpPorts ports not None, uint32_t ends_max):
        cdef uint64_t size = 1024
        self.ports, self.ends_max = ports, ends_max
        self.secret = int.from_bytes(os.urandom(8), "little") | 1
        while size < 2 * <uint64_t> ends_max:
            size *= 2
        self.mask = size - 1
        self.ends = <End *> calloc(size, sizeof(End))
        self.fragments = <Fragment *> calloc(FRAGMENTS, sizeof(Fragment))
        self.fragment_files = <uint32_t *> calloc(FRAGMENTS * CALLS, sizeof(uint32_t))
        if self.ends == NULL or self.fragments == NULL or self.fragment_files == NULL:
            raise MemoryError(f"no memory for {ends_max} ends")
        memset(self.sip_port, 0, 65536)
        self.sip_port[SIP_PORT] = 1

    def __dealloc__(self):
        free(self.ends)
        free(self.fragments)
        free(self.fragment_files)

    def add(self, bytes address not None, uint16_t port, uint32_t file, int64_t until_ns, bint own):
        """An end belongs to a call's file until a time (0: no limit). own: its own address said so. Calls that are over
        leave it. If CALLS go on, one gives way: the oldest that a stranger named, or the oldest of all for an own one."""
        cdef End *end
        cdef int i, free_place = -1
        if len(address) != 16 or file == 0:
            raise ValueError(f"an end of {len(address)} bytes for file {file}")
        end = self.find(<const uint8_t *> <const char *> address, port)
        if not end.used:
            if self.used == self.ends_max:
                self.beyond += 1
                return
            self.used += 1
            end.used = True
            memcpy(end.address, <const char *> address, 16)
            end.port = port
        for i in range(CALLS):
            if end.file[i] == file:
                end.until_ns[i] = until_ns
                end.own[i] = end.own[i] or own
                return
        if until_ns:
            return  # a call that ends elsewhere
        for i in range(CALLS):
            if end.file[i] and end.until_ns[i]:
                end.file[i] = 0  # its call is over, and another one has the end now
        for i in range(CALLS):
            if end.file[i] == 0:
                free_place = i
                break
        if free_place < 0:
            self.beyond += 1
            free_place = 0
            while free_place < CALLS and end.own[free_place]:
                free_place += 1
            if free_place == CALLS:
                if not own:
                    return
                free_place = 0
            for i in range(free_place, CALLS - 1):
                end.file[i], end.until_ns[i], end.own[i] = end.file[i + 1], end.until_ns[i + 1], end.own[i + 1]
            free_place = CALLS - 1
        end.file[free_place], end.until_ns[free_place], end.own[free_place] = file, 0, own

    def listen(self, uint16_t port):
        """SIP over TCP was seen on this port."""
        self.sip_port[port] = 1

    def begin(self, Outgoing out not None):
        """Begins with the packets of out."""
        cdef Py_ssize_t count = out.stop - out.start if out.unchanged else out.count
        self.out = out
        self.at = self.found = 0
        self.places = np.empty(CALLS * count + CALLS + 1, np.uint32)
        self.files = np.empty(CALLS * count + CALLS + 1, np.uint32)

    def put(self, files):
        """The packet that was handed out belongs into these files; () means the rest. At most CALLS_OF_END count."""
        for file in list(dict.fromkeys(files))[:CALLS_OF_END] or [IN_REST]:
            self.places[self.found], self.files[self.found] = <uint32_t> (self.at - 1), file
            self.found += 1

    def taken(self):
        """(places, files) of all packets of out."""
        places, files = np.asarray(self.places)[:self.found], np.asarray(self.files)[:self.found]
        self.out = None
        self.places = self.files = None
        return places, files

    def next(self):
        """Goes on to the next packet that may be SIP: (kind, time_ns, (address, port) of its source, of its target, number,
        more, bytes), or None at the end. number: of a segment its sequence number, of a fragment its offset in bytes and
        the datagram's name as (offset, name). The packet must then be `put`."""
        cdef Outgoing out = self.out
        cdef Columns *c = &out.batch.columns
        cdef const uint8_t *data = outgoing_data(c, out)
        cdef Py_ssize_t count = out.stop - out.start if out.unchanged else out.count
        cdef Walk walk
        cdef const uint8_t *packet = NULL
        cdef uint32_t row = 0, captured = 0
        cdef int kind = -1
        with nogil:
            while self.at < count and kind < 0:
                self.at += 1
                if packet_at(out, c, data, self.at - 1, &row, &packet, &captured):
                    walk_headers(&self.ports.table, packet, captured, out.batch.chunk.arena.control.link_type[c.interface[row]], &walk)
                    kind = self.judge(&walk, packet, c.timestamp_ns[row])
        if kind < 0:
            return None
        return self.handed(kind, &walk, packet, c.timestamp_ns[row])

    cdef handed(self, int kind, Walk *walk, const uint8_t *packet, int64_t time_ns):
        cdef IpHeader *ip = &walk.inner if walk.depth > 1 else &walk.outer
        cdef uint8_t[16] source
        cdef uint8_t[16] target
        cdef uint32_t begin = walk.at
        cdef object number = 0
        put_address(source, ip.source, ip.version)
        put_address(target, ip.target, ip.version)
        if kind == SEGMENT:
            number = be32(packet + ip.l4 + 4)
        elif kind == FIRST_FRAGMENT:
            begin = ip.l4
            number = (0, fragment_name(ip, self.secret))
        elif kind == FRAGMENT:
            number = (8 * ip.fragment_offset, fragment_name(ip, self.secret))
        return (kind, time_ns, (<bytes> (<const char *> source)[:16], ip.source_port),
                (<bytes> (<const char *> target)[:16], ip.target_port), number, ip.flags & FLAG_MORE_FRAGMENTS != 0,
                <bytes> (<const char *> packet + begin)[:walk.end - begin])

    cdef int judge(self, Walk *walk, const uint8_t *packet, int64_t time_ns) noexcept nogil:
        """Finds the files of a packet, or says that it may be SIP, and as what; -1: its files are found."""
        cdef IpHeader *ip = &walk.inner if walk.depth > 1 else &walk.outer
        cdef Fragment *fragment = NULL
        cdef uint32_t *files = NULL
        cdef uint64_t name = 0
        cdef uint32_t size = walk.end - walk.at
        cdef Py_ssize_t before = self.found
        cdef int i
        if ip.version == 0 or walk.outcome not in (OUTCOME_TRANSPORT, OUTCOME_FRAGMENT):
            return self.rest()
        if ip.flags & FLAG_FRAGMENT:
            name = fragment_name(ip, self.secret)
            i = <int> ((name >> 20) % FRAGMENTS)
            fragment, files = &self.fragments[i], &self.fragment_files[CALLS * i]
        if walk.outcome == OUTCOME_FRAGMENT:
            if fragment == NULL or fragment.name != name:
                return self.rest()
            if fragment.value == IS_SIP:
                return 3
            for i in range(CALLS):
                if files[i]:
                    self.give(files[i])
            return -1 if self.found > before else self.rest()
        if not ip.flags & FLAG_PORTS:
            return self.rest()
        if ip.protocol == 6:
            if size and (self.sip_port[ip.source_port] or self.sip_port[ip.target_port] or may_be_sip(packet + walk.at, size)):
                return 1
            return self.rest()
        if ip.protocol != 17:
            return self.rest()
        if may_be_sip(packet + walk.at, size):
            if fragment != NULL:
                fragment.name, fragment.value = name, IS_SIP
                return 2
            return 0
        # Where it goes says more than where it is from, and a call that goes on more than one that is over.
        if not (self.ask(ip.target, ip.version, ip.target_port, time_ns, False)
                or self.ask(ip.source, ip.version, ip.source_port, time_ns, False)
                or self.ask(ip.target, ip.version, ip.target_port, time_ns, True)):
            self.ask(ip.source, ip.version, ip.source_port, time_ns, True)
        if self.found == before:
            return self.rest()
        if fragment != NULL:
            fragment.name, fragment.value = name, FIRST_OF_MEDIA
            memset(files, 0, CALLS * sizeof(uint32_t))
            for i in range(<int> (self.found - before)):
                files[i] = self.files[before + i]
        return -1

    cdef bint ask(self, const uint8_t *address, uint8_t version, uint16_t port, int64_t time_ns, bint over) noexcept nogil:
        """Gives the packet to the calls of an end that go on, or to those that are over. Returns whether there is one."""
        cdef uint8_t[16] whole
        cdef End *end
        cdef int i
        cdef bint given = False
        put_address(whole, address, version)
        end = self.find(whole, port)
        if not end.used:
            return False
        for i in range(CALLS):
            if end.file[i] and over == (end.until_ns[i] != 0) and (not over or time_ns <= end.until_ns[i]):
                self.give(end.file[i])
                given = True
        return given

    cdef inline void give(self, uint32_t file) noexcept nogil:
        # At most CALLS files for each packet: `begin` has made room.
        self.places[self.found], self.files[self.found] = <uint32_t> (self.at - 1), file
        self.found += 1

    cdef inline int rest(self) noexcept nogil:
        self.give(IN_REST)
        return -1

    cdef End *find(self, const uint8_t *address, uint16_t port) noexcept nogil:
        """The end's entry, or the empty one for it. At most half of the entries are used."""
        cdef uint8_t[24] key
        cdef uint64_t at
        memset(key, 0, 24)
        memcpy(key, address, 16)
        memcpy(key + 16, &port, 2)
        at = hash_bytes(key, END_WORDS, self.secret) & self.mask
        while self.ends[at].used and (self.ends[at].port != port or memcmp(self.ends[at].address, address, 16)):
            at = (at + 1) & self.mask
        return &self.ends[at]


cdef bint may_be_sip(const uint8_t *p, uint32_t size) noexcept nogil:
    """Whether a message may begin here: SIP/2.0 and a blank, or a method in capitals, a blank and no more than a glance."""
    cdef uint32_t i
    if size < 8:
        return False
    if memcmp(p, <const char *> b"SIP/2.0 ", 8) == 0:
        return True
    for i in range(min(size, <uint32_t> 10)):
        if p[i] == 0x20:
            return i >= 3
        if not 0x41 <= p[i] <= 0x5A:
            return False
    return False
