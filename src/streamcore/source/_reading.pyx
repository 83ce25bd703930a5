"""Reads bytes of a capture straight into chunks, and carries the end of one chunk to the next. _records.pyx finds the
packets in them; nothing here opens a file or decompresses.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from posix.unistd cimport read

from streamcore.core.packets cimport Chunk

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout_ms)
    short POLLIN


cdef class Tail:
    """The bytes of a chunk after its last whole record, kept for the next chunk."""

    cdef readonly Py_ssize_t size
    cdef uint8_t *bytes
    cdef Py_ssize_t room

    def __dealloc__(self):
        free(self.bytes)

    def keep(self, Chunk chunk not None, Py_ssize_t start, Py_ssize_t stop):
        """Copies data[start:stop] of the chunk."""
        if not 0 <= start <= stop <= chunk.arena.data_bytes_max:
            raise ValueError(f"tail of {start}:{stop}")
        if stop - start > self.room:
            free(self.bytes)
            self.room = 0
            self.bytes = <uint8_t *> malloc(stop - start)
            if self.bytes == NULL:
                raise MemoryError("no memory for the end of a chunk")
            self.room = stop - start
        memcpy(self.bytes, chunk.columns.data + start, stop - start)
        self.size = stop - start

    def put(self, Chunk chunk not None):
        """Copies the kept bytes to the beginning of a chunk. Returns their number."""
        if self.size > chunk.arena.data_bytes_max:
            raise ValueError(f"a tail of {self.size} bytes in a chunk of {chunk.arena.data_bytes_max}")
        memcpy(chunk.columns.data, self.bytes, self.size)
        return self.size


def block_at(Chunk chunk not None, Py_ssize_t start, Py_ssize_t size):
    """bytes: a copy of data[start:start+size]."""
    if not 0 <= start <= start + size <= chunk.arena.data_bytes_max:
        raise ValueError(f"block of {size} bytes at {start}")
    return (<const char *> chunk.columns.data)[start:start + size]


def read_into(Chunk chunk not None, Py_ssize_t start, Py_ssize_t stop, int fd):
    """Reads from a regular file into data[start:stop] until it is full or the file ends. Returns the bytes read. Raises
    OSError."""
    cdef Py_ssize_t at = start, got
    if not 0 <= start <= stop <= chunk.arena.data_bytes_max:
        raise ValueError(f"read into {start}:{stop}")
    while at < stop:
        with nogil:
            got = read(fd, chunk.columns.data + at, stop - at)
        if got == 0:
            break
        if got < 0:
            if errno == EINTR:
                PyErr_CheckSignals()
                continue
            raise OSError(errno, "cannot read")
        at += got
    return at - start


def read_ready(Chunk chunk not None, Py_ssize_t start, Py_ssize_t stop, int fd, int timeout_ms):
    """Reads once from a pipe, terminal or socket into data[start:stop], when bytes are available.

    Returns the bytes read, 0 at the end, -1 if none came within timeout_ms. Raises OSError.
    """
    cdef Py_ssize_t got
    cdef int ready
    cdef pollfd wait
    if not 0 <= start < stop <= chunk.arena.data_bytes_max:
        raise ValueError(f"read into {start}:{stop}")
    wait.fd = fd
    wait.events = POLLIN
    wait.revents = 0
    with nogil:
        ready = poll(&wait, 1, timeout_ms)
        got = read(fd, chunk.columns.data + start, stop - start) if ready > 0 else -1
    if got >= 0:
        return got
    if ready == 0:
        return -1
    if errno == EINTR or errno == EAGAIN:
        PyErr_CheckSignals()
        return -1
    raise OSError(errno, "cannot read")
