"""The streams of a run, each with its selection, its service chain and its accounting.

A run without `[[stream]]` tables has one stream, whose accounting is that of the run. The stages classify and process
the packets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import UsageError
from streamcore.core.packets import Result
from streamcore.core.run_keys import Stream as StreamKeys
from streamcore.headers import udp_ports
from streamcore.service.chain import Chain, ChainElsewhere
from streamcore.source.protocol import Offloads

if TYPE_CHECKING:
    from streamcore.subcontract.contract import Wanted


class Stream:
    """One stream of a run. Raises UsageError if a service cannot be loaded."""

    def __init__(self, number: int, keys: StreamKeys) -> None:
        self.number = number
        self.name = keys.name
        self.select = keys.select
        self.match = keys.match
        self.on_failure = keys.on_failure
        self.counters = Counters()
        self.subcontract = keys.subcontract
        self.chain: Chain | ChainElsewhere
        try:
            self.chain = Chain(keys.service)
        except UsageError as error:
            if self.subcontract is None or self.subcontract.effect is None or self.subcontract.otherwise == "in-house":
                raise UsageError(f"stream {keys.name}: {error}" if number else str(error)) from None
            self.chain = ChainElsewhere(keys.service, self.subcontract.effect)

    def wanted(self) -> Wanted | None:
        """The work that a provider would do; None if the run's own workers process the stream."""
        terms = self.subcontract
        in_house = isinstance(self.chain, Chain)
        if terms is None or (terms.when == "missing" and in_house):
            return None
        from streamcore.subcontract.contract import Wanted  # only here: it costs start-up time

        names = [each.get("name", "") if isinstance(each, dict) else each for each in self.chain.specifications]
        return Wanted(
            self.number,
            self.name,
            terms,
            terms.service or "+".join(name.partition(":")[0] for name in names) or "identity",
            self.chain.specifications,
            isinstance(self.chain, Chain) and self.chain.deterministic,
            in_house,
        )

    def take_left(self, packets: int, byte_count: int, resized_bytes: int) -> None:
        """Takes the aggregator's counts of what left into the second stream."""
        self.counters.count("sink.written", packets, byte_count)
        self.counters.count("service.resized", 0, resized_bytes)

    def account(self) -> dict[str, Any]:
        """The stream's part of the object that --json prints."""
        counts = self.counters.as_json()
        account: dict[str, Any] = {}
        for unit in ("packets", "bytes"):
            counted = counts[unit]
            account[unit] = {"selected": counted.pop("read")} | counted
        if services := self.chain.summaries():
            account["services"] = services
        return account


class Streams:
    """All streams of a run, in the order of their numbers. Counts packets for each stream and for the run."""

    def __init__(self, config: Config, counters: Counters) -> None:
        self.all = [Stream(number, keys) for number, keys in enumerate(config.streams)]
        self._counters = counters
        self._several = len(self.all) > 1
        self._config = config
        self._filters: list[Any] = []
        for stream in self.all:
            if config.output_interface and stream.chain.drop_by_keys is not None:
                where = f"stream {stream.name}: " if self._several else ""
                raise UsageError(
                    f"{where}{stream.chain.dropping} is for files: towards an interface it would drop what senders "
                    "repeat on purpose"
                )

    def __getitem__(self, number: int) -> Stream:
        return self.all[number]

    @property
    def groups(self) -> int:
        """The column groups that the services read."""
        bits = 0
        for stream in self.all:
            bits |= stream.chain.groups
        return bits

    @property
    def sends_first(self) -> bool:
        """Whether packets go from interface to interface before services see them, because these only observe."""
        config = self._config
        return bool(config.interface and config.output_interface) and not any(
            stream.chain.changes or stream.subcontract for stream in self.all
        )

    @property
    def offloads(self) -> Offloads:
        """What a live source does with checksums and segments that were left to hardware. An interface takes them as
        they came if no service looks at packets; services that resize need the packets of the wire, each of which they
        would have resized.
        """
        chains = [stream.chain for stream in self.all]
        sends = bool(self._config.output_interface)
        if self._config.segments == "wire" or (sends and any("lengths" in chain.changes for chain in chains)):
            return "cut"
        return "complete" if not sends or any(chain.reads_checksums for chain in chains) else "carry"

    @property
    def removes_metadata(self) -> bool:
        """Whether a service of any stream requires that pcapng blocks keep only the options needed for reading."""
        return any(stream.chain.removes_metadata for stream in self.all)

    @property
    def changes(self) -> bool:
        """Whether a service of any stream may change or drop packets."""
        return any(stream.chain.changes for stream in self.all)

    @property
    def incomplete(self) -> list[str]:
        """One line for each reason why the output is incomplete."""
        return [
            f"stream {each.name}: {line}" if self._several else line
            for each in self.all
            for line in each.chain.incomplete
        ]

    def classifier(self) -> Any:
        """Sorts a batch's rows by stream. With a single stream no Classifier is created, and this is None."""
        if not self._several:
            return None
        from streamcore.parse.filter import Classifier, Filter  # only here: libpcap costs start-up time

        ports = udp_ports(self._config.decode_as)
        self._filters = []
        for stream in self.all[1:]:
            try:
                self._filters.append(Filter(stream.select, stream.match or self._config.match))
            except UsageError as error:
                raise UsageError(f"stream {stream.name}: {error}") from None
        return Classifier(self._filters, self._config.fragments_max, ports)

    @property
    def misfits(self) -> list[str]:
        """Where a stream's expression cannot hold, a line each."""
        return [
            f"stream {stream.name}: {line}"
            for stream, chosen in zip(self.all[1:], self._filters, strict=False)
            for line in chosen.misfits.values()
        ]

    def count(self, number: int, name: str, packets: int, byte_count: int) -> None:
        """Counts packets of a stream under a name of counters.NAMES."""
        self._counters.count(name, packets, byte_count)
        if self._several:
            self.all[number].counters.count(name, packets, byte_count)

    def cut(self, segments: list[Any]) -> None:
        """Counts segments on their way to the workers."""
        byte_count = sum(each.byte_count for each in segments)
        self._counters.count("segment.cut", sum(map(len, segments)), byte_count)
        if self._several:
            for segment in segments:
                counters = self.all[segment.stream].counters
                counters.count("source.read", len(segment), segment.byte_count)
                counters.count("segment.cut", len(segment), segment.byte_count)

    def dropped(self, number: int, reason: str, packets: int, byte_count: int) -> None:
        """Counts packets that a service dropped for a reason."""
        self.count(number, f"service.{reason}", packets, byte_count)

    def absorb(self, results: Sequence[Result]) -> None:
        """Counts packets of leaving segments that services dropped or that were not processed, and merges the services'
        reports."""
        for result in results:
            segment = result.segment
            if result.reason and not result.dead:
                self.count(segment.stream, "overload.passed_unprocessed", len(segment), segment.byte_count)
            for reason, (packets, byte_count) in result.drops.items():
                self.dropped(segment.stream, reason, packets, byte_count)
            if result.reports:
                self.all[segment.stream].chain.merge(result.reports)

    def account(self, left: list[list[int]], stopped: bool) -> dict[str, dict[str, Any]]:
        """The accounting of each stream by name, if there are several. left: the packets of each that were written."""
        if not self._several:
            return {}
        for stream, counts in zip(self.all, left, strict=True):
            stream.take_left(*counts)
            if stopped:
                stream.counters.count("pipeline.undelivered", *stream.counters.missing())
        return {stream.name: stream.account() for stream in self.all}

    def balance(self) -> list[str]:
        """One line for each sum of a stream's account that does not add up."""
        return [f"stream {s.name}: {line}" for s in self.all if self._several for line in s.counters.balance()]
