"""How an agreement ends: what each side states, and who then gets which part of what is held. Pure whole arithmetic.

Amounts are minor units. Penalties are rounded down, so that what was held (rounded up, see holding.py) always covers
them. What receipts say stands in receipt.py; when closing begins and ends, in lifecycle.py. No money is moved here.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import msgspec

from auction.model.bid import check_time
from auction.model.errors import BadValue
from auction.model.money import PPM, check_amount, check_ppm

Ending = Literal["finished", "leaving", "blaming"]
"""`finished`: all is done. `leaving`: by the side's own fault or choice. `blaming`: by the other's."""
Side = Literal["provider", "recipient"]
Target = Literal["provider", "recipient", "nobody"]

ENDINGS: Final[tuple[Ending, ...]] = ("finished", "leaving", "blaming")


def check_ending(ending: object) -> Ending:
    """Return `ending` if it is one. Raises BadValue."""
    for known in ENDINGS:
        if ending == known:
            return known
    raise BadValue(f"an end is one of {', '.join(ENDINGS)}, not {ending!r}")


class Statement(msgspec.Struct, frozen=True):
    """A side's word on the end: how it ended, and the figure, which is what of the price has been earned. `at_ms` is
    when the side first stated this end."""

    ending: Ending
    figure: int
    at_ms: int

    def __post_init__(self) -> None:
        check_ending(self.ending)
        check_amount(self.figure, "figure")
        check_time(self.at_ms, "time of the statement")


def restated(former: Statement | None, new: Statement) -> Statement:
    """The statement that counts after `new`: a side may restate until closing is over. Saying the same end again keeps
    the time at which it was said first, so that an early end stays an early one."""
    if former is not None and former.ending == new.ending:
        return msgspec.structs.replace(new, at_ms=former.at_ms)
    return new


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides the end of one agreement.

    `signed` is the figure of the highest receipt signed by both that either has handed in, `shortfall` what of the
    price the intervals up to it did not earn by the provider's signature, `voided` what they did not earn because a
    result was proven wrong. `exposure` is e, the most that is open beyond `signed` (the price where receipts are off).
    A side that was not present at the start is `absent` for good, unless it says `leaving`.
    """

    price: int
    delta_ppm: int
    exposure: int
    ends_ms: int
    recipient_held: int
    provider_held: int
    penalty: int = 0  # Φ
    signed: int = 0
    shortfall: int = 0
    voided: int = 0
    falsified: bool = False
    provider: Statement | None = None
    recipient: Statement | None = None
    provider_absent: bool = False
    recipient_absent: bool = False

    def __post_init__(self) -> None:
        for name in (
            "price",
            "exposure",
            "recipient_held",
            "provider_held",
            "penalty",
            "signed",
            "shortfall",
            "voided",
        ):
            check_amount(getattr(self, name), name)
        check_ppm(self.delta_ppm, "share for leaving")
        check_time(self.ends_ms, "end of the window")
        if self.signed + self.shortfall + self.voided > self.price:
            raise BadValue("the receipts come to more than the price")
        for statement in (self.provider, self.recipient):
            if statement is not None and statement.figure > self.price:
                raise BadValue(f"a figure is at most the price of {self.price}")
        if self.recipient_held < self.price + self.delta_of(self.price):
            raise BadValue("the recipient's hold covers the price and the share for leaving")
        if self.provider_held < self.delta_of(self.price) + self.penalty:
            raise BadValue("the provider's hold covers the share for leaving and the penalty")

    def delta_of(self, amount: int) -> int:
        """δ of an amount, rounded down."""
        return amount * self.delta_ppm // PPM

    def undelivered(self, figure: int) -> int:
        """U: what of the price is not earned at this figure, without shortfalls that the provider signed, which cost it
        δ of their own, and without what was proven wrong, which costs it Φ."""
        return max(0, self.price - figure - self.shortfall - self.voided)


class Payout(NamedTuple):
    """`amount` (above zero) out of the hold of `source`, and why. What goes back has the same target as source."""

    source: Side
    target: Target
    amount: int
    why: str


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What comes of a case. `paid` is what the provider earned, `burnt` what goes to nobody in all, and the payouts add
    up to what was held. `provider_ending` and `recipient_ending` are the ends as they were read; empty: silent."""

    paid: int
    burnt: int
    payouts: tuple[Payout, ...]
    provider_ending: str
    recipient_ending: str

    def received(self, target: Target) -> int:
        """What the target gets, its own money that goes back included."""
        return sum(payout.amount for payout in self.payouts if payout.target == target)


def is_over(provider: Statement | None, recipient: Statement | None, ends_ms: int) -> bool:
    """Closing is over at once when both have stated an end and the figures are equal.

    Not where one's early `finished` meets `blaming`, which would read it as `leaving`: who offered to part for nothing
    may then restate until closing is over, so that answering the offer with a reproach takes nothing from it."""
    if provider is None or recipient is None or provider.figure != recipient.figure:
        return False
    pairs = ((provider, recipient), (recipient, provider))
    return not any(
        one.ending == "finished" and one.at_ms < ends_ms and other.ending == "blaming" for one, other in pairs
    )


def endings(case: Case) -> tuple[str, str]:
    """The ends of provider and recipient as the table reads them; empty for who is silent or absent.

    `finished` by one alone before `ends_ms` is read as `leaving`, unless the other states `finished` too."""
    provider = _counted(case.provider, case.provider_absent)
    recipient = _counted(case.recipient, case.recipient_absent)
    both_finished = all(one is not None and one.ending == "finished" for one in (provider, recipient))

    def read(statement: Statement | None) -> str:
        if statement is None:
            return ""
        is_early = statement.ending == "finished" and statement.at_ms < case.ends_ms and not both_finished
        return "leaving" if is_early else statement.ending

    return read(provider), read(recipient)


def _counted(statement: Statement | None, absent: bool) -> Statement | None:
    """Who was not there at the start has nothing to say of the service but that it leaves."""
    return None if absent and statement is not None and statement.ending != "leaving" else statement


def figures(case: Case) -> tuple[int, int]:
    """The lower and the higher figure that count.

    Equal figures are taken as they are. Otherwise each is bounded to [signed, signed + e], and to what the intervals
    can still earn; where one side is silent the other's counts alone, and where both are, the last receipt does."""
    provider = _counted(case.provider, case.provider_absent)
    recipient = _counted(case.recipient, case.recipient_absent)
    if provider is not None and recipient is not None and provider.figure == recipient.figure:
        return provider.figure, provider.figure
    highest = min(case.signed + case.exposure, case.price - case.shortfall - case.voided)
    stated = [min(max(one.figure, case.signed), highest) for one in (provider, recipient) if one is not None]
    return (min(stated), max(stated)) if stated else (case.signed, case.signed)


# The table of ends: by how provider and recipient ended (empty: silent or absent), who pays δU to whom.
_NOTHING: Final[tuple[tuple[Side, Target], ...]] = ()
_RECIPIENT_PAYS: Final[tuple[tuple[Side, Target], ...]] = (("recipient", "provider"),)
_PROVIDER_PAYS: Final[tuple[tuple[Side, Target], ...]] = (("provider", "recipient"),)
_EACH_LOSES: Final[tuple[tuple[Side, Target], ...]] = (("provider", "nobody"), ("recipient", "nobody"))
_RECIPIENT_LOSES: Final[tuple[tuple[Side, Target], ...]] = (("recipient", "nobody"),)
_PROVIDER_LOSES: Final[tuple[tuple[Side, Target], ...]] = (("provider", "nobody"),)
TABLE: Final[dict[tuple[str, str], tuple[tuple[Side, Target], ...]]] = {
    ("finished", "finished"): _NOTHING,
    ("finished", "leaving"): _RECIPIENT_PAYS,
    ("finished", "blaming"): _EACH_LOSES,
    ("finished", ""): _RECIPIENT_LOSES,
    ("leaving", "finished"): _PROVIDER_PAYS,
    ("leaving", "leaving"): _NOTHING,
    ("leaving", "blaming"): _PROVIDER_PAYS,
    ("leaving", ""): _PROVIDER_PAYS,
    ("blaming", "finished"): _EACH_LOSES,
    ("blaming", "leaving"): _RECIPIENT_PAYS,
    ("blaming", "blaming"): _EACH_LOSES,
    ("blaming", ""): _RECIPIENT_LOSES,
    ("", "finished"): _PROVIDER_LOSES,
    ("", "leaving"): _RECIPIENT_PAYS,
    ("", "blaming"): _PROVIDER_LOSES,
    ("", ""): _NOTHING,
}


def settle(case: Case) -> Settlement:
    """Share out what is held, by the figures and the table of ends.

    The lower figure is paid, the difference goes to nobody. In δU, who pays counts by the lower figure, who receives by
    the higher; the difference goes to nobody. A shortfall S that the provider signed costs it δS to the recipient,
    unless both are silent: then the last receipt is paid and all else goes back. A result that was proven wrong costs
    the provider Φ to nobody, and the recipient leaves free of δ."""
    provider, recipient = endings(case)
    lower, higher = figures(case)
    rows = [
        Payout("recipient", "provider", lower, "what was earned"),
        Payout("recipient", "nobody", higher - lower, "the figures differ"),
    ]
    for source, target in TABLE[provider, recipient]:
        if case.falsified and (source, recipient) == ("recipient", "leaving"):
            continue
        rows += _penalties(case, source, target, lower, higher, provider or "silent", recipient or "silent")
    if provider or recipient:
        short = case.delta_of(case.shortfall)
        rows.append(Payout("provider", "recipient", short, "the provider signed a shortfall"))
    if case.falsified:
        rows.append(Payout("provider", "nobody", case.penalty, "a result was proven wrong"))
    holds: tuple[tuple[Side, int], ...] = (("recipient", case.recipient_held), ("provider", case.provider_held))
    for side, held in holds:
        left = held - sum(row.amount for row in rows if row.source == side)
        rows.append(Payout(side, side, left, "goes back"))
    return Settlement(
        paid=lower,
        burnt=sum(row.amount for row in rows if row.target == "nobody"),
        payouts=tuple(row for row in rows if row.amount),
        provider_ending=provider,
        recipient_ending=recipient,
    )


def _penalties(
    case: Case, source: Side, target: Target, lower: int, higher: int, provider: str, recipient: str
) -> list[Payout]:
    """δU of one cell, from who pays it to who gets it."""
    pays = case.delta_of(case.undelivered(lower))
    gets = pays if target == "nobody" else case.delta_of(case.undelivered(higher))
    why = f"the provider is {provider}, the recipient {recipient}"
    return [Payout(source, target, gets, why), Payout(source, "nobody", pays - gets, why + ", and the figures differ")]


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """What a card's single capture covers, and what of the payouts it leaves as a debt of the recipient."""

    payouts: tuple[Payout, ...]
    debts: tuple[Payout, ...]

    @property
    def debt(self) -> int:
        """What is owed still: the name is barred until it is paid, and it is a "no" of that amount."""
        return sum(one.amount for one in self.debts)


def to_capture(settlement: Settlement) -> int:
    """What a card is captured for, once, when closing is over: all that the recipient's hold pays out."""
    return sum(one.amount for one in settlement.payouts if one.source == "recipient" and one.target != "recipient")


def capture(settlement: Settlement, captured: int) -> Captured:
    """Share out what was captured of the recipient's card: first to the provider, then to penalties; the rest is a
    debt. The provider's own hold pays out in full. Raises BadValue for more than was asked for."""
    check_amount(captured, "captured")
    if captured > to_capture(settlement):
        raise BadValue(f"{to_capture(settlement)} was to be captured, not {captured}")
    of_card = [one for one in settlement.payouts if one.source == "recipient" and one.target != "recipient"]
    of_card.sort(key=lambda one: one.target != "provider")  # stable: what was earned stands before the penalties
    payouts = [one for one in settlement.payouts if one.source == "provider"]
    debts = []
    for one in of_card:
        part = min(captured, one.amount)
        captured -= part
        if part:
            payouts.append(one._replace(amount=part))
        if part < one.amount:
            debts.append(one._replace(amount=one.amount - part))
    return Captured(payouts=tuple(payouts), debts=tuple(debts))


def owed_below_signature(counted: int, shown: int) -> int:
    """What the recipient owes the provider once a receipt of its own signature is shown that is higher than the figure
    that counted at the end: what is missing, and as much again (which covers what was burnt)."""
    return 2 * max(0, check_amount(shown, "figure of the receipt") - check_amount(counted, "figure that counted"))
