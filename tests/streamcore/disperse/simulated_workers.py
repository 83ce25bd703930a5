"""The workers and the routes of the simulation: what each kind of worker does, and what the routes must be told.

simulation.py has the world that they live in.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from streamcore.core.routes import Route
from streamcore.disperse.backlog import FAULT, KILLED
from streamcore.disperse.machine import Bad, Failed
from streamcore.disperse.peer import LEASES_MAX, QUICK_LEASES_MAX, START_S
from streamcore.disperse.providers import FAILURES_MAX

# What a worker is like. The first ones do nothing wrong.
HONEST = ("honest", "slow", "out of turn", "late")
CHARACTERS = (
    *HONEST, "silent", "skipping", "dying", "killed", "failing", "bad", "lying", "doubling", "babbling", "refusing",
    "mute", "leaving", "unreachable",
)  # fmt: skip
ELSEWHERE_ONLY = {"lying", "leaving", "unreachable"}  # workers on this machine are trusted not to lie
TRUSTED = [each for each in CHARACTERS if each not in ELSEWHERE_ONLY]

BYTES_A_SECOND = 20_000  # the maximum rate, where there is one


@dataclass
class Plan:
    """What may happen in one schedule. Shares are probabilities."""

    workers: int = 2
    keys: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    streams: int = 1
    lanes: int = 0  # 0: none
    segments: int = 20
    attempts_max: int = 3
    restarts_max: int = 3
    credit: int = 2
    leases_max: int = 4
    lease_ms: int = 1000
    audit: float = 0.0
    characters: tuple[str, ...] = ("honest",)  # of workers, drawn from
    poison: float = 0.0  # the share of segments that nobody can do
    burst: int = 6  # segments that come together
    feed_s: float = 2.0
    join_s: float = 1.0
    joins_at_once: int = 1
    strikes: float = 0.0
    known_again: float = 0.0  # the share of struck keys that are known again, and perhaps struck once more
    overload: float = 0.0
    blocks: float = 0.0
    full: float = 0.0  # of messages that cannot be sent whole
    room_s: float = 2.0  # how long that lasts at most
    writes: float = 0.7  # how soon the aggregator's results leave
    limited: bool = False  # the providers' streams have a maximum rate
    cast: tuple[tuple[str, str], ...] = ()  # the characters of these keys are not drawn
    helps: bool = False  # the providers take what the run's own workers have no time for

    @classmethod
    def of(cls, chance):
        """A plan of everything."""
        kinds = chance.choice(("here", "here", "elsewhere", "elsewhere", "both", "both", "providers", "providers"))
        some = chance.sample((*CHARACTERS, "lying", "lying", "failing"), chance.choice((0, 1, 1, 2, 3)))
        plan = cls(
            workers=0 if kinds == "elsewhere" else chance.randint(1, 3),
            keys=() if kinds == "here" else ("A", "B", "C")[: chance.randint(1, 3)],
            providers=("P", "Q")[: chance.randint(1, 2)] if kinds == "providers" else (),
            streams=chance.randint(1, 3),
            lanes=chance.choice((0, 0, 1, 3)),
            segments=chance.randint(1, 30),
            attempts_max=chance.choice((1, 2, 3, 3)),
            restarts_max=chance.choice((0, 1, 4)),
            credit=chance.randint(1, 4),
            leases_max=chance.choice((1, 2, 4, 32)),
            lease_ms=chance.choice((500, 1000)),
            audit=chance.choice((0.3, 1.0) if "lying" in some else (0.0, 0.3, 1.0)),
            characters=("honest", *some),
            poison=chance.choice((0.0, 0.0, 0.0, 0.1)),
            burst=chance.choice((1, 6, 20)),
            feed_s=chance.choice((0.1, 2.0, 10.0)),
            strikes=chance.choice((0.0, 0.0, 1.0)),
            overload=chance.choice((0.0, 0.0, 1.0)),
            blocks=chance.choice((0.0, 0.8)),
            full=chance.choice((0.0, 0.0, 0.3)),
            writes=0.1 if "lying" in some else chance.choice((0.1, 0.7, 1.0)),
            limited=chance.random() < 0.3,
            helps=chance.random() < 0.3,
        )
        if kinds == "providers" and chance.random() < 0.5:
            plan.keys = ()
        plan.known_again = 0.7 if plan.strikes and plan.segments % 2 == 0 else 0.0
        return plan

    @property
    def is_here_always(self):
        """Whether there is a worker on this machine from the beginning to the end."""
        deadly = set(self.characters) & set(TRUSTED) - set(HONEST)
        return self.workers > 0 and not deadly and not self.poison

    def __str__(self):
        return ", ".join(
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(self)
            if getattr(self, each.name) != each.default
        )


class Worker:
    """One worker, behind one peer. `held`: what it has, in order, by the world's books."""

    def __init__(self, world, peer, character):
        self.world, self.peer, self.character, self.chance = world, peer, character, world.random
        self.has_said_hello, self.has_room, self.is_excused = False, True, False
        self.held, self.queue, self.outbox = {}, [], []
        self.bytes_held = self.answered = self.failures = 0
        self.clock_s, self.busy_until_s, self.arrives_s = world.now_s, 0.0, 0.0
        self.begun = None  # the segment and attempt that it works on, or worked on last
        self.is_working = self.is_hanging = False

    @property
    def is_present(self):
        return self in self.world.present

    @property
    def is_leaving(self):
        return self.peer.state == "leaving"

    @property
    def is_guilty(self):
        """Whether it, or another with its key, has done what costs the place."""
        return self.is_excused or self.peer.key in self.world.guilty

    @property
    def is_overdue(self):
        return self.is_overdue_by(0.0)

    def is_overdue_by(self, time_s):
        allowed_s = self.lease_s if self.has_said_hello else START_S
        waited_for = self.held or not self.has_said_hello
        return bool(waited_for) and self.world.now_s >= self.clock_s + allowed_s + time_s

    def has_credit(self, byte_count, leases_max=None):
        terms = self.world.terms
        fits = self.bytes_held + byte_count <= terms.credit * terms.segment_bytes
        return not self.held or (fits and len(self.held) < (leases_max or terms.leases_max))

    def may_have(self, byte_count):
        """Whether it may get this, at the most: who is on this machine and quick may hold more."""
        is_quick = not self.peer.elsewhere and self.world.terms.leases_max == LEASES_MAX and self.answered
        return self.has_credit(byte_count, QUICK_LEASES_MAX if is_quick else None)

    @property
    def lease_s(self):
        return self.world.plan.lease_ms / (1000 if self.peer.streams is None else 2000)

    def does_wrong(self):
        self.is_excused = True
        if self.peer.key:
            self.world.guilty.add(self.peer.key)

    # Coming and going.

    def hello(self):
        if not self.is_present:
            return
        if self.character == "refusing":
            self.world.happened.add("refused")
            self.does_wrong()
            self.world.machine.refused(self.peer, "it cannot", self.world.now_s)
            self.check_suspended()
            return
        self.has_said_hello, self.clock_s = True, self.world.now_s
        self.world.changes += 1
        self.world.machine.hello(self.peer, self.world.now_s)
        if self.character == "leaving":
            self.world.later(self.chance.random() * 3, self.die)

    def die(self, killed=False):
        """The loop notices that its process or its connection has ended."""
        if not self.is_present:
            return
        self.world.happened.add("killed" if killed else "died")
        self.note_begun()
        self.is_excused = True
        killed = killed and not self.peer.elsewhere
        if self.peer.streams is not None or self.character in ("dying", "killed", "leaving"):
            self.does_wrong()
        self.world.book_gone(self, KILLED if killed else FAULT)
        self.world.machine.gone(self.peer, "it died", self.world.now_s, killed=killed)
        self.check_suspended()

    def drop(self):
        """It has lost its place."""
        for number in self.held:
            self.world.owner[number] = None
        self.held, self.queue, self.bytes_held = {}, [], 0

    def room(self):
        self.has_room = True
        self.world.machine.room(self.peer)

    def note_begun(self):
        self.peer.begun = self.begun

    def suspected(self):
        """The segment that is to blame if this worker ends now; None if there is none."""
        if self.peer.elsewhere:
            return next(iter(self.held), None)
        number, attempt = self.begun or (None, 0)
        return number if number in self.held and self.held[number].attempt == attempt else None

    def check_suspended(self):
        if self.peer.streams is not None:
            self.world.must(self.peer.key in self.world.contracts.suspended, "a provider that failed is not suspended")

    # Working.

    def get(self, pending):
        if not self.held:
            self.clock_s = self.world.now_s
        self.held[pending.number] = pending
        self.bytes_held += pending.byte_count
        self.queue.append((pending.number, pending.attempt))

    def begin(self):
        """Takes the next segment, unless it works on one."""
        if self.is_working or self.is_hanging or not self.queue:
            return
        at = self.chance.randrange(min(2, len(self.queue))) if self.character == "out of turn" else 0
        if self.character == "skipping":  # it never does the first one, but those after it
            self.does_wrong()
            if len(self.queue) < 2:
                return
            at = 1
        self.begun = self.queue.pop(at)
        if self.character == "silent" and self.chance.random() < 0.3:
            self.is_hanging = True
            self.does_wrong()
            return
        share = 0.3 + 0.5 * self.chance.random() if self.character == "slow" else 0.03 * self.chance.random()
        self.is_working = True
        self.world.later(share * self.lease_s, self.work, *self.begun)

    def work(self, number, attempt):
        """It has done a segment, or not."""
        self.is_working = False
        if not self.is_present:
            self.outbox.append((number, attempt, self.result(number)))  # it does not know yet that it is given up
            self.send()
            return
        lucky = self.chance.random()
        if self.character in ("dying", "killed") and lucky < 0.3:
            self.send()  # what it had done before
            self.world.later(max(0.0, self.arrives_s - self.world.now_s), self.die, self.character == "killed")
            self.is_hanging = True
            return
        if number in self.world.poison and lucky < 0.3 and self.peer.streams is None:
            self.die()
            return
        if self.character == "babbling" and lucky < 0.2:
            self.world.later(0.0, self.babble)
        self.outbox.append((number, attempt, self.result(number)))
        if not self.queue or lucky < 0.5 or self.character == "slow":
            self.send()
        self.begin()

    def result(self, number):
        segment, lucky = self.world.segments[number], self.chance.random()
        if number in self.world.poison:
            return Failed("it is poison")
        if self.character == "failing" and lucky < 0.7:
            return Failed("it does not want to")
        if self.character == "doubling" and lucky < 0.3:
            return Failed("it says so twice")
        if self.character == "bad" and lucky < 0.6:
            return Bad("it does not pass")
        return self.world.new_result(segment, is_true=self.character != "lying" or lucky < 0.5)

    def send(self):
        """Its results are under way, in their order."""
        if self.outbox:
            self.arrives_s = max(
                self.arrives_s, self.world.now_s + self.chance.choice((0.0, 0.02)) * self.chance.random()
            )
            message, self.outbox = self.outbox, []
            self.world.later(self.arrives_s - self.world.now_s, self.arrive, message)
            if self.character == "doubling" and self.chance.random() < 0.3:
                self.world.later(self.arrives_s - self.world.now_s, self.arrive, message)

    def babble(self):
        if self.is_present:
            self.world.happened.add("babbled")
            self.note_begun()
            self.misbehaves()
            self.world.machine.misbehaved(self.peer, self.peer.key or None, "what no worker sends", self.world.now_s)
            self.check_suspended()

    def misbehaves(self):
        self.does_wrong()
        if not self.peer.key:
            self.world.book_gone(self, FAULT)

    def arrive(self, message):
        """The loop hands its results over. The world's books first, then the machine's."""
        world, done, was_excused = self.world, [], self.is_excused
        answers = [
            (number, attempt, self.chance.choice((0, 10**6, 10**15)), result) for number, attempt, result in message
        ]
        self.note_begun()
        if not self.is_present:
            world.happened.add("late")
            world.machine.results(self.peer, answers, world.now_s)
            return
        for number, attempt, result in message:
            if number not in self.held or self.held[number].attempt != attempt:
                world.happened.add("doubled")
                self.misbehaves()
                break
            self.end_lease(number)
            if isinstance(result, (Bad, Failed)):
                world.happened.add(type(result).__name__)
                if self.fails(number, result):
                    break
            else:
                result.is_current = True
                done.append((number, result.is_true))
                if not result.is_true:
                    world.guilty.add(self.peer.key)
                    world.excuse(number)
        world.machine.results(self.peer, answers, world.now_s)
        for number, is_true in done:
            if self.peer.streams is not None:
                world.contracts.must_be_told_done.append((self.peer.key, number))
            if number not in world.machine.backlog.pending:
                world.book_accepted(self, number)
                world.book_audit(number, is_true)
            else:
                world.happened.add("audited")
                world.claims[number] = self.peer.key, is_true, world.is_here
        if self.is_excused and not was_excused:
            world.must(self.peer.state == "gone", "whoever misbehaves keeps its place")
            self.check_suspended()

    def end_lease(self, number):
        if number == next(iter(self.held)):
            self.clock_s = self.world.now_s
        pending = self.held.pop(number)
        self.bytes_held -= pending.byte_count
        self.world.owner[number] = None
        self.answered += 1

    def fails(self, number, result):
        """Whether this costs it its place at once."""
        if self.peer.streams is None:
            self.world.book_failure(number, self.peer.identity, FAULT)
            if self.peer.key and self.character in ("failing", "bad", "doubling"):
                self.world.guilty.add(self.peer.key)  # if others can do it
            return False
        if isinstance(result, Bad):
            self.does_wrong()
            return True
        self.failures += 1
        if not self.world.contracts.is_possible_in_house(self.world.segments[number].stream):
            self.world.book_failure(number, self.peer.identity, FAULT)
        if self.failures == FAILURES_MAX:
            self.does_wrong()
            return True
        return False


class Contracts:
    """The routes, with a provider for some streams. It notes what it is told, and what it must be told."""

    def __init__(self, world, plan):
        self.world, self.chance = world, world.random
        streams = [stream for stream in range(plan.streams) if stream == 0 or self.chance.random() < 0.6]
        self.possible = {stream: self.chance.random() < 0.7 for stream in streams}
        self.routes = {stream: Route("provider", self.chance.choice(plan.providers), plan.helps) for stream in streams}
        self.covers = {
            key: frozenset(each for each in streams if self.routes[each].key == key or self.chance.random() < 0.3)
            for key in plan.providers
        }
        for stream in streams:
            if self.chance.random() < 0.3:  # nothing is placed for it yet
                self.routes[stream] = Route("wait")
                self.world.later(self.chance.random() * 4, self.changes_its_mind)
        self.limited = frozenset(streams if plan.limited else ())
        self.followed = self.limited | frozenset(each for each in streams if plan.helps)
        self.suspended = set()
        self.came_bytes, self.next_s = 0, {}
        self.told_sent, self.must_be_told_sent = {}, {}
        self.told_done, self.must_be_told_done = [], []
        self.told_audited, self.must_be_told_audited = [], []
        self.paced_s = {}

    # What the machine asks.

    def of(self, stream):
        return self.routes.get(stream, Route("in-house"))

    def streams_of(self, key):
        return frozenset() if key in self.suspended else self.covers.get(key, frozenset())

    def is_provider(self, key):
        return key in self.covers

    def lease_ms(self, key):
        return self.world.plan.lease_ms // 2

    def join_s(self, key):
        return 3.0

    def pause_s(self, stream):
        return max(0.0, self.next_s.get(stream, 0.0) - self.world.now_s)

    def is_possible_in_house(self, stream):
        return self.possible[stream]

    # What it is told.

    def came(self, byte_counts):
        self.came_bytes += sum(byte_counts.values())

    def sent(self, stream, byte_count):
        self.world.must(stream in self.followed, "told of a stream that it does not follow")
        self.told_sent[stream] = self.told_sent.get(stream, 0) + byte_count
        self.next_s[stream] = self.world.now_s + byte_count / BYTES_A_SECOND

    def is_sent(self, message):
        for pending in message:
            stream, now_s = pending.stream, self.world.now_s
            if stream in self.limited:
                self.world.must(self.paced_s.get(stream, 0.0) <= now_s + 1e-9, "sent beyond the maximum rate")
                self.paced_s[stream] = now_s + pending.byte_count / BYTES_A_SECOND
            if stream in self.followed:
                self.must_be_told_sent[stream] = self.must_be_told_sent.get(stream, 0) + pending.byte_count

    def done(self, key, segment, seconds):
        self.world.must(seconds >= 0, "done before it was sent")
        self.told_done.append((key, segment.number))
        return self.possible[segment.stream] and self.chance.random() < self.world.plan.audit

    def audited(self, stream, key, is_same):
        self.world.happened.add("audited in-house")
        self.told_audited.append((stream, key, is_same))
        self.world.must(is_same or key in self.world.guilty, "an honest provider is said to lie")

    def failed(self, key, reason):
        if reason == "it has not joined":
            serves = [each for each in self.world.present if each.peer.key == key and each.has_said_hello]
            streams = [stream for stream, route in self.routes.items() if route.key == key]
            self.world.must(
                not any(set(streams) <= each.peer.streams for each in serves), "who has joined has not joined"
            )
            self.world.guilty.add(key)
        self.world.must(key in self.world.guilty, f"an honest provider is suspended: {reason}")
        if key in self.suspended:
            return
        self.world.happened.add("suspended")
        self.suspended.add(key)
        for stream, route in self.routes.items():
            if route.key == key:
                self.routes[stream] = Route("wait")
        self.world.later(self.chance.random(), self.changes_its_mind)

    def waited(self, stream, seconds):
        self.world.must(seconds >= 0, "waited since the future")

    # What the market does.

    def block_ends(self):
        for stream in self.routes:
            if self.chance.random() < 0.7:
                self.routes[stream] = Route("wait")

    def changes_its_mind(self):
        """Another provider, or the stream's rule."""
        for stream, route in self.routes.items():
            if route.kind == "wait":
                keys = [key for key in self.covers if key not in self.suspended]
                if keys and self.chance.random() < 0.7:
                    self.routes[stream] = Route("provider", self.chance.choice(keys), self.world.plan.helps)
                    self.covers[self.routes[stream].key] |= {stream}
                else:
                    rule = self.chance.choice(("pass", "refuse"))
                    self.routes[stream] = Route("in-house" if self.possible[stream] else rule)

    def check(self):
        must = self.world.must
        must(self.came_bytes == self.world.told_bytes, "the routes were not told what came")
        must(self.told_sent == self.must_be_told_sent, "the routes were not told what was sent")
        must(self.told_audited == self.must_be_told_audited, "the routes were not told what an audit found")
        must(self.told_done == self.must_be_told_done, "the routes were not told what was done")
