"""Served markets for tests: in a thread of this process, with a clock that stands still, or as a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from auction.moderator import Moderator
from auction.web.application import Server
from auction.web.handler import RequestHandler

OPERATOR = "o" * 64


@contextmanager
def served(moderator: Moderator, open_registration: bool = False) -> Iterator[str]:
    """Serves the market from a thread; yields its URL. The operator's token is OPERATOR."""
    ready, urls = threading.Event(), []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        async with Server(RequestHandler(moderator, OPERATOR, open_registration), "127.0.0.1", 0) as server:
            urls.append(f"http://127.0.0.1:{server.port}")
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
        assert not thread.is_alive()


def start_process(store_url: str, directory: Path, port: int = 0, *words: str) -> tuple[subprocess.Popen[str], str]:
    """`auction serve` as a process; returns it and its URL. The operator's token is in `directory`/operator."""
    (directory / "operator").write_text(OPERATOR)
    command = [sys.executable, "-m", "auction", "serve", "--json", "--store", store_url]
    command += ["--listen", f"127.0.0.1:{port}", "--operator-token-file", str(directory / "operator"), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the market ended with status {process.wait(20)}"
    return process, json.loads(line)["listening"]
