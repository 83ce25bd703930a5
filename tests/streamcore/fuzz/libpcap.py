"""libpcap's own machine for classic BPF, through ctypes: the oracle of the filter."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Sequence

Instruction = tuple[int, int, int, int]
JUMP = 0x05
SCRATCH = (0x60, 0x61)  # loads from it


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class Machine:
    """Raises OSError where there is no libpcap."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("pcap")
        if name is None:
            raise OSError("no libpcap on this machine: install tcpdump")
        self._library = ctypes.CDLL(name)
        self._library.bpf_filter.restype = ctypes.c_uint
        self._library.bpf_filter.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint)
        self._library.bpf_validate.argtypes = (ctypes.c_void_p, ctypes.c_int)

    def may_run(self, program: Sequence[Instruction]) -> bool:
        """Whether libpcap takes the program and gives the same every time: no jump that may not end, no scratch memory,
        which it does not clear.
        """
        if any((code == JUMP and k >= 1 << 31) or code in SCRATCH for code, _, _, k in program):
            return False
        return bool(self._library.bpf_validate(self._made(program), len(program)))

    def matches(self, program: Sequence[Instruction], packet: bytes) -> bool:
        return bool(self._library.bpf_filter(self._made(program), packet, len(packet), len(packet)))

    @staticmethod
    def _made(program: Sequence[Instruction]) -> ctypes.Array[_Instruction]:
        return (_Instruction * len(program))(*program)
