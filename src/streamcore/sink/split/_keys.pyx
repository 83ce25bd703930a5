"""Which file a packet belongs into, by what stands in it: flow, host, VLAN, interface or minute. Native, for all packets of a
batch, on the bytes that leave, so that a file's name has no address that a service replaced.
"""

import os

import numpy as np

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from streamcore.core.packets cimport FLAG_FRAGMENT, FLAG_PORTS, Columns, Outgoing, outgoing_data
from streamcore.core.tables cimport table_memory
from streamcore.headers._walk cimport IpHeader, UdpPorts, Walk, walk_headers
from streamcore.sink.split._packets cimport FRAGMENTS, Fragment, fragment_name, hash_bytes, packet_at, put_address

cnp.import_array()

KINDS = ("flow", "host", "vlan", "interface", "minute")
REST = 0  # the number of the file for packets that belong to none

cdef enum:
    BY_FLOW = 0
    BY_HOST = 1
    BY_VLAN = 2
    BY_INTERFACE = 3
    BY_MINUTE = 4
    KEY_WORDS = 7
    IN_REST = 0
    NONE = 0xFFFFFFFF

cdef struct Key:
    # What makes a file. Bytes that a kind does not need are zero. A flow's ends stand in order, so both directions have one key.
    uint8_t[16] low          # address; of minutes: the minute, in the first 8 bytes; of interfaces: the number, in the first 4
    uint8_t[16] high
    uint16_t low_port
    uint16_t high_port
    uint16_t[4] vlan
    uint8_t vlan_count
    uint8_t protocol
    uint8_t version
    uint8_t ports            # 1: the ports are ports
    uint8_t[8] spare

cdef struct Slot:
    uint64_t hash            # 0: empty
    uint32_t number
    Key key


cdef class KeyTable:
    """KeyTable(kind, ports, inner, files_max): numbers keys from 1 on, in the order in which they appear; up to files_max.

    inner: of packets in tunnels, look at the innermost header. `last` is what new keys are, since it was last read.
    """

    cdef readonly str kind
    cdef readonly uint64_t beyond   # packets whose key came after the last number
    cdef int by
    cdef bint inner
    cdef UdpPorts ports
    cdef uint64_t secret
    cdef uint64_t mask
    cdef uint32_t used
    cdef uint32_t files_max
    cdef Slot *slots
    cdef Fragment *fragments
    cdef list made

    def __init__(self, str kind, UdpPorts ports not None, bint inner, uint32_t files_max):
        cdef uint64_t size = 1024
        self.by = KINDS.index(kind)
        self.kind, self.ports, self.inner, self.files_max = kind, ports, inner, files_max
        self.secret = int.from_bytes(os.urandom(8), "little") | 1
        self.made = []
        while size < 2 * <uint64_t> files_max:
            size *= 2
        self.mask = size - 1
        self.slots = <Slot *> table_memory(size * sizeof(Slot))
        self.fragments = <Fragment *> calloc(FRAGMENTS, sizeof(Fragment))
        if self.slots == NULL or self.fragments == NULL:
            raise MemoryError(f"no memory for {files_max} files")
        memset(self.slots, 0, size * sizeof(Slot))

    def __dealloc__(self):
        free(self.slots)
        free(self.fragments)

    def assign(self, Outgoing out not None):
        """(places, files uint32[n]): the file of each packet that leaves; with hosts, a packet may have two. New keys are
        appended to what `take_new` returns."""
        cdef Columns *c = &out.batch.columns
        cdef const uint8_t *data = outgoing_data(c, out)
        cdef Py_ssize_t i, count = out.stop - out.start if out.unchanged else out.count
        cdef Py_ssize_t width = 2 if self.by == BY_HOST else 1
        cdef uint32_t[::1] places = np.empty(width * count + 1, np.uint32)
        cdef uint32_t[::1] files = np.empty(width * count + 1, np.uint32)
        cdef uint32_t found = 0, row = 0, captured = 0, second
        cdef const uint8_t *packet = NULL
        cdef uint32_t before = self.used
        with nogil:
            for i in range(count):
                if not packet_at(out, c, data, i, &row, &packet, &captured):
                    continue
                second = NONE
                places[found] = <uint32_t> i
                files[found] = self.file_of(c, row, packet, captured, out.batch.chunk.arena.control.link_type[c.interface[row]], &second)
                found += 1
                if second != NONE and second != files[found - 1]:
                    places[found] = <uint32_t> i
                    files[found] = second
                    found += 1
        return np.asarray(places)[:found], np.asarray(files)[:found]

    def take_new(self):
        """list[(number, version, protocol, ports, (address, port) of the first packet's source, of its target, vlans)] of
        the keys that are new since the last call."""
        made, self.made = self.made, []
        return made

    cdef uint32_t file_of(self, Columns *c, uint32_t row, const uint8_t *packet, uint32_t captured, uint16_t link_type,
                          uint32_t *second) noexcept nogil:
        cdef Walk walk
        cdef Key key
        cdef const IpHeader *ip
        cdef int64_t minute
        memset(&key, 0, sizeof(Key))
        if self.by == BY_MINUTE:
            minute = c.timestamp_ns[row] // <int64_t> 60000000000
            if c.timestamp_ns[row] % <int64_t> 60000000000 < 0:
                minute -= 1  # C's division rounds towards zero
            memcpy(key.low, &minute, 8)
            return self.number_of(&key, False)
        if self.by == BY_INTERFACE:
            memcpy(key.low, &c.interface[row], 2)
            return self.number_of(&key, False)
        walk_headers(&self.ports.table, packet, captured, link_type, &walk)
        if self.by == BY_VLAN:
            if walk.vlan_count == 0:
                return IN_REST
            key.vlan_count = min(walk.vlan_count, 4)
            memcpy(key.vlan, walk.vlan, 2 * key.vlan_count)
            return self.number_of(&key, False)
        ip = &walk.inner if self.inner and walk.depth > 1 else &walk.outer
        if ip.version == 0:
            return IN_REST
        key.version = ip.version
        if self.by == BY_HOST:
            put_address(key.low, ip.target, ip.version)
            second[0] = self.number_of(&key, False)
            put_address(key.low, ip.source, ip.version)
            return self.number_of(&key, False)
        return self.flow_of(&walk, ip, &key)

    cdef uint32_t flow_of(self, Walk *walk, const IpHeader *ip, Key *key) noexcept nogil:
        """A later fragment goes where its first one went, if that was seen; otherwise to the flow without ports."""
        cdef uint64_t name = 0
        cdef Fragment *fragment = NULL
        cdef uint32_t number
        if ip.flags & FLAG_FRAGMENT:
            name = fragment_name(ip, self.secret)
            fragment = &self.fragments[(name >> 20) % FRAGMENTS]
            if ip.fragment_offset and fragment.name == name:
                return fragment.value
        put_address(key.low, ip.source, ip.version)
        put_address(key.high, ip.target, ip.version)
        key.protocol = ip.protocol
        if ip.flags & FLAG_PORTS and not ip.fragment_offset:
            key.ports = 1
            key.low_port, key.high_port = ip.source_port, ip.target_port
        key.vlan_count = min(walk.vlan_count, 4)
        memcpy(key.vlan, walk.vlan, 2 * key.vlan_count)
        number = self.number_of(key, ordered(key))
        if fragment != NULL and ip.fragment_offset == 0:
            fragment.name, fragment.value = name, number
        return number

    cdef uint32_t number_of(self, const Key *key, bint turned) noexcept nogil:
        """The key's number; a new one if it is new and there is one left, or else that of the rest."""
        cdef uint64_t hash = hash_bytes(<const uint8_t *> key, KEY_WORDS, self.secret) | 1
        cdef uint64_t at = hash & self.mask
        while self.slots[at].hash and (self.slots[at].hash != hash or memcmp(&self.slots[at].key, key, 8 * KEY_WORDS)):
            at = (at + 1) & self.mask  # at most half of the slots are used
        if self.slots[at].hash:
            return self.slots[at].number
        if self.used == self.files_max:
            self.beyond += 1
            return IN_REST
        self.used += 1
        self.slots[at].hash, self.slots[at].number = hash, self.used
        memcpy(&self.slots[at].key, key, sizeof(Key))
        self.keep(key, turned)
        return self.used

    cdef void keep(self, const Key *key, bint turned) noexcept with gil:
        self.note(key, turned)

    cdef int note(self, const Key *key, bint turned) except -1:
        cdef list vlans = []
        cdef int i
        low = ((<const char *> key.low)[:16], key.low_port)
        high = ((<const char *> key.high)[:16], key.high_port)
        for i in range(key.vlan_count):
            vlans.append(key.vlan[i])
        if turned:
            low, high = high, low
        self.made.append((self.used, key.version, key.protocol, key.ports != 0, low, high, tuple(vlans)))
        return 0


cdef bint ordered(Key *key) noexcept nogil:
    """Puts the ends of a flow in order. Returns whether they changed places."""
    cdef uint8_t[16] address
    cdef int order = memcmp(key.low, key.high, 16)
    if order < 0 or (order == 0 and key.low_port <= key.high_port):
        return False
    memcpy(address, key.low, 16)
    memcpy(key.low, key.high, 16)
    memcpy(key.high, address, 16)
    key.low_port, key.high_port = key.high_port, key.low_port
    return True
