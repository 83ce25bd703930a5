"""The service of docs/services.md and examples/: it is the same text, it loads, and it does what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from packets_by_hand import make_segment, packets_of, run

import streamcore
from streamcore import Config, Pipeline
from streamcore.service.load import load
from tests.streamcore.conftest import run_command

ROOT = Path(__file__).parents[3]
PORTS = [(53, 4000), (4000, 53), (80, 4000), (5353, 5353)]


def parser(batch, groups):
    batch.groups |= groups
    batch.source_port[:], batch.target_port[:] = np.array(PORTS, np.uint16).T


def kept_by(path: Path, options: str) -> list[bytes]:
    service = load(f"{path}:DnsOnly{options}")
    drain = load("slice:0")  # sees what the service before it left
    segment = make_segment([bytes([i] * 50) for i in range(4)], parser=parser)
    seen = []
    drain.process = lambda view: seen.extend(packets_of(view))
    result = run(segment, service, drain).result()
    assert result.drops["not_dns"][0] == 4 - len(seen)
    return [packet[0] for packet in seen]


@pytest.mark.parametrize(("options", "expected"), [("", [0, 1]), (":port=5353", [3]), (":80", [2])])
def test_the_example_and_the_text_of_the_manual(tmp_path, options, expected):
    assert kept_by(ROOT / "examples" / "dns_only.py", options) == expected
    text = (ROOT / "docs" / "services.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "manual.py").write_text(code)
    assert kept_by(tmp_path / "manual.py", options) == expected
    body = code.split("class ")[1].split()
    assert body == (ROOT / "examples" / "dns_only.py").read_text().split("class ")[1].split()


REPORTS = """
from streamcore import Service

class Reports(Service):
    effect = "observe"
    groups = {groups}

    def process(self, segment):
        segment.report(1)
"""


@pytest.mark.parametrize(
    ("groups", "told", "status"),
    [
        ("()", "it calls `report`, so it needs a method merge(report)", 3),  # no segment can be processed
        ("('ports',)", "there is no column group 'ports': use ", 2),
    ],
)
def test_what_a_service_lacks_is_one_line(groups: str, told: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(REPORTS.format(groups=groups))
    done = run_command(
        "-r",
        ROOT / "examples" / "office.pcapng",
        "-w",
        tmp_path / "out.pcapng",
        "--service",
        f"{tmp_path / 'own.py'}:Reports",
    )
    assert done.status == status
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_the_manuals_rewrite_changes_one_byte_of_ipv6_packets_and_no_other(tmp_path):
    code = (ROOT / "docs" / "services.md").read_text().split("```python\n")[2].split("```")[0]
    (tmp_path / "manual.py").write_text(code)
    source, target = ROOT / "examples" / "office.pcapng", tmp_path / "out.pcapng"
    service = f"{tmp_path / 'manual.py'}:HopLimit:value=9"
    assert Pipeline(Config(read=str(source), write=str(target), service=[service], workers=1)).run().exit_status == 0
    before, after = (
        [batch.packet(row).tobytes() for batch in streamcore.read(path) for row in range(len(batch))]
        for path in (source, target)
    )
    assert len(before) == len(after)
    wide = [packet[12:14] == b"\x86\xdd" for packet in before]  # the capture is Ethernet without tags
    assert 0 < sum(wide) < len(before)
    assert after == [p[:21] + b"\x09" + p[22:] if v6 else p for p, v6 in zip(before, wide, strict=True)]
