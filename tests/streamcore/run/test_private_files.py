"""Dead letters and spools are readable by their owner alone, whatever the process lets others do by default.

Databases of the market stand in tests/auction/storage/test_rules_kept.py.
"""

import os
from types import SimpleNamespace

import pytest

from streamcore.core.config import Config
from streamcore.core.packets import Arena, Segment
from streamcore.run.dead_letters import DeadLetters
from streamcore.source._spool import Spool
from streamcore.source.capture import CaptureSource
from tests.streamcore.conftest import udp_frame, write_pcap

UMASKS = (0, 0o022, 0o077)


@pytest.fixture(params=UMASKS, ids=oct)
def _umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


class OneStream:
    """A run with one stream, which drops what fails."""

    sends_first = False

    def __getitem__(self, number):
        return SimpleNamespace(on_failure="drop", subcontract=None)

    def count(self, *figures):
        pass


@pytest.mark.usefixtures("_umask")
def test_dead_letters_are_private_also_where_a_file_was(tmp_path):
    capture = write_pcap(tmp_path / "in.pcap", [udp_frame(i, i) for i in range(3)])
    (tmp_path / "old.pcap").touch()
    (tmp_path / "old.pcap").chmod(0o666)
    for name in ("new.pcap", "new.pcapng", "new.pcap.gz", "old.pcap"):
        dead = tmp_path / name
        config = Config(
            read=str(capture), write=str(tmp_path / "out.pcap"), dead_letter=str(dead), overwrite=name == "old.pcap"
        )
        with (
            CaptureSource(capture, Arena(2, 1 << 16, 64)) as source,
            DeadLetters(config, OneStream(), source) as letters,
        ):
            segment = Segment(0, next(source), 0, 3)
            letters.replace(SimpleNamespace(segment=segment, reason="it failed"))
            assert letters.path == str(dead)
        assert dead.stat().st_mode & 0o777 == 0o600, name
        with CaptureSource(dead, Arena(2, 1 << 16, 64)) as kept:
            assert len(next(kept)) == 3


@pytest.mark.usefixtures("_umask")
def test_a_spool_has_no_name_and_its_owner_s_rights_alone(tmp_path):
    spool = Spool(str(tmp_path), 1 << 16)
    try:
        assert os.fstat(spool._file.fileno()).st_mode & 0o777 == 0o600
        assert list(tmp_path.iterdir()) == []
    finally:
        spool.close()
