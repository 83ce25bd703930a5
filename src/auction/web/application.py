"""`auction serve`: a market as a process that answers JSON over HTTP. Needs the extra `serve` (aiohttp).

Here stands the network; what a request means stands in `handler`.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from auction.model.errors import AuctionError, BadValue, Unknown
from auction.moderator.aio import AsyncModerator
from auction.web.handler import Request, RequestHandler
from auction.web.wire import PREFIX, REQUEST_BYTES_MAX, encode_failure

WAITING_MAX: Final = 1_000  # more callers than this that wait for news are answered at once


class Server:
    """Listens until it is stopped: `async with Server(handler, host, port) as server`, then `server.port`."""

    def __init__(self, handler: RequestHandler, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._host, self.port = host, port
        self._tls = tls
        self._market = AsyncModerator(handler.market)

    async def __aenter__(self) -> Server:
        await self._market.__aenter__()
        self._runner = web.ServerRunner(_Listener(self._answer, access_log=None), shutdown_timeout=5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._market.stop_waiting()
        await self._runner.cleanup()
        await self._market.__aexit__()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        method = request.path.removeprefix(PREFIX)
        if method == request.path or "/" in method:
            return _failed(Unknown(f"a method is called by a POST to {PREFIX}METHOD"))
        if request.method != "POST":
            return _failed(BadValue(f"a method is called by a POST to {PREFIX}METHOD"), 405)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # what follows is the answer
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _failed(BadValue(f"a request has at most {REQUEST_BYTES_MAX} bytes"), 413)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        asked = Request(
            method=method,
            body=body,
            token=token.strip() if scheme.lower() == "bearer" else "",
            key=request.headers.get("Idempotency-Key", ""),
        )
        try:
            answer = await self._carry_out(asked)
            return web.Response(body=msgspec.json.encode(answer), content_type="application/json")
        except AuctionError as reason:
            return _failed(reason)

    async def _carry_out(self, asked: Request) -> object:
        wait_ms = self._handler.wait_ms(asked)
        if not wait_ms or self._market.waiting >= WAITING_MAX:
            return await self._market.carry_out(lambda: self._handler.carry_out(asked))
        return await self._market.wait_for(
            lambda: self._handler.carry_out(asked), lambda answer: self._handler.is_news(asked, answer), wait_ms
        )


class _Connection(web.RequestHandler):
    """A caller's connection: what is no request that HTTP knows is answered as every other refusal is."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not 400 <= status < 500:
            return super().handle_error(request, status, exc, message)
        is_long = isinstance(exc, LineTooLong)
        words = "a line of a request or of its headers is too long" if is_long else "this is no HTTP request"
        answer = _failed(BadValue(words), status)
        answer.force_close()
        return answer


class _Listener(web.Server):
    def __init__(self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], **settings: Any) -> None:
        super().__init__(answer, request_factory=_request, **settings)
        self._settings = settings

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._settings)


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=REQUEST_BYTES_MAX)


def _failed(reason: AuctionError, status: int = 0) -> web.Response:
    usual, body = encode_failure(reason)
    return web.Response(status=status or usual, body=body, content_type="application/json")


def tls_context(certificate: str, private_key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private_key or None)
    return context


@asynccontextmanager
async def _stop_signals() -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def serve(
    handler: RequestHandler,
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Serves the market until SIGINT or SIGTERM; `ready` is told the URL once it listens. Raises OSError."""

    async def run() -> None:
        async with _stop_signals() as stop, Server(handler, host, port, tls) as server:
            shown = f"[{host}]" if ":" in host else host
            ready(f"{'https' if tls else 'http'}://{shown}:{server.port}")
            await stop.wait()

    asyncio.run(run())
