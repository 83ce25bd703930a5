"""Translates a BPF program for captures into one for a packet socket. The run filters the kernel's packets again, so
the translated program may let too many packets through, but never too few.

The kernel's packets differ from a capture's in two ways: the kernel may have removed a VLAN tag, and packets of cooked
sockets have no link header in front. Instructions: linux/bpf_common.h, linux/filter.h (SKF_AD_…).
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
PROTOCOL, PACKET_TYPE, INTERFACE_INDEX, HARDWARE_TYPE, TAG_PRESENT = 0, 4, 8, 28, 48
OUTGOING = 4  # PACKET_OUTGOING
COOKED_HEAD = 20
COOKED_FIELDS = {0: PROTOCOL, 4: INTERFACE_INDEX, 8: HARDWARE_TYPE, 10: PACKET_TYPE}  # offset in SLL2 -> ancillary load

REJECT_ALL: list[Instruction] = [(RETURN_K, 0, 0, 0)]


class NotForCooked(Exception):
    """The program reads something that the kernel does not know about a packet without its link header."""


def for_socket(
    program: Sequence[Instruction] | None, snap_length: int, *, cooked: bool = False, loopback: int = 0
) -> list[Instruction]:
    """The program to attach. Tagged packets pass; others pass if the program (None: any) accepts them. All are
    truncated to snap_length bytes.

    loopback: the index of an interface whose outgoing packets are rejected, because they also come in.
    """
    body = list(program) if program is not None else [(RETURN_K, 0, 0, snap_length)]
    if cooked and program is not None:
        try:
            body = [_without_link_header(instruction) for instruction in body]
        except NotForCooked:
            body = [(RETURN_K, 0, 0, snap_length)]
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
    if program is not None:
        head += [
            (LOAD_WORD, 0, 0, ANCILLARY + TAG_PRESENT),
            (JUMP_IF_EQUAL, 1, 0, 0),
            (RETURN_K, 0, 0, snap_length),
        ]
    return head + body


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
