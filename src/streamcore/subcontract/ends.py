"""What the two sides of an agreement state at its end, and what each makes of the other's word. Pure.

What is not receipted is paid only as far as both say so: the lower figure is paid, the difference goes to nobody. So
stating a higher figure than the other gains nothing, and makes a figure that is too low cost whoever stated it.
"""

from __future__ import annotations

from typing import NamedTuple

from auction.model.agreement import Agreement
from auction.model.closing import Ending

SILENCE_MS = 10_000  # after the block: then a provider states an end first
LATE_TIMES = (95, 100)  # so much of what it gave a provider lets pass, for some of it came too late to count


class Word(NamedTuple):
    """An end that one side states, with its figure."""

    ending: Ending
    figure: int


def has_open_rest(agreement: Agreement, now_ms: int) -> bool:
    """Whether money for who takes over is still held. It would go back if both sides stated the same figure."""
    return agreement.recipient_held > agreement.own_hold and now_ms < agreement.ends_ms


def answer(agreement: Agreement, sure: int, served: int, now_ms: int, was_away: bool = False) -> Word | None:
    """What a provider states about an agreement that is not settled; None: nothing now.

    `sure` is what it certainly earned, `served` what it earned if all that was asked for was in time. It takes the
    recipient's figure where that covers what is sure, and blames a recipient that left or blames it. One that
    `was_away` knows that it has failed: it says so, and takes the recipient's word."""
    said, own = agreement.recipient_says, agreement.provider_says
    if said is None:
        if was_away:
            return Word("leaving", served) if own is None and now_ms < agreement.ends_ms else None
        return Word("finished", served) if own is None and now_ms >= agreement.ends_ms + SILENCE_MS else None
    if said.ending == "blaming" and has_open_rest(agreement, now_ms):
        return None  # first somebody takes over
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
