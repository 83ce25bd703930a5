"""`auction serve`: a market as a process that answers JSON over HTTP. Needs the extra `serve` (aiohttp).

Here stands the network; what a request means stands in `handler`.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from aiohttp import web

from auction.model.errors import AuctionError, BadValue
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
        application = web.Application(client_max_size=REQUEST_BYTES_MAX)
        application.router.add_post(PREFIX + "{method}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._market.stop_waiting()
        await self._runner.cleanup()
        await self._market.__aexit__()

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _failed(BadValue(f"a request has at most {REQUEST_BYTES_MAX} bytes"), 413)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        asked = Request(
            method=request.match_info["method"],
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
