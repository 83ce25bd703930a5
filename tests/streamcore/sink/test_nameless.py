"""A file gets its name with its header in it; what stood under the name before, and what it was, stays as it should."""

import errno
import os
import stat

import pytest

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import SinkError
from streamcore.core.packets import Arena, Outgoing
from streamcore.sink import _headers
from streamcore.sink.rotation import RotatingSink
from streamcore.sink.writer import open_capture
from streamcore.source.capture import CaptureSource
from tests.streamcore.conftest import read_pcap, udp_frame, write_pcap

FRAMES = [udp_frame(number, number) for number in range(5)]


@pytest.fixture(params=["nameless", "with a name of its own"])
def file_system(request, monkeypatch):
    """This one, and one that has no nameless files."""
    if request.param == "nameless":
        return
    real = os.open

    def without(path, flags, *more, **named):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", without)


@pytest.fixture
def batch(tmp_path):
    capture = write_pcap(tmp_path / "in.pcap", FRAMES)
    with CaptureSource(capture, Arena(2, 1 << 20, 1 << 10)) as source:
        (batch,) = source
        yield source, batch


def one_file(path, source):
    return open_capture(path, interfaces=source.interfaces, form=source.form)


def rotating(path, source):
    return RotatingSink(
        Config(read="-", write=str(path), rotate_mb=1, overwrite=True), interfaces=source.interfaces, form=source.form,
        counters=Counters(), on_commit=lambda _: None, on_file=lambda _: None,
    )  # fmt: skip


@pytest.mark.parametrize("make", [one_file, rotating])
def test_the_name_comes_after_the_header(file_system, batch, tmp_path, monkeypatch, make):
    source, packets = batch
    output = tmp_path / "out" / "it.pcap"
    output.parent.mkdir()
    header, seen = _headers.pcap_file_header, []

    def looked(*arguments):
        seen.append(output.exists() or output.with_name("it.pcap.part").exists())
        return header(*arguments)

    monkeypatch.setattr(_headers, "pcap_file_header", looked)
    sink = make(output, source)
    sink.write(Outgoing(packets, 0, len(packets)))
    assert seen == [False]
    written = output if make is one_file else output.with_name("it.pcap.part")
    assert len(read_pcap(written)) == len(FRAMES)
    sink.close()
    assert [path.name for path in output.parent.iterdir()] == ["it.pcap"]
    assert [frame for _, frame in read_pcap(output)] == FRAMES


def test_a_file_of_a_rotation_is_redone_and_another_is_kept_but_for_its_contents(file_system, batch, tmp_path):
    source, packets = batch
    for make, is_the_same in ((one_file, True), (rotating, False)):
        output = tmp_path / f"{make.__name__}.pcap"
        output.write_bytes(b"what was here before" * 1000)
        os.link(output, tmp_path / f"{make.__name__}.old")
        sink = make(output, source)
        sink.write(Outgoing(packets, 0, len(packets)))
        sink.close()
        assert [frame for _, frame in read_pcap(output)] == FRAMES
        assert output.samefile(tmp_path / f"{make.__name__}.old") == is_the_same


@pytest.mark.parametrize("make", [one_file, rotating])
def test_through_a_link_that_leads_nowhere_yet(file_system, batch, tmp_path, make):
    source, packets = batch
    output = tmp_path / "link.pcap"
    output.symlink_to(tmp_path / "out.pcap")
    sink = make(output, source)
    sink.write(Outgoing(packets, 0, len(packets)))
    sink.close()
    assert output.is_symlink()
    assert [frame for _, frame in read_pcap(tmp_path / "out.pcap")] == FRAMES


def test_rights_are_those_of_any_new_file(file_system, batch, tmp_path):
    source, packets = batch
    (tmp_path / "beside").touch()
    sink = one_file(tmp_path / "out.pcap", source)
    sink.write(Outgoing(packets, 0, len(packets)))
    sink.close()
    assert stat.S_IMODE((tmp_path / "out.pcap").stat().st_mode) == stat.S_IMODE((tmp_path / "beside").stat().st_mode)


def test_what_cannot_be_begun_leaves_nothing(file_system, batch, tmp_path, monkeypatch):
    source, packets = batch
    output = tmp_path / "out" / "it.pcap"
    output.parent.mkdir()

    def full(*_arguments):
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(_headers, "pcap_file_header", full)
    with pytest.raises(SinkError, match="no space left"):
        one_file(output, source).write(Outgoing(packets, 0, len(packets)))
    assert list(output.parent.iterdir()) == []
