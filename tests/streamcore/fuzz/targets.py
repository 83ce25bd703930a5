"""The targets: each makes what it needs once, and then takes one batch of inputs after the other. A batch follows from
its random generator.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from streamcore.core.errors import SourceError
from streamcore.core.packets import COLUMN_GROUPS
from streamcore.headers._udp_tunnels import STANDARD_PORTS
from tests.streamcore.fuzz.flow_messages import flow_messages
from tests.streamcore.fuzz.guarded import Guarded
from tests.streamcore.fuzz.inputs import INPUT_BYTES_MAX, VALUES, mutated, packets, some_of_a_link
from tests.streamcore.fuzz.orders import orders
from tests.streamcore.fuzz.peers import peers
from tests.streamcore.fuzz.planted import LINK, plant

Batch = Callable[[random.Random, int], int]  # takes the batch of that number; returns how many inputs it had
AT_ONCE = 256
EVERY_GROUP = sum(COLUMN_GROUPS.values())


def walk() -> Batch:
    """Link layers and tunnels: the walk stays inside the packet, its layers inside one another, and the shortcut for
    ordinary packets says
    what the steps say."""
    from streamcore.headers._walk import OUTCOMES, explain

    memory = Guarded(AT_ONCE, INPUT_BYTES_MAX)
    planted = plant()

    def one_batch(rng: random.Random, number: int) -> int:
        link, inputs = some_of_a_link(rng, AT_ONCE)
        if rng.random() < 0.1:
            link = rng.randrange(300)
        link = LINK if planted else link
        offset, length = memory.place(inputs)
        for at, size in zip(offset.tolist(), length.tolist(), strict=True):
            packet = memory.data[at : at + size]
            told = explain(packet, link)
            layers, outcome, ends = told[:3]
            assert outcome in OUTCOMES.values()
            assert ends <= size
            for _, begin, header, end, _, _ in layers:
                assert begin + header <= end <= size, told
            assert link != 1 or told == explain(packet, link, shortcut=False)
        return len(inputs)

    return one_batch


def offloads() -> Batch:
    """Super-packets of whoever sends them: whatever a packet says that it leaves to hardware, its segments have its
    bytes, each of them once, or it is not cut."""
    from streamcore.headers._walk import explain
    from streamcore.offloads._cut import completed, cut_packet

    memory = Guarded(AT_ONCE, INPUT_BYTES_MAX)

    def one_batch(rng: random.Random, number: int) -> int:
        link, inputs = some_of_a_link(rng, AT_ONCE)
        offset, length = memory.place(inputs)
        for at, size in zip(offset.tolist(), length.tolist(), strict=True):
            packet = memory.data[at : at + size]
            starts = [begin for _, begin, *_ in explain(packet, link)[0]]
            start = rng.choice([*starts, rng.randrange(1 << 16)])
            kind, field = rng.choice(
                [(1, 16), (4, 16), (5, 6), (0x81, 16), (rng.randrange(256), rng.randrange(1 << 16))]
            )
            told = (rng.randrange(2), kind, 0, rng.choice([1, 7, 100, 1448, rng.randrange(1 << 16)]), start, field)
            segments = cut_packet(packet, link, told)
            if segments is not None and len(segments) > 1:
                head = len(segments[0]) - told[3]
                assert b"".join(each[head:] for each in segments) == packet[head:].tobytes(), told
            whole = completed(packet.tobytes(), start, field)
            assert whole is None or len(whole) == size
        return len(inputs)

    return one_batch


def parse() -> Batch:
    """Columns and flows: offsets lie inside the packet, and the flow table's sums are those of what it was given."""
    from streamcore.parse._flows import FlowTable
    from streamcore.parse.parser import Parser
    from streamcore.tools._packet_text import PacketText
    from streamcore.tools.flows.writers import FORMATS

    memory = Guarded(AT_ONCE, INPUT_BYTES_MAX)
    parser = Parser(seed=1, fragments_max=1024)
    text = PacketText(b"label", [b"tunnel"] * 256)

    def one_batch(rng: random.Random, number: int) -> int:
        link, inputs = some_of_a_link(rng, AT_ONCE)
        batch = memory.batch(inputs, link)
        parser(batch, EVERY_GROUP)
        for column in (batch.l3_offset, batch.l4_offset, batch.payload_offset):
            assert ((column == 0xFFFF) | (column <= batch.captured_length)).all()
        assert [line.count(b"\t") for line in text.lines(batch, 0).splitlines()] == [23] * len(inputs)
        flows = FlowTable(64, 2, 1, active_ms=3, closed_ms=1, first_packets=3, fragments_max=64, by=number % 3)
        flows.find(batch)
        rows = np.concatenate([flows.export(), flows.ended()])
        for form in ("json", "csv", "zeek", "eve", "ipfix", "table"):
            writer = FORMATS[form].writer()(io.BytesIO(), 3)
            writer.write(rows)
            writer.close()
        assert int(rows["packets"].sum() + rows["packets_back"].sum()) == len(inputs)
        assert int(rows["bytes"].sum() + rows["bytes_back"].sum()) == int(batch.wire_length.sum())
        return len(inputs)

    return one_batch


def fragments() -> Batch:
    """Datagrams in fragments that overlap, repeat and are missing: a later fragment has the ports of its first one or
    is an orphan.
    """
    from streamcore.parse.parser import Parser
    from tests.streamcore.fuzz.pieces import datagrams_in_pieces

    memory = Guarded(AT_ONCE, INPUT_BYTES_MAX)
    parser = Parser(seed=1, fragments_max=64)
    anonymise = services_for(("share",), ("",))

    def one_batch(rng: random.Random, number: int) -> int:
        inputs = datagrams_in_pieces(rng, AT_ONCE)
        parser(memory.batch(inputs, 1), EVERY_GROUP)
        for service in anonymise:
            run_service(memory, service, inputs, 1)
        return len(inputs)

    return one_batch


def services_for(*options: Sequence[str]) -> list[Any]:
    from streamcore.service.anonymise import Anonymise

    made = []
    for (preset,) in options:
        service = Anonymise(preset=preset, key=bytes(range(32)).hex())
        service.start()
        made.append(service)
    return made


class Shown:
    """A segment as a service sees it, its packets in the guarded rooms: the calls of SegmentView that the services here
    make.
    """

    number = 0

    def __init__(self, memory: Guarded, inputs: Sequence[bytes], link_type: int, parser: Any) -> None:
        self._batch = memory.batch(inputs, link_type)
        self._batch.parser = parser
        self.data = memory.data
        self.offset, self.captured_length = self._batch.offset, self._batch.captured_length
        self.wire_length = self._batch.wire_length
        self._link_type = link_type
        self.ports = STANDARD_PORTS
        self.kept = np.ones(len(inputs), bool)
        self.lengths = self.captured_length.copy()

    def __len__(self) -> int:
        return len(self._batch)

    def column(self, name: str) -> Any:
        return getattr(self._batch, name)

    def link_type(self) -> Any:
        return np.full(len(self), self._link_type, np.uint16)

    def writable(self) -> Any:
        return self.data

    def uncopied(self) -> None:
        """The inputs are rewritten where they stand."""

    def drop(self, mask: Any, reason: str) -> None:
        self.kept &= ~mask

    def truncate(self, lengths: Any) -> None:
        assert (np.asarray(lengths) <= self.captured_length).all()
        self.lengths = np.asarray(lengths)

    def comment(self, row: int, text: str) -> None:
        assert 0 <= row < len(self)

    def keys(self, keys: Any) -> None:
        assert keys.shape == (len(self), 2)

    def report(self, report: Any) -> None:
        self.reported = report


def run_service(memory: Guarded, service: Any, inputs: Sequence[bytes], link_type: int) -> Shown:
    from streamcore.parse.parser import Parser

    shown = Shown(memory, inputs, link_type, Parser(seed=1, stateless=True))
    service.process(shown)
    service.merge(shown.reported) if hasattr(shown, "reported") else None
    return shown


def services() -> Batch:
    """anonymise in all its options, count, slice, dedup."""
    from streamcore.service.anonymise import CHOICES, Anonymise
    from streamcore.service.count import Count
    from streamcore.service.dedup import Dedup
    from streamcore.service.slice import Slice

    memory = Guarded(AT_ONCE, INPUT_BYTES_MAX)
    rng_of_options = random.Random(1)
    several: list[Any] = services_for(("share",), ("",))
    for _ in range(6):
        chosen = {name: rng_of_options.choice(values) for name, values in CHOICES.items()}
        several.append(Anonymise(key=bytes(range(32)).hex(), **chosen))
    several += [Count(flows=100), Slice("16"), Dedup()]
    for service in several[2:]:
        service.start()

    def one_batch(rng: random.Random, number: int) -> int:
        link, inputs = some_of_a_link(rng, AT_ONCE)
        service = rng.choice(several)
        run_service(memory, service, inputs, link)
        return len(inputs)

    return one_batch


EXPRESSIONS = (
    "tcp port 80",
    "udp and greater 100",
    "ip6",
    "host 10.1.2.3",
    "net 192.0.2.0/24",
    "vlan and ip",
    "icmp or icmp6",
    "tcp[tcpflags] & tcp-syn != 0",
    "ip[0] & 0xf > 5",
    "ether[6:4] = 1",
    "portrange 100-50000",
    "ip6 protochain 17",
    "mpls and ip",
    "pppoes and ip",
    "not ip",
    "len <= 80",
    "ip[len - 60] = 3",
    "ip proto 47 or ip6 proto 4",
    "ip broadcast or multicast",
    "(ip[2:2] - ((ip[0] & 15) << 2)) * 3 / 7 % 5 = 2",
)


def bpf() -> Batch:
    """Filters and programs of random instructions: libpcap's own machine decides the same."""
    from streamcore.parse import _libpcap
    from streamcore.parse._bpf import BadProgram, Program
    from streamcore.parse._match import Matcher
    from tests.streamcore.fuzz.libpcap import Machine

    memory = Guarded(AT_ONCE, INPUT_BYTES_MAX)
    machine = Machine()
    matcher = Matcher(1, 0, STANDARD_PORTS)  # each fragment alone, as libpcap takes it
    compiled: dict[tuple[str, int], Any] = {}

    def program_for(rng: random.Random, link: int, changed: bool) -> list[tuple[int, int, int, int]]:
        expression = rng.choice(EXPRESSIONS)
        if (expression, link) not in compiled:
            try:
                compiled[expression, link] = _libpcap.compile_expression(expression, link)
            except _libpcap.CompileError:
                compiled[expression, link] = [(6, 0, 0, 0)]
        instructions = [list(each) for each in compiled[expression, link]]
        if changed:
            for _ in range(rng.randrange(1, 4)):
                instruction = rng.choice(instructions)
                place = rng.randrange(4)
                instruction[place] = (
                    rng.choice((rng.randrange(256), rng.randrange(16))) if place < 3 else rng.choice(WORDS32)
                )
        return [(code, jt, jf, k) for code, jt, jf, k in instructions]

    def one_batch(rng: random.Random, number: int) -> int:
        link, inputs = some_of_a_link(rng, AT_ONCE)
        changed = rng.random() < 0.5
        instructions = program_for(rng, link, changed)
        try:
            program = Program(instructions)
        except BadProgram:
            assert changed  # it may refuse more than libpcap does, but nothing that libpcap makes
            return 1
        matcher.select(batch := memory.batch(inputs, link), ({link: program}, None))
        if changed and not machine.may_run(instructions):
            return len(inputs)
        got = list(range(len(inputs))) if batch.rows is None else batch.rows.tolist()
        assert got == [row for row, each in enumerate(inputs) if machine.matches(instructions, each)], instructions
        return len(inputs)

    return one_batch


WORDS32 = (0, 1, 14, 15, 16, 60, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0)


def captures(kind: str) -> Callable[[], Batch]:
    """pcap or pcapng: a damaged capture is read up to the damage, or refused with our own error; no packet has bytes
    that are not there. One input of every eighth batch goes through `streamcore.read`; the others share memory and
    a parser, which it would make anew.
    """

    def target() -> Batch:
        import os
        import warnings

        from streamcore import read
        from streamcore.core.packets import Arena
        from streamcore.parse.parser import Parser
        from streamcore.source.capture import CaptureSource
        from tests.streamcore.fuzz.files import captures_of

        seeds = captures_of(kind)
        file = os.memfd_create("fuzz")
        path = f"/proc/self/fd/{file}"
        arena, parser = Arena(3, 1 << 16, 1024), Parser(seed=1, fragments_max=64)

        def look_at(batches: Any, size: int) -> None:
            for batch in batches:
                offset, length = batch.offset.astype(np.int64), batch.captured_length.astype(np.int64)
                assert int(length.sum()) <= size
                assert not len(batch) or int((offset + length).max()) <= min(size, len(batch.data))
                assert len(batch.protocol) == len(batch)

        def one_batch(rng: random.Random, number: int) -> int:
            for turn in range(AT_ONCE // 8):
                data = mutated(rng, rng.choice(seeds))
                os.ftruncate(file, 0)
                os.pwrite(file, data, 0)
                with contextlib.suppress(SourceError):
                    if turn or number % 8:
                        with CaptureSource(path, arena, parser=parser) as source:
                            look_at(source, len(data))
                        continue
                    with warnings.catch_warnings(), read(path) as reader:
                        warnings.simplefilter("ignore")
                        look_at(reader, len(data))
            return AT_ONCE // 8

        return one_batch

    return target


def encoding() -> Batch:
    """What comes from a worker: headers and descriptors of messages, results in a region, comments and reports,
    segments that travel.
    """
    from streamcore.disperse import envelope
    from streamcore.disperse._inline import InlineError
    from streamcore.disperse._results import ResultError, read_result, region_bytes
    from streamcore.disperse.inline import unpack_segment
    from streamcore.disperse.validation import read_extra
    from tests.streamcore.fuzz.messages import extras, frames, results, some_segment

    memory = Guarded(2, 1 << 16)
    segment = some_segment()
    heads, travelling, comments, laid = frames(segment), results(segment)[1], extras(), results(segment)[0]
    from streamcore.core.packets import Arena

    arena = Arena(1, 1 << 16, 256)

    def one_batch(rng: random.Random, number: int) -> int:
        for _ in range(AT_ONCE // 4):
            try:
                frame = memory.one(mutated(rng, rng.choice(heads)))
                header = envelope.unpack_header(memoryview(frame))
                unpack = envelope.unpack_work if header.kind == envelope.WORK else envelope.unpack_results
                if header.kind in (envelope.WORK, envelope.RESULT):
                    unpack(memoryview(frame), header.descriptors)
            except envelope.EnvelopeError:
                pass
            with contextlib.suppress(ResultError):
                read_extra(mutated(rng, rng.choice(comments)), len(segment))
            region, packed, flags = rng.choice(laid)
            if rng.random() < 0.5:
                packed, flags = (
                    rng.choice((packed, packed + 1, packed - 1, 0, 1 << 31)),
                    rng.choice((flags, rng.randrange(16))),
                )
            placed = memory.one(mutated(rng, region))
            if placed.__array_interface__["data"][0] % 8 == 0:  # as the dispatcher gives them
                try:
                    read_result(segment, placed, packed, flags, rng.choice((15, flags)), placed)
                    assert region_bytes(len(segment), packed, flags) <= len(placed) or flags == 0
                except ResultError:
                    pass
            try:
                came = memory.one(mutated(rng, rng.choice(travelling)))
                got = unpack_segment(1, rng.choice((len(segment), rng.randrange(256))), came, arena, None)
                assert int(got.batch.captured_length.sum()) <= len(came)
            except InlineError:
                pass
        return AT_ONCE

    return one_batch


def places() -> Batch:
    """Not random: every prefix of 500 packets, and five values at every place of them, walked and anonymised. A batch
    is one packet.
    """
    from streamcore.headers._walk import explain

    memory = Guarded(AT_ONCE, INPUT_BYTES_MAX)
    (service,) = services_for(("",))
    chosen = packets()
    chosen = [chosen[i * len(chosen) // 500] for i in range(500)]

    def one_batch(rng: random.Random, number: int) -> int:
        link, packet = chosen[number % len(chosen)]
        packet = packet[:400]
        inputs = [packet[:size] for size in range(len(packet))]
        inputs += [packet[:at] + bytes([value]) + packet[at + 1 :] for at in range(len(packet)) for value in VALUES]
        for first in range(0, len(inputs), AT_ONCE):
            part = inputs[first : first + AT_ONCE]
            offset, length = memory.place(part)
            for at, size in zip(offset.tolist(), length.tolist(), strict=True):
                explain(memory.data[at : at + size], link)
            run_service(memory, service, part, link)
        return len(inputs)

    return one_batch


def calls() -> Batch:
    """SIP and SDP as strangers send them, whole, in segments and in fragments; then all splits of mutated packets:
    nothing raises, every packet has a file that was said to be new, and what is kept stays bounded.
    """
    from streamcore.core.config import Config
    from streamcore.core.counters import Counters
    from streamcore.core.packets import Arena, Outgoing
    from streamcore.sink.split._keys import KINDS
    from streamcore.sink.split.labels import LABEL_MAX
    from streamcore.sink.split.messages import DATAGRAMS_MAX, STREAMS_MAX, Datagrams, Streams
    from streamcore.sink.split.sip import ENDS_MAX, parse
    from streamcore.sink.split.sorter import REST, open_sorter
    from tests.streamcore.batches import make_batch
    from tests.streamcore.sink.test_calls import SCENARIOS

    conversations = [[bytes(packet) for packet, _ in scenario()] for scenario in SCENARIOS]
    texts = [packet[packet.index(mark) :] for each in conversations for packet in each
             for mark in (b"INVITE sip", b"SIP/2.0 200", b"REFER sip") if mark in packet]  # fmt: skip
    arena = Arena(4, AT_ONCE * 4096, AT_ONCE)
    streams, datagrams = Streams(), Datagrams()

    def one_batch(rng: random.Random, number: int) -> int:
        for text in (mutated(rng, rng.choice(texts)) for _ in range(AT_ONCE // 8)):
            message = parse(text)
            assert message is None or len(message.ends) <= ENDS_MAX
            streams.take((text[:1], 1, b"", rng.randrange(2000)), rng.choice((0, 1, len(text), 1 << 31)), text)
            datagrams.take(rng.randrange(600), rng.randrange(3) * 8, rng.random() < 0.5, text)
            assert len(streams._streams) <= STREAMS_MAX
            assert len(datagrams._parts) <= DATAGRAMS_MAX + 1
        inputs = [mutated(rng, each) if rng.random() < 0.3 else each for each in rng.choice(conversations)]
        inputs += some_of_a_link(rng, 16)[1]
        batch = make_batch([each[:2048] for each in inputs], arena=arena)
        files_max = rng.choice((1, 4, 1000))
        config = Config(read="-", write="x.pcap", split=rng.choice(("call", "call", *KINDS)), split_files=files_max)
        sorter = open_sorter(config, [], Counters())
        places, files = sorter.assign(Outgoing(batch, 0, len(batch)))
        new = dict(sorter.take_new())
        assert set(places.tolist()) == set(range(len(inputs)))
        assert set(files.tolist()) <= {REST, *new}
        assert len(new) <= files_max
        assert all(0 < len(label) <= LABEL_MAX + 20 and "/" not in label for label in new.values())
        return len(inputs)

    return one_batch


TARGETS: dict[str, Callable[[], Batch]] = {
    "walk": walk,
    "offloads": offloads,
    "parse": parse,
    "fragments": fragments,
    "services": services,
    "bpf": bpf,
    "pcap": captures("pcap"),
    "pcapng": captures("pcapng"),
    "orders": orders,
    "encoding": encoding,
    "places": places,
    "calls": calls,
    "flow_messages": flow_messages,
    "peers": peers,
}
