"""The accounting of a run: its counters, workers and service summaries, and the exit status that follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streamcore.core.counters import Counters, words_for
from streamcore.core.run_keys import REST
from streamcore.run.summaries import in_words

DELIVERED, LOSS, INTERRUPTED = 0, 3, 130


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """One slot's part of the work."""

    slot: int
    segments: int
    packets: int
    bytes: int
    busy_s: float
    failed: int


@dataclass(frozen=True, slots=True)
class Accounting:
    """The account of a finished run."""

    counters: Counters
    seconds: float
    shares: tuple[WorkerShare, ...]
    services: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> summary
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> its account, if there are several
    subcontracts: list[dict[str, Any]] = field(default_factory=list)  # which provider ran what under which agreement
    market_errors: list[str] = field(default_factory=list)
    unbalanced_streams: list[str] = field(default_factory=list)  # one line for each wrong sum of a stream
    incomplete: list[str] = field(default_factory=list)  # one line for each reason why the output is incomplete
    given_up: dict[str, str] = field(default_factory=dict)  # key of a worker elsewhere that was given up -> reason
    key_files: list[str] = field(default_factory=list)  # known keys that could not be read, a line each
    misfits: list[str] = field(default_factory=list)  # expressions that cannot hold for a link type, a line each
    metadata_removed: int = 0  # options of pcapng blocks left out because a service requires it
    damage: str = ""  # where and why the input ends early, a line for each capture
    interrupted: bool = False
    late: bool = False  # interrupted, and not drained in time
    dead_letter: str = ""  # the capture with the segments that no worker could process
    dead_reasons: dict[str, int] = field(default_factory=dict)  # reason -> segments
    output: str = ""
    so_far: bool = False  # the run has not ended: packets are under way

    @property
    def unbalanced(self) -> list[str]:
        """One line for each sum that does not add up. Unknown while packets are under way."""
        if self.so_far:
            return []
        return self.counters.balance() + self.unbalanced_streams

    @property
    def exit_status(self) -> int:
        """0: all delivered; 3: losses that the counters name, also of an interrupted run; 130: interrupted."""
        if self.damage or self.incomplete or self.counters.lost or self.unbalanced:
            return LOSS
        return INTERRUPTED if self.interrupted else DELIVERED

    def json(self) -> dict[str, Any]:
        """The object that `--json` prints; its schema is docs/accounting.md."""
        account = self.counters.as_json()
        account["seconds"] = round(self.seconds, 6)
        account["workers"]["shares"] = [
            {"slot": s.slot, "segments": s.segments, "packets": s.packets, "bytes": s.bytes,
             "busy_seconds": round(s.busy_s, 6), "failed": s.failed}
            for s in self.shares
        ]  # fmt: skip
        if self.services:
            account["services"] = self.services
        if self.streams:
            account["streams"] = self.streams
        if self.subcontracts:
            account["subcontracts"] = self.subcontracts
        if self.market_errors:
            account["market_errors"] = self.market_errors
        if self.metadata_removed:
            account["metadata_removed"] = self.metadata_removed
        if self.incomplete:
            account["incomplete"] = self.incomplete
        if self.given_up:
            account["given_up"] = self.given_up
        if self.key_files:
            account["key_files"] = self.key_files
        if self.misfits:
            account["misfits"] = self.misfits
        if self.damage:
            account["damage"] = "; ".join(self.damage.splitlines())
        if self.dead_letter:
            account["dead_letter"] = {"path": self.dead_letter, "reasons": self.dead_reasons}
        if self.unbalanced:
            account["unbalanced"] = self.unbalanced
        if self.so_far:
            account["under_way"] = self.counters.under_way()
        else:
            account["exit_status"] = self.exit_status
        return account

    def text(self, verbose: bool = False) -> str:
        """The accounting in words, a few lines."""
        counters = self.counters
        lines = [
            f"{counters.packets('source.read'):,} packets read, {counters.packets('sink.written'):,} written"
            f" in {self.seconds:.3f} s" + (f" -> {self.output}" if self.output not in ("", "-") else "")
        ]
        if self.so_far:
            lines.append(f"  {counters.under_way():,} under way")
        for name, packets in (counters.unread() | counters.dropped()).items():
            lines.append(f"  {packets:,} dropped: {words_for(name)}")
        lines += [f"  {line}" for line in (*self.incomplete, *self.misfits)]
        for name in ("sink.replaced", "sink.in_rest"):
            if packets := counters.packets(name):
                lines.append(f"  {packets:,} of them {words_for(name)}")
        if beyond := counters.events("sink.beyond_files"):
            lines.append(f"  {beyond:,} {words_for('sink.beyond_files')}")
        if self.metadata_removed:
            lines.append(f"  {self.metadata_removed:,} comments, names and the like left out of pcapng blocks")
        lines += [f"  the input is damaged: {line}" for line in self.damage.splitlines()]
        for name in ("source.late", "source.cut_to_mtu"):
            if count := counters.events(name):
                lines.append(f"  {count:,} {words_for(name)}")
        if self.dead_letter:
            for reason, segments in self.dead_reasons.items():
                lines.append(f"  {segments} segments failed: {reason}")
            lines.append(f"  their packets are in {self.dead_letter}")
        lost, resent = counters.events("workers.lost"), counters.events("segments.resent")
        if lost or resent:
            lines.append(f"  {lost} workers lost, {resent} segments sent again")
        for key, reason in self.given_up.items():
            lines.append(f"  the worker with key {key} was given up: {reason}")
        added, struck = counters.events("workers.keys_added"), counters.events("workers.keys_struck")
        if added or struck:
            lines.append(f"  keys of workers: {added:,} added, {struck:,} struck")
        lines += [f"  {line}" for line in self.key_files]
        for name, summary in self.services.items():
            lines += in_words(name, summary)
        for name, stream in self.streams.items():
            packets = stream["packets"]
            lines.append(f"  stream {name}: {packets['selected']:,} packets, {packets['written']:,} written")
            if name != REST:  # its services are printed above
                for service, summary in stream.get("services", {}).items():
                    lines += ["  " + line for line in in_words(service, summary)]
        for each in self.subcontracts:
            failures = f", failed: {'; '.join(each['failures'])}" if each["failures"] else ""
            lines.append(
                f"  {each['provider']} ran {each['segments']:,} segments of {', '.join(each['streams'])}"
                f" under {each['agreement']}{failures}"
            )
        lines += [f"  the market: {words}" for words in self.market_errors]
        if verbose:
            lines += [f"  {name}: {count:,}" for name, count in counters.as_json()["notes"].items()]
            for s in self.shares:
                lines.append(
                    f"  worker {s.slot}: {s.segments:,} segments, {s.packets:,} packets, busy {s.busy_s:.3f} s"
                )
        lines += [f"  this does not add up, please report it: {line}" for line in self.unbalanced]
        if self.interrupted:
            lines.append("  interrupted" + (", and not drained in time" if self.late else ""))
        return "\n".join(lines)
