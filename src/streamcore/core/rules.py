"""Contradictions between keys, and keys without effect in a run: one row for each, with its error message.

The allowed values of a single key are in run_keys.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from streamcore.core.errors import UsageError
from streamcore.core.frames import mac_bytes
from streamcore.core.keys import key_fields, plain
from streamcore.core.market_keys import AUDIT, OVERLOAD_MS
from streamcore.core.policies import POLICIES
from streamcore.core.times import point_ns, span_ns
from streamcore.core.words import command_words

if TYPE_CHECKING:
    from streamcore.core.config import Config
    from streamcore.core.run_keys import Stream

PORT_MAX = 65_535
MTU_MIN = 68  # the least that IPv4 asks of a link (RFC 791)
HOST_PORT = re.compile(r"([^:\s]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5}|\*)")

# Endings that ask for a compression, or an archive, that nobody here writes.
UNWRITTEN = (
    ".bz2", ".xz", ".lzma", ".lz", ".lzo", ".br", ".sz", ".snappy", ".z", ".zip", ".7z", ".rar", ".tgz", ".tar",
    ".gzip", ".zstd",
)  # fmt: skip

# Which runs a key with `only` has an effect in: a test of the keys `c` of a whole run, and these runs in words.
RUNS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "live": (lambda c: c.interface, "live interfaces (-i)"),
    "opens interfaces": (lambda c: c.interface or c.output_interface, "live interfaces (-i, -o)"),
    "spools": (lambda c: c.interface and c.overload == "spool", 'live interfaces with overload = "spool"'),
    "sends": (lambda c: c.output_interface, "sending on an interface (-o)"),
    "reads": (lambda c: c.read, "captures (-r)"),
    "reads several": (lambda c: len(c.captures) > 1, "several captures (-r A -r B)"),
    "bounded by an MTU": (lambda c: c.mtu, "runs with mtu"),
    "replays": (lambda c: c.read and c.output_interface, "captures that are sent on an interface (-r, -o)"),
    "reads a pipe": (
        lambda c: not all(map(os.path.isfile, c.captures)),
        "pipes: a file does not keep its reader waiting",
    ),
    "writes a pcap": (lambda c: c.write and ".pcapng" not in c.write.lower(), "pcap outputs"),
    "rotates": (lambda c: c.rotates or c.split, "outputs of several files (-C, -G, --split)"),
    "splits": (lambda c: c.split, "runs with split"),
    "rotates by time": (lambda c: c.rotate_s, "files of -G"),
    "filters": (lambda c: c.filter, "runs with an expression"),
    "selects": (lambda c: c.filter or c.stream, "runs with an expression or [[stream]] tables"),
    "hashes": (
        lambda c: "flow" in POLICIES[c.policy].groups or any(stream.service for stream in c.streams),
        'policy = "flow", and services',
    ),
    "own workers": (lambda c: c.workers, "workers on this machine"),
    "listens": (lambda c: c.listen, "runs with listen"),
    "subcontracts": (lambda c: any(stream.subcontract for stream in c.streams), "runs with a subcontract table"),
}

# Each row: a test of the keys `c`, and the error message if its result is true. {found} in the message is that result.
Rule = tuple[Callable[[Any], Any], str]
RULES: tuple[Rule, ...] = (
    (
        lambda c: twice([stream.name for stream in c.streams]),
        "two streams are called {found!r}: rename one ('rest' is reserved for packets that no stream selects)",
    ),
    (lambda c: c.read and c.interface, "read and interface are both set: set one of them"),
    (lambda c: c.write and c.output_interface, "write and output_interface are both set: set one of them"),
    (
        lambda c: twice([*(name for name in c.captures if name == "-"), *c.live]),
        "{found} is named twice to read from: name it once",
    ),
    (lambda c: len(c.live) > 1 and "any" in c.live, "interface any is all interfaces: give no other beside it"),
    (
        lambda c: c.output_interface and next((name for name in c.live if name in ("any", c.output_interface)), ""),
        "interface {found} would capture again what {c.output_interface} sends: use two interfaces",
    ),
    (
        lambda c: c.both and not (len(c.live) == 1 and c.output_interface),
        "both needs two interfaces: interface and output_interface",
    ),
    (
        lambda c: c.segments == "wire" and "any" in c.live,
        'segments = "wire" needs the name of an interface: the kernel does not say of `any` how packets were merged',
    ),
    (
        lambda c: c.segments == "wire" and c.snap_length < key_fields(c.__class__)["snap_length"].default,
        'segments = "wire" needs whole packets: leave snap_length out, and cut them with --service slice',
    ),
    (
        lambda c: next(filter(None, (no_time(c, name) for name in ("from_", "until", "shift"))), ""),
        "{found}",
    ),
    (
        lambda c: next(filter(None, (no_mac(c, name) for name in ("source_mac", "target_mac"))), ""),
        "{found}",
    ),
    (lambda c: 0 < c.mtu < MTU_MIN, f"mtu must be 0, or {MTU_MIN} or more, not {{c.mtu}}"),
    (
        lambda c: c.loop == 0 and c.write not in ("", "-") and not c.count,
        "loop 0 would fill {c.write}: send the packets (-o), write them to standard output, or set count",
    ),
    (
        lambda c: c.loop != 1 and not all(map(os.path.isfile, c.captures)),
        "loop needs files: what comes through a pipe cannot be read again",
    ),
    (
        lambda c: c.from_ns is not None and c.until_ns is not None and c.until_ns <= c.from_ns,
        "until must be later than from",
    ),
    (
        lambda c: c.rotates and c.write in ("", "-"),
        "rotate_mb and rotate_s need write, with a file name",
    ),
    (
        lambda c: (
            c.whole
            and [name for name in ("idle_s", "active_s") if getattr(c, name) != key_fields(c.__class__)[name].default]
        ),
        "whole and {found[0]} are both set: with whole, time ends no flow",
    ),
    (lambda c: c.split and c.write in ("", "-"), "split needs write, with a file name"),
    (lambda c: c.split and c.rotates, "split and rotate_mb or rotate_s are both set: set one of them"),
    (
        lambda c: c.split and next((each for each in (".gz", ".zst", ".lz4") if c.write.lower().endswith(each)), ""),
        "split and a name in {found} are both set: files of a split are not compressed, -z may do it",
    ),
    (
        lambda c: [each.name for each in c.stream if each.write and (c.output_interface or not c.write)],
        "stream {found[0]}: a write of its own needs the run's write, for the rest",
    ),
    (
        lambda c: [each.name for each in c.stream if each.write == "-"],
        "stream {found[0]}: its write must be a file, not standard output",
    ),
    (
        lambda c: twice([os.path.abspath(each) for each in (c.write, *(each.write for each in c.stream)) if each]),
        "{found} is to be written twice: name another file for the stream, or leave its write out",
    ),
    (lambda c: c.rotate_files and not c.rotates, "rotate_files needs rotate_mb or rotate_s"),
    (
        lambda c: next(filter(None, map(unwritten, (c.write, c.dead_letter, *(each.write for each in c.stream)))), ""),
        "{found} is not a compression that streamcore writes: end the name in .gz, .zst or .lz4",
    ),
    (
        lambda c: len(paced(c)) > 1 and paced(c),
        "{found[0]} and {found[1]} are both set: set only one of them to pace the packets",
    ),
    (
        lambda c: not c.listen and [stream.name for stream in c.streams if stream.subcontract],
        "stream {found[0]}: subcontract needs listen, the address at which providers join",
    ),
    (
        lambda c: c.listen and not (c.key and (c.worker_keys or any(stream.subcontract for stream in c.streams))),
        "listen needs key and worker_keys: make keys with 'streamcore keys NAME DIRECTORY'",
    ),
    (
        lambda c: c.listen and not c.workers and c.audit not in (0, AUDIT),
        "audit needs a worker on this machine, which does again what workers elsewhere have done: set workers",
    ),
    (
        lambda c: next(filter(None, (refused_terms(stream, c) for stream in c.streams)), None),
        "stream {found}",
    ),
    (
        lambda c: not c.workers and not c.listen,
        "workers is 0 and listen is not set: no worker could process the packets, set one of them",
    ),
)

# The same for the terms of a stream: a test of `t`, the subcontract of a stream of the keys `c`.
TERMS: tuple[tuple[Callable[[Any, Any], Any], str], ...] = (
    (lambda t, c: t.maximum_bps and t.minimum_bps > t.maximum_bps, "minimum_bps is above maximum_bps"),
    (lambda t, c: not t.minimum_bps and not t.maximum_bps, "subcontract needs minimum_bps, maximum_bps or both"),
    (lambda t, c: t.when != "cheaper" and t.in_house_price, 'in_house_price has no effect without when = "cheaper"'),
    (
        lambda t, c: t.when != "overloaded" and t.overload_ms != OVERLOAD_MS,
        'overload_ms has no effect without when = "overloaded"',
    ),
    (lambda t, c: t.when == "cheaper" and not t.in_house_price, 'when = "cheaper" needs in_house_price'),
    (
        lambda t, c: (t.otherwise == "in-house" or t.when == "overloaded") and not c.workers and not c.worker_keys,
        "its services cannot run in-house without workers: set workers, or change otherwise and when",
    ),
    (
        lambda t, c: t.when == "missing" and t.otherwise == "in-house",
        'when = "missing" needs otherwise = "pass" or "refuse"',
    ),
)


def refuse_contradictions(config: Config) -> None:
    """Raises UsageError with the message of the first row that applies."""
    if config.listen:
        check_address("listen", config.listen, "tcp://")
    if config.metrics:
        check_address("metrics", config.metrics)
    command_words(config.after_file)
    for contradicts, words in RULES:
        if found := contradicts(config):
            raise UsageError(words.format(c=config, found=found))


def refuse_ignored(config: Config, names: Iterable[str]) -> None:
    """Raises UsageError if one of these keys has no effect in the run that the config describes."""
    fields = key_fields(type(config))
    if not (config.read or config.interface) or not config.output:
        return  # not a whole run: other keys may follow
    for name in names:
        key = fields[name].key
        if key.only and not RUNS[key.only][0](config):
            instead = f"; {key.instead}" if key.instead else ""
            raise UsageError(f"{plain(name)} has no effect in this run: it is for {RUNS[key.only][1]}{instead}")


def unwritten(path: str, more: tuple[str, ...] = ()) -> str:
    """The ending of a path that asks for a compression that is not written; "": there is none."""
    return next((ending for ending in (*UNWRITTEN, *more) if path.lower().endswith(ending)), "")


def refused_terms(stream: Stream, config: Config) -> str | None:
    """The stream's name and the fault in its subcontract; None if there is no fault."""
    terms = stream.subcontract
    if terms is None:
        return None
    return next((f"{stream.name}: {words}" for contradicts, words in TERMS if contradicts(terms, config)), None)


def no_time(config: Config, name: str) -> str:
    """Why the value of this key is no time; "": it is one."""
    try:
        if words := getattr(config, name):
            (span_ns if name == "shift" else point_ns)(words)
    except ValueError as error:
        return f"{plain(name)} must be {error}, not {words!r}"
    return ""


def no_mac(config: Config, name: str) -> str:
    """Why the value of this key is no Ethernet address; "": it is one."""
    try:
        if words := getattr(config, name):
            mac_bytes(words)
    except ValueError as error:
        return f"{name} must be {error}, not {words!r}"
    return ""


def twice(names: list[str]) -> str | None:
    """The first name that occurs twice."""
    return next((name for name in names if names.count(name) > 1), None)


def paced(config: Config) -> list[str]:
    """The keys that pace sending and are set."""
    return [name for name in ("replay", "rate_mbps", "rate_pps") if getattr(config, name)]


def check_address(key: str, address: str, scheme: str = "") -> None:
    """Raises UsageError if the address is not HOST:PORT after its scheme, or the port is out of range. With a scheme,
    port * lets ZeroMQ choose a free port."""
    found = HOST_PORT.fullmatch(address.removeprefix(scheme)) if address.startswith(scheme) else None
    if found is None or (not scheme if found[2] == "*" else int(found[2]) > PORT_MAX):
        raise UsageError(f"{key} must be {scheme}HOST:PORT, not {address!r}")
