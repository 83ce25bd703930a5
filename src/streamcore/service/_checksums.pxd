# Adjusting the checksums of a rewritten packet, seen from C.
from libc.stdint cimport uint32_t

from streamcore.headers._walk cimport LAYERS_MAX, Walk
from streamcore.service._fields cimport Rewrite

cdef struct Places:
    # What each layer's checksum needs to know of the IP header around it.
    int[LAYERS_MAX] ip            # number of its layer; -1: there is none
    uint32_t[LAYERS_MAX] source   # of IP layers: where the addresses for the pseudo-header are
    uint32_t[LAYERS_MAX] target

cdef void adjust_layers(Rewrite *rewrite, const Walk *walk, const Places *places) noexcept nogil
