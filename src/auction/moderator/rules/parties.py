"""Parties: registration, who acts for whom, signatures, deposits and bonds, endpoints."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from auction.formats import format_of
from auction.model.bid import check_name
from auction.model.block import TIME_MS_MAX, Block, most_of_units
from auction.model.endpoint import Endpoint, Warm
from auction.model.errors import BadSignature, BadValue, Exists, NoCapacity, NotAllowed
from auction.model.ledger import FEES, NOBODY, OUTSIDE, bond, funds
from auction.model.lifecycle import CHARGEBACK_MS
from auction.model.money import check_amount, check_currency, check_integer
from auction.model.party import (
    FORMER_KEYS_MAX,
    KINDS,
    ORGANISATIONS,
    Party,
    Signature,
    canonical_bytes,
    check_attributes,
    check_chosen,
    check_id,
    check_not_reserved,
    check_public_key,
    e164,
)
from auction.model.signing import endpoint_body, party_body
from auction.moderator.config import MarketConfig
from auction.moderator.draft import Draft
from auction.moderator.records import Committed, Taken
from auction.moderator.rules import holds

NEWCOMER_TIMES: Final = 1  # how often a newcomer's free bond must cover the card money that it withdraws
KNOWN_TIMES: Final = 20
_PART_OF: Final = {"user": {"recipient"}, "device": {"recipient", "user"}, "number": {"recipient", "user"}}


def check_organisation(draft: Draft, party: str) -> Party:
    record = draft.party(party)
    if record.kind not in ORGANISATIONS:
        raise NotAllowed(f"{party} is a {record.kind}: only providers and recipients have accounts")
    return record


def check_signature(
    draft: Draft,
    purpose: str,
    subject: str,
    party: str,
    body: dict[str, Any],
    signature: Signature | None,
    signed_as: str | None = None,
) -> Signature | None:
    """Verifies a signature if there is one or the market requires one. Uses up its nonce. `signed_as` is
    the name in the statement, if it is another than the party's."""
    if signature is None:
        if draft.config.signatures:
            raise BadSignature(f"this market requires signatures, and this {purpose} is not signed")
        return None
    check_name(signature.nonce, "nonce")
    signer = party if signed_as is None else signed_as
    draft.use_nonce(signer, signature.nonce, signature.expires_ms)
    statement = canonical_bytes(purpose, subject, signer, signature.nonce, signature.expires_ms, body)
    draft.verifier.verify(draft.party(party).public_key, statement, signature, draft.at_ms)
    return signature


def stands_for(draft: Draft, party: str) -> str:
    """The recipient that a user, device or number belongs to; otherwise the party itself."""
    record = draft.party(party)
    while record.belongs_to:
        record = draft.party(record.belongs_to)
    return record.id


def register(
    draft: Draft,
    hashed: str,
    party: str,
    kind: str,
    public_key: str,
    belongs_to: str,
    controller: str,
    capacity_bps: int,
    signature: Signature | None,
    own_name: str,
) -> str:
    if kind not in KINDS:
        raise BadValue(f"a party is one of {', '.join(KINDS)}")
    number = e164(party) if kind == "number" else ""
    is_ours = bool(number) or not party
    name = draft.new_id("party") if is_ours else check_chosen(party)
    for personal in (number, check_name(own_name, "name") if own_name else ""):
        _check_is_nobodys(draft, personal)
    _check_is_nobodys(draft, name)
    check_not_reserved(own_name)
    _check_place(draft, kind, belongs_to)
    check_no_taker(draft.config, name, controller)
    key = check_public_key(public_key) if public_key else ""
    _check_not_former(draft, name, key)
    record = Party(
        id=name,
        kind=kind,
        public_key=key,
        token_hash=hashed,
        belongs_to=belongs_to,
        controller=_check_controller(draft, controller) if controller else "",
        capacity_bps=check_integer(capacity_bps, "capacity", 0, 2**53),
        registered_ms=draft.at_ms,
        registered=draft.sequence,
        personal=draft.keep_personal(name, name=own_name, number=number) if own_name or number else "",
    )
    draft.add("party", name, record)
    if signature is not None:  # proves possession of the key
        body = party_body(record.controller, record.public_key)
        check_signature(draft, "party", "", name, body, signature, signed_as="" if is_ours else name)
    return name


def _check_controller(draft: Draft, name: str) -> str:
    """A controller need not be a party. If it is one, the market may have given its id."""
    return check_id(name) if draft.find("party", name) is not None else check_chosen(name)


def _check_is_nobodys(draft: Draft, name: str) -> None:
    """One name means one party: an id is no other party's name or number."""
    if name and (name in draft.state.people.named or name in draft.state.records["party"]):
        raise Exists(f"there is a party {name!r} already")


def check_no_taker(config: MarketConfig, *names: str) -> None:
    """Who is paid what went to nobody takes no part: it could live of what others lose. Raises NotAllowed."""
    if config.taker and config.taker in names:
        raise NotAllowed(f"{config.taker} is who takes what went to nobody, and can be no party of this market")


def check_rules(draft: Draft, rules: MarketConfig) -> None:
    """Raises BadCurrency for another currency, NotAllowed for a taker that is a party or stands behind one."""
    check_currency(rules.currency, draft.config.currency)
    if rules.taker and draft.state.sharing.get(rules.taker):
        raise NotAllowed(f"{rules.taker} is a party of this market, or stands behind one: it takes nothing of nobody's")


def pay_taker(draft: Draft, amount: int, currency: str) -> int:
    """Pays nobody's money out to the taker that the rules name. Returns what is left."""
    taker = draft.config.taker
    if not taker:
        raise NotAllowed("the rules of this market name no taker: what went to nobody stays there")
    check_rules(draft, draft.config)
    check_currency(currency, draft.config.currency)
    if check_amount(amount) == 0:
        raise BadValue("what is paid out is above zero")
    draft.transfer(NOBODY, OUTSIDE, amount)
    before: Taken | None = draft.find("taken", taker)
    draft.put("taken", taker, Taken(taker=taker, amount=amount + (before.amount if before is not None else 0)))
    return draft.balance(NOBODY)


def _check_place(draft: Draft, kind: str, belongs_to: str) -> None:
    if kind in ORGANISATIONS:
        if belongs_to:
            raise BadValue(f"a {kind} belongs to no other party")
        return
    owner = draft.party(belongs_to)
    if belongs_to in draft.state.erased:
        raise NotAllowed(f"{belongs_to} was erased, and can begin nothing new")
    if owner.kind not in _PART_OF[kind]:
        raise BadValue(f"a {kind} belongs to a {' or a '.join(sorted(_PART_OF[kind]))}, not to a {owner.kind}")


def renew_token(draft: Draft, party: str, signature: Signature, hashed: str) -> str:
    record = draft.party(party)
    check_signature(draft, "token", "", party, {}, signature)
    draft.put("party", party, msgspec.structs.replace(record, token_hash=hashed))
    return party


def give_token(draft: Draft, party: str, hashed: str) -> str:
    """Replaces a party's token, or (with an empty hash) removes it. The former token is void at once."""
    draft.put("party", party, msgspec.structs.replace(draft.party(party), token_hash=hashed))
    return party


# --- changes of a party ---


def change_key(draft: Draft, party: str, public_key: str, signature: Signature) -> Party:
    """Changes a party's key, with proof of possession. The former key still links the party to others; agreements keep
    the key that they were made with."""
    record = draft.party(party)
    key = check_public_key(public_key)
    if key == record.public_key:
        return record
    if key in record.former_keys:
        raise BadValue(f"{party} had this key before: a former key cannot be used again")
    if len(record.former_keys) >= FORMER_KEYS_MAX:
        raise BadValue(f"{party} has changed its key {FORMER_KEYS_MAX} times")
    _check_is_free(draft, key)
    former = (*record.former_keys, record.public_key) if record.public_key else record.former_keys
    changed = msgspec.structs.replace(record, public_key=key, former_keys=former)
    draft.put("party", party, changed)
    body = party_body(record.controller, key)
    check_signature(draft, "key", "", party, body, signature)  # by the new key, which the party has now
    return changed


def _check_is_free(draft: Draft, key: str) -> None:
    if draft.state.sharing.get(key):
        raise Exists("another party has or had this key")


def _check_not_former(draft: Draft, party: str, key: str) -> None:
    """Raises Exists for another party's former key: a former key may be known to others, so it must not link a new
    party."""
    for name in draft.state.sharing.get(key, ()) if key else ():
        if key in draft.party(name).former_keys:
            raise Exists(f"{party} has a key that another party had before")


def change_attributes(draft: Draft, party: str, attributes: dict[str, str]) -> Party:
    """Replaces all attributes of a party."""
    changed = msgspec.structs.replace(check_organisation(draft, party), attributes=check_attributes(attributes))
    draft.put("party", party, changed)
    return changed


def change_capacity(draft: Draft, party: str, capacity_bps: int) -> Party:
    """Changes a provider's capacity, never below what it has promised in blocks, in bids that may win, and in offers.
    So it cannot get out of a binding bid this way."""
    record = draft.party(party)
    if record.kind != "provider":
        raise NotAllowed(f"{party} is a {record.kind}, not a provider")
    check_integer(capacity_bps, "capacity", 0, 2**53)
    needed = _promised_bps(draft, party) if capacity_bps < record.capacity_bps else 0
    if capacity_bps < needed:
        raise NoCapacity(f"{party} has promised {needed} bit/s, and its capacity cannot be lower")
    changed = msgspec.structs.replace(record, capacity_bps=capacity_bps, capacity_from_ms=draft.at_ms)
    draft.put("party", party, changed)
    return changed


def _promised_bps(draft: Draft, party: str) -> int:
    state = draft.state
    needed = state.timeline(party).peak_bps(draft.at_ms, TIME_MS_MAX)  # also by its standing offers
    for auction in {name for _, kind, name in state.due if kind == "auction"}:
        record = draft.auction(auction)
        if record.state != "open" or record.block is None:
            continue
        lead: Block | None = draft.find("block", record.lead)
        if lead is not None and lead.provider == party and lead.state == "offered":
            continue  # it is among the blocks
        announcement, asked = record.announcement, 0
        committed: Committed | None = state.records["commitment"].get(f"{auction}/{party}")
        if committed is not None and committed.is_live:
            asked = announcement.quantity  # a commitment hides its quantity
        for placed in draft.live_bids(auction):
            if placed.bid.bidder == party:
                asked = max(asked, format_of(announcement).units(announcement, placed.bid.quantity))
        if asked:
            block = most_of_units(record.block, asked, announcement.quantity)
            needed = max(needed, draft.committed_peak(party, block) + block.committed_bps)
    return needed


def deposit(draft: Draft, party: str, amount: int, currency: str) -> int:
    check_organisation(draft, party)
    check_currency(currency, draft.config.currency)
    if check_amount(amount) == 0:
        raise BadValue("a deposit must be above zero")
    holds.check_room(draft, amount)
    draft.transfer(OUTSIDE, funds(party), amount)
    holds.pay_debts(draft, party)
    return draft.balance(funds(party))


def withdraw(draft: Draft, party: str, amount: int, currency: str) -> int:
    check_organisation(draft, party)
    check_currency(currency, draft.config.currency)
    check_amount(amount)
    _check_card_money(draft, party, amount)
    draft.transfer(funds(party), OUTSIDE, amount)
    return draft.balance(funds(party))


def withdraw_fees(draft: Draft, amount: int, currency: str) -> int:
    """What the operator takes out of its fees."""
    check_currency(currency, draft.config.currency)
    check_amount(amount)
    draft.transfer(FEES, OUTSIDE, amount)
    return draft.balance(FEES)


def _check_card_money(draft: Draft, party: str, amount: int) -> None:
    """Banks may still take card money back: enough of it must stay that the bond covers the rest m times over."""
    reputation = draft.state.reputation
    paid = reputation.card_money(party, draft.at_ms - CHARGEBACK_MS)
    if not paid:
        return
    # A party that is a newcomer in every service that it was paid for has no record to lose.
    services = {one.service for one in reputation.settled_of(party) if one.provider == party}
    is_known = any(not reputation.shown_at(party, one, draft.sequence, draft.at_ms).newcomer for one in services)
    covered = draft.balance(bond(party)) * (KNOWN_TIMES if is_known else NEWCOMER_TIMES)
    free = draft.balance(funds(party)) - max(0, paid - covered)
    if amount > free:
        raise NotAllowed(
            f"only {max(0, free)} can be withdrawn: cards have paid {paid}, which banks may still take back"
        )


def post_bond(draft: Draft, party: str, amount: int, currency: str) -> int:
    check_organisation(draft, party)
    check_currency(currency, draft.config.currency)
    check_amount(amount)
    draft.transfer(funds(party), bond(party), amount)
    return draft.balance(bond(party))


def release_bond(draft: Draft, party: str, amount: int, currency: str) -> int:
    check_currency(currency, draft.config.currency)
    check_amount(amount)
    draft.transfer(bond(party), funds(party), amount)
    return draft.balance(bond(party))


def publish_endpoint(draft: Draft, party: str, curve_key: str, address: str, signature: Signature | None) -> Endpoint:
    if draft.party(party).kind not in ORGANISATIONS:
        raise NotAllowed("only recipients and providers publish endpoints")
    check_signature(draft, "endpoint", "", party, endpoint_body(address, curve_key), signature)
    published = Endpoint(party, address, curve_key, draft.at_ms)
    draft.put("endpoint", party, published)
    return published


def keep_warm(draft: Draft, recipient: str, offers: tuple[str, ...], until_ms: int) -> Warm:
    check_organisation(draft, recipient)
    for offer in offers:
        draft.get("offer", offer)
    warm = Warm(recipient, offers, until_ms)
    draft.put("warm", recipient, warm)
    return warm
