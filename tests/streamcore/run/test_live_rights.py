"""The rights of a live run: what it needs, what it keeps, and what it says where they lack. Looked up in /proc."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from streamcore.core.errors import UsageError
from streamcore.run.privileges import become
from tests.streamcore.conftest import COMMAND, MARK, children, kill, read_pcap, udp_frame

# New processes, for the rights and the names of programs are looked at.
pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.new_processes]
NOBODY = pwd.getpwnam("nobody").pw_uid
WRITE_ANYWHERE = 1 << 1  # CAP_DAC_OVERRIDE
NEEDED = [Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[3], Path(os.__file__)]

# Shows "$@" the directory $1 empty but for what is in it of the other paths, up to "--": for this process alone.
OPEN_UP = """
closed=$1; shift; hold=$(mktemp -d); mount --rbind "$closed" "$hold"; mount -t tmpfs -o mode=755 none "$closed"
while [ "$1" != -- ]; do mkdir "$closed/$1"; mount --rbind "$hold/$1" "$closed/$1"; shift; done
shift; umount -l "$hold"; rmdir "$hold"; exec "$@"
"""


def readable_by_all(command):
    """The command, with the way to Python and to us open to everybody, where it is not: in a home directory, say."""
    paths = {path.resolve() for path in NEEDED} | {Path(sys.executable).resolve()}
    closed = [p for path in paths for p in reversed(path.parents) if not p.stat().st_mode & 1]
    if not closed:
        return command
    (top,) = {each for each in closed if not any(parent in closed for parent in each.parents)}
    shown = sorted({path.relative_to(top).parts[0] for path in paths if path.is_relative_to(top)})
    return ["unshare", "--mount", "sh", "-euc", OPEN_UP, "sh", str(top), *shown, "--", *command]


@pytest.fixture
def directory():
    """A directory that everybody can reach, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="rights-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def status(path):
    return dict(line.split(":\t", 1) for line in Path(path, "status").read_text().splitlines())


def until(holds, seconds=20):
    deadline = time.monotonic() + seconds
    while not (held := holds()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
    return held


def start(namespace, *arguments, before=(), **more):
    environment = os.environ | dict([MARK.split("=")])
    command = [*COMMAND, "run", *map(str, arguments)]
    return namespace.start(*before, *command, env=environment, stderr=subprocess.PIPE, **more)


def workers(pid):
    """The workers of a run, once they are programs of their own."""
    found = []
    for child in children(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
            if b"streamcore.worker.local" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def check_rights(pid, kept, user):
    """Every thread of a run and of its workers."""
    for process in (pid, *workers(pid)):
        for task in Path(f"/proc/{process}/task").iterdir():
            told = status(task)
            for which in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
                assert int(told[which], 16) == (kept if which in ("CapEff", "CapPrm") else 0), (which, told)
            assert told["NoNewPrivs"] == "1"
            assert {int(number) for number in told["Uid"].split()} == {user}
            if user == NOBODY:
                assert "0" not in told["Groups"].split()


@pytest.mark.parametrize(
    ("before", "who", "kept", "user"),
    [
        ([], [], WRITE_ANYWHERE, 0),
        ([], ["--user", "nobody"], 0, NOBODY),
        (["setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all"], [], 0, 0),  # as in a container
        (
            ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs",
             "--bounding-set=-all,+net_raw", "--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw"],
            [], 0, NOBODY,
        ),  # as systemd starts it
    ],
    ids=["root", "root and a user", "a container's root", "a service"],
)  # fmt: skip
def test_rights_are_given_up_and_packets_come_all_the_same(pair, directory, before, who, kept, user):
    directory.chmod(0o777 if user else 0o755)
    left, right = pair
    output = directory / "out.pcap"
    command = ["-i", "far", "-w", output, "-n", 2, "--metrics", "127.0.0.1:0", "--count", 100, *who]
    run = start(right, *command, before=readable_by_all(before) if user else before)
    try:
        until(lambda: len(workers(run.pid)) == 2)
        check_rights(run.pid, kept, user)
        old = set(workers(run.pid))
        assert kill(min(old))
        until(lambda: len(set(workers(run.pid)) - old) == 1)  # also whoever comes later
        check_rights(run.pid, kept, user)
        with left.entered():
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with sender:
            sender.bind(("near", 0))
            for number in range(100):
                sender.send(udp_frame(number, number))
        _, words = run.communicate(timeout=20)
        assert run.returncode == 0, words
        assert len(read_pcap(output)) == 100
        assert output.stat().st_uid == user
    finally:
        run.kill()
        run.communicate()


def test_without_it_one_line_says_what_to_type(pair, tmp_path):
    output = tmp_path / "out.pcap"
    run = start(pair[1], "-i", "far", "-w", output, before=["setpriv", "--bounding-set=-net_raw"])
    _, words = run.communicate(timeout=20)
    assert run.returncode == 1
    assert words.startswith("streamcore: cannot capture on far: this needs CAP_NET_RAW; type: sudo ")
    assert words.endswith(f" run --user root -i far -w {output}\n")
    assert len(words.splitlines()) == 1
    assert not output.exists()


def test_sigterm_ends_a_run_that_gave_its_rights_up(pair, tmp_path):
    run = start(pair[1], "-i", "far", "-w", tmp_path / "out.pcap", "-n", 1)
    until(lambda: workers(run.pid))
    run.send_signal(signal.SIGTERM)
    _, words = run.communicate(timeout=20)
    assert run.returncode == 130, words


def test_a_user_that_cannot_be_had():
    with pytest.raises(UsageError, match="there is no user 'no-such-user' on this machine"):
        become("no-such-user")
    become(pwd.getpwuid(os.getuid()).pw_name)  # who we are already
    code = (
        "import os; os.setuid(65534); from streamcore.run.privileges import become\n"
        "try: become('root')\nexcept Exception as error: print(error)"
    )
    command = readable_by_all([sys.executable, "-c", code]) if os.getuid() == 0 else None
    if command is None:
        pytest.skip("only root can become somebody who is not root")
    told = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert told.stdout == "cannot continue as 'root': only a run started as root can\n", told.stderr


def test_user_is_for_live_interfaces(tmp_path):
    command = [*COMMAND, "run", "-r", "in.pcap", "-w", str(tmp_path / "out.pcap"), "--user", "nobody"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (told.returncode, "user has no effect in this run: it is for live interfaces" in told.stderr) == (2, True)


def test_an_interface_that_is_made_anew_is_heard_without_any_right(pair, tmp_path):
    left, right = pair
    run = start(right, "-i", "far", "-w", tmp_path / "out.pcap", "-n", 1, "--count", 1)
    try:
        until(lambda: workers(run.pid))
        left.run("ip", "link", "delete", "near")
        left.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", right.pid)
        right.set_link("far", "up")
        left.set_link("near", "up")
        with left.entered():
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with sender:
            sender.bind(("near", 0))
            deadline = time.monotonic() + 20
            while run.poll() is None and time.monotonic() < deadline:
                sender.send(udp_frame(0, 0))
                time.sleep(0.1)
        assert run.poll() == 0
    finally:
        run.kill()
        run.communicate()


def test_rights_are_given_up_between_two_interfaces_too(bump):
    run = start(bump[1], "-i", "west", "-o", "east", "--both", "-n", 2, "--service", "count")
    try:
        until(lambda: len(workers(run.pid)) == 2)
        check_rights(run.pid, WRITE_ANYWHERE, 0)
    finally:
        run.terminate()
        _, words = run.communicate(timeout=20)
    assert run.returncode == 130, words
