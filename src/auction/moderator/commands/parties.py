"""Commands about who is in the market, and the money that they bring: registering, tokens, deposits and bonds."""

from __future__ import annotations

from typing import Any

from auction.model.errors import BadToken
from auction.model.ledger import funds
from auction.model.party import Party, Signature, token_hash
from auction.moderator.core import Core
from auction.moderator.draft import Draft
from auction.moderator.rules import parties
from auction.moderator.terms import Registered


class Parties(Core):
    def register(
        self,
        party: str,
        kind: str,
        *,
        public_key: str = "",
        belongs_to: str = "",
        controller: str = "",
        capacity_bps: int = 0,
        key: str | None = None,
    ) -> Registered:
        """Registers a party of a kind: `provider`, `recipient`, or a recipient's `user`, `device` or `number`.

        A number's name is its telephone number in E.164. `controller` names who stands behind the party, where
        several are one in interest. Raises Exists, BadValue, BadNumber."""
        token = self._random_bytes(32).hex()
        hashed = token_hash(token)
        arguments = (party, kind, public_key, belongs_to, controller, capacity_bps)

        def decide(draft: Draft, *given: Any) -> str:
            return parties.register(draft, hashed, *given)

        name = self._run("register", key, arguments, decide, str)
        # Only a hash is stored, so the token can be handed out by the very call that made it, and by no other.
        is_ours = self._state.owners.get(hashed) == name
        return Registered(name, token if is_ours else "")

    def renew_token(self, party: str, signature: Signature) -> Registered:
        """A new token in place of the old one, for who signs with the party's key (purpose `token`, empty body)."""
        token = self._random_bytes(32).hex()
        arguments = (party, signature, token_hash(token))
        return Registered(self._run("renew_token", None, arguments, parties.renew_token, str), token)

    def authenticate(self, token: str) -> str:
        """The party whose token this is. Raises BadToken."""
        with self._deciding:
            party = self._state.owners.get(token_hash(token))
        if party is None:
            raise BadToken("no party has this token")
        return party

    def deposit(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Money that a party has brought, as prepaid balance. Returns the balance in minor units."""
        return self._run("deposit", key, (party, amount, currency), parties.deposit, int)

    def withdraw(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Money paid out to a party. Returns the balance. Raises InsufficientFunds."""
        return self._run("withdraw", key, (party, amount, currency), parties.withdraw, int)

    def post_bond(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Puts up part of the balance as a bond, which auctions can ask for. Returns the free bond."""
        return self._run("post_bond", key, (party, amount, currency), parties.post_bond, int)

    def release_bond(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Takes back bond that is not held for anything. Returns the free bond. Raises InsufficientFunds."""
        return self._run("release_bond", key, (party, amount, currency), parties.release_bond, int)

    def balance(self, party: str) -> int:
        """The prepaid balance in minor units."""
        with self._deciding:
            self._draft().party(party)
            return self._state.ledger.balance(funds(party))

    def party(self, party: str) -> Party:
        """The party's record. Raises Unknown."""
        with self._deciding:
            return self._draft().party(party)
