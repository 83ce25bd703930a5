"""Captures of other projects' test suites beside tshark's table, scored by the script that lies beside it."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from streamcore.core.config import Config
from streamcore.core.errors import SourceError
from streamcore.tools.tables import write_packets

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
INNER = "isrc,idst,iproto,isport,idport,vlan,frag"

pytestmark = pytest.mark.skipif(
    not CORPUS.is_dir(), reason="the capture corpus is not beside this repository (../shared/corpus)"
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    with (CORPUS / "dev" / "MANIFEST.tsv").open() as file:
        names = [row["file"] for row in csv.DictReader(file, delimiter="\t")]
    lines: list[str] = []
    for name in names:
        try:
            write_packets(Config(read=str(CORPUS / "dev" / name)), str(folder / "one.tsv"), name)
        except SourceError:  # no pcap and no pcapng: the truth has no row of it that is scored
            continue
        head, *rows = (folder / "one.tsv").read_text().splitlines()
        lines += rows if lines else [head, *rows]
    (folder / "all.tsv").write_text("\n".join(lines) + "\n")
    return folder / "all.tsv"


@pytest.mark.parametrize(("least", "columns"), [("0.9999", ""), ("0.9998", INNER)])
def test_agreement_with_tshark(table: Path, least: str, columns: str) -> None:
    command = [sys.executable, CORPUS / "compare.py", CORPUS / "dev" / "truth.tsv.gz", table, least, "--also", columns]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout[-3000:]
