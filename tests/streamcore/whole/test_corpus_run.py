"""Every capture of the corpus through the whole command: the same packets come out, under each policy.

Damaged ones come out up to the damage. Without --all each capture goes through under one of the policies, in turn.

The oracle is the corpus's table of truth, made with tshark and an independent reader.
"""

import csv
import gzip
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streamcore.core.errors import StreamcoreError
from streamcore.core.pipeline_file import make_config
from streamcore.run.pipeline import Pipeline
from streamcore.tools.reader import read

CORPUS = Path(__file__).parents[4] / "shared" / "corpus" / "dev"

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(
        not CORPUS.is_dir(), reason="the capture corpus is not beside this repository (../shared/corpus)"
    ),
]

POLICIES = ("run", "flow", "time")


@pytest.fixture(scope="module")
def truth():
    """capture -> [(time, wire length, captured length, crc32, link type)]"""
    packets = {}
    with gzip.open(CORPUS / "truth.tsv.gz", "rt", encoding="utf8", errors="replace", newline="\n") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            facts = (
                row["ts"],
                int(row["len"]),
                int(row["caplen"]),
                row["crc32"],
                int(row["lt"]) & 0xFFFF,
            )  # pcapng has 16 bits for it
            packets.setdefault(row["cap"], []).append(facts)
    return packets


def facts_of(path):
    facts = []
    for batch in read(path):
        for i in range(len(batch)):
            ns = int(batch.timestamp_ns[i])
            time = f"{ns // 10**9}.{ns % 10**9:09d}"
            crc = f"{zlib.crc32(batch.packet(i)):08x}"
            link_type = batch.interfaces[batch.interface[i]].link_type
            facts.append((time, int(batch.wire_length[i]), int(batch.captured_length[i]), crc, link_type))
    return facts


def differences(row, wanted, policy, output):
    """What came out of one capture that should not have, one line each."""
    name = row["file"]
    config = make_config(flags={
        "read": str(CORPUS / name), "write": str(output), "workers": 1, "service": ["identity"], "policy": policy,
        "segment_packets": 500, "segment_ms": 50 if policy == "time" else 0,
    })  # fmt: skip
    try:
        accounting = Pipeline(config).run()
    except StreamcoreError as error:
        return [f"{name}: {error}"] if wanted else []
    found = facts_of(output)
    counted = accounting.json()["packets"]
    if not counted["read"] == counted["written"] == len(found) == len(wanted):
        return [f"{name}: {len(wanted)} packets, read {counted['read']}, written {len(found)}"]
    if (row["end"] != "clean") != (accounting.exit_status == 3):
        return [f"{name}: ends {row['end']}, exit status {accounting.exit_status} ({accounting.damage})"]
    for i, (have, want) in enumerate(zip(found, wanted, strict=True)):
        representable = not want[0] or float(want[0]) < 2**63 / 1e9  # later ones are clamped, as the source says
        if have[1:] != want[1:] or (want[0] and representable and have[0] != want[0]):
            return [f"{name}: packet {i + 1}: {have} where the truth is {want}"]
    return []


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.timeout(400)
def test_every_capture_comes_out_as_it_went_in(truth, tmp_path, policy, pytestconfig):
    with open(CORPUS / "MANIFEST.tsv", encoding="utf8") as file:
        manifest = list(csv.DictReader(file, delimiter="\t"))
    assert len(manifest) >= 180
    if not pytestconfig.getoption("--all"):
        manifest = manifest[POLICIES.index(policy) :: len(POLICIES)]
    with ThreadPoolExecutor(2) as pool:  # pipelines run side by side in threads
        found = pool.map(
            lambda i: differences(manifest[i], truth.get(manifest[i]["file"], []), policy, tmp_path / f"{i}.pcapng"),
            range(len(manifest)),
        )
        wrong = [line for lines in found for line in lines]
    assert not wrong, "\n".join(wrong)
