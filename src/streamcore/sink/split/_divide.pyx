"""Divides Outgoings by the numbers of the files that their packets belong into: arrays, one crossing for a batch.

_keys.pyx and _media.pyx say which numbers.
"""

import numpy as np

cimport numpy as cnp
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from streamcore.core.packets cimport Columns, Outgoing, Segment, outgoing_data

cnp.import_array()


cdef class Divider:
    """Sorts packets by file. files_max: file numbers are below it."""

    cdef uint32_t files_max
    cdef uint32_t *count     # for each file, of the batch at hand; all zero between two calls

    def __init__(self, uint32_t files_max):
        self.files_max = files_max
        self.count = <uint32_t *> calloc(files_max + 1, sizeof(uint32_t))
        if self.count == NULL:
            raise MemoryError(f"no memory for {files_max} files")

    def __dealloc__(self):
        free(self.count)

    def divide(self, Outgoing out not None, const uint32_t[::1] places not None, const uint32_t[::1] files not None):
        """(Outgoing, files, stops): the packets at these places, sorted by file, each file's in order; the packets of
        files[i] end before stops[i]. A place may come several times. Raises ValueError for a place or file that is not."""
        cdef Columns *c = &out.batch.columns
        cdef Py_ssize_t i, count = places.shape[0], there = out.stop - out.start if out.unchanged else out.count
        cdef uint32_t file, place, at, row, seen = 0
        cdef const uint8_t *data = outgoing_data(c, out)
        if files.shape[0] != count:
            raise ValueError(f"{files.shape[0]} files for {count} packets")
        for i in range(count):
            if files[i] >= self.files_max or places[i] >= there:
                raise ValueError(f"packet {places[i]} of {there} for file {files[i]} of {self.files_max}")
        cdef Outgoing sorted = Outgoing(out.batch, 0, 0, count=count)
        cdef uint32_t[::1] order = np.empty(count, np.uint32)
        cdef uint32_t[::1] stops
        with nogil:
            for i in range(count):
                file = files[i]
                if self.count[file] == 0:
                    order[seen] = file
                    seen += 1
                self.count[file] += 1
            at = 0
            for i in range(seen):
                file = order[i]
                row = self.count[file]
                self.count[file] = at
                at += row
            for i in range(count):
                place = places[i]
                at = self.count[files[i]]
                self.count[files[i]] += 1
                if out.unchanged:
                    row = c.rows[out.start + place] if out.arranged else <uint32_t> (out.start + place)
                    sorted.row[at] = row
                    sorted.packet[at] = <uint8_t *> data + c.offset[row]
                    sorted.captured_length[at] = c.captured_length[row]
                    sorted.wire_length[at] = c.wire_length[row]
                    sorted.whole[at] = 1
                else:
                    sorted.row[at] = out.row[place]
                    sorted.packet[at] = out.packet[place]
                    sorted.captured_length[at] = out.captured_length[place]
                    sorted.wire_length[at] = out.wire_length[place]
                    sorted.whole[at] = out.whole[place]
        stops = np.empty(seen, np.uint32)
        for i in range(seen):
            stops[i] = self.count[order[i]]
            self.count[order[i]] = 0
        sorted.comments = out.comments
        sorted.hold = out.hold
        return sorted, np.asarray(order)[:seen], np.asarray(stops)


def part_of(Outgoing out not None, Py_ssize_t start, Py_ssize_t stop):
    """The places start..stop of a divided Outgoing as one of its own. Raises ValueError if it has not so many."""
    if out.unchanged or not 0 <= start <= stop <= out.count:
        raise ValueError(f"packets {start} to {stop} of an Outgoing that has not so many")
    cdef Py_ssize_t count = stop - start
    cdef Outgoing part = Outgoing(out.batch, 0, 0, count=count)
    memcpy(part.row, out.row + start, count * sizeof(uint32_t))
    memcpy(part.packet, out.packet + start, count * sizeof(uint8_t *))
    memcpy(part.captured_length, out.captured_length + start, count * sizeof(uint32_t))
    memcpy(part.wire_length, out.wire_length + start, count * sizeof(uint32_t))
    memcpy(part.whole, out.whole + start, count)
    if out.comments:
        rows = {part.row[i] for i in range(count)}
        part.comments = {row: texts for row, texts in out.comments.items() if row in rows}
    part.hold = out.hold
    return part


def by_stream(Outgoing out not None, list segments not None):
    """(places, streams uint32[n]): the stream of each packet that leaves, from the segments that it came in. A packet
    of none of them is of stream 0."""
    cdef Columns *c = &out.batch.columns
    cdef Py_ssize_t i, count = out.stop - out.start if out.unchanged else out.count
    cdef uint8_t[::1] of_row = np.zeros(out.batch.count + 1, np.uint8)
    cdef uint32_t[::1] places = np.empty(count, np.uint32)
    cdef uint32_t[::1] streams = np.empty(count, np.uint32)
    cdef uint32_t row, found = 0
    cdef Segment segment
    for segment in segments:
        if segment.batch is not out.batch:
            raise ValueError("a segment of another batch")
        with nogil:
            for i in range(segment.start, segment.stop):
                of_row[c.rows[i] if segment.batch.arranged else <uint32_t> i] = <uint8_t> segment.stream
    with nogil:
        for i in range(count):
            if not out.unchanged:
                if out.packet[i] == NULL:
                    continue
                row = out.row[i]
            else:
                row = c.rows[out.start + i] if out.arranged else <uint32_t> (out.start + i)
            places[found] = <uint32_t> i
            streams[found] = of_row[row]
            found += 1
    return np.asarray(places)[:found], np.asarray(streams)[:found]


def link_type_of(Outgoing out not None, Py_ssize_t start, Py_ssize_t stop, int link_type):
    """The first link type among the places start..stop of a divided Outgoing that is another one; -1: there is none."""
    cdef Columns *c = &out.batch.columns
    cdef Py_ssize_t i
    cdef int found = -1
    if out.unchanged or not 0 <= start <= stop <= out.count:
        raise ValueError(f"packets {start} to {stop} of an Outgoing that has not so many")
    with nogil:
        for i in range(start, stop):
            if out.batch.chunk.arena.control.link_type[c.interface[out.row[i]]] != link_type:
                found = out.batch.chunk.arena.control.link_type[c.interface[out.row[i]]]
                break
    return found
