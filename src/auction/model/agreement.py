"""The lifecycle of an auction and of the agreement that comes out of it, as one table, and the agreement itself.

Pure: which step leads where, who serves now, and what each provider is owed. The moderator holds and moves the money.
"""

from __future__ import annotations

from typing import Final

import msgspec

from auction.model.errors import BadValue, WrongState

# The one table: (state, step) -> state. An auction and its agreement are two records of one life: the auction's part
# ends at `awarded` or `failed`, the agreement's begins there.
LIFECYCLE: Final[dict[tuple[str, str], str]] = {
    ("open", "close"): "awarded",
    ("open", "fail"): "failed",
    ("awarded", "agree"): "agreed",
    ("awarded", "lapse"): "lapsed",
    ("agreed", "start"): "delivering",
    ("agreed", "replace"): "agreed",
    ("agreed", "cancel"): "cancelled",
    ("delivering", "deliver"): "delivering",
    ("delivering", "replace"): "delivering",
    ("delivering", "finish"): "delivered",
    ("delivered", "charge"): "charged",
    ("delivered", "decline"): "declined",
    ("charged", "refund"): "charged",
    ("charged", "charge_back"): "declined",
    ("charged", "rate"): "charged",
    ("declined", "rate"): "declined",
}


def next_state(state: str, step: str) -> str:
    """The state that the step leads to; WrongState where it leads nowhere."""
    try:
        return LIFECYCLE[state, step]
    except KeyError:
        raise WrongState(f"no {step!r} from {state or 'nothing'!r}") from None


class Runner(msgspec.Struct, frozen=True, gc=False):
    """A runner-up who stays armed: it serves at its own price when the one before it fails."""

    provider: str
    bid: str
    price: int


class Leg(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The part of an agreement that one provider serves. `price` is what the recipient pays for it in full,
    `topped_up` what the failed provider's bond adds. `delivered_ppm` is its delivery in parts per million."""

    provider: str
    from_ms: int
    until_ms: int
    price: int
    topped_up: int = 0
    topped_up_by: str = ""
    delivered_ppm: int = 0
    failed: bool = False
    measurement: str = ""  # the delivery that counts for it
    measured_by_recipient: bool = False


class Agreement(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What recipient and provider are held to. `price` never rises; legs never add up to more than it."""

    id: str
    auction: str
    recipient: str
    provider: str
    service: str
    block: str
    price: int
    currency: str
    starts_ms: int
    ends_ms: int
    state: str = "awarded"
    runners_up: tuple[Runner, ...] = ()
    legs: tuple[Leg, ...] = ()
    bond: int = 0  # of `bond_of`, who serves now, held for the case that it fails
    bond_of: str = ""
    method: str = "prepaid"
    source: str = ""
    held: int = 0
    charged: int = 0
    refunded: int = 0
    charged_back: bool = False
    sponsor: str = ""  # the group that pays in place of the recipient
    processor_reference: str = ""
    prime: str = ""  # the agreement that this one is a subcontract of
    depth: int = 0
    recourse: int = 0  # what its bond made good to the prime provider
    finished_ms: int = 0
    minimum_bps: int | None = None
    maximum_bps: int | None = None
    availability_ppm: int = 1_000_000
    latency_ms_max: int | None = None

    @property
    def is_over(self) -> bool:
        return self.state in ("charged", "declined")


def owed(leg: Leg) -> int:
    """What the recipient owes for a leg: its price in proportion to delivery, rounded down. A failed leg's too."""
    return leg.price * leg.delivered_ppm // 1_000_000


def topped_up_owed(leg: Leg) -> int:
    """What the bond of the failed provider adds for a leg, in the same proportion."""
    return leg.topped_up * leg.delivered_ppm // 1_000_000


class Replacement(msgspec.Struct, frozen=True):
    """A replacement as decided: the agreement after it, what the failed provider's bond pays and keeps, and what goes
    back of an earlier top-up, to `top_up_of`, for the time that is not served by who was topped up."""

    agreement: Agreement
    difference: int
    bond_left: int
    top_up_back: int = 0
    top_up_of: str = ""


def replace_provider(agreement: Agreement, runner: Runner, now_ms: int, bond: int) -> Replacement:
    """The agreement with `runner` serving what is left of the window, from `now_ms` on.

    What the runner-up asks above what the recipient pays for the rest comes out of the failed provider's bond; raises
    BadValue where the bond does not cover it, for the recipient's price does not rise. `bond` is the new one's."""
    state = next_state(agreement.state, "replace")
    if not agreement.legs:
        raise WrongState("nobody serves yet")
    serving = agreement.legs[-1]
    from_ms = min(max(now_ms, serving.from_ms), serving.until_ms)
    left_ms, whole_ms = serving.until_ms - from_ms, serving.until_ms - serving.from_ms
    if left_ms <= 0:
        raise WrongState("the window is over: there is nothing left to serve")
    rest = serving.price * left_ms // whole_ms
    window_ms = agreement.ends_ms - agreement.starts_ms
    asked = runner.price * left_ms // window_ms
    paid = min(asked, rest)
    difference = asked - paid
    if difference > agreement.bond:
        raise BadValue(f"the bond of {agreement.bond} does not cover the difference of {difference}")
    top_up_back = serving.topped_up * left_ms // whole_ms
    ended = msgspec.structs.replace(
        serving,
        until_ms=from_ms,
        price=serving.price - rest,
        topped_up=serving.topped_up - top_up_back,
        failed=True,
    )
    leg = Leg(runner.provider, from_ms, serving.until_ms, paid, difference, agreement.bond_of if difference else "")
    changed = msgspec.structs.replace(
        agreement,
        state=state,
        provider=runner.provider,
        runners_up=tuple(other for other in agreement.runners_up if other is not runner and other != runner),
        legs=(*agreement.legs[:-1], ended, leg),
        bond=bond,
        bond_of=runner.provider if bond else "",
    )
    return Replacement(changed, difference, agreement.bond - difference, top_up_back, serving.topped_up_by)
