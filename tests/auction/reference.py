"""Winners and prices by plain search, from the words of the design and not from the formats' code: an oracle for tests.

`reference(...)` returns what each winner gets as (bid, price, units), sorted. It is slow, knows no standings, and
shares with the formats nothing but the announced words and the stated draw: SHA-256 over seed, auction, the announcer's
nonce and party, the lowest first; of who registered after the announcement after all others."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable

from auction.model.bid import Announcement, Bid, Ratings

Won = list[tuple[str, int, int]]


class Reference:
    """One auction, seen plainly: `better(a, b)` of two prices, who is within the reserve, the quality, the draw."""

    def __init__(self, announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> None:
        self.announcement, self.ratings, self.seed = announcement, ratings, seed
        self.lowest_is_best = announcement.direction == "provide"
        self.in_order = sorted(bids, key=lambda bid: bid.sequence)

    def better(self, one: int, other: int) -> bool:
        return one < other if self.lowest_is_best else one > other

    def within_reserve(self, price: int) -> bool:
        return not self.better(self.announcement.reserve, price)

    def quality(self, bid: Bid) -> int:
        rating, reserve = self.ratings.get(bid.bidder), self.announcement.reserve
        insured = min(1_000_000, bid.insured * 1_000_000 // reserve) if reserve else 0
        opinion = max(rating.lower_ppm if rating is not None else 0, insured)
        evidence = max(rating.evidence_lower_ppm if rating is not None else 0, insured)
        weights = self.announcement.quality
        return weights.opinion * opinion // 1_000_000 + weights.evidence * evidence // 1_000_000

    def hashed(self, tail: bytes) -> int:
        nonce = self.announcement.nonce
        auction = (f"{self.announcement.auction}\0{nonce}" if nonce else self.announcement.auction).encode()
        whole = b"auction.draw\0" + str(len(self.seed)).encode() + b"\0" + self.seed
        whole += str(len(auction)).encode() + b"\0" + auction + tail
        return int.from_bytes(hashlib.sha256(whole).digest(), "big")

    def drawn(self, bid: Bid) -> tuple[bool, int]:
        return bid.registered > self.announcement.sequence, self.hashed(bid.bidder.encode())

    def last_of_each_bidder(self) -> list[Bid]:
        bids: list[Bid] = []
        for bid in self.in_order:
            bids = [earlier for earlier in bids if earlier.bidder != bid.bidder]
            bids.append(bid)
        return bids

    def worth(self, bid: Bid) -> int:
        quality = self.quality(bid)
        return quality - bid.price if self.lowest_is_best else quality + bid.price

    def pecking_order(self, bids: list[Bid]) -> list[Bid]:
        """Selection sort by worth, equal ones by the draw."""
        left, order = list(bids), []
        while left:
            best = left[0]
            for bid in left[1:]:
                equal = self.worth(bid) == self.worth(best)
                drawn_first = self.drawn(bid) < self.drawn(best)
                if self.worth(bid) > self.worth(best) or (equal and drawn_first):
                    best = bid
            left.remove(best)
            order.append(best)
        return order

    def one_sealed_block(self, pay_the_second: bool) -> Won:
        inside = [bid for bid in self.last_of_each_bidder() if self.within_reserve(bid.price)]
        if self.hashed(b"\0share") % 1_000_000 < self.announcement.newcomer_share_ppm:
            new = [bid for bid in inside if bid.bidder not in self.ratings or self.ratings[bid.bidder].newcomer]
            inside = new or inside
        order = self.pecking_order(inside)
        if not order:
            return []
        price = order[0].price
        if pay_the_second:
            price = self.announcement.reserve
            if len(order) > 1:
                # The price at which the winner would be worth as much as the second, if that is within the reserve.
                gap = self.worth(order[0]) - self.worth(order[1])
                even = order[0].price + gap if self.lowest_is_best else order[0].price - gap
                price = even if self.within_reserve(even) else price
        return [(order[0].bid, price, 1)]

    def open_bidding(self) -> Won:
        rule = self.announcement.closing
        # By the latest close that bids can move it to: the one that moved it may be excluded, and others came after.
        closes = rule.closes_ms + rule.extend_times_max * rule.extend_by_ms
        leader: Bid | None = None
        price = limit_of_leader = 0
        step = -self.announcement.increment if self.lowest_is_best else self.announcement.increment
        for bid in self.in_order:
            limit = bid.price if bid.limit is None else bid.limit
            if not rule.opens_ms <= bid.placed_ms < closes:
                continue
            if self.better(bid.price, limit) or not self.within_reserve(limit):
                continue
            opening = bid.price if self.within_reserve(bid.price) else self.announcement.reserve
            if leader is None:
                leader, price, limit_of_leader = bid, opening, limit
            elif leader.bidder == bid.bidder:
                if not self.better(limit, limit_of_leader):
                    continue
                leader, limit_of_leader = bid, limit
            elif self.better(price + step, limit):
                continue
            elif self.better(limit, limit_of_leader):
                # One step past the old leader or what the new one called, whichever is better, but not past its limit.
                price = self.nearer(limit, self.further(limit_of_leader + step, opening))
                leader, limit_of_leader = bid, limit
            else:
                price = self.nearer(limit_of_leader, limit + step)
        return [] if leader is None else [(leader.bid, price, 1)]

    def nearer(self, one: int, other: int) -> int:
        """Of two prices the less good one."""
        return max(one, other) if self.lowest_is_best else min(one, other)

    def further(self, one: int, other: int) -> int:
        """Of two prices the better one."""
        return min(one, other) if self.lowest_is_best else max(one, other)

    def dutch(self) -> Won:
        ramp, rule = self.announcement.ramp, self.announcement.closing
        assert ramp is not None
        for bid in self.in_order:
            if not rule.opens_ms <= bid.placed_ms < rule.closes_ms:
                continue
            price = ramp.start_price
            for _ in range((bid.placed_ms - rule.opens_ms) // ramp.step_ms):
                price += ramp.step if self.lowest_is_best else -ramp.step
                if not self.within_reserve(price):
                    price = self.announcement.reserve
            if not self.better(price, bid.price):
                return [(bid.bid, price, 1)]
        return []

    def uniform_price(self) -> Won:
        units: list[Bid] = []
        for bid in self.pecking_order([bid for bid in self.last_of_each_bidder() if self.within_reserve(bid.price)]):
            units += [bid] * bid.quantity
        served, over = units[: self.announcement.quantity], units[self.announcement.quantity :]
        price = over[0].price if over else self.announcement.reserve
        return [(name, price * len(list(own)), len(list(own))) for name, own in self.grouped(served)]

    @staticmethod
    def grouped(units: list[Bid]) -> list[tuple[str, list[Bid]]]:
        names = dict.fromkeys(bid.bid for bid in units)
        return [(name, [bid for bid in units if bid.bid == name]) for name in names]

    def package_gain(self, bid: Bid) -> int:
        reserve = self.announcement.reserve * len(bid.items)
        return reserve - bid.price if self.lowest_is_best else bid.price - reserve

    def best_packages(self, bids: list[Bid]) -> tuple[tuple[int, int], tuple[Bid, ...]]:
        best: tuple[tuple[int, int], tuple[Bid, ...]] = ((0, 0), ())
        for size in range(1, len(bids) + 1):
            for chosen in itertools.combinations(bids, size):
                items = [item for bid in chosen for item in bid.items]
                if len(items) == len(set(items)) and len({bid.bidder for bid in chosen}) == size:
                    reached = (sum(map(self.package_gain, chosen)), len(items))
                    best = max(best, (reached, chosen), key=lambda entry: entry[0])
        return best

    def packages(self) -> Won:
        """By force; where two choices are equally good the reference cannot say which, so `prices` alone are
        compared."""
        latest = {(bid.bidder, frozenset(bid.items)): bid for bid in self.in_order}
        bids = [bid for bid in latest.values() if self.package_gain(bid) >= 0]
        (whole, _), chosen = self.best_packages(bids)
        won = []
        for bid in chosen:
            (without, _), _ = self.best_packages([other for other in bids if other.bidder != bid.bidder])
            added = whole - without
            won.append((bid.bid, bid.price + added if self.lowest_is_best else bid.price - added, 1))
        return won


def reference(announcement: Announcement, bids: Iterable[Bid], ratings: Ratings, seed: bytes) -> Won:
    """(bid, price, units) of every winner, sorted by bid, in the announced format."""
    seen = Reference(announcement, bids, ratings, seed)
    rules: dict[str, Callable[[], Won]] = {
        "second_score": lambda: seen.one_sealed_block(pay_the_second=True),
        "second_price": lambda: seen.one_sealed_block(pay_the_second=True),
        "first_score": lambda: seen.one_sealed_block(pay_the_second=False),
        "first_price": lambda: seen.one_sealed_block(pay_the_second=False),
        "spot": lambda: seen.one_sealed_block(pay_the_second=False),
        "open": seen.open_bidding,
        "dutch": seen.dutch,
        "uniform_price": seen.uniform_price,
        "packages": seen.packages,
    }
    return sorted(rules[announcement.format]())
