"""Loading services: every form of a specification, and one line of advice for every mistake."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from streamcore.core.errors import UsageError
from streamcore.service.load import BUILT_IN, describe, load
from streamcore.service.specification import parse_specification


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("identity", ("identity", {})),
        ("slice:64", ("slice", {"": "64"})),
        ("slice:bytes=64,from=packet", ("slice", {"bytes": "64", "from": "packet"})),
        ("slice:64,from=packet", ("slice", {"": "64", "from": "packet"})),
        ('scan:patterns="a,b.txt",in=packet', ("scan", {"patterns": "a,b.txt", "in": "packet"})),
        ("scan:'a:b,c=d'", ("scan", {"": "a:b,c=d"})),
        ("anonymise:key-file=/tmp/a:b", ("anonymise", {"key_file": "/tmp/a:b"})),
        ("dedup:ignore=link, ttl,ms=5", ("dedup", {"ignore": "link,ttl", "ms": "5"})),
        ("dir.py/x.py:Thing", ("dir.py/x.py:Thing", {})),
        ("x.py:Thing:a=1,b=", ("x.py:Thing", {"a": "1", "b": ""})),
        ({"name": "slice", "bytes": 64}, ("slice", {"bytes": 64})),
        ({"name": "anonymise", "key-file": "k"}, ("anonymise", {"key_file": "k"})),
    ],
)
def test_specifications(text, expected):
    assert parse_specification(text) == expected


@pytest.mark.parametrize("wrong", ["", ":a=1", "slice:a=1,a=2", "slice:64,32", {"bytes": 4}, {"name": ""}])
def test_specifications_that_cannot_be_read(wrong):
    with pytest.raises(UsageError):
        parse_specification(wrong)


def test_options_reach_the_service():
    service = load("slice:32,from=packet")
    assert (service.byte_count, service.start_at) == (32, "packet")
    assert load({"name": "slice", "bytes": 7}).byte_count == 7


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("slcie", "did you mean slice?"),
        ("slice:byte=3", "did you mean bytes?"),
        ("slice:bytes=many", "bytes must be a whole number"),
        ("slice:bytes=-1", "bytes must be a whole number"),
        ("slice:from=tail", "one of payload, packet"),
        ("identity:3", "takes no options"),
        ("identity:a=3", "it takes none"),
        ("nowhere.py:Thing", "there is no file nowhere.py"),
        ("nowhere.py", "name the class too"),
    ],
)
def test_mistakes_are_one_line(wrong, words):
    with pytest.raises(UsageError) as caught:
        load(wrong)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


SERVICE = "from streamcore.service.protocol import Service\nclass X(Service):\n"
PROCESS = " def process(self, segment): pass\n"
FILES = {
    "class X: pass": "must define process",
    "class X:\n" + PROCESS: "must derive from",
    SERVICE + " pass": "must define process",
    SERVICE + " effect = 'all'\n" + PROCESS: "effect must be one of",
    SERVICE + " def __init__(self): 1/0\n" + PROCESS: "division",
    SERVICE + " def __init__(self, depth): 1\n" + PROCESS: "needs depth",
    "class Xy: pass": "has no class X (did you mean Xy?)",
    "1/0": "cannot be imported: ZeroDivisionError",
    "def": "cannot be imported: SyntaxError",
    "X = 3": "is not a class",
}


@pytest.mark.parametrize("source", FILES, ids=range(len(FILES)))
def test_files_that_hold_no_service(tmp_path, source):
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(UsageError, match=re.escape(FILES[source])) as caught:
        load(f"{path}:X")
    assert "\n" not in str(caught.value)


def test_a_file_with_a_service(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from streamcore.service.protocol import Service\n"
        "class Nothing(Service):\n"
        "    def __init__(self, depth=3):\n        self.depth = int(depth)\n"
        "    def process(self, segment):\n        pass\n"
    )
    service = load(f"{path}:Nothing:9")
    assert service.depth == 9
    assert service.name == "nothing"


def test_built_in_services_are_loaded_without_reading_what_is_installed():
    code = "import sys; from streamcore.service.load import load; load('identity'); "
    code += "print('importlib.metadata' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_describe_names_every_built_in_service():
    told = {line.name: line for line in describe()}
    assert set(BUILT_IN) <= set(told)
    assert told["slice"].options == {"bytes": "64", "from": "payload"}
    assert told["slice"].effect == "resize"
    assert told["identity"].words == "Leave every packet as it is."
