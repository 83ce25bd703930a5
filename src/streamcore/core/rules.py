"""Keys that contradict each other: one row for each combination that is refused, and the line that says why.

What a single key may be stands with the key, in config.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamcore.core.errors import UsageError

if TYPE_CHECKING:
    from streamcore.core.config import Config, Stream

PORT_MAX = 65_535
HOST_PORT = re.compile(r"([^:\s]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5}|\*)")

# Each row: when the keys `c` contradict each other, and what is said then. What is found is {found} in the line.
Rule = tuple[Callable[[Any], Any], str]
RULES: tuple[Rule, ...] = (
    (
        lambda c: twice([stream.name for stream in c.streams]),
        "two streams are called {found!r} ('rest' is what no stream selects)",
    ),
    (lambda c: c.read and c.interface, "read and interface are both set: set one of them"),
    (lambda c: c.write and c.output_interface, "write and output_interface are both set: set one of them"),
    (
        lambda c: c.output_interface and c.interface in ("any", c.output_interface),
        "packets of {c.interface} would be captured again on {c.output_interface}",
    ),
    (
        lambda c: c.read and (c.count or c.duration_s),
        "count and duration_s are for live interfaces: a capture is read to its end",
    ),
    (
        lambda c: c.both and not (c.interface and c.output_interface),
        "both needs two interfaces: interface and output_interface",
    ),
    (
        lambda c: c.user and not (c.interface or c.output_interface),
        "user is for live interfaces: it is the user that root becomes when they are open",
    ),
    (
        lambda c: c.rotates and c.write in ("", "-"),
        "rotate_mb and rotate_s are for files: they need write, with a file name",
    ),
    (lambda c: c.rotate_files and not c.rotates, "rotate_files needs rotate_mb or rotate_s"),
    (
        lambda c: len(paced(c)) > 1 and paced(c),
        "{found[0]} and {found[1]} are both set: only one of them can pace the packets",
    ),
    (lambda c: c.write and paced(c), "{found[0]} paces packets that are sent: it needs output_interface, not write"),
    (lambda c: c.replay and c.interface, "replay is for captures: live packets are forwarded immediately"),
    (
        lambda c: not c.listen and [stream.name for stream in c.streams if stream.subcontract],
        "stream {found[0]}: subcontract needs listen, for the providers to join",
    ),
    (
        lambda c: c.listen and not (c.key and (c.worker_keys or any(stream.subcontract for stream in c.streams))),
        "listen needs key and worker_keys: make keys with 'streamcore keys NAME DIRECTORY'",
    ),
    (
        lambda c: next(filter(None, (refused_terms(stream, c) for stream in c.streams)), None),
        "stream {found}",
    ),
    (
        lambda c: not c.workers and not c.listen,
        "workers is 0 and listen is not set: no worker could process the packets",
    ),
)

# The same for the terms of a stream: when `t`, the subcontract of a stream of `c`, contradicts itself or the rest.
TERMS: tuple[tuple[Callable[[Any, Any], Any], str], ...] = (
    (lambda t, c: t.maximum_bps and t.minimum_bps > t.maximum_bps, "minimum_bps is above maximum_bps"),
    (lambda t, c: not t.minimum_bps and not t.maximum_bps, "subcontract needs minimum_bps, maximum_bps or both"),
    (lambda t, c: t.when == "cheaper" and not t.in_house_price, 'when = "cheaper" needs in_house_price'),
    (
        lambda t, c: (t.otherwise == "in-house" or t.when == "overloaded") and not c.workers and not c.worker_keys,
        "without workers its services cannot run in-house",
    ),
    (
        lambda t, c: t.when == "missing" and t.otherwise == "in-house",
        'when = "missing" needs otherwise = "pass" or "refuse"',
    ),
)


def refuse_contradictions(config: Config) -> None:
    """Raises UsageError with the line of the first row that applies."""
    if config.listen:
        check_address("listen", config.listen, "tcp://")
    if config.metrics:
        check_address("metrics", config.metrics)
    for contradicts, words in RULES:
        if found := contradicts(config):
            raise UsageError(words.format(c=config, found=found))


def refused_terms(stream: Stream, config: Config) -> str | None:
    """The stream's name and what is wrong with its subcontract; None: nothing."""
    terms = stream.subcontract
    if terms is None:
        return None
    return next((f"{stream.name}: {words}" for contradicts, words in TERMS if contradicts(terms, config)), None)


def twice(names: list[str]) -> str | None:
    """A name that is there twice."""
    return next((name for name in names if names.count(name) > 1), None)


def paced(config: Config) -> list[str]:
    """The keys that are set of those that pace what is sent."""
    return [name for name in ("replay", "rate_mbps", "rate_pps") if getattr(config, name)]


def check_address(key: str, address: str, scheme: str = "") -> None:
    """Raises UsageError if the address is not HOST:PORT after its scheme, or there is no such port. Port * is ZeroMQ's
    word for any that is free."""
    found = HOST_PORT.fullmatch(address.removeprefix(scheme)) if address.startswith(scheme) else None
    if found is None or (not scheme if found[2] == "*" else int(found[2]) > PORT_MAX):
        raise UsageError(f"{key} must be {scheme}HOST:PORT, not {address!r}")
