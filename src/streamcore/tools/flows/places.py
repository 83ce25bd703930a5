"""Collectors as places to write to: udp://HOST:PORT, where each write is a datagram, and tcp://HOST:PORT."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from streamcore.core.errors import SinkError, UsageError
from streamcore.core.rules import HOST_PORT

BURST, PAUSE_S = 32, 0.002  # datagrams sent in a row, and the pause after them, in which the collector's socket drains
CONNECT_S = 10.0


def is_place(out: str) -> bool:
    return out.startswith(("udp://", "tcp://"))


class Collector:
    """What is written goes to a socket, whole or with an OSError."""

    def __init__(self, connection: socket.socket, is_datagrams: bool) -> None:
        self.is_datagrams = is_datagrams
        self._connection, self._sent = connection, 0

    def write(self, raw: bytes) -> None:
        self._connection.sendall(raw)
        self._sent += 1
        if self.is_datagrams and self._sent % BURST == 0:
            time.sleep(PAUSE_S)


@contextmanager
def connected(out: str) -> Iterator[Collector]:
    """A connection to the collector that `out` names. Raises UsageError, SinkError."""
    if not HOST_PORT.fullmatch(out[6:]) or out.endswith("*"):
        raise UsageError(f"{out} is no collector: write udp://HOST:PORT or tcp://HOST:PORT")
    host, _, port = out[6:].rpartition(":")
    kind = socket.SOCK_DGRAM if out.startswith("udp") else socket.SOCK_STREAM
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host.strip("[]"), int(port), type=kind)
        with socket.socket(family, kind) as connection:
            connection.settimeout(CONNECT_S)
            connection.connect(address)
            yield Collector(connection, kind == socket.SOCK_DGRAM)
    except (OSError, OverflowError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SinkError(f"cannot send to {out}: {words.lower()}") from None
