"""Real programs that talk from one namespace to another: HTTP, SSH, SIP with RTP, DNS. Each is started on the server's
side and spoken to from the client's; each speaker returns what is to be compared with what.

What stands between the two namespaces is not known here.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dpkt

from tests.streamcore.namespaces import Namespace

SERVER = "10.9.0.2"
HTTP_PORT, SSH_PORT, SIP_PORT, RTP_PORT = 8080, 2222, 5060, 7000
PROGRAMS = ("curl", "ssh", "sshd", "ssh-keygen", "sipp", "dnsmasq")
VOICE = Path("/usr/share/sip-tester/g711a.pcap")
NAMES, ASK_AGAIN_S, ASKED_MAX = 40, 1.0, 15

# A caller: the voice of VOICE for [pause] milliseconds, then it hangs up. What is lost is sent again (RFC 3261 17).
CALLER = """<?xml version="1.0" encoding="UTF-8" ?>
<scenario name="a call with a voice">
  <send retrans="500"><![CDATA[
INVITE sip:bob@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:alice@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:bob@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:alice@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

v=0
o=alice 1 1 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 8
a=rtpmap:8 PCMA/8000
  ]]></send>
  <recv response="100" optional="true"/>
  <recv response="180" optional="true"/>
  <recv response="200" rtd="true"/>
  <send><![CDATA[
ACK sip:bob@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:alice@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:bob@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0
  ]]></send>
  <nop><action><exec play_pcap_audio="VOICE"/></action></nop>
  <pause milliseconds="PAUSE"/>
  <send retrans="500"><![CDATA[
BYE sip:bob@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:alice@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:bob@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 2 BYE
Max-Forwards: 70
Content-Length: 0
  ]]></send>
  <recv response="200" crlf="true"/>
</scenario>
"""

SSHD = """
Port 2222
ListenAddress 10.9.0.2
HostKey {0}/host
AuthorizedKeysFile {0}/client.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin prohibit-password
"""


def missing() -> list[str]:
    """The programs that are not installed here."""
    return [name for name in PROGRAMS if shutil.which(name) is None] + ([] if VOICE.exists() else ["sip-tester"])


@contextlib.contextmanager
def started(where: Namespace, *command: object, **more: object) -> Iterator[subprocess.Popen[str]]:
    """A program that runs meanwhile."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | more
    process = where.start(*command, **quiet)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Http:
    """A download, held to a rate so that it lasts."""

    def __init__(self, directory: Path, size: int, bytes_per_s: int) -> None:
        self.directory, self.rate = directory, bytes_per_s
        content = (hashlib.sha512(str(size).encode()).digest() * (size // 64 + 1))[:size]
        shared = directory / "shared"
        shared.mkdir()
        (shared / "file").write_bytes(content)
        self.digest = hashlib.sha256(content).hexdigest()

    def serve(self, right: Namespace) -> contextlib.AbstractContextManager[object]:
        return started(right, "python3", "-m", "http.server", "-b", SERVER, HTTP_PORT, "-d", self.directory / "shared")

    def speak(self, left: Namespace) -> str:
        """ "" when the file arrived as it is; otherwise what is wrong."""
        command = left.command(
            "curl", "-sS", "--limit-rate", self.rate, "--retry", 5, "--retry-connrefused", "--max-time", 300,
            f"http://{SERVER}:{HTTP_PORT}/file",
        )  # fmt: skip
        taken = hashlib.sha256()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            assert run.stdout
            assert run.stderr
            while piece := run.stdout.read(1 << 16):
                taken.update(piece)
            words = run.stderr.read().decode()
        if run.returncode:
            return f"curl: {words}"
        return "" if taken.hexdigest() == self.digest else "the file is not what it was"


class Ssh:
    """A session: a line is typed, comes back from the other side, and only then the next."""

    def __init__(self, directory: Path, lines: int, pause_s: float) -> None:
        self.directory, self.lines, self.pause_s = directory / "ssh", lines, pause_s
        self.directory.mkdir()
        for name in ("host", "client"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.directory / name], check=True)
        (self.directory / "config").write_text(SSHD.format(self.directory))

    def serve(self, right: Namespace) -> contextlib.AbstractContextManager[object]:
        # /run/sshd must be there: on a file system of its own it is gone with the program.
        prepare = 'mount -t tmpfs tmpfs /run; mkdir /run/sshd; exec "$@"'
        daemon = [shutil.which("sshd"), "-D", "-f", self.directory / "config"]
        return started(right, "unshare", "--mount", "sh", "-c", prepare, "sh", *daemon)

    def speak(self, left: Namespace) -> str:
        command = left.command(
            "ssh", "-F", "none", "-i", self.directory / "client", "-p", SSH_PORT, "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ConnectionAttempts=5",
            "-o", "LogLevel=ERROR", f"root@{SERVER}", "cat",
        )  # fmt: skip
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as run:
            assert run.stdin
            assert run.stdout
            for number in range(self.lines):
                typed = f"line {number} of a session\n"
                try:
                    run.stdin.write(typed)
                    run.stdin.flush()
                except BrokenPipeError:
                    break
                if run.stdout.readline() != typed:
                    break
                time.sleep(self.pause_s)
            else:
                run.stdin.close()
                return "" if run.wait(60) == 0 else f"ssh ended with {run.returncode}"
            run.kill()
            assert run.stderr
            return f"line {number} did not come back: {run.stderr.read()}"


class Sip:
    """Calls by sipp, each with a voice. Signalling is repeated until it is heard; the voice is not: some may be lost.

    Who is called answers every request, however often it comes: sipp's own answering scenario is confused where an
    INVITE is repeated after its answer, and then hears no BYE.
    """

    def __init__(self, directory: Path, calls: int, pause_ms: int) -> None:
        self.calls, self.voice = calls, 0
        self.directory = directory / "sip"
        self.directory.mkdir()
        scenario = CALLER.replace("VOICE", str(VOICE)).replace("PAUSE", str(pause_ms))
        (self.directory / "caller.xml").write_text(scenario)

    @contextlib.contextmanager
    def serve(self, right: Namespace) -> Iterator[None]:
        with right.entered():
            called, ear = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        called.bind((SERVER, SIP_PORT))
        ear.bind((SERVER, RTP_PORT))
        ended = threading.Event()
        threads = [
            threading.Thread(target=self._answer, args=(called, ended)),
            threading.Thread(target=self._listen, args=(ear, ended)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()
            called.close()
            ear.close()

    def _listen(self, ear: socket.socket, ended: threading.Event) -> None:
        ear.settimeout(0.1)
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                self.voice += dpkt.rtp.RTP(ear.recv(2000)).pt == 8

    def _answer(self, called: socket.socket, ended: threading.Event) -> None:
        called.settimeout(0.1)
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                message, caller = called.recvfrom(4000)
                request = dpkt.sip.Request(message)
                if request.method in ("INVITE", "BYE"):
                    called.sendto(answer_to(request), caller)

    def speak(self, left: Namespace) -> str:
        run = subprocess.run(
            left.command(
                "sipp", "-sf", self.directory / "caller.xml", "-i", "10.9.0.1", "-p", SIP_PORT, "-mp", RTP_PORT,
                "-m", self.calls, "-r", 1, "-rp", 500, "-nostdin", "-timeout", 120, "-recv_timeout", 40_000,
                "-trace_err", "-error_file", self.directory / "errors",
                f"{SERVER}:{SIP_PORT}",
            ),
            cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150,
        )  # fmt: skip
        errors = self.directory / "errors"
        words = errors.read_text(errors="replace") if errors.exists() else run.stdout[-1500:]
        return "" if run.returncode == 0 else f"sipp ended with {run.returncode}: {words}"


def answer_to(request: dpkt.sip.Request) -> bytes:
    """200 OK (RFC 3261 8.2.6); to an INVITE, with where the voice is to go (RFC 3264)."""
    told = {name: request.headers[name.lower()] for name in ("Via", "From", "To", "Call-ID", "CSeq")}
    if ";tag=" not in told["To"]:
        told["To"] += f";tag=called-{told['Call-ID'].partition('@')[0]}"
    session = ""
    if request.method == "INVITE":
        told |= {"Contact": f"<sip:{SERVER}:{SIP_PORT}>", "Content-Type": "application/sdp"}
        where = f"c=IN IP4 {SERVER}\r\nt=0 0\r\nm=audio {RTP_PORT} RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n"
        session = f"v=0\r\no=bob 1 1 IN IP4 {SERVER}\r\ns=-\r\n{where}"
    told["Content-Length"] = str(len(session))
    return "\r\n".join(["SIP/2.0 200 OK", *(f"{name}: {value}" for name, value in told.items()), "", session]).encode()


class Dns:
    """Look-ups one after another; a question that is not answered is asked again, as a resolver does."""

    def __init__(self, directory: Path, pause_s: float) -> None:
        self.pause_s = pause_s
        self.asked_again = 0

    def serve(self, right: Namespace) -> contextlib.AbstractContextManager[object]:
        return started(
            right, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=",
            "--user=root", "--bind-interfaces", f"--listen-address={SERVER}",
            "--synth-domain=example.test,192.0.2.0/24,host-",
        )  # fmt: skip

    def speak(self, left: Namespace) -> str:
        with left.entered():
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with asking:
            asking.settimeout(ASK_AGAIN_S)
            asking.connect((SERVER, 53))
            for number in range(NAMES):
                if wrong := self._look_up(asking, number):
                    return wrong
                time.sleep(self.pause_s)
        return ""

    def _look_up(self, asking: socket.socket, number: int) -> str:
        name = f"host-192-0-2-{number + 1}.example.test"
        question = dpkt.dns.DNS(id=number + 1, qd=[dpkt.dns.DNS.Q(name=name, type=dpkt.dns.DNS_A)])
        question.qr, question.rd = 0, 1
        deadline = time.monotonic() + ASKED_MAX * ASK_AGAIN_S
        while time.monotonic() < deadline:
            try:
                asking.send(bytes(question))
                answer = dpkt.dns.DNS(asking.recv(2000))
            except (TimeoutError, OSError):
                self.asked_again += 1
                time.sleep(0.1)
                continue
            if answer.id == number + 1:  # or it is late, and its question was asked again
                addresses = [socket.inet_ntoa(each.ip) for each in answer.an]
                return "" if addresses == [f"192.0.2.{number + 1}"] else f"{name}: {addresses}"
        return f"{name}: no answer"


def converse(left: Namespace, right: Namespace, programs: dict[str, Http | Ssh | Sip | Dns]) -> dict[str, str]:
    """Let them all speak at once: {name: what is wrong, "" where nothing is}."""
    told: dict[str, str] = dict.fromkeys(programs, "it did not end")

    def speak(name: str) -> None:
        try:
            told[name] = programs[name].speak(left)
        except Exception as error:
            told[name] = repr(error)

    with contextlib.ExitStack() as stack:
        for program in programs.values():
            stack.enter_context(program.serve(right))
        wait_for_servers(right)
        threads = [threading.Thread(target=speak, args=(name,), daemon=True) for name in programs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(330)
    return told


def wait_for_servers(right: Namespace, seconds: float = 15.0) -> None:
    """Until all of them listen."""
    address = struct.unpack("=I", socket.inet_aton(SERVER))[0]
    wanted = {("tcp", HTTP_PORT), ("tcp", SSH_PORT), ("udp", SIP_PORT), ("udp", 53)}
    deadline = time.monotonic() + seconds
    while True:
        bound = set()
        for protocol in ("tcp", "udp"):
            for line in Path(f"/proc/{right.pid}/net/{protocol}").read_text().splitlines()[1:]:
                where, _, port = line.split()[1].partition(":")
                if int(where, 16) == address:
                    bound.add((protocol, int(port, 16)))
        if wanted <= bound:
            return
        assert time.monotonic() < deadline, f"these do not listen: {wanted - bound}"
        time.sleep(0.05)
