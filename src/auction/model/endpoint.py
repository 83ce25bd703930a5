"""Where a party can be reached, and the assignments of a provider: work that it has or may get. Records only, no rules.

The market never connects to anyone. It passes on addresses and CURVE public keys, so that recipients and providers find
each other and admit nobody else.
"""

from __future__ import annotations

import string
from typing import Final, Literal

import msgspec

from auction.model.bid import Announcement, check_name, check_time
from auction.model.block import Block
from auction.model.errors import BadValue

OFFERS_MAX: Final = 64
_Z85: Final = frozenset(string.digits + string.ascii_letters + ".-:+=^!/*?&<>()[]{}@%$#")

Role = Literal["winner", "runner_up", "offer", "standing", "recipient"]
"""`winner` serves, or will; `runner_up` stands by; `offer` is a rest that a runner-up can take over now (see
`take_over`); `standing` has a standing offer that a recipient wants to be able to take at once; `recipient` is
served."""


def check_curve_key(curve_key: object) -> str:
    """A CURVE public key as ZeroMQ writes it: 40 characters of Z85 (RFC 32 of rfc.zeromq.org). Raises BadValue."""
    if type(curve_key) is not str or len(curve_key) != 40 or not set(curve_key) <= _Z85:
        raise BadValue("a CURVE public key is 40 characters of Z85")
    return curve_key


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a party listens (`tcp://host:port`; empty for one that only connects, as providers do), and the CURVE
    public key that it uses."""

    party: str
    address: str
    curve_key: str
    at_ms: int = 0

    def __post_init__(self) -> None:
        check_name(self.party, "party")
        if self.address:
            check_name(self.address, "address")
        check_curve_key(self.curve_key)


class Warm(msgspec.Struct, frozen=True, omit_defaults=True):
    """The standing offers whose providers a recipient wants to stay connected until `until_ms`, before any award."""

    recipient: str
    offers: tuple[str, ...]
    until_ms: int

    def __post_init__(self) -> None:
        check_name(self.recipient, "recipient")
        if len(self.offers) > OFFERS_MAX or len(set(self.offers)) != len(self.offers):
            raise BadValue(f"at most {OFFERS_MAX} distinct offers can be kept warm")
        check_time(self.until_ms, "end of keeping warm")


class Assignment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Work that a party has or may get. The party connects to `address`, whose key is `curve_key`, and names the
    agreement or the standing offer. An empty address means that the recipient has published none. `price` is the
    agreement's; for a runner-up its own bid, or what it would get for the rest; for a standing offer the price of one
    unit. In a recipient's answer `party` is the one that serves."""

    role: Role
    recipient: str
    service: str
    price: int
    agreement: str = ""
    offer: str = ""
    party: str = ""
    state: str = ""
    units: int = 1
    items: tuple[str, ...] = ()
    receipts: bool = False
    starts_ms: int = 0
    ends_ms: int = 0
    minimum_bps: int | None = None
    maximum_bps: int | None = None
    attributes: dict[str, str] = {}
    address: str = ""
    curve_key: str = ""


class OpenAuction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An auction that a provider can bid in: the block, and the provider's last bid if it has bid."""

    announcement: Announcement
    announcer: str
    block: Block
    own_price: int | None = None


class Assignments(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that concerns a party now. `version` changes if and only if the fields after it do."""

    version: str
    now_ms: int
    assignments: tuple[Assignment, ...] = ()
    auctions: tuple[OpenAuction, ...] = ()
