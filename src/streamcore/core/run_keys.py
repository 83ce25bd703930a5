"""Every key of a run with its type, bounds, default, flag and meaning. config.py checks values against it.

Flags, manual and error messages are generated from this table (keys.py). market_keys.py has the keys of subcontracting.

Annotations are evaluated here, so no `from __future__ import annotations`.
"""

import os
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from streamcore.core.keys import ADDRESS, DIRECTORY, FILE, NAME, Key
from streamcore.core.market_keys import AUDIT, Market, Subcontract
from streamcore.core.policies import POLICIES
from streamcore.core.replay_keys import SENDING, Loop, Mtu, OverMtu, SourceAddress, TargetAddress, VlanId

Order = Literal["total", "flow", "none"]
OnFailure = Literal["drop", "pass"]
Headers = Literal["outer", "inner"]
Service = str | dict[str, Any]  # "name:key=value,…", or a table with `name` and the options

DECODE_AS_MAX = 1024
SNAP_LENGTH_MAX = 262_144  # as tcpdump
STREAMS_MAX = 255
INPUTS_MAX = 65_536
LIVE_MAX = 64  # interfaces
REST = "rest"  # the name of the packets that no stream selects
STREAM_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"

# The headings of --help, in this order.
INPUT_OUTPUT = "input and output"
RANGES = "which packets, by number and time"
PROCESSING = "processing"
HEADERS = "tunnels and fragments"
SEGMENTS = "segments and their order"
LIVE = "live interfaces"
FLOWS = "when a flow ends, and what is kept of it"
FAILURES = "failures"
REMOTE = "remote workers (see 'streamcore keys', 'streamcore worker')"
REPORTS = "reports"
TUNING = "memory and speed"

READERS = ("run", "packets", "flows")


def workers_default() -> int:
    """The number of usable cores, less one for the pipeline itself; at least 1."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


class Stream(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[stream]]` of a pipeline file: which packets it selects, and the services for them."""

    name: Annotated[
        str,
        Meta(pattern=STREAM_NAME),
        Key("the stream's name in the accounting: lower-case letters, digits, `.`, `_` and `-`"),
    ]
    select: Annotated[str, Meta(min_length=1), Key("a BPF expression")]
    match: Annotated[
        Headers | None, Key("as `match` above, for this stream's expression", default="the run's `match`")
    ] = None  # fmt: skip
    service: Annotated[
        list[Service], Key("services for its packets, in order; without any, packets are forwarded unchanged")
    ] = []
    on_failure: Annotated[OnFailure, Key("as `on_failure` above, for this stream")] = "drop"
    write: Annotated[
        str,
        Key(
            "a capture for the packets of this stream; without it they go where the rest goes",
            "", FILE, more="Rotation and `split` apply to it as to the run's `write`",
        ),
    ] = ""  # fmt: skip
    subcontract: Annotated[Subcontract | None, Key("a table: the terms on which a provider runs its services")] = None


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of a run. Sizes are in bytes, times in the unit that ends the name."""

    # Input and output.
    read: Annotated[
        str | Annotated[list[str], Meta(max_length=INPUTS_MAX)],
        Key(
            "read this capture; `-`: standard input; give it again for the next one",
            "-r", FILE, INPUT_OUTPUT,
            "Pcap or pcapng, plain or in gzip, zstd or lz4; in the pipeline file a name or a list of names. `inputs` "
            "says in which order several are read",
            commands=READERS,
        ),
    ] = ""  # fmt: skip
    inputs: Annotated[
        Literal["merge", "chain"],
        Key(
            "read several captures merged by time, or one after the other",
            "", "merge|chain", INPUT_OUTPUT,
            "`merge`: the packet whose time is the earliest comes next, of equal times that of the capture named "
            "first; within a capture the order stays. Captures may differ in format, link type and precision; their "
            "interfaces stay apart, and what a section says of its system stands at its interfaces",
            commands=READERS, only="reads several",
        ),
    ] = "merge"  # fmt: skip
    write: Annotated[
        str,
        Key(
            "write this capture; `-`: standard output",
            "-w", FILE, INPUT_OUTPUT,
            "The ending of the name selects the format: `.pcap` or `.pcapng`, and `.gz`, `.zst` or `.lz4`",
        ),
    ] = ""  # fmt: skip
    interface: Annotated[
        str | Annotated[list[str], Meta(max_length=LIVE_MAX)],
        Key(
            "capture on this interface instead of `--read`; give it again for the next one; `any`: on all of them",
            "-i", NAME, INPUT_OUTPUT,
            "With `any`, packets have cooked link headers. In the pipeline file a name or a list of names",
        ),
    ] = ""  # fmt: skip
    output_interface: Annotated[
        str,
        Key(
            "send on this Ethernet interface instead of `--write`",
            "-o", NAME, INPUT_OUTPUT, "Only Ethernet packets can be sent; they are sent as they are",
        ),
    ] = ""  # fmt: skip
    rotate_mb: Annotated[
        int, Meta(ge=0, le=1_000_000),
        Key("start a new file after N million bytes", "-C", "N", INPUT_OUTPUT, default="0: one file",
            more="The files are OUT, OUT1, OUT2, …; as in tcpdump, the next packet starts the new file."
            " For a compressed file, compressed bytes count"),
    ] = 0  # fmt: skip
    rotate_s: Annotated[
        int, Meta(ge=0, le=10**9),
        Key("start a new file every N seconds of packet time, at full multiples of N on the local clock",
            "-G", "N", INPUT_OUTPUT, default="0: one file",
            more="`write` may contain strftime codes, as `%Y%m%d-%H%M%S.pcap`, for the begin of the file's time; -N is "
            "added to a name that is taken. A file's name ends in `.part` until it is complete. Packet timestamps "
            "count, whereas tcpdump uses the clock. [split.md](split.md) has more"),
    ] = 0  # fmt: skip
    rotate_aligned: Annotated[
        bool,
        Key("begin files of -G on the clock: an hour at the full hour, a day at midnight", group=INPUT_OUTPUT,
            off="begin files of -G with their first packet, as tcpdump does", only="rotates by time"),
    ] = True  # fmt: skip
    rotate_files: Annotated[
        int, Meta(ge=0, le=1_000_000),
        Key("keep the last N files of -C or -G: remove the oldest before a new one begins",
            "-W", "N", INPUT_OUTPUT, default="0: keep all",
            more="With `rotate_mb` alone the files are OUT0, OUT1, and so on. Files of earlier runs count: with "
            "`rotate_s` those whose names `write` can make with its strftime codes (but for `%s`)"),
    ] = 0  # fmt: skip
    split: Annotated[
        Literal["", "flow", "host", "vlan", "interface", "minute", "call"],
        Key("write a file for each flow, host, VLAN, interface, minute, or telephone call", "", "KIND", INPUT_OUTPUT,
            "The files are OUT-NAME.pcap; what belongs to none is in OUT-rest.pcap. [split.md](split.md) has more",
            default="one file"),
    ] = ""  # fmt: skip
    split_files: Annotated[
        int, Meta(ge=1, le=1_000_000),
        Key("most files of a split; packets of further ones go to the rest, and are counted",
            "", "N", INPUT_OUTPUT, only="splits"),
    ] = 65_536  # fmt: skip
    after_file: Annotated[
        str,
        Key("run COMMAND FILE for each file that is complete, as `-z gzip`; not through a shell",
            "-z", "COMMAND", INPUT_OUTPUT,
            "The command may have arguments; the file's name is the last one. At most 4 run at a time; at the end the "
            "run waits for them, for a minute. A command that fails is named, and the exit status is 3",
            only="rotates"),
    ] = ""  # fmt: skip
    precision: Annotated[
        Literal["", "us", "ns"],
        Key(
            "write times in a pcap as microseconds or nanoseconds; us cuts finer times",
            "", "us|ns", INPUT_OUTPUT,
            "A time that the file cannot hold ends the run with an error",
            default="microseconds if the input has no finer times",
            only="writes a pcap",
        ),
    ] = ""  # fmt: skip
    overwrite: Annotated[
        bool,
        Key(
            "replace files that are there: of rotations, live runs and dead letters",
            group=INPUT_OUTPUT,
            more="Without it they take another name (`NAME-1.pcap`, the next number), and a ring goes on at its oldest "
            "file. A run over a capture replaces the file of `write` anyway. No run replaces its input, nor a file "
            "that another run is writing",
        ),
    ] = False
    filter: Annotated[
        str,
        Key(
            "process only packets that match, as in tcpdump",
            "", "BPF EXPRESSION", INPUT_OUTPUT, "Other packets are dropped, and counted", form="words",
        ),
    ] = ""  # fmt: skip
    resume: Annotated[
        bool,
        Key("continue an interrupted run that wrote to this output", group=INPUT_OUTPUT, more="See below"),
    ] = False

    # Which packets.
    count: Annotated[
        int, Meta(ge=0, le=1 << 62),
        Key("stop after N packets", "-c", "N", RANGES, default="0: no limit", commands=READERS,
            more="Packets count that match the expression and lie between `from` and `until`, after those that `skip` "
            "leaves out"),
    ] = 0  # fmt: skip
    skip: Annotated[
        int, Meta(ge=0, le=1 << 62),
        Key("leave out the first N packets", "", "N", RANGES, "Counted as `count` counts", commands=READERS),
    ] = 0  # fmt: skip
    from_: Annotated[
        str,
        Key("leave out packets before this time", "", "TIME", RANGES,
            "ISO 8601, as 2026-11-27T13:50:00Z, local without a zone; or seconds since 1970. Packets without a time "
            "are left out, too. The input's times count, not those that `shift` makes",
            commands=READERS, only="reads"),
    ] = ""  # fmt: skip
    until: Annotated[
        str,
        Key("leave out packets of this time and later", "", "TIME", RANGES,
            "As `from`. The input is read to its end, because its packets need not be in order",
            commands=READERS, only="reads"),
    ] = ""  # fmt: skip
    shift: Annotated[
        str,
        Key("add N seconds to every time; N may be negative", "", "N", RANGES,
            "Up to nine decimals. A time that the record cannot hold ends the run with an error",
            commands=READERS, only="reads"),
    ] = ""  # fmt: skip
    sort_s: Annotated[
        float, Meta(ge=0, le=86_400),
        Key("sort packets by time that are up to N seconds late", "", "N", RANGES,
            "A packet that is later stands where it came, and is counted. At most 64 chunks wait; if that is not "
            "enough, the window is shorter",
            default="0: as they come", commands=READERS, only="reads"),
    ] = 0.0  # fmt: skip

    # Processing.
    service: Annotated[
        list[Service],
        Key(
            "apply this service; give it again for the next one",
            "", "NAME[:KEY=VALUE,…]", PROCESSING,
            "`streamcore services` lists them; for a service of your own give `path/to/file.py:ClassName`. "
            "Without services, packets are forwarded unchanged",
        ),
    ] = []  # fmt: skip
    workers: Annotated[
        int,
        Meta(ge=0, le=256),
        Key("worker processes on this machine", "-n", "N", PROCESSING, default="cores - 1"),
    ] = msgspec.field(default_factory=workers_default)
    stream: Annotated[
        list[Stream],
        Meta(max_length=STREAMS_MAX),
        Key("a list of tables, see below: packets that get other services than the rest", form="table"),
    ] = []  # a packet belongs to the first that selects it
    market: Annotated[
        Market | None, Key("a table, see below: where providers are found", form="table", only="subcontracts")
    ] = None
    subcontract: Annotated[
        Subcontract | None, Key("a table, see below: the terms on which a provider runs the services", form="table")
    ] = None

    # Tunnels and fragments.
    decode_as: Annotated[
        list[str],
        Meta(max_length=DECODE_AS_MAX),
        Key(
            "try this tunnel on a UDP port, too; give it again for the next one",
            "", "udp.port=NUMBER,TUNNEL", HEADERS,
            "As in `udp.port=8472,vxlan`; [link-types.md](link-types.md) lists the tunnels. Their checks stay: what "
            "does not look like the tunnel is payload. Workers elsewhere use the same ports",
            commands=READERS,
        ),
    ] = []  # fmt: skip
    flow_key: Annotated[
        Literal["outer", "inner", "both"],
        Key(
            "what tells flows in tunnels apart: the outermost header, the innermost one, or both",
            group=HEADERS, commands=("run", "flows"),
            more="With `inner` and `both`, the innermost tunnel's kind and id count too; with `both` also the "
            "addresses outside, but no ports there, which a tunnel's end chooses for each direction. In "
            "`streamcore run` this decides which packets stay together in a lane (policy `flow`) and what the "
            "column `flow_hash` is of. In "
            "`streamcore flows` the flag is also called `--key`",
            only="hashes",
        ),
    ] = "outer"  # fmt: skip
    match: Annotated[
        Headers,
        Key(
            "which headers the filter and the streams' expressions look at",
            group=HEADERS,
            more="With `inner`, an expression is matched against what is in the innermost tunnel: its frame where that "
            "is Ethernet, otherwise its IP packet. A packet in no tunnel is matched as it stands",
            only="selects",
        ),
    ] = "outer"  # fmt: skip
    follow_fragments: Annotated[
        bool,
        Key(
            "the filter keeps later fragments if it kept the first one",
            group=HEADERS,
            more="Without it each fragment is matched alone, as tcpdump does. In `[[stream]]` they always follow "
            "the first one",
            only="filters",
        ),
    ] = False  # fmt: skip

    # Segments and their order.
    policy: Annotated[
        str,
        Key(
            "how packets are divided into segments",
            group=SEGMENTS,
            names=POLICIES,
        ),
    ] = "flow"
    order: Annotated[
        Order,
        Key(
            "order of the output",
            group=SEGMENTS,
            more="`total`: as in the input; `flow`: as in the input within each flow; `none`: as results arrive",
        ),
    ] = "total"
    segment_packets: Annotated[int, Meta(ge=1, le=1 << 20), Key("most packets in a segment", "", "N", SEGMENTS)] = (
        65_536
    )
    segment_bytes: Annotated[
        int, Meta(ge=1, le=1 << 30), Key("end a segment after N captured bytes", "", "N", SEGMENTS)
    ] = 4 << 20
    segment_ms: Annotated[
        int,
        Meta(ge=0, le=86_400_000),
        Key(
            "end a segment after N ms of capture time",
            "", "N", SEGMENTS, default="0: no limit; 1000 with policy time",
            more="Live: how long, in real time, a packet may wait for others; "
            "0: 100 towards a file, 1 towards an interface",
        ),
    ] = 0  # fmt: skip
    hash_seed: Annotated[
        Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None,
        Key("seed of the flow hash", "", "N", SEGMENTS, default="random", commands=("run", "packets"), only="hashes"),
    ] = None

    # Live interfaces.
    both: Annotated[
        bool,
        Key("forward between -i and -o in both directions (a bump in the wire)", group=LIVE),
    ] = False
    duration_s: Annotated[
        float, Meta(ge=0, le=1e9),
        Key("stop after N seconds", "", "N", LIVE, default="0: no limit", only="live"),
    ] = 0.0  # fmt: skip
    promiscuous: Annotated[
        bool,
        Key(
            "receive packets addressed to others, too", "-p", group=LIVE,
            off="receive only packets addressed to this machine",
            only="live",
        ),
    ] = True  # fmt: skip
    snap_length: Annotated[
        int,
        Meta(ge=0, le=SNAP_LENGTH_MAX),
        Key(
            "keep at most N bytes of each packet; 0: all",
            "-s",
            "N",
            LIVE,
            only="live",
            instead="--service slice:N,from=packet cuts the packets of a capture",
        ),
    ] = SNAP_LENGTH_MAX
    buffer_kib: Annotated[
        int, Meta(ge=256, le=4 << 20), Key("size of each kernel ring buffer, in KiB", "-B", "N", LIVE, only="live")
    ] = 32_768  # fmt: skip
    rings: Annotated[
        int,
        Meta(ge=1, le=64),
        Key(
            "ring buffers for each interface; the kernel spreads flows over them", "", "N", LIVE,
            "For machines with many cores and network cards with many queues",
            only="live",
        ),
    ] = 1  # fmt: skip
    user: Annotated[
        str,
        Key("if started as root, continue as this user once the interfaces are open", "", NAME, LIVE,
            only="opens interfaces"),
    ] = ""  # fmt: skip
    segments: Annotated[
        Literal["merged", "wire"],
        Key(
            "how packets of up to 64 KiB that the kernel or its hardware merged are delivered",
            group=LIVE,
            more="`merged`: as they are received, with true checksums; `wire`: cut into segments as they are on the "
            "wire. Between two interfaces they are always cut for services that resize",
            only="live",
        ),
    ] = "merged"
    overload: Annotated[
        Literal["drop", "pass", "spool"],
        Key(
            "what to do with packets when workers fall behind",
            group=LIVE,
            more="It applies when half of `buffer_kib` is used. "
            "`drop`: the kernel drops packets when the ring is full; "
            "`pass`: packets that wait for a worker are forwarded unprocessed; "
            "`spool`: a file keeps packets until workers have time",
            only="live",
        ),
    ] = "drop"
    spool_bytes: Annotated[
        int,
        Meta(ge=1 << 20, le=1 << 44),
        Key(
            "size of the spool file", "", "N", LIVE,
            "It is allocated at the start and has no name. When it is full, the newest packets are dropped",
            only="spools",
        ),
    ] = 1 << 30  # fmt: skip
    spool_directory: Annotated[str, Key("directory of the spool file", "", DIRECTORY, LIVE, only="spools")] = (
        "/var/tmp"  # on disk, where /tmp may be memory
    )

    # Sending.
    replay: Annotated[
        Annotated[float, Meta(ge=0, le=1e6)] | None,
        Key(
            "send a capture at N times its recorded speed; 0: unpaced", "", "N", SENDING,
            default="1, unless a rate is set",
            only="replays",
        ),
    ] = None  # fmt: skip
    loop: Loop = 1
    source_mac: SourceAddress = ""
    target_mac: TargetAddress = ""
    vlan: VlanId = None
    mtu: Mtu = 0
    over_mtu: OverMtu = "segment"
    rate_mbps: Annotated[
        float, Meta(ge=0, le=1e6),
        Key("send N million bits of frames per second", "", "N", SENDING, default="0: no limit", only="sends"),
    ] = 0.0  # fmt: skip
    rate_pps: Annotated[
        float,
        Meta(ge=0, le=1e9),
        Key("send N packets per second", "", "N", SENDING, default="0: no limit", only="sends"),
    ] = 0.0  # fmt: skip

    # Flows.
    idle_s: Annotated[
        float, Meta(ge=0.001, le=10**9),
        Key("a flow ends after N seconds without a packet", "", "N", FLOWS, commands=("flows",),
            more="Of capture time, as all of these; a later packet begins a new flow"),
    ] = 120.0  # fmt: skip
    active_s: Annotated[
        float, Meta(ge=0.001, le=10**9),
        Key("a flow ends N seconds after its first packet", "", "N", FLOWS, "Its next packet begins a new flow",
            commands=("flows",)),
    ] = 1800.0  # fmt: skip
    whole: Annotated[
        bool,
        Key("one row for each flow, whatever the time and whatever TCP says", group=FLOWS, commands=("flows",),
            more="Then all flows stay in memory, up to `flows_max`. [columns.md](columns.md) says when flows end else"),
    ] = False  # fmt: skip
    first_packets: Annotated[
        int, Meta(ge=0, le=32),
        Key("also write lengths and gaps of the first N packets of each flow", "", "N", FLOWS, commands=("flows",)),
    ] = 0  # fmt: skip

    # Failures.
    on_failure: Annotated[
        OnFailure,
        Key(
            "what to do with a segment that no worker can process",
            group=FAILURES,
            more="`drop`: drop its packets; `pass`: forward them unprocessed",
        ),
    ] = "drop"
    dead_letter: Annotated[
        str, Key("capture that keeps such segments", "", FILE, FAILURES, default="OUT.dead-letter.pcapng")
    ] = ""
    drain_s: Annotated[
        float,
        Meta(ge=0, le=86_400),
        Key(
            "an interrupted run stops after N seconds, even if packets are left", "", "N", FAILURES,
            "It says what it waits for, and counts what is left as a loss. 0: no limit. Keep it below the time after"
            " which the service's manager kills the run (`TimeoutStopSec`)",
        ),
    ] = 20.0  # fmt: skip
    lease_ms: Annotated[
        int,
        Meta(ge=10, le=3_600_000),
        Key("replace a worker that needs more than N ms for a segment", "", "N", FAILURES),
    ] = 10_000
    attempts_max: Annotated[
        int, Meta(ge=1, le=100), Key("give a segment up after it failed N times", "", "N", FAILURES)
    ] = 3  # fmt: skip
    restarts_max: Annotated[
        int,
        Meta(ge=0, le=1_000),
        Key("give a worker up after N restarts in a row without a result", "", "N", FAILURES, only="own workers"),
    ] = 8  # fmt: skip

    # Remote workers.
    listen: Annotated[str, Key("let remote workers join here", "", "tcp://HOST:PORT", REMOTE)] = ""
    key: Annotated[
        str,
        Key("our CURVE key file (.key_secret)", "", FILE, REMOTE, "`streamcore keys` makes it. `listen` needs it",
            only="listens",
        ),
    ] = ""  # fmt: skip
    worker_keys: Annotated[
        str,
        Key("public keys (.key) of the workers that may join", "", DIRECTORY, REMOTE, "`listen` needs it",
            only="listens",
        ),
    ] = ""  # fmt: skip
    audit: Annotated[
        float,
        Meta(ge=0, le=1),
        Key("process this share of what workers elsewhere do again on this machine", "", "SHARE", REMOTE,
            "The results are compared; a worker whose result differs is given up. Only services that give the same "
            "result whoever runs them can be audited, and only while a worker runs on this machine. Providers have "
            "an `audit` of their own",
            only="listens",
        ),
    ] = AUDIT  # fmt: skip

    # Reports.
    json: Annotated[
        bool, Key("print the accounting as a JSON object", group=REPORTS,
                  more="It is the last line of standard output; [accounting.md](accounting.md) describes it")
    ] = False  # fmt: skip
    quiet: Annotated[bool, Key("print only errors and losses", "-q", group=REPORTS)] = False
    verbose: Annotated[bool, Key("also print the figures of each worker, and all notes", "-v", group=REPORTS)] = False
    progress: Annotated[
        bool,
        Key(
            "show progress on a terminal", group=REPORTS, off="do not show progress on a terminal",
            more="For live interfaces it is a line of figures every second",
        ),
    ] = True  # fmt: skip
    metrics: Annotated[
        str, Key("serve metrics for Prometheus here", "", ADDRESS, REPORTS, "[live.md](live.md) lists them")
    ] = ""  # fmt: skip

    # Memory and speed.
    credit: Annotated[int, Meta(ge=1, le=64), Key("full-sized segments sent ahead to a worker", "", "N", TUNING)] = 3
    outstanding_segments_max: Annotated[
        int, Meta(ge=1, le=65_536), Key("most segments between reading and writing", "", "N", TUNING)
    ] = 1024  # fmt: skip
    chunk_bytes: Annotated[int, Meta(ge=1 << 19, le=1 << 28), Key("bytes read at once", "", "N", TUNING)] = 4 << 20
    chunk_rows: Annotated[int, Meta(ge=1 << 10, le=1 << 22), Key("most packets in a chunk", "", "N", TUNING)] = 65_536
    chunks: Annotated[
        int,
        Meta(ge=2, le=1024),
        Key(
            "chunks in memory", "", "N", TUNING, "Waiting input takes `chunks` times `chunk_bytes` of memory"
        ),
    ] = 12  # fmt: skip
    chunk_wait_s: Annotated[
        float,
        Meta(ge=0, le=60),
        Key("how long packets of a slow pipe wait for a full chunk", "", "N", TUNING, only="reads a pipe"),
    ] = 0.1  # fmt: skip
    flows_max: Annotated[
        int,
        Meta(ge=1 << 8, le=1 << 26),
        Key(
            "most flows in the table at once", "", "N", TUNING, commands=("flows",),
            more="When it is full, a flow that has been idle for long is written and removed",
        ),
    ] = 1 << 20  # fmt: skip
    fragments_max: Annotated[
        int,
        Meta(ge=1 << 4, le=1 << 22),
        Key("most fragmented packets whose later fragments are recognised", "", "N", TUNING, commands=READERS),
    ] = 1 << 16  # fmt: skip
