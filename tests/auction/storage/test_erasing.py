"""Erasing a person: nothing of its names, numbers and remarks is left anywhere, and the journal still verifies."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markets import asked, awarded, counted_bytes, key_of, market, public_key_of, settled

from auction import AuctionTerms, BidEntry, ManualClock, Moderator, SqlStore
from auction.command.cli import main
from auction.groups.sharing import Share
from auction.model.errors import BadToken, Exists, KeyReused, NotAllowed, Replayed, StoreFailed, Unknown, WrongState
from auction.model.person import Person, Personal, personal_of, referenced
from auction.model.signing import party_body, sign_statement
from auction.moderator import saved
from auction.moderator.invariants import replay, verify, violations
from auction.moderator.rules import opinions
from auction.storage.journal import decode_body
from auction.storage.store import MemoryStore

SECRETS = ("Rosalind Franklin", "+442079460018", "the nurse was rude to me", "she never paid in time")


def person(moderator: Moderator, clock: ManualClock) -> tuple[str, str]:
    """A person with a name, a telephone number, remarks by it and about it; and the deal that was rated."""
    rosa = moderator.register("", "recipient", name=SECRETS[0], public_key="", key="r").party
    moderator.deposit(rosa, 5_000, "EUR")
    desk = moderator.register("", "device", belongs_to=rosa, name="the desk of Rosalind Franklin").party
    moderator.register("+44 20 7946 0018", "number", belongs_to=rosa)
    terms = AuctionTerms(reserve=1_000, open_for_ms=10_000, receipts=False)
    auction = moderator.announce(rosa, asked(clock), terms).auction
    moderator.bid(auction, BidEntry("p0", 200))
    clock.advance(10_000)
    moderator.tick()
    (name,) = moderator.auction(auction).agreements
    clock.advance(120_000)
    settled(moderator, name)
    moderator.rate(name, rosa, False, device=desk, remark=SECRETS[2], key="rated")
    moderator.rate(name, "p0", True, remark=SECRETS[3])
    return rosa, name


def found_in(directory: Path) -> list[str]:
    """Which of the secrets stand in any file."""
    texts = [path.read_bytes() for path in directory.iterdir() if path.is_file()]
    return [secret for secret in SECRETS if any(secret.encode() in text for text in texts)]


def told(moderator: Moderator, auction: str, agreement: str) -> bytes:
    """All that the market shows of it."""
    return msgspec.json.encode(
        (
            moderator.overview(limit=200),
            moderator.transcript(auction),
            moderator.auction(auction),
            moderator.opinions(agreement),
            moderator.invoice(agreement),
            moderator.rating("p0", "anonymise"),
            moderator.state.records,
            [entry[:8] for entry in moderator.store.entries()],
        )
    )


def test_nothing_is_left_of_who_was_erased_and_the_journal_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(saved, "_AFTER_ENTRIES", 3)
    url = f"sqlite:///{tmp_path / 'm.db'}"
    moderator, clock = market(SqlStore(url))
    rosa, name = person(moderator, clock)
    assert rosa.startswith("party-")
    assert found_in(tmp_path) == list(SECRETS)
    for secret in SECRETS:  # nor before: nothing personal is in the chain, or in what is saved of the state
        for entry in SqlStore(url).entries():
            assert secret.encode() not in entry.body + entry.answer + entry.key.encode()
        assert all(secret.encode() not in part.body for part in SqlStore(url).saved())
    assert verify(SqlStore(url)) == []
    assert moderator.rating("p0", "anonymise").remarks == (SECRETS[2],)
    assert [one.remark for one in moderator.opinions(name)] == [SECRETS[2], SECRETS[3]]
    before = [entry.hash for entry in SqlStore(url).entries()]
    erased = moderator.erase(rosa)
    assert (len(erased.digests), erased.in_journal) == (5, 0)
    assert found_in(tmp_path) == []
    assert [entry.hash for entry in SqlStore(url).entries()][: len(before)] == before
    assert moderator.rating("p0", "anonymise").remarks == ()
    assert [one.remark for one in moderator.opinions(name)] == ["", ""]
    assert moderator.person(rosa) == Person(rosa)
    auction = moderator.agreement(name).auction
    again = Moderator(SqlStore(url), clock=clock)
    for one in (moderator, again):
        shown = told(one, auction, name)
        assert not [secret for secret in SECRETS if secret.encode() in shown]
        assert one.state.records == replay(SqlStore(url).entries()).records
        assert violations(one.state) == []
    assert main(["watch", "--json", "-d", url]) == 0
    assert not [secret for secret in SECRETS if secret in capsys.readouterr().out]
    assert verify(SqlStore(url)) == []
    again.deposit(rosa, 5, "EUR")
    again.withdraw(rosa, again.balance(rosa), "EUR")  # its money is its own still


def test_after_erasing_a_party_begins_nothing_and_its_token_opens_nothing() -> None:
    moderator, clock = market()
    rosa, _ = person(moderator, clock)
    token = moderator.replace_token(rosa).token
    moderator.erase(rosa)
    with pytest.raises(BadToken):
        moderator.authenticate(token)
    with pytest.raises(NotAllowed, match="was erased"):
        moderator.announce(rosa, asked(clock), AuctionTerms(reserve=10, open_for_ms=9, receipts=False))
    with pytest.raises(Unknown):
        moderator.id_of(SECRETS[0])
    fresh = moderator.register("", "recipient", name=SECRETS[0]).party  # the same person comes anew, as another
    assert moderator.id_of(SECRETS[0]) == fresh != rosa


def test_nothing_personal_is_taken_in_for_who_was_erased() -> None:
    moderator, clock = market()
    rosa, _ = person(moderator, clock)
    moderator.erase(rosa)
    for party, kind in (("+442079460019", "number"), ("watch", "device"), ("", "user")):
        with pytest.raises(NotAllowed, match="erased"):
            moderator.register(party, kind, belongs_to=rosa, name="Rosa's")


def test_names_are_a_map_to_the_markets_own_ids() -> None:
    moderator, _ = market(store := MemoryStore())
    rosa = moderator.register("", "recipient", name="rosa@clinic").party
    number = moderator.register("+44 20 7946 0018", "number", belongs_to=rosa).party
    assert (moderator.id_of("rosa@clinic"), moderator.id_of("+442079460018")) == (rosa, number)
    assert moderator.person(number) == Person(number, number="+442079460018")
    for taken in ("rosa@clinic", "rita", rosa):
        with pytest.raises(Exists):
            moderator.register("", "recipient", name=taken)
    with pytest.raises(Exists):
        moderator.register("+442079460018", "number", belongs_to="rita")
    with pytest.raises(Exists):
        moderator.register("rosa@clinic", "recipient")
    again = Moderator(store)
    assert again.id_of("rosa@clinic") == rosa
    assert again.state.people.named == moderator.state.people.named


def test_a_key_for_an_id_that_is_not_known_yet_is_shown_once() -> None:
    moderator, _ = market()
    body = party_body("", public_key_of("new"))
    signature = sign_statement(key_of("new"), "party", "", "", body, nonce="n", expires_ms=moderator.now_ms() + 1_000)
    moderator.register("", "recipient", public_key=public_key_of("new"), signature=signature)
    with pytest.raises(Replayed):  # who has seen it cannot tie another name to this key
        moderator.register("", "recipient", public_key=public_key_of("new"), signature=signature)


def test_a_digest_of_a_number_is_in_no_request_and_cannot_be_searched() -> None:
    moderator, _ = market(store := MemoryStore())
    first = moderator.register("+44 20 7946 0018", "number", belongs_to="rita", key="n")
    # Under one key it is one command, whatever personal it says: a digest of that would give it away.
    assert moderator.register("+44 20 7946 0019", "number", belongs_to="rita", key="n").party == first.party
    with pytest.raises(KeyReused):
        moderator.register("+44 20 7946 0018", "number", belongs_to="p0", key="n")
    row = moderator.store.personal()[0]
    assert row.is_bound()
    assert len(row.salt) == 32
    assert personal_of(row.person, row.sequence, bytes(32)).digest != row.digest
    assert row.digest.encode() in b"".join(entry.body for entry in store.entries())


def begin(hinder: str, moderator: Moderator, clock: ManualClock, rosa: str) -> None:
    """Something of hers that is under way."""
    terms = AuctionTerms(reserve=100, open_for_ms=10_000, receipts=False)
    if hinder == "auction":
        moderator.announce(rosa, asked(clock), terms)
        return
    auction = moderator.announce("rita" if hinder == "share" else rosa, asked(clock), terms)
    moderator.bid(auction.auction, BidEntry("p0", 100))
    clock.advance(10_000)
    moderator.close(auction.auction)
    if hinder == "share":
        block = msgspec.structs.replace(moderator.block(auction.block), shareable=True)
        moderator._run("share", None, (), lambda draft: draft.put("block", block.id, block), None)
        moderator.share_block(block.id, "rita", "recipients")
        moderator.join_share(block.id, Share(member=rosa, guaranteed=1))


@pytest.mark.parametrize("hinder", ["auction", "agreement", "share"])
def test_who_has_something_under_way_is_not_erased(hinder: str) -> None:
    moderator, clock = market()
    rosa = moderator.register("", "recipient", name=SECRETS[0]).party
    moderator.deposit(rosa, 5_000, "EUR")
    desk = moderator.register("", "device", belongs_to=rosa, name="desk").party
    begin(hinder, moderator, clock, rosa)
    before = moderator.state.sequence
    with pytest.raises(WrongState, match="is not erased while"):
        moderator.erase(rosa)
    assert (moderator.state.sequence, moderator.id_of(SECRETS[0])) == (before, rosa)
    moderator.erase(desk)  # no side of it
    clock.advance(30 * 3_600_000)
    moderator.tick()
    clock.advance(4_000_000)
    moderator.tick()
    moderator.erase(rosa)
    assert moderator.store.personal() == []


def test_a_reader_that_keeps_the_log_is_told_and_it_is_wiped_later(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    store = SqlStore(f"sqlite:///{path}")
    moderator, clock = market(store)
    rosa, _ = person(moderator, clock)
    store._writing().cursor().execute("PRAGMA busy_timeout=100")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM auction_personal").fetchone()
    with pytest.raises(StoreFailed):
        moderator.erase(rosa)
    assert moderator.person(rosa) == Person(rosa)  # it is erased, and not wiped
    reader.close()
    moderator.deposit(rosa, 1, "EUR")  # the next commit wipes
    assert found_in(tmp_path) == []
    moderator.erase(rosa)  # again is possible
    assert verify(store) == []


# --- an old market, and bugs that these tests find ---


def test_remarks_and_numbers_of_an_older_journal_stay_and_are_counted(store: Any) -> None:
    """They stand in the chain itself: it opens and shows them, and erasing says that they stay."""
    moderator, clock = market(store)

    def inline(draft: Any) -> None:
        record = msgspec.structs.replace(draft.party("phone"), id="+442079460018", kind="number")
        draft.put("party", "+442079460018", record)

    moderator._run("old", None, (), inline, None)
    name = awarded(moderator, clock)
    clock.advance(120_000)
    settled(moderator, name)
    keep = opinions.as_reference
    opinions.as_reference = lambda _digest: "as it was said then"  # type: ignore[assignment]
    try:
        moderator.rate(name, "rita", True, device="phone", remark="as it was said then")
    finally:
        opinions.as_reference = keep
    moderator.rate(name, "p1", True)
    again = Moderator(store, clock=clock, random_bytes=counted_bytes())
    assert again.rating("p1", "anonymise").remarks == ("as it was said then",)
    assert again.erase("rita").in_journal == 2


def no_wipe(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SqlStore, "wipe", lambda _self: None)


def a_remark_in_the_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(opinions, "as_reference", lambda _digest: SECRETS[2])


def a_name_in_the_saved_state(patch: pytest.MonkeyPatch) -> None:
    original = saved.Copy.__init__

    def init(self: Any, state: Any, hash: bytes, answers: Any, keys: Any) -> None:
        names = state.people.named
        more = dict.fromkeys(names, (b"", b""))
        original(self, state, hash, {**answers, **more}, [*keys, *((0, one) for one in names)])

    patch.setattr(saved.Copy, "__init__", init)


@pytest.mark.parametrize("plant", [no_wipe, a_remark_in_the_record, a_name_in_the_saved_state])
def test_a_planted_bug_leaves_something_that_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, clock = market(store)
    rosa, _ = person(moderator, clock)
    copy = saved.Copy(moderator.state, moderator._hash, moderator._answers, moderator._keys)
    store.save(copy.sequence, copy.parts())
    moderator.erase(rosa)
    assert found_in(tmp_path) != []


@pytest.mark.parametrize(
    "damage", ["UPDATE auction_personal SET body = replace(body, 'Rosa', 'Rota')", "DELETE FROM auction_personal"]
)
def test_verify_finds_fields_that_are_others_or_gone(tmp_path: Path, damage: str) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, clock = market(store)
    rosa, _ = person(moderator, clock)
    assert verify(store) == []
    with store.engine.begin() as connection:
        connection.exec_driver_sql(damage)
    assert any("personal fields" in one for one in verify(store))
    assert isinstance(moderator.state.people.of_digest[moderator.party(rosa).personal], Person)


def test_verify_finds_fields_that_were_to_be_erased(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, clock = market(store)
    rosa, _ = person(moderator, clock)
    kept = store.personal()
    moderator.erase(rosa)
    with store.engine.begin() as connection:
        for row in kept:
            connection.execute(store.tables.personal.insert().values(**row._asdict()))
    assert sum("were erased, but are still there" in one for one in verify(store)) == len(kept) == 5


def test_a_failed_commit_keeps_nothing_personal(tmp_path: Path) -> None:
    class Failing(SqlStore):
        fail = False

        def append(self, writes: Any) -> None:
            if self.fail:
                raise StoreFailed("the disk is full")
            super().append(writes)

    store = Failing(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, _ = market(store)
    store.fail = True
    with pytest.raises(StoreFailed):
        moderator.register("", "recipient", name=SECRETS[0])
    store.fail = False
    assert moderator.state.people.named == {}
    moderator.register("", "recipient", name=SECRETS[0])
    assert len(store.personal()) == 1
    assert isinstance(store.personal()[0], Personal)
    assert referenced("remark:" + "0" * 64) == "0" * 64
    assert [decode_body(entry.body).changes for entry in store.entries()]


def test_a_second_moderator_takes_in_names_and_that_they_were_erased(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    one, clock = market(SqlStore(url))
    other = Moderator(SqlStore(url), clock=clock)
    rosa = one.register("", "recipient", name=SECRETS[0]).party
    assert other.id_of(SECRETS[0]) == rosa
    with pytest.raises(Exists):
        other.register("", "recipient", name=SECRETS[0])
    one.erase(rosa)
    with pytest.raises(Unknown):
        other.id_of(SECRETS[0])
    assert other.person(rosa) == Person(rosa)
    assert found_in(tmp_path) == []
