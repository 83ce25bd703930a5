"""The protocol of a served market: one POST of a JSON object for each call, one JSON answer, typed errors.

    POST /v1/bid   Authorization: Bearer TOKEN   Idempotency-Key: KEY
    {"auction": "auction-7", "entry": {"bidder": "north", "price": 4100}}

The methods and their types are the moderator's. Here is the encoding and decoding for server and client.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import msgspec

from auction.model.bid import check_name
from auction.model.errors import AuctionError, BadValue, Declined, Unknown
from auction.moderator.commands import Moderator
from auction.moderator.methods import Method

PREFIX: Final = "/v1/"
REQUEST_BYTES_MAX: Final = 1 << 20
WAIT_MS_MAX: Final = 60_000

_STATUS: Final = {
    "bad_token": 401,
    "not_allowed": 403,
    "unknown": 404,
    "exists": 409,
    "conflict": 409,
    "key_reused": 409,
    "wrong_state": 409,
    "clock_in_doubt": 409,
    "store_failed": 503,
    "rows_refused": 422,
    "payment_unknown": 502,
}


class Schema(msgspec.Struct, frozen=True):
    """The wire form of a method: the JSON object of its arguments, and its answer. A method with a key is a command,
    which takes effect once however often it is sent."""

    name: str
    request: Any
    answer: Any
    signature: inspect.Signature
    takes_key: bool


class Failure(msgspec.Struct, omit_defaults=True):
    """The body of a refusal. `reason` is the card processor's."""

    error: str
    message: str
    reason: str = ""


def find_method(market: Moderator, name: str) -> Method:
    """The served method of this name. Raises Unknown."""
    found = market.methods.get(name)
    if found is None or not found.is_served:
        raise Unknown(f"the market has no method {name!r}")
    return found


@cache
def schema_of(method: Method) -> Schema:
    """The wire form of a method, from its signature."""
    found = method.function
    hints = typing.get_type_hints(found)
    signature = inspect.signature(found)
    parameters = [one for one in signature.parameters.values() if one.name not in ("self", "key")]
    fields: list[Any] = []
    for one in parameters:
        is_needed = one.default is inspect.Parameter.empty
        fields.append((one.name, hints[one.name]) if is_needed else (one.name, hints[one.name], one.default))
    request = msgspec.defstruct(
        f"{method.name}_request", fields, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
    )
    return Schema(method.name, request, hints["return"], signature, "key" in signature.parameters)


def decode_request(of: Schema, body: bytes) -> Any:
    """The arguments as a struct with a field for each. Raises BadValue for values of wrong types, and whatever the
    types raise for invalid values."""
    try:
        return msgspec.json.decode(body or b"{}", type=of.request)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as reason:
        raise BadValue(f"the arguments of {of.name} are invalid: {reason}") from None


def check_key(key: str) -> str:
    """Checks an idempotency key: 1 to 200 printable ASCII characters, as a header can carry. Raises BadValue."""
    if not key.isascii() or key != key.strip():
        raise BadValue("an idempotency key must be ASCII")
    return check_name(key, "key")


def encode_failure(reason: AuctionError) -> tuple[int, bytes]:
    """The HTTP status and the body of a refusal."""
    word = reason.reason if isinstance(reason, Declined) else ""
    return _status(type(reason)), msgspec.json.encode(Failure(reason.code, str(reason), word))


def decode_failure(body: bytes) -> AuctionError:
    """The error that the server raised."""
    try:
        failure = msgspec.json.decode(body, type=Failure)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return AuctionError("the market's answer is not one of its errors")
    raised = {kind.code: kind for kind in _kinds(AuctionError)}.get(failure.error, AuctionError)
    if issubclass(raised, Declined):
        return raised(failure.message, failure.reason)
    return raised(failure.message)


def _status(kind: type[AuctionError]) -> int:
    """The status of the nearest ancestor that has one."""
    return next(
        (_STATUS[one.code] for one in kind.__mro__ if issubclass(one, AuctionError) and one.code in _STATUS), 422
    )


def _kinds(kind: type[AuctionError]) -> Iterator[type[AuctionError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _kinds(one)
