"""The filter keeps the packets that match a BPF expression. The classifier sorts packets by the first that they match.

libpcap compiles expressions (_libpcap.py), _match.pyx runs them over a whole batch.
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

# An expression is good if it makes sense for one of these: Ethernet, raw IP, Linux cooked (both), 802.11 (with a radio
# header and without), PPP, BSD loopback, SS7 (two forms), USB.
PROBED_LINK_TYPES = (1, 101, 113, 276, 127, 105, 9, 0, 139, 143, 189)
REJECTS_ALL = "expression rejects all packets"
REJECT_ALL: list[_libpcap.Instruction] = [(0x06, 0, 0, 0)]
Choice = tuple[dict[int, Program], tuple[Program, Program] | None]  # as Matcher describes it
FRAME, IP_PACKET = 1, 101  # link types of what is in a tunnel

# What may make a whole expression of its first words: tried one after another to find out where a bad one goes wrong.
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

    The expression is any that pcap-filter(7) describes. Raises UsageError, with a caret under where the expression goes
    wrong. No packet matches of an interface of a link type for which the expression makes no sense; `misfits` says so.
    match: "inner": a packet in a tunnel is matched by what is in the innermost one, its frame of Ethernet or else its
    IP packet. fragments_max: later fragments follow their first one, and so many are remembered; 0: each is matched
    alone. ports: which tunnels over UDP are tried.
    """

    def __init__(
        self, expression: str, match: str = "outer", fragments_max: int = 0, ports: UdpPorts = STANDARD_PORTS
    ) -> None:
        self.expression = expression
        self.match = match
        self.misfits: dict[int, str] = {}  # link type -> why the expression cannot hold there, a line
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
        """Later fragments so far whose first one was not seen in time, and which were matched alone."""
        return self._matcher.orphans

    def choice(self, link_types: dict[int, int]) -> Choice:
        """The programs for these link types, each with an interface that has it, and those seen before; and the two for
        what is in tunnels, if that is looked at.
        """
        for link_type, interface in link_types.items():
            if link_type not in self._programs:
                whose = f"packets of link type {link_type} (interface {interface})"
                self._programs[link_type] = self._program(link_type, whose)
        return self._programs, self._within

    def instructions(self, link_type: int, whose: str) -> list[_libpcap.Instruction]:
        """What the expression is compiled to, for packets of a link type; if it makes no sense there, a program that
        rejects all. whose: the packets in words, for `misfits`; "": not to be said.
        """
        try:
            return _libpcap.compile_expression(self.expression, link_type)
        except _libpcap.CompileError as error:
            if str(error) != REJECTS_ALL and whose:
                line = " ".join(self.expression.split())
                self.misfits[link_type] = f"{line!r} cannot hold for {whose}, and matches nothing there: {error}"
            return REJECT_ALL

    def _check(self) -> None:
        """Whether the expression is good for any link type at all."""
        if "\0" in self.expression or not self.expression.isascii():
            raise UsageError(f"bad filter: an expression has ASCII characters only\n{self.expression!r}")
        for link_type in PROBED_LINK_TYPES:
            message = why_not(self.expression, link_type)
            if message is None:
                return
            if link_type == PROBED_LINK_TYPES[0]:
                first_message = message
                if message == REJECTS_ALL or UNKNOWN_NAME.match(message):
                    break  # no other link type would change that, and looking names up takes time
        line = " ".join(self.expression.splitlines())
        unknown = UNKNOWN_NAME.match(first_message)
        at = line.find(unknown[1]) if unknown else where_wrong(line)
        raise UsageError(f"bad filter: {first_message}\n{line}\n{' ' * at}^")

    def _program(self, link_type: int, whose: str) -> Program:
        try:
            return Program(self.instructions(link_type, whose))
        except BadProgram as error:
            raise UsageError(
                f"libpcap made a program that cannot be run of the filter: {error}\n{self.expression}"
            ) from None


class Classifier:
    """Classifier(filters)(batch) sorts a batch's rows by stream, and returns where each stream's rows end.

    A packet belongs to the first filter that matches, as stream 1, 2 and so on, or to stream 0 where none does. A later
    fragment belongs where its first one does, as Matcher says. fragments_max: so many are remembered.
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
        """As Filter's."""
        return self._matcher.orphans


def why_not(expression: str, link_type: int) -> str | None:
    """libpcap's words against the expression; None: it is good."""
    try:
        _libpcap.compile_expression(expression, link_type)
    except _libpcap.CompileError as error:
        return str(error)
    except _libpcap.NoLibpcap as error:
        raise UsageError(str(error)) from None
    return None


def where_wrong(expression: str) -> int:
    """The column of the first word that no expression can go on with; the end, if only something is missing.

    libpcap does not say where, so beginnings of the expression are tried.
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
