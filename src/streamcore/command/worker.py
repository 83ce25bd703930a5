"""`streamcore worker`: a worker process that joins a pipeline over the network."""

from __future__ import annotations

import argparse

from streamcore.command.say import say


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connect", metavar="tcp://HOST:PORT", required=True, help="where the pipeline listens")
    parser.add_argument("--key", metavar="FILE", required=True, help="this worker's key (.key_secret)")
    parser.add_argument("--server-key", metavar="FILE", required=True, help="the pipeline's public key (.key)")
    parser.add_argument(
        "--join-s",
        type=float,
        metavar="N",
        default=30.0,
        help="give up if the pipeline does not let it join within N seconds (default: %(default)s)",
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="FILE",
        help="a file of this machine that the pipeline may have run as a service, or read; give it again for the next "
        "one (default: none)",
    )


def execute(arguments: argparse.Namespace) -> int:
    from streamcore.core.rules import check_address
    from streamcore.worker.remote import RemoteWorker

    check_address("connect", arguments.connect, "tcp://")
    worker = RemoteWorker(arguments.connect, arguments.key, arguments.server_key, arguments.join_s, arguments.allow)
    done = worker.run()
    say(f"streamcore: done, {done} segments")
    return 0
