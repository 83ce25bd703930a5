"""The filter keeps the packets that match a BPF expression. The classifier sorts packets by the first
one that they match.

libpcap compiles expressions (_libpcap.py); _match.pyx runs them over a whole batch.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from streamcore.core.errors import UsageError
from streamcore.core.packets import PacketBatch
from streamcore.headers import STANDARD_PORTS, UdpPorts
from streamcore.parse import _libpcap
from streamcore.parse._bpf import BadProgram, Program
from streamcore.parse._match import Matcher, link_types_of

# An expression is good if it is valid for one of these: Ethernet, raw IP, Linux cooked (both), 802.11 (with a radio
# header and without), PPP, BSD loopback, SS7 (two forms), USB.
PROBED_LINK_TYPES = (1, 101, 113, 276, 127, 105, 9, 0, 139, 143, 189)
REJECTS_ALL = "expression rejects all packets"
REJECT_ALL: list[_libpcap.Instruction] = [(0x06, 0, 0, 0)]
Choice = tuple[dict[int, Program], tuple[Program, Program] | None]  # as in Matcher
FRAME, IP_PACKET = 1, 101  # link types for what is in a tunnel

# Endings that may complete a beginning of an expression. They are tried in turn to find where a bad one goes wrong.
COMPLETIONS = (
    "",
    " tcp",
    " 1",
    " 10.0.0.1",
    " host 10.0.0.1",
    " 10",
    " 1-2",
    " 02:00:00:00:00:01",
    " proto 6",
    " 1 = 1",
    " = 1",
    "] = 1",
    " 1] = 1",
    " 0 = 1",
    " mgt",
    " 255.0.0.0",
    " port 1",
    "] + 1 = 1",
    ":1] = 1",
    "1 = 1",
    " 1 ] = 1",
    " beacon",
)
UNKNOWN_NAME = re.compile(r"unknown (?:\w+ )*'([^']+)'")
TOKEN = re.compile(r"\s*(\\?[A-Za-z0-9_.:/-]+|<=|>=|==|!=|<<|>>|&&|\|\||\S)")


class Filter:
    """Filter(expression)(batch) keeps the rows that match: it arranges the batch, unless all match.

    The expression is any that pcap-filter(7) describes. Raises UsageError, with a caret under the place where the
    expression goes wrong. If the expression is invalid for an interface's link type, no packet of that interface
    matches, and `misfits` says so. match: "inner" matches a packet in a tunnel by what is in the innermost one: its
    Ethernet frame, otherwise its IP packet. fragments_max: how many first fragments are remembered, whose later
    fragments follow them; 0: each fragment is matched alone. ports: which tunnels over UDP are tried. live: the kernel
    applies it (`live_instructions`), so it may be one that only matches packets whose VLAN tag is beside them.
    """

    def __init__(
        self,
        expression: str,
        match: str = "outer",
        fragments_max: int = 0,
        ports: UdpPorts = STANDARD_PORTS,
        live: bool = False,
    ) -> None:
        self.expression = expression
        self._says_vlan = "vlan" in TOKEN.findall(expression)
        self._live = live
        self._only_live = False  # no packet of a capture matches
        self.match = match
        self.misfits: dict[int, str] = {}  # link type -> why the expression cannot match there, one line
        self._programs: dict[int, Program] = {}
        self._within: tuple[Program, Program] | None = None
        self._check()
        if match == "inner":
            self._within = self._program(FRAME, ""), self._program(IP_PACKET, "")
        self._matcher = Matcher(secrets.randbits(64), fragments_max, ports)
        self.follows = fragments_max > 0

    def __call__(self, batch: PacketBatch) -> tuple[int, int]:
        """Returns (packets, captured bytes) that did not match."""
        return self._matcher.select(batch, self.choice(link_types_of(batch)))

    @property
    def orphans(self) -> int:
        """Later fragments whose first one was not seen in time, and which were therefore matched alone."""
        return self._matcher.orphans

    def choice(self, link_types: dict[int, int]) -> Choice:
        """The programs for these link types, each given with an interface that has it, and for those seen before; also
        the two for what is in tunnels, if tunnels are looked into.
        """
        for link_type, interface in link_types.items():
            if link_type not in self._programs:
                whose = f"packets of link type {link_type} (interface {interface})"
                self._programs[link_type] = self._program(link_type, whose)
        return self._programs, self._within

    def instructions(self, link_type: int, whose: str) -> list[_libpcap.Instruction]:
        """The expression compiled for a link type, or a program that rejects everything if it is invalid there.
        whose: what `misfits` calls these packets; "": it does not mention them.
        """
        try:
            return _libpcap.compile_expression(self.expression, link_type)
        except _libpcap.CompileError as error:
            if str(error) != REJECTS_ALL and whose:
                line = " ".join(self.expression.split())
                self.misfits[link_type] = f"{line!r} cannot hold for {whose}, and matches nothing there: {error}"
            return REJECT_ALL

    def live_instructions(self, link_type: int, interface: str) -> list[_libpcap.Instruction] | None:
        """As `instructions`, for packets as the kernel has them: without their outermost VLAN tag, which `vlan` looks
        for beside them. None: there is no such program.
        """
        if link_type == FRAME and self._says_vlan:
            try:
                program = _libpcap.compile_live(self.expression, interface)
            except _libpcap.CompileError as error:
                raise UsageError(f"bad filter: {error}") from None
            if program is None and self._only_live:
                raise UsageError(f"the filter matches no packet: {self.expression!r} needs cypcap's libpcap")
            return program
        return self.instructions(link_type, interface)

    def _check(self) -> None:
        """Check that the expression is valid for at least one link type."""
        if "\0" in self.expression or not self.expression.isascii():
            raise UsageError(f"bad filter: an expression can have ASCII characters only\n{self.expression!r}")
        for link_type in PROBED_LINK_TYPES:
            message = why_not(self.expression, link_type)
            if message is None:
                return
            if message == REJECTS_ALL and self._live and self._says_vlan:
                self._only_live = True
                return
            if link_type == PROBED_LINK_TYPES[0]:
                first_message = message
                if message == REJECTS_ALL or UNKNOWN_NAME.match(message):
                    break  # no other link type would help, and looking names up takes time
        line = " ".join(self.expression.splitlines())
        unknown = UNKNOWN_NAME.match(first_message)
        at = line.find(unknown[1]) if unknown else where_wrong(line)
        raise UsageError(f"bad filter: {first_message}\n{line}\n{' ' * at}^")

    def _program(self, link_type: int, whose: str) -> Program:
        try:
            return Program(self.instructions(link_type, whose))
        except BadProgram as error:
            raise UsageError(
                f"libpcap compiled the filter to a program that must not be run: {error}\n{self.expression}"
            ) from None


class Classifier:
    """Classifier(filters)(batch) sorts a batch's rows by stream, and returns where each stream's rows end.

    A packet belongs to the first filter that matches, as stream 1, 2 and so on, or to stream 0 if none does. A later
    fragment belongs with its first one, as in Matcher. fragments_max: how many first ones are remembered.
    """

    def __init__(
        self, filters: Sequence[Filter], fragments_max: int = 1 << 16, ports: UdpPorts = STANDARD_PORTS
    ) -> None:
        self.filters = filters
        self._matcher = Matcher(secrets.randbits(64), fragments_max, ports)

    def __call__(self, batch: PacketBatch) -> list[int]:
        link_types = link_types_of(batch)
        return self._matcher.classify(batch, [each.choice(link_types) for each in self.filters])

    @property
    def orphans(self) -> int:
        """As in Filter."""
        return self._matcher.orphans


def why_not(expression: str, link_type: int) -> str | None:
    """libpcap's objection to the expression; None: it is valid."""
    try:
        _libpcap.compile_expression(expression, link_type)
    except _libpcap.CompileError as error:
        return str(error)
    except _libpcap.NoLibpcap as error:
        raise UsageError(str(error)) from None
    return None


def where_wrong(expression: str) -> int:
    """The column of the first word after which no expression can continue; the end, if something is only missing.

    libpcap does not say where it failed, so longer and longer beginnings are tried.
    """
    words = list(TOKEN.finditer(expression))
    good = 0
    for count in range(len(words), 0, -1):
        if _can_go_on(expression[: words[count - 1].end()]):
            good = count
            break
    return words[good].start(1) if good < len(words) else len(expression)


def _can_go_on(prefix: str) -> bool:
    closing = ")" * max(0, prefix.count("(") - prefix.count(")"))
    ends = (closing, closing + " = 1", closing + "] = 1") if closing else ("",)
    tried = (prefix + completion + end for completion in COMPLETIONS for end in ends)
    return any(why_not(expression, PROBED_LINK_TYPES[0]) is None for expression in tried)
