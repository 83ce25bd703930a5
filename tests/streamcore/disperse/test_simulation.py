"""Seeded schedules of everything that may happen to dispersal, played against the state machine.

DISPERSE_SCHEDULES says how many are played; tests/conftest.py says how many without it. A schedule that fails is played
again with `Simulation(seed).run()`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from streamcore.disperse import peer, pending, places, states
from tests.streamcore.disperse.simulated_workers import Plan
from tests.streamcore.disperse.simulation import Broken, Simulation

SCHEDULES = int(os.environ["DISPERSE_SCHEDULES"])
SCHEDULES_A_TEST = 500
ARCHITECTURE = Path(__file__).parents[3] / "docs/ARCHITECTURE.md"


@pytest.mark.parametrize("first", range(0, SCHEDULES, SCHEDULES_A_TEST))
def test_no_schedule_breaks_an_invariant(first):
    for seed in range(first, first + SCHEDULES_A_TEST):
        simulation = Simulation(seed)
        try:
            simulation.run()
        except Exception as error:
            pytest.fail(f"Simulation({seed}): {type(error).__name__}: {error}; {simulation.plan}")


# What went wrong once: the seed, and what it was.
FOUND = {
    40: "the loop was woken without end at the moment at which a provider has not joined",
    251: "the same, between two looks at the routes",
    274: "the same, at the moment at which nobody has joined for a minute",
    3905: "a segment that was set aside and could not be sent waited for ever",
}


@pytest.mark.parametrize("seed", FOUND)
def test_what_once_went_wrong_goes_well(seed):
    Simulation(seed).run()


# Every fault that issue 19 names, as schedules of their own: the plan, and what must have happened in some of them.
FAULTS = {
    "results that do not pass, from a worker elsewhere": (
        Plan(workers=1, keys=("A",), cast=(("A", "bad"),)), {"Bad"}),
    "reports of our own workers that do not pass": (
        Plan(workers=2, characters=("honest", "bad")), {"Bad", "dead letter"}),
    "messages that no worker sends": (
        Plan(workers=1, keys=("A", "B"), cast=(("A", "babbling"), ("B", "honest"))), {"babbled"}),
    "one key takes all places": (
        Plan(workers=0, keys=("A", "B"), joins_at_once=70, segments=5, feed_s=0.5), {"not let in"}),
    "a failing worker that joins again and again, beside a good one": (
        Plan(workers=0, keys=("A", "B"), cast=(("A", "failing"), ("B", "honest")), segments=40),
        {"given up", "Failed"}),
    "a worker that joins, takes segments and leaves": (
        Plan(workers=0, keys=("A", "B"), cast=(("A", "leaving"), ("B", "slow")), segments=40, feed_s=10.0),
        {"died", "asked again"}),
    "a worker that says what is not true, audited": (
        Plan(workers=1, keys=("A", "B"), cast=(("A", "lying"), ("B", "honest")), audit=1.0), {"caught", "audited"}),
    "a lie is withdrawn if it has not left": (
        Plan(workers=1, keys=("A",), cast=(("A", "lying"),), audit=0.3, writes=0.05, segments=40), {"withdrawn"}),
    "nobody is left who could audit": (
        Plan(workers=1, keys=("A",), characters=("dying",), cast=(("A", "honest"),), audit=1.0, restarts_max=0),
        {"audited", "died"}),
    "a liar was caught, and then nobody is left who could audit": (
        Plan(workers=1, keys=("A",), characters=("dying",), cast=(("A", "lying"),), audit=1.0, restarts_max=0,
             segments=40, burst=20, leases_max=32), {"caught", "no worker is left"}),
    "a worker elsewhere would lie about a provider": (
        Plan(workers=1, keys=("A",), providers=("P",), cast=(("A", "lying"), ("P", "honest")), audit=1.0),
        {"audited in-house"}),
    "only a provider is left, but not for all streams": (
        Plan(workers=1, providers=("P",), characters=("dying",), cast=(("P", "honest"),), restarts_max=0, streams=3),
        {"no worker is left"}),
    "workers die, by their own fault or not": (
        Plan(workers=3, characters=("dying", "killed", "honest"), lanes=3), {"died", "killed"}),
    "workers hang": (Plan(workers=2, keys=("A",), characters=("silent", "honest")), {"hung"}),
    "a worker never does the first of what it has": (
        Plan(workers=1, characters=("skipping",), segments=150, feed_s=2.5, burst=3, lease_ms=500), {"hung"}),
    "workers never say hello": (
        Plan(workers=1, keys=("A",), characters=("mute", "late", "honest"), feed_s=40.0), {"hung"}),
    "workers refuse": (Plan(workers=2, characters=("refusing", "honest"), restarts_max=1), {"refused"}),
    "results come twice": (Plan(workers=1, keys=("A",), characters=("doubling", "honest")), {"doubled"}),
    "results come too late": (
        Plan(workers=1, keys=("A",), characters=("silent", "slow"), strikes=1.0), {"late", "struck"}),
    "segments that nobody can do": (
        Plan(workers=2, keys=("A", "B"), poison=0.3), {"dead letter", "Failed", "died"}),
    "segments that one worker elsewhere alone has failed": (
        Plan(workers=0, keys=("A",), poison=0.2), {"dead letter of one key"}),
    "one worker alone has failed them, and the other takes nothing now": (
        Plan(workers=0, keys=("A", "B"), characters=("honest", "late"), poison=0.3, attempts_max=1, full=0.6,
             strikes=1.0, room_s=0.1),
        {"dead letter", "full"}),
    "nobody runs a stream any more": (
        Plan(workers=1, providers=("P",), cast=(("P", "failing"),), attempts_max=1, segments=40), {"no agreement"}),
    "a key is struck while the run goes on": (
        Plan(workers=1, keys=("A", "B"), characters=("slow",), strikes=1.0), {"struck"}),
    "a struck key is known again, and its worker joins again": (
        Plan(workers=1, keys=("A", "B"), characters=("slow",), strikes=1.0, known_again=1.0, feed_s=20.0, segments=40),
        {"struck", "known again", "joined again"}),
    "the key of one who was given up is struck, and known again": (
        Plan(workers=0, keys=("A", "B"), cast=(("A", "failing"), ("B", "honest")), strikes=1.0, known_again=1.0,
             feed_s=20.0, segments=40),
        {"given up", "known again"}),
    "overload": (Plan(workers=1, characters=("slow",), overload=1.0, burst=30, feed_s=0.1), {"overload"}),
    "sockets are full": (Plan(workers=2, keys=("A",), full=0.5, lanes=2), {"full"}),
    "a worker gets no port": (Plan(workers=1, keys=("A",), cast=(("A", "unreachable"),)), {"turned away"}),
    "nobody joins": (Plan(workers=0, keys=("A",), cast=(("A", "mute"),)), {"no worker is left"}),
    "a provider lies": (
        Plan(workers=1, keys=("A",), providers=("P",), cast=(("P", "lying"), ("A", "lying")), audit=0.5, segments=40),
        {"audited in-house", "suspended"}),
    "a provider fails, hangs or dies": (
        Plan(workers=1, providers=("P", "Q"), characters=("failing", "silent", "dying", "honest"), streams=3),
        {"suspended", "Failed", "died", "hung"}),
    "a provider does not join": (
        Plan(workers=1, providers=("P",), cast=(("P", "mute"),)), {"suspended"}),
    "blocks end": (
        Plan(workers=1, providers=("P", "Q"), streams=3, blocks=1.0, feed_s=10.0), {"block ends", "dismissed"}),
    "a provider that takes nothing now is to join again": (
        Plan(workers=1, providers=("P", "Q"), streams=6, segments=60, blocks=1.0, feed_s=9.0, full=0.9, room_s=9.0),
        {"full", "dismissed"}),
    "a provider has a maximum rate, or helps": (
        Plan(workers=1, providers=("P",), streams=3, limited=True, helps=True, full=0.3), {"full"}),
}  # fmt: skip
ATTEMPTS, SOME = 20, 10


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_a_schedule(name):
    plan, must_happen = FAULTS[name]
    happened = set()
    for seed in range(ATTEMPTS):
        try:
            happened |= Simulation(seed, plan).run().happened
        except Broken as error:
            pytest.fail(f"Simulation({seed}, FAULTS[{name!r}][0]): {error}")
    assert must_happen <= happened, happened


def test_a_failing_worker_costs_the_healthy_one_beside_it_nothing():
    plan, _ = FAULTS["a failing worker that joins again and again, beside a good one"]
    for seed in range(ATTEMPTS):
        simulation = Simulation(seed, plan).run()
        assert simulation.dead_letters == 0, seed
        assert all(result is not None for result in simulation.arrived.values()), seed


def test_a_slow_provider_holds_no_other_stream_back():
    plan = Plan(workers=1, providers=("P",), cast=(("P", "slow"),), streams=2, segments=30, lease_ms=4000, feed_s=1.0)
    for seed in range(ATTEMPTS):
        simulation = Simulation(seed, plan).run()
        others = [
            number for number, each in simulation.segments.items() if each.stream not in simulation.contracts.routes
        ]
        left_s = [simulation.leaves_at_s[number] - simulation.came_at_s[number] for number in others]
        assert max(left_s, default=0) < 3.0, seed  # the provider takes two seconds for each of its own


class Watched(dict):
    """A table that notes which of its rows are looked up."""

    def __init__(self, table):
        super().__init__(table)
        self.rows = set()

    def __getitem__(self, row):
        self.rows.add(row)
        return super().__getitem__(row)


def test_every_row_of_the_tables_is_played(monkeypatch):
    segment, of_peer = Watched(states.SEGMENT), Watched(states.PEER)
    for module in (pending, peer):
        monkeypatch.setattr(module, "SEGMENT", segment)
    for module in (peer, places):
        monkeypatch.setattr(module, "PEER", of_peer)
    for seed in range(100):
        Simulation(seed).run()
    for plan, _ in FAULTS.values():
        for seed in range(SOME):
            Simulation(seed, plan).run()
    assert segment.rows == set(states.SEGMENT)
    assert of_peer.rows == set(states.PEER)


def test_the_documented_tables_are_the_machines():
    rows = re.findall(r"^  \| ([a-z ]+) \| ([a-z ]+) \| ([a-z ]+) \|$", ARCHITECTURE.read_text(), re.MULTILINE)
    tables = [(*row, after) for table in (states.SEGMENT, states.PEER) for row, after in table.items()]
    assert [row for row in rows if row[1] != "and"] == tables
