"""The command: flags, exit statuses, which stream carries what, and a terminal."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamcore.command import cli
from streamcore.command.cli import COMMANDS, command_of
from streamcore.core.config import Config
from streamcore.core.keys import plain
from tests.streamcore.conftest import COMMAND, udp_frame, write_pcap

OFFICE = Path(__file__).parents[3] / "examples" / "office.pcapng"

pytestmark = pytest.mark.usefixtures("nothing_left")


def command(*arguments, **more):
    more = {"capture_output": True, "text": True, "timeout": 60, "stdin": subprocess.DEVNULL} | more
    return subprocess.run([*COMMAND, *map(str, arguments)], **more)


def one_line(run, status):
    """The only line of a command that failed."""
    assert run.returncode == status, run.stderr
    (line,) = run.stderr.splitlines()
    assert "Traceback" not in line
    return line


def test_help_names_every_command_and_every_command_has_help():
    told = command("--help")
    assert told.returncode == 0
    for name in COMMANDS:
        assert re.search(rf"^ +{name} ", told.stdout, re.MULTILINE)
        assert command(name, "--help").stdout.startswith(f"usage: streamcore {name}")


def test_every_file_with_a_command_has_its_row():
    files = Path(cli.__file__).parent.glob("*.py")
    assert {
        file.stem for file in files if "\ndef execute(arguments: argparse.Namespace" in file.read_text()
    } == COMMANDS.keys()


def test_a_pipeline_file_is_checked_for_the_command_that_takes_it(tmp_path):
    file = tmp_path / "flows.toml"
    file.write_text("flows_max = 300\n")
    assert "flows_max has no effect in 'streamcore run'" in one_line(command("check", "--config", file), 2)
    run = command("check", "--config", file, "--for", "flows")
    assert (run.returncode, run.stdout) == (0, f"{file}: right for 'streamcore flows'\n")


def test_help_and_config_load_nothing_heavy():
    code = (
        "import sys; from streamcore.core.config import Config; Config();"
        "from streamcore.command.cli import COMMANDS, command_of, top_parser; top_parser().format_help();"
        "[command_of(name)[1].format_help() for name in COMMANDS];"
        "print([m for m in ('numpy', 'zmq', 'rich', 'cypcap', 'lz4', 'zstandard') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_commands_without_keys_do_not_load_the_table_of_keys():
    code = (
        "import sys; from streamcore.command.cli import COMMANDS, command_of, top_parser; top_parser().format_help();"
        "[command_of(name)[1].format_help() for name in COMMANDS if name not in ('run', 'packets', 'flows')];"
        "print([m for m in ('msgspec', 'streamcore.core.config') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_every_flag_of_run_is_a_key_under_the_same_name():
    _, run = command_of("run")
    flags = {action.dest for action in run._actions}
    not_keys, not_flags = {"help", "config", "expression_file"}, {"stream", "market", "subcontract", "flows_max"}
    not_flags |= {"idle_s", "active_s", "whole", "first_packets"}  # of `flows` alone
    assert flags - not_keys == set(Config.__struct_fields__) - not_flags
    for action in run._actions:
        for flag in action.option_strings:
            if flag.startswith("--") and action.dest not in not_keys:
                assert flag.removeprefix("--").removeprefix("no-").replace("-", "_") == plain(action.dest)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a command: run, packets"),
        (["frobnicate"], "there is no command 'frobnicate'"),
        (["run"], "say what to read and where to write: streamcore run -r IN.pcap -w OUT.pcap"),
        (["run", "-r", "in.pcap"], "say what to read and where to write"),
        (["run", "-r", "in.pcap", "-w", "out.pcap", "-i", "eth0"], "read and interface are both set"),
        (["run", "-r", "in.pcap", "-w", "out.pcap", "--rings", "5"], "rings has no effect in this run: it is for live"),
        (["run", "-i", "eth0", "-w", "out.pcap", "--from", "5"], "from has no effect in this run: it is for captures"),
        (["run", "-i", "eth0", "-i", "any", "-w", "out.pcap"], "interface any is all interfaces"),
        (["run", "-r", "-", "-r", "-", "-w", "out.pcap"], "- is named twice"),
        (["run", "-nn", "-r", "in.pcap", "-w", "out.pcap"], "-nn: addresses and ports are never turned into names"),
        (["run", "-r", "in.pcap", "-n", "-w", "out.pcap"], "-n: addresses and ports are never turned into names"),
        (["run", "-i", "eth0", "-n", "tcp"], "-n: addresses and ports are never turned into names"),
        (["run", "-r", "in.pcap", "-vvXX"], "-vvXX: no packets are printed"),
        (["packets", "-r", "in.pcap", "-e"], "-e: no packets are printed"),
        (["run", "-D"], "-D: 'ip link' lists the interfaces"),
        (["run", "-i", "eth0", "-w", "out.pcap", "-U"], "-U: a live packet is written 100 ms after"),
        (["run", "-r", "in.pcap", "-F", "no-such-file", "-w", "out.pcap"], "-F: cannot read no-such-file"),
        (["run", "-r", "in.pcap", "-F", "f", "-w", "out.pcap", "tcp"], "-F and an expression are both given"),
        (["packets", "-r", "in.pcap", "--tsv", "-", "--inputs", "chain"], "inputs has no effect with one capture"),
        (["run", "-i", "eth0", "-w", "out.pcap", "-o", "eth1"], "write and output_interface are both set"),
        (["run", "-i", "any", "-o", "eth1"], "interface any would capture again what eth1 sends"),
        (["run", "-r", "in.pcap", "-w", "-", "--json"], "--json and -w - both use standard output"),
        (
            ["run", "-r", "in.pcap", "-w", "out.pcap", "-n", "2.5"],
            "workers must be a whole number from 0 to 256, not '2.5'",
        ),
        (["run", "-r", "in.pcap", "-w", "out.pcap", "-n", "0"], "no worker could process the packets"),
        (
            ["run", "-r", "in.pcap", "-w", "out.pcap", "--policy", "best"],
            "policy must be flow, run or time, not 'best'",
        ),
        (["run", "-r", "in.pcap", "-w", "out.pcap", "--service", "nosuch"], "there is no service 'nosuch'"),
        (["run", "-r", "in.pcap", "-w", "out.pcap", "--service", "slice:bites=3"], "slice has no option 'bites'"),
        (
            ["run", "-r", "in.pcap", "-w", "out.pcap", "--config", "nosuch.toml"],
            "nosuch.toml: cannot read the pipeline file",
        ),
        (
            ["run", "-r", "in.pcap", "-w", "out.pcap", "--listen", "tcp://127.0.0.1:1"],
            "listen needs key and worker_keys",
        ),
        (["check", "--config", "nosuch.toml"], "nosuch.toml: cannot read the pipeline file: no such file or directory"),
        (["run", "-r", "in.pcap", "-w", "out.pcap", "-c", "pipeline.toml"], "count must be a whole number from 0 to"),
        (["run", "--flows-max", "300"], "unrecognized arguments: --flows-max"),
        (["flows"], "say what to read: streamcore flows -r IN.pcap"),
        (["-q", "run"], "there is no option -q"),
        (["keys", "me", "/proc/nosuch"], "/proc/nosuch"),
    ],
)
def test_wrong_usage_is_one_line_and_2(arguments, words, tmp_path):
    run = command(*arguments, cwd=tmp_path)
    assert words in one_line(run, 2)
    assert run.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_expression_shows_where(tmp_path):
    run = command("run", "-r", OFFICE, "-w", tmp_path / "out.pcap", "tcp", "prt", "443")
    assert run.returncode == 2
    first, expression, mark = run.stderr.splitlines()
    assert first.startswith("streamcore: bad filter: ")
    assert expression == "tcp prt 443"
    assert mark.strip() == "^"
    assert expression[mark.index("^") - 1 :].startswith(("prt", " prt"))
    assert list(tmp_path.iterdir()) == []


def test_words_of_an_expression_make_one_filter(tmp_path):
    run = command("run", "-r", OFFICE, "-w", tmp_path / "out.pcapng", "--json", "tcp", "port", "443")
    assert run.returncode == 0
    told = json.loads(run.stdout.splitlines()[-1])
    # examples/README.md, counted by tshark: 307 of IPv4 and 166 of IPv6
    assert told["packets"] == {"read": 2846, "written": 473, "dropped": {"filter.not_matched": 2373}}
    assert "2,373 dropped: did not match the expression" in run.stderr


def test_standard_output_is_json_alone_or_data_alone(tmp_path):
    run = command("run", "-r", OFFICE, "-w", tmp_path / "out.pcapng", "--json", "-v")
    (line,) = run.stdout.splitlines()
    told = json.loads(line)
    assert {"schema", "packets", "bytes", "segments", "workers", "seconds", "exit_status"} <= told.keys()
    assert set(told["segments"]) == {"dispersed", "resent", "discarded", "dead_lettered"}
    assert {"started", "lost"} <= set(told["workers"])
    assert "worker 0:" in run.stderr
    piped = command("run", "-r", OFFICE, "-w", "-", text=False)
    assert piped.returncode == 0
    assert piped.stdout == (tmp_path / "out.pcapng").read_bytes()


def test_quiet_says_nothing_unless_something_is_wrong(tmp_path):
    run = command("run", "-r", OFFICE, "-w", tmp_path / "out.pcapng", "-q")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    cut = tmp_path / "cut.pcapng"
    cut.write_bytes(OFFICE.read_bytes()[:20_000])
    run = command("run", "-r", cut, "-w", tmp_path / "out.pcapng", "-q")
    assert run.returncode == 3
    assert "the input is damaged: at byte" in run.stderr


def test_the_file_says_what_the_flags_do_not(tmp_path):
    file = tmp_path / "pipeline.toml"
    file.write_text(
        f'read = "{OFFICE}"\nwrite = "{tmp_path}/out.pcap"\nfilter = "udp"\njson = true\nservice = ["slice:60"]\n'
    )
    run = command("run", "--config", file, "tcp")
    told = json.loads(run.stdout)
    assert told["packets"]["dropped"] == {"filter.not_matched": 2846 - told["packets"]["written"]}
    assert 913 <= told["packets"]["written"] < 950  # TCP: examples/README.md; and fragments that libpcap cannot tell
    assert "slice:60, policy flow, order total" in command("check", "--config", file).stdout


def test_check_prints_services_with_their_options_and_no_secret(tmp_path):
    file = tmp_path / "pipeline.toml"
    file.write_text(
        f"""read = "{OFFICE}"
write = "{tmp_path}/out.pcap"
service = [{{name = "anonymise", mac = "zero", key = "{"ab" * 32}"}}, "decapsulate:kinds=vxlan+gre,depth=1"]
[[stream]]
name = "web"
select = "tcp port 80"
service = ["slice:64"]
"""
    )
    told = command("check", "--config", file).stdout
    assert "anonymise:mac=zero,key=(given) -> decapsulate:kinds=vxlan+gre,depth=1, policy" in told
    assert "stream web: slice:64, tcp port 80" in told
    assert "abab" not in told


def test_an_error_with_json_says_how_far_it_came(tmp_path):
    run = command("run", "-r", tmp_path / "nosuch.pcap", "-w", tmp_path / "out.pcap", "--json")
    line = one_line(run, 1)
    told = json.loads(run.stdout)
    assert line == f"streamcore: {told['error']}"
    assert (told["exit_status"], told["packets"]["read"]) == (1, 0)


def test_services_and_doctor_speak_json():
    named = {each["name"]: each for each in json.loads(command("services", "--json").stdout)["services"]}
    assert {"identity", "count", "slice", "dedup", "anonymise", "scan"} <= named.keys()
    assert named["slice"]["effect"] == "resize"
    run = command("doctor", "--json")
    states = {each["what"]: each["state"] for each in json.loads(run.stdout)["findings"]}
    assert run.returncode == 0
    assert states["native modules"] == states["shared memory"] == "ok"
    assert len(command("doctor").stdout.splitlines()) == len(states)


def test_keys_are_for_their_owner_alone(tmp_path):
    run = command("keys", "pipeline", tmp_path / "keys")
    public, secret = map(Path, run.stdout.split())
    assert secret.stat().st_mode & 0o777 == 0o600
    assert "public-key" in public.read_text()
    (code,) = re.findall(r'secret-key = "(.*)"', secret.read_text())
    assert code not in public.read_text()


def test_the_module_is_the_command():
    run = subprocess.run([Path(sys.executable).with_name("streamcore"), "--version"], capture_output=True, text=True)
    assert run.stdout == command("--version").stdout
    assert re.fullmatch(r"streamcore \d+\.\d+\.\d+\n", run.stdout)


def test_nobody_reads_the_output():
    read, write = os.pipe()
    os.close(read)
    run = command("services", stdout=write, capture_output=False, stderr=subprocess.PIPE)
    os.close(write)
    assert (run.returncode, run.stderr) == (-signal.SIGPIPE, "")
    with open("/dev/full", "w") as full:
        run = command("services", stdout=full, capture_output=False, stderr=subprocess.PIPE)
    assert one_line(run, 1) == "streamcore: cannot write standard output: no space left on device"


SLOW = f"{Path(__file__).parents[1] / 'services_for_tests.py'}:Slow:pause_ms=25"


def on_a_terminal(*arguments, interrupt_at=None):
    """Run with standard error on a terminal: (status, what it showed). interrupt_at: Ctrl-C where these bytes show."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(terminal)
    shown, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            shown += os.read(master, 65_536)
        except OSError:  # the other end is closed
            break
        if interrupt_at and re.search(interrupt_at, shown):
            process.send_signal(signal.SIGINT)
            interrupt_at = None
    os.close(master)
    process.communicate(timeout=30)
    return process.returncode, shown.decode()


@pytest.fixture
def capture(tmp_path):
    return write_pcap(tmp_path / "in.pcap", [udp_frame(i % 50, i) for i in range(4_000)])


def test_progress_shows_on_a_terminal_and_goes_away(capture, tmp_path):
    flags = ["run", "-r", capture, "-w", tmp_path / "out.pcap", "--service", SLOW, "--segment-packets", "50"]
    status, shown = on_a_terminal(*flags)
    assert status == 0
    assert re.search(r"\d+%.*4,000 packets", shown)
    assert "\x1b[?25h" in shown  # the cursor is back
    assert "\x1b[2K4,000 packets read, 4,000 written" in shown  # in place of the progress
    for quiet in ("-q", "--no-progress"):
        status, shown = on_a_terminal(*flags, quiet)
        assert status == 0
        assert "%" not in shown


def test_interrupted_on_a_terminal_it_ends_tidily(capture, tmp_path):
    flags = ["run", "-r", capture, "-w", tmp_path / "out.pcap", "--service", SLOW, "--segment-packets", "50"]
    status, shown = on_a_terminal(*flags, interrupt_at=rb"4,000 packets")
    assert status == 130
    assert shown.rstrip().splitlines()[-1] == "  interrupted"
    assert "\x1b[?25h" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_interrupt_stops_at_once(capture, tmp_path, number):
    slow = SLOW.replace("25", "1000")
    process = subprocess.Popen(
        [*COMMAND, "run", "-r", capture, "-w", tmp_path / "out.pcap", "--service", slow, "--segment-packets", "100",
         "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "out.pcap").exists() or (tmp_path / "out.pcap").stat().st_size < 100:
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP if number == signal.SIGTERM else number)
    time.sleep(0.3)
    assert process.poll() is None  # it drains: some twenty seconds
    process.send_signal(number)
    began_s = time.monotonic()
    stdout, stderr = process.communicate(timeout=30)
    assert time.monotonic() - began_s < 10
    assert process.returncode == 3
    told = json.loads(stdout)
    assert told["packets"]["dropped"]["pipeline.undelivered"] == 4_000 - told["packets"]["written"] > 0
    assert "read but not delivered before the run was stopped" in stderr


def interrupted(process, times=1):
    """Interrupt a run that stands still: (status, standard error)."""
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, stderr = process.communicate(timeout=10)
    return process.returncode, stderr


def start(*arguments, **more):
    more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    process = subprocess.Popen([*COMMAND, "run", *map(str, arguments)], **more)
    caught = re.compile(r"^SigCgt:\s*(\w+)", re.MULTILINE)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:  # until SIGTERM too is caught, which Python does not do by itself
        mask = int(caught.search(Path(f"/proc/{process.pid}/status").read_text())[1], 16)
        if mask >> (signal.SIGTERM - 1) & 1:
            break
        time.sleep(0.02)
    time.sleep(0.5)
    return process


def test_interrupted_while_nothing_comes(tmp_path):
    silent = start("-r", "-", "-w", tmp_path / "out.pcap", "--json", stdin=subprocess.PIPE)
    silent.send_signal(signal.SIGINT)
    stdout, stderr = silent.communicate(timeout=10)  # closes the pipe too late to matter
    assert (silent.returncode, stderr) == (130, "streamcore: interrupted\n")
    assert json.loads(stdout)["exit_status"] == 130
    os.mkfifo(tmp_path / "in.fifo")
    assert interrupted(start("-r", tmp_path / "in.fifo", "-w", tmp_path / "out.pcap"))[0] == 130
    assert not (tmp_path / "out.pcap").exists()


def test_interrupted_while_no_more_comes_it_delivers_what_came(tmp_path):
    with open(write_pcap(tmp_path / "in.pcap", [udp_frame(i, i) for i in range(50)]), "rb") as file:
        content = file.read()
    process = start("-r", "-", "-w", tmp_path / "out.pcap", "--json", stdin=subprocess.PIPE, text=False)
    process.stdin.write(content[:-3])
    process.stdin.flush()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130  # though its input stays open
    told = json.loads(process.stdout.read())
    process.stdin.close(), process.stdout.close(), process.stderr.close()
    assert told["packets"] == {"read": 49, "written": 49, "dropped": {}}


def test_interrupted_while_nobody_reads(tmp_path):
    os.mkfifo(tmp_path / "out.fifo.pcap")
    status, stderr = interrupted(start("-r", OFFICE, "-w", tmp_path / "out.fifo.pcap"), times=3)
    assert status == 130
    assert "Traceback" not in stderr


def test_a_terminal_is_no_capture(tmp_path):
    master, terminal = pty.openpty()
    run = command("run", "-r", "-", "-w", tmp_path / "out.pcap", stdin=terminal)
    assert (
        one_line(run, 1) == "streamcore: standard input is a terminal: pipe a capture into it, or name a file with -r"
    )
    run = command("run", "-r", OFFICE, "-w", "-", stdout=terminal, capture_output=False, stderr=subprocess.PIPE)
    assert one_line(run, 1) == "streamcore: standard output is a terminal: redirect it, or name a file with -w"
    os.close(master), os.close(terminal)


def test_a_service_that_prints_does_not_spoil_the_output():
    service = f"{Path(__file__).parents[1] / 'services_for_tests.py'}:Prints"
    plain = command("run", "-r", OFFICE, "-w", "-", "-q", text=False)
    run = command("run", "-r", OFFICE, "-w", "-", "-q", "--service", service, text=False)
    assert run.returncode == 0
    assert run.stdout == plain.stdout
    assert b"a service that prints" in run.stderr


def test_too_little_room_for_a_thread_is_one_line(monkeypatch, capsys):
    """Threads take address space, too; without a limit it is a fault of ours, which is shown whole."""

    def no_thread(arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(cli, "execute", no_thread)
    monkeypatch.setattr(cli, "limited", lambda: ": limited")
    with pytest.raises(SystemExit) as ended:
        cli.main(["flows"])
    assert (ended.value.code, capsys.readouterr().err) == (1, "streamcore: not enough memory: limited\n")
    monkeypatch.setattr(cli, "limited", lambda: "")
    with pytest.raises(RuntimeError):
        cli.main(["flows"])
