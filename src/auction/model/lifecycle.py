"""The lifecycle of an auction and of its agreements as one table: states, commands, roles, deadlines, outcomes. Pure.

`tick` follows the table, and the documentation is generated from it. The moderator's rules have the details of each
command; closing.py has who gets which money at the end. Times are milliseconds of the market's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from auction.model.errors import WrongState

FUNDING_MS: Final = 15 * 60_000
OPEN_MS_MAX: Final = 24 * 3_600_000
REVEAL_MS: Final = 10 * 60_000
GRACE_MS: Final = 10_000  # G
CLOSING_MS: Final = 3_600_000  # C
GROUP_MS: Final = 3_600_000
CHARGEBACK_MS: Final = 120 * 24 * 3_600_000  # the time for chargebacks
JUMP_MS: Final = 3_600_000
AUTHORISED_MS: Final = 6 * 24 * 3_600_000  # how long a card's authorisation surely lives (Stripe: 7 days)
KEPT_MS: Final = 45 * 24 * 3_600_000  # how long what is over is kept, but for what charges that are taken back need


class Step(msgspec.Struct, frozen=True):
    """A command in one state: the roles that may give it, and the states that may follow. The first is the usual one;
    the others follow as `outcome` says."""

    state: str
    command: str
    who: tuple[str, ...]
    leads_to: tuple[str, ...]
    outcome: str


class Stage(msgspec.Struct, frozen=True):
    """A state: its deadline, in words, and what the deadline brings about. A state without a deadline is final."""

    state: str
    deadline: str = ""
    leads_to: tuple[str, ...] = ()
    outcome: str = ""


STAGES: Final = (
    Stage(
        "funding",
        "15 minutes after the announcement",
        ("void",),
        "the card was not authorised; nobody could bid, and nothing was held",
    ),
    Stage(
        "open",
        "closes_ms: at most 24 hours after the announcement, and before the start; with commitments 10 minutes later",
        ("agreed", "void"),
        "the best bid whose hold can be placed wins, and the agreement is made; without one the auction is void and "
        "all holds are released; the hold of an unrevealed commitment goes to nobody",
    ),
    Stage(
        "agreed",
        "starts_ms + G",
        ("running", "closing"),
        "running if both sides have polled within G; otherwise closing, and a side that has not polled is absent",
    ),
    Stage("running", "ends_ms + G", ("closing",), "neither side has stated an end: closing begins"),
    Stage(
        "closing",
        "C after the first stated end, or after ends_ms + G",
        ("settled",),
        "the figures are bounded to [signed, signed + e], and the table of ends decides the payouts",
    ),
    Stage("settled"),
    Stage("void"),
)

_SIDES: Final = ("recipient", "provider")
_STOPPED: Final = "nobody takes a rest over any more; what is held beyond P(1+δ) goes back"
STEPS: Final = (
    Step("", "announce", ("announcer",), ("open", "funding"), "R(1+δ) is held; a card must be authorised first"),
    Step("", "hold_auction", ("announcer",), ("agreed",), "announces, bids, closes and awards in one command"),
    Step("", "spot", ("recipient",), ("agreed",), "the best standing offer whose hold can be placed wins"),
    Step("funding", "pay", ("announcer",), ("open", "void"), "if authorised, bidding opens; if declined, void"),
    Step("funding", "withdraw", ("announcer",), ("void",), "the authorisation is released"),
    Step("funding", "ban", ("operator",), ("void",), "its announcer is banned"),
    Step("open", "ban", ("operator",), ("void",), "its announcer is banned; all holds are released"),
    Step("open", "bid", ("bidder",), ("open", "agreed"), "places the bid's hold; on a Dutch ramp the bid wins at once"),
    Step("open", "commit", ("bidder",), ("open",), "places the commitment's hold"),
    Step("open", "reveal", ("bidder",), ("open",), "the bid takes its commitment's place"),
    Step(
        "open", "withdraw", ("announcer",), ("void",), "only before the first bid or commitment; all holds are released"
    ),
    Step("agreed", "end", _SIDES, ("closing", "settled"), "settled at once if both state the same figure"),
    Step("agreed", "take_over", ("runner_up",), ("agreed",), "a runner-up takes over a rest, as a separate agreement"),
    Step("agreed", "stop_fail_over", ("recipient",), ("agreed",), _STOPPED),
    Step("running", "stop_fail_over", ("recipient",), ("running",), _STOPPED),
    Step("running", "hand_in", _SIDES, ("running",), "keeps the receipt"),
    Step("running", "end", _SIDES, ("closing", "settled"), "settled at once if both state the same figure"),
    Step(
        "running",
        "prove",
        ("recipient",),
        ("running",),
        "a result is proven wrong: it costs Φ, and its interval earns 0",
    ),
    Step("closing", "hand_in", _SIDES, ("closing",), "the highest receipt that both signed bounds the figures"),
    Step("closing", "end", _SIDES, ("closing", "settled"), "stated or restated; settled if the figures are equal"),
    Step("closing", "prove", ("recipient",), ("closing",), "as while it runs"),
    Step("closing", "stop_fail_over", ("recipient",), ("closing",), _STOPPED),
    Step(
        "closing",
        "arbitrate",
        ("arbiter",),
        ("closing",),
        "divides what would go to nobody; both sides named the arbiter",
    ),
    Step("settled", "hand_in", _SIDES, ("settled",), "a receipt above the stated figure: twice the difference is owed"),
    Step("settled", "refund", ("provider",), ("settled",), "returns part of the charge to the recipient"),
    Step(
        "settled",
        "charge_back",
        ("processor",),
        ("settled",),
        'the bank takes the charge back, which counts as a "no" about the payer',
    ),
    Step("settled", "rate", _SIDES, ("settled",), "the opinion's weight is the charge less what went back"),
)

_BY_COMMAND: Final[Mapping[tuple[str, str], Step]] = {(step.state, step.command): step for step in STEPS}
_BY_STATE: Final[Mapping[str, Stage]] = {stage.state: stage for stage in STAGES}


def step_of(state: str, command: str) -> Step:
    """The step for a command in this state. Raises WrongState if there is none."""
    step = _BY_COMMAND.get((state, command))
    if step is None:
        raise WrongState(f"no {command!r} from {state or 'nothing'!r}")
    return step


def next_state(state: str, command: str, wanted: str = "") -> str:
    """The state that the command leads to: `wanted` if it may follow, by default the first. Raises WrongState."""
    step = step_of(state, command)
    if wanted and wanted not in step.leads_to:
        raise WrongState(f"{command!r} does not lead from {state or 'nothing'!r} to {wanted!r}")
    return wanted or step.leads_to[0]


def by_time(state: str, wanted: str) -> str:
    """`wanted`, if the deadline of `state` leads there. Raises WrongState if it does not."""
    stage = _BY_STATE.get(state)
    if stage is None or wanted not in stage.leads_to:
        raise WrongState(f"no deadline leads from {state!r} to {wanted!r}")
    return wanted


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """The times that the deadlines of one auction and agreement depend on. `ended_ms` is when the first end was stated
    (0: none), `back_ms` when the market came back after an outage (0: there was none)."""

    announced_ms: int
    closes_ms: int
    starts_ms: int
    ends_ms: int
    reveal_until_ms: int = 0
    ended_ms: int = 0
    back_ms: int = 0
    grace_ms: int = GRACE_MS
    closing_ms: int = CLOSING_MS
    funding_ms: int = FUNDING_MS


def deadline_ms(state: str, times: Times) -> int | None:
    """When the state ends by itself; None for a final state. After an outage, no earlier than C after the market's
    return. Raises WrongState for an unknown state."""
    counted_ms = {
        "funding": times.announced_ms + times.funding_ms,
        "open": max(times.closes_ms, times.reveal_until_ms),
        "agreed": times.starts_ms + times.grace_ms,
        "running": times.ends_ms + times.grace_ms,
        "closing": (times.ended_ms or times.ends_ms + times.grace_ms) + times.closing_ms,
    }
    stage = _BY_STATE.get(state)
    if stage is None:
        raise WrongState(f"there is no state {state!r}")
    if not stage.deadline:
        return None
    due_ms = counted_ms[state]
    was_away = times.back_ms and due_ms < times.back_ms + times.closing_ms
    return times.back_ms + times.closing_ms if was_away else due_ms


def is_present(last_poll_ms: int | None, now_ms: int, grace_ms: int = GRACE_MS) -> bool:
    """A party is present if its last poll is at most G old."""
    return last_poll_ms is not None and now_ms - last_poll_ms <= grace_ms


def has_jumped(before_ms: int, now_ms: int) -> bool:
    """Whether the market's clock has jumped by an hour or more, in either direction; then what is due waits for the
    operator. The caller compares with a clock that does not jump, or with the last entry if the market had no
    outage."""
    return abs(now_ms - before_ms) >= JUMP_MS


def as_markdown() -> str:
    """The two tables in the documentation."""
    lines = ["| state | deadline | by time alone |", "| --- | --- | --- |"]
    for stage in STAGES:
        leads_to = f"{' or '.join(stage.leads_to)}: {stage.outcome}" if stage.deadline else "final"
        lines.append(f"| {stage.state} | {stage.deadline or 'none'} | {leads_to} |")
    lines += ["", "| in | command | by | leads to | what it does |", "| --- | --- | --- | --- | --- |"]
    for step in STEPS:
        cells = (step.state or "-", step.command, ", ".join(step.who), " or ".join(step.leads_to), step.outcome)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
