"""A market from end to end: announce, bid, close, serve, end, rate, and the next auction."""

from __future__ import annotations

from markets import asked, awarded, counted_bytes, market, money, settled

from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.storage.store import Store


def test_a_whole_market_on_every_store(store: Store) -> None:
    moderator, clock = market(store)
    name = awarded(moderator, clock)
    agreement = moderator.agreement(name)
    assert (agreement.provider, agreement.price) == ("p1", 250)  # the cheapest, at the runner-up's price
    assert moderator.balance("rita") == 1_000_000 - 275  # P(1+δ)
    clock.advance(agreement.ends_ms - clock.now_ms)
    over = settled(moderator, name, 125)
    assert (over.state, over.charged) == ("settled", 125)
    assert moderator.balance("rita") == 1_000_000 - 125
    assert money(moderator, "p1") == 100_000 + 125
    moderator.rate(name, "rita", False, device="phone", remark="half of it never came")
    assert moderator.opinions(name) == ()  # hidden until both are in
    moderator.rate(name, "p1", True)
    assert [opinion.satisfied for opinion in moderator.opinions(name)] == [False, True]
    following = moderator.announce("rita", asked(clock), AuctionTerms(receipts=False, reserve=900, open_for_ms=10_000))
    for number in (0, 1):
        moderator.bid(following.auction, BidEntry(f"p{number}", 500))
    shown = {rating.party: rating for rating in moderator.auction(following.auction).ratings}
    assert (shown["p1"].count, shown["p1"].remarks) == (1, ("half of it never came",))
    assert shown["p1"].mean_ppm < shown["p0"].mean_ppm  # p0 stands at the prior
    assert moderator.state.ledger.sum() == 0
    again = Moderator(store, clock=clock, random_bytes=counted_bytes())
    assert again.agreement(name) == moderator.agreement(name)
    assert again.state.ledger.balances == moderator.state.ledger.balances
