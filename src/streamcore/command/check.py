"""`streamcore check`: checks a pipeline file without running it."""

from __future__ import annotations

import argparse

COMMANDS = ("run", "packets", "flows")  # the commands that take a pipeline file


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
    chains = [" -> ".join(service.name for service in stream.chain.services) or "identity" for stream in streams.all]
    print(f"{arguments.config}: {chains[0]}, policy {config.policy}, order {config.order}, {config.workers} workers")
    for stream, chain in zip(streams.all[1:], chains[1:], strict=True):
        print(f"  stream {stream.name}: {chain}, {stream.select}")
    return 0
