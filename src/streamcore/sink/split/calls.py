"""Which file a packet belongs into by telephone call: SIP by its Call-ID, media by the addresses that SDP names.

_media.pyx asks its table for every packet and hands out what may be SIP; here messages are put together (messages.py)
and read (sip.py), and what they name is put into the table. Every table is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import SinkError
from streamcore.core.packets import Outgoing
from streamcore.headers import udp_ports
from streamcore.sink.split._media import CALLS_OF_END, FIRST_FRAGMENT, FRAGMENT, SEGMENT, MediaTable
from streamcore.sink.split.labels import safe
from streamcore.sink.split.messages import Datagrams, Streams
from streamcore.sink.split.sip import End, Message, early_call_id, parse
from streamcore.sink.split.sorter import Numbers
from streamcore.sink.windows import name_of

if TYPE_CHECKING:
    from streamcore.sink.split._media import Handed

SECOND_NS = 10**9
ENDS_MAX = 1 << 18  # addresses with ports, of all calls
ENDS_OF_CALL_MAX = 256
LINGER_NS = 32 * SECOND_NS  # how long media belongs to a call after its end: as long as SIP sends again (64 * T1)
TRANSFER_NS = 60 * SECOND_NS  # how long after a REFER its call may begin
TRANSFERS_MAX = 1024
BEGINNING = ("INVITE", "ACK", "BYE", "CANCEL", "PRACK", "UPDATE", "INFO", "REFER")  # methods that are of calls only


class Call:
    """A call: its files (those of the calls that it continues, or its own), and the ends that it has named."""

    __slots__ = ("answered", "ends", "files", "over")

    def __init__(self, files: tuple[int, ...]) -> None:
        self.files = files
        self.ends: dict[End, bool] = {}  # whether the end's own address named it
        self.answered = self.over = False


class Transfer(NamedTuple):
    """A REFER: the call whose other side shall call somebody."""

    call: Call
    time_ns: int
    referrer: str  # user@host
    places: frozenset[bytes]  # addresses that it was sent to


class ByCall:
    """Sorts by telephone call. Its files are numbered in the order of their first messages."""

    def __init__(self, config: Config, counters: Counters) -> None:
        self._table = MediaTable(udp_ports(config.decode_as), ENDS_MAX)
        self._counters = counters
        self._files_max = config.split_files
        self._made = self._beyond = 0
        self._new: list[tuple[int, str]] = []
        self._calls: dict[str, Call] = {}  # by Call-ID; no more than files, and what continues them
        self._replaced: OrderedDict[str, Call] = OrderedDict()  # Call-ID that a REFER's target shall take over
        self._transfers: OrderedDict[str, Transfer] = OrderedDict()  # by the user@host that shall be called
        self._datagrams = Datagrams()
        self._streams = Streams()

    def assign(self, outgoing: Outgoing) -> tuple[Numbers, Numbers]:
        self._table.begin(outgoing)
        while (handed := self._table.next()) is not None:
            self._table.put(self._files_of(handed))
        return self._table.taken()

    def take_new(self) -> list[tuple[int, str]]:
        new, self._new = self._new, []
        return new

    def close(self) -> None:
        self._counters.bump("sink.beyond_files", self._beyond)
        self._counters.bump("sink.beyond_ends", self._table.beyond)

    def _files_of(self, handed: Handed) -> tuple[int, ...]:
        """The files of a packet that may be a message, or a part of one."""
        kind, time_ns, source, target, number, more, data = handed
        if kind == SEGMENT:
            assert isinstance(number, int)
            whole, known = self._streams.take((*source, *target), number, data)
            if known:
                for port in (source[1], target[1]):
                    if port < 32_768 and self._streams.listens(port):
                        self._table.listen(port)
        elif kind in (FIRST_FRAGMENT, FRAGMENT):
            assert isinstance(number, tuple)
            whole, known = self._datagrams.take(number[1], number[0], more, data)
        else:
            whole, known = [data], []
        files: list[int] = []
        for each in whole:
            message = parse(each)
            call = self._heard(message, time_ns, source, target) if message is not None else None
            if message is None:  # cut short by the snapshot length, or not well-formed
                call = self._calls.get(early_call_id(each))
            files += call.files if call is not None else ()
        for call_id in known:
            call = self._calls.get(call_id)
            if call is None:
                call = self._begin(call_id, None, time_ns)
            files += call.files if call is not None else ()
        return tuple(dict.fromkeys(files))

    def _heard(self, message: Message, time_ns: int, source: End, target: End) -> Call | None:
        """The call of a message, which may begin, change or end it."""
        call = self._calls.get(message.call_id)
        joined = self._joined(message, time_ns, source)
        if call is None:
            if message.method not in BEGINNING:
                return None
            call = self._begin(message.call_id, message, time_ns, joined)
            if call is None:
                return None
        elif joined:
            self._join(call, joined)
        for end in message.ends:
            if end in call.ends or len(call.ends) < ENDS_OF_CALL_MAX:
                call.ends[end] = call.ends.get(end, False) or end[0] == source[0]
                for file in call.files:
                    self._table.add(*end, file, 0, call.ends[end])
        if message.method == "REFER" and not message.status:
            self._referred(call, message, time_ns, target)
        self._note_end(call, message, time_ns)
        return call

    def _begin(self, call_id: str, message: Message | None, time_ns: int, joined: tuple[int, ...] = ()) -> Call | None:
        """A new call, in the files that it continues or in one of its own; None if there is no file left."""
        files = joined
        if len(self._calls) >= 4 * self._files_max or (not files and self._made == self._files_max):
            self._beyond += 1
            return None
        if not files:
            self._made += 1
            files = (self._made,)
            self._new.append((self._made, label(call_id, message, time_ns)))
        call = self._calls[call_id] = Call(files[:CALLS_OF_END])
        return call

    def _joined(self, message: Message, time_ns: int, source: End) -> tuple[int, ...]:
        """The files of the calls that an INVITE continues: the one that it replaces, and the one that referred."""
        if message.method != "INVITE" or message.status or message.in_dialog:
            return ()
        files: list[int] = []
        transfer = self._transfers.get(message.uri) or self._transfers.get(message.callee)
        if (
            transfer is not None
            and 0 <= time_ns - transfer.time_ns <= TRANSFER_NS
            and (source[0] in transfer.places or (message.referred_by and message.referred_by == transfer.referrer))
        ):
            files += transfer.call.files
        for call in (self._calls.get(message.replaces), self._replaced.get(message.replaces)):
            files += call.files if message.replaces and call is not None else ()
        return tuple(dict.fromkeys(files))

    def _join(self, call: Call, files: tuple[int, ...]) -> None:
        more = tuple(dict.fromkeys((*call.files, *files)))[:CALLS_OF_END]
        for file in more[len(call.files) :]:
            for end, own in call.ends.items():
                self._table.add(*end, file, 0, own)
        call.files = more

    def _referred(self, call: Call, message: Message, time_ns: int, target: End) -> None:
        """Remembers who shall be called next, and which call that may take over."""
        if message.refer_to:
            before = self._transfers.pop(message.refer_to, None)
            places = before.places if before is not None and before.call is call else frozenset()
            self._transfers[message.refer_to] = Transfer(call, time_ns, message.caller, places | {target[0]})
            if len(self._transfers) > TRANSFERS_MAX:
                self._transfers.popitem(last=False)
        if message.refer_replaces:
            self._replaced[message.refer_replaces] = call
            if len(self._replaced) > TRANSFERS_MAX:
                self._replaced.popitem(last=False)

    def _note_end(self, call: Call, message: Message, time_ns: int) -> None:
        """A call is over with BYE or CANCEL, or if nobody takes it; not if it is tried again (401, 407, 491)."""
        if message.method == "INVITE":
            if not message.status:
                call.over = False
            elif 200 <= message.status < 300:
                call.answered, call.over = True, False
            elif message.status >= 300 and not call.answered and message.status not in (401, 407, 491):
                self._end(call, time_ns)
        elif (
            message.method in ("BYE", "CANCEL")
            and not message.status
            and not (message.method == "CANCEL" and call.answered)
        ):
            self._end(call, time_ns)

    def _end(self, call: Call, time_ns: int) -> None:
        if not call.over:
            call.over = True
            for end, own in call.ends.items():
                for file in call.files:
                    self._table.add(*end, file, max(1, time_ns + LINGER_NS), own)


def label(call_id: str, message: Message | None, time_ns: int) -> str:
    """When, who, whom, Call-ID: whatever stands in them, as a safe part of a name."""
    try:
        when = name_of("%Y%m%d-%H%M%S", time_ns)
    except SinkError:
        when = "time"
    people = [safe(each.partition("@")[0], 20) for each in (message.caller, message.callee)] if message else []
    return "_".join([when, *people, safe(call_id, 60)])
