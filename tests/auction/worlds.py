"""Random announcements, bids and ratings for the tests of the rules: small numbers, so that ties are common."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from auction.model.bid import Announcement, Bid, Closing, QualityWeights, ShownRating, commit_seed

SEED = b"the seed of the tests"
PARTIES = tuple("pqrstuvw")
World = tuple[Announcement, list[Bid], dict[str, ShownRating], bytes]


def announce(seed: bytes = SEED, **change: Any) -> Announcement:
    """An announcement of auction `a` with a reserve of 100 EUR cents, changed as asked."""
    fields: dict[str, Any] = {
        "auction": "a",
        "block": "b",
        "service": "anonymise",
        "currency": "EUR",
        "reserve": 100,
        "closing": Closing(opens_ms=0, closes_ms=1000),
        "seed_commitment": commit_seed(change.get("auction", "a"), seed),
    }
    return Announcement(**fields | change)


def bid_of(bidder: str, price: int, sequence: int, **change: Any) -> Bid:
    """A bid in auction `a`, named by its bidder and sequence unless told otherwise."""
    fields: dict[str, Any] = {
        "bid": f"{bidder}{sequence}",
        "auction": "a",
        "bidder": bidder,
        "price": price,
        "currency": "EUR",
        "sequence": sequence,
    }
    return Bid(**fields | change)


def rate(party: str, lower_ppm: int, evidence_ppm: int = 0, newcomer: bool = False) -> ShownRating:
    return ShownRating(
        party=party,
        mean_ppm=lower_ppm,
        lower_ppm=lower_ppm,
        evidence_mean_ppm=evidence_ppm,
        evidence_lower_ppm=evidence_ppm,
        newcomer=newcomer,
    )


@st.composite
def worlds(draw: st.DrawFn, format: str = "second_score", weighs: bool = True, newcomers: bool = True) -> World:
    """A whole sealed auction: either direction, some quality, some newcomers, some bidders that bid twice."""
    seed = draw(st.binary(min_size=1, max_size=4))
    quality = QualityWeights()
    if weighs:
        quality = QualityWeights(opinion=draw(st.integers(0, 20)), evidence=draw(st.integers(0, 20)))
    announcement = announce(
        seed,
        format=format,
        direction=draw(st.sampled_from(["provide", "receive"])),
        reserve=draw(st.integers(0, 30)),
        quality=quality,
        newcomer_share_ppm=draw(st.sampled_from([0, 500_000, 1_000_000])) if newcomers else 0,
    )
    bids = [
        bid_of(draw(st.sampled_from(PARTIES)), draw(st.integers(0, 40)), sequence)
        for sequence in range(draw(st.integers(0, 7)))
    ]
    fraction = st.sampled_from([0, 250_000, 333_333, 500_000, 1_000_000])
    ratings = {
        party: rate(party, draw(fraction), draw(fraction), draw(st.booleans()))
        for party in draw(st.lists(st.sampled_from(PARTIES), unique=True))
    }
    return announcement, draw(st.permutations(bids)), ratings, seed
