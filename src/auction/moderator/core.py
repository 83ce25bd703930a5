"""The one writer: each command is decided on a draft, journalled and answered in one transaction.

Here are idempotency, the commit (alone or in a group), loading, and waiting for news. `rules` decides commands and what
is due.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Final, TypeVar, TypeVarTuple

import msgspec

from auction.model.bid import check_time
from auction.model.errors import (
    BadCurrency,
    BadValue,
    ClockInDoubt,
    Conflict,
    KeyReused,
    OtherRules,
    RowsRefused,
    StoreFailed,
    WrongState,
)
from auction.model.lifecycle import has_jumped
from auction.model.party import Verifier
from auction.model.person import Personal
from auction.moderator.arguments import check_value
from auction.moderator.clock import Clock, SteadyTime, system_clock, wall_clock
from auction.moderator.config import MarketConfig, Rules, differing
from auction.moderator.draft import Draft
from auction.moderator.methods import Method, command, query, table_of
from auction.moderator.records import ClockWord, Overdue
from auction.moderator.rules.due import DUE, is_put_off, put_off
from auction.moderator.rules.parties import check_rules
from auction.moderator.saved import Copy, Saved, is_of, next_saving, restore
from auction.moderator.state import State
from auction.moderator.terms import ClockView
from auction.moderator.upgrade import FIRST_COMMAND, apply_entry, write_upgrade
from auction.payment.protocol import Processor
from auction.storage.journal import FIRST_HASH, FORMAT, Decided, Entry, encode_body, seal, verify_chain
from auction.storage.store import MemoryStore, Posting, Row, Store, Write

Answer = TypeVar("Answer")
Given = TypeVarTuple("Given")
_encode = msgspec.json.Encoder().encode
_log: Final = logging.getLogger(
    "auction"
)  # one line for each thing that the operator should know; on stderr unless configured
_TRIES_MAX: Final = 32
_UNWRITTEN_MAX: Final = 256  # commands that may be answered before they are written
_CONFIRM: Final = "confirm_clock"
_ERASE: Final = "erase"
# Commands that are decided while the clock is in doubt: none depends on time. A processor's answer must not be lost,
# and the operator can ban a harmful party.
_TIMELESS: Final = frozenset(
    {"deposit", "post_bond", "release_bond", "hand_in", "answer_payment", "change_rules", "revoke_token", "ban"}
)
_LOOK_EVERY_MS: Final = 10  # how often an embedded moderator that waits looks again


class Core:
    """The path of every command. Threads may call it concurrently: decisions are made one at a time, and a thread that
    finds no commit under way commits for all that wait. A derived class states a right for every public method (see
    `methods`)."""

    methods: ClassVar[dict[str, Method]]

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        cls.methods = table_of(cls)

    def __init__(
        self,
        store: Store | None = None,
        *,
        clock: Clock | None = None,
        steady: Clock | None = None,
        config: MarketConfig | None = None,
        processors: Mapping[str, Processor] | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.store: Store = store if store is not None else MemoryStore()
        self.processors = dict(processors or {})
        self._random_bytes = random_bytes
        self._verifier = Verifier()
        self._clock: Clock = clock or wall_clock
        self._time = SteadyTime(self._clock, 0, steady if clock is not None else system_clock())
        self._deciding = threading.RLock()
        self._committing = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._unsealed: list[_Waiting] = []  # those without an entry yet
        self._grouped = 0
        self._saving: threading.Thread | None = None
        self._caught_up = 0  # how often the state was taken from the store
        self._stale = False
        self._erases = False  # a command that waits erases something
        self._is_unwiped = False  # something that was erased may still be readable in the store
        self.upgraded: dict[str, int] = {}
        """What the upgrade of an older market has done, if this opening was the first: in words, how many."""
        self._load()
        self._open(config)

    @property
    def config(self) -> MarketConfig:
        """The market's rules, from its journal."""
        return self._state.config

    @property
    def state(self) -> State:
        """The current state. Read it, never write it."""
        return self._state

    def _load(self) -> None:
        """Loads the state from the last saved state and the entries after it, or from the whole journal, and verifies
        the hash chain."""
        found = restore(self.store.saved())
        saved = found if found is not None and is_of(found, self.store) else Saved(State(), FIRST_HASH, {}, [])
        self._answers = saved.answers
        self._keys: deque[tuple[int, str]] = deque(saved.keys)
        self._hash = saved.hash
        self._save_from = next_saving(saved.state)
        self._fold(saved.state, self.store.entries(saved.state.sequence))
        self._stale = False

    def _fold(self, state: State, entries: Iterable[Entry]) -> None:
        """Folds in the entries after those of the state."""
        for entry in verify_chain(entries, self._last_hash(state), state.sequence, state.at_ms):
            apply_entry(state, entry)
            if entry.key:
                self._remember(entry.at_ms, entry.key, entry.request, entry.answer, state.config.keys_kept_ms)
            self._hash = entry.hash
        people = state.people
        people.add(self.store.personal(people.loaded_to))
        people.loaded_to = state.sequence
        self._caught_up += 1
        self._state = state
        self._time.follow(state.at_ms, state.ahead_ms)

    def _last_hash(self, state: State) -> bytes:
        """The hash of the state's last entry; the store has it if the entry was not bound here."""
        if not self._hash:
            self._hash = next(iter(self.store.entries(state.sequence - 1))).hash
        return self._hash

    def _open(self, given: MarketConfig | None) -> None:
        """Writes the rules into a new journal, or compares `given` with the stored ones. Raises OtherRules, or
        BadCurrency."""
        if given is not None:
            check_value(given, MarketConfig, "config")
        while self._state.old is not None:
            with self._deciding, suppress(Conflict):  # another moderator was there first
                upgrade = write_upgrade(self._state, self._hash, self._now(), given)
                self.store.append([upgrade])
                self.upgraded = msgspec.json.decode(upgrade.entry.answer, type=dict[str, int])
            self._load()
        if not self._state.sequence:
            self._run(FIRST_COMMAND, None, (given or MarketConfig(),), _open_market, None)
        if given is None or given == self.config:
            return
        kind = OtherRules if given.currency == self.config.currency else BadCurrency
        words = "; ".join(differing(self.config, given))
        raise kind(f"this market has other rules: {words} (only `change_rules` changes them)")

    def _run(
        self,
        command: str,
        key: str | None,
        arguments: tuple[*Given],
        decide: Callable[[Draft, *Given], Answer],
        answer_type: Any,
        wait: bool = True,
        hashed: tuple[Any, ...] | None = None,
    ) -> Answer:
        """Decides by the rule, journals, commits and answers. A key that was used before with the same arguments gets
        the first answer again."""
        request = b""
        if key or not wait:
            # Encoded here, because sealing after the answer must not fail. A digest of what is personal would tell it.
            encoded = _encode((command, arguments if hashed is None else hashed))
            request = hashlib.sha256(encoded).digest() if key else b""
        asked = _Asked(command, key or "", request, arguments, decide, answer_type, wait)
        tries = 0
        while True:
            try:
                return self._answer_durably(asked)  # type: ignore[no-any-return]
            except Conflict:
                tries += 1  # decide again, after what another moderator wrote
                if tries >= _TRIES_MAX:
                    raise
            except RowsRefused:
                return self._answer_alone(asked)  # type: ignore[no-any-return]

    def _answer_durably(self, asked: _Asked) -> Any:
        with self._deciding:
            answer, waiting, is_known = self._answer(asked)
        if self._grouped or (not asked.wait and len(self._waiting) < _UNWRITTEN_MAX):
            return answer
        if waiting is not None:
            self._commit(waiting)
        elif is_known and not self._is_durable(asked.key):
            raise Conflict("the first attempt failed after all")
        return answer

    def _answer_alone(self, asked: _Asked) -> Any:
        """Decides and commits one command alone, so that it only gets a failure of its own."""
        with self._committing, self._deciding:
            self._commit_all()
            answer, waiting, _ = self._answer(asked)
            self._commit_all()
        if waiting is not None and waiting.failure is not None:
            raise waiting.failure
        return answer

    def _answer(self, asked: _Asked) -> tuple[Any, _Waiting | None, bool]:
        """Returns the answer, what still must be committed, and whether this repeats an earlier answer."""
        if self._stale:
            self._load()
        known = self._answers.get(asked.key) if asked.key else None
        if known is None:
            return *self._decide(asked), False
        if known[0] != asked.request:
            raise KeyReused(f"the key {asked.key!r} was used before with another command")
        return msgspec.json.decode(known[1], type=asked.answer_type), None, True

    def _decide(self, asked: _Asked) -> tuple[Any, _Waiting | None]:
        now_ms = self._look_at_clock()
        if self._state.is_clock_in_doubt:
            if asked.command == _CONFIRM:
                now_ms = max(self._time.trust(), self._state.at_ms)
            elif asked.command not in _TIMELESS:
                raise ClockInDoubt(
                    "the market's clock has jumped by an hour: nothing that depends on time is decided until the "
                    "operator says that the clock is right (`auction market confirm-clock`)"
                )
        elif self._state.due and self._state.due[0][0] <= now_ms:
            self._run_due(now_ms)
        draft = self._draft(now_ms)
        answer = asked.decide(draft, *asked.arguments)
        return answer, self._journal(asked.command, asked.key, asked.request, draft, answer, asked.wait)

    def _journal(
        self, command: str, key: str, request: bytes, draft: Draft, answer: Any, wait: bool = True
    ) -> _Waiting | None:
        """Folds the draft into the state and queues it for the commit. If no caller waits, it is sealed later, before
        the next one. A command that changed nothing is not journalled."""
        if not draft.changes and not draft.transfers:
            return self._waiting[-1] if self._waiting else None
        changes = tuple([(kind, name, record) for (kind, name), record in draft.changes.items()])
        # The answer is kept for retries under the same key; without a key there are none.
        stored_answer = _encode(answer) if key else b""
        transfers = tuple(draft.transfers)
        decided = Decided(draft.sequence, draft.at_ms, command, key, request, changes, transfers, stored_answer)
        if wait:
            if self._unsealed:
                self._seal_waiting()
            sealed = self._seal(decided)
        gone = self._state.apply(draft.sequence, draft.at_ms, changes, transfers)
        if draft.personal:
            self._state.people.add(draft.personal)
        if key:
            self._remember(draft.at_ms, key, request, stored_answer, self._state.config.keys_kept_ms)
        waiting = _Waiting(decided, gone, draft.personal, draft.erased)
        if wait:
            waiting.write = Write(*sealed, gone, draft.personal, draft.erased)
        else:
            self._unsealed.append(waiting)
        self._waiting.append(waiting)
        if command == _ERASE:
            self._erases = True
        return waiting

    def _seal_waiting(self) -> None:
        for one in self._unsealed:
            one.write = Write(*self._seal(one.decided), one.gone, one.personal, one.erased)
        self._unsealed.clear()

    def _seal(self, of: Decided) -> tuple[Entry | Decided, list[Row], list[Posting]]:
        """The entry, linked to the one before it, with the rows of its records and postings. A store that keeps no
        records needs only what was decided."""
        if not self.store.keeps_records:
            self._hash = b""
            return of, [], []
        # Each record is encoded once, for the journal and for its own row.
        encoded = [_encode(record) for _, _, record in of.changes]
        raw_changes = [(kind, name, msgspec.Raw(raw)) for (kind, name, _), raw in zip(of.changes, encoded, strict=True)]
        body = encode_body(raw_changes, of.transfers)
        entry = seal(self._hash, of.sequence, of.at_ms, of.command, of.key, of.request, body, of.answer)
        self._hash = entry.hash
        rows = [
            (kind, name, of.sequence, raw.decode()) for (kind, name, _), raw in zip(of.changes, encoded, strict=True)
        ]
        postings: list[Posting] = []
        for line, (source, target, amount) in enumerate(of.transfers):
            postings.append((of.sequence, 2 * line, source, -amount))
            postings.append((of.sequence, 2 * line + 1, target, amount))
        return entry, rows, postings

    def _remember(self, at_ms: int, key: str, request: bytes, answer: bytes, kept_ms: int) -> None:
        """Keeps the answer to a key for as long as a client may retry."""
        self._answers[key] = (request, answer)
        kept = self._keys
        kept.append((at_ms, key))
        while kept and kept[0][0] <= at_ms - kept_ms:
            del self._answers[kept.popleft()[1]]

    def _catch_up(self, refused_at: int | None = None) -> bool:
        """Folds in what another moderator has written. Returns whether there was anything. Every query calls it first,
        and every command before it is refused: then it waits for a commit under way, and first writes what is decided
        and unwritten. `refused_at` is the value of `_caught_up` before the command was decided."""
        is_refusing = refused_at is not None
        if self._grouped or not self._committing.acquire(blocking=is_refusing):
            return False  # a group looked when it began, and a commit notices by itself
        try:
            is_undone = is_refusing and not self._commit_all()
            with self._deciding:
                if is_refusing and self._waiting:  # decided since
                    is_undone |= not self._commit_all()
                if self._stale:
                    self._load()
                elif not self._waiting and self.store.has_more(self._state.sequence):
                    self._fold(self._state, self.store.entries(self._state.sequence))
                elif not is_undone:
                    return is_refusing and self._caught_up != refused_at
                return True
        except StoreFailed:
            if is_refusing:
                raise  # it is unknown whether it would be refused
            return False
        finally:
            self._committing.release()

    def _commit(self, waiting: _Waiting) -> None:
        """Returns once the write is durable, committed by this thread or with another thread's commit."""
        with self._committing:
            if not waiting.done:
                self._commit_all()
        if waiting.failure is not None:
            raise waiting.failure

    def _is_durable(self, key: str) -> bool:
        """Commits what is waiting, and waits for a commit under way. Returns whether the key's command is stored."""
        self._commit_and_wait()
        with self._deciding:
            return not self._stale and key in self._answers

    def _commit_and_wait(self) -> bool:
        with self._committing:
            return self._commit_all()

    def _commit_all(self) -> bool:
        """Writes what is waiting. Returns whether it succeeded."""
        with self._deciding:
            if self._unsealed:
                self._seal_waiting()
            taken, erases = self._waiting, self._erases
            if not taken:
                return not self._stale
            self._waiting, self._erases = [], False
            copy = self._copy() if self._state.sequence >= self._save_from else None
        failure: Exception | None = None
        try:
            self.store.append([one.write for one in taken if one.write is not None])
        except Exception as reason:
            failure = reason if isinstance(reason, Conflict | StoreFailed) else RowsRefused(f"not written: {reason!r}")
            with self._deciding:
                # The state in memory is ahead of the stored one, and so is everything decided on top of it.
                self._stale = True
                taken += self._waiting
                self._waiting, self._unsealed, self._erases = [], [], False
                # Readers must not see what is undone. If the store is away, the next command loads.
                with suppress(StoreFailed):
                    self._load()
        unwiped: StoreFailed | None = None
        if failure is None and (erases or self._is_unwiped):
            unwiped = self._wipe()
        for one in taken:
            one.failure = failure or (unwiped if one.decided.command == _ERASE else None)
            one.done = True
        if copy is not None and failure is None:
            self._saving = threading.Thread(target=self._save, args=(copy,), name="auction-saving")
            self._saving.start()
        return failure is None

    def _wipe(self) -> StoreFailed | None:
        """Makes erased data unreadable. If that fails, the caller that erased it learns so, and every commit tries
        again."""
        self._is_unwiped = True
        try:
            self.store.wipe()
        except StoreFailed as reason:
            return reason
        self._is_unwiped = False
        return None

    def _copy(self) -> Copy | None:
        """The copy to save now, if it is time; only one is saved at a time."""
        if not self.store.keeps_records or (self._saving is not None and self._saving.is_alive()):
            return None
        self._save_from = next_saving(self._state)
        return Copy(self._state, self._hash, self._answers, self._keys)

    def _save(self, copy: Copy) -> None:
        with suppress(StoreFailed):  # the next one may succeed; a start without one reads the journal
            self.store.save(copy.sequence, copy.parts())

    @command(right="operator", served=False, awaited=False)
    @contextmanager
    def group(self) -> Iterator[None]:
        """Commits all commands of the block in one transaction at its end. None is durable before that, so do not pass
        on their answers earlier. For one thread at a time."""
        self._catch_up()
        with self._deciding:
            self._grouped += 1
        try:
            yield
        finally:
            with self._deciding:
                self._grouped -= 1
                last = self._waiting[-1] if self._waiting else None
            if last is not None and not self._grouped:
                self._commit(last)

    @command(right="operator", served=False)
    def flush(self) -> None:
        """Makes durable what was answered with `wait=False`."""
        if not self._commit_and_wait():
            raise StoreFailed("commands answered with wait=False could not be written, and are undone")

    @command("market tick", right="anyone")
    def tick(self) -> int:
        """Runs what is due by now. Every command does so first; in a quiet market, call this. Returns the number of
        things that were due."""
        self._catch_up()
        with self._deciding:
            if self._stale:
                self._load()
            before = self._state.sequence
            self._run_due(self._look_at_clock())
            count = self._state.sequence - before
            last = self._waiting[-1] if self._waiting else None
        if last is not None and not self._grouped:
            self._commit(last)
        return count

    def _run_due(self, now_ms: int) -> None:
        """Runs what is due, in order of time, each as a separate entry. A failure does not affect the others: its
        reason is journalled, and it is tried again later."""
        due = self._state.due
        while due and due[0][0] <= now_ms:
            due_ms, kind, name = heapq.heappop(due)
            draft = self._draft(now_ms)
            # Otherwise it has been over so long that it is no longer kept, or it has a later time.
            if draft.find(kind, name) is not None and not is_put_off(draft, kind, name, due_ms):
                failed: Overdue | None = None
                try:
                    DUE[kind](draft, name, due_ms)
                except Exception as reason:
                    draft = self._draft(now_ms)
                    failed = put_off(draft, kind, name, due_ms, reason)
                self._journal(f"due_{kind}", "", b"", draft, None)
                if failed is not None:
                    _log.error("%s was due at %d and failed: %s", failed.id, failed.due_ms, failed.reason)

    def _draft(self, at_ms: int = 0) -> Draft:
        """A draft of the current state: a command is decided on one; a query discards it."""
        return Draft(self._state, at_ms, self._verifier, self._random_bytes, self.processors)

    def _when(self, read: Callable[[], Answer], is_news: Callable[[Answer], bool], wait_ms: int) -> Answer:
        """Returns the answer of `read` once it is news, or as it is after `wait_ms`."""
        until_ms = time.monotonic_ns() // 1_000_000 + wait_ms
        while True:
            self.tick()
            answer = read()
            if is_news(answer) or time.monotonic_ns() // 1_000_000 >= until_ms:
                return answer
            time.sleep(_LOOK_EVERY_MS / 1000)

    @command("market change-rules", right="operator")
    def change_rules(self, rules: MarketConfig, *, key: str | None = None) -> MarketConfig:
        """Change the rules of the market. They apply to what is announced from then on; ratings shown by earlier
        announcements stay as they were. The currency cannot change, and the taker of nobody's money cannot be
        a party: raises BadCurrency, NotAllowed."""

        def decide(draft: Draft, rules: MarketConfig) -> MarketConfig:
            check_rules(draft, rules)
            if rules != draft.config:
                draft.put("rules", "market", Rules(FORMAT, rules))
            return rules

        return self._run("change_rules", key, (rules,), decide, MarketConfig)

    @query("market rules", right="anyone")
    def rules(self) -> MarketConfig:
        """Show the rules of the market."""
        with self._deciding:
            return self._state.config

    @query(right="anyone")
    def now_ms(self) -> int:
        """Return the moderator's time."""
        with self._deciding:
            return self._now()

    @query("market clock", right="anyone")
    def clock(self) -> ClockView:
        """Show the market's time and its clock's reading. `is_in_doubt` is true after the clock has jumped by an hour,
        until the operator confirms it."""
        with self._deciding:
            now_ms = self._now()
            is_in_doubt = self._state.is_clock_in_doubt or self._time.has_jumped
            return ClockView(now_ms=now_ms, shown_ms=self._time.reading_ms(), is_in_doubt=is_in_doubt)

    @command("market confirm-clock", right="operator")
    def confirm_clock(self, now_ms: int, *, key: str | None = None) -> ClockView:
        """Confirm that the clock is right after a jump of an hour. `now_ms` is the time that the operator knows. The
        market's time goes on from the clock's reading, and never back; what would have been due meanwhile gets an hour.
        Raises WrongState if nothing is in doubt, BadValue if the clock shows another time."""

        def decide(draft: Draft, now_ms: int) -> ClockView:
            shown_ms = self._time.reading_ms()
            if not draft.state.is_clock_in_doubt:
                raise WrongState("the market's clock is not in doubt")
            if has_jumped(check_time(now_ms, "time"), shown_ms):
                raise BadValue(f"the clock shows {shown_ms}, and not {now_ms}")
            draft.put("clock", "market", ClockWord(is_trusted=True, at_ms=draft.at_ms, shown_ms=shown_ms))
            return ClockView(now_ms=draft.at_ms, shown_ms=shown_ms, is_in_doubt=False)

        return self._run(_CONFIRM, key, (now_ms,), decide, ClockView)

    def _now(self) -> int:
        """The market's time; while its clock is in doubt, that of its last entry."""
        now_ms = self._time.read()
        return self._state.at_ms if self._state.is_clock_in_doubt else now_ms

    def _look_at_clock(self) -> int:
        """The market's time. A jump of its clock is an entry of its own."""
        now_ms = self._time.read()
        if self._state.is_clock_in_doubt:
            return self._state.at_ms
        if self._time.has_jumped and self._state.sequence:
            draft = self._draft(now_ms)
            shown_ms = self._time.reading_ms()
            draft.put("clock", "market", ClockWord(is_trusted=False, at_ms=now_ms, shown_ms=shown_ms))
            self._journal("clock_jumped", "", b"", draft, None)
        return now_ms


def _open_market(draft: Draft, config: MarketConfig) -> None:
    if not draft.state.sequence:  # otherwise another moderator was first
        draft.put("rules", "market", Rules(FORMAT, config))


class _Asked(msgspec.Struct, frozen=True, gc=False):
    """A command as the caller sent it; `request` is the SHA-256 of the request under its key."""

    command: str
    key: str
    request: bytes
    arguments: tuple[Any, ...]
    decide: Callable[..., Any]
    answer_type: Any
    wait: bool


class _Waiting(msgspec.Struct):
    """A command that is decided but not yet durable; `write` is set once it is sealed."""

    decided: Decided
    gone: list[tuple[str, str]]
    personal: list[Personal]
    erased: list[str]
    write: Write | None = None
    done: bool = False
    failure: Exception | None = None
