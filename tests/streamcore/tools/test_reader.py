"""`streamcore.read`: what a user at a Python prompt meets."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import streamcore
from streamcore.core.errors import SourceError
from tests.streamcore import twin
from tests.streamcore.conftest import udp_frame
from tests.streamcore.twin import Packet


@pytest.fixture(scope="module")
def frames():
    return [udp_frame(i % 50, i, i % 700) for i in range(20_000)]


@pytest.fixture(scope="module")
def path(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("reader") / "capture.pcap"
    path.write_bytes(twin.pcap_bytes([Packet(i, frame, len(frame)) for i, frame in enumerate(frames)]))
    return path


def test_import_alone_is_light():
    code = "import sys, streamcore; assert 'read' in streamcore.__all__; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_columns_of_all_packets(frames, path):
    lengths, ports, payload = [], [], 0
    for batch in streamcore.read(path):
        lengths += batch.captured_length.tolist()
        ports += batch.target_port.tolist()
        payload += int((batch.captured_length - batch.payload_offset).sum())
    assert lengths == [len(frame) for frame in frames]
    assert set(ports) == {5060}
    assert payload == sum(len(frame) - 42 for frame in frames)


def test_batches_and_arrays_may_be_kept(frames, path):
    """More batches than an arena has chunks: whoever keeps them gets memory, not a wait."""
    reader = streamcore.read(path)
    batches = list(reader)
    data = [batch.packet(row).tobytes() for batch in batches for row in range(len(batch))]
    assert data == frames
    times = np.concatenate([batch.timestamp_ns for batch in streamcore.read(path)])
    assert times.tolist() == [i * 1000 for i in range(len(frames))]


def test_several_threads_share_a_reader(frames, path):
    counts, reader = [], streamcore.read(path)

    def take():
        for batch in reader:
            counts.append((batch.first_number, len(batch), int((batch.protocol == 17).sum())))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(count for _, count, _ in counts) == len(frames)
    assert all(count == udp for _, count, udp in counts)
    assert len({first for first, _, _ in counts}) == len(counts)


def test_damage_is_told(frames, path, tmp_path):
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(path.read_bytes()[:-3])
    with pytest.warns(streamcore.DamageWarning, match="ends within a record"):
        assert sum(len(batch) for batch in streamcore.read(cut)) == len(frames) - 1
    reader = streamcore.read(cut, strict=True)
    with pytest.raises(SourceError, match="is damaged: at byte"):
        for _ in reader:
            pass
    assert reader.damage is not None
    assert list(reader) == []


def test_closed_in_the_middle(frames, path):
    with streamcore.read(path) as reader:
        batch = next(reader)
    assert list(reader) == []
    assert batch.packet(0).tobytes() == frames[0]
    assert reader.interfaces[0].link_type == 1
    assert reader.form.family == "pcap"
