"""Every capture of the corpus through source and sink, into every form: the same packets come out.

The source itself is held against tshark's truth in tests/streamcore/source/test_corpus.py.
"""

import zlib

import pytest

from streamcore.core.errors import SinkError
from streamcore.core.packets import Arena
from streamcore.source.capture import CaptureSource
from tests.streamcore.sink.test_writer import copy
from tests.streamcore.source.test_corpus import CORPUS, captures

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the capture corpus is not at {CORPUS}"),
]


def packets_of(path):
    packets = []
    with CaptureSource(path, Arena(2, 1 << 20, 1 << 14)) as source:
        for batch in source:
            packets += [
                (
                    int(batch.timestamp_ns[row]),
                    int(batch.wire_length[row]),
                    zlib.crc32(batch.packet(row)),
                    source.interfaces[batch.interface[row]].link_type,
                )
                for row in range(len(batch))
            ]
            del batch
        return packets, source.damage


@pytest.mark.parametrize("ending", ["pcap", "pcapng", "pcapng.zst"])
@pytest.mark.parametrize(
    "capture", [c for c in captures() if c["end"] != "notcap"], ids=lambda capture: capture["file"][-60:]
)
def test_the_same_packets_come_out(capture, ending, tmp_path):
    source, target = CORPUS / capture["file"], tmp_path / f"out.{ending}"
    packets, _ = packets_of(source)
    link_types = {link_type for *_, link_type in packets}
    if ending == "pcap" and len(link_types) > 1:
        with pytest.raises(SinkError, match="cannot share one pcap file"):
            copy(source, target, chunk_bytes=1 << 20)
        return
    copy(source, target, chunk_bytes=1 << 20)
    assert packets_of(target) == (packets, None)
