"""BPF expressions -> classic BPF instructions, by libpcap.

The libpcap is the one in cypcap, otherwise the system's through ctypes; it is loaded when the first expression is
compiled. Nothing here runs the instructions: _bpf.pyx does.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable
from functools import cache
from typing import Any

SNAP_LENGTH = 262_144
ETHERNET, LIVE_BUFFER_BYTES = 1, 1 << 18
NETMASK = 0  # as in tcpdump -r: a capture file does not say which network it comes from

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k
Compiler = Callable[[str, int], list[Instruction]]

# LINKTYPE_ values whose DLT_ number differs on Linux. All others are equal.
DLT_OF_LINK_TYPE = {14: 12, 100: 11, 101: 12, 102: 15, 103: 16, 106: 19}


class CompileError(Exception):
    """libpcap refuses the expression; the text is libpcap's."""


class NoLibpcap(Exception):
    """There is no libpcap on this machine."""


def compile_expression(expression: str, link_type: int) -> list[Instruction]:
    """The program for packets of `link_type` (a LINKTYPE_ value). Raises CompileError, NoLibpcap."""
    return _compiler()(expression, DLT_OF_LINK_TYPE.get(link_type, link_type))


@cache
def _compiler() -> Compiler:
    try:
        import cypcap
    except ImportError:
        return _system_compiler()

    def compile_bundled(expression: str, dlt: int) -> list[Instruction]:
        handle = cypcap.open_dead(dlt, SNAP_LENGTH)
        try:
            return _compiled(handle, expression)
        finally:
            handle.close()

    return compile_bundled


def compile_live(expression: str, interface: str) -> list[Instruction] | None:
    """The program for packets as the kernel has them on this Ethernet interface, the outermost VLAN tag beside them.
    Only libpcap's handle of a live interface makes it, which needs CAP_NET_RAW; None if there is none. Raises
    CompileError.
    """
    try:
        import cypcap

        handle = cypcap.create(interface)
    except (ImportError, OSError):
        return None
    try:
        handle.set_snaplen(SNAP_LENGTH)
        handle.set_buffer_size(LIVE_BUFFER_BYTES)
        handle.activate()
        if int(handle.datalink()) != ETHERNET:
            return None
        return _compiled(handle, expression)
    except cypcap.Error:
        return None
    finally:
        handle.close()


def _compiled(handle: Any, expression: str) -> list[Instruction]:
    import cypcap

    try:
        return list(handle.compile(expression, True, NETMASK))
    except cypcap.Error as error:
        raise CompileError(_words(str(error.args[-1]))) from None


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


def _system_compiler() -> Compiler:
    name = ctypes.util.find_library("pcap")
    if name is None:
        raise NoLibpcap("filters need libpcap: install the Python package cypcap, or the system's libpcap")
    library = ctypes.CDLL(name)
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = library.pcap_close.argtypes = (ctypes.c_void_p,)
    library.pcap_close.restype = library.pcap_freecode.restype = None
    library.pcap_freecode.argtypes = (ctypes.POINTER(_Program),)
    library.pcap_compile.argtypes = (
        ctypes.c_void_p, ctypes.POINTER(_Program), ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32,
    )  # fmt: skip

    def compile_system(expression: str, dlt: int) -> list[Instruction]:
        handle = library.pcap_open_dead(dlt, SNAP_LENGTH)
        if not handle:
            raise CompileError(f"libpcap has no link type {dlt}")
        program = _Program()
        try:
            if library.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, NETMASK) < 0:
                raise CompileError(_words(library.pcap_geterr(handle).decode(errors="replace")))
            found = [(i.code, i.jt, i.jf, i.k) for i in program.instructions[: program.length]]
            library.pcap_freecode(ctypes.byref(program))
            return found
        finally:
            library.pcap_close(handle)

    return compile_system


def _words(message: str) -> str:
    """libpcap's message on one line, without the prefix of its syntax errors."""
    return " ".join(message.removeprefix("can't parse filter expression:").split())
