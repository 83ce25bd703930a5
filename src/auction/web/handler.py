"""What happens to one request to a served market: who asks, whether it may, the call, the answer. No network here."""

from __future__ import annotations

import hmac
import inspect
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from auction.model.errors import BadToken, BadValue
from auction.moderator.commands import Moderator
from auction.web.rights import Caller, check_right, without_secrets
from auction.web.wire import WAIT_MS_MAX, Schema, check_key, decode_request, find_method, schema_of


def make_token(path: str) -> str:
    """The token in a file that its owner alone may read; a new random one where there is no such file. Raises
    BadValue."""
    try:
        with suppress(FileExistsError):
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(made, "w") as file:
                file.write(secrets.token_hex(32) + "\n")
        token = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as reason:
        raise BadValue(f"cannot keep a token in {path}: {reason}") from None
    if len(token) < 32:
        raise BadValue(f"the token in {path} has less than 32 characters")
    return token


class Request(msgspec.Struct, frozen=True):
    """One call as it came in. `key` is the caller's idempotency key."""

    method: str
    body: bytes
    token: str = ""
    key: str = ""


class RequestHandler:
    """Carries requests out on a moderator. `operator_token` opens what is the operator's; empty: nobody is."""

    def __init__(self, market: Moderator, operator_token: str = "", open_registration: bool = False) -> None:
        self.market = market
        self._operator_token = operator_token
        self._open_registration = open_registration

    def wait_ms(self, request: Request) -> int:
        """How long the caller is willing to wait for news; 0 for what never waits."""
        method = find_method(self.market, request.method)
        if method.is_news is None:
            return 0
        asked_ms: int = decode_request(schema_of(method), request.body).wait_ms
        return max(0, min(asked_ms, WAIT_MS_MAX))

    def carry_out(self, request: Request) -> Any:
        """The moderator's answer. Waits for nothing: who asked to wait is asked for again when there is news. Raises
        an AuctionError."""
        method = find_method(self.market, request.method)
        of = schema_of(method)
        arguments = decode_request(of, request.body)
        caller = self._caller(request.token)
        check_right(self.market, caller, method, arguments, self._open_registration)
        return without_secrets(caller, self._call(of, arguments, caller, request.key))

    def is_news(self, request: Request, answer: Any) -> bool:
        """Whether this answer is what a caller waits for."""
        method = find_method(self.market, request.method)
        return method.is_news is None or method.is_news(decode_request(schema_of(method), request.body), answer)

    def _caller(self, token: str) -> Caller:
        if not token:
            return Caller()
        if not token.isascii():
            raise BadToken("a token is of ASCII characters")
        if self._operator_token and hmac.compare_digest(token.encode(), self._operator_token.encode()):
            return Caller(is_operator=True)
        return Caller(self.market.authenticate(token))

    def _call(self, of: Schema, arguments: Any, caller: Caller, key: str) -> Any:
        named = {name: getattr(arguments, name) for name in of.request.__struct_fields__}
        if "wait_ms" in named:
            named["wait_ms"] = 0
        if of.takes_key and key:
            # Keys are each caller's own: nobody gets another's answer, or takes a key before another does.
            named["key"] = f"{caller.party}/{check_key(key)}"
        elif of.takes_key and of.signature.parameters["key"].default is inspect.Parameter.empty:
            raise BadValue(f"{of.name} is sent with an Idempotency-Key")
        return getattr(self.market, of.name)(**named)
