"""Captures of other projects' test suites beside tshark's table, scored by the script that lies beside it."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamcore.core.config import Config
from streamcore.core.errors import SourceError
from streamcore.tools.tables import write_packets

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
CORE = "cap n ipver src dst proto sport dport"  # what the script scores in any case
OUTER = "vlan frag ipoff"
INNER = "isrc idst iproto isport idport"

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(
        not CORPUS.is_dir(), reason="the capture corpus is not beside this repository (../shared/corpus)"
    ),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, some: Callable[[list[str], int], list[str]]) -> list[dict[str, str]]:
    """The rows of all captures, without --all of each third; a file that is refused is no pcap and no pcapng."""
    one = tmp_path_factory.mktemp("corpus") / "one.tsv"
    with (CORPUS / "dev" / "MANIFEST.tsv").open() as file:
        names = some([row["file"] for row in csv.DictReader(file, delimiter="\t")], 3)
    found: list[dict[str, str]] = []
    refused = []
    for name in names:
        try:
            write_packets(Config(read=str(CORPUS / "dev" / name)), str(one), name)
        except SourceError:
            refused.append(name)
            continue
        with one.open(newline="\n") as table:
            found += csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE)
    assert all(name.endswith(".erf.gz") for name in refused), refused
    return found


@pytest.mark.parametrize(
    ("least", "columns"), [("0.9999", OUTER), ("0.9998", f"{OUTER} {INNER}")], ids=["outermost", "innermost"]
)
def test_agreement_with_tshark(rows: list[dict[str, str]], tmp_path: Path, least: str, columns: str) -> None:
    """The table has no more columns than are asked for: the script scores each that is there by itself too."""
    names = [*CORE.split(), *columns.split()]
    lines = ["\t".join(row[name] for name in names) for row in rows]
    table = tmp_path / "all.tsv"
    table.write_text("\n".join(["\t".join(names), *lines, ""]))
    captures = tmp_path / "captures"
    captures.write_text("\n".join({row["cap"] for row in rows}))
    command = [sys.executable, CORPUS / "compare.py", CORPUS / "dev" / "truth.tsv.gz", table, least]
    command += ["--caps", captures]
    told = subprocess.run([*command, "--also", columns.replace(" ", ",")], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout[-3000:]
