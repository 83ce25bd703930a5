"""The client of a served market: the moderator's methods over HTTP, with the same names, types and errors.

It is synchronous and thread-safe: each thread gets its own connection.
"""

from __future__ import annotations

import functools
import http.client
import random
import secrets
import ssl
import threading
import time
import urllib.parse
from typing import Any, Self

import msgspec

from auction.model.errors import BadToken, BadValue, Conflict, StoreFailed, Unreachable
from auction.moderator.commands import Moderator
from auction.moderator.methods import Method
from auction.web.remote import Remote, add_methods
from auction.web.wire import PREFIX, check_key, decode_failure, schema_of

_PAUSE_MS_FIRST, _PAUSE_MS_MAX = 20, 1_000
_ANSWER_BYTES_MAX = 1 << 28


class MarketClient(Remote):
    """The market at `url`, called as the owner of the token. `url` is `http://host:port`, or `https`; then `authority`
    is a file of certificates to trust.

    It has every served method of `Moderator`, with its types. For a market with more methods, derive a client: `class
    OwnClient(MarketClient, market=OwnModerator)`. A command without a `key` gets one, so that the client can repeat it
    for up to `retry_for_ms` while the market or its database is away; then it raises Unreachable (or the market's last
    error). The answer to `register` has no token if the first answer was lost: see `renew_token`."""

    def __init_subclass__(cls, *, market: type[Moderator] | None = None, **named: Any) -> None:
        super().__init_subclass__(**named)
        if market is not None:
            add_methods(cls, market.methods.values())

    def __init__(
        self, url: str, token: str = "", *, retry_for_ms: int = 15_000, timeout_ms: int = 10_000, authority: str = ""
    ) -> None:
        self.url = url.rstrip("/")
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadValue(f"a market's address must be http://host:port or https://host:port, not {url!r}")
        if not token.isascii():
            raise BadToken("a token must be ASCII")
        self._token = token
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/") + PREFIX
        self._tls = ssl.create_default_context(cafile=authority or None) if parts.scheme == "https" else None
        self._retry_for_ms, self._timeout_ms = retry_for_ms, timeout_ms
        self._of_thread = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    @functools.cached_property
    def name(self) -> str:
        """The party that the token belongs to. Raises BadToken."""
        return self.authenticate(self._token)

    def disconnect(self) -> None:
        """Closes the connections of all threads."""
        for connection in self._connections:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.disconnect()

    def call(self, method: Method, named: dict[str, Any], key: str | None = None) -> Any:
        """Calls a method of the market's table with named arguments. Retries until there is an answer or the time is
        over."""
        of = schema_of(method)
        arguments: Any = msgspec.json.encode(of.request(**named))
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if of.takes_key:
            headers["Idempotency-Key"] = check_key(key or secrets.token_hex(16))
        timeout_ms = self._timeout_ms + named.get("wait_ms", 0)
        deadline_ms = _now_ms() + self._retry_for_ms
        pause_ms = 0.0  # the first failure may be an idle connection that was closed: retry at once
        while True:
            try:
                status, body = self._ask(of.name, arguments, headers, timeout_ms)
                if status == 200:
                    return msgspec.json.decode(body, type=of.answer)
                raise decode_failure(body)
            except (Unreachable, StoreFailed, Conflict):
                if _now_ms() + pause_ms > deadline_ms:
                    raise
                time.sleep(pause_ms * random.uniform(0.5, 1) / 1000)
                pause_ms = min(max(pause_ms * 2, _PAUSE_MS_FIRST), _PAUSE_MS_MAX)

    def _ask(self, name: str, body: bytes, headers: dict[str, str], timeout_ms: int) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            if connection.sock is not None:
                connection.sock.settimeout(timeout_ms / 1000)
            connection.timeout = timeout_ms / 1000
            connection.request("POST", self._path + name, body, headers)
            response = connection.getresponse()
            return response.status, response.read(_ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as reason:
            connection.close()
            raise Unreachable(f"the market at {self.url} does not answer: {reason or type(reason).__name__}") from None

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            if self._tls is not None:
                connection = http.client.HTTPSConnection(self._host, self._port, context=self._tls)
            else:
                connection = http.client.HTTPConnection(self._host, self._port)
            self._of_thread.connection = connection
            self._connections.append(connection)
        return connection


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
