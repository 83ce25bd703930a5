"""The draft in which one command is decided: reading, putting records, moving money.

Nothing is decided or written here: `rules` decides, `core` commits drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from auction.model.agreement import Agreement
from auction.model.block import Block
from auction.model.errors import BadAmount, Exists, InsufficientFunds, Replayed, Unknown
from auction.model.ledger import NOBODY, OUTSIDE, Transfer, bond, funds
from auction.model.money import AMOUNT_MAX
from auction.model.party import Party, Verifier
from auction.model.person import SALT_BYTES, Person, Personal, personal_of
from auction.moderator.config import MarketConfig
from auction.moderator.records import Auction, BlockShares, Nonce, Offered, PlacedBid
from auction.moderator.state import COMMITTING_STATES, State
from auction.moderator.terms import Cost

_PROMISING: Final = frozenset({"block", "offered"})  # kinds of record that take of a provider's capacity


class Draft:
    """One command while it is decided: reads see what the command has put so far, and nothing outside changes until the
    whole command is committed. A command that raises leaves no trace. The draft also carries what the rules need: the
    market's `config`, the verifier of signatures, and the source of random bytes."""

    __slots__ = (
        "_balances",
        "_named",
        "at_ms",
        "changes",
        "config",
        "erased",
        "has_blocks",
        "methods",
        "personal",
        "random_bytes",
        "sequence",
        "state",
        "transfers",
        "verifier",
    )

    def __init__(
        self,
        state: State,
        at_ms: int,
        verifier: Verifier,
        random_bytes: Callable[[int], bytes],
        methods: Collection[str] = (),
    ) -> None:
        self.state = state
        self.config: MarketConfig = state.config
        self.verifier = verifier
        self.random_bytes = random_bytes
        self.methods = methods  # methods of payment besides prepaid: this market's card processors
        self.sequence = state.sequence + 1
        self.at_ms = at_ms
        self.changes: dict[tuple[str, str], Any] = {}
        self.transfers: list[Transfer] = []
        self.personal: list[Personal] = []  # to be stored beside the journal
        self.erased: list[str] = []  # digests of personal fields to be erased
        self._balances: dict[str, int] = {}  # of the accounts that these have moved
        self._named = 0
        self.has_blocks = False

    def new_id(self, kind: str) -> str:
        """A unique name: the kind, the entry's number and a count within it."""
        self._named += 1
        return f"{kind}-{self.sequence}" if self._named == 1 else f"{kind}-{self.sequence}.{self._named}"

    def keep_personal(self, about: str, **fields: str) -> str:
        """Stores personal fields beside the journal; returns the digest that stands for them in it."""
        row = personal_of(Person(about, **fields), self.sequence, self.random_bytes(SALT_BYTES))
        self.personal.append(row)
        return row.digest

    def put(self, kind: str, name: str, record: Any) -> None:
        self.changes[kind, name] = record
        if kind in _PROMISING:
            self.has_blocks = True

    def add(self, kind: str, name: str, record: Any) -> None:
        """Puts a new record. Raises Exists if there is one of this name."""
        if (kind, name) in self.changes or name in self.state.records[kind]:
            raise Exists(f"there is a {kind} {name!r} already")
        self.put(kind, name, record)

    def check_unused(self, kind: str, name: str) -> None:
        """A name is never given to a second thing, also when the first is put away. Raises Exists."""
        if self.state.is_used(kind, name):
            raise Exists(f"there was a {kind} {name!r}, and a name is not given twice")

    def find(self, kind: str, name: str) -> Any | None:
        record = self.changes.get((kind, name)) if self.changes else None
        return self.state.records[kind].get(name) if record is None else record

    def get(self, kind: str, name: str) -> Any:
        record = self.changes.get((kind, name)) if self.changes else None
        if record is None:
            record = self.state.records[kind].get(name)
            if record is None:
                raise Unknown(f"there is no {kind} {name!r}")
        return record

    def party(self, name: str) -> Party:
        return self.get("party", name)  # type: ignore[no-any-return]

    def block(self, name: str) -> Block:
        return self.get("block", name)  # type: ignore[no-any-return]

    def auction(self, name: str) -> Auction:
        return self.get("auction", name)  # type: ignore[no-any-return]

    def agreement(self, name: str) -> Agreement:
        return self.get("agreement", name)  # type: ignore[no-any-return]

    def shares(self, block: str) -> BlockShares:
        return self.get("shares", block)  # type: ignore[no-any-return]

    def placed_bids(self, auction: str) -> list[PlacedBid]:
        """The bids of an auction in the moderator's sequence."""
        placed = self.state.bids_in(auction)
        if self.changes:
            known = {bid.bid.bid: i for i, bid in enumerate(placed)}
            for (kind, name), record in self.changes.items():
                if kind == "bid" and record.bid.auction == auction:
                    if name in known:
                        placed[known[name]] = record
                    else:
                        placed.append(record)
        return placed

    def live_bids(self, auction: str) -> list[PlacedBid]:
        """The bids of an open auction that bind their bidders, whatever they hold: of each bidder the last one for the
        same items, unless it was withdrawn."""
        last = {(one.bid.bidder, frozenset(one.bid.items)): one for one in self.placed_bids(auction)}
        return [one for one in last.values() if not one.withdrawn]

    def transfer(self, source: str, target: str, amount: int, forced: bool = False) -> None:
        """Moves money; does nothing for zero. Raises InsufficientFunds or BadAmount."""
        if amount == 0:
            return
        if type(amount) is not int or not 0 < amount <= AMOUNT_MAX:
            raise BadAmount(f"a transfer of {amount!r} minor units")
        moved, balances = self._balances, self.state.ledger.balances
        left = (moved[source] if source in moved else balances.get(source, 0)) - amount
        if left < 0 and not forced and not source.startswith(OUTSIDE):
            raise InsufficientFunds(f"{source} has {left + amount} minor units, {amount} are needed")
        gained = (moved[target] if target in moved else balances.get(target, 0)) + amount
        if gained > AMOUNT_MAX:
            raise BadAmount(f"{target} would exceed the largest balance of the ledger")
        if source != target:
            moved[source], moved[target] = left, gained
        self.transfers.append((source, target, amount))

    def balance(self, account: str) -> int:
        """With what this command has moved."""
        known = self._balances.get(account)
        return self.state.ledger.balances.get(account, 0) if known is None else known

    def has_room(self, provider: Party, block: Block) -> bool:
        """Whether the provider has the capacity for the block beside what it has promised."""
        rate_bps, capacity_bps = block.committed_bps, provider.capacity_bps
        if not self.has_blocks and rate_bps <= self.state.spare_of(provider):
            return True
        return self.committed_peak(provider.id, block) + rate_bps <= capacity_bps

    def cost_to(self, party: str) -> Cost:
        """What the command takes from a party's balance and bond, and the part of it that goes to nobody."""
        taken = dict.fromkeys((funds(party), bond(party)), 0)
        lost = 0
        for source, target, amount in self.transfers:
            if source in taken:
                taken[source] += amount
            if target in taken:
                taken[target] -= amount
            lost += amount if target == NOBODY else 0
        return Cost(of_balance=taken[funds(party)], of_bond=taken[bond(party)], to_nobody=lost)

    def committed_peak(self, provider: str, block: Block) -> int:
        """The provider's highest promise within the block's window, including what this command has put so far."""
        return self.peak_bps(provider, block.starts_ms, block.ends_ms)

    def peak_bps(self, provider: str, starts_ms: int, ends_ms: int) -> int:
        """The provider's highest promise within a window, by blocks and offers, including what this command has put."""
        timeline = self.state.timeline(provider)
        if not self.has_blocks:
            return timeline.peak_bps(starts_ms, ends_ms)
        steps = [
            (first_ms, last_ms, sign * rate_bps)
            for (kind, name), new in self.changes.items()
            if kind in _PROMISING
            for one, sign in ((self.state.records[kind].get(name), -1), (new, 1))
            if one is not None and one.provider == provider
            for first_ms, last_ms, rate_bps in self._takes(one)
        ]
        for first_ms, last_ms, rate_bps in steps:  # the changes are added, and taken away again
            timeline.add(first_ms, last_ms, rate_bps)
        try:
            return timeline.peak_bps(starts_ms, ends_ms)
        finally:
            for first_ms, last_ms, rate_bps in steps:
                timeline.add(first_ms, last_ms, -rate_bps)

    def _takes(self, one: Block | Offered) -> Iterator[tuple[int, int, int]]:
        """What a record takes of its provider's capacity, as (start, end, rate) that add up: a standing offer its rate,
        without the blocks that were awarded out of it, which take of the offer."""
        if isinstance(one, Offered):
            if one.rate_bps:
                yield one.from_ms, one.until_ms, one.rate_bps
                for block in self.state.blocks_of_offer.get(one.key, {}).values():
                    yield block.starts_ms, block.ends_ms, -block.committed_bps
        elif one.state in COMMITTING_STATES and not self.state.is_covered(one):
            yield one.starts_ms, one.ends_ms, one.committed_bps

    def use_nonce(self, party: str, nonce: str, expires_ms: int) -> None:
        """Remembers the nonce. Raises Replayed if this party has used it before."""
        name = f"{party}/{nonce}"
        if (party, nonce) in self.state.nonces or ("nonce", name) in self.changes:
            raise Replayed(f"{party} has used this nonce before")
        self.put("nonce", name, Nonce(party, nonce, expires_ms))
