"""Translates a BPF program for captures into one for a packet socket, as libpcap does for tcpdump.

The kernel's packets differ from a capture's in two ways: their outermost VLAN tag is beside them, so an expression says
what it says of the packet without it; and packets of cooked sockets have no link header in front. Instructions:
linux/bpf_common.h, linux/filter.h (SKF_AD_…).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k

LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0x20, 0x28, 0x30  # from a fixed offset: BPF_LD | BPF_ABS
LOAD_AT_X = (0x40, 0x48, 0x50)  # BPF_LD | BPF_IND
LOAD_HEADER_LENGTH = 0xB1  # BPF_LDX | BPF_MSH
LOAD_LENGTH = (0x80, 0x81)  # of the packet
JUMP_IF_EQUAL = 0x15
RETURN_K, RETURN_A = 0x06, 0x16

ANCILLARY = 0xFFFFF000  # SKF_AD_OFF: loads from here on read facts about the packet, not its bytes
PROTOCOL, PACKET_TYPE, INTERFACE_INDEX, HARDWARE_TYPE = 0, 4, 8, 28
OUTGOING = 4  # PACKET_OUTGOING
COOKED_HEAD = 20
COOKED_FIELDS = {0: PROTOCOL, 4: INTERFACE_INDEX, 8: HARDWARE_TYPE, 10: PACKET_TYPE}  # offset in SLL2 -> ancillary load

REJECT_ALL: list[Instruction] = [(RETURN_K, 0, 0, 0)]


class NotForCooked(Exception):
    """The program reads something that the kernel does not know about a packet without its link header."""


def for_socket(
    program: Sequence[Instruction] | None, snap_length: int, *, cooked: bool = False, loopback: int = 0
) -> tuple[list[Instruction], bool]:
    """(the program to attach, whether it lets through exactly what the given one accepts). Otherwise it lets all
    packets through, as it does with None; the run must look at them again. They are truncated to snap_length bytes.

    loopback: the index of an interface whose outgoing packets are rejected, because they also come in.
    """
    body = list(program) if program is not None else [(RETURN_K, 0, 0, snap_length)]
    exact = program is not None
    if cooked and program is not None:
        try:
            body = [_without_link_header(instruction) for instruction in body]
        except NotForCooked:
            body, exact = [(RETURN_K, 0, 0, snap_length)], False
    body = [(code, jt, jf, snap_length if code == RETURN_K and k else k) for code, jt, jf, k in body]
    head: list[Instruction] = []
    if loopback:
        head += [
            (LOAD_WORD, 0, 0, ANCILLARY + PACKET_TYPE),
            (JUMP_IF_EQUAL, 0, 3, OUTGOING),
            (LOAD_WORD, 0, 0, ANCILLARY + INTERFACE_INDEX),
            (JUMP_IF_EQUAL, 0, 1, loopback),
            (RETURN_K, 0, 0, 0),
        ]
    return head + body, exact


def pack(program: Sequence[Instruction]) -> bytes:
    """The instructions as struct sock_filter."""
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def _without_link_header(instruction: Instruction) -> Instruction:
    """Translates an instruction for an SLL2 packet to one for a packet that begins after the SLL2 header."""
    code, jt, jf, k = instruction
    if code in (LOAD_WORD, LOAD_HALF, LOAD_BYTE) and k < COOKED_HEAD:
        if k not in COOKED_FIELDS:
            raise NotForCooked
        return LOAD_WORD, jt, jf, ANCILLARY + COOKED_FIELDS[k]
    if code in LOAD_LENGTH:
        raise NotForCooked
    if code in (LOAD_WORD, LOAD_HALF, LOAD_BYTE, LOAD_HEADER_LENGTH, *LOAD_AT_X):
        if k < COOKED_HEAD:
            raise NotForCooked
        return code, jt, jf, k - COOKED_HEAD
    return instruction
