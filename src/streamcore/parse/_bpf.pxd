# The classic BPF machine, seen from C. `run` is inline because the loops of _match.pyx spend their time in it.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    MEMORY = 16              # scratch words
    INSTRUCTIONS_MAX = 65536
    STEPS_MAX = 1 << 20      # a loop over headers ends long before, when a load leaves the packet

# What an instruction does, decoded once. A fused instruction does two things: it loads from a fixed offset and compares with a constant.
cdef enum:
    RETURN_K, RETURN_A
    LOAD_32, LOAD_16, LOAD_8, LOAD_32_X, LOAD_16_X, LOAD_8_X, LOAD_LENGTH, LOAD_K, LOAD_MEMORY
    LOADX_K, LOADX_MEMORY, LOADX_LENGTH, LOADX_HEADER, STORE_A, STORE_X
    JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_NOT_LESS, JUMP_BITS, JUMP_EQUAL_X, JUMP_GREATER_X, JUMP_NOT_LESS_X, JUMP_BITS_X
    ADD, SUBTRACT, MULTIPLY, DIVIDE, MODULO, AND, OR, XOR, SHIFT_LEFT, SHIFT_RIGHT
    ADD_X, SUBTRACT_X, MULTIPLY_X, DIVIDE_X, MODULO_X, AND_X, OR_X, XOR_X, SHIFT_LEFT_X, SHIFT_RIGHT_X
    NEGATE, A_TO_X, X_TO_A
    LOAD_32_EQUAL, LOAD_16_EQUAL, LOAD_8_EQUAL, LOAD_16_BITS

cdef struct Instruction:
    uint32_t operation
    uint32_t k
    uint32_t compared        # fused: the constant to compare with
    uint32_t when_true       # absolute; a plain jump uses when_true
    uint32_t when_false

cdef class Program:
    cdef Instruction *instructions
    cdef Py_ssize_t count
    cdef int decode(self, Py_ssize_t at, int code, uint32_t when_true, uint32_t when_false, uint32_t k) except -1
    cdef int fuse(self) except -1


cdef inline uint16_t network16(const uint8_t *at) noexcept nogil:
    return <uint16_t> ((at[0] << 8) | at[1])


cdef inline uint32_t network32(const uint8_t *at) noexcept nogil:
    return (<uint32_t> at[0] << 24) | (<uint32_t> at[1] << 16) | (<uint32_t> at[2] << 8) | at[3]


cdef inline bint inside(uint64_t at, uint32_t size, uint32_t captured) noexcept nogil:
    return at + size <= captured


cdef inline uint32_t run(const Instruction *program, const uint8_t *packet, uint32_t captured, uint32_t wire_length) noexcept nogil:
    """What a program returns for a packet; 0: rejected. `program` is validated, so `at` always points to one of its instructions. Every load is
    checked against `captured`."""
    cdef uint32_t[MEMORY] memory
    cdef const Instruction *i
    cdef uint32_t at = 0, a = 0, x = 0, operation, step
    cdef uint64_t place
    for step in range(MEMORY):
        memory[step] = 0
    for step in range(STEPS_MAX):
        i = program + at
        operation = i.operation
        at += 1
        if operation == LOAD_16_EQUAL:
            if not inside(i.k, 2, captured):
                return 0
            a = network16(packet + i.k)
            at = i.when_true if a == i.compared else i.when_false
        elif operation == LOAD_8_EQUAL:
            if not inside(i.k, 1, captured):
                return 0
            a = packet[i.k]
            at = i.when_true if a == i.compared else i.when_false
        elif operation == LOAD_32_EQUAL:
            if not inside(i.k, 4, captured):
                return 0
            a = network32(packet + i.k)
            at = i.when_true if a == i.compared else i.when_false
        elif operation == LOAD_16_BITS:
            if not inside(i.k, 2, captured):
                return 0
            a = network16(packet + i.k)
            at = i.when_true if a & i.compared else i.when_false
        elif operation == RETURN_K:
            return i.k
        elif operation == RETURN_A:
            return a
        elif operation == LOAD_32:
            if not inside(i.k, 4, captured):
                return 0
            a = network32(packet + i.k)
        elif operation == LOAD_16:
            if not inside(i.k, 2, captured):
                return 0
            a = network16(packet + i.k)
        elif operation == LOAD_8:
            if not inside(i.k, 1, captured):
                return 0
            a = packet[i.k]
        elif operation == LOAD_32_X:
            place = <uint64_t> x + i.k
            if not inside(place, 4, captured):
                return 0
            a = network32(packet + place)
        elif operation == LOAD_16_X:
            place = <uint64_t> x + i.k
            if not inside(place, 2, captured):
                return 0
            a = network16(packet + place)
        elif operation == LOAD_8_X:
            place = <uint64_t> x + i.k
            if not inside(place, 1, captured):
                return 0
            a = packet[place]
        elif operation == LOADX_HEADER:
            if not inside(i.k, 1, captured):
                return 0
            x = (packet[i.k] & 15) << 2
        elif operation == LOAD_LENGTH:
            a = wire_length
        elif operation == LOAD_K:
            a = i.k
        elif operation == LOAD_MEMORY:
            a = memory[i.k]
        elif operation == LOADX_K:
            x = i.k
        elif operation == LOADX_MEMORY:
            x = memory[i.k]
        elif operation == LOADX_LENGTH:
            x = wire_length
        elif operation == STORE_A:
            memory[i.k] = a
        elif operation == STORE_X:
            memory[i.k] = x
        elif operation == JUMP:
            at = i.when_true
        elif operation == JUMP_EQUAL:
            at = i.when_true if a == i.k else i.when_false
        elif operation == JUMP_GREATER:
            at = i.when_true if a > i.k else i.when_false
        elif operation == JUMP_NOT_LESS:
            at = i.when_true if a >= i.k else i.when_false
        elif operation == JUMP_BITS:
            at = i.when_true if a & i.k else i.when_false
        elif operation == JUMP_EQUAL_X:
            at = i.when_true if a == x else i.when_false
        elif operation == JUMP_GREATER_X:
            at = i.when_true if a > x else i.when_false
        elif operation == JUMP_NOT_LESS_X:
            at = i.when_true if a >= x else i.when_false
        elif operation == JUMP_BITS_X:
            at = i.when_true if a & x else i.when_false
        elif operation == ADD:
            a += i.k
        elif operation == SUBTRACT:
            a -= i.k
        elif operation == MULTIPLY:
            a *= i.k
        elif operation == DIVIDE:
            a = a // i.k
        elif operation == MODULO:
            a = a % i.k
        elif operation == AND:
            a &= i.k
        elif operation == OR:
            a |= i.k
        elif operation == XOR:
            a ^= i.k
        elif operation == SHIFT_LEFT:
            a = a << i.k if i.k < 32 else 0
        elif operation == SHIFT_RIGHT:
            a = a >> i.k if i.k < 32 else 0
        elif operation == ADD_X:
            a += x
        elif operation == SUBTRACT_X:
            a -= x
        elif operation == MULTIPLY_X:
            a *= x
        elif operation == DIVIDE_X:
            if x == 0:
                return 0
            a = a // x
        elif operation == MODULO_X:
            if x == 0:
                return 0
            a = a % x
        elif operation == AND_X:
            a &= x
        elif operation == OR_X:
            a |= x
        elif operation == XOR_X:
            a ^= x
        elif operation == SHIFT_LEFT_X:
            a = a << x if x < 32 else 0
        elif operation == SHIFT_RIGHT_X:
            a = a >> x if x < 32 else 0
        elif operation == NEGATE:
            a = 0 - a
        elif operation == A_TO_X:
            x = a
        elif operation == X_TO_A:
            a = x
        else:
            return 0  # unreachable: decode allows no other
    return 0
