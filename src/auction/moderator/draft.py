"""The draft in which one command is decided: reading, putting records, moving money.

Nothing is decided or written here: `rules` decides, `core` commits drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from auction.model.agreement import Agreement
from auction.model.block import Block, Timeline
from auction.model.errors import Exists, InsufficientFunds, Replayed, Unknown
from auction.model.ledger import NOBODY, OUTSIDE, Transfer, bond, funds
from auction.model.party import Party, Verifier
from auction.model.person import SALT_BYTES, Person, Personal, personal_of
from auction.moderator.config import MarketConfig
from auction.moderator.records import Auction, BlockShares, Nonce, PlacedBid
from auction.moderator.state import COMMITTING_STATES, State
from auction.moderator.terms import Cost


class Draft:
    """One command while it is decided: reads see what the command has put so far, and nothing outside changes until the
    whole command is committed. A command that raises leaves no trace. The draft also carries what the rules need: the
    market's `config`, the verifier of signatures, and the source of random bytes."""

    __slots__ = (
        "_blocks_changed",
        "_named",
        "at_ms",
        "changes",
        "config",
        "erased",
        "links",
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
        config: MarketConfig,
        verifier: Verifier,
        random_bytes: Callable[[int], bytes],
        methods: Container[str] = (),
    ) -> None:
        self.state = state
        self.config = config
        self.verifier = verifier
        self.random_bytes = random_bytes
        self.methods = methods  # methods of payment besides prepaid: this market's card processors
        self.sequence = state.sequence + 1
        self.at_ms = at_ms
        self.changes: dict[tuple[str, str], Any] = {}
        self.transfers: list[Transfer] = []
        self.personal: list[Personal] = []  # to be stored beside the journal
        self.erased: list[str] = []  # digests of personal fields to be erased
        self._named = 0
        self._blocks_changed = False
        self.links: dict[tuple[str, str], str] = {}  # (auction, interest) -> who has bid in this command

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
        if kind == "block":
            self._blocks_changed = True

    def add(self, kind: str, name: str, record: Any) -> None:
        """Puts a new record. Raises Exists if there is one of this name."""
        if (kind, name) in self.changes or name in self.state.records[kind]:
            raise Exists(f"there is a {kind} {name!r} already")
        self.put(kind, name, record)

    def find(self, kind: str, name: str) -> Any | None:
        record = self.changes.get((kind, name))
        return self.state.records[kind].get(name) if record is None else record

    def get(self, kind: str, name: str) -> Any:
        record = self.changes.get((kind, name))
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

    def transfer(self, source: str, target: str, amount: int, forced: bool = False) -> None:
        """Moves money; does nothing for zero. Raises InsufficientFunds or BadAmount."""
        if amount == 0:
            return
        wanted = Transfer(source, target, amount)
        if forced:
            self.state.ledger.check((wanted,), forced=True)
        elif self.balance(source) < amount and not source.startswith(OUTSIDE):
            raise InsufficientFunds(f"{source} has {self.balance(source)} minor units, {amount} are needed")
        else:
            self.state.ledger.check((wanted,), forced=True)  # only the bounds: the balance was checked above
        self.transfers.append(wanted)

    def balance(self, account: str) -> int:
        balance = self.state.ledger.balance(account)
        for source, target, amount in self.transfers:
            balance += (target == account) * amount - (source == account) * amount
        return balance

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
        timeline = self.state.timeline(provider)
        if not self._blocks_changed:
            return timeline.peak_bps(block.starts_ms, block.ends_ms)
        touched = [
            (old, new)
            for (kind, name), new in self.changes.items()
            if kind == "block"
            for old in (self.state.records["block"].get(name),)
            if provider in (new.provider, old.provider if old else "")
        ]
        return self._peak_with(timeline, touched, provider, block)

    @staticmethod
    def _peak_with(timeline: Timeline, touched: list[tuple[Block | None, Block]], provider: str, block: Block) -> int:
        """Adds the changes to the timeline, reads the peak, and takes them away again."""
        steps = [
            (one.starts_ms, one.ends_ms, sign * one.committed_bps)
            for old, new in touched
            for one, sign in ((old, -1), (new, 1))
            if one is not None and one.provider == provider and one.state in COMMITTING_STATES
        ]
        for starts_ms, ends_ms, rate_bps in steps:
            timeline.add(starts_ms, ends_ms, rate_bps)
        try:
            return timeline.peak_bps(block.starts_ms, block.ends_ms)
        finally:
            for starts_ms, ends_ms, rate_bps in steps:
                timeline.add(starts_ms, ends_ms, -rate_bps)

    def use_nonce(self, party: str, nonce: str, expires_ms: int) -> None:
        """Remembers the nonce. Raises Replayed if this party has used it before."""
        name = f"{party}/{nonce}"
        if (party, nonce) in self.state.nonces or ("nonce", name) in self.changes:
            raise Replayed(f"{party} has used this nonce before")
        self.put("nonce", name, Nonce(party, nonce, expires_ms))
