"""docs/columns.md says what is so: every column with its dtype, every bit and every tunnel, and its program runs."""

from __future__ import annotations

import re
from pathlib import Path

import streamcore
from streamcore.core.packets import FLAGS
from streamcore.headers import TUNNELS
from streamcore.tools.flows.columns import columns_of
from streamcore.tools.tables import PACKET_COLUMNS

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "columns.md").read_text()
_, BATCH, PACKETS, FLOWS = re.split(r"^## Columns of .*$", TEXT, flags=re.MULTILINE)


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)


def test_every_column_of_a_batch_is_there_with_its_dtype() -> None:
    with streamcore.read(ROOT / "examples" / "office.pcapng") as reader:
        batch = next(reader)
    documented = {}
    for names, kinds in re.findall(r"^\| (`[^|]*) \| ([^|]*u?int[^|]*) \|", BATCH, re.MULTILINE):
        columns = re.findall(r"\w+", names)
        dtypes = re.findall(r"u?int\d+", kinds)
        documented |= dict(zip(columns, dtypes * (len(columns) if len(dtypes) == 1 else 1), strict=True))
    arrays = {
        name: array
        for name in dir(batch)
        if not name.startswith("_") and getattr(array := getattr(batch, name), "shape", ())[:1] == (len(batch),)
    }
    assert documented == {name: str(array.dtype) for name, array in arrays.items()}


def test_bits_and_tunnels_have_their_numbers() -> None:
    bits = re.findall(r"^\| (\d+) \| ([a-z ]+) \|", BATCH, re.MULTILINE)
    assert {name.replace(" ", "_"): int(bit) for bit, name in bits} == FLAGS
    (line,) = re.findall(r"^`tunnel_kind`: (.*?)\. The", BATCH, re.MULTILINE | re.DOTALL)
    assert {int(number): name for number, name in re.findall(r"(\d+) `(\w+)`", line)} == {
        number: name for number, name in TUNNELS.items() if number
    }


def test_every_column_of_the_tables_is_there_in_its_order() -> None:
    packets = [name for cell in first_cells(PACKETS) for name in re.findall(r"\w+", cell)]
    assert tuple(packets) == PACKET_COLUMNS
    flows = [
        name for cell in first_cells(FLOWS.split("| column |")[1].split("###")[0]) for name in re.findall(r"\w+", cell)
    ]
    assert flows == [column.name for column in columns_of(1)]


def test_the_program_runs(monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    exec(TEXT.split("```python\n")[1].split("```")[0], {})
    assert len(capsys.readouterr().out.splitlines()) == 2
