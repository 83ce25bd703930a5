"""The keys of `[stream.subcontract]` and `[market]`: the terms on which a provider runs a stream's services, and where
providers are found. run_keys.py has all others.

Annotations are evaluated here, so no `from __future__ import annotations`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from streamcore.core.keys import Key

OVERLOAD_MS, AUDIT = 1000, 0.01  # the defaults of these keys; `audit` of a run, not of a subcontract


class Subcontract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[stream.subcontract]`: when and on which terms a provider runs a stream's services, and what happens without."""

    service: Annotated[
        str, Key("the service's name in the market", default="the services' names, joined by `+`")
    ] = ""  # fmt: skip
    objective: Annotated[
        Literal["quality", "cost"],
        Key("`quality` weighs ratings beside the price, `cost` the price alone"),
    ] = "quality"
    when: Annotated[
        Literal["missing", "cheaper", "overloaded", "always"],
        Key(
            "when a provider is used",
            more="`missing`: the service is not installed here; `cheaper`: a block costs less than `in_house_price`; "
            "`overloaded`: a segment has waited `overload_ms` for a local worker, and the provider then helps",
        ),
    ] = "always"
    price_max: Annotated[int, Meta(ge=0), Key("the highest price of a block, in minor units (cents)")]
    in_house_price: Annotated[int, Meta(ge=0), Key('what a block costs in-house, for `when = "cheaper"`')] = 0
    minimum_bps: Annotated[
        int,
        Meta(ge=0),
        Key(
            "the rate, in bits per second, that the provider must keep up",
            more="The pipeline measures a shortfall, and the market lowers the price for it",
        ),
    ] = 0
    maximum_bps: Annotated[
        int,
        Meta(ge=0),
        Key(
            "the highest rate, in bits per second, at which segments are sent to the provider; 0: no limit",
            more="Set this, `minimum_bps`, or both",
        ),
    ] = 0
    block_ms: Annotated[int, Meta(ge=100, le=86_400_000), Key("length of a block")] = 60_000
    deadline_ms: Annotated[
        int,
        Meta(ge=0, le=3_600_000),
        Key(
            "a provider that takes longer for a segment is suspended; 0: half of `lease_ms`",
            more="The other half is left for its replacement",
        ),
    ] = 0
    join_ms: Annotated[
        int, Meta(ge=0, le=3_600_000), Key("how long segments wait for a provider that has not joined")
    ] = 5_000  # fmt: skip
    audit: Annotated[
        float,
        Meta(ge=0, le=1),
        Key(
            "the share of a provider's segments that is processed again in-house and compared",
            more="Newcomers are audited four times as often",
        ),
    ] = 0.05
    overload_ms: Annotated[
        int, Meta(ge=0, le=3_600_000), Key('how long a segment waits for a local worker, for `when = "overloaded"`')
    ] = OVERLOAD_MS  # fmt: skip
    otherwise: Annotated[
        Literal["in-house", "pass", "refuse"],
        Key(
            "what happens without a provider",
            more="`in-house`: local workers run the services; `pass`: packets are forwarded unprocessed (a loss); "
            "`refuse`: they go to the dead-letter capture",
        ),
    ] = "in-house"
    effect: Annotated[
        Literal["observe", "rewrite", "resize", "filter", "redact"] | None,
        Key("the effect of a service that is not installed here; a provider's results are checked against it"),
    ] = None

    @property
    def reserve(self) -> int:
        """The highest price of a block."""
        return min(self.price_max, self.in_house_price - 1) if self.when == "cheaper" else self.price_max

    @property
    def need(self) -> "Subcontract":
        """The terms without the rates. Streams with equal needs share an agreement, and their rates add up."""
        return msgspec.structs.replace(self, minimum_bps=0, maximum_bps=0)


class Market(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[market]`: where providers are found."""

    url: Annotated[str, Meta(pattern=r"^https?://"), Key("`http://HOST:PORT` or `https://…`")]
    token_file: Annotated[str, Key("the file with the token that identifies us")] = ""
    recipient: Annotated[str, Key("our name in the market", default="the token's owner")] = ""
    device: Annotated[
        str, Key("our device that measures deliveries, and rates providers by the market's stated rule")
    ] = ""  # fmt: skip
    address: Annotated[str, Key("the address at which providers reach us", default="`listen`")] = ""
    auction_ms: Annotated[
        int,
        Meta(ge=0, le=3_600_000),
        Key("how long an auction stays open when no standing offer fits; 0: use standing offers only"),
    ] = 2_000
    overrule_ms: Annotated[
        int, Meta(ge=0, le=86_400_000), Key("how long a person may overrule a drafted rating")
    ] = 0  # fmt: skip
