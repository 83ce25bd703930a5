"""Remote workers: they join over TCP with a CURVE key that the pipeline knows, and then hold leases like any peer.

The listening port is only for joining (ROUTER/DEALER). Each worker gets its segments through a separate PUSH socket, on
a port that admits only its key. Results arrive through one PULL socket. ZAP domains are enforced, and every socket has
one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable
from typing import Any

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from streamcore.core.errors import UsageError
from streamcore.core.packets import Arena
from streamcore.disperse.inline import DIGEST_KEY_BYTES, FramePool, Outlet, frame_bytes_max
from streamcore.disperse.known import KnownKeys
from streamcore.disperse.link import Link
from streamcore.disperse.peer import LEASES_MAX, Peer

DOMAIN = "streamcore"
PROTOCOL = 5
SILENCE_MS = 10_000  # a connection without a heartbeat for this time is dead; in a run lease_ms, if that is less
SILENCE_MS_MIN = 1000  # a busy machine may be that late with a heartbeat
HEARTBEATS = 5  # in the time after which silence counts
JOIN_BYTES_MAX = 4096
FRAMES = 2 * LEASES_MAX  # pieces of memory for frames under way to all remote workers


def keep_alive(socket: zmq.Socket[bytes], silence_ms: int = SILENCE_MS) -> None:
    """Ends a connection whose other end has not answered a heartbeat for silence_ms."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, silence_ms // HEARTBEATS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, silence_ms - silence_ms // HEARTBEATS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, SILENCE_MS)


def make_keys(name: str, directory: str) -> tuple[str, str]:
    """Makes a CURVE key pair. Returns its files (public, secret); only the owner can read the secret one. A file that
    exists is never overwritten. Raises UsageError."""
    try:
        os.makedirs(directory, exist_ok=True)
        before = os.umask(0o077)  # so that others can never read the secret, not even for a moment
        try:
            for ending in ("key_secret", "key"):
                os.close(
                    os.open(os.path.join(directory, f"{name}.{ending}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
                )
            public, secret = zmq.auth.create_certificates(directory, name)
        finally:
            os.umask(before)
        os.chmod(public, 0o666 & ~before)
    except FileExistsError as error:
        raise UsageError(f"{error.filename} exists: choose another name, or remove it if nobody uses it") from None
    except OSError as error:
        raise UsageError(f"cannot write keys to {directory}: {(error.strerror or str(error)).lower()}") from None
    return public, secret


def load_key(path: str) -> tuple[bytes, bytes]:
    """(public, secret) of a key file as `streamcore keys` writes it, which strangers cannot read. Raises UsageError."""
    try:
        if os.stat(path).st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise UsageError(f"others can read or change {path}, a secret key: type chmod 600 {path}")
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} is not a CURVE key file ({error}): make one with 'streamcore keys NAME DIRECTORY'"
        ) from None
    if secret is None:
        raise UsageError(f"{path} has no secret key: give the file that ends in .key_secret")
    return public, secret


def load_public_key(path: str) -> bytes:
    try:
        return zmq.auth.load_certificate(path)[0]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not a CURVE key file ({error})") from None


class Only:
    """Answers ZAP for the domain of one worker: only its key may connect."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def callback(self, _domain: str, key: bytes) -> bool:
        return key == self._key


class Listener:
    """Binds the joining port and the results' port. `join` answers a worker that asks to join, and makes its PUSH
    socket."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        key: str,
        known: KnownKeys,
        message_bytes_max: int,
        arena: Arena,
        lease_ms: int,
    ) -> None:
        self._silence_ms = max(SILENCE_MS_MIN, min(SILENCE_MS, lease_ms))
        self._context = context
        self._arena = arena
        self._frames = FramePool(FRAMES, frame_bytes_max(arena.rows_max, arena.data_bytes_max))
        self._public, self._secret = load_key(key)
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(DOMAIN, known)
        self._host = address.rpartition(":")[0]
        self.join_socket = self._secured(zmq.ROUTER, DOMAIN)
        self.join_socket.setsockopt(zmq.MAXMSGSIZE, JOIN_BYTES_MAX)
        self.results = self._secured(zmq.PULL, DOMAIN)
        self.results.setsockopt(zmq.MAXMSGSIZE, message_bytes_max)
        try:
            self.join_socket.bind(address)
            self.results_port = self.results.bind_to_random_port(self._host)
        except zmq.ZMQError as error:
            self.close()
            raise UsageError(f"cannot listen on {address}: {error.strerror}") from None
        self.address = self.join_socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _secured(self, kind: int, domain: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.setsockopt(zmq.LINGER, 0)
        keep_alive(socket, self._silence_ms)
        return socket

    def join(
        self, admit: Callable[[str], Peer | str], chains: Callable[[Peer], list[Any]], setup: dict[str, Any]
    ) -> Link | None:
        """Answers a worker that asks to join. admit(key) returns its Peer, or why it may not; chains(peer): the
        services that it is to load. The Link has no socket if none could be made. None: nobody joins.
        """
        frames = self.join_socket.recv_multipart(copy=False)
        key = str(frames[-1].get("User-Id"))
        identity = bytes(frames[0].buffer)
        try:
            asked = json.loads(bytes(frames[-1].buffer))
            protocol = asked["protocol"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if type(protocol) is not int or protocol != PROTOCOL:
            other = protocol if type(protocol) is int else "another"
            self._answer(identity, {"refused": f"this pipeline speaks protocol {PROTOCOL}, the worker {other}"})
            return None
        peer = admit(key)
        if isinstance(peer, str):
            self._answer(identity, {"refused": peer})
            return None
        link = Link(peer)
        domain = f"{DOMAIN}-{peer.slot}"
        self._authenticator.configure_curve_callback(domain, Only(key.encode()))
        try:
            port = self._open_push(link, domain)
        except zmq.ZMQError as error:
            self._answer(identity, {"refused": f"the pipeline has no port or descriptor left: {error.strerror}"})
            return link
        digest_key = secrets.token_bytes(DIGEST_KEY_BYTES)
        link.outlet = Outlet(self._arena, self._frames, digest_key)
        self._answer(identity, setup | {
            "chains": chains(peer), "slot": peer.slot, "incarnation": link.incarnation, "digest_key": digest_key.hex(),
            "work_port": port, "results_port": self.results_port,
        })  # fmt: skip
        return link

    def _open_push(self, link: Link, domain: str) -> int:
        """Makes the socket for a peer's segments and its monitor; returns its port. Raises ZMQError."""
        push = self._secured(zmq.PUSH, domain)
        try:
            push.setsockopt(zmq.IMMEDIATE, 1)
            port = push.bind_to_random_port(self._host)
            link.monitor = push.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        except zmq.ZMQError:
            push.close(linger=0)
            raise
        link.push = push
        return int(port)

    def _answer(self, identity: bytes, setup: dict[str, Any]) -> None:
        with contextlib.suppress(zmq.ZMQError):  # the worker is gone
            self.join_socket.send_multipart([identity, json.dumps(setup).encode()], zmq.NOBLOCK)

    def close(self) -> None:
        self._authenticator.stop()
        self.join_socket.close(linger=0)
        self.results.close(linger=0)
