"""What must hold of a market at all times, each as a check of its own over a state; and the replay of a journal.

Here the state is only read. The checks are written against the records and the ledger and share no code with the
commands that keep them, so that they find what those get wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from auction.formats import format_of
from auction.model.agreement import LIFECYCLE, Agreement
from auction.model.errors import JournalBroken
from auction.model.ledger import OUTSIDE
from auction.model.rating import RatingRules
from auction.moderator.records import Auction
from auction.moderator.saved import restore
from auction.moderator.state import State
from auction.moderator.upgrade import apply_entry
from auction.storage.journal import Entry, verify_chain

if TYPE_CHECKING:
    from auction.storage.sql_store import Snapshot, SqlStore

_STATES: Final = {state for (before, _), after in LIFECYCLE.items() for state in (before, after)}
_HOLDING: Final = ("agreed", "delivering", "delivered")
_COMMITTING: Final = ("free", "offered", "sold")


def debits_equal_credits(state: State) -> Iterator[str]:
    """The ledger sums to zero, and only accounts outside, and funds after a chargeback, are below it."""
    total = sum(state.ledger.balances.values())
    if total:
        yield f"the ledger sums to {total}"
    overdrawn = {name for name, amount in state.ledger.balances.items() if amount < 0 and not name.startswith(OUTSIDE)}
    charged_back = {
        f"funds:{leg.provider}" for one in state.records["agreement"].values() if one.charged_back for leg in one.legs
    }
    for name in sorted(overdrawn - charged_back):
        yield f"{name} is below zero: {state.ledger.balances[name]}"


def holds_match_agreements(state: State) -> Iterator[str]:
    """What is held for each agreement is its price while it is alive, and nothing after it."""
    balances = state.ledger.balances
    for one in state.records["agreement"].values():
        expected = one.price if one.state in _HOLDING else 0
        if balances.get(f"held:{one.id}", 0) != expected:
            yield f"{balances.get(f'held:{one.id}', 0)} is held for {one.id} ({one.state}), not {expected}"
        if one.state in ("charged", "declined", "cancelled", "lapsed") and balances.get(f"topped_up:{one.id}", 0):
            yield f"a top-up is left over from {one.id}"


def pledges_are_held(state: State) -> Iterator[str]:
    """What is held for a group is what its members bid and pledged while it is open, and nothing after it."""
    for group in state.records["group"].values():
        expected = sum(group.bids.values()) + sum(group.pledges.values()) if group.state == "open" else 0
        held = state.ledger.balances.get(f"pledged:{group.id}", 0)
        if held != expected:
            yield f"{held} is held for {group.id} ({group.state}), not {expected}"


def one_award_for_a_block(state: State) -> Iterator[str]:
    """A block is sold by one auction at a time: no two living agreements with the same provider about one block."""
    sold: dict[tuple[str, str], str] = {}
    for one in state.records["agreement"].values():
        if one.state in ("lapsed", "cancelled"):
            continue
        name = (one.provider, one.block)
        if name in sold and state.records["auction"][one.auction].block is not None:
            yield f"block {one.block} is awarded twice: in {sold[name]} and {one.id}"
        sold[name] = one.id
    for auction in state.records["auction"].values():
        items = [item for winning in auction.winners for item in winning.items]
        units = sum(winning.quantity for winning in auction.winners if not winning.items)
        if units > auction.announcement.quantity or len(items) > len(set(items) & set(auction.announcement.items)):
            yield f"{auction.id} awarded more than there was"


def capacity_never_exceeded(state: State) -> Iterator[str]:
    """At every instant the blocks of a provider add up to its capacity at most."""
    steps: dict[str, list[tuple[int, int]]] = {}
    for block in state.records["block"].values():
        if block.provider and block.state in _COMMITTING:
            of_provider = steps.setdefault(block.provider, [])
            of_provider.append((block.starts_ms, block.committed_bps))
            of_provider.append((block.ends_ms, -block.committed_bps))
    for provider, changes in steps.items():
        level = 0
        capacity = state.records["party"][provider].capacity_bps
        for _, rate in sorted(changes):
            level += rate
            if level > capacity:
                yield f"{provider} has promised {level} bit/s of {capacity}"
                break


def charges_within_the_price(state: State) -> Iterator[str]:
    """Nothing is charged above the agreed price, which no bidder can have raised above the reserve."""
    for auction in state.records["auction"].values():
        yield from _prices_within_the_reserve(auction)
    bargained = {group.agreement for group in state.records["group"].values()}
    for one in state.records["agreement"].values():
        if one.charged > one.price:
            yield f"{one.id} was charged {one.charged}, {one.price} was agreed"
        if sum(leg.price for leg in one.legs) > one.price:
            yield f"the legs of {one.id} cost more than was agreed"
        if one.refunded > one.charged:
            yield f"{one.id} was refunded more than it was charged"
        yield from _price_follows_award(state, one, one.id in bargained)


def _prices_within_the_reserve(auction: Auction) -> Iterator[str]:
    """No winner got a price that is worse for the announcer than the announced format allows."""
    announcement = auction.announcement
    for winning in auction.winners:
        bound = format_of(announcement).price_bound(announcement, winning)
        if announcement.sign * winning.price < announcement.sign * bound:
            yield f"{winning.bid} won at {winning.price} in {auction.id}, beyond the reserve of {bound}"


def _price_follows_award(state: State, one: Agreement, bargained: bool) -> Iterator[str]:
    auction = state.records["auction"][one.auction]
    prices = [winning.price for winning in auction.winners]
    if not prices:
        yield f"{one.id} comes of {auction.id}, which has no award"
    elif one.price not in prices and not (bargained and one.price < max(prices)):
        yield f"{one.id} has another price than the award of {auction.id}"


def charges_follow_delivery(state: State) -> Iterator[str]:
    """What was charged is the price in proportion to delivery, leg by leg, rounded down."""
    for one in state.records["agreement"].values():
        if one.state == "charged":
            expected = sum(leg.price * leg.delivered_ppm // 1_000_000 for leg in one.legs)
            if one.charged != expected:
                yield f"{one.id} was charged {one.charged}, {expected} was delivered"


def bonds_are_let_go(state: State) -> Iterator[str]:
    """No bond is held for what is over; a subcontractor's is held until its prime is settled."""
    balances = state.ledger.balances
    agreements = state.records["agreement"]
    over = ("charged", "declined", "cancelled", "lapsed")
    for one in agreements.values():
        held = balances.get(f"held_bond:{one.id}", 0)
        is_over = one.state in over and (not one.prime or agreements[one.prime].state in over)
        if held and is_over:
            yield f"a bond of {held} is still held for {one.id} ({one.state})"
        if not is_over and one.state not in over and held != one.bond:
            yield f"a bond of {held} is held for {one.id}, not {one.bond}"
    for committed in state.records["commitment"].values():
        held = balances.get(f"held_bond:{committed.id}", 0)
        is_open = state.records["auction"][committed.commitment.auction].state == "open"
        if held != (committed.bond if is_open and not committed.revealed else 0):
            yield f"a bond of {held} is held for the commitment {committed.id}"


def no_bid_after_the_close(state: State) -> Iterator[str]:
    """Every bid of an auction came before its close, by the moderator's sequence and by its time."""
    auctions = state.records["auction"]
    for auction, placed in ((auctions[name], placed) for name in auctions for placed in state.bids_in(name)):
        bid = placed.bid
        if bid.placed_ms >= auction.closes_ms and auction.announcement.closing.reveal_until_ms is None:
            yield f"{bid.bid} came after the close of {auction.id}"
        if auction.closed_sequence and bid.sequence // 100_000 > auction.closed_sequence:
            yield f"{bid.bid} has a sequence after the close of {auction.id}"


def states_of_the_lifecycle(state: State) -> Iterator[str]:
    """Awards and states are only such as the lifecycle and the announced format allow."""
    for auction in state.records["auction"].values():
        if auction.state not in _STATES:
            yield f"{auction.id} is in a state that does not exist: {auction.state}"
        if bool(auction.winners) != (auction.state == "awarded"):
            yield f"{auction.id} is {auction.state}, with {len(auction.winners)} winners"
    for name, award in state.records["award"].items():
        auction = state.records["auction"][name]
        if (award.seed, award.winners) != (auction.seed, auction.winners):
            yield f"{name} was awarded by another seed or to others than its award says"
    for one in state.records["agreement"].values():
        if one.state not in _STATES:
            yield f"{one.id} is in a state that does not exist: {one.state}"


def ratings_by_parties_alone(state: State) -> Iterator[str]:
    """An opinion is by one side of an agreement that is over, about the other side."""
    for exchange in state.records["exchange"].values():
        one = state.records["agreement"].get(exchange.agreement)
        if one is None or not one.is_over:
            yield f"{exchange.agreement} can be rated, and is not over"
            continue
        providers = {leg.provider for leg in one.legs}
        for opinion in (exchange.service, exchange.payment):
            if opinion is None:
                continue
            allowed = (opinion.rater == one.recipient and opinion.ratee in providers) or (
                opinion.rater in providers and opinion.ratee == one.recipient
            )
            if not allowed or opinion.rater == opinion.ratee:
                yield f"{opinion.rater} has rated {opinion.ratee} about {one.id}, which is not theirs"


def chains_without_cycles(state: State) -> Iterator[str]:
    """No provider stands twice in a chain of subcontracts."""
    agreements = state.records["agreement"]
    for one in agreements.values():
        seen = [one.provider]
        name = one.prime
        while name:
            above = agreements[name]
            if above.provider in seen or above.recipient == one.provider:
                yield f"{one.id} is under {above.id}, which {one.provider} stands in already"
            seen.append(above.provider)
            name = above.prime


INVARIANTS: Final[tuple[Callable[[State], Iterable[str]], ...]] = (
    debits_equal_credits,
    holds_match_agreements,
    pledges_are_held,
    one_award_for_a_block,
    capacity_never_exceeded,
    charges_within_the_price,
    charges_follow_delivery,
    bonds_are_let_go,
    no_bid_after_the_close,
    states_of_the_lifecycle,
    ratings_by_parties_alone,
    chains_without_cycles,
)


def violations(state: State) -> list[str]:
    """Every invariant that does not hold, in words; empty where all do."""
    return [f"{check.__name__}: {words}" for check in INVARIANTS for words in check(state)]


def replay(entries: Iterable[Entry], rules: RatingRules | None = None) -> State:
    """The state as the fold of a journal, whose chain is verified on the way. Raises JournalBroken."""
    state = State(rules or RatingRules())
    for entry in verify_chain(entries):
        apply_entry(state, entry)
    return state


def differences(state: State, snapshot: Snapshot) -> list[str]:
    """Where the stored records and postings are not the fold of the journal; empty where they are."""
    found = []
    encode: Any = msgspec.json.Encoder().encode
    expected = {
        (kind, name): encode(record).decode()
        for kind, of_kind in state.records.items()
        for name, record in of_kind.items()
    }
    stored = snapshot.records()
    for kind, name in sorted(expected.keys() | stored.keys()):
        one, other = expected.get((kind, name)), stored.get((kind, name))
        if one != other:
            words = "is missing" if other is None else "should not be" if one is None else "is another"
            found.append(f"the stored {kind} {name} {words}")
    balances = {name: amount for name, amount in state.ledger.balances.items() if amount}
    postings = {name: amount for name, amount in snapshot.balances().items() if amount}
    for account in sorted(balances.keys() | postings.keys()):
        if balances.get(account, 0) != postings.get(account, 0):
            found.append(
                f"{account} has {postings.get(account, 0)} in postings, {balances.get(account, 0)} by the journal"
            )
    return found


def verify(store: SqlStore, rules: RatingRules | None = None) -> list[str]:
    """All that is wrong with a stored market: the chain, the fold and every invariant. Empty where nothing is. The
    market may go on meanwhile."""
    with store.snapshot() as snapshot:
        try:
            state = replay(snapshot.entries(), rules)
        except JournalBroken as reason:
            return [f"journal: {reason}"]
        if state.old is not None:
            return ["the market is of an older version: any step of it upgrades it (`auction market rules`)"]
        return differences(state, snapshot) + _saved_differences(state, snapshot) + violations(state)


def _saved_differences(state: State, snapshot: Snapshot) -> list[str]:
    """Whether a start from the saved state comes to what the whole journal comes to."""
    parts = snapshot.saved()
    saved = restore(parts)
    if saved is None:
        return ["the saved state is damaged, or another version's"] if parts else []
    resumed = saved.state
    try:
        for entry in verify_chain(snapshot.entries(resumed.sequence), saved.hash, resumed.sequence, resumed.at_ms):
            apply_entry(resumed, entry)
    except JournalBroken as reason:
        return [f"the saved state is not of this journal: {reason}"]
    found = [f"the saved {kind}s are others" for kind in state.records if state.records[kind] != resumed.records[kind]]
    owned = [{name: amount for name, amount in one.ledger.balances.items() if amount} for one in (state, resumed)]
    return found + (["the saved balances are others"] if owned[0] != owned[1] else [])
