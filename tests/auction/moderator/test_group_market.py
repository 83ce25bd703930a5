"""Sharing and sponsorship through the moderator: members, meters, bargaining, pledges, and the money behind them."""

from __future__ import annotations

import msgspec
import pytest
from markets import asked, market, money, settled
from simulated_cards import Cards

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
    moderator, _, name, group = group_market()
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
    moderator, clock, name, _ = group_market()
    block = moderator.agreement(name).block
    moderator.share_block(block, "rita", "recipients")
    clock.advance(200_000)
    with pytest.raises(TooLate):
        moderator.join_share(block, Share(member="anna"))
    closed = msgspec.structs.replace(asked(clock), id="closed", provider="p1")
    moderator.publish_block(closed)
    with pytest.raises(NotAllowed):
        moderator.share_block("closed", "p1", "recipients")


def test_offers_and_counter_offers_bring_the_price_down_by_a_deadline() -> None:
    moderator, clock, name, group = group_market(900)
    soon = clock.now_ms + 5_000
    with pytest.raises(NotAllowed):
        moderator.offer_price(group, "rita", 901, soon)
    moderator.offer_price(group, "rita", 500, soon)
    with pytest.raises(NotAllowed):
        moderator.accept_price(group, "rita")
    moderator.offer_price(group, "p0", 800, soon)
    with pytest.raises(NotAllowed):
        moderator.offer_price(group, "anna", 1, soon)
    moderator.offer_price(group, "rita", 750, soon)
    moderator.accept_price(group, "p0")
    assert moderator.agreement(name).price == 750
    with pytest.raises(WrongState):
        moderator.offer_price(group, "p0", 700, soon)
    assert violations(moderator.state) == []


def test_willing_members_share_the_cost_and_the_unwilling_go_without() -> None:
    moderator, _, name, group = group_market(900, 100)
    for member, limit in (("anna", 600), ("bert", 550), ("cleo", 0)):
        moderator.join_group(group, member, limit)
    with pytest.raises(InsufficientFunds):
        moderator.join_group(group, "cleo", 1_001)
    with pytest.raises(BadValue):
        moderator.join_group(group, "anna", 599)  # limits only rise
    assert violations(moderator.state) == []
    shared = moderator.settle_group(group)
    assert shared.outcome is not None
    assert shared.outcome.payments == {"anna": 550, "bert": 550}
    assert shared.outcome.without == ("cleo",)
    # 990 of rita's are held, and 1,100 have taken their place.
    assert [moderator.balance(member) for member in ("anna", "bert", "cleo", "rita")] == [450, 450, 1_000, 1_000_110]
    assert violations(moderator.state) == []
    settled(moderator, name)
    assert moderator.balance("rita") == 1_000_000 - 900 + 1_100  # the price is paid, and 200 are for the set-up


def test_pledges_sponsor_the_unwilling_all_or_nothing() -> None:
    """The share of cleo is a third of 900, and 100 of its own."""
    for pledged_amount, served in ((400, ("cleo",)), (399, ())):
        moderator, _, _, group = group_market(900, 100)
        for member, limit in (("anna", 600), ("bert", 600), ("cleo", 0)):
            moderator.join_group(group, member, limit)
        with pytest.raises(NotAllowed):
            moderator.pledge(group, "anna", 50, opted_in=False)
        moderator.pledge(group, "anna", pledged_amount, opted_in=True)
        shared = moderator.settle_group(group)
        assert shared.outcome is not None
        assert shared.outcome.sponsored == served
        assert moderator.balance("cleo") == 1_000  # the sponsored pay nothing
        assert moderator.balance("anna") == 1_000 - (800 if served else 550)
        assert moderator.balance("bert") == 1_000 - (400 if served else 550)
        assert violations(moderator.state) == []


def test_a_group_of_three_with_a_sponsor_whose_provider_leaves_at_half() -> None:
    """What comes back, and δU, go to who paid, in proportion: 600 of 900 were anna's, 300 bert's."""
    moderator, clock, name, group = group_market(900)
    for member, limit in (("anna", 500), ("bert", 500), ("cleo", 0)):
        moderator.join_group(group, member, limit)
    moderator.pledge(group, "anna", 300, opted_in=True)
    moderator.settle_group(group)
    assert [moderator.balance(one) for one in ("anna", "bert", "cleo", "rita")] == [400, 700, 1_000, 999_910]
    clock.advance(90_000)
    moderator.end(name, "p0", "leaving", 450)
    moderator.end(name, "rita", "blaming", 450)
    assert moderator.agreement(name).state == "settled"
    # 450 undelivered and 45 for leaving; rita has her own δ of 90 back.
    assert [moderator.balance(one) for one in ("anna", "bert", "cleo", "rita")] == [730, 865, 1_000, 1_000_000]
    assert money(moderator, "p0") == 100_000 + 450 - 45
    assert violations(moderator.state) == []


def test_a_sponsored_recipient_is_never_marked_as_a_non_payer() -> None:
    moderator, _, name, group = group_market(900)
    for member, limit in (("anna", 1_000), ("rita", 0)):
        moderator.join_group(group, member, limit)
    moderator.deposit("anna", 450, "EUR")
    moderator.pledge(group, "anna", 450, opted_in=True)
    shared = moderator.settle_group(group)
    assert shared.outcome is not None
    assert shared.outcome.sponsored == ("rita",)
    settled(moderator, name)
    assert moderator.drafted_payment_rating(name) is None
    with pytest.raises(NotAllowed):
        moderator.rate(name, "p0", False)


def test_what_was_held_goes_back_when_nothing_comes_of_it_in_time() -> None:
    moderator, clock, _, group = group_market(900)
    moderator.join_group(group, "anna", 400)
    moderator.pledge(group, "anna", 100, opted_in=True)
    clock.advance(3_600_000)
    moderator.tick()
    assert (moderator.group_of(group).state, moderator.balance("anna")) == ("failed", 1_000)
    with pytest.raises(TooLate):
        moderator.join_group(group, "bert", 1)
    assert violations(moderator.state) == []


def test_what_is_paid_by_card_has_no_group_and_nothing_changes() -> None:
    """What comes back of a card that is captured for less could not pay the members."""
    moderator, clock = market(processors={"card": Cards()})
    terms = AuctionTerms(reserve=900, open_for_ms=10_000, receipts=False, method="card", source="token")
    auction = moderator.announce("rita", asked(clock), terms).auction
    before = moderator.state.sequence
    for _ in range(2):  # while it is to be paid, and when bidding is open
        with pytest.raises(BadValue, match="not from a card"):
            moderator.open_group(auction, "rita")
        assert moderator.state.sequence == before
        moderator.pay(auction)
        before = moderator.state.sequence
    moderator.withdraw_auction(auction)
    assert violations(moderator.state) == []
