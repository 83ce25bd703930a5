"""Every error that a caller of the market can get. A command that raises one of them has changed nothing."""

from __future__ import annotations


class AuctionError(Exception):
    """The root of all: code that embeds the market can catch just this one. `code` is stable and appears in JSON."""

    code = "error"
    is_of_arguments = False  # whether the arguments are wrong in any state of the market


class BadAmount(AuctionError):
    """An amount that is not an integer number of minor units within bounds: a float, NaN, negative or overflowing."""

    code = "bad_amount"


class BadCurrency(AuctionError):
    """An amount in a currency other than the one that the market or the auction is held in."""

    code = "bad_currency"


class BadValue(AuctionError):
    """A field with an invalid value, such as an empty window or a minimum above a maximum."""

    code = "bad_value"


class BadNumber(BadValue):
    """A telephone number that is not a valid E.164 number."""

    code = "bad_number"


class Unknown(AuctionError):
    """The named party, block, auction, agreement or other record does not exist."""

    code = "unknown"


class Exists(AuctionError):
    """The name is taken, or the step was done before (a second rating, a second bid with one number)."""

    code = "exists"


class NotAllowed(AuctionError):
    """The caller may not do this."""

    code = "not_allowed"


class BadToken(NotAllowed):
    """The market did not issue this token, or it is no longer valid."""

    code = "bad_token"


class BadSignature(NotAllowed):
    """A signature that does not verify, is malleable, or was made by another key."""

    code = "bad_signature"


class Expired(NotAllowed):
    """A signed statement or a standing offer that has expired, or a deadline that has passed."""

    code = "expired"


class Replayed(NotAllowed):
    """A signed statement whose nonce has been used before."""

    code = "replayed"


class Sealed(NotAllowed):
    """Someone other than its bidder asked for a sealed bid before the close."""

    code = "sealed"


class LinkedParties(NotAllowed):
    """A bid by a party that is linked to the other side, or to a party that has bid already."""

    code = "linked_parties"


class WrongState(AuctionError):
    """The step is not possible in the auction's or the agreement's state."""

    code = "wrong_state"


class TooLate(WrongState):
    """A bid or a reveal that the moderator's sequence puts after the close."""

    code = "too_late"


class ClockInDoubt(AuctionError):
    """The market's clock has jumped by an hour: nothing that depends on time is decided until the operator says that
    the clock is right (`confirm_clock`)."""

    code = "clock_in_doubt"


class NoCapacity(AuctionError):
    """The provider would promise more than its capacity at some instant, or the shares more than their block."""

    code = "no_capacity"


class NoAward(AuctionError):
    """No bid or offer fulfils the terms, within the reserve and before the deadline."""

    code = "no_award"


class TooDeep(AuctionError):
    """A chain of subcontracts that is longer than the market allows."""

    code = "too_deep"


class Cycle(AuctionError):
    """A subcontract that leads back to a provider that is in the chain already."""

    code = "cycle"


class InsufficientFunds(AuctionError):
    """A balance, a bond or a card that does not cover the amount."""

    code = "insufficient_funds"


class Declined(AuctionError):
    """The payment processor declined; `reason` is its own word for why."""

    code = "declined"

    def __init__(self, message: str, reason: str = "declined") -> None:
        super().__init__(message)
        self.reason = reason


class PaymentUnknown(AuctionError):
    """The processor gave no answer; repeat the request under the same key to learn the outcome."""

    code = "payment_unknown"


class PrepaymentRequired(AuctionError):
    """The predicted probability of payment is below the threshold: only a prepaid balance is accepted."""

    code = "prepayment_required"


class KeyReused(AuctionError):
    """An idempotency key that was used before with another body."""

    code = "key_reused"


class Conflict(AuctionError):
    """Another moderator wrote to this journal between the decision and the commit, again and again."""

    code = "conflict"


class JournalBroken(AuctionError):
    """The hash chain of the journal does not verify, or the stored state is not the fold of the journal."""

    code = "journal_broken"


class TooNew(AuctionError):
    """A newer version of the program wrote the database; this version would lose what it does not know."""

    code = "too_new"


class TooOld(AuctionError):
    """A version that was never released wrote the database, between two formats that are read."""

    code = "too_old"


class UnderWay(AuctionError):
    """A market of an older version holds money under rules that this version does not have."""

    code = "under_way"


class OtherRules(AuctionError):
    """The market was opened with other rules or another currency than its journal has."""

    code = "other_rules"


class StoreFailed(AuctionError):
    """The database failed or could not be reached; the command may be sent again under the same key."""

    code = "store_failed"


class RowsRefused(StoreFailed):
    """The database works but rejects the values of this command; it accepts other commands."""

    code = "rows_refused"


class TranscriptWrong(AuctionError):
    """A transcript or an award does not follow from the bids, the ratings, the seed and the announced rule."""

    code = "transcript_wrong"


class Unreachable(AuctionError):
    """A served market did not answer in time; a command may be sent again under the same key."""

    code = "unreachable"
