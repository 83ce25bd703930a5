"""Parties: their kinds, their numbers, their keys and signatures, and the tokens they get."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from markets import asked, market

from auction.model.bid import Bid
from auction.model.errors import (
    BadNumber,
    BadSignature,
    BadToken,
    BadValue,
    Exists,
    Expired,
    NotAllowed,
    Replayed,
    TooLate,
)
from auction.model.party import Signature, check_public_key, e164
from auction.model.signing import bid_body, sign_statement
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import verify
from auction.storage.sql_store import SqlStore
from auction.storage.store import Store

GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


def public_hex(private: Ed25519PrivateKey) -> str:
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def signed_market(store: Store | None = None) -> tuple[Moderator, Ed25519PrivateKey, str, int]:
    """A market that wants signatures, a provider `signer` with a key, and an open auction."""
    moderator, clock = market(store, config=MarketConfig(signatures=True), providers=1)
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    moderator.register("signer", "provider", public_key=public_hex(private), capacity_bps=10_000)
    moderator.deposit("signer", 50_000, "EUR")
    moderator.post_bond("signer", 50_000, "EUR")
    auction = moderator.announce("rita", asked(clock), AuctionTerms(reserve=1_000, open_for_ms=10_000)).auction
    return moderator, private, auction, clock.now_ms + 5_000


def signature_of(private: Ed25519PrivateKey, auction: str, price: int, nonce: str, expires_ms: int) -> Signature:
    body = bid_body(Bid(bid="-", auction=auction, bidder="signer", price=price, currency="EUR"))
    return sign_statement(private, "bid", auction, "signer", body, nonce=nonce, expires_ms=expires_ms)


def test_each_kind_of_party_has_its_place() -> None:
    moderator, _ = market()
    moderator.register("ulla", "user", belongs_to="rita")
    moderator.register("laptop", "device", belongs_to="ulla")
    number = moderator.register("+44 20 7946 0018", "number", belongs_to="rita").party
    assert moderator.person(number).number == "+442079460018"
    with pytest.raises(BadValue):
        moderator.register("stray", "device", belongs_to="p0")  # a provider has no devices
    with pytest.raises(BadValue):
        moderator.register("stray", "orchestra")
    with pytest.raises(Exists):
        moderator.register("ulla", "user", belongs_to="rita")


@pytest.mark.parametrize(
    ("written", "region", "expected"),
    # Numbers that the regulators keep for fiction (Ofcom) or publish themselves, and what E.164 makes of them.
    [
        ("020 7946 0018", "GB", "+442079460018"),
        ("+49 30 227-0", None, "+49302270"),
        ("(202) 456-1111", "US", "+12024561111"),
    ],
)
def test_telephone_numbers_become_e164(written: str, region: str | None, expected: str) -> None:
    assert e164(written, region) == expected


@pytest.mark.parametrize("written", ["", "12", "+1 999", "not a number", "+999123456789"])
def test_what_is_no_telephone_number_is_refused(written: str) -> None:
    with pytest.raises(BadNumber):
        e164(written)


def test_a_token_is_returned_once_and_only_its_hash_is_stored() -> None:
    moderator, _ = market()
    first = moderator.register("tom", "recipient", key="register tom")
    assert moderator.authenticate(first.token) == "tom"
    assert moderator.register("tom", "recipient", key="register tom").token == ""
    journal = b"".join(entry.body + entry.answer for entry in moderator.store.entries())
    assert first.token.encode() not in journal
    with pytest.raises(BadToken):
        moderator.authenticate(first.token[::-1])


def test_a_token_is_renewed_by_the_partys_key() -> None:
    moderator, private, _, expires_ms = signed_market()
    old = moderator.register("x", "recipient").token
    signature = sign_statement(private, "token", "", "signer", {}, nonce="t1", expires_ms=expires_ms)
    token = moderator.renew_token("signer", signature).token
    assert moderator.authenticate(token) == "signer"
    assert moderator.authenticate(old) == "x"
    with pytest.raises(Replayed):
        moderator.renew_token("signer", signature)


def test_a_signed_bid_is_taken() -> None:
    moderator, private, auction, expires_ms = signed_market()
    moderator.bid(auction, BidEntry("signer", 400, signature=signature_of(private, auction, 400, "n1", expires_ms)))
    assert moderator.auction(auction).bid_count == 1


def test_an_unsigned_forged_altered_or_misplaced_bid_is_refused_and_nothing_changes() -> None:
    moderator, private, auction, expires_ms = signed_market()
    good = signature_of(private, auction, 400, "n1", expires_ms)
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    bad: list[tuple[int, Signature | None]] = [
        (400, None),
        (399, good),  # another price than was signed
        (400, signature_of(stranger, auction, 400, "n1", expires_ms)),
        (400, signature_of(private, "another", 400, "n1", expires_ms)),
        (400, Signature("n2", good.expires_ms, good.signature)),
        (400, Signature(good.nonce, good.expires_ms + 1, good.signature)),
        (400, Signature(good.nonce, good.expires_ms, good.signature[:-1])),
        (400, Signature(good.nonce, good.expires_ms, bytes(64))),
    ]
    before = moderator.state.sequence
    for price, signature in bad:
        with pytest.raises(BadSignature):
            moderator.bid(auction, BidEntry("signer", price, signature=signature))
    assert moderator.state.sequence == before
    moderator.bid(auction, BidEntry("signer", 400, signature=good))  # and the nonce was not used up by the forgeries


def test_a_malleable_signature_is_refused() -> None:
    moderator, private, auction, expires_ms = signed_market()
    good = signature_of(private, auction, 400, "n1", expires_ms)
    second_half = int.from_bytes(good.signature[32:], "little") + GROUP_ORDER
    twin = Signature(good.nonce, good.expires_ms, good.signature[:32] + second_half.to_bytes(32, "little"))
    with pytest.raises(BadSignature, match="malleable"):
        moderator.bid(auction, BidEntry("signer", 400, signature=twin))


def test_a_replayed_bid_is_refused() -> None:
    moderator, private, auction, expires_ms = signed_market()
    entry = BidEntry("signer", 400, signature=signature_of(private, auction, 400, "n1", expires_ms))
    moderator.bid(auction, entry)
    with pytest.raises(Replayed):
        moderator.bid(auction, entry)


def test_an_expired_bid_is_refused() -> None:
    moderator, private, auction, expires_ms = signed_market()
    for expiry in (expires_ms - 5_000, 0, expires_ms + 30 * 86_400_000):
        with pytest.raises(Expired):
            moderator.bid(auction, BidEntry("signer", 400, signature=signature_of(private, auction, 400, "n", expiry)))


# The eight points whose order divides 8, as public tables list them, and two encodings that are not below the prime.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("public_key", [*SMALL_ORDER, "00", "zz" * 32, ""])
def test_a_key_that_anyone_could_sign_for_is_refused(public_key: str) -> None:
    with pytest.raises(BadValue):
        check_public_key(public_key)


def test_common_keys_are_taken() -> None:
    for seed in range(50):
        public_key = public_hex(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))
        assert check_public_key(public_key) == public_key


def test_who_has_no_account_moves_no_money() -> None:
    moderator, _ = market()
    with pytest.raises(NotAllowed):
        moderator.deposit("phone", 10, "EUR")


def test_nonces_are_forgotten_when_their_statements_have_expired(store: Store) -> None:
    moderator, private, auction, expires_ms = signed_market(store)
    signature = signature_of(private, auction, 400, "n1", expires_ms)
    moderator.bid(auction, BidEntry("signer", 400, signature=signature))
    assert list(moderator.state.records["nonce"]) == ["signer/n1"]
    clock = moderator._clock
    assert isinstance(clock, ManualClock)
    clock.advance(expires_ms - clock.now_ms)
    moderator.deposit("signer", 1, "EUR")
    assert not moderator.state.records["nonce"]
    assert not moderator.state.nonces
    with pytest.raises((Expired, TooLate)):
        moderator.bid(auction, BidEntry("signer", 400, signature=signature))
    if isinstance(store, SqlStore):
        assert verify(store) == []
        with store.snapshot() as snapshot:
            assert not [name for kind, name in snapshot.records() if kind == "nonce"]
