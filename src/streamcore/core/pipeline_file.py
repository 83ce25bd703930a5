"""Makes a Config from a pipeline file (TOML) and the flags that override it. run_keys.py defines the keys."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Any

from streamcore.core.config import Config
from streamcore.core.errors import UsageError
from streamcore.core.keys import refuse_useless
from streamcore.core.paths import in_the_way
from streamcore.core.rules import refuse_ignored


def make_config(
    path: str | None = None,
    flags: Mapping[str, Any] | None = None,
    command: str = "run",
    kind: type[Config] = Config,
) -> Config:
    """Reads a pipeline file and overrides its keys with the flags that are not None.

    Keys that have no effect in `command`, or in the run that they describe, are refused. Raises UsageError with one
    line that names the file, the key and the allowed values.
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    if path is None:
        return from_keys(kind, given, command)
    try:
        from_keys(kind, values := read_file(path), command, partial=True)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return from_keys(kind, values | given, command)


def from_keys(kind: type[Config], values: dict[str, Any], command: str, partial: bool = False) -> Config:
    """The Config of these keys. partial: flags will override it, so a missing key is not an error yet."""
    for key in values:
        if key not in kind.__struct_fields__:
            raise UsageError(f"there is no key {key!r}{nearest(key, kind)}: docs/pipeline-file.md lists them")
    refuse_useless(kind, values, command)
    if partial and values.get("workers") == 0 and "listen" not in values:
        values = values | {"workers": 1}
    config = kind(**values)
    if command == "run" and not partial:
        refuse_ignored(config, [name for name, value in values.items() if value is not None])
    return config


def read_file(path: str) -> dict[str, Any]:
    """The keys of a pipeline file, with `_` for `-`. Raises UsageError without the file's name."""
    import tomllib

    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        words = (error.strerror or str(error)).lower() + in_the_way(error, str(path))
        raise UsageError(f"cannot read the pipeline file: {words}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"this is not TOML: {error}") from None
    keys = with_underscores(values)
    for name in ("subcontract", "market"):
        if isinstance(table := keys.get(name), dict):
            keys[name] = with_underscores(table)
    if isinstance(streams := keys.get("stream"), list):
        keys["stream"] = [with_underscores(each) if isinstance(each, dict) else each for each in streams]
        for each in keys["stream"]:
            if isinstance(each, dict) and isinstance(each.get("subcontract"), dict):
                each["subcontract"] = with_underscores(each["subcontract"])
    return keys


def with_underscores(values: Mapping[str, Any]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for name, value in values.items():
        key = name.replace("-", "_")
        key += "_" * keyword.iskeyword(key)
        if key in keys:
            raise UsageError(f"{key} is given twice, with - and with _: remove one")
        keys[key] = value
    return keys


def nearest(key: str, kind: type[Config]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key, kind.__struct_fields__, 1, 0.6)
    return f" (did you mean {near[0]}?)" if near else ""
