"""What is done about parties in a simulated market: lists, bans, attributes, capacity, keys, tokens, costs."""

from __future__ import annotations

import contextlib
from typing import Any

from markets import public_key_of
from simulated_ends import PROVIDERS, RECIPIENTS, Choice
from watching import Found, quick_signature

from auction.model.errors import AuctionError, BadToken
from auction.model.party import Signature, canonical_bytes


class Parties(Choice):
    actor: str
    played: set[str]
    keys_made = 0

    def refuse(self) -> None:
        command = "refuse_party" if self.likely(0.4) else "accept_party"
        self.send(command, self.anyone(), self.anyone())

    def ban(self) -> None:
        """Bans are lifted again soon: where nobody may do anything, nothing is tested."""
        banned = [one.id for one in self.records("party") if one.banned_sequence]
        if banned:
            self.send("lift_ban", self.one(banned))
        elif self.likely(0.3):
            self.send("ban", self.anyone())

    def change_capacity(self) -> None:
        self.send("change_capacity", self.one(PROVIDERS), self.one((0, 400, 900, 1_000, 1_200)))

    def change_attributes(self) -> None:
        self.send("change_attributes", self.anyone(), self.one(({}, {"tier": "1"}, {"tier": "1"}, {"tier": "2"})))

    def change_key(self) -> None:
        """To a new key; to one that another has or had; or signed by a key that it is not."""
        party = self.anyone()
        self.keys_made += 1
        key = public_key_of(f"{party}-{self.keys_made % 20}")
        if self.likely(0.3):
            other = self.market.party(self.anyone())
            key = self.one((other.public_key, *other.former_keys))
        nonce, expires_ms = f"key-{self.keys_made}", self.market.now_ms() + 100_000
        body = {"controller": "", "public_key": key}
        statement = canonical_bytes("key", "", party, nonce, expires_ms, body)
        by = key if self.likely(0.9) else self.market.party(party).public_key
        signature = Signature(nonce=nonce, expires_ms=expires_ms, signature=quick_signature(by, statement))
        before = self.market.party(party).public_key
        changed = self.send("change_key", party, key, signature)
        if by != key and changed.public_key != before:
            raise Found(f"{party} has got a key, and did not show that it has it")

    def change_token(self) -> None:
        """A token that is replaced opens nothing any more."""
        party, self.actor = self.anyone(), ""  # the operator speaks
        old = self.market.replace_token(party).token
        self.played.add("replace_token")
        answer: Any = None
        if self.likely(0.5):
            self.send("revoke_token", party)
        else:
            answer = self.market.replace_token(party)
        with contextlib.suppress(BadToken):
            raise Found(f"the token that {self.market.authenticate(old)} had before is good still")
        if answer is not None and self.market.authenticate(answer.token) != party:
            raise Found(f"the token of {party} is another's")

    def erase(self) -> None:
        """A person comes and is erased, and nothing of it is left."""
        owner, name = self.one(RECIPIENTS), f"person {self.random.random()}"
        self.market.tick()
        self.actor = ""
        party = self.market.register("", "user", belongs_to=owner, name=name).party
        if self.market.id_of(name) != party:
            raise Found(f"{name} is another party")
        if name in repr(self.market.party(party)):
            raise Found(f"the record of {party} has its name")
        if self.send("erase", party).in_journal:
            raise Found(f"something of {party} stands in the journal")
        if name in repr(self.market.store.personal()) or name in self.market.state.people.named:
            raise Found(f"{name} was erased, and is there")

    def ask_costs(self) -> None:
        """What a bid would cost is what it costs."""
        auction = self.one(self.open_auctions())
        bidder = self.one(PROVIDERS)
        entry = self.entry(auction, bidder)  # type: ignore[attr-defined]
        self.market.tick()
        try:
            foreseen = self.market.cost_of_bid(auction, entry)
        except AuctionError as reason:
            with contextlib.suppress(type(reason)):
                self.send("bid", auction, entry)
                raise Found(
                    f"a bid of {bidder} in {auction} was to be refused as {reason.code}, and was taken"
                ) from None
            return
        before = self.market.balance(bidder), self.market.bond(bidder)
        self.send("bid", auction, entry)
        taken = before[0] - self.market.balance(bidder), before[1] - self.market.bond(bidder)
        if taken != (foreseen.of_balance, foreseen.of_bond):
            raise Found(f"a bid of {bidder} took {taken}, {foreseen} was foreseen")
