"""Who is in the market, and the money that they bring: registering, tokens, deposits and bonds."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from auction.bid import check_name
from auction.errors import BadSignature, BadToken, BadValue, NotAllowed
from auction.ledger import OUTSIDE, bond, funds
from auction.moderator.core import Core
from auction.moderator.state import Draft
from auction.money import check_amount, check_currency, check_integer
from auction.party import (
    KINDS,
    ORGANISATIONS,
    Party,
    Signature,
    canonical_bytes,
    check_id,
    check_public_key,
    e164,
    token_hash,
)

# Which kinds of party each kind may be a part of.
_PART_OF: Final = {"user": {"recipient"}, "device": {"recipient", "user"}, "number": {"recipient", "user"}}


class Registered(msgspec.Struct, frozen=True):
    """`token` is shown this once; it is empty when the same command is sent again (see `renew_token`)."""

    party: str
    token: str


class PartyCommands(Core):
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

        def decide(draft: Draft) -> str:
            name = e164(party) if kind == "number" else check_id(party)
            if kind not in KINDS:
                raise BadValue(f"a party is one of {', '.join(KINDS)}")
            _check_place(draft, kind, belongs_to)
            record = Party(
                id=name,
                kind=kind,
                public_key=check_public_key(public_key) if public_key else "",
                token_hash=hashed,
                belongs_to=belongs_to,
                controller=check_id(controller) if controller else "",
                capacity_bps=check_integer(capacity_bps, "capacity", 0, 2**53),
                registered_ms=draft.at_ms,
            )
            draft.add("party", name, record)
            return name

        arguments = (party, kind, public_key, belongs_to, controller, capacity_bps)
        name = self._run("register", key, arguments, decide, str)
        # Only a hash is stored, so the token can be handed out by the very call that made it, and by no other.
        is_ours = self._state.owners.get(hashed) == name
        return Registered(name, token if is_ours else "")

    def renew_token(self, party: str, signature: Signature) -> Registered:
        """A new token in place of the old one, for who signs with the party's key (purpose `token`, empty body)."""
        token = self._random_bytes(32).hex()

        def decide(draft: Draft) -> str:
            record = draft.party(party)
            self._check_signature(draft, "token", "", party, {}, signature)
            draft.put("party", party, msgspec.structs.replace(record, token_hash=token_hash(token)))
            return party

        return Registered(self._run("renew_token", None, None, decide, str), token)

    def authenticate(self, token: str) -> str:
        """The party whose token this is. Raises BadToken."""
        with self._deciding:
            party = self._state.owners.get(token_hash(token))
        if party is None:
            raise BadToken("no party has this token")
        return party

    def deposit(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Money that a party has brought, as prepaid balance. Returns the balance in minor units."""

        def decide(draft: Draft) -> int:
            self._check_organisation(draft, party)
            check_currency(currency, self.config.currency)
            if check_amount(amount) == 0:
                raise BadValue("a deposit is above zero")
            draft.transfer(OUTSIDE, funds(party), amount)
            return draft.balance(funds(party))

        return self._run("deposit", key, (party, amount, currency), decide, int)

    def withdraw(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Money paid out to a party. Returns the balance. Raises InsufficientFunds."""

        def decide(draft: Draft) -> int:
            self._check_organisation(draft, party)
            check_currency(currency, self.config.currency)
            check_amount(amount)
            draft.transfer(funds(party), OUTSIDE, amount)
            return draft.balance(funds(party))

        return self._run("withdraw", key, (party, amount, currency), decide, int)

    def post_bond(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Puts up part of the balance as a bond, which auctions can ask for. Returns the free bond."""

        def decide(draft: Draft) -> int:
            self._check_organisation(draft, party)
            check_currency(currency, self.config.currency)
            check_amount(amount)
            draft.transfer(funds(party), bond(party), amount)
            return draft.balance(bond(party))

        return self._run("post_bond", key, (party, amount, currency), decide, int)

    def release_bond(self, party: str, amount: int, currency: str, *, key: str | None = None) -> int:
        """Takes back bond that is not held for anything. Returns the free bond. Raises InsufficientFunds."""

        def decide(draft: Draft) -> int:
            check_currency(currency, self.config.currency)
            check_amount(amount)
            draft.transfer(bond(party), funds(party), amount)
            return draft.balance(bond(party))

        return self._run("release_bond", key, (party, amount, currency), decide, int)

    def balance(self, party: str) -> int:
        """The prepaid balance in minor units."""
        with self._deciding:
            Draft(self._state, 0).party(party)
            return self._state.ledger.balance(funds(party))

    def party(self, party: str) -> Party:
        """The party's record. Raises Unknown."""
        with self._deciding:
            return Draft(self._state, 0).party(party)

    @staticmethod
    def _check_organisation(draft: Draft, party: str) -> Party:
        record = draft.party(party)
        if record.kind not in ORGANISATIONS:
            raise NotAllowed(f"{party} is a {record.kind}: accounts are of providers and recipients")
        return record

    def _check_signature(
        self,
        draft: Draft,
        purpose: str,
        subject: str,
        party: str,
        body: dict[str, Any],
        signature: Signature | None,
    ) -> Signature | None:
        """Verifies where a signature is given, and where the market wants one. Uses up its nonce."""
        if signature is None:
            if self.config.signatures:
                raise BadSignature(f"this market takes signed statements only, and this {purpose} is not signed")
            return None
        check_name(signature.nonce, "nonce")
        draft.use_nonce(party, signature.nonce, signature.expires_ms)
        statement = canonical_bytes(purpose, subject, party, signature.nonce, signature.expires_ms, body)
        self._verifier.verify(draft.party(party).public_key, statement, signature, draft.at_ms)
        return signature


def _check_place(draft: Draft, kind: str, belongs_to: str) -> None:
    if kind in ORGANISATIONS:
        if belongs_to:
            raise BadValue(f"a {kind} is part of nobody")
        return
    owner = draft.party(belongs_to)
    if owner.kind not in _PART_OF[kind]:
        raise BadValue(f"a {kind} is part of a {' or a '.join(sorted(_PART_OF[kind]))}, not of a {owner.kind}")
