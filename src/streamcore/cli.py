"""The command: flags -> Config -> Pipeline. No logic of its own; words for people go to standard error, data and JSON
to standard output.

Start-up time counts here: what a sub-command needs is imported by that sub-command.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from streamcore.errors import StreamcoreError, UsageError

RUN_EXAMPLES = """\
examples:
  streamcore run -r in.pcapng.zst -w out.pcapng -n 2 --service anonymise 'tcp port 443'
  streamcore run -r in.pcap -w out.pcap --service dedup --service slice:96 --policy flow --order total
  tcpdump -i eth0 -w - | streamcore run -r - -w - --service count | wireshark -k -i -

exit status: 0 all delivered, 1 failed, 2 wrong usage, 3 finished with loss that the accounting names, 130 interrupted
"""


class Parser(argparse.ArgumentParser):
    """Errors are one line that says what to do."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message} (try '{self.prog} --help')\n")


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="streamcore", description="Packets in, segments out to workers, results aggregated into a second stream."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    add_run(commands.add_parser(
        "run", help="process a capture", epilog=RUN_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Read packets, process them in workers, write what comes back.",
    ))  # fmt: skip
    add_packets(commands.add_parser("packets", help="one row per packet: its headers, lengths and checksum"))
    add_flows(commands.add_parser("flows", help="one row per flow"))
    services = commands.add_parser("services", help="list the services")
    services.add_argument("--json", action="store_true", help="as one JSON object")
    check = commands.add_parser("check", help="check a pipeline file without running it")
    check.add_argument("-c", "--config", metavar="FILE", required=True, help="the pipeline file (TOML)")
    doctor = commands.add_parser("doctor", help="check what this machine offers")
    doctor.add_argument("--json", action="store_true", help="as one JSON object")
    demo = commands.add_parser("demo", help="run the main job on the shipped capture")
    demo.add_argument(
        "--output", metavar="DIRECTORY", default="demo-output", help="where the results go (default: %(default)s)"
    )
    add_worker(commands.add_parser("worker", help="work for a pipeline elsewhere"))
    keys = commands.add_parser("keys", help="make a CURVE key pair for a pipeline or a worker")
    keys.add_argument("name", metavar="NAME", help="the files are called NAME.key (public) and NAME.key_secret")
    keys.add_argument("directory", metavar="DIRECTORY", help="where they go")
    return parser


def add_run(run: argparse.ArgumentParser) -> None:
    """The flags of `run`. Each is a key of the pipeline file under the same name."""
    run.add_argument(
        "-r", "--read", metavar="FILE", help="a capture (pcap or pcapng, also gzip, zstd or lz4); -: standard input"
    )
    run.add_argument(
        "-w",
        "--write",
        metavar="FILE",
        help="the output; its ending says pcap or pcapng, and .gz .zst .lz4; -: standard output",
    )
    run.add_argument("-i", "--interface", metavar="NAME", help=argparse.SUPPRESS)
    run.add_argument("-o", "--output-interface", metavar="NAME", help=argparse.SUPPRESS)
    run.add_argument("-c", "--config", metavar="FILE", help="a pipeline file (TOML); flags go over its keys")
    run.add_argument("-n", "--workers", type=int, metavar="N", help="worker processes (default: cores - 1)")
    run.add_argument(
        "--service", action="append", metavar="NAME[:KEY=VALUE,…]", help="what is done to the packets; may be repeated"
    )
    run.add_argument("--policy", metavar="NAME", help="where segments are cut: run, flow or time (default: flow)")
    run.add_argument("--segment-packets", type=int, metavar="N", help="packets in a segment at the most")
    run.add_argument("--segment-bytes", type=int, metavar="B", help="captured bytes in a segment at the most")
    run.add_argument(
        "--segment-ms", type=int, metavar="T", help="milliseconds of capture time in a segment at the most"
    )
    run.add_argument("--order", metavar="NAME", help="of the output: total, flow or none (default: total)")
    run.add_argument(
        "--on-failure", metavar="RULE", help="for what no worker can process: drop or pass (default: drop)"
    )
    run.add_argument("--dead-letter", metavar="FILE", help="where such packets are kept (default: beside the output)")
    run.add_argument("--lease-ms", type=int, metavar="T", help="how long a worker may take for a segment")
    run.add_argument("--restarts-max", type=int, metavar="N", help="of one worker in a row without a result")
    run.add_argument("--listen", metavar="tcp://HOST:PORT", help="let workers elsewhere join here")
    run.add_argument("--key", metavar="FILE", help="our key (.key_secret), for --listen")
    run.add_argument("--worker-keys", metavar="DIRECTORY", help="the public keys of the workers that may join")
    run.add_argument("--json", action="store_true", help="the accounting as one JSON object, last on standard output")
    run.add_argument("-q", "--quiet", action="store_true", help="say nothing unless something is wrong")
    run.add_argument("-v", "--verbose", action="store_true", help="say more")
    run.add_argument(
        "expression", nargs="*", metavar="BPF EXPRESSION", help="as tcpdump takes it: which packets to process"
    )


def add_packets(packets: argparse.ArgumentParser) -> None:
    packets.add_argument("-r", "--read", metavar="FILE", required=True, help="a capture; -: standard input")
    packets.add_argument(
        "--tsv", metavar="OUT", required=True, help="tab-separated values, .gz compresses; -: standard output"
    )
    packets.add_argument(
        "--label", default="", metavar="TEXT", help="the first column of every row (default: the capture's name)"
    )


def add_flows(flows: argparse.ArgumentParser) -> None:
    flows.add_argument("-r", "--read", metavar="FILE", required=True, help="a capture; -: standard input")
    form = flows.add_mutually_exclusive_group()
    form.add_argument(
        "--json", metavar="OUT", nargs="?", const="-", help="one JSON object per line (default, to standard output)"
    )
    form.add_argument("--csv", metavar="OUT", nargs="?", const="-", help="comma-separated values")
    form.add_argument("--parquet", metavar="OUT", help="a Parquet file (needs the extra 'parquet')")


def add_worker(worker: argparse.ArgumentParser) -> None:
    worker.add_argument("--connect", metavar="tcp://HOST:PORT", required=True, help="where the pipeline listens")
    worker.add_argument("--key", metavar="FILE", required=True, help="this worker's key (.key_secret)")
    worker.add_argument("--server-key", metavar="FILE", required=True, help="the pipeline's public key (.key)")
    worker.add_argument(
        "--join-s", type=float, metavar="T", default=30.0, help="how long to wait to be let in (default: %(default)s)"
    )


def main(arguments: list[str] | None = None) -> None:
    """The entry point: runs a command, and exits with its status."""
    told = make_parser().parse_args(arguments)
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": run, "packets": packets, "flows": flows, "services": services, "check": check, "doctor": doctor,
        "demo": demo, "worker": worker, "keys": keys,
    }  # fmt: skip
    try:
        status = commands[told.command](told)
        sys.stdout.flush()
    except StreamcoreError as error:
        print(f"streamcore: {error}", file=sys.stderr)
        status = error.exit_status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads us any more; the interpreter must not try again
        status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def run_flags(told: argparse.Namespace) -> dict[str, Any]:
    """The flags of `run` as keys of the pipeline file."""
    keys = [
        "read", "write", "workers", "service", "policy", "segment_packets", "segment_bytes", "segment_ms", "order", "on_failure",
        "dead_letter", "lease_ms", "restarts_max", "listen", "key", "worker_keys",
    ]  # fmt: skip
    flags = {key: getattr(told, key) for key in keys}
    flags["filter"] = " ".join(told.expression) or None
    return flags


def run(told: argparse.Namespace) -> int:
    from streamcore.config import make_config

    if told.interface or told.output_interface:
        raise UsageError("live interfaces (-i, -o) are not in this version: pipe 'tcpdump -w -' into '-r -'")
    config = make_config(told.config, run_flags(told))
    if not config.read or not config.write:
        raise UsageError("say what to read and where to write: streamcore run -r IN.pcap -w OUT.pcap")
    if told.json and config.write == "-":
        raise UsageError("--json and -w - both want standard output: write to a file")

    from streamcore.disperse.local import launch

    launched = [launch() for _ in range(config.workers)]  # they load beside us

    from streamcore.pipeline import Pipeline
    from streamcore.progress import following

    pipeline = Pipeline(config, launched)
    interrupts = 0

    def interrupt(_signal: int, _frame: Any) -> None:
        nonlocal interrupts
        interrupts += 1
        (pipeline.drain if interrupts == 1 else pipeline.stop)()

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    with following(pipeline, not told.quiet):
        accounting = pipeline.run()
    if told.json:
        print(json.dumps(accounting.json()))
    if not told.quiet or accounting.exit_status == 3:
        print(accounting.text(told.verbose), file=sys.stderr)
    return accounting.exit_status


def packets(told: argparse.Namespace) -> int:
    from streamcore.tables import write_packets

    return write_packets(told.read, told.tsv, told.label or os.path.basename(told.read))


def flows(told: argparse.Namespace) -> int:
    from streamcore.tables import write_flows

    form = "parquet" if told.parquet else "csv" if told.csv else "json"
    return write_flows(told.read, told.parquet or told.csv or told.json or "-", form)


def services(told: argparse.Namespace) -> int:
    from streamcore.service.load import describe

    described = describe()
    if told.json:
        print(json.dumps({"services": [each._asdict() for each in described]}))
        return 0
    for each in described:
        options = ", ".join(f"{key}={value}" if value else key for key, value in each.options.items())
        print(f"{each.name:<12}{each.effect:<9}{each.words}" + (f"\n{'':21}options: {options}" if options else ""))
    return 0


def check(told: argparse.Namespace) -> int:
    from streamcore.config import make_config
    from streamcore.parse.filter import Filter
    from streamcore.service.chain import Chain

    config = make_config(told.config)
    chain = Chain(config.service)
    if config.filter:
        Filter(config.filter)
    names = " -> ".join(service.name for service in chain.services) or "identity"
    print(f"{told.config}: {names}, policy {config.policy}, order {config.order}, {config.workers} workers")
    return 0


def doctor(told: argparse.Namespace) -> int:
    from streamcore.doctor import examine

    return examine(told.json)


def demo(told: argparse.Namespace) -> int:
    from streamcore.demo import show

    return show(told.output)


def worker(told: argparse.Namespace) -> int:
    from streamcore.remote_worker import RemoteWorker

    done = RemoteWorker(told.connect, told.key, told.server_key, told.join_s).run()
    print(f"streamcore: done, {done} segments", file=sys.stderr)
    return 0


def keys(told: argparse.Namespace) -> int:
    import zmq.auth

    try:
        os.makedirs(told.directory, exist_ok=True)
        public, secret = zmq.auth.create_certificates(told.directory, told.name)
        os.chmod(secret, 0o600)
    except OSError as error:
        raise UsageError(f"{error.filename or told.directory}: {error.strerror}") from None
    print(f"{public}\n{secret}")
    return 0
