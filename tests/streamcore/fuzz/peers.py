"""The target `peers`: an admitted worker sends every kind of message, well made, mutated and made up, and asks to join
in every way. Whatever it sends, nothing is raised, and a good worker beside it does every segment that is left.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec

from streamcore.disperse import envelope
from streamcore.disperse.remote import PROTOCOL
from streamcore.run.accounting import Accounting
from tests.streamcore.disperse.played import PACKETS, Stage, Worker
from tests.streamcore.fuzz.inputs import VALUES, mutated

SEGMENTS, MESSAGES = 6, 400
WORDS = ("packets", "bins", "flows", "drops", "reports", "a\x1b[31m", "\u202e", "not_understood", "web", "")


def anything(rng: random.Random, depth: int = 0) -> Any:
    """Any value that MessagePack carries."""
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind == 6:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(5))]
    if kind == 7:
        return {rng.choice(WORDS): anything(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind == 8:
        return {rng.randrange(-2, 8): anything(rng, depth + 1) for _ in range(rng.randrange(3))}
    numbers = (0, 1, -1, 256, 257, 1 << 40, (1 << 64) - 1, -(1 << 63), rng.randrange(1 << 20))
    return (
        rng.choice(numbers), rng.choice(WORDS), rng.randbytes(rng.randrange(40)), None, rng.random() * 1e300, True,
    )[kind]  # fmt: skip


def changed(rng: random.Random, value: Any) -> Any:
    """value with one place in it replaced by anything."""
    if not isinstance(value, dict | list | tuple) or not value or rng.random() < 0.2:
        return anything(rng, 2)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        return {**value, (key if rng.random() < 0.9 else rng.choice(WORDS)): changed(rng, value[key])}
    at = rng.randrange(len(value))
    return [*value[:at], changed(rng, value[at]), *value[at + 1 :]]


def outcome(rng: random.Random, honest: envelope.Outcome) -> envelope.Outcome:
    """honest with one to three fields changed."""
    sizes = {"number": 64, "attempt": 32, "status": 16, "flags": 16, "packed": 32, "region": 32, "frames": 32,
             "reserved": 32, "busy_ns": 64}  # fmt: skip
    for name in rng.sample(list(sizes), rng.choice((0, 1, 1, 2, 3))):
        near = getattr(honest, name) + rng.choice((-1, 1, 2))
        bits = sizes[name]
        value = rng.choice((near, rng.choice(VALUES), rng.randrange(16), rng.randrange(1 << bits)))
        honest = honest._replace(**{name: value % (1 << bits)})
    return honest._replace(digest=rng.randbytes(16)) if rng.random() < 0.05 else honest


def extra(rng: random.Random, honest: bytes) -> bytes:
    """An extra frame: the honest one with other values in it, or other bytes."""
    kind = rng.randrange(6)
    if kind == 0:
        return mutated(rng, honest)
    if kind == 1:
        return b"\x81\xa7reports\x91\x92\x00" + b"\x91" * rng.randrange(2000) + b"\x01"
    if kind == 2:
        return msgspec.msgpack.encode(anything(rng))
    return msgspec.msgpack.encode(changed(rng, msgspec.msgpack.decode(honest)))


class Bad:
    """The bad worker: what it has got to do, and the honest answers that it makes its own from."""

    def __init__(self, stage: Stage, key: str, rng: random.Random, good: Worker) -> None:
        self.good = good
        self.worker, self.rng, self.stage = Worker(stage, key), rng, stage
        self.answers: list[tuple[envelope.Outcome, list[bytes]]] = []
        if rng.random() < 0.95:
            self.worker.hello()

    def take(self) -> None:
        """Makes honest answers to what it has got since."""
        for work in self.worker.works():
            outcomes, frames = self.worker.answer([work])
            self.answers.append((outcomes[0], frames))

    def send(self) -> None:
        rng, worker = self.rng, self.worker
        self.take()
        kind = rng.randrange(40)
        head = worker.head
        if kind == 0:
            worker.send(head(rng.choice((envelope.HELLO, envelope.STOP, envelope.WORK, envelope.RESULT))))
        elif kind == 1:
            worker.send(head(envelope.REFUSE), *[rng.randbytes(30)] * rng.randrange(3))
        elif kind == 2:
            worker.send(*[rng.randbytes(rng.randrange(90)) for _ in range(rng.randrange(1, 4))])
        elif kind == 3:
            worker.send(envelope.pack(envelope.RESULT, rng.randrange(4), rng.getrandbits(64), []))
            worker.send(self.good.head(rng.choice((envelope.REFUSE, envelope.RESULT, envelope.STOP))), b"it is not I")
        elif kind == 4 and self.answers:
            honest, frames = self.answers.pop(0)  # as it should be
            worker.send(head(envelope.RESULT, [honest]), *frames)
        elif kind == 5 and self.answers:
            honest, _ = self.answers.pop(0)
            honest = honest._replace(status=envelope.FAILED, flags=0, frames=envelope.EXTRA)
            worker.send(head(envelope.RESULT, [honest]), b"\x1b[2J" + rng.randbytes(rng.randrange(900)))
        elif not self.answers:
            worker.send(mutated(rng, head(envelope.RESULT, [])))
        else:
            self.lie()

    def lie(self) -> None:
        rng = self.rng
        chosen = rng.sample(self.answers, min(len(self.answers), rng.choice((1, 1, 1, 2))))
        outcomes, frames = [], []
        for honest, parts in chosen:
            place = rng.randrange(3)
            outcomes.append(outcome(rng, honest) if place == 0 else honest)
            for i, part in enumerate(parts):
                if place == 1 and i == 0:
                    part = extra(rng, part)
                elif place == 2 and i == 1:
                    part = mutated(rng, part)
                frames.append(part)
        if rng.random() < 0.1:
            frames = frames[: rng.randrange(len(frames) + 1)] + [rng.randbytes(9)] * rng.randrange(2)
        message = self.worker.head(envelope.RESULT, outcomes)
        self.worker.send(mutated(rng, message) if rng.random() < 0.03 else message, *frames)
        self.answers = [each for each in self.answers if each[0].number in self.worker.peer.leases]


def request(rng: random.Random) -> bytes:
    """Words of somebody who asks to join."""
    kind = rng.randrange(4)
    if kind == 0:
        return b"[" * rng.randrange(4096)
    made = json.dumps({"protocol": rng.choice((PROTOCOL, 0, -1, True, 1e99, "x", [1], None))}).encode()
    return mutated(rng, made) if kind == 1 else made


def peers() -> Callable[[random.Random, int], int]:
    """What an admitted worker sends: no exception, and nobody else loses anything."""

    def one_batch(rng: random.Random, number: int) -> int:
        stage = Stage(audit=0.0)
        good = Worker(stage, "good").hello()
        keys = 1
        bad = Bad(stage, "bad1", rng, good)
        for _ in range(MESSAGES):
            if bad.worker.is_in and not bad.worker.peer.leases:  # it is to have something to lie about
                good.work()
                settle(stage)
                with stage.without(good):  # so that the bad one gets them
                    stage.submit(SEGMENTS)
            if not bad.worker.is_in:  # it has lost its place: it comes again, with another key if it was given up
                keys += bad.worker.key in stage.dispatcher.given_up
                bad = Bad(stage, f"bad{keys}", rng, good)
            elif rng.random() < 0.05:
                stage.asks(bad.worker.key, *[request(rng)] * rng.choice((1, 1, 2)))
            elif rng.random() < 0.02:
                stage.lose(bad.worker)
            else:
                bad.send()
            assert stage.machine._refusal.isprintable()
            assert all(each.history.reason.isprintable() for each in stage.backlog.pending.values())
        assert good.is_in
        if bad.worker.is_in:
            stage.lose(bad.worker)
        while good.peer.leases:
            good.work()
        settle(stage)
        assert not stage.backlog.pending
        told = Accounting(
            stage.counters, 1.0, (), services=stage.chain.summaries(), given_up=dict(stage.dispatcher.given_up)
        )
        assert told.text().replace("\n", "").isprintable()
        json.dumps(told.json())
        stage.close()
        return MESSAGES

    return one_batch


def settle(stage: Stage) -> None:
    """Takes what came: each segment once, its reports merged by services that none of them upsets."""
    numbers = [result.segment.number for result in stage.results]
    assert len(set(numbers)) == len(numbers)
    for result in stage.results:
        assert result.reason == "" or result.reason.isprintable()
        assert all(packets >= 0 for packets, _ in result.drops.values())
        assert not result.comments or max(result.comments) < PACKETS
        stage.chain.merge(result.reports)
    assert stage.chain.incomplete == []
    stage.settled += len(numbers)
    stage.results.clear()
