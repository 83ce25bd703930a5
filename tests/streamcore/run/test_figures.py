"""What a run shows of itself while it lasts: a line every second, the account on SIGUSR1, figures for Prometheus."""

import json
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from streamcore.core.counters import DURATION_BOUNDS_S, Counters, Histogram
from streamcore.core.errors import UsageError
from streamcore.observe import metrics
from streamcore.observe.progress import each_second
from streamcore.run import figures
from streamcore.run.accounting import WorkerShare
from tests.streamcore.conftest import finish_run, start_run, udp_frame, write_pcap
from tests.streamcore.observe.test_progress import terminal  # noqa: F401  a fixture


def test_a_histogram_counts_between_its_bounds():
    taken = Histogram()
    for seconds in (0.0, 1e-4, 1.1e-4, 0.5, 11.0):
        taken.observe(seconds)
    assert sum(taken.counts) == 5
    assert taken.counts[0] == 2  # a bound belongs to what is below it
    assert taken.counts[1] == 1
    assert taken.counts[DURATION_BOUNDS_S.index(0.5)] == 1
    assert taken.counts[-1] == 1
    assert taken.sum_s == pytest.approx(11.50021)


def look(seconds, read, written, dropped=0, latency_s=()):
    counters = Counters()
    counters.count("kernel.dropped", dropped, 0)
    counters.count("source.read", read, 100 * read)
    counters.count("sink.written", written, 100 * written)
    delivery = Histogram()
    for each in latency_s:
        delivery.observe(each)
    worker = figures.WorkerFigures(WorkerShare(0, 1, 2, 3, 0.5, 0), True, 1, 100)
    return figures.Figures(seconds, counters, {"segments waiting": 4}, (worker,), {"delivery": delivery})


def test_a_line_tells_what_happened_between_two_looks():
    before, now = look(1.0, 1_000, 900, 5, [1.0]), look(3.0, 21_000, 10_900, 15, [1.0, 0.001, 0.003])
    assert figures.line(before, now) == (
        "in 10,000/s 1.0 MB/s  out 5,000/s  dropped 15 (+10)  waiting 4 segments  workers 1  latency 2.0 ms"
    )
    assert "latency" not in figures.line(now, now)


class Looked:
    """A run that reads 1,000 packets between two looks."""

    def __init__(self):
        self.looks = 0

    def look(self):
        self.looks += 1
        return look(float(self.looks), 1_000 * self.looks, 1_000 * self.looks)


def test_a_line_every_second_on_a_terminal(terminal):  # noqa: F811
    assert terminal() == ""
    begin_s, shown = time.monotonic(), ""
    with each_second(Looked(), True):
        while shown.count("\n") < 2:
            assert time.monotonic() - begin_s < 30
            shown += terminal()
    lines = (shown + terminal()).splitlines()
    assert 2 <= len(lines) <= time.monotonic() - begin_s
    assert all(re.match(r"\d\d:\d\d:\d\d  in 1,000/s 0.1 MB/s  out 1,000/s  dropped 0 ", line) for line in lines)
    with each_second(Looked(), False):
        time.sleep(1.2)
    assert terminal() == ""


def asked(url):
    """{name with labels: value} as Prometheus would read it."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_what_prometheus_reads():
    counters = Counters()
    counters.count("source.read", 10, 1_000)
    counters.count("segment.cut", 10, 1_000)
    counters.count("sink.written", 6, 600)
    counters.count("service.too_old", 1, 100)
    counters.bump("workers.lost", 2)
    taken = Histogram()
    for seconds in (0.0001, 0.03, 99.0):
        taken.observe(seconds)
    share = WorkerShare(slot=1, segments=7, packets=8, bytes=9, busy_s=0.25, failed=3)
    shown = figures.Figures(
        4.0, counters, {"segments out": 5}, (figures.WorkerFigures(share, True, 2, 222),), {"dispersal": taken}
    )

    class Still:
        def look(self):
            return shown

    with metrics.serving(Still(), "127.0.0.1:0") as url:
        told = asked(url)
    assert told['streamcore_packets_total{stage="source.read"}'] == 10
    assert told['streamcore_bytes_total{stage="sink.written"}'] == 600
    assert not any("_bytes_total{" in name and "kernel." in name for name in told)  # the kernel counts packets alone
    assert told['streamcore_dropped_packets_total{reason="service.too_old"}'] == 1
    assert told['streamcore_dropped_packets_total{reason="kernel.dropped"}'] == 0
    assert told['streamcore_events_total{event="workers.lost"}'] == 2
    assert told["streamcore_packets_under_way"] == 3
    assert told['streamcore_queue_depth{queue="segments_out"}'] == 5
    assert told['streamcore_worker_busy_seconds_total{worker="1"}'] == 0.25
    assert told['streamcore_worker_bytes_out{worker="1"}'] == 222
    assert told['streamcore_dispersal_seconds_bucket{le="0.0001"}'] == 1
    assert told['streamcore_dispersal_seconds_bucket{le="0.05"}'] == 2
    assert told['streamcore_dispersal_seconds_bucket{le="+Inf"}'] == told["streamcore_dispersal_seconds_count"] == 3
    assert told["streamcore_dispersal_seconds_sum"] == pytest.approx(99.0301)
    with pytest.raises(urllib.error.URLError):  # nobody serves it any more
        asked(url)


def test_an_address_that_is_taken_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"cannot serve metrics at {address}: address already in use"):
            metrics.serving(Looked(), address).__enter__()


def slow_run(tmp_path, *more, packets=200):
    """A run over a pipe that stays open after so many packets: it lasts until the pipe is closed."""
    capture = write_pcap(tmp_path / "in.pcap", [udp_frame(i % 5, i) for i in range(packets)])
    run = start_run("-r", "-", "-w", tmp_path / "out.pcap", "-n", 1, *more, stdin=subprocess.PIPE, text=False)
    run.stdin.write(capture.read_bytes())
    run.stdin.flush()
    return run


def follow(stream):
    """(lines so far, thread): what a process says, line by line."""
    lines = []
    thread = threading.Thread(target=lambda: [lines.append(line.decode()) for line in stream], daemon=True)
    thread.start()
    return lines, thread


def until(holds, seconds=20):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


@pytest.mark.usefixtures("nothing_left")
def test_prometheus_and_the_account_agree_while_a_run_lasts(tmp_path):
    run = slow_run(tmp_path, "--metrics", "127.0.0.1:0", "--json")
    errors, reading = follow(run.stderr)
    lines, listening = follow(run.stdout)
    try:
        until(lambda: errors)
        url = errors[0].split()[-1]
        until(lambda: asked(url).get('streamcore_packets_total{stage="sink.written"}') == 200)
        told = asked(url)
        assert told['streamcore_packets_total{stage="source.read"}'] == 200
        assert told['streamcore_worker_packets_total{worker="0"}'] == 200
        assert told['streamcore_worker_up{worker="0"}'] == 1
        assert told["streamcore_dispersal_seconds_count"] >= 1
        assert told['streamcore_queue_depth{queue="segments_under_way"}'] == 0
        run.send_signal(signal.SIGUSR1)
        until(lambda: lines)
        so_far = json.loads(lines[0])
        assert so_far["packets"] == {"read": 200, "written": 200, "dropped": {}}
        assert so_far["under_way"] == 0
        assert "exit_status" not in so_far
    finally:
        run.stdin.close()
    assert run.wait(20) == 0
    reading.join()
    listening.join()
    assert json.loads(lines[-1])["exit_status"] == 0


@pytest.mark.usefixtures("nothing_left")
def test_the_account_on_sigusr1_in_words(tmp_path):
    run = slow_run(tmp_path)
    errors, reading = follow(run.stderr)
    try:
        until(lambda: (tmp_path / "out.pcap").exists() and (tmp_path / "out.pcap").stat().st_size > 200 * 60)
        for _ in range(20):  # none of them ends it, or stops it
            run.send_signal(signal.SIGUSR1)
        until(lambda: sum("worker 0:" in line for line in errors) >= 1)
    finally:
        run.stdin.close()
    assert finish_run_status(run) == 0
    reading.join()
    assert any(line.startswith("200 packets read, 200 written") for line in errors)
    assert "  0 under way\n" in errors


def finish_run_status(run):
    run.stdout.read()
    return run.wait(20)


def test_metrics_must_be_an_address(tmp_path):
    done = finish_run(start_run("-r", tmp_path / "none", "-w", tmp_path / "out", "--metrics", "9100"))
    assert (done.status, done.stderr) == (2, "streamcore: metrics must be HOST:PORT, not '9100'\n")
