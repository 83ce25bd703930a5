"""The pipeline file and the flags -> one frozen Config. Every default and every bound stands here, under the name of
its flag.
"""

from __future__ import annotations

import os
import tomllib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from streamcore.errors import UsageError

Policy = Literal["run", "flow", "time"]
Order = Literal["total", "flow", "none"]
Service = str | dict[str, Any]  # "name:key=value,…", or a table with `name` and the options

LANES_ELSEWHERE = 16
DEAD_LETTER_ENDING = ".dead-letter.pcapng"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one run is told. Sizes in bytes, times in the unit of the name."""

    read: str = ""  # a capture file, or "-": standard input
    write: str = ""  # a capture file, or "-": standard output
    workers: Annotated[int, Meta(ge=0, le=256)] = max(1, (os.cpu_count() or 2) - 1)
    service: list[Service] = []
    policy: Policy = "flow"
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
    hash_seed: int | None = None  # None: at random for every run
    listen: str = ""  # tcp://HOST:PORT where workers elsewhere may join
    key: str = ""  # our CURVE key file (.key_secret); needed with listen
    worker_keys: str = ""  # a directory of the public keys of the workers that may join

    def __post_init__(self) -> None:
        if self.policy == "time" and not self.segment_ms:
            msgspec.structs.force_setattr(self, "segment_ms", 1000)
        if self.listen and not (self.key and self.worker_keys):
            raise UsageError("listen needs key and worker_keys: make keys with 'streamcore keys NAME DIRECTORY'")
        if not self.workers and not self.listen:
            raise UsageError("workers is 0 and listen is not set: nobody could do the work")

    @property
    def lanes(self) -> int:
        """Into how many lanes policy flow sorts: one for each worker, more where workers elsewhere may join at any
        time.
        """
        return max(1, self.workers) + (LANES_ELSEWHERE if self.listen else 0)

    @property
    def dead_letter_path(self) -> str:
        """Where dead segments are kept."""
        if self.dead_letter:
            return self.dead_letter
        return "streamcore" + DEAD_LETTER_ENDING if self.write in ("", "-") else self.write + DEAD_LETTER_ENDING


def make_config(path: str | None = None, flags: dict[str, Any] | None = None) -> Config:
    """The Config of a pipeline file (TOML) with flags laid over it. Raises UsageError with one line that names the
    key.
    """
    told: dict[str, Any] = {}
    if path is not None:
        try:
            with open(path, "rb") as file:
                told = tomllib.load(file)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is not TOML: {error}") from None
    told |= {key: value for key, value in (flags or {}).items() if value is not None}
    try:
        return msgspec.convert(told, Config)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path or 'the flags'}: {error}") from None
