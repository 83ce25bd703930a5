"""`scan`: both engines beside a plain search of every packet, and the syntax of pattern files."""

from __future__ import annotations

import importlib.util
import random
import re

import numpy as np
import pytest
from packets_by_hand import make_segment, run

from streamcore.core.errors import UsageError
from streamcore.service.load import load
from streamcore.service.patterns import read_patterns

ENGINES = ["re", "hyperscan"]
HEAD = 42  # bytes of header in front of the payload
PATTERNS = r"""
# words
abc
needle: /nee+dle/i
/a.c/s
/a.c\b/
start: /^ab/
end: /c$/
lines: /^b+$/m
lazy: /a[^b]*?c/
class: /[\x00-\x1f]{2,3}a/
either: /(?:abc|b(c|a)+)d?/
not word: /\Wb\B/
ünï: /é+/
a literal (with) [signs].*
space: /a\sb/
"""


def parser(batch, groups):
    """A third of the packets is TCP, a third UDP, and the rest something that has no payload."""
    batch.groups |= groups
    rows = np.arange(batch.count)
    batch.protocol[:] = np.choose(rows % 3, [6, 17, 132])
    batch.payload_offset[:] = np.where(rows % 5 == 4, 65535, HEAD)


def payloads(seed: int, count: int = 600) -> list[bytes]:
    rng = random.Random(seed)
    parts = [
        b"a",
        b"b",
        b"c",
        b"d",
        b"\n",
        b"\0",
        b" ",
        b"\x0b",
        b"NeeEdle",
        "é".encode(),
        b"a literal (with) [signs].*",
        b"x",
    ]
    return [b"".join(rng.choice(parts) for _ in range(rng.randrange(0, 12))) for _ in range(count)]


def twin(packets, text, whole):
    """(comments, packets by pattern name)."""
    patterns = [(one.name, re.compile(one.expression, one.flags)) for one in read_patterns(text)]
    comments, counts = {}, {name: 0 for name, _ in patterns}
    for i, packet in enumerate(packets):
        if not whole and (i % 3 == 2 or i % 5 == 4):
            continue
        looked_at = packet if whole else packet[HEAD:]
        found = []
        for place, (name, pattern) in enumerate(patterns):
            for start in range(len(looked_at) + 1):  # slower than a search, and as plain as can be
                if pattern.match(looked_at, start):
                    found.append((start, place, name))
                    counts[name] += 1
                    break
        if found:
            comments[i] = [f"scan: {name} at {start}".encode() for start, _, name in sorted(found)]
    return comments, counts


def engine_or_skip(engine: str) -> str:
    if engine == "hyperscan" and importlib.util.find_spec("hyperscan") is None:
        pytest.skip("hyperscan is not installed")
    return engine


def scanned(packets, text, engine, whole, rows=None):
    service = load(
        {"name": "scan", "text": text, "engine": engine_or_skip(engine), "in": "packet" if whole else "payload"}
    )
    worker = load(
        service.prepared({"name": "scan", "text": text, "engine": engine, "in": "packet" if whole else "payload"})
    )
    result = run(make_segment(packets, rows, parser=parser), worker).result()
    for _, report in result.reports:
        service.merge(report)
    return result.comments, service.summary()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    "text", [PATTERNS, "abc\nneedle: /nee+dle/i\n/[b]c?d/", "/^ab/\n/c$/"], ids=["all", "free", "bound"]
)
def test_matches_equal_a_plain_search(engine, whole, text):
    for seed in range(3):
        packets = [bytes(range(100, 100 + HEAD)) + payload for payload in payloads(seed)]
        comments, counts = twin(packets, text, whole)
        got, told = scanned(packets, text, engine, whole)
        assert got == comments
        assert told["patterns"] == counts
        assert told["engine"] == engine
        assert (told["packets"], told["packets_matched"]) == (len(packets), len(comments))
        assert sum(counts.values()) > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_found_across_packets_or_in_headers(engine):
    packets = [b"needle" + bytes(HEAD - 8) + b"ne", b"edle" + bytes(HEAD - 4) + b"xnee", b"dle"]
    assert scanned(packets, "needle", engine, False)[0] == {}
    assert scanned(packets, "needle", engine, True)[0] == {0: [b"scan: needle at 0"]}


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_in_another_order(engine):
    packets = [bytes(HEAD) + b"ab"] * 3 + [bytes(HEAD) + b"xabc"] + [bytes(HEAD) + b"abc"]
    got, _ = scanned(packets, "abc", engine, True, rows=[4, 0, 3])
    assert got == {0: [b"scan: abc at 42"], 2: [b"scan: abc at 43"]}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_pattern_that_matches_nearly_everywhere(engine):
    packets = [bytes(HEAD) + b"x" * 200] * 100
    got, told = scanned(packets, "many: /x.+/\nonce: /x{200}/", engine, True)
    assert told["patterns"] == {"many": 100, "once": 100}
    assert got[7] == [b"scan: many at 42", b"scan: once at 42"]


def test_comments_are_bounded():
    text = "\n".join(f"p{i}: /x{{{i + 1}}}/" for i in range(30))
    service = load({"name": "scan", "text": text, "in": "packet", "comments": 5, "engine": "re"})
    result = run(make_segment([b"x" * 40], parser=parser), service).result()
    service.merge(result.reports[0][1])
    assert len(result.comments[0]) == 5
    assert service.summary()["comments_left_out"] == 25
    assert sum(service.summary()["patterns"].values()) == 30


def test_names():
    names = [pattern.name for pattern in read_patterns("a: b\n/x/i\nmy name : /y/\n" + "z" * 200)]
    assert names == ["a: b", "/x/i", "my name", "z" * 79 + "…"]


REFUSED = [
    "/a(?=b)/", "/(?<!a)b/", r"/(a)\1/", "/a++/", r"/a\Z/", r"/\v/", "/a{,3}/", "/[[:alpha:]]/", "/a*/", "/(/", "/a/x",
    "/[a/", "/(?P<n>a)/", "/(?i)a/", r"/[\b]/", "/^/", "same\nsame", "", "# nothing", "/a**/", r"/\p{L}/", r"/\8/",
    r"/\b/",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text):
    with pytest.raises(UsageError, match="text: ") as caught:
        load({"name": "scan", "text": text or "\n"})
    assert "\n" not in str(caught.value)


def test_wrong_files(tmp_path):
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"a" * (1 << 20 | 1))
    for path, words in (
        ("latin", "not UTF-8"),
        ("large", "more than"),
        ("none", "cannot be read"),
        (".", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=words):
            load(f"scan:patterns={tmp_path / path}")
    with pytest.raises(UsageError, match="patterns=FILE"):
        load("scan")


def test_without_hyperscan(monkeypatch):
    monkeypatch.setattr("streamcore.service.scan._has_hyperscan", lambda must: False)
    assert load({"name": "scan", "text": "a"}).summary()["engine"] == "re"


def test_patterns_travel_to_workers(tmp_path):
    (tmp_path / "p").write_text("needle: /nee+dle/i\n")
    text = f"scan:{tmp_path / 'p'},in=packet"
    prepared = load(text).prepared(text)
    (tmp_path / "p").unlink()
    got = run(make_segment([b"..NEEDLE"], parser=parser), load(prepared)).result().comments
    assert got == {0: [b"scan: needle at 2"]}
