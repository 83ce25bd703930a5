# Where rows may end without dividing a fragmented datagram, seen from C.
from libc.stdint cimport uint32_t

from streamcore.core.packets cimport Columns, Control

cdef enum:
    DATAGRAMS_WINDOW = 256   # how many rows before the end are looked at

# The place, least <= place <= stop, at which rows ..stop (of columns.rows if arranged) are best divided: the last of those that divide the fewest
# of the datagrams seen in the last DATAGRAMS_WINDOW rows. stop, if these have no fragments.
cdef Py_ssize_t between_datagrams(const Columns *columns, const Control *control, bint arranged, Py_ssize_t least, Py_ssize_t stop) noexcept nogil
