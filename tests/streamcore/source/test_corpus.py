"""Every capture of the corpus, packet for packet as tshark and a struct-only reader saw it."""

import csv
import gzip
import zlib
from pathlib import Path

import pytest

from streamcore.core.errors import SourceError
from streamcore.core.packets import Arena
from streamcore.source.capture import CaptureSource

CORPUS = Path(__file__).parents[4] / "shared" / "corpus" / "dev"
pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the capture corpus is not at {CORPUS}"),
]


def table(path):
    """Rows of a tab-separated file, as dictionaries."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = data.decode("utf-8", "replace").split("\n")
    return list(csv.DictReader(filter(None, lines), delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="module")
def truth():
    packets = {}
    for row in table(CORPUS / "truth.tsv.gz"):
        packets.setdefault(row["cap"], []).append(row)
    return packets


def captures():
    return table(CORPUS / "MANIFEST.tsv") if CORPUS.is_dir() else []


def as_truth(source):
    """(n, ts, len, caplen, crc32, lt) of every packet, written as the truth writes them."""
    n = 0
    for batch in source:
        for row in range(len(batch)):
            n += 1
            ns = int(batch.timestamp_ns[row])
            yield (
                str(n),
                f"{ns // 10**9}.{ns % 10**9:09d}",
                str(batch.wire_length[row]),
                str(batch.captured_length[row]),
                f"{zlib.crc32(batch.packet(row)):08x}",
                str(source.interfaces[batch.interface[row]].link_type),
            )


def in_our_range(row):
    """A row of the truth, time clamped to 64-bit nanoseconds, link type cut to the 16 bits that pcap has for it."""
    ts = f"{(2**63 - 1) // 10**9}.{(2**63 - 1) % 10**9}" if row["ts"] and float(row["ts"]) * 1e9 > 2**63 else row["ts"]
    return row["n"], ts, row["len"], row["caplen"], row["crc32"], str(int(row["lt"]) & 0xFFFF)


@pytest.mark.parametrize("chunk_bytes", [4 << 20, 300_000])
@pytest.mark.parametrize("capture", captures(), ids=lambda capture: capture["file"][-60:])
def test_every_packet_is_what_the_truth_says(capture, chunk_bytes, truth):
    path = CORPUS / capture["file"]
    arena = Arena(2, chunk_bytes, 2000)
    if capture["end"] == "notcap":
        with pytest.raises(SourceError, match="not a pcap or pcapng capture"):
            CaptureSource(path, arena)
        return
    with CaptureSource(path, arena) as source:
        rows = list(as_truth(source))
        damage = source.damage
    expected = [in_our_range(row) for row in truth.get(capture["file"], [])]
    assert len(rows) == int(capture["packets"])
    # No time in the truth: the record has none (a simple packet block), or one that tshark takes for invalid.
    rows = [(n, ts if want[1] else "", *rest) for (n, ts, *rest), want in zip(rows, expected, strict=True)]
    assert rows == expected
    assert (damage is None) == (capture["end"] == "clean")
