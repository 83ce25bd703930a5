"""The pipeline file and the flags -> one frozen Config: every default and every bound, under the name of its flag.

What a filter or a service makes of its words is not known here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from streamcore.core.errors import UsageError
from streamcore.core.policies import POLICIES

Order = Literal["total", "flow", "none"]
Service = str | dict[str, Any]  # "name:key=value,…", or a table with `name` and the options

LANES_ELSEWHERE = 16
DEAD_LETTER_ENDING = ".dead-letter.pcapng"
LIVE_MS_TO_FILE, LIVE_MS_TO_INTERFACE = 100, 1  # what a live packet waits where segment_ms is not told
SNAP_LENGTH_MAX = 262_144  # as tcpdump
STREAMS_MAX = 255
PORT_MAX = 65_535
REST = "rest"  # the name of the packets that no stream selects
NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
ADDRESS = re.compile(r"([^:\s]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5}|\*)")
TABLES = {"policy": POLICIES}  # keys whose values are the names of a table's rows
PATHS = ("read", "write", "dead_letter", "key", "worker_keys", "spool_directory")


def workers_default() -> int:
    """One core is left to the pipeline itself."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


class Subcontract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[stream.subcontract]`: when a provider runs a stream's services, on which terms, and what happens without."""

    service: str = ""  # as the market calls it; "": the stream's services, joined by "+"
    objective: Literal["quality", "cost"] = "quality"
    when: Literal["missing", "cheaper", "overloaded", "always"] = "always"
    price_max: Annotated[int, Meta(ge=0)]  # for a block, in minor units
    in_house_price: Annotated[int, Meta(ge=0)] = 0  # with `cheaper`: what a block costs in-house
    minimum_bps: Annotated[int, Meta(ge=0)] = 0
    maximum_bps: Annotated[int, Meta(ge=0)] = 0
    block_ms: Annotated[int, Meta(ge=100, le=86_400_000)] = 60_000
    deadline_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 0  # for a segment; 0: half of lease_ms
    join_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 5_000  # segments wait so long for a provider to join
    audit: Annotated[float, Meta(ge=0, le=1)] = 0.05  # of the segments are processed again in-house
    overload_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = (
        1000  # with `overloaded`: a segment may wait so long for ours
    )
    otherwise: Literal["in-house", "pass", "refuse"] = "in-house"
    effect: Literal["observe", "rewrite", "resize", "filter"] | None = (
        None  # of a service that is not to be had in-house
    )

    @property
    def reserve(self) -> int:
        """The most that a block may cost."""
        return min(self.price_max, self.in_house_price - 1) if self.when == "cheaper" else self.price_max

    @property
    def need(self) -> Subcontract:
        """What must be equal for two streams to share an agreement: all but the rates, which add up."""
        return msgspec.structs.replace(self, minimum_bps=0, maximum_bps=0)


class Market(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[market]`: where providers are found."""

    url: Annotated[str, Meta(pattern=r"^https?://")]
    token_file: str = ""  # whose content says who we are
    recipient: str = ""  # "": who the token says
    device: str = ""  # of ours, which measures and rates
    address: str = ""  # where providers reach us; "": `listen`
    auction_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = (
        2_000  # how long an auction is open; 0: standing offers alone
    )
    overrule_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 0  # how long a person may overrule a drafted rating


class Stream(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[stream]]` of a pipeline file: which packets, and what is done to them."""

    name: Annotated[str, Meta(pattern=NAME)]
    select: Annotated[str, Meta(min_length=1)]  # a BPF expression
    service: list[Service] = []
    on_failure: Literal["drop", "pass"] = "drop"
    subcontract: Subcontract | None = None


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one run may be told, with defaults and bounds. Sizes in bytes, times in the unit of the name."""

    read: str = ""  # a capture file, or "-": standard input
    write: str = ""  # a capture file, or "-": standard output
    interface: str = ""  # a live interface instead of `read`; "any": all of them, cooked
    output_interface: str = ""  # a live interface instead of `write`
    both: bool = False  # between two interfaces: both directions
    rotate_mb: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # a new file after so many millions of bytes; 0: one file
    rotate_s: Annotated[int, Meta(ge=0, le=10**9)] = 0  # a new file after so many seconds, by the packets' times
    rotate_files: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # how many; 0: no bound
    replay: Annotated[float, Meta(ge=0, le=1e6)] | None = None  # times as fast as the capture; 0: as fast as it goes
    rate_mbps: Annotated[float, Meta(ge=0, le=1e6)] = 0.0  # of what is sent, in 10^6 bits of frames a second; 0: any
    rate_pps: Annotated[float, Meta(ge=0, le=1e9)] = 0.0  # packets a second; 0: any
    promiscuous: bool = True
    snap_length: Annotated[int, Meta(ge=0, le=SNAP_LENGTH_MAX)] = (
        SNAP_LENGTH_MAX  # bytes of a live packet that are kept; 0: all
    )
    buffer_kib: Annotated[int, Meta(ge=256, le=4 << 20)] = 32_768  # of each live interface's ring
    rings: Annotated[int, Meta(ge=1, le=64)] = 1  # of each live interface; flows are spread over them
    user: str = ""  # live: whom root becomes when the interfaces are open
    count: Annotated[int, Meta(ge=0, le=1 << 62)] = 0  # live: packets received, after which it ends; 0: no end
    duration_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0  # live: 0: no end
    overload: Literal["drop", "pass", "spool"] = "drop"  # live: what becomes of packets when workers fall behind
    spool_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 44)] = 1 << 30
    spool_directory: str = "/var/tmp"  # on disk, where /tmp may be memory
    workers: Annotated[int, Meta(ge=0, le=256)] = msgspec.field(default_factory=workers_default)
    service: list[Service] = []
    market: Market | None = None
    subcontract: Subcontract | None = None
    stream: Annotated[list[Stream], Meta(max_length=STREAMS_MAX)] = []  # a packet belongs to the first that selects it
    policy: str = "flow"  # one of TABLES
    order: Order = "total"
    filter: str = ""  # a BPF expression
    segment_packets: Annotated[int, Meta(ge=1, le=1 << 20)] = 65_536
    segment_bytes: Annotated[int, Meta(ge=1, le=1 << 30)] = 4 << 20
    segment_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 0  # of capture time; 0: no bound (policy time: 1000)
    on_failure: Literal["drop", "pass"] = "drop"  # what becomes of a segment that no worker could process
    dead_letter: str = ""  # where such segments are kept; "": beside the output
    lease_ms: Annotated[int, Meta(ge=10, le=3_600_000)] = 10_000
    attempts_max: Annotated[int, Meta(ge=1, le=100)] = 3
    restarts_max: Annotated[int, Meta(ge=0, le=1_000)] = 8  # of one worker in a row without a result
    credit: Annotated[int, Meta(ge=1, le=64)] = 3  # full-sized segments out with one worker
    outstanding_segments_max: Annotated[int, Meta(ge=1, le=65_536)] = 1024  # between the segmenter and the sink
    chunk_bytes: Annotated[int, Meta(ge=1 << 19, le=1 << 28)] = 4 << 20
    chunk_rows: Annotated[int, Meta(ge=1 << 10, le=1 << 22)] = 65_536
    chunks: Annotated[int, Meta(ge=2, le=1024)] = 12
    chunk_wait_s: Annotated[float, Meta(ge=0, le=60)] = 0.1  # how long a slow pipe's packets wait for more of them
    flows_max: Annotated[int, Meta(ge=1 << 8, le=1 << 26)] = 1 << 20
    fragments_max: Annotated[int, Meta(ge=1 << 4, le=1 << 22)] = 1 << 16
    resume: bool = False  # go on where a run was cut off
    hash_seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None = None  # None: at random for every run
    listen: str = ""  # tcp://HOST:PORT where workers elsewhere may join
    key: str = ""  # our CURVE key file (.key_secret); needed with listen
    worker_keys: str = ""  # a directory of the public keys of the workers that may join
    json: bool = False  # the accounting as one JSON object, the last line of standard output
    quiet: bool = False  # no words on standard error but errors and losses
    verbose: bool = False
    progress: bool = True  # on a terminal
    metrics: str = ""  # HOST:PORT where Prometheus may ask for the figures


class Config(Keys, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one run is told, checked. Raises UsageError with one line that names the key and says what is allowed."""

    def __post_init__(self) -> None:
        set_field = msgspec.structs.force_setattr
        for key in PATHS:
            value = getattr(self, key)
            if isinstance(value, os.PathLike):
                set_field(self, key, os.fspath(value))
        told = {key: getattr(self, key) for key in self.__struct_fields__}
        try:
            keys = msgspec.convert(
                told, Keys
            )  # a constructor takes anything: the bounds are checked here, for everybody
        except msgspec.ValidationError as error:
            raise UsageError(explain(error, told)) from None
        set_field(self, "stream", keys.stream)
        set_field(self, "subcontract", keys.subcontract)
        set_field(self, "market", keys.market)
        names = [stream.name for stream in self.streams]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UsageError(f"two streams are called {twice[0]!r} ({REST!r} is what no stream selects)")
        for key, table in TABLES.items():
            if getattr(self, key) not in table:
                raise UsageError(f"{key} must be {allowed(key)}, not {getattr(self, key)!r}")
        if not self.segment_ms:
            set_field(self, "segment_ms", POLICIES[self.policy].segment_ms)
        if self.read and self.interface:
            raise UsageError("read and interface are both set: the first stream is one of them")
        if self.write and self.output_interface:
            raise UsageError("write and output_interface are both set: the second stream is one of them")
        if self.output_interface and self.interface in ("any", self.output_interface):
            raise UsageError(f"packets of {self.interface} would be captured again on {self.output_interface}")
        if not self.snap_length:
            set_field(self, "snap_length", SNAP_LENGTH_MAX)
        if self.read and (self.count or self.duration_s):
            raise UsageError("count and duration_s are for live interfaces: a capture is read to its end")
        if self.both and not (self.interface and self.output_interface):
            raise UsageError("both needs two interfaces: interface and output_interface")
        if self.user and not (self.interface or self.output_interface):
            raise UsageError("user is for live interfaces: whom root becomes when they are open")
        if self.rotates and self.write in ("", "-"):
            raise UsageError("rotate_mb and rotate_s are for files: they need write, with a name")
        if self.rotate_files and not self.rotates:
            raise UsageError("rotate_files needs rotate_mb or rotate_s")
        paced = [key for key in ("replay", "rate_mbps", "rate_pps") if getattr(self, key)]
        if len(paced) > 1:
            raise UsageError(f"{paced[0]} and {paced[1]} are both set: packets are paced by one of them")
        if paced and self.write:
            raise UsageError(f"{paced[0]} is for packets that are sent: it needs output_interface, not write")
        if self.replay and self.interface:
            raise UsageError("replay is for captures: live packets leave as they come")
        if self.listen:
            check_address("listen", self.listen, "tcp://")
        if self.metrics:
            check_address("metrics", self.metrics)
        subcontracted = [stream.name for stream in self.streams if stream.subcontract]
        if subcontracted and not self.listen:
            raise UsageError(f"stream {subcontracted[0]}: subcontract needs listen, for the providers to join")
        if self.listen and not (self.key and (self.worker_keys or subcontracted)):
            raise UsageError("listen needs key and worker_keys: make keys with 'streamcore keys NAME DIRECTORY'")
        for stream in self.streams:
            check_subcontract(stream, self.workers, bool(self.worker_keys))
        if not self.workers and not self.listen:
            raise UsageError("workers is 0 and listen is not set: nobody could do the work")

    @property
    def streams(self) -> tuple[Stream, ...]:
        """All streams of the run: what no `[[stream]]` selects comes first."""
        rest = Stream(
            name=REST, select="", service=self.service, on_failure=self.on_failure, subcontract=self.subcontract
        )
        return (rest, *self.stream)

    @property
    def lanes(self) -> int:
        """Into how many lanes policy flow sorts: one for each worker, more where workers elsewhere may join at any
        time.
        """
        return max(1, self.workers) + (LANES_ELSEWHERE if self.listen else 0)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The live interfaces that are read; their places here are the numbers in the column `interface`."""
        if not self.interface:
            return ()
        return (self.interface, self.output_interface) if self.both else (self.interface,)

    @property
    def latency_ms(self) -> int:
        """How long a live packet may wait for others before its segment leaves."""
        return self.segment_ms or (LIVE_MS_TO_INTERFACE if self.output_interface else LIVE_MS_TO_FILE)

    @property
    def replay_speed(self) -> float:
        """How many times as fast as their timestamps packets are sent; 0: not paced by them."""
        if self.replay is not None or self.interface or self.rate_mbps or self.rate_pps:
            return self.replay or 0.0
        return 1.0

    @property
    def rotates(self) -> bool:
        """Whether the second stream goes into several files."""
        return bool(self.rotate_mb or self.rotate_s)

    @property
    def output(self) -> str:
        """Where the second stream goes."""
        return self.write or self.output_interface

    @property
    def dead_letter_path(self) -> str:
        """Where dead segments are kept."""
        if self.dead_letter:
            return self.dead_letter
        return "streamcore" + DEAD_LETTER_ENDING if self.write in ("", "-") else self.write + DEAD_LETTER_ENDING


def check_subcontract(stream: Stream, workers: int, workers_may_join: bool) -> None:
    """Raises UsageError where a stream's terms contradict themselves."""
    told = stream.subcontract
    if told is None:
        return
    if told.maximum_bps and told.minimum_bps > told.maximum_bps:
        raise UsageError(f"stream {stream.name}: minimum_bps is above maximum_bps")
    if not told.minimum_bps and not told.maximum_bps:
        raise UsageError(f"stream {stream.name}: subcontract needs minimum_bps, maximum_bps or both")
    if told.when == "cheaper" and not told.in_house_price:
        raise UsageError(f'stream {stream.name}: when = "cheaper" needs in_house_price')
    at_home = told.otherwise == "in-house" or told.when == "overloaded"
    if at_home and not workers and not workers_may_join:
        raise UsageError(f"stream {stream.name}: without workers nobody could run it in-house")
    if told.when == "missing" and told.otherwise == "in-house":
        raise UsageError(f'stream {stream.name}: when = "missing" needs otherwise = "pass" or "refuse"')


def make_config(path: str | None = None, flags: Mapping[str, Any] | None = None) -> Config:
    """The Config of a pipeline file (TOML) with flags laid over it; a flag that is None was not given.

    Raises UsageError with one line that names the file, the key, and what is allowed.
    """
    flagged = {key: value for key, value in (flags or {}).items() if value is not None}
    if path is None:
        return from_keys(flagged)
    try:
        from_keys(told := read_file(path), partial=True)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return from_keys(told | flagged)


def from_keys(told: dict[str, Any], partial: bool = False) -> Config:
    """The Config of these keys. partial: more keys will be laid over them, so what is missing is not yet an error."""
    for key in told:
        if key not in Config.__struct_fields__:
            raise UsageError(f"there is no key {key!r}{nearest(key)}: docs/pipeline-file.md lists them")
    if partial and told.get("workers") == 0 and "listen" not in told:
        told = told | {"workers": 1}
    return Config(**told)


def read_file(path: str) -> dict[str, Any]:
    """The keys of a pipeline file, with _ where it has -. Raises UsageError without the file's name."""
    import tomllib

    try:
        with open(path, "rb") as file:
            told = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read the pipeline file: {(error.strerror or str(error)).lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"this is not TOML: {error}") from None
    keys = with_underscores(told)
    for name in ("subcontract", "market"):
        if isinstance(table := keys.get(name), dict):
            keys[name] = with_underscores(table)
    if isinstance(streams := keys.get("stream"), list):
        keys["stream"] = [with_underscores(each) if isinstance(each, dict) else each for each in streams]
        for each in keys["stream"]:
            if isinstance(each, dict) and isinstance(each.get("subcontract"), dict):
                each["subcontract"] = with_underscores(each["subcontract"])
    return keys


def with_underscores(told: Mapping[str, Any]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for name, value in told.items():
        key = name.replace("-", "_")
        if key in keys:
            raise UsageError(f"{key} is given twice, with - and with _")
        keys[key] = value
    return keys


def explain(error: msgspec.ValidationError, told: Mapping[str, Any]) -> str:
    """The line for a value that is not allowed: its key, what is allowed, what was given."""
    _, _, where = str(error).rpartition(" - at `$.")
    key = where.rstrip("`").partition("[")[0].partition(".")[0]
    if key == "stream" and isinstance(told[key], list):
        return in_a_stream(str(error).rpartition(" - at `$.")[0], where.rstrip("`"), told[key])
    if key not in told:
        return str(error)
    if key in ("market", "subcontract") and isinstance(told[key], Mapping):
        return f"{where.rstrip('`')}: {str(error).rpartition(' - at `$.')[0]}"
    return f"{key} must be {allowed(key)}, not {told[key]!r}"


def in_a_stream(words: str, where: str, streams: list[Any]) -> str:
    """The line for a value in a `[[stream]]` table, which is named if it has a name."""
    place, _, key = where.removeprefix("stream[").partition("]")
    stream = streams[int(place)] if place.isdecimal() and int(place) < len(streams) else None
    name = stream.get("name", f"number {int(place) + 1}") if isinstance(stream, Mapping) else place or "stream"
    return f"stream {name}: {key.lstrip('.') + ': ' if key.lstrip('.') else ''}{words[:1].lower()}{words[1:]}"


def allowed(key: str) -> str:
    """What a key takes, in words."""
    if key in TABLES:
        return one_of(TABLES[key])
    from msgspec import inspect

    info = inspect.type_info(Keys)
    assert isinstance(info, inspect.StructType)
    kind: Any = next(field.type for field in info.fields if field.name == key)
    if isinstance(kind, inspect.UnionType):
        kind = next(member for member in kind.types if not isinstance(member, inspect.NoneType))
    if isinstance(kind, inspect.LiteralType):
        return one_of(kind.values)
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        words = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        return f"{words} of {kind.ge} or more" if kind.le is None else f"{words} from {kind.ge} to {kind.le}"
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.StrType):
        return "a text"
    return "a list of names or tables"


def one_of(values: Iterable[Any]) -> str:
    *most, last = sorted(map(str, values))
    return f"{', '.join(most)} or {last}"


def check_address(key: str, address: str, scheme: str = "") -> None:
    """Raises UsageError where the address is not HOST:PORT after its scheme, or no such port can be. Port * is
    ZeroMQ's word for any that is free."""
    found = ADDRESS.fullmatch(address.removeprefix(scheme)) if address.startswith(scheme) else None
    if found is None or (not scheme if found[2] == "*" else int(found[2]) > PORT_MAX):
        raise UsageError(f"{key} must be {scheme}HOST:PORT, not {address!r}")


def nearest(key: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key, Config.__struct_fields__, 1, 0.6)
    return f" (did you mean {near[0]}?)" if near else ""
