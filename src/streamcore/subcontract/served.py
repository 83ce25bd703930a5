"""A served market: its client, the allocator over it, and its answers as plain data. Nothing is decided here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from auction.model.errors import AuctionError
from streamcore.core.errors import MarketError, UsageError
from streamcore.core.market_keys import Market as MarketKeys
from streamcore.subcontract.market import MarketAllocator, Terms

if TYPE_CHECKING:
    from auction.web.client import MarketClient


def open_client(url: str, token: str) -> MarketClient:
    """A client of the market served at `url`, as the token's party. Raises MarketError for an invalid address."""
    from auction.web.client import MarketClient  # only here: an embedded market needs no HTTP

    try:
        return MarketClient(url, token)
    except AuctionError as error:
        raise MarketError(f"the market at {url}: {error}") from None


def connect(keys: MarketKeys, address: str, key: str) -> MarketAllocator:
    """The allocator for a served market. It publishes `address`, where we listen, and the public key of the file `key`.

    Raises UsageError for the token's file, MarketError if the market does not answer.
    """
    import zmq.auth

    token = ""
    if keys.token_file:
        try:
            token = Path(keys.token_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the market's token: {error}") from None
    client = open_client(keys.url, token)
    try:
        party = keys.recipient or client.name
        public, _ = zmq.auth.load_certificate(key)
        terms = Terms(party, keys.device or party, open_for_ms=keys.auction_ms, overrule_ms=keys.overrule_ms)
        allocator = MarketAllocator(client, terms)
        allocator.listening(keys.address or address, public.decode())
    except AuctionError as error:
        raise MarketError(f"the market at {keys.url}: {error}") from None
    return allocator


class PlainMarket:
    """A served market with plain data as answers (as in JSON), for calls of several parties by their tokens."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._token = token
        self._clients: dict[str, MarketClient] = {}  # by token

    def ask(self, method: str, token: str = "", /, **arguments: Any) -> Any:
        """Calls a method of the market as the token's party; "": as the party of the constructor's token. Raises
        MarketError."""
        token = token or self._token
        if token not in self._clients:
            self._clients[token] = open_client(self.url, token)
        try:
            return msgspec.to_builtins(getattr(self._clients[token], method)(**arguments))
        except AuctionError as error:
            raise MarketError(f"the market refused {method}: {error}") from None
