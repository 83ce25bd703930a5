"""What each side of an agreement states at its end, and how it answers the other's statement. Pure.

Without a receipt only what both sides state is paid: the lower figure is paid, the difference goes to nobody. So a side
gains nothing by stating a higher figure than the other, or a lower one than is due.
"""

from __future__ import annotations

from typing import NamedTuple

from auction.model.agreement import Agreement
from auction.model.closing import Ending

SILENCE_MS = 10_000  # this long after the block a provider states an end first
LATE_TIMES = (95, 100)  # a provider accepts this share of its own figure, for late results


class Word(NamedTuple):
    """An end that one side states, with its figure."""

    ending: Ending
    figure: int


def has_open_rest(agreement: Agreement, now_ms: int) -> bool:
    """Whether money for a takeover is still held. It would be released if both sides stated the same figure."""
    return agreement.recipient_held > agreement.own_hold and now_ms < agreement.ends_ms


def answer(agreement: Agreement, sure: int, served: int, now_ms: int, was_away: bool = False) -> Word | None:
    """The provider's statement about an agreement that is not settled; None: nothing now.

    `sure` is what it certainly earned, `served` what it earned if everything asked for came in time. It accepts the
    recipient's figure if that covers what is sure, and blames a recipient that left or blames it. A provider that
    `was_away` knows that it has failed: it says so, and accepts the recipient's figure."""
    said, own = agreement.recipient_says, agreement.provider_says
    if said is None:
        if was_away:
            return Word("leaving", served) if own is None and now_ms < agreement.ends_ms else None
        return Word("finished", served) if own is None and now_ms >= agreement.ends_ms + SILENCE_MS else None
    if said.ending == "blaming" and has_open_rest(agreement, now_ms):
        return None  # a runner-up must take over first
    covers = was_away or said.figure * LATE_TIMES[1] >= sure * LATE_TIMES[0]
    figure = said.figure if covers else max(sure, served)
    if own is not None and own.ending == "leaving":
        ending: Ending = "leaving"
    elif was_away:
        ending = "leaving"
    else:
        ending = "finished" if said.ending == "finished" and said.at_ms >= agreement.ends_ms else "blaming"
    is_said = own is not None and (own.ending, own.figure) == (ending, figure)
    return None if is_said else Word(ending, figure)
