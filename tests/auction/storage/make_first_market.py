"""Makes first_market.sql: a market of commit 6b91ae7, the last one of the first rules, with deals in every state.

    git worktree add --detach /tmp/first 6b91ae7
    PYTHONPATH=/tmp/first/src python tests/auction/storage/make_first_market.py tests/auction/storage/first_market.sql
    git worktree remove /tmp/first

It is run with that commit's package, not with the present one. Every recipient begins with 10,000, every provider with
10,000 of balance and 10,000 of bond, of which 5,000 are held for each award. What is to come of each deal by the
upgrade stands beside it, and in test_first_market.py.
"""

import hashlib
import itertools
import sqlite3
import sys
import tempfile
from pathlib import Path

from auction.bid import StandingOffer

from auction import AuctionTerms, BidEntry, Block, Delivery, ManualClock, Moderator, Sample, SqlStore
from auction.payment import Outcome

S_MS = 600_000  # from the beginning to the start of every window, which lasts for an hour
HOUR_MS = 3_600_000


class Card:
    """Approves everything."""

    def authorise(self, key, source, amount, currency):
        return Outcome(True, f"card-{key}")

    def capture(self, key, reference, amount):
        return Outcome(True, reference)

    def void(self, key, reference):
        return Outcome(True, reference)

    def refund(self, key, reference, amount):
        return Outcome(True, reference)


numbers = itertools.count(1)
path = Path(tempfile.mkdtemp()) / "first.db"
clock = ManualClock()
market = Moderator(
    SqlStore(f"sqlite:///{path}"),
    clock=clock,
    processors={"card": Card()},
    random_bytes=lambda size: hashlib.sha256(str(next(numbers)).encode()).digest()[:size],
)
start = clock.now_ms + S_MS


def party(name, kind, **more):
    market.register(name, kind, capacity_bps=10_000 if kind == "provider" else 0, **more)
    if kind in ("recipient", "provider"):
        market.deposit(name, 20_000 if kind == "provider" else 10_000, "EUR")
    if kind == "provider":
        market.post_bond(name, 10_000, "EUR")


def block(name="", provider="", later_ms=0):
    begins_ms = start + later_ms
    window = {"starts_ms": begins_ms, "ends_ms": begins_ms + HOUR_MS}
    return Block(id=name, provider=provider, service="carry", maximum_bps=100, **window)


def announce(recipient, what=None, prime="", **terms):
    wanted = AuctionTerms(**{"reserve": 2_000, "open_for_ms": 5_000, "format": "first_price", **terms})
    return market.announce(recipient, what or block(), wanted, prime=prime).auction


def deal(name, price, more=(), **terms):
    """`r-NAME` is awarded to `q-NAME` at this price. `more`: (provider, price) that lose."""
    party(f"r-{name}", "recipient")
    party(f"q-{name}", "provider")
    auction = announce(f"r-{name}", **terms)
    market.bid(auction, BidEntry(f"q-{name}", price))
    for provider, other in more:
        market.bid(auction, BidEntry(provider, other))
    clock.advance(5_000)
    market.close(auction)
    return market.auction(auction).agreements[0]


def deliver(agreement, by, share_ppm, from_ms=start, length_ms=HOUR_MS):
    ends_ms = from_ms + length_ms * share_ppm // 1_000_000
    sample = Sample(starts_ms=from_ms, ends_ms=ends_ms, asked_bits=1, got_bits=1)
    market.deliver(Delivery(agreement=agreement, measured_by=by, samples=(sample,)))


# Over before the upgrade: kept as it is.
settled = deal("settled", 500)
taken_back = deal("takenback", 500)
cancelled = deal("cancelled", 500)
# Running at the upgrade.
running = deal("running", 600)  # half by the recipient's measure: 300 paid, 300 back
claimed = deal("claimed", 800)  # all, by the provider's own measure alone: nothing paid, 800 back
reported = deal("reported", 1_000)  # finished; three quarters by the recipient's, all by the provider's: 750 paid
party("q-second", "provider")
replaced = deal("replaced", 200, more=[("q-second", 300)])
by_card = deal("card", 300, method="card", source="token")  # half measured: 150 to be captured
unserved = deal("unserved", 300, method="card", source="token")  # nothing measured: the card is let go
prime = deal("prime", 900)  # nothing measured; its subcontractor's bond is held still
# Agreed, and not begun; awarded, and not agreed.
agreed = deal("agreed", 400)  # 400 back
awarded = deal("awarded", 700)  # the provider's bond back
grouped = deal("grouped", 700)  # with a group that is open: 60 and 30 back to each member
party("m-one", "recipient")
party("m-two", "recipient")
group = market.open_group(grouped, "r-grouped", HOUR_MS * 3).id
market.join_group(group, "m-one", 60)
market.join_group(group, "m-two", 60)
market.pledge(group, "m-one", 30, opted_in=True)
market.pledge(group, "m-two", 30, opted_in=True)
party("q-seller", "provider")
party("r-buyer", "recipient")
sold = market.publish_block(block("blk-sold", "q-seller", later_ms=HOUR_MS))
sale = announce("q-seller", sold.id, reserve=10)
market.bid(sale, BidEntry("r-buyer", 100))
clock.advance(5_000)
market.close(sale)
bought = market.auction(sale).agreements[0]  # agreed, and not begun: 100 back, the block is the seller's again
market.agree(bought)
party("r-held", "recipient")
party("q-held", "provider")
held = market.hold_auction(
    "r-held",
    block(),
    AuctionTerms(reserve=2_000, open_for_ms=5_000),
    [BidEntry("q-held", 250), BidEntry("q-second", 260)],
).agreements[0]  # agreed at 260: all back

for name in (settled, taken_back, cancelled, running, claimed, reported, replaced, prime, agreed):
    market.agree(name)
for name in (by_card, unserved):
    market.agree(name)
market.cancel(cancelled)
party("q-sub", "provider")
party_of_prime = announce("q-prime", block(), prime=prime, reserve=100)
market.bid(party_of_prime, BidEntry("q-sub", 50))
clock.advance(5_000)
market.close(party_of_prime)
(below,) = market.auction(party_of_prime).agreements
market.agree(below)

clock.advance(start - clock.now_ms)
for name in (settled, taken_back, running, claimed, reported, replaced, by_card, unserved, prime, below):
    market.start(name)
for name in ("settled", "takenback"):
    agreement = {"settled": settled, "takenback": taken_back}[name]
    deliver(agreement, f"r-{name}", 1_000_000)
    market.finish(agreement)
    market.charge(agreement)  # 500 paid
market.register("phone", "device", belongs_to="r-settled")
market.rate(settled, "r-settled", True, device="phone", remark="as promised")
market.rate(settled, "q-settled", True)
market.charge_back(taken_back, 100, key="back")
deliver(below, "q-prime", 1_000_000)
market.finish(below)
market.charge(below)  # 50 paid; its bond stays held until its prime is settled
deliver(running, "r-running", 500_000)
deliver(claimed, "q-claimed", 1_000_000)
deliver(reported, "r-reported", 750_000)
deliver(reported, "q-reported", 1_000_000)
market.finish(reported)
deliver(by_card, "r-card", 500_000)
# The first provider of `replaced` serves a quarter of an hour, and is replaced at half: 50 of the 100 for its half are
# earned. The second serves all of the rest: 100, and 50 of the first one's bond on top.
deliver(replaced, "r-replaced", 250_000)
clock.advance(HOUR_MS // 2)
market.replace(replaced)
deliver(replaced, "r-replaced", 1_000_000, start + HOUR_MS // 2, HOUR_MS // 2)

# Open at the upgrade: withdrawn.
party("r-open", "recipient")
party("q-open", "provider")
start += 3 * HOUR_MS
opened = announce("r-open", open_for_ms=600_000)
market.bid(opened, BidEntry("q-open", 300))
committed = announce("r-open", open_for_ms=600_000, reveal_for_ms=60_000)
market.commit(committed, "q-open", "ab" * 32)  # 5,000 of its bond are held
offered = market.publish_block(block("blk-open", "q-open"))
announce("q-open", offered.id, reserve=10, open_for_ms=600_000)
market.stand_offer(
    StandingOffer(
        offer="stands",
        provider="q-open",
        service="carry",
        unit_price=10,
        currency="EUR",
        quantity=5,
        rate_bps_max=100,
        valid_until_ms=clock.now_ms + 30 * HOUR_MS,
    )
)
market.publish_endpoint("r-open", "x" * 40, address="tcp://192.0.2.1:5555")

database = sqlite3.connect(path)
Path(sys.argv[1]).write_text("\n".join(database.iterdump()) + "\n")
