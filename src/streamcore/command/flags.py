"""The words of the command line: sub-commands, flags and their help.

What they do stands in cli.py, what they may be in config.py.
The letters mean what they mean in tcpdump. Every flag of `run` is a key of the pipeline file under the same name.
"""

from __future__ import annotations

import argparse
from typing import Any

RUN_EXAMPLES = """\
examples:
  streamcore run -r in.pcapng.zst -w out.pcapng -n 2 --service anonymise 'tcp port 443'
  streamcore run -r in.pcap -w out.pcap --service dedup --service slice:96
  streamcore run -c pipeline.toml -r in.pcap -w out.pcapng.zst --json
  streamcore run -r in.pcap -o eth1 --rate-mbps 100
  tcpdump -i eth0 -w - | streamcore run -r - -w - --service anonymise | tcpdump -r -

exit status: 0 all delivered, 1 failed, 2 wrong usage, 3 finished with loss that the accounting names,
130 interrupted. The first Ctrl-C delivers what was read and ends; the second ends at once.
"""
COMMANDS_EPILOG = """\
examples:
  streamcore demo
  streamcore run -r in.pcapng.zst -w out.pcapng --service anonymise 'tcp port 443'
  streamcore flows -r in.pcap --csv flows.csv

'streamcore COMMAND --help' says more about each.
"""


class Parser(argparse.ArgumentParser):
    """Errors are one line that says what to do; help keeps its examples as they stand."""

    def __init__(self, **told: Any) -> None:
        told.setdefault("formatter_class", Formatter)
        super().__init__(**told)

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message} (try '{self.prog} --help')\n")


class Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line. The name of the sub-command is `command` in what it parses."""
    parser = Parser(
        prog="streamcore",
        description="Packets in, segments out to workers, results aggregated into a second stream.",
        epilog=COMMANDS_EPILOG,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    add_run(
        commands.add_parser(
            "run",
            help="process a capture",
            epilog=RUN_EXAMPLES,
            usage="streamcore run -r FILE|-i NAME -w FILE|-o NAME [--service NAME]… [flags] [BPF EXPRESSION]",
            description="Read packets, process them in workers, write what comes back.",
        )
    )
    add_packets(commands.add_parser("packets", help="one row per packet: its headers, lengths and checksum"))
    add_flows(commands.add_parser("flows", help="one row per flow"))
    services = commands.add_parser("services", help="list the services")
    services.add_argument("--json", action="store_true", help="as one JSON object")
    check = commands.add_parser("check", help="check a pipeline file without running it")
    check.add_argument("-c", "--config", metavar="FILE", required=True, help="the pipeline file (TOML)")
    doctor = commands.add_parser("doctor", help="check what this machine offers")
    doctor.add_argument("-i", "--interface", metavar="NAME", help="also what this live interface offers")
    doctor.add_argument("--json", action="store_true", help="as one JSON object")
    demo = commands.add_parser("demo", help="run the main job on the shipped capture")
    demo.add_argument(
        "--output", metavar="DIRECTORY", default="demo-output", help="where the results go (default: %(default)s)"
    )
    demo.add_argument(
        "--market", action="store_true", help="with a market and two providers, each a process (the extra `serve`)"
    )
    demo.add_argument("--json", action="store_true", help="with --market: all that came of it as one JSON object")
    add_worker(commands.add_parser("worker", help="work for a pipeline elsewhere"))
    add_provider(commands.add_parser("provider", help="offer services in a market, and run them for who takes them"))
    keys = commands.add_parser("keys", help="make a CURVE key pair for a pipeline or a worker")
    keys.add_argument("name", metavar="NAME", help="the files are called NAME.key (public) and NAME.key_secret")
    keys.add_argument("directory", metavar="DIRECTORY", help="where they go")
    return parser


def add_run(run: argparse.ArgumentParser) -> None:
    """The flags of `run`; one that is not given is None, so that the pipeline file's key stands."""
    files = run.add_argument_group("what is read and written")
    files.add_argument(
        "-r", "--read", metavar="FILE", help="a capture: pcap or pcapng, also in gzip, zstd or lz4; -: standard input"
    )
    files.add_argument(
        "-w",
        "--write",
        metavar="FILE",
        help="a capture; its ending says pcap or pcapng, and .gz .zst .lz4; -: standard output",
    )
    files.add_argument(
        "-C", "--rotate-mb", type=int, metavar="N", help="begin a new file after N million bytes: OUT, OUT1, OUT2, …"
    )
    files.add_argument(
        "-G", "--rotate-s", type=int, metavar="T", help="begin a new file after T seconds; OUT as strftime takes it"
    )
    files.add_argument(
        "-W", "--rotate-files", type=int, metavar="N",
        help="with -C: N files, then the first is overwritten; with -G alone: end after N files",
    )  # fmt: skip
    files.add_argument("-c", "--config", metavar="FILE", help="a pipeline file (TOML); flags go over its keys")
    files.add_argument("-i", "--interface", metavar="NAME", help="capture on it instead; any: on all, cooked")
    files.add_argument("-o", "--output-interface", metavar="NAME", help="send on it instead of writing")
    files.add_argument(
        "expression", nargs="*", metavar="BPF EXPRESSION", help="which packets to process, as tcpdump takes it"
    )

    live = run.add_argument_group("live interfaces")
    live.add_argument(
        "-p",
        "--no-promiscuous",
        dest="promiscuous",
        action="store_const",
        const=False,
        help="only what is addressed to this machine",
    )
    live.add_argument(
        "-s", "--snap-length", type=int, metavar="N", help="bytes of a packet that are kept (default: 262144)"
    )
    live.add_argument(
        "-B", "--buffer-kib", type=int, metavar="N", help="KiB for packets that wait to be read (default: 32768)"
    )
    live.add_argument("--user", metavar="NAME", help="whom root becomes when the interfaces are open")
    live.add_argument("--rings", type=int, metavar="N", help="spread the flows over so many (default: 1)")
    live.add_argument(
        "--both", action="store_const", const=True, help="between -i and -o in both directions: a bump in the wire"
    )
    live.add_argument(
        "--replay", type=float, metavar="X", help="send a capture X times as fast as it came (default: 1; 0: any speed)"
    )
    live.add_argument("--rate-mbps", type=float, metavar="X", help="send X million bits a second")
    live.add_argument("--rate-pps", type=float, metavar="X", help="send X packets a second")
    live.add_argument("--count", type=int, metavar="N", help="end after so many packets")
    live.add_argument("--duration-s", type=float, metavar="T", help="end after so many seconds")
    live.add_argument(
        "--overload",
        metavar="RULE",
        help="when workers fall behind: drop the newest, pass them unprocessed, or spool them (default: drop)",
    )
    live.add_argument("--spool-bytes", type=int, metavar="N", help="of the spool (default: 1073741824)")
    live.add_argument("--spool-directory", metavar="DIRECTORY", help="where the spool lies (default: /var/tmp)")

    work = run.add_argument_group("what is done, by whom")
    work.add_argument(
        "--service",
        action="append",
        metavar="NAME[:KEY=VALUE,…]",
        help="done to the packets, in order; one of 'streamcore services', or path/to/file.py:ClassName",
    )
    work.add_argument("-n", "--workers", type=int, metavar="N", help="worker processes (default: the cores less one)")

    cuts = run.add_argument_group("how the packets are cut into segments, and in which order they leave")
    cuts.add_argument(
        "--policy",
        metavar="NAME",
        help="run: consecutive packets; flow: a flow stays with one worker; time (default: flow)",
    )
    cuts.add_argument(
        "--segment-packets", type=int, metavar="N", help="packets in a segment at the most (default: 65536)"
    )
    cuts.add_argument(
        "--segment-bytes", type=int, metavar="B", help="captured bytes after which a segment is cut (default: 4194304)"
    )
    cuts.add_argument(
        "--segment-ms",
        type=int,
        metavar="T",
        help="milliseconds of capture time in a segment (default: no bound; policy time: 1000)",
    )
    cuts.add_argument(
        "--order", metavar="NAME", help="total: the input's order; flow: within each flow; none (default: total)"
    )
    cuts.add_argument("--hash-seed", type=int, metavar="N", help="of the flow hash (default: drawn at random)")

    faults = run.add_argument_group("when something fails")
    faults.add_argument(
        "--on-failure",
        metavar="RULE",
        help="what no worker can process: drop it or pass it on as it came (default: drop)",
    )
    faults.add_argument(
        "--resume", action="store_const", const=True, help="go on where a run into this output was cut off"
    )
    faults.add_argument(
        "--dead-letter", metavar="FILE", help="the capture that keeps it (default: OUT.dead-letter.pcapng)"
    )
    faults.add_argument(
        "--lease-ms", type=int, metavar="T", help="how long a worker may take for a segment (default: 10000)"
    )
    faults.add_argument(
        "--attempts-max", type=int, metavar="N", help="failures after which a segment is given up (default: 3)"
    )
    faults.add_argument(
        "--restarts-max", type=int, metavar="N", help="starts of a worker in a row without a result (default: 8)"
    )

    elsewhere = run.add_argument_group("workers elsewhere (see 'streamcore keys', 'streamcore worker')")
    elsewhere.add_argument("--listen", metavar="tcp://HOST:PORT", help="let workers elsewhere join here")
    elsewhere.add_argument("--key", metavar="FILE", help="our key (.key_secret)")
    elsewhere.add_argument(
        "--worker-keys", metavar="DIRECTORY", help="the public keys (.key) of the workers that may join"
    )

    words = run.add_argument_group("what is said")
    words.add_argument(
        "--json",
        action="store_const",
        const=True,
        help="the accounting as one JSON object, the last line on standard output",
    )
    words.add_argument("-q", "--quiet", action="store_const", const=True, help="say nothing unless something is wrong")
    words.add_argument(
        "-v", "--verbose", action="store_const", const=True, help="also what each worker did, and what was noticed"
    )
    words.add_argument("--metrics", metavar="HOST:PORT", help="serve the figures to Prometheus there")
    words.add_argument(
        "--no-progress", dest="progress", action="store_const", const=False, help="no progress on a terminal"
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


def add_provider(provider: argparse.ArgumentParser) -> None:
    provider.add_argument("--market", metavar="URL", required=True, help="where 'auction serve' listens")
    provider.add_argument(
        "--token-file",
        metavar="FILE",
        required=True,
        help="our token at the market; written where --party registers us",
    )
    provider.add_argument("--party", metavar="NAME", default="", help="register so if there is no token yet")
    provider.add_argument("--key", metavar="FILE", required=True, help="our CURVE key (.key_secret)")
    provider.add_argument(
        "--service", metavar="[NAME=]CHAIN", action="append", required=True,
        help="what is offered: services joined by +, and what the market calls it (default: their names)",
    )  # fmt: skip
    provider.add_argument("--capacity-mbps", type=float, metavar="N", required=True, help="of packets, in all")
    provider.add_argument(
        "--pricing", metavar="RULE", required=True,
        help="fixed:PRICE, per-gigabyte:PRICE, load:BASE:SLOPE, or path/to/file.py:Class with price(quote)",
    )  # fmt: skip
    provider.add_argument("-n", "--workers", type=int, metavar="N", default=1, help="worker processes a pipeline gets")
    provider.add_argument("--currency", default="EUR", help="of the prices (default: %(default)s)")
    provider.add_argument("--no-standing-offers", dest="stand", action="store_false", help="only bid in auctions")
    provider.add_argument(
        "--patience-s", type=float, metavar="T", default=300.0,
        help="how long to go on without an answer of the market (default: %(default)s)",
    )  # fmt: skip
    provider.add_argument("--json", action="store_true", help="what was done and earned, as one line at the end")
    provider.add_argument("-q", "--quiet", action="store_true", help="say nothing unless something is wrong")
