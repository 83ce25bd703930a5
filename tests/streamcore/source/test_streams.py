"""Compression, pipes and refusals: where the bytes come from, and what is said of those that are no capture."""

import contextlib
import gzip
import os
import resource
import threading
import time
import zlib

import lz4.frame
import pytest
import zstandard

from streamcore.core.errors import SourceError
from streamcore.core.packets import Arena
from streamcore.source.capture import CaptureSource
from tests.streamcore import twin
from tests.streamcore.twin import Packet

PACKETS = [Packet(i * 1000, bytes([i % 256]) * (i % 90), i % 90) for i in range(3000)]
CAPTURE = twin.pcap_bytes(PACKETS)


def zstd(data, **more):
    return zstandard.ZstdCompressor(**more).compress(data)


def halves(compress):
    """Two members or frames, as `cat a b` makes them."""
    return compress(CAPTURE[:70_001]) + compress(CAPTURE[70_001:])


SKIPPED = b"\x53\x2a\x4d\x18\x05\0\0\0" + b"12345"
COMPRESSED = {
    "plain": CAPTURE,
    "gzip": gzip.compress(CAPTURE),
    "gzip members": halves(gzip.compress),
    "gzip padded": gzip.compress(CAPTURE) + bytes(300),
    "gzip stored": gzip.compress(CAPTURE, 0),
    "zstd": zstd(CAPTURE),
    "zstd frames": halves(zstd),
    "zstd checksum": zstd(CAPTURE, write_checksum=True),
    "zstd without size": zstandard.ZstdCompressor(write_content_size=False).compressobj().compress(b"")
    + zstd(CAPTURE, write_content_size=False),
    "zstd skippable": SKIPPED + zstd(CAPTURE) + SKIPPED,
    "zstd level 19": zstd(CAPTURE, level=19),
    "lz4": lz4.frame.compress(CAPTURE),
    "lz4 frames": halves(lz4.frame.compress),
    "lz4 checksums": lz4.frame.compress(CAPTURE, content_checksum=True, block_checksum=True),
    "lz4 independent": lz4.frame.compress(CAPTURE, block_linked=False, block_size=4, store_size=False),
    "lz4 skippable": lz4.frame.compress(CAPTURE) + SKIPPED,
}


def data_of(source):
    """Every packet's bytes."""
    data = []
    for batch in source:
        data += [batch.packet(row).tobytes() for row in range(len(batch))]
        del batch
    return data


def read(path, **more):
    with CaptureSource(path, Arena(2, 1 << 16, 1 << 12), **more) as source:
        return data_of(source), source.damage


def read_or_refuse(path):
    """As read; None where the file ends before anything can be decompressed."""
    with contextlib.suppress(SourceError):
        return read(path)
    return None


@contextlib.contextmanager
def standard_input(descriptor):
    """`descriptor` as file descriptor 0."""
    kept = os.dup(0)
    os.dup2(descriptor, 0)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


@pytest.mark.parametrize("kind", COMPRESSED)
def test_every_compression_from_a_file(kind, tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(COMPRESSED[kind])
    assert read(path) == ([p.data for p in PACKETS], None)


@pytest.mark.parametrize("kind", COMPRESSED)
def test_every_compression_from_a_pipe(kind):
    reading, writing = os.pipe()

    def feed():
        with os.fdopen(writing, "wb") as file:
            file.write(COMPRESSED[kind])

    feeder = threading.Thread(target=feed)
    feeder.start()
    with standard_input(reading):
        assert read("-", chunk_wait_s=0) == ([p.data for p in PACKETS], None)
    os.close(reading)
    feeder.join()


@pytest.mark.parametrize(
    "kind", ["gzip", "gzip members", "zstd checksum", "zstd frames", "lz4 checksums", "lz4 frames"]
)
def test_compression_that_is_cut_gives_what_came_before(kind, tmp_path):
    data, path = COMPRESSED[kind], tmp_path / "capture"
    sizes = []
    for cut in range(200, len(data), len(data) // 30):
        path.write_bytes(data[:cut])
        if not (delivered := read_or_refuse(path)):  # not even the first block is there
            assert cut < len(data) * 3 // 4
            continue
        got, damage = delivered
        assert got == [p.data for p in PACKETS[: len(got)]]
        # A cut between members is no damage to them, and then the capture's own record is cut.
        assert damage is not None
        assert "ends" in damage.reason
        sizes.append(len(got))
    assert sizes == sorted(sizes)
    assert sizes[-1] > 0


@pytest.mark.parametrize("kind", ["gzip", "zstd checksum", "lz4 checksums"])
def test_a_wrong_checksum_is_damage_after_everything_was_delivered(kind, tmp_path):
    data, path = bytearray(COMPRESSED[kind]), tmp_path / "capture"
    data[-5 if kind == "gzip" else -1] ^= 1
    path.write_bytes(data)
    got, damage = read(path)
    assert got == [p.data for p in PACKETS]
    assert damage is not None
    assert damage.offset == len(CAPTURE)
    assert "is damaged" in str(damage)


@pytest.mark.parametrize("kind", ["gzip", "zstd", "lz4"])
def test_something_else_behind_compression_is_damage(kind, tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(COMPRESSED[kind] + b"something else, of some length")
    got, damage = read(path)
    assert got == [p.data for p in PACKETS]
    assert "other data follows" in damage.reason


@pytest.mark.parametrize("kind", ["gzip", "zstd", "lz4"])
def test_a_bomb_takes_no_memory(kind, tmp_path):
    """200 MB in few bytes: peak memory hardly grows."""
    path = tmp_path / "capture"
    packet = Packet(0, bytes(100_000), 100_000)
    one = twin.pcap_bytes([packet] * 100)[24:]
    if kind == "gzip":
        member = zlib.compressobj(9, zlib.DEFLATED, 31)
        data = member.compress(twin.pcap_bytes([])) + b"".join(member.compress(one) for _ in range(20)) + member.flush()
    elif kind == "zstd":
        frame = zstandard.ZstdCompressor(level=1).compressobj()
        data = frame.compress(twin.pcap_bytes([])) + b"".join(frame.compress(one) for _ in range(20)) + frame.flush()
    else:
        data = lz4.frame.compress(twin.pcap_bytes([]) + one * 3)
    path.write_bytes(data)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 0
    with CaptureSource(path, Arena(2, 1 << 20, 1 << 12)) as source:
        for batch in source:
            count += len(batch)
            del batch
    assert count == (300 if kind == "lz4" else 2000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 40_000


def test_a_slow_pipe_hands_on_what_is_there():
    reading, writing = os.pipe()
    with standard_input(reading):
        os.write(writing, CAPTURE[:24])
        source = CaptureSource("-", Arena(4, 1 << 16, 1 << 12), chunk_wait_s=0.05)
        records = twin.pcap_bytes([Packet(0, b"a" * 10, 10)])[24:]
        for _ in range(3):
            os.write(writing, records + records[:9])  # one and a half: the half waits
            begin_s = time.monotonic()
            batch = next(source)
            assert time.monotonic() - begin_s < 10
            assert len(batch) == 1
            os.write(writing, records[9:])
            assert len(next(source)) == 1
        os.close(writing)
        assert list(source) == []
        assert source.damage is None
        source.close()
    os.close(reading)


@pytest.mark.parametrize("end", ["stop", "close"])
def test_a_source_that_waits_can_be_stopped(end):
    reading, writing = os.pipe()
    os.write(writing, CAPTURE[:24])
    with standard_input(reading):
        source = CaptureSource("-", Arena(4, 1 << 16, 1 << 12))
        threading.Timer(0.1, getattr(source, end)).start()
        begin_s = time.monotonic()
        assert list(source) == []
        assert time.monotonic() - begin_s < 10
        assert source.damage is None
        source.close()
    os.close(reading)
    os.close(writing)


def test_a_source_that_waits_for_a_chunk_can_be_stopped(tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(CAPTURE)
    source = CaptureSource(path, Arena(1, 1 << 15, 1 << 12))
    batch = next(source)
    threading.Timer(0.1, source.stop).start()
    assert next(source, None) is None
    assert len(batch) > 0
    source.close()


REFUSED = {
    "empty": (b"", "is empty"),
    "text": (b"GET / HTTP/1.1\r\nHost: example\r\n", "looks like text"),
    "bytes": (bytes(range(1, 60)), "begins with the bytes 01 02 03 04"),
    "snoop": (b"snoop\0\0\0" + bytes(20), "is a snoop capture"),
    "bzip2": (b"BZh91AY&SY" + bytes(20), "pipe 'bzip2 -dc FILE' into '-r -'"),
    "xz": (b"\xfd7zXZ\0" + bytes(20), "compressed with xz"),
    "gzip of text": (gzip.compress(b"hello, hello, hello"), "inside its gzip): it looks like text"),
    "gzip of nothing": (gzip.compress(b""), "is empty (inside its gzip)"),
    "zstd of bytes": (zstd(b"\0\1\2\3" * 9), "inside its zstd): it begins with the bytes 00 01 02 03"),
    "gzip cut at once": (gzip.compress(CAPTURE)[:12], "data ends early"),
    "half a pcap header": (CAPTURE[:20], "ends within its header, after 20 bytes"),
    "half a section": (twin.section_bytes()[:30], "not a pcap or pcapng capture"),
    "one byte": (b"\xd4", "begins with the bytes d4"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_capture_is_refused_in_one_line(what, tmp_path):
    data, words = REFUSED[what]
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(SourceError) as caught:
        CaptureSource(path, Arena(2, 1 << 16, 1 << 12))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_opened_is_refused_in_one_line(tmp_path):
    for path, words in ((tmp_path / "missing", "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(SourceError, match=words):
            CaptureSource(path, Arena(2, 1 << 16, 1 << 12))


@contextlib.contextmanager
def without_root():
    """Root may read everything: give that up for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_an_unreadable_file_is_refused(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(CAPTURE)
    path.chmod(0)
    with without_root(), pytest.raises(SourceError, match="permission denied"):
        CaptureSource(path, Arena(2, 1 << 16, 1 << 12))


def test_no_descriptor_is_left_open(tmp_path):
    path = tmp_path / "file"
    before = len(os.listdir("/proc/self/fd"))
    for data in (CAPTURE, b"text", COMPRESSED["zstd"][:50]):
        path.write_bytes(data)
        with contextlib.suppress(SourceError):
            next(CaptureSource(path, Arena(2, 1 << 16, 1 << 12)), None)
    assert len(os.listdir("/proc/self/fd")) == before


def test_progress_counts_the_file(tmp_path):
    path = tmp_path / "capture"
    for data in (CAPTURE, COMPRESSED["gzip"]):
        path.write_bytes(data)
        with CaptureSource(path, Arena(2, 1 << 16, 1 << 12)) as source:
            data_of(source)
            assert source.progress() == (len(data), len(data))
