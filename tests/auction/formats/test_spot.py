"""The spot award against a plain search through the offers, and every reason for which an offer does not fit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import PARTIES, SEED, announce, bid_of, rate

from auction.formats.explain import explain
from auction.formats.scored import first_score
from auction.formats.spot import rank_offers, spot, spot_award
from auction.model.bid import QualityWeights, ShownRating, StandingOffer, commit_seed
from auction.model.errors import BadValue, TooLate
from auction.model.money import AMOUNT_MAX
from auction.moderator.records import OfferSheet

NEED = announce(
    format="spot",
    quantity=3,
    rate_bps=1000,
    starts_ms=2000,
    ends_ms=3000,
    region="eu",
    quality=QualityWeights(opinion=10),
)


def offer_of(provider: str, unit_price: int, **change: Any) -> StandingOffer:
    fields: dict[str, Any] = {
        "offer": f"{provider}-{unit_price}",
        "provider": provider,
        "service": "anonymise",
        "unit_price": unit_price,
        "currency": "EUR",
        "quantity": 3,
        "rate_bps_max": 1000,
        "valid_until_ms": 900,
    }
    return StandingOffer(**fields | change)


MISFITS: list[dict[str, Any]] = [
    {"service": "other"},
    {"currency": "USD"},
    {"valid_until_ms": 500},
    {"quantity": 2},
    {"rate_bps_max": 999},
    {"available_from_ms": 2001},
    {"available_until_ms": 2999},
    {"region": "us"},
    {"unit_price": AMOUNT_MAX // 3 + 1},
]
OFFERS = st.lists(
    st.builds(offer_of, st.sampled_from(PARTIES), st.integers(0, 40), region=st.sampled_from(["", "eu", "us"])),
    unique_by=lambda offer: offer.offer,
    max_size=8,
)
RATINGS = st.dictionaries(st.sampled_from(PARTIES), st.sampled_from([0, 500_000, 1_000_000])).map(
    lambda lower: {party: rate(party, ppm) for party, ppm in lower.items()}
)


@given(OFFERS, RATINGS)
def test_the_best_fitting_score_wins_at_its_own_price(
    offers: list[StandingOffer], ratings: dict[str, ShownRating]
) -> None:
    award = spot_award(NEED, offers, ratings, SEED, 500)
    fit = [offer for offer in offers if offer.unit_price * 3 <= 100 and offer.region != "us"]

    def score(offer: StandingOffer) -> int:
        rating = ratings.get(offer.provider)
        return (10 * rating.lower_ppm // 10**6 if rating else 0) - 3 * offer.unit_price

    assert award.failed == (not fit)
    if fit:
        won = next(offer for offer in offers if offer.offer == award.winners[0].bid)
        assert won in fit
        assert score(won) == max(map(score, fit))
        assert award.winners[0].price == 3 * won.unit_price
    assert len(award.standings) == len(offers)


@given(OFFERS, RATINGS)
def test_standings_follow_from_the_sheet_that_is_kept(
    offers: list[StandingOffer], ratings: dict[str, ShownRating]
) -> None:
    need = msgspec.structs.replace(NEED, newcomer_share_ppm=500_000)
    ranked = rank_offers(need, offers, ratings, SEED, 500)
    if ranked.within:
        kept = msgspec.json.decode(msgspec.json.encode(OfferSheet.of(ranked)), type=OfferSheet)
        whole = spot_award(need, offers, ratings, SEED, 500)
        assert tuple(kept.ranked().standings(need.reserve)) == whole.standings


@given(OFFERS, RATINGS)
def test_needed_would_have_won_for_sure(offers: list[StandingOffer], ratings: dict[str, ShownRating]) -> None:
    need = msgspec.structs.replace(NEED, quantity=1)
    award = spot_award(need, offers, ratings, SEED, 500)
    for standing in award.standings:
        if standing.outcome not in ("lost", "beyond_reserve"):
            continue
        prices = []
        for price in range(110):
            other = [
                msgspec.structs.replace(offer, unit_price=price) if offer.offer == standing.bid else offer
                for offer in offers
            ]
            if spot_award(need, other, ratings, SEED, 500).winners[0].bid == standing.bid:
                prices.append(price)
        if standing.needed is None:
            assert prices in ([], [0])
        else:
            assert standing.needed in (max(prices), max(prices) - 1)


@pytest.mark.parametrize("change", MISFITS)
def test_every_misfit_is_refused_with_its_reason(change: dict[str, Any]) -> None:
    award = spot_award(NEED, [offer_of("p", **{"unit_price": 1} | change), offer_of("q", 30)], {}, SEED, 500)
    assert award.winners[0].bidder == "q"
    assert "refused, it" in explain(award)


def test_the_deadline_and_the_direction_hold() -> None:
    with pytest.raises(TooLate):
        spot_award(NEED, [offer_of("p", 1)], {}, SEED, 1000)
    with pytest.raises(BadValue):
        spot_award(msgspec.structs.replace(NEED, direction="receive"), [], {}, SEED, 0)
    with pytest.raises(BadValue, match="seed"):
        spot_award(NEED, [], {}, b"other", 0)


def test_newcomers_get_their_share_of_spot_awards() -> None:
    offers = [offer_of("old", 1), offer_of("new", 9)]
    ratings = {"old": rate("old", 900_000), "new": rate("new", 0, newcomer=True)}
    won = 0
    for number in range(1000):
        seed = b"%d" % number
        need = msgspec.structs.replace(
            NEED, newcomer_share_ppm=100_000, seed_commitment=commit_seed("a", seed), quality=QualityWeights()
        )
        award = spot_award(need, offers, ratings, seed, 500)
        won += award.winners[0].bidder == "new"
        assert award.newcomers_only == (award.winners[0].bidder == "new")
        assert len(award.standings) == 2
    assert 70 <= won <= 130


def test_bids_for_a_spot_need_go_by_first_score() -> None:
    bids = [bid_of("p", 9, 0), bid_of("q", 8, 1)]
    assert spot(NEED, bids, {}, SEED) == first_score(NEED, bids, {}, SEED)
