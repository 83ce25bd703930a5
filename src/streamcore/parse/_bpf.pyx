"""The classic BPF machine: runs a validated program on one packet, without the GIL.

The semantics are those of libpcap's own interpreter (McCanne and Jacobson 1993; the instruction set is in libpcap's bpf.h). A load outside the
captured bytes rejects the packet, and so does a division by zero. `len` is the length on the wire. A jump may go backwards only in the form that
libpcap generates for "protochain", and a packet may take STEPS_MAX instructions. This file does not compile expressions; _match.pyx runs
programs over a batch.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free

# bpf.h codes -> operations. Any other code is refused.
OPERATIONS = {
    0x06: RETURN_K, 0x16: RETURN_A,
    0x20: LOAD_32, 0x28: LOAD_16, 0x30: LOAD_8, 0x40: LOAD_32_X, 0x48: LOAD_16_X, 0x50: LOAD_8_X,
    0x80: LOAD_LENGTH, 0x00: LOAD_K, 0x60: LOAD_MEMORY,
    0x01: LOADX_K, 0x61: LOADX_MEMORY, 0x81: LOADX_LENGTH, 0xB1: LOADX_HEADER, 0x02: STORE_A, 0x03: STORE_X,
    0x05: JUMP, 0x15: JUMP_EQUAL, 0x25: JUMP_GREATER, 0x35: JUMP_NOT_LESS, 0x45: JUMP_BITS,
    0x1D: JUMP_EQUAL_X, 0x2D: JUMP_GREATER_X, 0x3D: JUMP_NOT_LESS_X, 0x4D: JUMP_BITS_X,
    0x04: ADD, 0x14: SUBTRACT, 0x24: MULTIPLY, 0x34: DIVIDE, 0x44: OR, 0x54: AND, 0x64: SHIFT_LEFT, 0x74: SHIFT_RIGHT,
    0x94: MODULO, 0xA4: XOR,
    0x0C: ADD_X, 0x1C: SUBTRACT_X, 0x2C: MULTIPLY_X, 0x3C: DIVIDE_X, 0x4C: OR_X, 0x5C: AND_X, 0x6C: SHIFT_LEFT_X, 0x7C: SHIFT_RIGHT_X,
    0x9C: MODULO_X, 0xAC: XOR_X, 0x84: NEGATE, 0x07: A_TO_X, 0x87: X_TO_A,
}
FUSED = {(LOAD_32, JUMP_EQUAL): LOAD_32_EQUAL, (LOAD_16, JUMP_EQUAL): LOAD_16_EQUAL, (LOAD_8, JUMP_EQUAL): LOAD_8_EQUAL,
         (LOAD_16, JUMP_BITS): LOAD_16_BITS}
JUMPS = (JUMP_EQUAL, JUMP_GREATER, JUMP_NOT_LESS, JUMP_BITS, JUMP_EQUAL_X, JUMP_GREATER_X, JUMP_NOT_LESS_X, JUMP_BITS_X)


class BadProgram(Exception):
    """The program must not be run."""


cdef class Program:
    """Program([(code, jt, jf, k), …]): classic BPF, validated. Raises BadProgram.

    Validated means: every code is known, every jump lands on an instruction, scratch memory is addressed within bounds, no constant divisor is
    0, and the last instruction returns. So no packet can make the machine leave the program.
    """

    def __init__(self, list program):
        cdef Py_ssize_t i
        if not 1 <= len(program) <= INSTRUCTIONS_MAX:
            raise BadProgram(f"{len(program)} instructions")
        self.count = len(program)
        self.instructions = <Instruction *> calloc(self.count, sizeof(Instruction))
        if self.instructions == NULL:
            raise MemoryError
        for i, (code, when_true, when_false, k) in enumerate(program):
            self.decode(i, code, when_true, when_false, k)
        if self.instructions[self.count - 1].operation > RETURN_A:
            raise BadProgram("the last instruction does not return")
        self.fuse()

    def __dealloc__(self):
        free(self.instructions)

    def __len__(self):
        return self.count

    cdef int decode(self, Py_ssize_t at, int code, uint32_t when_true, uint32_t when_false, uint32_t k) except -1:
        cdef Instruction *into = self.instructions + at
        cdef Py_ssize_t target
        operation = OPERATIONS.get(code)
        if operation is None:
            raise BadProgram(f"instruction {at}: no such code 0x{code:x}")
        into.operation = operation
        into.k = k
        if operation in (LOAD_MEMORY, LOADX_MEMORY, STORE_A, STORE_X) and k >= MEMORY:
            raise BadProgram(f"instruction {at}: scratch word {k}")
        if operation in (DIVIDE, MODULO) and k == 0:
            raise BadProgram(f"instruction {at}: division by 0")
        if operation == JUMP:
            target = at + 1 + <int32_t> k  # signed, for protochain's loops
            if not 0 <= target < self.count:
                raise BadProgram(f"instruction {at}: jump to {target}")
            into.when_true = <uint32_t> target
        elif operation in JUMPS:
            if at + 1 + max(when_true, when_false) >= self.count:
                raise BadProgram(f"instruction {at}: jump out of the program")
            into.when_true = <uint32_t> (at + 1 + when_true)
            into.when_false = <uint32_t> (at + 1 + when_false)
        return 0

    cdef int fuse(self) except -1:
        """Fuse each load with the comparison after it, as most programs have them. The comparison also stays in place, as a jump target."""
        cdef Py_ssize_t i
        for i in range(self.count - 1):
            fused = FUSED.get((self.instructions[i].operation, self.instructions[i + 1].operation))
            if fused is not None:
                self.instructions[i].operation = fused
                self.instructions[i].compared = self.instructions[i + 1].k
                self.instructions[i].when_true = self.instructions[i + 1].when_true
                self.instructions[i].when_false = self.instructions[i + 1].when_false
        return 0

    def match(self, const uint8_t[::1] packet, uint32_t wire_length):
        """int: what the program returns for one packet; 0: rejected. Meant for a few packets."""
        cdef uint8_t nothing = 0
        return run(self.instructions, &packet[0] if packet.shape[0] else &nothing, <uint32_t> packet.shape[0], wire_length)
