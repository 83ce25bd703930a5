"""How segments travel: as many in a message as there is credit for, and no fewer back and out again; what comes back
must be readable.
"""

import pytest

from streamcore.core.config import Config
from streamcore.disperse._results import ResultError
from streamcore.disperse.validation import read_extra
from streamcore.disperse.workers import Workers
from streamcore.run.pipeline import Pipeline
from tests.streamcore.conftest import udp_frame, write_pcap


def test_segments_that_came_in_one_message_leave_in_one(tmp_path, monkeypatch, nothing_left):
    capture = write_pcap(tmp_path / "in.pcap", [udp_frame(i % 5, i) for i in range(12_000)])
    send, sizes = Workers.send, []

    def counted(self, peer, message):
        sent = send(self, peer, message)
        sizes.append(sent)
        return sent

    monkeypatch.setattr(Workers, "send", counted)
    config = Config(read=capture, write=tmp_path / "out.pcap", service=["identity"], workers=1, segment_packets=20)
    assert Pipeline(config).run().exit_status == 0
    assert sum(sizes) == 600
    assert len(sizes) < 200, sizes  # one at a time they are nearly 600


@pytest.mark.parametrize(
    "raw",
    [
        b"\x81\xa5drops\x81\xa1\xff\x92\x01\x02",  # a reason that is no UTF-8
        b"\x81\xa7reports\x91\x92\x00" + b"\x91" * 100_000,  # lists in one another
        b"\x81\xa7reports",
        b"",
        b"\xc1",
    ],
)
def test_comments_and_reports_that_cannot_be_read_are_a_bad_result_and_no_more(raw):
    """Whoever works for us may send them: found by fuzzing, an error of another kind ended the run."""
    with pytest.raises(ResultError):
        read_extra(raw, 5)
