"""The life of an auction and of its agreement as one table: states, commands, who may, deadlines and outcomes. Pure.

`tick` follows it, and the documentation is drawn from it. What a command does in detail stands in the moderator's
rules; who gets which money at the end, in closing.py. Times are milliseconds of the market's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from auction.model.errors import WrongState

FUNDING_MS: Final = 15 * 60_000
OPEN_MS_MAX: Final = 24 * 3_600_000
REVEAL_MS: Final = 10 * 60_000
GRACE_MS: Final = 10_000  # G
CLOSING_MS: Final = 3_600_000  # C
GROUP_MS: Final = 3_600_000
CHARGEBACK_MS: Final = 120 * 24 * 3_600_000  # the time in which charges can be taken back
JUMP_MS: Final = 3_600_000


class Step(msgspec.Struct, frozen=True):
    """A command: in which state who may give it, and which states may follow. The first is what it is for; the others
    are what it comes to where `outcome` says so."""

    state: str
    command: str
    who: tuple[str, ...]
    leads_to: tuple[str, ...]
    outcome: str


class Stage(msgspec.Struct, frozen=True):
    """A state: until when it lasts, in words, and what comes of it by time alone. Without a deadline it is an end."""

    state: str
    deadline: str = ""
    leads_to: tuple[str, ...] = ()
    outcome: str = ""


STAGES: Final = (
    Stage(
        "funding",
        "15 minutes after the announcement",
        ("void",),
        "the card was not authorised: nobody could bid, and nothing was held",
    ),
    Stage(
        "open",
        "closes_ms, 24 hours after the announcement at most and before the start; with commitments 10 minutes later",
        ("agreed", "void"),
        "awarded to the best bid whose hold can be placed, which is the agreement; void without one, and all goes "
        "back; what was committed and not revealed goes to nobody",
    ),
    Stage(
        "agreed",
        "starts_ms + G",
        ("running", "closing"),
        "running where both sides have polled within G; else closing, and who was not there counts as absent",
    ),
    Stage("running", "ends_ms + G", ("closing",), "nobody has stated an end: closing begins"),
    Stage(
        "closing",
        "C after the first stated end, or after ends_ms + G",
        ("settled",),
        "the figures are bounded to what both signed and e beyond, and the table of ends pays",
    ),
    Stage("settled"),
    Stage("void"),
)

_SIDES: Final = ("recipient", "provider")
STEPS: Final = (
    Step("", "announce", ("announcer",), ("open", "funding"), "R(1+δ) is held; by card: first to be authorised"),
    Step("", "hold_auction", ("announcer",), ("agreed",), "announced, bid, closed and awarded in one command"),
    Step("", "spot", ("recipient",), ("agreed",), "the best standing offer that can be held is awarded"),
    Step("funding", "pay", ("announcer",), ("open", "void"), "authorised: bidding opens; declined: void"),
    Step("funding", "withdraw", ("announcer",), ("void",), "what was authorised is given back"),
    Step("funding", "ban", ("operator",), ("void",), "its announcer is banned"),
    Step("open", "ban", ("operator",), ("void",), "its announcer is banned: all goes back"),
    Step("open", "bid", ("bidder",), ("open", "agreed"), "the bid's hold is placed; on a Dutch ramp it wins at once"),
    Step("open", "commit", ("bidder",), ("open",), "the commitment's hold is placed"),
    Step("open", "reveal", ("bidder",), ("open",), "the bid stands where its commitment stood"),
    Step("open", "withdraw", ("announcer",), ("void",), "before the first bid or commitment alone: all goes back"),
    Step("agreed", "end", _SIDES, ("closing", "settled"), "settled at once where both state the same figure"),
    Step("agreed", "take_over", ("runner_up",), ("agreed",), "a rest is taken over, as an agreement of its own"),
    Step("running", "hand_in", _SIDES, ("running",), "a receipt is kept"),
    Step("running", "end", _SIDES, ("closing", "settled"), "settled at once where both state the same figure"),
    Step("running", "prove", ("recipient",), ("running",), "a result is proven wrong: Φ, and the interval earns 0"),
    Step("closing", "hand_in", _SIDES, ("closing",), "the highest receipt that both signed bounds the figures"),
    Step("closing", "end", _SIDES, ("closing", "settled"), "stated or restated; settled where the figures are equal"),
    Step("closing", "prove", ("recipient",), ("closing",), "as while it runs"),
    Step("closing", "arbitrate", ("arbiter",), ("closing",), "hands out what would go to nobody; both sides named it"),
    Step("settled", "hand_in", _SIDES, ("settled",), "a receipt above the stated figure: owed, and as much again"),
    Step("settled", "refund", ("provider",), ("settled",), "part of the charge goes back to the recipient"),
    Step("settled", "charge_back", ("processor",), ("settled",), 'the charge is taken back: a "no" about the payer'),
    Step("settled", "rate", _SIDES, ("settled",), "the opinion weighs what stayed of the charge"),
)

_BY_COMMAND: Final[Mapping[tuple[str, str], Step]] = {(step.state, step.command): step for step in STEPS}
_BY_STATE: Final[Mapping[str, Stage]] = {stage.state: stage for stage in STAGES}


def step_of(state: str, command: str) -> Step:
    """What the command is in this state. Raises WrongState where it is none."""
    step = _BY_COMMAND.get((state, command))
    if step is None:
        raise WrongState(f"no {command!r} from {state or 'nothing'!r}")
    return step


def next_state(state: str, command: str, wanted: str = "") -> str:
    """The state that the command leads to: the first of its states, or `wanted` of them. Raises WrongState."""
    step = step_of(state, command)
    if wanted and wanted not in step.leads_to:
        raise WrongState(f"{command!r} does not lead from {state or 'nothing'!r} to {wanted!r}")
    return wanted or step.leads_to[0]


def by_time(state: str, wanted: str) -> str:
    """The state that its deadline leads to. Raises WrongState where it does not lead there."""
    stage = _BY_STATE.get(state)
    if stage is None or wanted not in stage.leads_to:
        raise WrongState(f"no deadline leads from {state!r} to {wanted!r}")
    return wanted


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """What the deadlines of one auction and agreement are counted from. `ended_ms` is when the first end was stated (0:
    none was), `back_ms` when the market came back after it was away (0: it never was)."""

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
    """When the state ends by itself; None for one that is an end. After the market was away, no earlier than its return
    and C. Raises WrongState for a state that is none."""
    counted_ms = {
        "funding": times.announced_ms + times.funding_ms,
        "open": max(times.closes_ms, times.reveal_until_ms),
        "agreed": times.starts_ms + times.grace_ms,
        "running": times.ends_ms + times.grace_ms,
        "closing": (times.ended_ms or times.ends_ms + times.grace_ms) + times.closing_ms,
    }
    stage = _BY_STATE.get(state)
    if stage is None:
        raise WrongState(f"{state!r} is no state")
    if not stage.deadline:
        return None
    due_ms = counted_ms[state]
    was_away = times.back_ms and due_ms < times.back_ms + times.closing_ms
    return times.back_ms + times.closing_ms if was_away else due_ms


def is_present(last_poll_ms: int | None, now_ms: int, grace_ms: int = GRACE_MS) -> bool:
    """Present: the last poll of the market is at most G old."""
    return last_poll_ms is not None and now_ms - last_poll_ms <= grace_ms


def has_jumped(before_ms: int, now_ms: int) -> bool:
    """Whether the market's clock has moved by an hour or more, back or forth: what is due then waits for the operator.
    The caller compares with a clock that does not jump, or with the last entry while the market was never away."""
    return abs(now_ms - before_ms) >= JUMP_MS


def gaps(stages: Sequence[Stage] = STAGES, steps: Sequence[Step] = STEPS) -> list[str]:
    """What is wrong with a table, in words; nothing where it is complete: each state is reached from an announcement,
    and by deadlines alone each comes to an end after finitely many."""
    known = {stage.state: stage for stage in stages}
    halves = [one.state for one in stages if bool(one.deadline) != bool(one.outcome)]
    wrong = [f"{state} has a deadline or an outcome alone" for state in halves]
    wrong += [f"{state} stands twice" for state, count in Counter(one.state for one in stages).items() if count > 1]
    named = {state for stage in stages for state in stage.leads_to} | {step.state for step in steps if step.state}
    named |= {state for step in steps for state in step.leads_to}
    wrong += [f"{state} is no state" for state in sorted(named - set(known))]
    pairs = Counter((step.state, step.command) for step in steps)
    wrong += [f"{command} stands twice in {state}" for (state, command), count in pairs.items() if count > 1]
    wrong += [f"nobody may {step.command} in {step.state}" for step in steps if not step.who or not step.leads_to]
    reached, waiting = set[str](), [state for step in steps if not step.state for state in step.leads_to]
    while waiting:
        state = waiting.pop()
        if state in reached or state not in known:
            continue
        reached.add(state)
        waiting += known[state].leads_to
        waiting += [after for step in steps if step.state == state for after in step.leads_to]
    wrong += [f"{state} is never reached" for state in known if state not in reached]
    ending = {state for state, stage in known.items() if not stage.leads_to and not stage.deadline}
    for _ in known:
        ending |= {state for state, stage in known.items() if stage.leads_to and set(stage.leads_to) <= ending}
    return wrong + [f"{state} need not end" for state in known if state not in ending]


def as_markdown() -> str:
    """The two tables, as the documentation shows them."""
    lines = ["| state | deadline | by time alone |", "| --- | --- | --- |"]
    for stage in STAGES:
        leads_to = f"{' or '.join(stage.leads_to)}: {stage.outcome}" if stage.deadline else "an end"
        lines.append(f"| {stage.state} | {stage.deadline or 'none'} | {leads_to} |")
    lines += ["", "| in | command | by | leads to | what it does |", "| --- | --- | --- | --- | --- |"]
    for step in STEPS:
        cells = (step.state or "-", step.command, ", ".join(step.who), " or ".join(step.leads_to), step.outcome)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
