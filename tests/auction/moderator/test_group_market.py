"""Sharing and sponsorship through the moderator: members, meters, bargaining, pledges, and the money behind them."""

from __future__ import annotations

import msgspec
import pytest
from markets import asked, market, money, settled

from auction.groups.sharing import Share
from auction.model.errors import BadValue, Exists, InsufficientFunds, NoCapacity, NotAllowed, TooLate, WrongState
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.invariants import violations


def group_market(price: int = 900, extra_cost: int = 0) -> tuple[Moderator, ManualClock, str, str]:
    """Rita was awarded a shareable block of 1,000 bit/s at `price`, with a group; anna, bert and cleo have 1,000
    each."""
    moderator, clock = market()
    for name in ("anna", "bert", "cleo"):
        moderator.register(name, "recipient")
        moderator.deposit(name, 1_000, "EUR")
    block = msgspec.structs.replace(asked(clock), shareable=True)
    terms = AuctionTerms(receipts=False, reserve=price, open_for_ms=1_000, format="first_price")
    auction = moderator.announce("rita", block, terms).auction
    group = moderator.open_group(auction, "rita", extra_cost=extra_cost).id
    moderator.bid(auction, BidEntry("p0", price))
    clock.advance(1_000)
    moderator.tick()
    return moderator, clock, moderator.auction(auction).agreements[0], group


def test_a_block_is_shared_between_recipients() -> None:
    moderator, _, name, _ = group_market()
    block = moderator.agreement(name).block
    with pytest.raises(NotAllowed):
        moderator.share_block(block, "anna", "recipients")
    moderator.share_block(block, "rita", "recipients")
    moderator.join_share(block, Share(member="anna", weight=1, guaranteed=100))
    moderator.join_share(block, Share(member="bert", weight=3, cap=300))
    assert moderator.rates(block) == {"anna": 700, "bert": 300}
    with pytest.raises(NoCapacity):
        moderator.join_share(block, Share(member="cleo", guaranteed=901))
    with pytest.raises(NotAllowed):
        moderator.join_share(block, Share(member="phone"))
    with pytest.raises(Exists):
        moderator.join_share(block, Share(member="anna"))
    moderator.meter(block, 1_000, {"anna": 650, "bert": 350})
    moderator.leave_share(block, "anna")
    assert moderator.rates(block) == {"bert": 300}
    meters = moderator.meter(block, 1_000, {"bert": 300})
    assert (meters["anna"].used_bits, meters["bert"].used_bits, meters["bert"].over_bits) == (650, 650, 50)
    assert moderator.share_costs(block, 1_300) == {"anna": 700, "bert": 600}


def test_a_block_stays_with_its_organiser_while_its_group_is_open() -> None:
    """It could sell the block and take the members' money besides."""
    moderator, clock, name, group = group_market()
    block = moderator.agreement(name).block
    moderator.join_group(group, "anna", 900)
    with pytest.raises(NotAllowed, match="group"):
        moderator.resell_block(block, "rita", "bert", 500)
    moderator.settle_group(group)
    with pytest.raises(NotAllowed, match="group"):
        moderator.resell_block(block, "rita", "bert", 500)
    assert violations(moderator.state) == []


def test_a_block_is_shared_between_telephone_numbers() -> None:
    moderator, _, name, _ = group_market()
    block = moderator.agreement(name).block
    numbers = [moderator.register(f"+44207946000{i}", "number", belongs_to="rita").party for i in range(3)]
    moderator.share_block(block, "rita", "numbers", channel_bps=64)  # 15 whole channels
    for number in numbers:
        moderator.join_share(block, Share(member=number, guaranteed=2))
    assert sum(moderator.rates(block, dict.fromkeys(numbers, 9)).values()) == 15
    assert moderator.rates(block, {numbers[0]: 14, numbers[1]: 1}) == {numbers[0]: 14, numbers[1]: 1, numbers[2]: 0}
    with pytest.raises(NotAllowed):
        moderator.join_share(block, Share(member="anna"))


def test_a_block_is_shared_between_devices_of_several_users() -> None:
    moderator, _, name, _ = group_market()
    block = moderator.agreement(name).block
    for user, devices in (("ulla", ("u1", "u2", "u3")), ("viki", ("v1",))):
        moderator.register(user, "user", belongs_to="rita")
        for device in devices:
            moderator.register(device, "device", belongs_to=user)
    moderator.share_block(block, "rita", "devices")
    for user in ("ulla", "viki"):
        moderator.join_share(block, Share(member=user))
    for device in ("u1", "u2"):
        moderator.join_share(block, Share(member=device, user="ulla"))
    moderator.join_share(block, Share(member="v1", user="viki"))
    assert moderator.rates(block) == {"u1": 250, "u2": 250, "v1": 500}  # more devices gain a user nothing
    with pytest.raises(NotAllowed):
        moderator.join_share(block, Share(member="u3", user="viki"))
    moderator.leave_share(block, "ulla")
    assert moderator.rates(block) == {"v1": 1_000}


def test_a_block_that_may_not_be_shared_is_not_and_nobody_joins_when_it_is_over() -> None:
