"""Formats the summaries of services as lines for people. The services choose the figures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

ROWS_MAX = 10  # of one list; --json has them all
INDENT = "  "
START_MS = "start_ms"  # by convention, since the epoch; shown as a time


def in_words(name: str, summary: Mapping[str, Any]) -> list[str]:
    """The lines for one service: the first has the single figures, then each row of a table has a line."""
    return list(_table(name, summary, INDENT))


def _table(name: str, value: Mapping[str, Any], indent: str) -> Iterator[str]:
    single = {key: each for key, each in value.items() if _is_single(each)}
    yield f"{indent}{name}: {_figures(single)}".rstrip(": ")
    for key, each in value.items():
        if key in single:
            continue
        if isinstance(each, Mapping):
            yield from _table(_plain(key), each, indent + INDENT)
        else:
            yield from _rows(_plain(key), each, indent + INDENT)


def _rows(name: str, rows: list[Any], indent: str) -> Iterator[str]:
    yield f"{indent}{name}:"
    for row in rows[:ROWS_MAX]:
        yield f"{indent}{INDENT}{_figures(row) if isinstance(row, Mapping) else _figure(row)}"
    if len(rows) > ROWS_MAX:
        yield f"{indent}{INDENT}and {len(rows) - ROWS_MAX:,} more (--json has them all)"


def _is_single(value: Any) -> bool:
    """Whether a value goes into its parent's line: a figure, or a short list of figures."""
    if isinstance(value, list | tuple):
        return all(not isinstance(each, Mapping | list | tuple) for each in value) and len(value) <= 2
    return not isinstance(value, Mapping)


def _figures(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{_plain(key)} {_figure(value, key)}" for key, value in figures.items() if value is not None)


def _figure(value: Any, key: str = "") -> str:
    if key == START_MS:
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # no year has that many digits
            moment = datetime.fromtimestamp(value / 1000, UTC)
            return moment.isoformat(" ", "milliseconds").removesuffix("+00:00")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)


def _plain(key: object) -> str:
    return "start" if key == START_MS else str(key).replace("_", " ")
