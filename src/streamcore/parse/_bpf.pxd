# The classic BPF machine, seen from C.
from libc.stdint cimport uint8_t, uint32_t

cdef struct Instruction:
    uint32_t operation
    uint32_t k
    uint32_t compared        # fused: the constant to compare with
    uint32_t when_true       # absolute targets; a plain jump uses when_true
    uint32_t when_false

cdef class Program:
    cdef Instruction *instructions
    cdef Py_ssize_t count
    cdef int decode(self, Py_ssize_t at, int code, uint32_t when_true, uint32_t when_false, uint32_t k) except -1
    cdef int fuse(self) except -1

# What a program returns for a packet; 0: rejected. No byte at or beyond `captured` is read.
cdef uint32_t run(const Instruction *program, const uint8_t *packet, uint32_t captured, uint32_t wire_length) noexcept nogil
