"""Bugs planted one at a time in the state machine: the simulation must find each.

Every bug is one replaced piece of text, which must stand in the file exactly once. A fork of this process imports our
files anew, takes the text with the bug for the one it is planted in, and plays schedules until one breaks.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import NamedTuple

import pytest

import streamcore.disperse

FOLDER = Path(streamcore.disperse.__file__).parent
SEEDS_MAX = 4000
PATIENCE_S = 60
FOUND, NOT_FOUND, NOT_PLAYED = 10, 11, 12
ANEW = ("streamcore.disperse", "tests.streamcore.disperse")


class Bug(NamedTuple):
    """What is planted where."""

    name: str
    file: str
    right: str
    wrong: str


BUGS = [
    Bug("a peer may have one segment more than its credit", "peer.py",
        "len(self.leases) < self.leases_max", "len(self.leases) <= self.leases_max"),
    Bug("bytes of answered segments stay on the account", "peer.py",
        "        self.bytes_out -= pending.byte_count\n        self.results += 1", "        self.results += 1"),
    Bug("messages are not bounded by the bytes of the credit", "scheduler.py",
        "            if byte_count > bytes_max:\n                break\n", ""),
    Bug("a full peer gets more", "peer.py",
        'return self.state == "ready" and (', 'return self.state in ("ready", "full") and ('),
    Bug("a peer gets segments before it says hello", "peer.py",
        'return self.state == "ready" and (', 'return self.state in ("ready", "starting") and ('),
    Bug("what could not be sent goes to the end of its lane", "backlog.py",
        "collections.deque(sorted([*self.waiting[lane], pending], key=number_of))",
        "collections.deque([*self.waiting[lane], pending])"),
    Bug("what could not be sent is lost", "scheduler.py", "        self._backlog.put_back(rest)\n", ""),
    Bug("what could not be sent counts as sent", "scheduler.py", "        del message[sent:]\n", ""),
    Bug("the clock of a lease begins with each answer", "peer.py",
        "if number == next(iter(self.leases)):", "if True:"),
    Bug("the clock of the next lease does not begin", "peer.py",
        "if number == next(iter(self.leases)):", "if False:"),
    Bug("whoever hangs is not noticed", "machine.py",
        "if now_s >= peer.deadline_s:", "if now_s >= peer.deadline_s + 9:"),
    Bug("a result of another attempt counts", "machine.py",
        "if pending is None or pending.attempt != attempt:", "if pending is None:"),
    Bug("results of one who is gone are looked at", "machine.py",
        'if peer.state == "gone":  # too late: others do them', 'if peer.state == "none":'),
    Bug("a segment is sent again to the one who failed it", "scheduler.py",
        "peer.identity not in history.failed_by | {history.avoid}", "peer.identity not in {history.avoid}"),
    Bug("one worker elsewhere alone makes a dead letter", "pending.py",
        "return len(self.failed_by) > 1 or", "return len(self.failed_by) > 0 or"),
    Bug("nothing is ever a dead letter", "backlog.py", "if history.failures >= self._failures_max:", "if False:"),
    Bug("what was set aside is never looked at again", "machine.py", "        self.backlog.expire(now_s)\n", ""),
    Bug("what was set aside ends too early", "backlog.py",
        "history.others_until_s = history.others_until_s or now_s + OTHERS_S",
        "history.others_until_s = history.others_until_s or now_s + OTHERS_S / 2"),
    Bug("what was set aside and cannot be sent waits for ever", "backlog.py",
        '"not sent to another" if pending.history.others_until_s else "not sent again"', '"not sent again"'),
    Bug("a segment of one who died is forgotten", "machine.py",
        "                self.backlog.resend(pending, peer.identity, now_s)\n\n    def struck",
        "                pass\n\n    def struck"),
    Bug("a death by somebody else's signal counts like a fault", "machine.py", "KILLED if killed else FAULT", "FAULT"),
    Bug("the wrong segment is blamed for a death", "peer.py",
        "        if self.elsewhere:\n            return next", "        if True:\n            return next"),
    Bug("workers are started again without end", "places.py",
        "slot.fruitless <= self._terms.restarts_max", "slot.fruitless >= 0"),
    Bug("a key that was given up may join", "places.py", "if key in self.given_up:", "if key in ():"),
    Bug("a struck key may join", "places.py", "if key in self.struck:", "if key in ():"),
    Bug("a struck key keeps its leases", "machine.py",
        "            self.elsewhere.leave_out(key, now_s)\n", "            pass\n"),
    Bug("a key that is known again may not join", "machine.py",
        "        self.places.struck.discard(key)\n", "        pass\n"),
    Bug("a key that is known again is forgiven what it was given up for", "machine.py",
        "        self.places.struck.discard(key)\n",
        "        self.places.struck.discard(key)\n        self.places.given_up.pop(key, None)\n"),
    Bug("one key may take all places", "places.py", "if len(self.of_key(key)) >= PLACES_PER_KEY:", "if False:"),
    Bug("whoever fails what others do is never given up", "elsewhere.py",
        "record.failed >= FAILED_MAX and", "record.failed >= 9 * FAILED_MAX and"),
    Bug("whoever fails is given up though nobody else could do it", "backlog.py",
        "        history.reason = reason\n", "        history.reason = reason\n        history.failed_by |= {'A'}\n"),
    Bug("a lie passes the audit", "elsewhere.py", "        if self._same(claimed, result):\n", "        if True:\n"),
    Bug("whoever lied keeps its results", "elsewhere.py", "        self._actions.add(Withdraw(key))\n", ""),
    Bug("what one who lied claims still counts", "elsewhere.py", "        self._backlog.unclaim(key)\n", ""),
    Bug("the claim counts, not the audit", "machine.py",
        "            self.elsewhere.compare(history.claimed, result, now_s)\n",
        "            self._actions.deliver(history.claimed)\n"),
    Bug("an audit that nobody can do waits for ever", "machine.py",
        "            self.backlog.end_audits()\n", "            pass\n"),
    Bug("a worker elsewhere audits a provider", "providers.py",
        "on_this_machine=bool(self._places.here)", "on_this_machine=False"),
    Bug("the market is not told of an audit's outcome", "providers.py",
        "        self._routes.audited(result.segment.stream, key, same)\n", ""),
    Bug("the market is not told of a result", "providers.py",
        "not self._routes.done(peer.key, pending.segment, now_s - pending.sent_s)", "True"),
    Bug("the market is told twice what was sent", "scheduler.py", "        self._unreported.clear()\n", ""),
    Bug("the market is not told what came", "machine.py",
        "            self._routes.came(byte_counts)\n", "            pass\n"),
    Bug("a provider that lied is not suspended", "providers.py",
        '            self.suspend(key, "an audit found another result", now_s)\n', ""),
    Bug("a maximum rate is looked at once for a message", "scheduler.py",
        "            return message  # those go one by one\n", "            pass\n"),
    Bug("several go at once though only one may", "scheduler.py",
        "if pause_s > 0 or stream in self._under_way:", "if pause_s > 0:"),
    Bug("nobody runs a stream, and its segments wait", "providers.py",
        "                self._backlog.unserved(stream)\n", "                pass\n"),
    Bug("a provider that does not join is waited for", "providers.py",
        '                    self.suspend(route.key, "it has not joined", now_s)\n', "                    pass\n"),
    Bug("a provider keeps the run up though only our own workers could do it", "machine.py",
        "(all and not own and not self._scheduler.needs_own())", "(all and not own)"),
    Bug("whoever never says hello keeps the run up", "machine.py",
        "any(not peer.elsewhere or peer.has_said_hello for peer in own)", "bool(own)"),
    Bug("overload passes what a worker has had", "backlog.py",
        "        for queue in self.waiting.values():\n            for",
        "        for pending in self.again:\n            self._actions.add(Unprocessed(pending.segment, OVERLOAD))\n"
        "        for queue in self.waiting.values():\n            for"),
    Bug("whoever says any time is believed", "machine.py",
        "min(busy_ns, int((now_s - pending.sent_s) * 1e9))", "busy_ns"),
    Bug("a lane goes to whoever is free", "scheduler.py", "peers = peers and [peers[lane % len(peers)]]", "pass"),
    Bug("the loop is woken at a wrong moment", "machine.py",
        "        at_s = min(at_s, self._scheduler.next_send_s, self.backlog.expires_s())\n", ""),
]  # fmt: skip


def plant(path, text):
    """From here on this process imports `text` where it would import that file, and our other files anew."""
    as_it_is = SourceFileLoader.get_code

    def get_code(self, name):
        if self.path == str(path):
            return compile(text, self.path, "exec", dont_inherit=True)
        return as_it_is(self, name)

    SourceFileLoader.get_code = get_code
    for name in [name for name in sys.modules if name.startswith(ANEW)]:
        if not name.rpartition(".")[2].startswith("_"):  # native modules stay
            del sys.modules[name]


def search(bug, text, output):
    """Plays schedules in a fork until one breaks: FOUND, NOT_FOUND, or NOT_PLAYED if the text is no program."""
    child = os.fork()
    if child == 0:
        status = NOT_PLAYED
        try:
            signal.alarm(PATIENCE_S)
            plant(FOLDER / bug.file, text)
            from tests.streamcore.disperse.simulation import Simulation
            from tests.streamcore.disperse.test_simulation import FAULTS

            status = NOT_FOUND
            plans = [None, *(plan for plan, _ in FAULTS.values())]
            for seed in range(SEEDS_MAX):
                try:
                    Simulation(seed, plans[seed % len(plans)]).run()
                except Exception as error:
                    output.write_text(f"{bug.name}: seed {seed}: {type(error).__name__}: {error}\n")
                    status = FOUND
                    break
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_each_can_be_planted_at_one_place():
    texts = {file: (FOLDER / file).read_text() for file in {bug.file for bug in BUGS}}
    assert [bug.name for bug in BUGS if texts[bug.file].count(bug.right) != 1] == []


@pytest.mark.timeout(900)
def test_planted_bugs_are_found(some, tmp_path):
    lost = []
    for bug in some(BUGS, 8):
        text = (FOLDER / bug.file).read_text().replace(bug.right, bug.wrong)
        status = search(bug, text, tmp_path / "told")
        if status != FOUND:
            lost.append((bug.name, status))
    assert lost == []


def test_without_a_bug_nothing_is_found_and_the_text_is_what_is_played(tmp_path, monkeypatch):
    text = (FOLDER / "machine.py").read_text()
    monkeypatch.setitem(globals(), "SEEDS_MAX", 60)
    assert search(BUGS[0]._replace(file="machine.py"), text, tmp_path / "told") == NOT_FOUND
    wrong = "raise RuntimeError('the text is imported')\n"
    assert search(BUGS[0]._replace(file="machine.py"), wrong, tmp_path / "told") == NOT_PLAYED
