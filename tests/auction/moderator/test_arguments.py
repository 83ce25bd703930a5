"""A call with values of other types than the method states is refused as an AuctionError, and never journalled."""

from __future__ import annotations

import enum
import random
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markets import asked, awarded, counted_bytes, market, signed

from auction.formats.commit_reveal import Commitment
from auction.model.bid import StandingOffer
from auction.model.block import Block
from auction.model.earned import FalseInterval
from auction.model.errors import AuctionError, BadAmount, BadValue
from auction.model.party import Signature
from auction.model.receipt import SignedReceipt
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.arguments import Check, Checks
from auction.moderator.clock import ManualClock
from auction.moderator.invariants import replay, verify
from auction.storage.sql_store import SqlStore


class Word(str):
    """Text of a class of its own."""


class Side(enum.StrEnum):
    RITA = "rita"


class Larger(Block, frozen=True):  # type: ignore[call-arg]
    """A block with a field more."""

    more: int = 0


WRONG: list[Any] = [
    *(None, True, 0, -1, 2**63, -(2**63) - 1, 10**400, 1.0, float("nan"), float("inf"), b"x", 1j, object(), int),
    *("", "\ud800", "a\0b", "rita", "p0", "\n", "x" * 5_000, Word("rita"), Side.RITA, bytearray(b"x"), Ellipsis),
    *((), ("\ud800",), (1,), [], ["p0"], [None], {}, {"a": None}, {1: 2}, {"\ud800": 1}, {"rita": 2**70}, {"rita"}),
]


def right_values(moderator: Moderator, clock: ManualClock) -> dict[Any, list[Any]]:
    """Some values of each type that the methods take: names that are there among them."""
    names = [name for kind in moderator.state.records.values() for name in kind]
    block = asked(clock)
    agreement = next(iter(moderator.state.records["agreement"]))
    offer = StandingOffer(
        offer="o",
        provider="p0",
        service="anonymise",
        unit_price=10,
        currency="EUR",
        quantity=5,
        rate_bps_max=9_000,
        valid_until_ms=clock.now_ms + 1_000_000,
    )
    terms = AuctionTerms(reserve=900, open_for_ms=1_000)
    signature = Signature(nonce="n", expires_ms=clock.now_ms + 1_000, signature=b"s")
    return {
        str: [*names, "EUR", "recipient", "provider", "number", "", "anonymise", "prepaid", "devices", "card"],
        int: [0, 1, 5, 60_000, clock.now_ms + 1_000, -1, 2**62, 2**63 - 1, -(2**63) + 1],
        bool: [True, False],
        bytes: [b"", b"{}"],
        Block: [block, msgspec.structs.replace(block, id="b", provider="p0", starts_ms=0, attributes={"a": "b"})],
        AuctionTerms: [
            terms,
            msgspec.structs.replace(terms, format="spot"),
            msgspec.structs.replace(terms, delta_ppm=5),
        ],
        BidEntry: [BidEntry("p0", 5), BidEntry("p1", 2**62, signature=signature)],
        Signature: [signature],
        StandingOffer: [offer],
        SignedReceipt: [signed(moderator, agreement, 2)],
        FalseInterval: [
            FalseInterval(
                before=None, after=signed(moderator, agreement, 1), inputs=(b"x",), results=(b"y",), segment=0
            )
        ],
    }


class Calls:
    """Calls of every method with values of which some are right for their type and some are wrong."""

    def __init__(self, moderator: Moderator, clock: ManualClock, seed: int) -> None:
        self.numbers = random.Random(seed)
        self.right = right_values(moderator, clock)

    def value(self, hint: Any, wrong: float) -> Any:
        if self.numbers.random() < wrong:
            return self.numbers.choice(WRONG)
        inner = typing.get_args(hint)
        origin = typing.get_origin(hint)
        if hint in self.right:
            value = self.numbers.choice(self.right[hint])
            if isinstance(value, msgspec.Struct) and self.numbers.random() < wrong:
                return self.spoiled(value)
            return value
        if hint is type(None):
            return None
        if origin is dict:
            return {self.value(inner[0], wrong): self.value(inner[1], wrong)}
        if origin in (tuple, Sequence):
            return tuple(self.value(inner[0], wrong) for _ in range(self.numbers.randrange(3)))
        if inner:
            return self.value(self.numbers.choice(inner), wrong)
        return self.struct(hint, wrong)

    def struct(self, kind: Any, wrong: float) -> Any:
        fields = {field.name: self.value(field.type, wrong) for field in msgspec.structs.fields(kind)}
        return kind(**fields)

    def spoiled(self, value: Any) -> Any:
        """The same with one field of another type: put there so that no check of its own sees it."""
        copy = msgspec.structs.replace(value)
        field = self.numbers.choice(msgspec.structs.fields(type(value)))
        msgspec.structs.force_setattr(copy, field.name, self.numbers.choice(WRONG))
        return copy


def prepared(store: Any = None) -> tuple[Moderator, ManualClock]:
    moderator, clock = market(store)
    awarded(moderator, clock, receipts=True)
    moderator.announce("rita", asked(clock), AuctionTerms(reserve=900, open_for_ms=50_000))
    return moderator, clock


@pytest.mark.parametrize("wrong", [0.0, 0.15, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_no_call_of_wrong_types_is_journalled_or_raises_anything_else(seed: int, wrong: float, tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'm.db'}")
    moderator, clock = prepared(store)
    calls = Calls(moderator, clock, seed)
    taken = refused = 0
    with moderator.group():
        for method in moderator.methods.values():
            hints = typing.get_type_hints(method.function)
            hints.pop("return")
            if method.name == "group":
                continue
            for _ in range(25):
                named: dict[str, Any] = {}
                try:
                    named = {name: calls.value(hint, wrong) for name, hint in hints.items() if name != "wait_ms"}
                except (AuctionError, TypeError):
                    continue  # a struct that checks its own fields, or a key that no dict can have
                try:
                    getattr(moderator, method.name)(**named)
                    taken += 1
                except AuctionError:
                    refused += 1
                except Exception as reason:
                    raise AssertionError(f"{method.name}({named}) raised {reason!r}") from reason
    assert taken > 20
    assert refused > 500
    again = Moderator(store, clock=clock, random_bytes=counted_bytes())
    assert again.state.records == moderator.state.records == replay(store.entries(), moderator.config.rating).records
    assert verify(store) == []


def passes(check: Check, value: Any) -> bool:
    try:
        return check(value)
    except AuctionError:  # the value's own check
        return False


def test_what_passes_is_what_the_journal_gives_back() -> None:
    """Everything that a check lets through comes out of JSON as it went in."""
    moderator, clock = prepared()
    checks, calls, seen = Checks(), Calls(moderator, clock, 5), 0
    hints = {
        hint
        for method in moderator.methods.values()
        for name, hint in typing.get_type_hints(method.function).items()
        if name != "return" and hint is not bytes
    }
    for hint in hints:
        for _ in range(300):
            try:
                value = calls.value(hint, 0.2)
            except (AuctionError, TypeError):
                continue
            if passes(checks.of(hint), value):
                seen += 1
                wanted = list(value) if isinstance(value, tuple) and typing.get_origin(hint) is not tuple else value
                assert msgspec.json.decode(msgspec.json.encode(value), type=hint) == wanted
    assert seen > 1_000


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m, c: m.register("x", "recipient", belongs_to=None), BadValue, "belongs_to must be str, not NoneType"),
        (lambda m, c: m.deposit("rita", True, "EUR"), BadAmount, "amount must be int, not bool"),
        (lambda m, c: m.deposit("rita", 1, "EUR", key=5), BadValue, "key must be"),
        (lambda m, c: m.deposit("rita", 1, "EUR", key="\ud800"), BadValue, "lone surrogate"),
        (lambda m, c: m.deposit("rita", 1, "EUR", key="a\0"), BadValue, "NUL"),
        (lambda m, c: m.deposit(Word("rita"), 1, "EUR"), BadValue, "party must be str, not Word"),
        (lambda m, c: m.deposit("rita", 10**30, "EUR"), BadAmount, "not within"),
        (lambda m, c: m.balance(["rita"]), BadValue, "party must be str, not list"),
        (lambda m, c: m.announce("rita", {"id": ""}, AuctionTerms(reserve=1, open_for_ms=1)), BadValue, "block must"),
        (lambda m, c: m.announce("rita", asked(c), AuctionTerms(reserve=1, open_for_ms=1, source=None)),
         BadValue, "terms.source"),
        (lambda m, c: m.bid("a", BidEntry("p0", 5, items=["x"])), BadValue, "entry.items must be"),
        (lambda m, c: m.hold_auction("rita", "b", AuctionTerms(reserve=1, open_for_ms=1), [BidEntry("p0", 0.5)]),
         BadAmount, r"entries\[0\].price must be int, not float"),
        (lambda m, c: m.meter("b", 1, {"p0": "x"}), BadValue, r"used_bits\['p0'\] must be int"),
        (lambda m, c: m.announce("rita", Larger(id="", provider="", service="s", starts_ms=1, ends_ms=2, minimum_bps=1),
                                 AuctionTerms(reserve=1, open_for_ms=1)), BadValue, "not Larger"),
    ],
)  # fmt: skip
def test_the_error_names_the_place(call: Any, error: type[AuctionError], words: str) -> None:
    moderator, clock = prepared()
    before = moderator.state.sequence
    with pytest.raises(error, match=words):
        call(moderator, clock)
    assert moderator.state.sequence == before


def test_what_the_caller_alters_afterwards_is_not_altered_in_the_market() -> None:
    moderator, clock = prepared()
    block = msgspec.structs.replace(asked(clock), attributes={"region": "eu"})
    terms = AuctionTerms(reserve=900, open_for_ms=1_000)
    auction = moderator.announce("rita", block, terms).auction
    block.attributes["region"] = "us"
    found = moderator.state.records["auction"][auction].block
    assert found is not None
    assert found.attributes == {"region": "eu"}
    assert replay(moderator.store.entries()).records == moderator.state.records


def test_a_type_that_no_argument_may_have_is_refused_when_it_is_made() -> None:
    for hint in (Any, object, complex, set[str], tuple[Any, ...]):
        with pytest.raises(TypeError, match="cannot be of type"):
            Checks().of(hint)
    assert Checks().of(Commitment)  # any struct of such fields may be one
