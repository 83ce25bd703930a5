"""The table of states: it is complete, what is planted in it is found, and deadlines are those of the rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from auction.model.errors import WrongState
from auction.model.lifecycle import (
    STAGES,
    STEPS,
    Stage,
    Step,
    Times,
    as_markdown,
    by_time,
    deadline_ms,
    has_jumped,
    is_present,
    next_state,
    step_of,
)

TIMES = Times(announced_ms=1_000_000, closes_ms=2_000_000, starts_ms=3_000_000, ends_ms=3_060_000)


def gaps(stages: Sequence[Stage] = STAGES, steps: Sequence[Step] = STEPS) -> list[str]:
    """Lists the faults of a table, in words. A complete table has none: each state is reached from an announcement, and
    deadlines alone bring each state to a final one."""
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


def test_the_table_is_complete() -> None:
    assert gaps() == []
    assert [stage.state for stage in STAGES] == ["funding", "open", "agreed", "running", "closing", "settled", "void"]


@pytest.mark.parametrize(
    ("stages", "steps", "words"),
    [
        ((*STAGES, Stage("lost", "an hour", ("void",), "x")), STEPS, "lost is never reached"),
        ((*STAGES[:3], Stage("running"), *STAGES[4:]), STEPS[:-99], "running is never reached"),
        ((*STAGES[:3], Stage("running", "1 h", ("running",), "x"), *STAGES[4:]), STEPS, "running need not end"),
        ((*STAGES[:3], Stage("running", "1 h", ("open",), "x"), *STAGES[4:]), STEPS, "running need not end"),
        ((*STAGES[:3], Stage("running", "1 h", ("closing",)), *STAGES[4:]), STEPS, "running has a deadline or an out"),
        ((*STAGES, STAGES[0]), STEPS, "funding stands twice"),
        (STAGES, (*STEPS, Step("open", "bid", ("x",), ("open",), "")), "bid stands twice in open"),
        (STAGES, (*STEPS, Step("open", "x", (), ("open",), "")), "nobody may x in open"),
        (STAGES, (*STEPS, Step("open", "x", ("x",), ("gone",), "")), "gone is no state"),
        (STAGES, (*STEPS, Step("lost", "x", ("x",), ("open",), "")), "lost is no state"),
    ],
)  # fmt: skip
def test_a_gap_is_found(stages: tuple[Stage, ...], steps: tuple[Step, ...], words: str) -> None:
    assert any(words in gap for gap in gaps(stages, steps))


@pytest.mark.parametrize(
    ("state", "due_ms"),
    [
        ("funding", 1_900_000),
        ("open", 2_000_000),
        ("agreed", 3_010_000),
        ("running", 3_070_000),
        ("closing", 6_670_000),
        ("settled", None),
        ("void", None),
    ],
)
def test_a_deadline(state: str, due_ms: int | None) -> None:
    assert deadline_ms(state, TIMES) == due_ms


def test_deadlines_follow_the_first_end_the_reveal_and_the_markets_return() -> None:
    def due(state: str, **others: int) -> int | None:
        return deadline_ms(
            state, Times(announced_ms=0, closes_ms=2_000_000, starts_ms=3_000_000, ends_ms=3_060_000, **others)
        )

    assert due("closing", ended_ms=3_030_000) == 6_630_000
    assert due("open", reveal_until_ms=2_600_000) == 2_600_000
    assert due("closing", back_ms=5_000_000) == 8_600_000
    assert due("closing", back_ms=3_000_000) == 6_670_000, (
        "away before, and the deadline is later than its return and C"
    )
    assert due("settled", back_ms=5_000_000) is None
    with pytest.raises(WrongState):
        due("lost")


def test_what_leads_nowhere_is_refused() -> None:
    assert next_state("open", "bid") == "open"
    assert next_state("open", "bid", "agreed") == "agreed"
    assert by_time("agreed", "closing") == "closing"
    assert step_of("closing", "end").who == ("recipient", "provider")
    for state, command, wanted in (
        ("settled", "end", ""),
        ("open", "bid", "settled"),
        ("gone", "bid", ""),
        ("void", "bid", ""),
    ):
        with pytest.raises(WrongState):
            next_state(state, command, wanted)
    for state, wanted in (("agreed", "settled"), ("settled", "void"), ("gone", "void")):
        with pytest.raises(WrongState):
            by_time(state, wanted)


def test_presence_and_a_clock_that_jumps() -> None:
    assert is_present(90_000, 100_000)
    assert not is_present(89_999, 100_000)
    assert not is_present(None, 100_000)
    assert has_jumped(0, 3_600_000)
    assert has_jumped(3_600_000, 0)
    assert not has_jumped(0, 3_599_999)


def test_the_documentations_tables_have_every_row() -> None:
    text = as_markdown()
    assert text.count("\n") == 2 + len(STAGES) + 3 + len(STEPS)
    assert all(f"| {step.state or '-'} | {step.command} | " in text for step in STEPS)
