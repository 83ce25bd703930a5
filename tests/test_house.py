"""The house rules of docs/ARCHITECTURE.md, kept by reading the import and cimport lines of every file."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from auction.moderator.core import Core
from auction.moderator.facade import Moderator

SOURCE = Path(__file__).parents[1] / "src"
GROUND = {"packets", "errors", "counters", "config", "routes"}
STAGES = {"source", "parse", "segment", "disperse", "service", "subcontract", "aggregate", "sink"}
SPEAK_ZMQ = {"streamcore/worker.py", "streamcore/remote_worker.py"}  # besides the rooms disperse and subcontract
MEET_AUCTION = "subcontract"  # the only room of streamcore that imports auction
PURE = (
    "money",
    "party",
    "block",
    "bid",
    "award",
    "agreement",
    "sharing",
    "sponsorship",
    "delivery",
    "rating",
    "formats",
)
IMPURE = {"os", "io", "time", "random", "secrets", "socket", "pathlib", "tempfile", "subprocess", "threading"}
IMPURE |= {"sqlalchemy", "sqlite3", "asyncio"}
LINES_MAX, LINES_MOST, OVER_MOST_SHARE = 600, 300, 0.15

NATIVE_LINE = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\s+(.+)|c?import\s+(.+))$", re.MULTILINE)
FILES = sorted(path for kind in ("*.py", "*.pyx", "*.pxd", "*.pyi") for path in SOURCE.rglob(kind))


def imports(text, native):
    """Every module that a file imports or cimports, `from a import b` also as a.b."""
    found = set()
    if native:
        for module, names, plain in NATIVE_LINE.findall(re.sub(r"\([^)]*\)", lambda m: m[0].replace("\n", " "), text)):
            words = [name.split(" as ")[0].strip(" ()") for name in (names or plain).split("#")[0].split(",")]
            found |= {f"{module}.{word}" for word in words if word} | {module} if module else set(words)
        return found
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides where it goes"
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def rooms(found, package="streamcore"):
    """The rooms, or files without a room, of a package that are imported."""
    return {name.split(".")[1] for name in found if name.startswith(package + ".")}


def broken_rules(name, text):
    """What a file (its name under src/) does that the house does not allow."""
    package, *rest = Path(name).with_suffix("").parts
    room = rest[0]
    found = imports(text, name.endswith((".pyx", ".pxd")))
    ours = rooms(found) & (
        {path.name for path in (SOURCE / "streamcore").iterdir()} | GROUND | STAGES | files_without_room()
    )
    rules = []
    if package == "auction":
        if any(module.split(".")[0] == "streamcore" for module in found):
            rules.append("auction imports streamcore")
        if room in PURE and (impure := {module.split(".")[0] for module in found} & IMPURE):
            rules.append(f"a rule file imports {', '.join(sorted(impure))}")
        return rules
    if any(module.split(".")[0] == "auction" for module in found) and room != MEET_AUCTION:
        rules.append("only subcontract imports auction")
    speaks = any(module.split(".")[0] == "zmq" for module in found)
    if speaks and room not in ("disperse", "subcontract") and name not in SPEAK_ZMQ:
        rules.append("only disperse, subcontract and the workers import zmq")
    if room in GROUND and (wrong := ours - {room} - GROUND):
        rules.append(f"the ground imports {', '.join(sorted(wrong))}")
    if room in STAGES and (wrong := ours - {room} - GROUND):
        rules.append(f"the stage {room} imports {', '.join(sorted(wrong))}")
    if "cli" in ours and name not in ("streamcore/__main__.py",):
        rules.append("nothing imports the command line")
    if any(module.endswith(".*") for module in found):
        rules.append("a star import")
    return rules


def order_of(package):
    """The files and rooms of a package in the order in which its docstring lists them, in its last paragraph."""
    docstring = ast.get_docstring(ast.parse((SOURCE / package / "__init__.py").read_text()))
    return docstring.split("\n\n")[-1].replace("\n", " ").split(", ")


def broken_layers(name, text):
    """What a file of the moderator imports that does not stand before it, and a command of its kind."""
    parts = Path(name).with_suffix("").parts
    found = imports(text, native=False)
    wrong = []
    for depth, package in ((2, "auction/moderator"), (3, "auction/moderator/rules")):
        if "/".join(parts[:depth]) == package and parts[depth] != "__init__":
            order = order_of(package)
            prefix = package.replace("/", ".") + "."
            theirs = {one.removeprefix(prefix).split(".")[0] for one in found if one.startswith(prefix)}
            before = order[: order.index(parts[depth])]
            wrong += sorted(f"{parts[depth]} imports {one}" for one in theirs - {*before, parts[depth]} if one in order)
    if parts[2] == "commands" and any(one.startswith("auction.moderator.commands.") for one in found):
        wrong.append("a command imports another's")
    return wrong


def files_without_room():
    return {path.stem for path in (SOURCE / "streamcore").glob("*.py*")}


def name_of(path):
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_rules_are_kept(path):
    assert broken_rules(name_of(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("streamcore/sink/x.py", "if 1:\n    from streamcore.source import capture", "the stage sink imports source"),
        ("streamcore/sink/x.py", "import streamcore.pipeline", "the stage sink imports pipeline"),
        ("streamcore/sink/_x.pyx", "from streamcore.parse._headers cimport (a,\n  b)", "the stage sink imports parse"),
        ("streamcore/sink/_x.pxd", "cimport numpy\nfrom streamcore cimport parse", "the stage sink imports parse"),
        ("streamcore/packets.pyx", "from streamcore.source.capture import x", "the ground imports source"),
        ("streamcore/parse/x.py", "import zmq.auth", "only disperse, subcontract and the workers import zmq"),
        ("streamcore/pipeline.py", "import zmq", "only disperse, subcontract and the workers import zmq"),
        ("streamcore/pipeline.py", "from auction import money", "only subcontract imports auction"),
        ("streamcore/demo.py", "from streamcore.cli import main", "nothing imports the command line"),
        ("streamcore/parse/x.py", "from streamcore.errors import *", "a star import"),
        ("auction/store.py", "from streamcore.errors import UsageError", "auction imports streamcore"),
        ("auction/formats/x.py", "from random import choice", "a rule file imports random"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_seen(name, text, rule):
    assert broken_rules(name, text) == [rule]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("streamcore/sink/x.py", "from streamcore.packets import Arena\nfrom streamcore.sink._encode import Encoder"),
        ("streamcore/sink/_x.pyx", "from streamcore.packets cimport (Columns,\n  Segment)\nfrom libc cimport stdint"),
        ("streamcore/disperse/x.py", "import zmq\nfrom streamcore import errors"),
        ("streamcore/pipeline.py", "from streamcore.source.capture import CaptureSource"),
        ("auction/store.py", "import os, sqlalchemy"),
    ],
)  # fmt: skip
def test_what_is_allowed_is_allowed(name, text):
    assert broken_rules(name, text) == []


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix != ".pyi"], ids=name_of)
def test_a_file_opens_with_what_it_is_for(path):
    text = path.read_text()
    opening = text.lstrip().startswith(('"""', "#", "# cython"))
    assert opening or not text.strip(), "say in two or three lines what lives here, and what does not"


def test_files_are_short():
    lines = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > LINES_MAX} == {}
    assert sum(count > LINES_MOST for count in lines.values()) <= OVER_MOST_SHARE * len(lines)


@pytest.mark.parametrize("package", ["auction/moderator", "auction/moderator/rules"])
def test_the_order_of_the_moderators_files_is_said(package):
    there = {
        path.stem for path in (SOURCE / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert sorted(order_of(package)) == sorted(there - {"__init__"})


@pytest.mark.parametrize("path", sorted((SOURCE / "auction/moderator").rglob("*.py")), ids=name_of)
def test_the_moderators_files_import_what_stands_before_them(path):
    assert broken_layers(name_of(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("auction/moderator/state.py", "from auction.moderator import draft", "state imports draft"),
        ("auction/moderator/rules/spot.py", "from auction.moderator.core import Core", "rules imports core"),
        ("auction/moderator/rules/blocks.py", "from auction.moderator.rules import a, spot", "blocks imports spot"),
        ("auction/moderator/rules/blocks.py", "import auction.moderator.rules.due", "blocks imports due"),
        ("auction/moderator/core.py", "from auction.moderator.commands.x import y", "core imports commands"),
        ("auction/moderator/commands/spot.py", "import auction.moderator.commands.x", "a command imports another's"),
    ],
)
def test_what_breaks_the_moderators_order_is_seen(name, text, wrong):
    assert broken_layers(name, text) == [wrong]


def test_the_moderator_is_a_flat_list_of_commands():
    assert Core in {base for one in Moderator.__bases__ for base in one.__bases__}
    for one in Moderator.__bases__:
        assert one.__bases__ == (Core,)
        others = [other for other in Moderator.__bases__ if other is not one]
        assert [name for name in vars(one) if name[:2] != "__" and any(name in vars(other) for other in others)] == []


def test_every_native_module_has_its_stub_and_stands_in_the_list():
    setup = (SOURCE.parent / "setup.py").read_text()
    for path in SOURCE.rglob("*.pyx"):
        assert path.with_suffix(".pyi").exists(), f"{name_of(path)} has no .pyi"
        assert f'"{".".join(Path(name_of(path)).with_suffix("").parts)}"' in setup


def test_a_market_in_memory_is_imported_without_what_it_does_not_use():
    heavy = ["sqlalchemy", "numpy", "asyncio", "phonenumbers"]
    script = f"import sys, auction; print([name for name in {heavy} if name in sys.modules], auction.SqlStore.__name__)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == "[] SqlStore\n"
