"""Converts the records of a market with the former rules, once: agreements in legs, deliveries that each side measured,
bonds that auctions asked for. `upgrade` reads the old records and writes the new ones.

Agreements end by what the recipient's side had measured: what the provider alone stated about itself pays nobody. Open
auctions are withdrawn. Holds go back to their owners.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from auction.formats import award as decide_award
from auction.formats.spot import award_ranked
from auction.model.agreement import Agreement
from auction.model.award import Award, Standing
from auction.model.bid import StandingOffer
from auction.model.block import Block
from auction.model.closing import Statement
from auction.model.errors import AuctionError, UnderWay
from auction.model.holding import DELTA_PPM
from auction.model.ledger import Transfer, bond, card, funds, held, held_bond, pledged
from auction.model.money import PPM
from auction.model.party import Party
from auction.model.rating import Exchange
from auction.moderator.records import RECORD_TYPES, Auction, BidSheet, Committed, Group, OfferSheet, PaymentRequest
from auction.payment.protocol import PREPAID

HOLDS: Final = ("held", "held_bond", "pledged", "topped_up")  # accounts whose money waits for an outcome
_OPEN: Final = ("agreed", "delivering", "delivered")
Record = dict[str, Any]


class OldMarket(NamedTuple):
    """The state that an old journal folds to: the last version of each record, decoded from JSON, and the balances."""

    sequence: int
    at_ms: int
    records: dict[tuple[str, str], Record]
    balances: dict[str, int]


class Upgraded(NamedTuple):
    """All records of the market from now on, the transfers, and how many things were treated in which way, in words."""

    changes: list[tuple[str, str, Any]]
    transfers: list[Transfer]
    did: dict[str, int]


class _Leg(msgspec.Struct):
    """The part of an old agreement that one provider served."""

    provider: str
    from_ms: int
    until_ms: int
    price: int
    topped_up: int = 0
    topped_up_by: str = ""
    delivered_ppm: int = 0
    measured_by_recipient: bool = False

    @property
    def share_ppm(self) -> int:
        return self.delivered_ppm if self.measured_by_recipient else 0


class _Agreement(msgspec.Struct):
    """An old agreement. `bond_of` is whose bond is held for it."""

    id: str
    auction: str
    recipient: str
    provider: str
    service: str
    block: str
    price: int
    currency: str
    starts_ms: int
    ends_ms: int
    state: str = "awarded"
    legs: list[_Leg] = []
    bond_of: str = ""
    method: str = PREPAID
    charged: int = 0
    refunded: int = 0
    charged_back: bool = False
    processor_reference: str = ""
    prime: str = ""
    depth: int = 0
    finished_ms: int = 0
    minimum_bps: int | None = None
    maximum_bps: int | None = None
    availability_ppm: int = PPM
    latency_ms_max: int | None = None


def upgrade_market(old: OldMarket) -> Upgraded:
    """Converts or leaves out every record, with the money that goes back or is paid. Raises UnderWay if money is held
    for something that cannot be converted, because under the present rules nobody would ever get it."""
    conversion = _Conversion(old)
    order = list(RECORD_TYPES)
    known = sorted(old.records, key=lambda name: order.index(name[0]) if name[0] in order else len(order))
    for kind, name in known:
        conversion.convert(kind, name, old.records[kind, name])
    conversion.check_nothing_is_left()
    return Upgraded(
        [(kind, name, one) for (kind, name), one in conversion.changes.items()], conversion.transfers, conversion.did
    )


class _Conversion:
    """An upgrade in progress. Records are converted in the order of their kinds, so that blocks and auctions are there
    before the agreements."""

    def __init__(self, old: OldMarket) -> None:
        self.old = old
        self.at_ms = old.at_ms
        self.balances = dict(old.balances)
        self.changes: dict[tuple[str, str], Any] = {}
        self.transfers: list[Transfer] = []
        self.did: dict[str, int] = {}
        self.held: set[str] = set()  # accounts of records that keep their holds
        self.is_first = any(kind == "agreement" and "delta_ppm" not in one for (kind, _), one in old.records.items())

    def count(self, words: str, number: int = 1) -> None:
        self.did[words] = self.did.get(words, 0) + number

    def put(self, kind: str, name: str, record: Any) -> None:
        self.changes[kind, name] = record

    def move(self, source: str, target: str, amount: int, words: str) -> None:
        if amount:
            self.transfers.append((source, target, amount))
            self.balances[source] -= amount
            self.balances[target] = self.balances.get(target, 0) + amount
            self.count(f"money: {words}", amount)

    def give_back(self, source: str, target: str) -> None:
        self.move(source, target, self.balances.get(source, 0), "given back")

    def convert(self, kind: str, name: str, record: Record) -> None:
        special = _TURNS.get(kind)
        try:
            if special is None or not special(self, name, record):
                self.put(kind, name, msgspec.convert(record, RECORD_TYPES[kind], builtin_types=()))
                self.count(f"{kind}: kept")
        except (KeyError, msgspec.MsgspecError, AuctionError):
            self.count(f"{kind}: left out")

    def party(self, name: str, record: Record) -> bool:
        """The first rules did not check capacity in every format; the present ones do."""
        if not self.is_first:
            return False
        party = msgspec.convert(record, Party, builtin_types=())
        self.put("party", name, msgspec.structs.replace(party, capacity_from_ms=self.at_ms))
        self.count("party: kept")
        return True

    def auction(self, name: str, record: Record) -> bool:
        state, is_held = record.get("state", "open"), bool(record.get("held"))
        if state not in ("open", "awarded", "failed") or (state == "open" and is_held):
            if record.get("due_ms"):
                self.held |= {held(name), held_bond(name)}
            return False
        fields = {key: value for key, value in record.items() if key != "award"}
        fields["announcement"] = {**record["announcement"], "receipts": False}
        fields |= {
            "state": "void",
            "due_ms": 0,
            "over_ms": self.at_ms,
        }  # the time at which it was over was not recorded
        auction: Auction = msgspec.convert(fields, Auction, builtin_types=())
        award = record.get("award")
        if state == "awarded" and award:
            whole = self._award(auction, msgspec.convert(award, Award, builtin_types=()))
            self.put("award", name, whole)
            auction = msgspec.structs.replace(auction, state="agreed", winners=whole.winners)
            self.count("auction: awarded, kept")
        elif state == "open":
            self._free_block(auction)
            self.count("auction: open, withdrawn")
        else:
            self.count("auction: without an award, kept")
        self.put("auction", name, auction)
        return True

    def _award(self, auction: Auction, award: Award) -> Award:
        """The award with its standings. Those that were not written down follow from the bids or offers; if they do not
        (a rule has changed since), those of the winners alone stand there."""
        if award.standings:
            return award
        seed = bytes.fromhex(auction.seed)
        again: Award | None = None
        try:
            sheet = self.old.records.get(("sheet", auction.id))
            offers = self.old.records.get(("offer_sheet", auction.id))
            if offers is not None:
                ranked = msgspec.convert(offers, OfferSheet, builtin_types=()).ranked()
                again = award_ranked(auction.announcement, ranked, seed)
            elif sheet is not None:
                bids = msgspec.convert(sheet, BidSheet, builtin_types=())
                again = decide_award(auction.announcement, bids.bids(), bids.rating_of(), seed)
        except (msgspec.MsgspecError, AuctionError):
            again = None
        if again is not None and again.winners == award.winners:
            return again
        standings = [Standing(one.bid, one.bidder, one.price, 0, -one.price, "won") for one in award.winners]
        return msgspec.structs.replace(award, standings=tuple(standings))

    def _free_block(self, auction: Auction) -> None:
        """A block that was offered and not sold returns to its holder."""
        block: Block | None = self.changes.get(("block", auction.announcement.block))
        if auction.block is None and block is not None and block.state == "offered":
            state = "free" if block.holder in ("", block.provider) else "sold"
            self.put("block", block.id, msgspec.structs.replace(block, state=state))

    def commitment(self, name: str, record: Record) -> bool:
        if "bond" not in record:
            if record.get("held"):
                self.held |= {held(name), held_bond(name)}
            return False
        committed = msgspec.convert(record, Committed, builtin_types=())
        self.give_back(held_bond(name), bond(committed.commitment.bidder))
        self.put("commitment", name, msgspec.structs.replace(committed, held=0))
        self.count("commitment: its bond given back")
        return True

    def offer(self, name: str, record: Record) -> bool:
        """An offer without a hold is not binding, so it ends."""
        offer = msgspec.convert(record, StandingOffer, builtin_types=())
        if ("offered", name) in self.old.records or offer.valid_until_ms <= self.at_ms:
            return False
        self.put("offer", name, msgspec.structs.replace(offer, valid_until_ms=self.at_ms))
        self.count("offer: ended, for it held nothing")
        return True

    def keep_holding(self, name: str, record: Record) -> bool:
        """A present record whose money stays held."""
        if record.get("held"):
            self.held |= {held(name), held_bond(name)}
        return False

    # --- agreements ---

    def agreement(self, name: str, record: Record) -> bool:
        if "delta_ppm" in record:
            if record.get("recipient_held") or record.get("provider_held"):
                self.held |= {held(name), held_bond(name)}
            return False
        old = msgspec.convert(record, _Agreement)
        auction: Auction | None = self.changes.get(("auction", old.auction))
        if auction is not None and old.processor_reference and not auction.processor_reference:
            # The processor's notices about the card are found by it.
            self.put(
                "auction", auction.id, msgspec.structs.replace(auction, processor_reference=old.processor_reference)
            )
        self.give_back(held_bond(name), bond(old.bond_of or old.provider))
        if old.state in _OPEN:
            self._end(old)
        elif old.state in ("charged", "declined"):
            self._keep(old)
        else:  # awarded and not agreed, lapsed, or cancelled
            words = "awarded and not agreed, void" if old.state == "awarded" else "void, kept"
            self.count(f"agreement: {words}")
            self._let_block_go(old)
            self.put("agreement", name, self._settled(old, old.provider, old.price))
        return True

    def _settled(self, old: _Agreement, provider: str, price: int, **more: Any) -> Agreement:
        return Agreement(
            id=more.pop("id", old.id),
            auction=old.auction,
            recipient=old.recipient,
            provider=provider,
            service=old.service,
            block=old.block,
            price=price,
            currency=old.currency,
            starts_ms=old.starts_ms,
            ends_ms=old.ends_ms,
            delta_ppm=DELTA_PPM,
            penalty=0,
            exposure=price,
            recipient_held=more.pop("recipient_held", 0),
            provider_held=0,
            state="settled",
            settled_ms=old.finished_ms or self.at_ms,
            method=old.method,
            processor_reference=old.processor_reference,
            prime=old.prime,
            depth=old.depth,
            minimum_bps=old.minimum_bps,
            maximum_bps=old.maximum_bps,
            availability_ppm=old.availability_ppm,
            latency_ms_max=old.latency_ms_max,
            **more,
        )

    def _keep(self, old: _Agreement) -> None:
        """One that was over. What it had earned by the recipient's measurement still counts as evidence."""
        more: dict[str, Any] = {"paid": old.charged, "charged": old.charged, "refunded": old.refunded}
        if old.charged_back:  # earlier refunds were not recorded separately
            more |= {"charged_back": old.refunded, "refunded": 0}
        if len(old.legs) == 1 and old.legs[0].measured_by_recipient:
            more |= {"provider_ending": "finished", "recipient_ending": "finished", "lost": old.price - old.charged}
        self.count("agreement: over, kept")
        self.put("agreement", old.id, self._settled(old, old.provider, old.price, **more))

    def _end(self, old: _Agreement) -> None:
        """Each leg is paid for what the recipient's side has measured; the rest of the hold goes back."""
        request = self.old.records.get(("payment", f"{old.id}/capture"), {})
        is_asked = request.get("state", "pending") == "pending" and bool(request)
        earned = [leg.price * leg.share_ppm // PPM for leg in old.legs]
        if is_asked:  # the card may already have been captured, for what was due at the request
            earned = [leg.price * leg.delivered_ppm // PPM for leg in old.legs]
        for number, (leg, amount) in enumerate(zip(old.legs, earned, strict=True), 1):
            extra = leg.topped_up * leg.share_ppm // PPM
            self.move(f"topped_up:{old.id}", funds(leg.provider), extra, "paid to providers")
            self.move(f"topped_up:{old.id}", bond(leg.topped_up_by), leg.topped_up - extra, "given back")
            self._put_leg(old, leg, amount, number)
        if old.method == PREPAID:
            self.give_back(held(old.id), funds(old.recipient))
        else:
            self.move(held(old.id), card(old.method), self.balances.get(held(old.id), 0) - sum(earned), "given back")
            self._ask_card(old, sum(earned))
        self._let_block_go(old)
        measured = any(leg.measured_by_recipient for leg in old.legs)
        words = (
            "ended by what the recipient's side had measured"
            if measured
            else "ended, the recipient had measured nothing"
        )
        self.count(f"agreement: {words}")
        exchange = Exchange(agreement=old.id, provider=old.provider, recipient=old.recipient, finished_ms=self.at_ms)
        self.put("exchange", old.id, exchange)

    def _put_leg(self, old: _Agreement, leg: _Leg, amount: int, number: int) -> None:
        """The last leg becomes the agreement; earlier legs become agreements that it continues."""
        is_last = number == len(old.legs)
        more: dict[str, Any] = {"paid": amount}
        if len(old.legs) == 1 and leg.measured_by_recipient:
            more |= {"provider_ending": "finished", "recipient_ending": "finished", "lost": leg.price - amount}
        if not is_last:
            more |= {"id": f"{old.id}~{number}", "of": old.id}
        if old.method == PREPAID:
            more["charged"] = amount
            self.move(held(old.id), funds(leg.provider), amount, "paid to providers")
        else:  # a capture is divided by what both sides state: here, what was measured
            said = Statement("finished", amount, self.at_ms)
            more |= {"capturing": amount, "recipient_held": amount, "provider_says": said, "recipient_says": said}
            if not is_last:
                self.move(held(old.id), held(more["id"]), amount, "to be captured")
            self.held.add(held(more.get("id", old.id)))
        price = old.price if is_last else leg.price
        self.put("agreement", more.get("id", old.id), self._settled(old, leg.provider, price, **more))

    def _ask_card(self, old: _Agreement, amount: int) -> None:
        """Captures the card for what was earned, or voids it."""
        name = f"{old.id}/{'capture' if amount else 'void'}"
        if ("payment", name) in self.old.records:
            return  # it was already requested
        request = PaymentRequest(
            id=name,
            about=old.id,
            step="capture" if amount else "void",
            method=old.method,
            source="",
            amount=amount,
            currency=old.currency,
            reference=old.processor_reference,
        )
        self.put("payment", name, request)

    def _let_block_go(self, old: _Agreement) -> None:
        """A promise that is over uses no capacity; a sold block that has not begun returns to its seller."""
        block: Block | None = self.changes.get(("block", old.block))
        auction: Auction | None = self.changes.get(("auction", old.auction))
        if block is None or block.state != "sold" or self.at_ms >= block.ends_ms:
            return
        if self.at_ms > block.starts_ms:
            block = msgspec.structs.replace(block, ends_ms=self.at_ms)
        elif auction is None or auction.block is not None:
            block = msgspec.structs.replace(block, state="void")
        elif block.holder == old.recipient:
            state = "free" if old.provider == block.provider else "sold"
            block = msgspec.structs.replace(block, holder=old.provider, state=state)
        self.put("block", block.id, block)

    # --- payments and groups ---

    def payment(self, name: str, record: Record) -> bool:
        if "about" in record:
            return False
        agreement = record["agreement"]
        # Only its auction would use an authorised card, and that is over, so the card is voided.
        auction = self.old.records.get(("agreement", agreement), {}).get("auction", "")
        about = auction if record.get("step") == "authorise" else agreement
        request = msgspec.convert({**record, "about": about}, PaymentRequest, builtin_types=())
        self.put("payment", name, request)
        self.count("payment: kept")
        return True

    def group(self, name: str, record: Record) -> bool:
        if "auction" in record:
            if record.get("state", "open") == "open":
                self.held.add(pledged(name))
            return False
        fields = {**record, "limits": record.get("bids", {}), "due_ms": 0, "negotiation": None}
        fields["auction"] = self.old.records.get(("agreement", record["agreement"]), {}).get("auction", "-")
        group = msgspec.convert(fields, Group, builtin_types=())
        if group.state == "open":
            for amounts in (group.limits, group.pledges):
                for member, amount in amounts.items():
                    self.move(pledged(name), funds(member), amount, "given back")
            group = msgspec.structs.replace(group, state="failed")
            self.count("group: open, given back")
        else:
            self.count("group: kept")
        self.put("group", name, group)
        return True

    def check_nothing_is_left(self) -> None:
        for account, amount in self.balances.items():
            if amount and account.partition(":")[0] in HOLDS and account not in self.held:
                raise UnderWay(
                    f"money is held in {account} under rules that this version no longer has: finish what is under way "
                    "with the version that opened the market, then upgrade"
                )


_TURNS: Final = {
    "party": _Conversion.party,
    "auction": _Conversion.auction,
    "bid": _Conversion.keep_holding,
    "offered": _Conversion.keep_holding,
    "commitment": _Conversion.commitment,
    "offer": _Conversion.offer,
    "agreement": _Conversion.agreement,
    "payment": _Conversion.payment,
    "group": _Conversion.group,
}
