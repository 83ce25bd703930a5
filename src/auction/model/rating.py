"""Ratings: how opinions and measured deliveries become the numbers that later auctions show. Pure integer arithmetic.

Each party has one tally of opinions and one of evidence for each role; weighing.py says what a deal adds to them. A
tally is a Beta posterior with decay (Jøsang and Ismail 2002); parties are ranked by its Wilson lower bound (Wilson
1927). This file checks who may rate, and when. Weights are in millionths: one deal of full value weighs 1,000,000.
"""

from __future__ import annotations

from decimal import Context, Decimal
from functools import lru_cache
from math import isqrt
from typing import Literal

import msgspec

from auction.model.bid import ShownRating, check_name, check_time
from auction.model.errors import BadValue, Exists, NotAllowed, TooLate
from auction.model.money import PPM, check_amount, check_integer, check_ppm

DAY_MS = 86_400_000
REMARK_LENGTH_MAX = 280
REMARKS_SHOWN = 5

Kind = Literal["service", "payment"]
"""`service`: the recipient says whether the service was satisfactorily provided; `payment`: the provider says whether
the recipient satisfactorily paid."""
Terms = Literal["postpaid", "prepaid", "refused"]


class RatingRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules of a market's ratings. Weights are in millionths, fractions in parts per million.

    A newcomer (weight below `newcomer_weight`) starts at the prior, and needs `newcomer_bond` of bond and balance to
    bid. A deal of `value_full` minor units weighs 1, a smaller one in proportion; beyond `pair_weight_max` the deals
    with one counterparty weigh less and less (see weighing.py). `z_squared` sets the lower bound: 2,705,543 is
    one-sided 95 %. A service that earned at least `satisfied_from_ppm` is drafted as satisfactory.
    """

    prior_yes: int = 500_000
    prior_no: int = 500_000
    payment_prior_yes: int = 9_000_000
    payment_prior_no: int = 1_000_000
    half_life_days: int = 180
    value_full: int = 10_000
    pair_weight_max: int = 3_000_000
    newcomer_weight: int = 5_000_000
    newcomer_bond: int = 5_000
    z_squared: int = 2_705_543
    hidden_ms: int = 14 * DAY_MS
    satisfied_from_ppm: int = 950_000
    prepayment_below_ppm: int = 800_000
    refuse_below_ppm: int = 300_000

    def __post_init__(self) -> None:
        for name in ("prior_yes", "prior_no", "payment_prior_yes", "payment_prior_no", "newcomer_weight", "hidden_ms"):
            check_integer(getattr(self, name), name)
        for name in ("half_life_days", "value_full", "pair_weight_max", "z_squared"):
            check_integer(getattr(self, name), name, 1)
        check_amount(self.newcomer_bond, "newcomer bond")
        check_ppm(self.prepayment_below_ppm, "threshold of prepayment")
        check_ppm(self.refuse_below_ppm, "threshold of refusal")
        check_ppm(self.satisfied_from_ppm, "threshold of satisfaction")
        if self.prior_yes + self.prior_no == 0 or self.payment_prior_yes + self.payment_prior_no == 0:
            raise BadValue("the prior must have some weight")


class Tally(msgspec.Struct, frozen=True, gc=False):
    """The weights of yes and no as of `day` (days since the epoch), and their count. Without the prior."""

    yes: int = 0
    no: int = 0
    day: int = 0
    count: int = 0


EMPTY = Tally()


@lru_cache(maxsize=8192)
def remains_q32(days: int, half_life_days: int) -> int:
    """What remains of 2**32 after `days`, rounded down. Computed with 40 decimal digits, so that every machine
    agrees."""
    context = Context(prec=40)
    exponent = context.divide(Decimal(-days), Decimal(half_life_days))
    return int(context.multiply(Decimal(2**32), context.power(Decimal(2), exponent)))


def aged(total: Tally, day: int, rules: RatingRules) -> Tally:
    """The tally decayed to a later day."""
    if day <= total.day:
        return total
    remains = remains_q32(day - total.day, rules.half_life_days)
    return Tally(total.yes * remains >> 32, total.no * remains >> 32, day, total.count)


def mean_ppm(yes: int, no: int) -> int:
    """The mean of Beta(yes, no) in parts per million, rounded down."""
    return yes * PPM // (yes + no)


def lower_ppm(yes: int, no: int, z_squared: int) -> int:
    """Wilson's lower bound of yes / (yes + no) in parts per million, in integer arithmetic.

    (yes + z²/2 - z √(yes no / (yes + no) + z²/4)) / (yes + no + z²). Never above the mean plus the pull to one half,
    and rising with yes, falling with no.
    """
    total = yes + no
    root = isqrt(z_squared * (4 * yes * no // total + z_squared) // 4) + 1
    return max(0, (yes + z_squared // 2 - root) * PPM // (total + z_squared))


@lru_cache(maxsize=1024)
def lowered_prior(yes: int, no: int, start_ppm: int, z_squared: int) -> tuple[int, int]:
    """The prior of the same weight whose lower bound is `start_ppm` at most: part of its yes counts as no."""
    if lower_ppm(yes, no, z_squared) <= start_ppm:
        return yes, no
    low, high = 0, yes  # the bound of `low` is not above the start, that of `high` is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if lower_ppm(middle, yes + no - middle, z_squared) <= start_ppm else (low, middle)
    return low, yes + no - low


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A party's history in one role: opinions, evidence, finished agreements, silence, remarks."""

    party: str
    opinions: Tally = EMPTY
    evidence: Tally = EMPTY
    finished: int = 0
    silent: int = 0
    remarks: tuple[str, ...] = ()


def prior_of(rules: RatingRules, kind: Kind) -> tuple[int, int]:
    """Yes and no of the prior of opinions; that of evidence is a service's."""
    return (rules.prior_yes, rules.prior_no) if kind == "service" else (rules.payment_prior_yes, rules.payment_prior_no)


def show(
    history: History,
    day: int,
    rules: RatingRules,
    kind: Kind = "service",
    start_ppm: int = PPM,
    evidence_start_ppm: int = PPM,
) -> ShownRating:
    """The rating as later auctions show it: prior and tally together, as of `day`. Who is new starts at the bounds that
    are given, where they are below the prior's: its prior is lowered so far, and counts no more than the prior does."""
    opinions, evidence = aged(history.opinions, day, rules), aged(history.evidence, day, rules)
    prior, of_service = prior_of(rules, kind), prior_of(rules, "service")
    if start_ppm < PPM and opinions.yes + opinions.no < rules.newcomer_weight:
        prior = lowered_prior(*prior, start_ppm, rules.z_squared)
    if evidence_start_ppm < PPM and evidence.yes + evidence.no < rules.newcomer_weight:
        of_service = lowered_prior(*of_service, evidence_start_ppm, rules.z_squared)
    yes, no = prior[0] + opinions.yes, prior[1] + opinions.no
    good, bad = of_service[0] + evidence.yes, of_service[1] + evidence.no
    return ShownRating(
        party=history.party,
        mean_ppm=mean_ppm(yes, no),
        lower_ppm=lower_ppm(yes, no, rules.z_squared),
        count=opinions.count,
        evidence_mean_ppm=mean_ppm(good, bad),
        evidence_lower_ppm=lower_ppm(good, bad, rules.z_squared),
        evidence_count=evidence.count,
        silence_ppm=history.silent * PPM // history.finished if history.finished else 0,
        remarks=history.remarks[-REMARKS_SHOWN:],
        newcomer=opinions.yes + opinions.no < rules.newcomer_weight,
    )


def probability_of_payment_ppm(payments: Tally, day: int, rules: RatingRules) -> int:
    """The predicted probability that the next charge is accepted: the mean of the payment posterior."""
    tally = aged(payments, day, rules)
    return mean_ppm(rules.payment_prior_yes + tally.yes, rules.payment_prior_no + tally.no)


def payment_terms(probability_ppm: int, rules: RatingRules) -> Terms:
    """Whether the recipient may pay afterwards, must pay before, or is refused."""
    if probability_ppm < rules.refuse_below_ppm:
        return "refused"
    return "prepaid" if probability_ppm < rules.prepayment_below_ppm else "postpaid"


class Opinion(msgspec.Struct, frozen=True, kw_only=True):
    """One side's yes or no about one finished agreement, with an optional remark.

    A `service` opinion names the recipient's device that it came from.
    """

    agreement: str
    kind: Kind
    rater: str
    ratee: str
    satisfied: bool
    at_ms: int
    device: str = ""
    remark: str = ""

    def __post_init__(self) -> None:
        for name in ("agreement", "rater", "ratee"):
            check_name(getattr(self, name), name)
        if self.kind not in ("service", "payment"):
            raise BadValue("an opinion is about the service or the payment")
        if type(self.satisfied) is not bool:
            raise BadValue("an opinion is yes or no")
        if self.rater == self.ratee:
            raise NotAllowed("a party cannot rate itself")
        check_time(self.at_ms, "time of the opinion")
        if self.kind == "service":
            check_name(self.device, "device")
        if type(self.remark) is not str or len(self.remark) > REMARK_LENGTH_MAX:
            raise BadValue(f"a remark has at most {REMARK_LENGTH_MAX} characters")


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """The two opinions of one finished agreement, hidden until both are in or the window has passed."""

    agreement: str
    provider: str
    recipient: str
    finished_ms: int
    service: Opinion | None = None
    payment: Opinion | None = None

    def revealed(self, now_ms: int, rules: RatingRules) -> bool:
        both = self.service is not None and self.payment is not None
        return both or now_ms >= self.finished_ms + rules.hidden_ms

    def with_opinion(self, opinion: Opinion, rules: RatingRules) -> Exchange:
        """Adds one side's opinion. Raises NotAllowed for anyone but that side, Exists for a second opinion, TooLate
        once the window has passed (an opinion could then react to the other's)."""
        sides = (self.recipient, self.provider) if opinion.kind == "service" else (self.provider, self.recipient)
        if opinion.agreement != self.agreement or (opinion.rater, opinion.ratee) != sides:
            raise NotAllowed(f"{opinion.rater} is not the side of agreement {self.agreement} that gives this opinion")
        if getattr(self, opinion.kind) is not None:
            raise Exists(f"{opinion.rater} has rated agreement {self.agreement} already")
        if opinion.at_ms >= self.finished_ms + rules.hidden_ms:
            raise TooLate(f"the time for rating agreement {self.agreement} is over")
        if opinion.kind == "service":
            return msgspec.structs.replace(self, service=opinion)
        return msgspec.structs.replace(self, payment=opinion)


def draft_of_payment(charge: str, sponsored: bool = False) -> bool | None:
    """The provider's draft opinion from the card processor's answer: yes if captured or refunded, no if declined or
    charged back. None if nothing can be said yet, and always for a sponsored recipient, who owes nothing."""
    if sponsored:
        return None
    return {"captured": True, "refunded": True, "declined": False, "charged_back": False}.get(charge)


class PublicDeal(msgspec.Struct, frozen=True, kw_only=True):
    """What is public of one deal that a rating was counted from. `kind` is service, payment or evidence; `yes_ppm` what
    was said of it (0 or all) or the part that was earned. `weight_eighths` is its weight, from 0 to 8 eighths of a deal
    that counts in full: so no price of others' deals can be read from a rating."""

    agreement: str
    kind: str
    rater: str
    yes_ppm: int
    day: int
    weight_eighths: int


class DraftedRating(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One side's opinion by the stated rule, and the reason."""

    satisfied: bool
    remark: str


def draft_of_service(price: int, paid: int, falsified: bool, rules: RatingRules) -> DraftedRating:
    """The recipient's draft opinion from the agreement's outcome: satisfied if the provider earned at least
    `satisfied_from_ppm` of the price and no result was proven wrong."""
    earned_ppm = paid * PPM // price if price else PPM
    words = f"earned {earned_ppm / 10_000:.2f}% of the price, {rules.satisfied_from_ppm / 10_000:.2f}% satisfy"
    if falsified:
        words += "; a result was proven wrong"
    return DraftedRating(satisfied=earned_ppm >= rules.satisfied_from_ppm and not falsified, remark=words)
