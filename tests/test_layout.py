"""The layout of docs/ARCHITECTURE.md, kept by reading the import and cimport lines of every file."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.unused import unused

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
LAYOUT = tomllib.loads((Path(__file__).parent / "layout.toml").read_text())
PACKAGES = ("streamcore", "auction")
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


def place_of(package, folder):
    """On which line of the layout a folder stands; None: it is not there."""
    return next((place for place, line in enumerate(LAYOUT[package]["order"]) if folder in line), None)


def broken_rules(name, text):
    """What a file (its name under src/) does that the layout does not allow."""
    package, *rest = Path(name).with_suffix("").parts
    folder = rest[0]
    found = imports(text, name.endswith((".pyx", ".pxd")))
    rules = ["a star import"] if any(module.endswith(".*") for module in found) else []
    if package == "auction" and any(module.split(".")[0] == "streamcore" for module in found):
        rules.append("auction imports streamcore")
    for module, places in LAYOUT["only"].items():
        speaks = package != module and any(one.split(".")[0] == module for one in found)
        if speaks and not any(name.startswith(place + "/") for place in places):
            rules.append(f"only {' '.join(Path(place).name for place in places)} may import {module}")
    if f"{package}/{folder}" in LAYOUT["pure"]["folders"] or name in LAYOUT["pure"]["files"]:
        impure = {module.split(".")[0] for module in found} & set(LAYOUT["pure"]["without"])
        rules += [f"a pure file imports {one}" for one in sorted(impure)]
    mine = place_of(package, folder)
    if mine is not None:
        theirs = {module.split(".")[1] for module in found if module.startswith(package + ".")} - {folder}
        later = sorted(
            one for one in theirs if (place_of(package, one) or 0) >= mine and place_of(package, one) is not None
        )
        rules += [f"{folder} imports {one}" for one in later]
    return rules


def order_of(package):
    """The files and rooms of a package in the order in which its docstring lists them, in its last paragraph."""
    docstring = ast.get_docstring(ast.parse((SOURCE / package / "__init__.py").read_text()))
    return docstring.split("\n\n")[-1].replace("\n", " ").split(", ")


def broken_layers(name, text):
    """What a file of the moderator imports that does not stand before it."""
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
    return wrong


def name_of(path):
    return str(path.relative_to(SOURCE))


def test_the_rules_are_kept():
    broken = {name_of(path): rules for path in FILES if (rules := broken_rules(name_of(path), path.read_text()))}
    assert broken == {}


def test_every_folder_stands_in_the_layout():
    for package in PACKAGES:
        there = {path.name for path in (SOURCE / package).iterdir() if path.is_dir() and list(path.glob("*.py"))}
        assert there == {folder for line in LAYOUT[package]["order"] for folder in line}, package
        loose = {path.stem for path in (SOURCE / package).glob("*.py")}
        assert loose == {"__init__", "__main__"}, package


BROKEN = (
    ("streamcore/sink/x.py", "if 1:\n    from streamcore.source import capture", "sink imports source"),
    ("streamcore/sink/x.py", "import streamcore.run.pipeline", "sink imports run"),
    ("streamcore/sink/_x.pyx", "from streamcore.parse._headers cimport (a,\n  b)", "sink imports parse"),
    ("streamcore/sink/_x.pxd", "cimport numpy\nfrom streamcore cimport parse", "sink imports parse"),
    ("streamcore/core/packets.pyx", "from streamcore.source.capture import x", "core imports source"),
    ("streamcore/worker/x.py", "from streamcore.run import pipeline", "worker imports run"),
    ("streamcore/parse/x.py", "import zmq.auth", "only disperse subcontract worker may import zmq"),
    ("streamcore/run/x.py", "from auction import model", "only subcontract may import auction"),
    ("streamcore/run/demo.py", "from streamcore.command.cli import main", "run imports command"),
    ("streamcore/parse/x.py", "from streamcore.core.errors import *", "a star import"),
    ("auction/storage/x.py", "from streamcore.core.errors import UsageError", "auction imports streamcore"),
    ("auction/formats/x.py", "from random import choice", "a pure file imports random"),
    ("streamcore/disperse/machine.py", "import time", "a pure file imports time"),
    ("auction/model/x.py", "from auction.groups.sharing import x", "model imports groups"),
    ("auction/moderator/x.py", "import sqlalchemy", "only storage may import sqlalchemy"),
)  # fmt: skip


def test_what_breaks_a_rule_is_seen():
    for name, text, rule in BROKEN:
        assert broken_rules(name, text) == [rule], (name, text)


ALLOWED = (
    ("streamcore/sink/x.py", "from streamcore.core.packets import Arena\nfrom streamcore.sink._encode import E"),
    ("streamcore/sink/_x.pyx", "from streamcore.core.packets cimport (Columns,\n  Segment)\ncimport numpy"),
    ("streamcore/disperse/x.py", "import zmq\nfrom streamcore.core import errors"),
    ("streamcore/run/pipeline.py", "from streamcore.source.capture import CaptureSource"),
    ("auction/storage/store.py", "import os, sqlalchemy"),
)  # fmt: skip


def test_what_is_allowed_is_allowed():
    for name, text in ALLOWED:
        assert broken_rules(name, text) == [], (name, text)


def test_a_file_opens_with_what_it_is_for():
    texts = {name_of(path): path.read_text().lstrip() for path in FILES if path.suffix != ".pyi"}
    silent = [name for name, text in texts.items() if text and not text.startswith(('"""', "#"))]
    assert silent == [], "say in two or three lines what lives here, and what does not"


def test_files_are_short():
    lines = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > LINES_MAX} == {}
    assert sum(count > LINES_MOST for count in lines.values()) <= OVER_MOST_SHARE * len(lines)


def test_the_order_of_the_moderators_files_is_said():
    for package in ("auction/moderator", "auction/moderator/rules"):
        files = [
            path for path in (SOURCE / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
        ]
        assert sorted(order_of(package)) == sorted({path.stem for path in files} - {"__init__"}), package


def test_the_moderators_files_import_what_stands_before_them():
    files = {name_of(path): path for path in (SOURCE / "auction/moderator").rglob("*.py")}
    broken = {name: wrong for name, path in files.items() if (wrong := broken_layers(name, path.read_text()))}
    assert broken == {}


BROKEN_ORDER = (
    ("auction/moderator/state.py", "from auction.moderator import draft", "state imports draft"),
    ("auction/moderator/rules/bidding.py", "from auction.moderator.core import Core", "rules imports core"),
    ("auction/moderator/rules/blocks.py", "from auction.moderator.rules import a, bidding", "blocks imports bidding"),
    ("auction/moderator/rules/blocks.py", "import auction.moderator.rules.due", "blocks imports due"),
    ("auction/moderator/core.py", "from auction.moderator.commands import Moderator", "core imports commands"),
    ("auction/moderator/queries.py", "import auction.moderator.payments", "queries imports payments"),
)


def test_what_breaks_the_moderators_order_is_seen():
    for name, text, wrong in BROKEN_ORDER:
        assert broken_layers(name, text) == [wrong], (name, text)


def test_every_native_module_has_its_stub():
    assert [name_of(path) for path in SOURCE.rglob("*.pyx") if not path.with_suffix(".pyi").exists()] == []


def test_a_market_in_memory_is_imported_without_what_it_does_not_use():
    heavy = ["sqlalchemy", "numpy", "asyncio", "phonenumbers"]
    script = f"import sys, auction; print([name for name in {heavy} if name in sys.modules], auction.SqlStore.__name__)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == "[] SqlStore\n"


# Public names that nothing but tests mentions, and why they stay.
USED_ELSEWHERE = {
    "streamcore/observe/metrics.py collect": "prometheus_client asks a collector for it",
    "streamcore/parse/_flows.pyx export": "tests take the table whole; commands take it in parts",
    "streamcore/offloads/_cut.pyx cut_packet": "tests cut one packet with it; native code cuts those of a batch",
    "streamcore/offloads/_cut.pyx completed": "as cut_packet, for one checksum",
    "streamcore/command/parser.py print_help": "argparse asks a parser for it",
    "auction/web/application.py handle_error": "aiohttp asks a connection for it",
    "streamcore/segment/cutter.py Cutter": "the protocol of what cuts, for who writes one",
}
SPEAKING = ("README.md", "docs/*.md", "examples/**/*.*", "bench/*.py", "scripts/*", "pyproject.toml", "setup.py")
PUBLIC = {"streamcore/__init__.py", "auction/__init__.py"}


def test_what_is_public_is_used_by_more_than_tests():
    sources = {name_of(path): path.read_text() for path in FILES if path.suffix != ".pyi"}
    paths = [path for pattern in SPEAKING for path in ROOT.glob(pattern) if path.suffix in ("", ".py", ".md", ".toml")]
    found = unused(sources, {path.name: path.read_text() for path in paths if path.is_file()}, PUBLIC)
    dead = [one for one in found if one not in USED_ELSEWHERE]
    assert dead == [], "nothing but tests uses it: delete it, or say above who calls it"
    assert [one for one in USED_ELSEWHERE if one not in found] == [], "take it off the list"


PLANTED = {
    "a.py": """
__all__ = ["in_a_list_alone"]
def used(): return calls_itself_not
def calls_itself(): return calls_itself()
def calls_itself_not(): 'said_in_a_docstring is no use'
def said_in_a_docstring(): pass
def in_a_list_alone(): pass
def imported_alone(): pass
def named_in_a_string(): pass
def in_the_manual(): pass
def a_word_of_the_manual(): pass
def _private(): pass
class Dead:
    def method(self): pass
    def other(self): return Dead()
    @command("a thing")
    def entered_in_a_table(self): pass
""",
    "b.py": "from a import imported_alone, used\nused().method()\nd = {'one': 'named_in_a_string'}\n",
    "c.pyx": "cdef class Native:\n    def called(self): pass  # dead() here\n    def dead(self): pass\n",
    "d.py": "import c\nc.Native().called()\n",
    "__init__.py": "from e import exported\n__all__ = ['stated']\n",
    "e.py": "def exported(): pass\nclass stated: pass\n",
}


def test_planted_dead_code_is_found():
    manual = {"manual.md": "A page with a_word_of_the_manual and `in_the_manual()`.", "bench.py": "# nothing\n"}
    dead = ["a_word_of_the_manual", "Dead", "calls_itself", "imported_alone", "in_a_list_alone", "other"]
    dead += ["said_in_a_docstring"]
    assert unused(PLANTED, manual, {"__init__.py"}) == sorted([f"a.py {name}" for name in dead] + ["c.pyx dead"])
