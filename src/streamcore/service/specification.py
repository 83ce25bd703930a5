"""Parses a specification into the name of a service and its options. load.py finds the service.

Text has one of the forms `name`, `name:value`, `name:key=value,key=value`; `path/to/file.py:ClassName` can replace the
name. A word without a key goes on with the value before it, as in `key=one,two`. A value in quotes may contain any
comma. A pipeline file has a table instead, with the name under "name": {"name": "slice", "bytes": 64}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from streamcore.core.errors import UsageError

POSITIONAL = ""  # the key of a value without a key: it goes to the service's first option

_FILE = re.compile(r"(?P<name>.+?\.py:[A-Za-z_]\w*)(?::(?P<options>.*))?\Z", re.DOTALL)
_KEY = re.compile(r"\s*(?P<key>[A-Za-z][\w-]*)\s*=")
_QUOTED = re.compile(r"""\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)')\s*(?=,|\Z)""")
_PLAIN = re.compile(r"[^,]*")


def parse_specification(specification: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(name, options): the options as text, or as in the table. Raises UsageError."""
    if isinstance(specification, Mapping):
        name, options = specification.get("name"), {k: v for k, v in specification.items() if k != "name"}
        if not isinstance(name, str) or not name:
            raise UsageError(f"a service needs a name: write name = \"…\" (see 'streamcore services'), not {name!r}")
        return name, {key.replace("-", "_"): value for key, value in options.items()}
    text = specification.strip()
    if matched := _FILE.match(text):
        name, rest = matched["name"], matched["options"] or ""
    else:
        name, _, rest = text.partition(":")
    if not name:
        raise UsageError(
            f"a service needs a name: write NAME[:key=value,…] (see 'streamcore services'), not {specification!r}"
        )
    return name, _parse_options(name, rest)


def _parse_options(name: str, text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    at, key = 0, POSITIONAL
    while at < len(text):
        before, key = key, POSITIONAL
        if matched := _KEY.match(text, at):
            key, at = matched["key"].replace("-", "_"), matched.end()
        elif options and before != POSITIONAL:
            plain = _PLAIN.match(text, at)
            assert plain is not None  # it matches the empty string, too
            key, at = before, plain.end() + 1
            options[key] += f",{plain[0].strip()}"
            continue
        elif options:
            raise UsageError(f"service {name}: write key=value instead of {text[at:]!r}")
        if quoted := _QUOTED.match(text, at):
            value, at = quoted["double"] if quoted["double"] is not None else quoted["single"], quoted.end()
        else:
            plain = _PLAIN.match(text, at)
            assert plain is not None  # it matches the empty string, too
            value, at = plain[0].strip(), plain.end()
        if key in options:
            raise UsageError(f"service {name}: {key} is given twice")
        options[key] = value
        at += 1  # the comma
    return options
