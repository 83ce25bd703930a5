"""Handles one request to a served market: caller, right, call, answer. No network here."""

from __future__ import annotations

import hmac
import inspect
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from auction.model.errors import BadToken, BadValue
from auction.moderator.commands import Moderator
from auction.web.rights import Caller, check_right, without_secrets
from auction.web.wire import WAIT_MS_MAX, Schema, check_key, decode_request, find_method, schema_of

STRANGER: Final = " "  # in the place of the caller's id, which has no space: strangers have no keys of the operator's


def make_token(path: str) -> str:
    """Reads the token in a file that only its owner may read; creates the file with a random token if there is none.
    Raises BadValue."""
    try:
        with suppress(FileExistsError):
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(made, "w") as file:
                file.write(secrets.token_hex(32) + "\n")
        token = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as reason:
        raise BadValue(f"cannot store a token in {path}: {reason}") from None
    if len(token) < 32:
        raise BadValue(f"the token in {path} has fewer than 32 characters")
    return token


class Request(msgspec.Struct, frozen=True):
    """One call as received. `key` is the caller's idempotency key."""

    method: str
    body: bytes
    token: str = ""
    key: str = ""


class RequestHandler:
    """Runs requests on a moderator. `operator_token` grants the operator's rights; if empty, nobody has them."""

    def __init__(self, market: Moderator, operator_token: str = "", open_registration: bool = False) -> None:
        self.market = market
        self._operator_token = operator_token
        self._open_registration = open_registration

    def wait_ms(self, request: Request) -> int:
        """How long the caller will wait for news; 0 if the method never waits."""
        method = find_method(self.market, request.method)
        if method.is_news is None:
            return 0
        asked_ms: int = decode_request(schema_of(method), request.body).wait_ms
        return max(0, min(asked_ms, WAIT_MS_MAX))

    def carry_out(self, request: Request) -> Any:
        """The moderator's answer, without waiting: the caller repeats a waiting request when there may be news. Raises
        an AuctionError."""
        method = find_method(self.market, request.method)
        of = schema_of(method)
        arguments = decode_request(of, request.body)
        caller = self._caller(request.token)
        check_right(self.market, caller, method, arguments, self._open_registration)
        return without_secrets(self.market, caller, self._call(of, arguments, caller, request.key))

    def is_news(self, request: Request, answer: Any) -> bool:
        """Whether this answer ends the caller's wait."""
        method = find_method(self.market, request.method)
        return method.is_news is None or method.is_news(decode_request(schema_of(method), request.body), answer)

    def _caller(self, token: str) -> Caller:
        if not token:
            return Caller()
        if not token.isascii():
            raise BadToken("a token must be ASCII")
        if self._operator_token and hmac.compare_digest(token.encode(), self._operator_token.encode()):
            return Caller(is_operator=True)
        return Caller(self.market.authenticate(token))

    def _call(self, of: Schema, arguments: Any, caller: Caller, key: str) -> Any:
        named = {name: getattr(arguments, name) for name in of.request.__struct_fields__}
        if "wait_ms" in named:
            named["wait_ms"] = 0
        if of.takes_key and key:
            # Each caller has its own keys: nobody gets another's answer or uses up another's key.
            whose = caller.party or ("" if caller.is_operator else STRANGER)
            named["key"] = f"{whose}/{check_key(key)}"
        elif of.takes_key and of.signature.parameters["key"].default is inspect.Parameter.empty:
            raise BadValue(f"{of.name} needs an Idempotency-Key")
        return getattr(self.market, of.name)(**named)
