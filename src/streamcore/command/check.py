"""`streamcore check`: checks a pipeline file without running it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

COMMANDS = ("run", "packets", "flows")  # the commands that take a pipeline file
SECRETS = ("key", "token", "password", "secret")  # how the names of options end whose values are not printed


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", required=True, help="the pipeline file (TOML)")
    parser.add_argument(
        "--for", dest="command", choices=COMMANDS, default="run", help="the command that will use it (default: run)"
    )


def execute(arguments: argparse.Namespace) -> int:
    from streamcore.core.counters import Counters
    from streamcore.core.pipeline_file import make_config
    from streamcore.headers import udp_ports
    from streamcore.parse.filter import Filter
    from streamcore.run.streams import Streams

    config = make_config(arguments.config, command=arguments.command)
    udp_ports(config.decode_as)
    if arguments.command != "run":
        print(f"{arguments.config}: right for 'streamcore {arguments.command}'")
        return 0
    streams = Streams(config, Counters())
    if config.filter:
        Filter(config.filter)
    streams.classifier()
    chains = [_shown(stream.service) for stream in config.streams]
    print(f"{arguments.config}: {chains[0]}, policy {config.policy}, order {config.order}, {config.workers} workers")
    for stream, chain in zip(streams.all[1:], chains[1:], strict=True):
        print(f"  stream {stream.name}: {chain}, {stream.select}")
    return 0


def _shown(specifications: Sequence[Any]) -> str:
    """The services of one stream with their options, as one would write them on the command line."""
    from streamcore.service.specification import parse_specification

    services = []
    for specification in specifications:
        name, options = parse_specification(specification)
        words = [f"{option.replace('_', '-')}={_value(option, value)}".lstrip("=") for option, value in options.items()]
        services.append(f"{name}:{','.join(words)}" if words else name)
    return " -> ".join(services) or "identity"


def _value(option: str, value: Any) -> str:
    if option.endswith(SECRETS):
        return "(given)"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f'"{text}"' if "," in text else text
