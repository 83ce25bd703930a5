"""Comments and other options of any length go with their packets through services that rewrite them
(shared/cases/packets/B02).
"""

import re
import struct
import subprocess
from pathlib import Path

import pytest

from tests.streamcore.conftest import run_command, udp_frame
from tests.streamcore.fuzz.files import block, option

SIZES = (0, 1, 299, 300, 301, 4_000, 65_535, 3, 20_000)
CASE = Path(__file__).parents[4] / "shared" / "cases" / "packets" / "B02-comments" / "comment300.pcapng"


def capture(path, order, comments):
    data = block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    data += block(order, 1, struct.pack(order + "HHI", 1, 0, 0))
    for number, comment in enumerate(comments):
        frame = udp_frame(number % 7, number)
        head = struct.pack(order + "IIIII", 0, 0x60000, number, len(frame), len(frame))
        body = head + frame + bytes(-len(frame) % 4) + option(order, 1, comment) + bytes(4)
        data += block(order, 6, body)
    path.write_bytes(data)
    return path


def comments_in(path):
    words = ["tshark", "-n", "-r", str(path), "-T", "fields", "-e", "frame.comment"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return [len(line) for line in lines]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("service", "left"), [("slice:4", True), ("anonymise", False), ("anonymise:payload=truncate", False)]
)
def test_comments_of_any_length(tmp_path, order, service, left):
    source = capture(tmp_path / "in.pcapng", order, [b"c" * size for size in SIZES * 40])
    target = tmp_path / "out.pcapng"
    run = run_command("-r", source, "-w", target, "--service", service, "-n", "1")
    assert run.status == 0, run.stderr
    assert run.json["packets"]["written"] == len(SIZES) * 40
    assert "dead" not in run.stderr
    if left:
        assert comments_in(target) == list(SIZES) * 40
    else:
        assert not re.search(b"cccccccc", target.read_bytes())


def test_segments_of_one_packet_each_and_several_workers(tmp_path):
    source = capture(tmp_path / "in.pcapng", "<", [b"c" * size for size in SIZES])
    run = run_command(
        "-r", source, "-w", tmp_path / "out.pcapng", "--service", "slice:4", "-n", "2", "--segment-packets", "1"
    )
    assert run.status == 0, run.stderr
    assert comments_in(tmp_path / "out.pcapng") == list(SIZES)


@pytest.mark.skipif(not CASE.exists(), reason=f"the reported cases are not at {CASE.parent}")
def test_the_reported_case(tmp_path):
    run = run_command("-r", CASE, "-w", tmp_path / "out.pcapng", "--service", "anonymise", "-n", "1")
    assert run.status == 0, run.stderr
    packets = run.json["packets"]  # their frames hold nothing that is understood
    assert packets["written"] + packets["dropped"].get("service.not_understood", 0) == 10
