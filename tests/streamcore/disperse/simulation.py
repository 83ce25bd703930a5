"""Dispersal in a world that is made up: one seed is one schedule of joins, deaths, silence, lies, lateness, overload.

The world plays the loop, the workers, the clock, the routes and the aggregator around the real machine, and keeps its
own books. Whatever the machine does is checked against these at once (`Broken` says what and when).
simulated_workers.py has the workers' characters and the routes, test_simulation.py plays the schedules.
"""

from __future__ import annotations

import heapq
import random

from streamcore.core.counters import Counters
from streamcore.disperse import providers
from streamcore.disperse.actions import DeadLetter, Deliver, Dismiss, Fail, Kill, Send, Start, Unprocessed, Withdraw
from streamcore.disperse.backlog import FAULT, NO_AGREEMENT, OTHERS_S
from streamcore.disperse.elsewhere import FAILED_MAX, FAILED_SHARE
from streamcore.disperse.machine import JOIN_S, Machine
from streamcore.disperse.peer import START_S
from streamcore.disperse.places import PLACES_PER_KEY
from streamcore.disperse.scheduler import NO_LANE
from streamcore.disperse.terms import Terms
from tests.streamcore.disperse.simulated_workers import TRUSTED, Contracts, Plan, Worker

BEGIN_S = 1000.0
STEPS_MAX = 6000  # a schedule takes some 200
END_S = BEGIN_S + 3000  # by then everything has ended, whatever went wrong
SEGMENT_BYTES = 1000
CALM_S = 20.0  # how long workers come and go; then they come again now and then, until all is done
LOOK_S = 0.25  # between looks at the routes: with the real 0.01 a schedule that waits for a minute takes 6,000 steps
IDLE_MAX = 20  # times that the machine may wake up without anything to do


class Broken(AssertionError):
    """The machine did what it must not."""


class FakeSegment:
    __slots__ = ("byte_count", "lane", "number", "stream")

    def __init__(self, number, stream, lane, byte_count):
        self.number, self.stream, self.lane, self.byte_count = number, stream, lane, byte_count

    def __len__(self):
        return 3


class FakeResult:
    __slots__ = ("is_current", "is_true", "provider", "segment")

    def __init__(self, segment, is_true):
        self.segment, self.is_true, self.provider, self.is_current = segment, is_true, "", False


def same(one, other):
    return one.is_true == other.is_true


class Simulation:
    """One schedule. `plan`: what may happen; without one the seed says so."""

    def __init__(self, seed, plan=None):
        self.random = random.Random(seed)
        self.plan = plan or Plan.of(self.random)
        self.now_s, self.steps, self._sequence, self._events = BEGIN_S, 0, 0, []
        plan = self.plan
        self.contracts = Contracts(self, plan) if plan.providers else None
        self.counters = Counters()
        self.terms = Terms(
            workers=plan.workers, chains=[[]] * plan.streams, changes=[], accepted=[],
            deterministic=[True] * plan.streams, lease_ms=plan.lease_ms, attempts_max=plan.attempts_max,
            restarts_max=plan.restarts_max, credit=plan.credit, segment_bytes=SEGMENT_BYTES, audit=plan.audit,
            leases_max=plan.leases_max,
        )  # fmt: skip
        self.address = "here" if plan.keys or plan.providers else ""
        self.machine = Machine(self.terms, self.counters, self.contracts, self.address, self.random.random, same)
        self.workers = {}  # Peer -> Worker, of all that ever were
        self.present = []
        self.characters = {key: self.random.choice(plan.characters) for key in (*plan.keys, *plan.providers)}
        self.characters |= dict(plan.cast)
        self.struck, self.caught, self.guilty = set(), set(), set()
        self.blameless, self.were_struck = set(), set()  # struck now, and nothing else; struck at some time
        self.given_up = set()  # at some time
        self.segments, self.owner, self.attempts = {}, {}, {}
        self.failures, self.aside_s, self.lane_owner, self.lane_next = {}, {}, {}, {}
        self.poison = {n for n in range(plan.segments) if self.random.random() < plan.poison}
        self.arrived, self.left, self.next_to_leave = {}, [], 0  # the aggregator: what came, what left, in order
        self.came_at_s, self.leaves_at_s = {}, {}
        self.records, self.fruitless, self.changes = {}, {}, 0
        self.passing, self.failed = False, ""
        self.happened = set()
        self.told_bytes = self.sent = self.dead_letters = 0
        self.full_now, self.lied, self.claims = set(), set(), {}

    # The clock.

    def later(self, delay_s, what, *details):
        self._sequence += 1
        heapq.heappush(self._events, (self.now_s + delay_s, self._sequence, what, details))

    def run(self):
        looks_s, providers.LOOK_S = providers.LOOK_S, LOOK_S
        try:
            self.begin()
            self.play()
            self.check_end()
        finally:
            providers.LOOK_S = looks_s
        return self

    def begin(self):
        plan, chance = self.plan, self.random
        self.machine.start(self.now_s)
        self.act()
        left = plan.segments
        while left:
            count = min(left, chance.randint(1, plan.burst))
            self.later(chance.random() * plan.feed_s, self.feed, count)
            left -= count
        for key in (*plan.keys, *plan.providers):
            self.later(chance.random() * plan.join_s, self.join, key)
        for what, share in (
            (self.strike, plan.strikes),
            (self.overload, plan.overload),
            (self.block_ends, plan.blocks),
        ):
            for _ in range(3 if what == self.block_ends else 1):
                if chance.random() < share:
                    self.later(chance.random() * CALM_S / 4, what)

    def play(self):
        idle = 0
        while not self.machine.ended and not self.failed:
            self.steps += 1
            self.must(self.steps < STEPS_MAX and self.now_s < END_S, "it does not end")
            wake_s = self.machine.wake_s
            if self._events and self._events[0][0] <= wake_s:
                self.now_s, _, what, details = heapq.heappop(self._events)
                what(*details)
                idle = 0
            else:
                idle = idle + 1 if wake_s <= self.now_s else 0
                self.must(idle < IDLE_MAX, "it wakes up for nothing")
                self.now_s = max(self.now_s, wake_s)
            if self.now_s >= self.machine.wake_s:
                self.tick()
            self.act()
            self.check_step()

    def new_result(self, segment, is_true):
        return FakeResult(segment, is_true)

    def must(self, holds, words):
        if not holds:
            raise Broken(f"{words} (at {self.now_s - BEGIN_S:.3f} s, step {self.steps})")

    # What happens.

    def feed(self, count):
        made = []
        for _ in range(count):
            number = len(self.segments)
            stream = self.random.randrange(self.plan.streams)
            lane = self.random.randrange(self.plan.lanes) if self.plan.lanes else NO_LANE
            size = self.random.choice((1, 10, 200, SEGMENT_BYTES))
            self.segments[number] = FakeSegment(number, stream, lane, size)
            self.failures[number], self.attempts[number] = [], 0
            self.came_at_s[number] = self.now_s
            made.append(self.segments[number])
        self.machine.add(made, self.now_s)
        self.told_bytes += sum(segment.byte_count for segment in made)
        if len(self.segments) == self.plan.segments:
            self.machine.finish()

    def join(self, key):
        machine, chance = self.machine, self.random
        for _ in range(self.plan.joins_at_once):
            peer = machine.joined(key, self.now_s)
            if isinstance(peer, str):
                self.must(peer, "refused without a reason")
                self.must(key in self.struck or "not know this key" not in peer, "refused, though its key is known")
                self.happened.add("not let in")
                break
            self.must(key not in self.struck and key not in machine.places.given_up, "who may not join has joined")
            if self.characters[key] == "unreachable" and chance.random() < 0.5:
                machine.turned_away(peer)
                self.happened.add("turned away")
                continue
            if key in self.were_struck:
                self.happened.add("joined again")
            self.come(peer, self.characters[key])
        present = sum(worker.peer.key == key for worker in self.present)
        self.must(present <= PLACES_PER_KEY, "one key has too many places")
        self.later(0.2 + self.random.random() * (5 if self.now_s < BEGIN_S + CALM_S else 30), self.join_again, key)

    def join_again(self, key):
        if any(worker.peer.key == key for worker in self.present):
            self.later(5 + self.random.random() * 5, self.join_again, key)
        else:
            self.happened.add("asked again")
            self.join(key)

    def come(self, peer, character):
        worker = self.workers[peer] = Worker(self, peer, character)
        self.present.append(worker)
        self.changes += 1
        if character == "mute":
            worker.does_wrong()
        else:
            self.later(self.random.random() * (0.1 if character != "late" else START_S * 0.9), worker.hello)

    def strike(self):
        chance = self.random
        if known := (*self.plan.keys, *self.plan.providers):
            key = chance.choice(known)
            self.happened.add("struck")
            self.struck.add(key)
            self.were_struck.add(key)
            if key not in self.guilty and key in self.plan.keys:
                self.blameless.add(key)
            self.guilty.add(key)
            self.machine.struck(key, self.now_s)
            self.must(
                not any(each.peer.key == key and each.peer.leases for each in self.present), "struck, with leases"
            )

            if chance.random() < self.plan.known_again:
                self.later(chance.random() * 3, self.know, key)

    def know(self, key):
        """A struck key is known again. Whoever did nothing else is honest again."""
        self.happened.add("known again")
        self.struck.discard(key)
        if key in self.blameless:
            self.blameless.discard(key)
            self.guilty.discard(key)
        self.machine.known(key)
        if self.random.random() < 0.3:
            self.later(self.random.random() * 3, self.strike)

    def overload(self):
        self.happened.add("overload")
        self.passing = True
        self.machine.pass_waiting()

    def block_ends(self):
        if self.contracts is not None:
            self.happened.add("block ends")
            self.contracts.block_ends()
            self.later(0.5 + self.random.random() * 2, self.contracts.changes_its_mind)

    def tick(self):
        """The overdue are known to the world, too: by its own clock."""
        overdue = [worker for worker in self.present if worker.is_overdue]
        for worker in self.present:
            worker.note_begun()
        for worker in overdue:
            self.must(worker.is_excused, f"a {worker.character} worker is overdue: the world is wrong")
            self.book_gone(worker, FAULT)
        self.machine.tick(self.now_s)
        for worker in overdue:
            self.happened.add("hung")
            self.must(worker.peer.state == "gone", "whoever hangs is not noticed")

    # Books about failures, kept beside the machine's.

    def book_failure(self, number, identity, weight):
        self.failures[number].append((identity, weight))
        self.must(len(self.failures[number]) <= 4 * (self.terms.attempts_max + 1), "it is tried without end")
        if self.weight(number) >= FAULT * self.terms.attempts_max and not self.failed_enough(number):
            self.aside_s.setdefault(number, self.now_s)

    def book_gone(self, worker, weight):
        """A worker died or hangs: which segment that counts against."""
        if worker.peer.streams is None and worker.has_said_hello and (number := worker.suspected()) is not None:
            self.book_failure(number, worker.peer.identity, weight)

    def weight(self, number):
        return sum(weight for _, weight in self.failures[number])

    def failed_enough(self, number):
        identities = {identity for identity, _ in self.failures[number]}
        return len(identities) > 1 or any(isinstance(each, int) for each in identities)

    def book_accepted(self, worker, number):
        """Whoever failed what this one has done is given up, if that happens often."""
        key = worker.peer.key
        if key:
            self.records.setdefault(key, [0, 0])[0] += 1
        for identity in {identity for identity, _ in self.failures[number]} - {worker.peer.identity}:
            if isinstance(identity, str):
                record = self.records.setdefault(identity, [0, 0])
                record[1] += 1
                if record[1] >= FAILED_MAX and record[1] > FAILED_SHARE * record[0]:
                    self.happened.add("given up")
                    self.must(identity in self.machine.places.given_up, "whoever fails what others do stays")

    def book_audit(self, number, is_true):
        """A result was accepted. If it was to check another's claim, both are compared."""
        key, was_true, _ = self.claims.pop(number, ("", True, True))
        if key and self.contracts is not None and self.contracts.is_provider(key):
            stream = self.segments[number].stream
            self.contracts.must_be_told_audited.append((stream, key, is_true == was_true))
        if key and is_true != was_true:
            self.lied.add(key)
            self.claims = {each: claim for each, claim in self.claims.items() if claim[0] != key}

    @property
    def is_here(self):
        """Whether there is a worker on this machine."""
        return any(worker.peer.streams is None and not worker.peer.elsewhere for worker in self.present)

    def excuse(self, number):
        """A worker elsewhere lies, perhaps about a provider: which it can if nobody was here who could audit that."""
        key, _, was_here = self.claims.get(number, ("", True, True))
        if key and not was_here:
            self.guilty.add(key)

    # What the machine wants done.

    def act(self):
        again = True
        while again:
            again = False
            self.full_now.clear()
            for action in self.machine.decide(self.now_s):
                if isinstance(action, Send):
                    again |= self.send(action)
                elif isinstance(action, Deliver):
                    for result in action.results:
                        self.deliver(result)
                elif isinstance(action, DeadLetter):
                    self.dead_letter(action)
                elif isinstance(action, Unprocessed):
                    self.must(self.passing and not self.attempts[action.segment.number], "unprocessed, for no reason")
                    self.leave(action.segment, None)
                elif isinstance(action, Start):
                    self.start(action.peer)
                elif isinstance(action, Kill | Dismiss):
                    self.end(action)
                elif isinstance(action, Withdraw):
                    again = True
                    self.withdraw(action.key)
                elif isinstance(action, Fail):
                    own = [each for each in self.present if each.peer.streams is None and each.has_said_hello]
                    self.must(not own, "it gives up though somebody is there")
                    self.must(not self.address or self.now_s >= BEGIN_S + JOIN_S, "it gives up too early")
                    self.happened.add("no worker is left")
                    self.failed = action.reason
        self.passing = False
        self.must(self.lied <= self.caught, "a lie passes the audit")

    def send(self, action):
        """Whether something could not be sent."""
        worker, message = self.workers[action.peer], action.pending
        self.must(message and len(message) <= 64, "an empty message, or one too long")
        if worker in self.full_now:
            self.machine.not_sent(action, 0)
            return True
        self.must(
            worker in self.present and worker.has_said_hello and worker.has_room, "sent to whoever cannot take it"
        )
        self.must(not worker.is_leaving, "sent to one that leaves")
        sent = len(message)
        if self.random.random() < self.plan.full:
            sent = self.random.randrange(len(message))
        for pending in message[:sent]:
            self.check_send(worker, pending)
            worker.get(pending)
        self.sent += sent
        if worker.peer.streams is not None:
            self.contracts.is_sent(message[:sent])
        if sent < len(message):
            self.happened.add("full")
            worker.has_room = False
            self.full_now.add(worker)
            self.machine.not_sent(action, sent)
            self.later(0.001 + self.random.random() * self.random.choice((0.1, self.plan.room_s)), worker.room)
        worker.begin()
        return not worker.has_room

    def check_send(self, worker, pending):
        number, peer = pending.number, worker.peer
        self.must(number in self.segments and number not in self.arrived, "sent though it has left")
        self.must(self.owner.get(number) is None, "two workers have one segment")
        self.must(pending.attempt > self.attempts[number], "an attempt was there before")
        self.must(worker.may_have(pending.byte_count), "more than its credit")
        self.must(peer.streams is None or pending.stream in peer.streams, "a provider sees another's stream")
        if self.weight(number) >= FAULT * self.terms.attempts_max and number in self.aside_s:
            known = {identity for identity, _ in self.failures[number]}
            self.must(peer.identity not in known, "it goes again to the one who has failed it")
        self.check_others(worker, pending)
        self.check_lane(worker, pending)
        self.attempts[number], self.owner[number] = pending.attempt, worker

    def check_others(self, worker, pending):
        """Again only to one that has not failed it, if there is one."""
        failed_by = {identity for identity, _ in self.failures[pending.number]}
        if worker.peer.streams is None and worker.peer.identity in failed_by:
            others = [
                each for each in self.present
                if each.peer.streams is None and each.has_said_hello and each.peer.identity not in failed_by
                and each.peer.identity != pending.history.avoid
                and not (pending.history.on_this_machine and each.peer.elsewhere)
            ]  # fmt: skip
            self.must(not others, "it goes again to the one who has failed it, though there is another")

    def check_lane(self, worker, pending):
        lane = (pending.stream, pending.segment.lane)
        if pending.attempt > 1 or self.plan.providers or lane[1] == NO_LANE:
            return
        self.must(self.lane_next.get(lane, -1) < pending.number, "a lane's segments are out of order")
        self.lane_next[lane] = pending.number
        changes, owner = self.lane_owner.get(lane, (-1, None))
        self.must(changes != self.changes or owner is worker, "a lane has changed its worker")
        self.lane_owner[lane] = self.changes, worker

    def deliver(self, result):
        self.must(result.is_current, "a result counts that came too late, or did not pass")
        self.must(result.provider not in self.caught, "a result of one that was caught lying leaves")
        if self.plan.audit == 1.0 and self.plan.is_here_always and not self.plan.providers:
            self.must(result.is_true, "a lie leaves though everything is audited")
        self.leave(result.segment, result)

    def dead_letter(self, action):
        number = action.segment.number
        if action.reason == NO_AGREEMENT:
            self.happened.add("no agreement")
            self.must(self.contracts.of(action.segment.stream).kind in ("pass", "refuse"), "a dead letter, but a route")
        elif self.failed_enough(number):
            self.dead_letters += 1
            self.happened.add("dead letter")
            self.must(self.weight(number) >= FAULT * self.terms.attempts_max, "a dead letter too early")
        else:
            self.dead_letters += 1
            self.happened.add("dead letter of one key")
            waited_s = self.now_s - self.aside_s.get(number, self.now_s)
            self.must(waited_s >= OTHERS_S - 1e-6, "a dead letter though one worker alone has failed it")
        self.leave(action.segment, None)

    def leave(self, segment, result):
        """What the aggregator does: in order, each once."""
        number = segment.number
        self.must(segment is self.segments.get(number), "something leaves that never came")
        self.must(number not in self.arrived, "a segment comes back twice")
        self.must(self.owner.get(number) is None, "it comes back while a worker has it")
        self.arrived[number] = result
        self.leaves_at_s[number] = self.now_s
        while self.next_to_leave in self.arrived and self.random.random() < self.plan.writes:
            self.left.append(self.next_to_leave)
            self.next_to_leave += 1

    def withdraw(self, key):
        back = [n for n, r in self.arrived.items() if n >= self.next_to_leave and r is not None and r.provider == key]
        for number in back:
            del self.arrived[number]
            self.failures[number] = []
            self.aside_s.pop(number, None)
            self.attempts[number] = 0
        self.happened.add("withdrawn" if back else "caught")
        self.caught.add(key)
        self.must(key in self.guilty, "an honest worker is called a liar")
        self.machine.withdrawn(key, [self.segments[number] for number in back], self.now_s)

    def start(self, peer):
        worker = self.random.choice(self.plan.characters)
        character = worker if worker in TRUSTED else "honest"
        self.fruitless.setdefault(peer.slot, 0)
        self.must(self.fruitless[peer.slot] <= self.plan.restarts_max, "started again and again for nothing")
        self.come(peer, character)

    def end(self, action):
        worker = self.workers[action.peer]
        self.must(worker in self.present, "somebody is ended twice")
        if isinstance(action, Dismiss):
            self.must(not worker.held, "dismissed with segments")
            self.happened.add("dismissed")
        else:
            self.must(worker.is_guilty, f"a worker that did nothing wrong is ended: {worker.character}")
        self.present.remove(worker)
        self.changes += 1
        self.fruitless[worker.peer.slot] = 0 if worker.answered else self.fruitless.get(worker.peer.slot, 0) + 1
        worker.drop()

    def check_step(self):
        """Nobody hangs unnoticed; nobody honest is given up; nobody is idle while a segment waits that it may have."""
        for worker in self.present:
            self.must(not worker.is_overdue_by(1e-6), "whoever hangs is not noticed")
        self.must(self.guilty.issuperset(self.machine.places.given_up), "somebody honest is given up")
        self.given_up.update(self.machine.places.given_up)
        self.must(self.given_up <= self.machine.places.given_up.keys(), "who was given up may come again")
        if self.plan.lanes or self.plan.providers or self.failed:
            return
        for queue in self.machine.backlog.waiting.values():
            for worker in self.present if queue else ():
                idle = worker.has_said_hello and worker.has_room and worker.has_credit(queue[0].byte_count)
                self.must(not idle, "a segment waits for a worker that has credit")

    def check_end(self):
        """Everything has left once, in order; the routes were told everything; nobody has anything."""
        if self.failed:
            return
        total = self.plan.segments
        self.must(len(self.segments) == total == len(self.arrived), "something is missing at the end")
        self.left += range(self.next_to_leave, total)
        self.must(self.left == list(range(total)), "they did not leave in order")
        self.must(not self.machine.backlog.pending and not self.machine.backlog.is_waiting, "something is left")
        self.must(not any(worker.held for worker in self.present), "somebody still has something")
        self.machine.decide(self.now_s)  # it tells the last that was sent
        self.must(self.counters.events("segments.dispersed") == self.sent, "what was sent is miscounted")
        self.must(self.counters.events("segments.dead_lettered") == self.dead_letters, "dead letters are miscounted")
        for slot in self.machine.places.slots:
            bound_ns = slot.tally.segments * (self.now_s - BEGIN_S) * 1e9
            self.must(slot.tally.busy_ns <= bound_ns, "a worker's word about its time counts")
        if self.contracts is not None:
            self.contracts.check()
