"""A market from end to end: announce, bid, close, agree, deliver, charge, rate, and the next auction."""

from __future__ import annotations

from markets import awarded, counted_bytes, market

from auction.moderator import Moderator
from auction.store import Store


def test_a_whole_market_on_every_store(store: Store) -> None:
    moderator, clock = market(store)
    name = awarded(moderator, clock)
    agreement = moderator.agreement(name)
    assert (agreement.provider, agreement.price) == ("p1", 250)  # the cheapest, at the runner-up's price
    moderator.agree(name)
    assert moderator.balance("rita") == 1_000_000 - 250
    moderator.start(name)
    moderator.deliver(name, "rita", {"delivered_ppm": 500_000})
    moderator.finish(name)
    charged = moderator.charge(name)
    assert charged.charged == 125
    assert moderator.balance("p1") == 125
    assert moderator.balance("rita") == 1_000_000 - 125
    assert moderator.state.ledger.sum() == 0
    again = Moderator(store, clock=clock, random_bytes=counted_bytes())
    assert again.agreement(name) == moderator.agreement(name)
    assert again.state.ledger.balances == moderator.state.ledger.balances
