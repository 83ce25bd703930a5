"""The Config of a run: its keys (run_keys.py) with checked values, and what follows from several keys together.

rules.py refuses contradictions between keys, pipeline_file.py reads the pipeline file. Filters and services check their
own texts.
"""

import os
from functools import lru_cache

import msgspec

from streamcore.core.errors import UsageError
from streamcore.core.frames import KEEP_TAG, Frames, mac_bytes
from streamcore.core.keys import DIRECTORY, FILE, explain, key_fields, one_of, refuse_useless
from streamcore.core.policies import POLICIES
from streamcore.core.rules import refuse_contradictions, refuse_ignored
from streamcore.core.run_keys import REST, SNAP_LENGTH_MAX, Keys, Stream
from streamcore.core.times import point_ns, span_ns

LANES_ELSEWHERE = 16
DEAD_LETTER_ENDING = ".dead-letter.pcapng"
LIVE_MS_TO_FILE, LIVE_MS_TO_INTERFACE = 100, 1  # how long a live packet waits if segment_ms is 0


class Config(Keys, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The checked keys of one run. Raises UsageError with one line that names the key and the allowed values."""

    def __post_init__(self) -> None:
        kind = type(self)
        set_field = msgspec.structs.force_setattr
        for name in paths_of(kind):
            if isinstance(path := getattr(self, name), os.PathLike):
                set_field(self, name, os.fspath(path))
            elif isinstance(path, list | tuple):
                set_field(self, name, [os.fspath(each) if isinstance(each, os.PathLike) else each for each in path])
        values = {name: getattr(self, name) for name in kind.__struct_fields__}
        try:  # a constructor does not check the bounds, so they are checked here
            keys = msgspec.convert(values, keys_of(kind))
        except msgspec.ValidationError as error:
            raise UsageError(explain(error, values, keys_of(kind))) from None
        for name, field in key_fields(kind).items():
            if field.key.names and values[name] not in field.key.names:
                raise UsageError(f"{name} must be {one_of(field.key.names)}, not {values[name]!r}")
        for name in ("stream", "subcontract", "market"):
            set_field(self, name, getattr(keys, name))
        for name in ("read", "interface"):
            if isinstance(names := getattr(self, name), list) and len(names) < 2:
                set_field(self, name, "".join(names))
        if not self.segment_ms:
            set_field(self, "segment_ms", POLICIES[self.policy].segment_ms)
        if not self.snap_length:
            set_field(self, "snap_length", SNAP_LENGTH_MAX)
        refuse_contradictions(self)

    def refuse_useless(self, command: str) -> None:
        """Raises UsageError if a key that has no effect in the command, or in this run, is not at its default."""
        fields = key_fields(type(self))
        names = [name for name in fields if getattr(self, name) != fields[name].default]
        refuse_useless(type(self), names, command)
        if command == "run":
            refuse_ignored(self, names)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """All streams of the run. The first is the rest: the packets that no `[[stream]]` selects."""
        rest = Stream(
            name=REST, select="", service=self.service, on_failure=self.on_failure, subcontract=self.subcontract
        )
        return (rest, *self.stream)

    @property
    def lanes(self) -> int:
        """The number of lanes of policy flow: one for each local worker, and more if remote workers may join."""
        return max(1, self.workers) + (LANES_ELSEWHERE if self.listen else 0)

    @property
    def captures(self) -> tuple[str, ...]:
        """The captures that the run reads, as `read` names them."""
        return _names(self.read)

    @property
    def live(self) -> tuple[str, ...]:
        """The interfaces that `interface` names."""
        return _names(self.interface)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The live interfaces that the run reads. The column `interface` holds indexes into this tuple."""
        return (*self.live, self.output_interface) if self.both else self.live

    @property
    def frames(self) -> Frames:
        """What becomes of the link headers and lengths of what is read."""
        return Frames(
            mac_bytes(self.source_mac) if self.source_mac else b"",
            mac_bytes(self.target_mac) if self.target_mac else b"",
            KEEP_TAG if self.vlan is None else self.vlan,
            self.mtu,
            self.over_mtu == "segment",
        )

    @property
    def from_ns(self) -> int | None:
        """`from` in nanoseconds since 1970."""
        return point_ns(self.from_) if self.from_ else None

    @property
    def until_ns(self) -> int | None:
        """`until` in nanoseconds since 1970."""
        return point_ns(self.until) if self.until else None

    @property
    def shift_ns(self) -> int:
        """`shift` in nanoseconds."""
        return span_ns(self.shift) if self.shift else 0

    @property
    def latency_ms(self) -> int:
        """How long a live packet may wait for others before its segment leaves."""
        return self.segment_ms or (LIVE_MS_TO_INTERFACE if self.output_interface else LIVE_MS_TO_FILE)

    @property
    def replay_speed(self) -> float:
        """The speed of sending, as a multiple of the recorded speed; 0: timestamps do not pace the packets."""
        if self.replay is not None or self.interface or self.rate_mbps or self.rate_pps:
            return self.replay or 0.0
        return 1.0

    @property
    def rotates(self) -> bool:
        """Whether the output is split into several files."""
        return bool(self.rotate_mb or self.rotate_s)

    @property
    def output(self) -> str:
        """The file or interface of the output."""
        return self.write or self.output_interface

    @property
    def dead_letter_path(self) -> str:
        """The path of the dead-letter capture."""
        if self.dead_letter:
            return self.dead_letter
        return "streamcore" + DEAD_LETTER_ENDING if self.write in ("", "-") else self.write + DEAD_LETTER_ENDING


def _names(value: str | list[str]) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else (value,) if value else ()


@lru_cache
def paths_of(kind: type[Config]) -> tuple[str, ...]:
    """The keys that name a file or a directory, and also take a Path."""
    return tuple(field.name for field in key_fields(kind).values() if field.key.metavar in (FILE, DIRECTORY))


@lru_cache
def keys_of(kind: type[Config]) -> type[Keys]:
    """The keys of a Config without its checks: those of Keys, and those that a subclass adds."""
    more = [field for field in key_fields(kind).values() if field.name not in Keys.__struct_fields__]
    if not more:
        return Keys
    fields = [(field.name, field.annotation, field.default) for field in more]
    return msgspec.defstruct(  # type: ignore[return-value]
        kind.__name__, fields, bases=(Keys,), frozen=True, forbid_unknown_fields=True, kw_only=True
    )
