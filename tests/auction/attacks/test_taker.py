"""What went to nobody is paid out to the taker that the rules name, who is no party; and prices of others' deals."""

from __future__ import annotations

import pytest
from arena import arena, refused
from markets import awarded, market, nobody, settled
from serving import OPERATOR

from auction.model.errors import BadCurrency, BadValue, InsufficientFunds, NotAllowed
from auction.model.rating import RatingRules
from auction.moderator import Moderator
from auction.moderator.config import MarketConfig
from auction.moderator.invariants import violations
from auction.web.client import MarketClient


def with_something(taker: str = "charity") -> Moderator:
    """Both sides have blamed each other: δP of each, 20 + 20, is with nobody."""
    moderator, clock = market(config=MarketConfig(taker=taker, rating=RatingRules(newcomer_bond=0)))
    name = awarded(moderator, clock, (200,), format="first_price")
    for party in ("p0", "rita"):
        moderator.end(name, party, "blaming", 0)
    assert nobody(moderator) == moderator.nobody() == 40
    return moderator


def test_the_operator_pays_the_taker_of_the_rules() -> None:
    moderator = with_something()
    outside = moderator.state.ledger.balances["outside"]
    assert moderator.pay_taker(30, "EUR", key="k") == 10
    assert moderator.pay_taker(30, "EUR", key="k") == 10  # once
    assert moderator.state.ledger.balances["outside"] == outside + 30
    assert moderator.pay_taker(10, "EUR") == 0
    assert moderator.state.records["taken"]["charity"].amount == 40
    with pytest.raises(InsufficientFunds):
        moderator.pay_taker(1, "EUR")
    with pytest.raises(BadValue):
        moderator.pay_taker(0, "EUR")
    with pytest.raises(BadCurrency):
        moderator.pay_taker(1, "JPY")
    assert violations(moderator.state) == []


def test_nobody_is_paid_where_the_rules_name_nobody() -> None:
    moderator = with_something("")
    with pytest.raises(NotAllowed):
        moderator.pay_taker(1, "EUR")


def test_the_taker_is_no_party_and_stands_behind_none() -> None:
    moderator = with_something()
    for party, controller in (("charity", ""), ("shop", "charity")):
        with pytest.raises(NotAllowed):
            moderator.register(party, "provider", controller=controller)
    moderator.register("mine", "provider", controller="owner")
    rules = moderator.rules()
    for taker in ("p0", "mine", "owner", "phone"):
        with pytest.raises(NotAllowed):
            moderator.change_rules(MarketConfig(taker=taker, rating=rules.rating))
    moderator.change_rules(MarketConfig(taker="other", rating=rules.rating))
    assert moderator.pay_taker(40, "EUR") == 0
    assert list(moderator.state.records["taken"]) == ["other"]


def test_a_party_cannot_have_it_paid_out() -> None:
    with arena() as field:
        field.add("mallory")
        assert refused(field.by("mallory").pay_taker, 1, "EUR") == "not_allowed"
        assert field.by("mallory").nobody() == 0


def test_of_others_deals_a_weight_in_eighths_is_public_and_no_price() -> None:
    """A deal of 3,700 weighs 3/8 where 10,000 weighs 1; who reads it finds no number of the deal in the answer."""
    with arena() as field:
        for name, kind in (("clinic", "recipient"), ("north", "provider"), ("stranger", "provider")):
            field.add(name, kind)
        agreement = field.award("clinic", ("north", 3_700), receipts=False)
        settled(field.market, agreement)
        field.by("clinic").rate(agreement, "clinic", True, device="clinic")
        field.by("north").rate(agreement, "north", True)
        stranger = field.by("stranger")
        (opinion, evidence) = stranger.rated_deals("north", "anonymise")
        assert (opinion.kind, opinion.yes_ppm, opinion.weight_eighths) == ("service", 1_000_000, 3)
        assert (evidence.kind, evidence.yes_ppm, evidence.weight_eighths) == ("evidence", 1_000_000, 3)
        (payment,) = stranger.rated_deals("clinic")
        assert (payment.kind, payment.weight_eighths) == ("payment", 3)
        operator = MarketClient(field.url, OPERATOR, retry_for_ms=0)
        of_north = [one for one in operator.overview().ratings if one.rating.party == "north"]
        assert of_north[0].deals == (opinion, evidence)
        said = [
            stranger.rating("north", "anonymise"),
            stranger.rated_deals("north", "anonymise"),
            stranger.standing("north"),
            stranger.opinions(agreement),
            stranger.overview(party="stranger"),
        ]
        assert "3700" not in str(said)
        assert "3_700" not in str(said)
        assert "3700" in str(field.by("north").overview(party="north").awards)
        assert refused(stranger.agreement, agreement) == "not_allowed"
