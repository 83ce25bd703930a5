"""Every command and every program of the README does what the README says, in the order in which they stand."""

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import dpkt
import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text())


def steps():
    """[(kind, text, what it is said to print)]: a block of text tells what the block before it prints."""
    told = []
    for kind, text in BLOCKS:
        if kind == "text":
            told[-1] = (*told[-1][:2], text)
        else:
            told.append((kind, text, ""))
    return told


def is_about_the_tree(text):
    """Whether a block builds or measures, and so runs in the tree itself; everything else runs elsewhere."""
    return text.startswith(("make ", ".venv/bin/python -m pytest "))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory like the tree as far as the README's commands look at it."""
    place = tmp_path_factory.mktemp("readme")
    (place / "examples").symlink_to(ROOT / "examples")
    return place


def environment():
    scripts = str(Path(sys.executable).parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return kept | {"PATH": f"{scripts}:{os.environ['PATH']}"}


def run(command, directory, **variables):
    return subprocess.run(
        command,
        cwd=directory,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=110,
        stdin=subprocess.DEVNULL,
    )


BY_MAKE = ("streamcore demo --market",)  # what `make demo` runs too: twenty seconds, so it runs once


@pytest.fixture(scope="module")
def demo_by_make(tmp_path_factory):
    """`make demo`, started, into files. It mostly waits for its blocks of time, so others run beside it."""
    place = tmp_path_factory.mktemp("make-demo")
    with open(place / "stdout", "w") as stdout, open(place / "stderr", "w") as stderr:
        started = subprocess.Popen(
            ["make", "demo"], cwd=ROOT, env=environment(), stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL
        )
    yield started, place
    if started.poll() is None:
        started.terminate()
        started.wait()


SHELL = [
    (text, said)
    for kind, text, said in steps()
    if kind == "sh" and not is_about_the_tree(text) and text.strip() not in BY_MAKE
]
PROGRAMS = [(text, said) for kind, text, said in steps() if kind == "python"]
ABOUT_THE_TREE = [line for kind, text, _ in steps() if is_about_the_tree(text) for line in text.splitlines()]


def test_the_readme_has_what_is_tested_here():
    assert {kind for kind, _ in BLOCKS} == {"sh", "python", "text"}
    assert len(SHELL) >= 6
    assert len(PROGRAMS) == 3
    assert len(ABOUT_THE_TREE) >= 10


@pytest.mark.parametrize(("text", "said"), SHELL, ids=[text.split("\n")[0][:50] for text, _ in SHELL])
def test_commands(text, said, place, demo_by_make):
    done = run(["bash", "-euo", "pipefail", "-c", text], place)
    assert done.returncode == 0, done.stderr
    for line in said.splitlines():
        assert line in done.stdout + done.stderr


@pytest.mark.parametrize(("text", "said"), PROGRAMS, ids=["read", "pipeline", "market"])
def test_programs(text, said, place):
    (place / "program.py").write_text(text)
    done = run([sys.executable, "program.py"], place)
    assert done.returncode == 0, done.stderr
    if "Moderator" in text:  # it says more than the README shows
        assert said
        assert set(said.splitlines()) <= set(done.stdout.splitlines())
    else:
        assert done.stdout == said


def test_dpkt_gives_the_same_answer():
    """The bytes by the lower port, of packets whose ports dpkt sees."""
    taken = Counter()
    with open(ROOT / "examples" / "office.pcapng", "rb") as file:
        for _, frame in dpkt.pcapng.Reader(file):
            packet = dpkt.ethernet.Ethernet(frame).data
            transport = getattr(packet, "data", None)
            if isinstance(transport, dpkt.tcp.TCP | dpkt.udp.UDP):
                taken[min(transport.sport, transport.dport)] += len(frame)
    ((_, said),) = [step for step in PROGRAMS if "bincount" in step[0]]
    assert dict(taken.most_common(3)) == eval(said)


@pytest.mark.parametrize("line", [line for line in ABOUT_THE_TREE if line.startswith("make ")])
def test_targets_of_make(line):
    """They are there and know what to do; to do it here would be to run this suite within itself."""
    done = run(["make", "-n", *line.split("#")[0].split()[1:]], ROOT)
    assert done.returncode == 0, done.stderr
    assert line.split()[1] in run(["make", "help"], ROOT).stdout


def test_demo_by_make(demo_by_make):
    started, place = demo_by_make
    assert started.wait(110) == 0, (place / "stderr").read_text()
    output = re.search(r"^Output: (.+)$", (place / "stdout").read_text(), re.MULTILINE)[1]
    assert (ROOT / output).stat().st_size > 1_000_000
    told = (place / "stdout").read_text()
    for words in BY_MAKE:
        assert words + "\n" in [text for kind, text, _ in steps() if kind == "sh"]
        assert words in run(["make", "-n", "demo"], ROOT).stdout
    assert "\nThe second block." in told
    assert "every invariant were checked: 0 broken" in told


def test_two_builds_are_compared(tmp_path):
    before, after = (line for line in ABOUT_THE_TREE if "pytest" in line)
    for line, words in ((before, "Saved benchmark data"), (after, "0001_before")):
        command = line.replace(".venv/bin/python", sys.executable).split()
        fast = ["--benchmark-storage", str(tmp_path), "--benchmark-max-time", "0.05", "--benchmark-min-rounds", "1"]
        done = run([*command, *fast], ROOT, BENCH_CAPTURE_BYTES="20_000_000")
        assert done.returncode == 0, done.stdout + done.stderr
        assert words in done.stdout + done.stderr


def test_live_commands_are_words_that_the_command_takes():
    from streamcore.command.cli import command_of
    from streamcore.command.flags import keys_given
    from streamcore.core.pipeline_file import make_config

    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "live.md").read_text()
    commands = re.findall(r"^    (?:sudo .venv/bin/)?streamcore run (.*?)(?:  +#.*)?$", text, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        make_config(None, keys_given(command_of("run")[1].parse_args(shlex.split(command))))
