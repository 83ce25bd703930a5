"""The invariants of a market, each a separate check of a state; and the replay of a journal.

This file only reads. The checks use the records and the ledger and share no code with the commands, so that they find
the commands' mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from auction.formats import format_of
from auction.model.agreement import Agreement
from auction.model.block import TIME_MS_MAX
from auction.model.errors import JournalBroken
from auction.model.ledger import FEES, OUTSIDE
from auction.model.lifecycle import STAGES
from auction.model.person import referenced
from auction.model.rating import RatingRules
from auction.moderator.records import Auction
from auction.moderator.reputation import PAYMENTS
from auction.moderator.saved import restore
from auction.moderator.state import State, decode_changes
from auction.moderator.upgrade import apply_entry
from auction.storage.journal import Entry, decode_body, verify_chain

if TYPE_CHECKING:
    from auction.storage.sql_store import Snapshot, SqlStore

_STATES: Final = {stage.state for stage in STAGES}
_OVER: Final = ("settled", "void")
_ANNOUNCING: Final = ("announce", "hold_auction", "spot")
_COMMITTING: Final = ("free", "offered", "sold")


def debits_equal_credits(state: State) -> Iterator[str]:
    """The ledger sums to zero. Only outside accounts, and funds after a chargeback or a card's refund, are below
    zero."""
    total = sum(state.ledger.balances.values())
    if total:
        yield f"the ledger sums to {total}"
    overdrawn = {name for name, amount in state.ledger.balances.items() if amount < 0 and not name.startswith(OUTSIDE)}
    taken_back = {
        f"funds:{one.provider}" for one in state.records["agreement"].values() if one.charged_back or one.refunded
    }
    for name in sorted(overdrawn - taken_back):
        yield f"{name} is below zero: {state.ledger.balances[name]}"


def holds_have_owners(state: State) -> Iterator[str]:
    """The holds of announcements, bids, commitments, offers and agreements are those in the records, each with an owner
    and an end. Nothing is held for what is over."""
    expected: dict[str, int] = {}
    auctions = state.records["auction"]
    for auction in auctions.values():
        account = "held" if auction.announcement.direction == "provide" else "held_bond"
        expected[f"{account}:{auction.id}"] = auction.held
    for placed in state.records["bid"].values():
        account = "held_bond" if auctions[placed.bid.auction].announcement.direction == "provide" else "held"
        is_alive = auctions[placed.bid.auction].state == "open"
        expected[f"{account}:{placed.bid.bid}"] = placed.held if is_alive else 0
    for committed in state.records["commitment"].values():
        auction = auctions[committed.commitment.auction]
        account = "held_bond" if auction.announcement.direction == "provide" else "held"
        expected[f"{account}:{committed.id}"] = committed.held
        if committed.held and auction.state != "open":
            yield f"{committed.held} is held for the commitment {committed.id}, whose auction is over"
    for offered in state.records["offered"].values():
        expected[f"held_bond:{offered.offer}"] = offered.held
    for one in state.records["agreement"].values():
        expected[f"held:{one.id}"] = one.recipient_held
        expected[f"held_bond:{one.id}"] = one.provider_held
        if one.is_over and (one.provider_held or one.recipient_held != one.capturing):
            yield f"money is still held for {one.id}, which is settled"
    held = {name: amount for name, amount in state.ledger.balances.items() if name.startswith("held")}
    for name in sorted(expected.keys() | held.keys()):
        if expected.get(name, 0) != held.get(name, 0):
            yield f"{held.get(name, 0)} is in {name}, but the records say {expected.get(name, 0)}"


def promises_are_funded(state: State) -> Iterator[str]:
    """Until an agreement is settled, the provider's hold covers what it may lose, and the recipient's covers the price;
    after takeovers, all of them together."""
    for one in state.records["agreement"].values():
        if one.is_over:
            continue
        if (one.provider_held - one.penalty - one.insured) * 1_000_000 < one.price * one.delta_ppm:
            yield f"the provider of {one.id} holds {one.provider_held}, which does not cover what it may lose"
        if one.recipient_held < one.price + one.fee.of(one.price) and not state.rests_of.get(one.id):
            yield f"the recipient of {one.id} holds {one.recipient_held} of {one.price}"


def fees_are_as_announced(state: State) -> Iterator[str]:
    """Each agreement has the fee of its announcement, and is charged what that fee comes to on its earnings. The
    operator has no more fees than were charged."""
    charged = state.ledger.fees_put_away
    for one in state.records["agreement"].values():
        charged += one.fee_charged
        auction = state.records["auction"].get(one.auction)
        if auction is not None and one.fee != auction.announcement.fee:
            yield f"{one.id} has a fee other than the announced one"
        due = one.paid * one.fee.ppm // 1_000_000 + one.fee.fixed if one.is_over and one.paid else 0
        if one.fee_charged != due:
            yield f"{one.id} was charged a fee of {one.fee_charged}, but {due} is due for {one.paid}"
    if not 0 <= state.ledger.balances.get(FEES, 0) <= charged:
        yield f"the operator has {state.ledger.balances[FEES]} of fees, but {charged} were charged"


def everything_ends(state: State) -> Iterator[str]:
    """Nothing waits for ever: what is not over has a time when the moderator looks at it, and is in the list of what is
    due then."""
    due = set(state.due)
    for late in state.records["overdue"].values():  # what failed is tried again, so it is still due
        if late.next_ms and (late.next_ms, "overdue", late.id) not in due:
            yield f"{late.id} has failed, and is never tried again"
        elif late.next_ms:
            due.add((late.due_ms, late.kind, late.name))
    for kind in ("auction", "agreement"):
        for one in state.records[kind].values():
            is_over = not one.due_ms
            if is_over != (one.state in _OVER or (kind == "auction" and one.state == "agreed")):
                yield f"{one.id} is {one.state} and due at {one.due_ms}"
            if one.due_ms and (one.due_ms, kind, one.id) not in due:
                yield f"{one.id} is {one.state}, and never due"
    for group in state.records["group"].values():
        if group.due_ms and (group.due_ms, "group", group.id) not in due:
            yield f"{group.id} is {group.state}, and never due"
    for offered in state.records["offered"].values():
        valid_until_ms = state.records["offer"][offered.offer].valid_until_ms
        if (offered.held or offered.rate_bps) and (valid_until_ms, "offer", offered.offer) not in due:
            yield f"{offered.held} and {offered.rate_bps} bit/s are held for {offered.offer}, never to be released"


def debts_are_kept(state: State) -> Iterator[str]:
    """The debt in an agreement is the sum of its debt records."""
    owed: dict[str, int] = {}
    for debt in state.records["debt"].values():
        owed[debt.agreement] = owed.get(debt.agreement, 0) + debt.amount
    for one in state.records["agreement"].values():
        if one.debt != owed.get(one.id, 0):
            yield f"{one.debt} is owed for {one.id}, its debts are {owed.get(one.id, 0)}"


def pledges_are_held(state: State) -> Iterator[str]:
    """The holds of an open group are what its members put in; a closed group holds nothing."""
    for group in state.records["group"].values():
        expected = sum(group.limits.values()) + sum(group.pledges.values()) if group.state == "open" else 0
        held = state.ledger.balances.get(f"pledged:{group.id}", 0)
        if held != expected:
            yield f"{held} is held for {group.id} ({group.state}), not {expected}"


def one_award_for_a_block(state: State) -> Iterator[str]:
    """A block is sold by one auction at a time: no provider has two unsettled agreements about one block."""
    sold: dict[tuple[str, str], str] = {}
    for one in state.records["agreement"].values():
        if one.of:
            continue
        name = (one.provider, one.block)
        auction_of = state.records["auction"].get(one.auction)
        if name in sold and auction_of is not None and auction_of.block is not None:
            yield f"block {one.block} is awarded twice: in {sold[name]} and {one.id}"
        sold[name] = one.id
    for auction in state.records["auction"].values():
        items = [item for winning in auction.winners for item in winning.items]
        units = sum(winning.quantity for winning in auction.winners if not winning.items)
        if units > auction.announcement.quantity or len(items) > len(set(items) & set(auction.announcement.items)):
            yield f"{auction.id} awarded more than it announced"


def capacity_never_exceeded(state: State) -> Iterator[str]:
    """At every instant since the capacity was set, the blocks and standing offers of a provider add up to at most its
    capacity; and the blocks that were awarded from an offer to at most the offer's."""
    promised: dict[str, list[tuple[int, int, int]]] = {}
    awarded: dict[str, list[tuple[int, int, int]]] = {}
    stand = {offered.key: offered for offered in state.records["offered"].values() if offered.rate_bps}
    for block in state.records["block"].values():
        if block.provider and block.state in _COMMITTING:
            of, name = (awarded, block.offer) if block.offer in stand else (promised, block.provider)
            of.setdefault(name, []).append((block.starts_ms, block.ends_ms, block.committed_bps))
    for name, offered in stand.items():
        promised.setdefault(offered.provider, []).append((offered.from_ms, offered.until_ms, offered.rate_bps))
        if _highest(awarded.get(name, ()), 0) > offered.rate_bps:
            yield f"more was awarded from {name} than the {offered.rate_bps} bit/s that it holds"
    for provider, promises in promised.items():
        party = state.records["party"][provider]
        level = _highest(promises, party.capacity_from_ms)
        if level > party.capacity_bps:
            yield f"{provider} has promised {level} bit/s of {party.capacity_bps}"


def _highest(promises: Iterable[tuple[int, int, int]], since_ms: int) -> int:
    """The highest sum of rates at any instant after that time, of (start, end, rate)."""
    steps = [step for starts_ms, ends_ms, rate in promises for step in ((starts_ms, rate), (ends_ms, -rate))]
    level = highest = 0
    for at_ms, rate in [*sorted(steps), (TIME_MS_MAX + 1, 0)]:
        if at_ms > since_ms:
            highest = max(highest, level)
        level += rate
    return highest


def charges_within_the_price(state: State) -> Iterator[str]:
    """Earnings are at most the agreed price, which is within the reserve. Other charges are for leaving, and at most δ
    of the price."""
    for auction in state.records["auction"].values():
        yield from _prices_within_the_reserve(auction)
    bargained = {group.agreement for group in state.records["group"].values()}
    for one in state.records["agreement"].values():
        if one.paid > one.price:
            yield f"{one.id} earned {one.paid}, but the price is {one.price}"
        if (one.charged - one.price) * 1_000_000 > one.price * one.delta_ppm:
            yield f"{one.id} was charged {one.charged}, but the price is {one.price}"
        if one.refunded + one.charged_back > one.charged:
            yield f"{one.id} was refunded more than it was charged"
        if not one.of:
            yield from _price_follows_award(state, one, one.id in bargained)


def _prices_within_the_reserve(auction: Auction) -> Iterator[str]:
    """No winner got a price that is worse for the announcer than the announced format allows."""
    announcement = auction.announcement
    for winning in auction.winners:
        bound = format_of(announcement).price_bound(announcement, winning.quantity, winning.items)
        if announcement.sign * winning.price < announcement.sign * bound:
            yield f"{winning.bid} won at {winning.price} in {auction.id}, beyond the reserve of {bound}"


def _price_follows_award(state: State, one: Agreement, bargained: bool) -> Iterator[str]:
    auction = state.records["auction"].get(one.auction)
    if auction is None:
        return  # it has been over so long that it is no longer kept
    prices = [winning.price for winning in auction.winners]
    if not prices:
        yield f"{one.id} comes from {auction.id}, which has no award"
    elif one.price not in prices and not (bargained and one.price < max(prices)):
        yield f"the price of {one.id} is not that of the award of {auction.id}"


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
    """Awards and states are those that the lifecycle and the announced format allow."""
    for auction in state.records["auction"].values():
        if auction.state not in _STATES:
            yield f"{auction.id} is in a state that does not exist: {auction.state}"
        if bool(auction.winners) != (auction.state == "agreed"):
            yield f"{auction.id} is {auction.state}, with {len(auction.winners)} winners"
    for name, award in state.records["award"].items():
        auction = state.records["auction"][name]
        if (award.seed, award.winners) != (auction.seed, auction.winners):
            yield f"{name} has a seed or winners that do not match its award"
    for one in state.records["agreement"].values():
        if one.state not in _STATES:
            yield f"{one.id} is in a state that does not exist: {one.state}"


def bids_say_when_their_bidders_came(state: State) -> Iterator[str]:
    """Bids and announcements state the right entries: late registrants come last in a tie."""
    for placed in state.records["bid"].values():
        party = state.records["party"].get(placed.bid.bidder)
        if party is not None and placed.bid.registered != party.registered:
            yield f"{placed.bid.bid} says that {party.id} came with entry {placed.bid.registered}"
    for auction in state.records["auction"].values():
        if auction.announcement.sequence not in (0, auction.announced_sequence):
            yield f"{auction.id} says that it was announced by entry {auction.announcement.sequence}"


def ratings_by_parties_alone(state: State) -> Iterator[str]:
    """An opinion is by one side of a settled agreement about the other side."""
    for exchange in state.records["exchange"].values():
        one = state.records["agreement"].get(exchange.agreement)
        if one is None or not one.is_over:
            yield f"{exchange.agreement} can be rated, but is not over"
            continue
        providers = {one.provider}
        for opinion in (exchange.service, exchange.payment):
            if opinion is None:
                continue
            allowed = (opinion.rater == one.recipient and opinion.ratee in providers) or (
                opinion.rater in providers and opinion.ratee == one.recipient
            )
            if not allowed or opinion.rater == opinion.ratee:
                yield f"{opinion.rater} has rated {opinion.ratee} for {one.id}, but they are not its sides"


def chains_without_cycles(state: State) -> Iterator[str]:
    """No provider is twice in a chain of subcontracts."""
    agreements = state.records["agreement"]
    for one in agreements.values():
        seen = [one.provider]
        name = one.prime
        while name:
            above = agreements.get(name)
            if above is None:
                break
            if above.provider in seen or above.recipient == one.provider:
                yield f"{one.id} is under {above.id}, whose provider is {one.provider} too"
            seen.append(above.provider)
            name = above.prime


def exclusions_have_grounds(state: State) -> Iterator[str]:
    """No party that the announcer refuses wins, and no other is excluded for that reason."""
    parties = state.records["party"]
    for auction in state.records["auction"].values():
        named = {name for party in auction.refused for name in parties[party].interests}
        for winning in auction.winners:
            if winning.bidder in auction.refused:
                yield f"{winning.bidder} won {auction.id}, whose announcer refuses to deal with it"
        unmatched = {bid for bid, why in auction.excluded if why == "not matched"}
        if not unmatched or auction.id in state.records["offer_sheet"]:
            continue  # for offers, both lists count as of the award
        bidder_of = {one.bid.bid: one.bid.bidder for one in state.bids_in(auction.id)}
        for bid in unmatched:
            if named.isdisjoint(parties[bidder_of[bid]].interests):
                yield f"{bid} was not matched in {auction.id}, but its bidder is on no list"


def the_banned_begin_nothing(state: State) -> Iterator[str]:
    """A party has announced, bid, offered and won nothing after its ban, and has nothing open."""
    banned = {name: one.banned_sequence for name, one in state.records["party"].items() if one.banned_sequence}
    if not banned:
        return
    for auction in state.records["auction"].values():
        since = banned.get(auction.announcer)
        if since and (auction.announced_sequence > since or auction.state in ("open", "funding")):
            yield f"{auction.id} is open, but {auction.announcer} is banned"
        for winning in auction.winners:
            if auction.closed_sequence > banned.get(winning.bidder, auction.closed_sequence):
                yield f"{winning.bidder} won {auction.id}, but was banned before"
    for offer in state.records["offer"].values():
        since = banned.get(offer.provider)
        if since and (offer.sequence > since or offer.valid_until_ms > state.at_ms):
            yield f"{offer.offer} stands, but {offer.provider} is banned"
    for placed in state.records["bid"].values():
        if placed.bid.sequence // 100_000 > banned.get(placed.bid.bidder, placed.bid.sequence):
            yield f"{placed.bid.bid} came after {placed.bid.bidder} was banned"


def bids_of_the_banned_are_withdrawn(state: State) -> Iterator[str]:
    """Who is banned has no bid in an open auction; what is withdrawn holds nothing, leads nowhere and wins nothing."""
    auctions, parties = state.records["auction"], state.records["party"]
    withdrawn = set()
    for placed in state.records["bid"].values():
        bid, auction = placed.bid, auctions[placed.bid.auction]
        if placed.withdrawn:
            withdrawn.add(bid.bid)
            if placed.held:
                yield f"{bid.bid} is withdrawn, and holds {placed.held}"
        elif auction.state == "open" and parties[bid.bidder].banned_sequence:
            yield f"{bid.bidder} is banned, and its {bid.bid} is in {auction.id}"
    for name, bidding in state.records["bidding"].items():
        if auctions[name].state == "open" and bidding.leader is not None and bidding.leader.bid in withdrawn:
            yield f"{bidding.leader.bid} leads in {name}, and is withdrawn"
    for auction in auctions.values():
        for winning in auction.winners:
            if winning.bid in withdrawn:
                yield f"{winning.bid} won {auction.id}, and is withdrawn"


INVARIANTS: Final[tuple[Callable[[State], Iterable[str]], ...]] = (
    debits_equal_credits,
    holds_have_owners,
    promises_are_funded,
    fees_are_as_announced,
    everything_ends,
    debts_are_kept,
    pledges_are_held,
    one_award_for_a_block,
    capacity_never_exceeded,
    charges_within_the_price,
    no_bid_after_the_close,
    states_of_the_lifecycle,
    bids_say_when_their_bidders_came,
    ratings_by_parties_alone,
    chains_without_cycles,
    exclusions_have_grounds,
    the_banned_begin_nothing,
    bids_of_the_banned_are_withdrawn,
)


def violations(state: State) -> list[str]:
    """Every violated invariant, in words; empty if all hold."""
    return [f"{check.__name__}: {words}" for check in INVARIANTS for words in check(state)]


def replay(entries: Iterable[Entry], rules: RatingRules | None = None, wrong: list[str] | None = None) -> State:
    """The state that a journal folds to. Adds to `wrong` what an entry claims against the entries before it. Verifies
    the hash chain: raises JournalBroken."""
    state = State(rules or RatingRules())
    for entry in verify_chain(entries):
        if wrong is not None and entry.command in _ANNOUNCING and state.old is None:
            wrong += _wrong_starts(state, entry)
        apply_entry(state, entry)
    return state


def _wrong_starts(state: State, entry: Entry) -> Iterator[str]:
    """An announcement says where new names start as the records before it have it."""
    for kind, name, one in decode_changes(decode_body(entry.body))[0]:
        if kind == "auction" and name not in state.records[kind] and one.announcement.sequence:
            said = (one.announcement.start_ppm, one.announcement.evidence_start_ppm)
            of = one.announcement.service if one.announcement.direction == "provide" else PAYMENTS
            if said != state.reputation.start(of, entry.at_ms):
                yield f"{name} was announced with newcomers at {said}, which is not what the records said"


def differences(state: State, snapshot: Snapshot) -> list[str]:
    """The differences between the stored records and postings and the fold of the journal; empty if there are none."""
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
            words = "is missing" if other is None else "should not be" if one is None else "differs"
            found.append(f"the stored {kind} {name} {words}")
    balances = {name: amount for name, amount in state.ledger.balances.items() if amount}
    postings = {name: amount for name, amount in snapshot.balances().items() if amount}
    for account in sorted(balances.keys() | postings.keys()):
        if balances.get(account, 0) != postings.get(account, 0):
            found.append(
                f"{account} has {postings.get(account, 0)} in postings, but {balances.get(account, 0)} in the journal"
            )
    return found


def unbound_fields(state: State, snapshot: Snapshot) -> list[str]:
    """How the personal fields beside the journal differ from those whose digests it has; empty if they do not."""
    rows = {row.digest: row for row in snapshot.personal()}
    found = [f"the personal fields of {row.person.about} were changed" for row in rows.values() if not row.is_bound()]
    expected = {one.personal for one in state.records["party"].values() if one.personal}
    opinions = [one.opinion for one in state.records["drafted"].values()]
    for exchange in state.records["exchange"].values():
        opinions += [one for one in (exchange.service, exchange.payment) if one is not None]
    expected |= {said for said in (referenced(one.remark) for one in opinions) if said}
    erased = state.erased_digests
    found += [
        f"the personal fields {one} are missing, but were not erased" for one in sorted(expected - erased - rows.keys())
    ]
    found += [f"the personal fields {one} were erased, but are still there" for one in sorted(erased & rows.keys())]
    found += [f"the personal fields {one} belong to nothing in the journal" for one in sorted(rows.keys() - expected)]
    return found


def verify(store: SqlStore, rules: RatingRules | None = None) -> list[str]:
    """All faults of a stored market: in the chain, the fold and every invariant. Empty if there are none. The market
    may keep running meanwhile."""
    found: list[str] = []
    with store.snapshot() as snapshot:
        try:
            state = replay(snapshot.entries(), rules, found)
        except JournalBroken as reason:
            return [f"journal: {reason}"]
        if state.old is not None:
            return ["the market is of an older version: any step of it upgrades it (`auction market rules`)"]
        return (
            found
            + differences(state, snapshot)
            + unbound_fields(state, snapshot)
            + _saved_differences(state, snapshot)
            + violations(state)
        )


def _saved_differences(state: State, snapshot: Snapshot) -> list[str]:
    """Checks that the saved state and the entries after it give the same state as the whole journal."""
    parts = snapshot.saved()
    saved = restore(parts)
    if saved is None:
        return ["the saved state is damaged or from another version"] if parts else []
    resumed = saved.state
    try:
        for entry in verify_chain(snapshot.entries(resumed.sequence), saved.hash, resumed.sequence, resumed.at_ms):
            apply_entry(resumed, entry)
    except JournalBroken as reason:
        return [f"the saved state is not from this journal: {reason}"]
    found = [f"the saved {kind}s differ" for kind in state.records if state.records[kind] != resumed.records[kind]]
    owned = [{name: amount for name, amount in one.ledger.balances.items() if amount} for one in (state, resumed)]
    found += ["the saved names differ"] if state.names_used != resumed.names_used else []
    return found + (["the saved balances differ"] if owned[0] != owned[1] else [])
