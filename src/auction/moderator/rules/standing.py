"""What a party's rating counts for in an auction, and what it demands of the party: a bond, or paying first."""

from __future__ import annotations

from auction.model.agreement import Agreement
from auction.model.bid import ShownRating
from auction.model.errors import NotAllowed, PrepaymentRequired
from auction.model.rating import DAY_MS, bond_due, payment_terms, probability_of_payment_ppm
from auction.moderator.draft import Draft
from auction.moderator.records import Auction
from auction.moderator.reputation import PAYMENTS
from auction.payment.protocol import PREPAID


def rating_at(draft: Draft, record: Auction, bidder: str) -> ShownRating:
    """The rating as every bidder was shown it: as it stood when the auction was announced."""
    service = record.announcement.service if record.announcement.direction == "provide" else PAYMENTS
    return draft.state.reputation.shown_at(bidder, service, record.announced_sequence, record.announced_ms)


def bond_needed(draft: Draft, record: Auction, rating: ShownRating | None) -> int:
    """What the auction asks for, and what a newcomer owes at least, so that a new name is no escape."""
    asked = record.announcement.bond
    if rating is None or record.announcement.direction == "receive":
        return asked
    return max(asked, bond_due(rating, draft.config.rating))


def check_payer(draft: Draft, agreement: Agreement) -> None:
    """Raises NotAllowed or PrepaymentRequired for a recipient that will probably not pay. A prepaid price is held
    before the service, so it is always taken."""
    if agreement.method == PREPAID:
        return
    probability_ppm = payment_probability_ppm(draft, agreement.recipient)
    terms = payment_terms(probability_ppm, draft.config.rating)
    if terms == "refused":
        raise NotAllowed(f"{agreement.recipient} will probably not pay ({probability_ppm} in a million)")
    if terms == "prepaid":
        raise PrepaymentRequired(f"{agreement.recipient} has to prepay ({probability_ppm} in a million)")


def payment_probability_ppm(draft: Draft, recipient: str) -> int:
    """The predicted probability that the recipient's next charge is accepted."""
    tally = draft.state.reputation.history(recipient, PAYMENTS).opinions
    return probability_of_payment_ppm(tally, draft.at_ms // DAY_MS, draft.config.rating)
