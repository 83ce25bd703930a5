"""How segments travel: as many in a message as there is credit for, and no fewer back and out again."""

from streamcore.core.config import Config
from streamcore.disperse.scheduler import Scheduler
from streamcore.run.pipeline import Pipeline
from tests.streamcore.conftest import udp_frame, write_pcap


def test_segments_that_came_in_one_message_leave_in_one(tmp_path, monkeypatch, nothing_left):
    capture = write_pcap(tmp_path / "in.pcap", [udp_frame(i % 5, i) for i in range(12_000)])
    send, sizes = Scheduler._send_to, []

    def counted(self, peer, batch):
        sent = send(self, peer, batch)
        sizes.append(sent)
        return sent

    monkeypatch.setattr(Scheduler, "_send_to", counted)
    config = Config(read=capture, write=tmp_path / "out.pcap", service=["identity"], workers=1, segment_packets=20)
    assert Pipeline(config).run().exit_status == 0
    assert sum(sizes) == 600
    assert len(sizes) < 200, sizes  # one at a time they are nearly 600
