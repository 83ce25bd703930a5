"""Contradictions between keys: one row for each combination that is refused, with its error message.

The allowed values of a single key are in config.py.
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
        lambda c: c.output_interface and c.interface in ("any", c.output_interface),
        "interface {c.interface} would capture again what {c.output_interface} sends: use two interfaces",
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
        "user needs a live interface: root continues as this user after opening it",
    ),
    (
        lambda c: c.rotates and c.write in ("", "-"),
        "rotate_mb and rotate_s need write, with a file name",
    ),
    (lambda c: c.rotate_files and not c.rotates, "rotate_files needs rotate_mb or rotate_s"),
    (
        lambda c: len(paced(c)) > 1 and paced(c),
        "{found[0]} and {found[1]} are both set: set only one of them to pace the packets",
    ),
    (lambda c: c.write and paced(c), "{found[0]} paces sending: set output_interface instead of write"),
    (lambda c: c.replay and c.interface, "replay is for captures: live packets are forwarded immediately"),
    (
        lambda c: not c.listen and [stream.name for stream in c.streams if stream.subcontract],
        "stream {found[0]}: subcontract needs listen, the address at which providers join",
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
        "workers is 0 and listen is not set: no worker could process the packets, set one of them",
    ),
)

# The same for the terms of a stream: a test of `t`, the subcontract of a stream of the keys `c`.
TERMS: tuple[tuple[Callable[[Any, Any], Any], str], ...] = (
    (lambda t, c: t.maximum_bps and t.minimum_bps > t.maximum_bps, "minimum_bps is above maximum_bps"),
    (lambda t, c: not t.minimum_bps and not t.maximum_bps, "subcontract needs minimum_bps, maximum_bps or both"),
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
    for contradicts, words in RULES:
        if found := contradicts(config):
            raise UsageError(words.format(c=config, found=found))


def refused_terms(stream: Stream, config: Config) -> str | None:
    """The stream's name and the fault in its subcontract; None if there is no fault."""
    terms = stream.subcontract
    if terms is None:
        return None
    return next((f"{stream.name}: {words}" for contradicts, words in TERMS if contradicts(terms, config)), None)


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
