"""Plans for the text of flow rows: JSON lines, CSV, and the pieces of other formats.

_text.pyx carries plans out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamcore.tools.flows._text import Plan
from streamcore.tools.flows.columns import NAMES, Column, Fields, columns_of

if TYPE_CHECKING:
    from streamcore.tools.flows._text import PlanPiece


def piece(
    fields: Fields, literal: str, kind: str, field: str, other: str = "", *,
    empty: str = "", names: list[bytes] | None = None, only: int = -1,
) -> PlanPiece:  # fmt: skip
    """A literal and the value of a field. empty: written for no value; only: an IP protocol."""
    offset, width = fields.place(field) if field else (0, 1)
    more = fields.first_packets if kind in ("lengths", "gaps") else fields.offset(other) if other else 0
    return literal.encode(), kind, offset, more, width, empty.encode(), names, only


def end(literal: str, only: int = -1) -> PlanPiece:
    return literal.encode(), "end", 0, 0, 1, b"", None, only


def of_column(fields: Fields, literal: str, column: Column, empty: str = "") -> PlanPiece:
    return piece(
        fields, literal, column.kind, column.source, column.other, empty=empty, names=NAMES.get(column.name)
    )  # fmt: skip


def json_plan(first_packets: int) -> Plan:
    """One object a line, with every column."""
    fields, pieces, before = Fields(first_packets), [], "{"
    for column in columns_of(first_packets):
        opening, closing = ('"', '"') if column.is_text else ("[", "]") if column.is_list else ("", "")
        empty = "null" if column.may_lack else ""
        pieces.append(of_column(fields, f'{before}"{column.name}": {opening}', column, empty))
        before = closing + ", "
    return Plan([*pieces, end(before[:-2] + "}\n")])


def csv_plan(first_packets: int) -> Plan:
    """All columns; those that may hold commas in quotes."""
    fields, pieces, before = Fields(first_packets), [], ""
    for column in columns_of(first_packets):
        quote = '"' if column.is_list or column.kind == "vlans" else ""
        pieces.append(of_column(fields, before + quote, column))
        before = quote + ","
    return Plan([*pieces, end(before[:-1] + "\n")])


class TextWriter:
    """Writes rows by a plan to a binary file, after a head."""

    def __init__(self, file: IO[bytes], plan: Plan, head: str = "") -> None:
        self._file, self._plan = file, plan
        if head:
            file.write(head.encode())

    def write(self, rows: NDArray[np.void]) -> None:
        self._file.write(self._plan.text(rows))

    def close(self) -> None:
        pass


def json_lines(file: IO[Any], first_packets: int) -> TextWriter:
    return TextWriter(file, json_plan(first_packets))


def csv(file: IO[Any], first_packets: int) -> TextWriter:
    names: Iterable[str] = (column.name for column in columns_of(first_packets))
    return TextWriter(file, csv_plan(first_packets), ",".join(names) + "\n")
