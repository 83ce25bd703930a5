"""How an agreement ends: each side's statement, and how the holds are divided. Pure integer arithmetic.

Amounts are minor units. Penalties are rounded down, so the holds (rounded up, see holding.py) always cover them.
receipt.py has the receipts, lifecycle.py the times of closing. No money is moved here.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import msgspec

from auction.model.bid import check_time
from auction.model.errors import BadValue
from auction.model.fees import NO_FEE, Fee
from auction.model.money import PPM, check_amount, check_ppm

Ending = Literal["finished", "leaving", "blaming"]
"""`finished`: the service is complete. `leaving`: it ends by the side's own fault or choice. `blaming`: by the other's
fault."""
Side = Literal["provider", "recipient"]
Target = Literal["provider", "recipient", "nobody", "operator"]

ENDINGS: Final[tuple[Ending, ...]] = ("finished", "leaving", "blaming")
FIGURES_DIFFER: Final = "the figures differ"


def check_ending(ending: object) -> Ending:
    """Returns `ending` if it is valid. Raises BadValue."""
    for known in ENDINGS:
        if ending == known:
            return known
    raise BadValue(f"an ending is one of {', '.join(ENDINGS)}, not {ending!r}")


class Statement(msgspec.Struct, frozen=True):
    """One side's statement of the end: the ending, and the figure, which is the part of the price that was earned.
    `at_ms` is when the side first stated this ending."""

    ending: Ending
    figure: int
    at_ms: int

    def __post_init__(self) -> None:
        check_ending(self.ending)
        check_amount(self.figure, "figure")
        check_time(self.at_ms, "time of the statement")


def restated(former: Statement | None, new: Statement) -> Statement:
    """The statement that counts after `new`: a side may restate until closing is over. Restating the same ending keeps
    the time of the first statement, so an early end stays early."""
    if former is not None and former.ending == new.ending:
        return msgspec.structs.replace(new, at_ms=former.at_ms)
    return new


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides the end of one agreement.

    `signed` is the figure of the highest receipt signed by both sides and handed in. `shortfall` is the part of the
    price that its intervals did not earn according to the provider's signature, `voided` the part lost because a result
    was proven wrong. `exposure` is e, the most that is open beyond `signed` (the whole price without receipts). A side
    that was not present at the start stays `absent`, unless it states `leaving`. `insured` is the bond that pays
    for what is not delivered.
    """

    price: int
    delta_ppm: int
    exposure: int
    ends_ms: int
    recipient_held: int
    provider_held: int
    penalty: int = 0  # Φ
    insured: int = 0
    signed: int = 0
    shortfall: int = 0
    voided: int = 0
    falsified: bool = False
    provider: Statement | None = None
    recipient: Statement | None = None
    provider_absent: bool = False
    recipient_absent: bool = False
    fee: Fee = NO_FEE

    def __post_init__(self) -> None:
        for name in (
            "price",
            "exposure",
            "recipient_held",
            "provider_held",
            "penalty",
            "insured",
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
        if self.recipient_held < self.price + self.delta_of(self.price) + self.fee.of(self.price):
            raise BadValue("the recipient's hold must cover the price and the share for leaving")
        if self.provider_held < self.delta_of(self.price) + self.penalty + self.insured:
            raise BadValue("the provider's hold must cover the share for leaving, the penalty and the insured amount")

    def delta_of(self, amount: int) -> int:
        """δ of an amount, rounded down."""
        return amount * self.delta_ppm // PPM

    def undelivered(self, figure: int) -> int:
        """U: the part of the price that is not earned at this figure. It excludes shortfalls that the provider signed,
        which cost it δ separately, and results proven wrong, which cost it Φ."""
        return max(0, self.price - figure - self.shortfall - self.voided)


class Payout(NamedTuple):
    """`amount` (above zero) from the hold of `source`, and the reason. Money that goes back has the same source and
    target."""

    source: Side
    target: Target
    amount: int
    why: str


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a case. `paid` is what the provider earned, `burnt` everything that goes to nobody; the payouts
    add up to the holds. `provider_ending` and `recipient_ending` are the endings as read; empty: silent."""

    paid: int
    burnt: int
    payouts: tuple[Payout, ...]
    provider_ending: str
    recipient_ending: str

    def received(self, target: Target) -> int:
        """What the target gets, including its own money that goes back."""
        return sum(payout.amount for payout in self.payouts if payout.target == target)


def is_over(provider: Statement | None, recipient: Statement | None) -> bool:
    """Whether closing is over before its deadline: both sides have stated an end, whichever, with equal figures."""
    return provider is not None and recipient is not None and provider.figure == recipient.figure


def endings(case: Case) -> tuple[str, str]:
    """The endings of provider and recipient as the table reads them; empty for a silent or absent side.

    `finished` before `ends_ms` is read as `leaving`, unless the other side states `finished` too."""
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
    """From a side that was absent at the start only `leaving` counts."""
    return None if absent and statement is not None and statement.ending != "leaving" else statement


def figures(case: Case) -> tuple[int, int]:
    """The lower and the higher figure that count.

    Equal figures count as they are. Otherwise each is bounded to [signed, signed + e], and to what the intervals can
    still earn. If one side is silent, only the other's figure counts; if both are, the last receipt's figure does."""
    provider = _counted(case.provider, case.provider_absent)
    recipient = _counted(case.recipient, case.recipient_absent)
    if provider is not None and recipient is not None and provider.figure == recipient.figure:
        return provider.figure, provider.figure
    highest = min(case.signed + case.exposure, case.price - case.shortfall - case.voided)
    stated = [min(max(one.figure, case.signed), highest) for one in (provider, recipient) if one is not None]
    return (min(stated), max(stated)) if stated else (case.signed, case.signed)


# The table of ends: by the endings of provider and recipient (empty: silent or absent), the side that pays δU and its
# target.
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
    """Divides the holds, by the figures and the table of ends.

    The lower figure is paid; the difference between the figures goes to nobody. A side that pays δU pays it by the
    lower figure, a side that receives δU gets it by the higher one; the difference goes to nobody. A shortfall S that
    the provider signed costs it δS to the recipient, unless both sides are silent: then the last receipt is paid and
    everything else goes back. A result that was proven wrong costs the provider Φ to nobody, and the recipient leaves
    without paying δ.

    The insured amount pays the recipient for the shortfall that the provider signed and for what was proven wrong. The
    rest of it pays for U, to whom the table sends the provider's δU; so denying costs what admitting costs."""
    provider, recipient = endings(case)
    lower, higher = figures(case)
    rows = [
        Payout("recipient", "provider", lower, "what was earned"),
        Payout("recipient", "nobody", higher - lower, FIGURES_DIFFER),
    ]
    for source, target in TABLE[provider, recipient]:
        if case.falsified and (source, recipient) == ("recipient", "leaving"):
            continue
        rows += _penalties(case, source, target, lower, higher, provider or "silent", recipient or "silent")
    if provider or recipient:
        short = case.delta_of(case.shortfall)
        rows.append(Payout("provider", "recipient", short, "the provider signed a shortfall"))
        rows += _insured(case, TABLE[provider, recipient], lower, higher)
    rows.append(Payout("recipient", "operator", case.fee.of(lower), "the market's fee"))
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
    """The payouts of δU for one cell of the table."""
    pays = case.delta_of(case.undelivered(lower))
    gets = pays if target == "nobody" else case.delta_of(case.undelivered(higher))
    why = f"the provider is {provider}, the recipient {recipient}"
    return [Payout(source, target, gets, why), Payout(source, "nobody", pays - gets, why + ", and the figures differ")]


def _insured(case: Case, cell: tuple[tuple[Side, Target], ...], lower: int, higher: int) -> list[Payout]:
    """What the provider has insured, as far as it did not deliver: its own word and proofs first."""
    by_own_word = min(case.insured, case.shortfall + case.voided)
    rows = [Payout("provider", "recipient", by_own_word, "insured: a shortfall that it signed, or what was proven")]
    left = case.insured - by_own_word
    for source, target in cell:
        if source == "provider":
            pays = min(left, case.undelivered(lower))
            gets = pays if target == "nobody" else min(left, case.undelivered(higher))
            rows.append(Payout(source, target, gets, "insured: what was not delivered"))
            rows.append(Payout(source, "nobody", pays - gets, "insured: the figures differ"))
    return rows


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """The payouts that a card's single capture covers, and those that it leaves as the recipient's debt."""

    payouts: tuple[Payout, ...]
    debts: tuple[Payout, ...]

    @property
    def debt(self) -> int:
        """The amount still owed. The recipient is barred until it is paid, and it counts as a "no" of that amount."""
        return sum(one.amount for one in self.debts)


def to_capture(settlement: Settlement) -> int:
    """The amount to capture on a card, once, when closing is over: everything that the recipient's hold pays out."""
    return sum(one.amount for one in settlement.payouts if one.source == "recipient" and one.target != "recipient")


def capture(settlement: Settlement, captured: int) -> Captured:
    """Divides the amount captured on the recipient's card: first to the provider, then to penalties; what it does not
    cover is a debt. The provider's own hold pays out in full. Raises BadValue for more than was requested."""
    check_amount(captured, "captured")
    if captured > to_capture(settlement):
        raise BadValue(f"{to_capture(settlement)} was to be captured, not {captured}")
    of_card = [one for one in settlement.payouts if one.source == "recipient" and one.target != "recipient"]
    of_card.sort(key=lambda one: one.target != "provider")  # stable: earnings come before penalties
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
    """What the recipient owes the provider after a receipt that it signed shows a higher figure than the one that
    counted at the end: twice the difference (which covers what was burnt)."""
    return 2 * max(0, check_amount(shown, "figure of the receipt") - check_amount(counted, "figure that counted"))
