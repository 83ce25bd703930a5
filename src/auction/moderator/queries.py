"""The moderator's queries: they read the market and do not change it. `overview` and `assignments` beside this file
build the two answers that combine many records; `commands` and `payments` write. Docstrings are in the imperative, as
in `commands`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from auction.formats.explain import explain
from auction.formats.transcript import Transcript, write_spot_transcript, write_transcript
from auction.model.agreement import Agreement
from auction.model.award import Award
from auction.model.bid import Bid, ShownRating, StandingOffer
from auction.model.billing import Invoice, invoice
from auction.model.block import Block
from auction.model.closing import Settlement
from auction.model.earned import FalseInterval
from auction.model.endpoint import Assignments, Endpoint
from auction.model.errors import BadToken, Unknown, WrongState
from auction.model.ledger import FEES, NOBODY, bond, funds
from auction.model.meter import split_cost
from auction.model.money import check_integer
from auction.model.party import Party, token_hash
from auction.model.person import Person
from auction.model.rating import DraftedRating, Opinion, PublicDeal
from auction.model.receipt import ReceiptTerms
from auction.moderator.assignments import find_assignments
from auction.moderator.core import Core
from auction.moderator.draft import Draft
from auction.moderator.methods import query
from auction.moderator.overview import LIMIT_MAX, Overview, look
from auction.moderator.records import Auction, Group, Overdue
from auction.moderator.reputation import PAYMENTS
from auction.moderator.rules import admission, awarding, bidding, blocks, chains, failing_over, opinions, payments
from auction.moderator.rules import ending as endings
from auction.moderator.state import decode_changes
from auction.moderator.terms import AuctionView, BidEntry, Cost, Standing
from auction.storage.journal import decode_body

Judge = Callable[[Agreement, FalseInterval], bool]


def _is_closed(_asked: Any, view: AuctionView) -> bool:
    return view.state not in ("open", "funding")


def _is_other_version(asked: Any, answer: Any) -> bool:
    return bool(answer.version != asked.known)


class Queries(Core):
    judges: dict[str, Judge]
    """The judges, by the name in `AuctionTerms.judge`: each executes a segment again and returns whether its result is
    false. The host of the market sets them."""

    def _load(self) -> None:
        """Presence is not journalled: it is known while this process runs. After a start every party gets time: no
        deadline ends earlier than C after it."""
        former = getattr(self, "_state", None)
        super()._load()
        if former is None:
            self.judges = {}
            if self._state.sequence:
                self._state.back_ms = self._now()
        else:
            self._state.polled, self._state.back_ms = former.polled, former.back_ms

    # --- parties ---

    @query("party show", right="anyone")
    def party(self, party: str) -> Party:
        """Show a party's record. Raises Unknown."""
        with self._deciding:
            return self._draft().party(party)

    @query("party refused", right="own", about="party")
    def refused_by(self, party: str) -> tuple[str, ...]:
        """List the parties that a party refuses to deal with. Nobody else can see the list."""
        with self._deciding:
            self._draft().party(party)
            return admission.refused_by(self._draft(), party)

    @query("party person", right="own", about="party")
    def person(self, party: str) -> Person:
        """Show the name and the telephone number of a party. They are empty if it has none, or was erased."""
        with self._deciding:
            record = self._draft().party(party)
            return self._state.people.of_digest.get(record.personal, Person(party))

    @query("party id", right="operator")
    def id_of(self, name: str) -> str:
        """Return the id of the party with this name or number. It was registered so. Raises Unknown."""
        with self._deciding:
            found = self._state.people.named.get(name)
        if found is None:
            raise Unknown(f"no party has the name {name!r}")
        return found

    @query("party authenticate", right="stranger")
    def authenticate(self, token: str) -> str:
        """Return the party that a token belongs to. Raises BadToken."""
        with self._deciding:
            party = self._state.owners.get(token_hash(token))
        if party is None:
            raise BadToken("no party has this token")
        return party

    @query("account balance", right="own", about="party")
    def balance(self, party: str) -> int:
        """Return the prepaid balance in minor units."""
        with self._deciding:
            self._draft().party(party)
            return self._state.ledger.balance(funds(party))

    @query("account fees", right="operator")
    def fees(self) -> int:
        """Return the operator's fees in minor units. What was withdrawn is not in them."""
        with self._deciding:
            return self._state.ledger.balance(FEES)

    @query("account bond", right="own", about="party")
    def bond(self, party: str) -> int:
        """Return the free bond in minor units. The part held for a promise is not included."""
        with self._deciding:
            self._draft().party(party)
            return self._state.ledger.balance(bond(party))

    @query("market nobody", right="anyone")
    def nobody(self) -> int:
        """Return the balance of nobody in minor units. It comes from silence, contradiction and false results."""
        with self._deciding:
            return self._state.ledger.balance(NOBODY)

    @query("market overdue", right="operator")
    def overdue(self) -> list[Overdue]:
        """List what was due and could not be carried out. Each says why, and when it is tried again. Nothing else
        waits for it."""
        with self._deciding:
            return [one for one in self._state.records["overdue"].values() if one.next_ms]

    @query("endpoint show", right="anyone")
    def endpoint(self, party: str) -> Endpoint:
        """Show a party's endpoint. Raises Unknown."""
        with self._deciding:
            found: Endpoint = self._draft().get("endpoint", party)
        return found

    # --- blocks and shares of them ---

    @query("block show", right="anyone")
    def block(self, block: str) -> Block:
        """Show a block. Raises Unknown."""
        with self._deciding:
            return self._draft().block(block)

    @query("share rates", right="holder")
    def rates(self, block: str, asked: dict[str, int] | None = None) -> dict[str, int]:
        """Return the rate of each member now. The unit is bits per second; for telephone numbers it is channels, for
        the calls in `asked`."""
        with self._deciding:
            return blocks.rates(self._draft(), block, asked)

    @query("share costs", right="holder")
    def share_costs(self, block: str, price: int) -> dict[str, int]:
        """Split the price of a block between its members. Each pays in proportion to what it was allowed."""
        with self._deciding:
            return split_cost(price, self._draft().shares(block).meters)

    # --- auctions, bids, offers ---

    @query("auction show", right="anyone")
    def auction(self, auction: str) -> AuctionView:
        """Show an auction, ratings included. Who took no part sees no prices after the close, only the winners."""
        with self._deciding:
            draft = self._draft(self._now())
            record = draft.auction(auction)
            placed = bidding.rated_bids(draft, record)
            shown = [one.rating for one in placed if one.rating is not None]
            is_over = record.state not in ("open", "funding")
            return AuctionView(
                auction=auction,
                state=record.state,
                announcement=record.announcement,
                closes_ms=record.closes_ms,
                bid_count=len(placed),
                ratings=tuple({rating.party: self._state.people.rating(rating) for rating in shown}.values()),
                seed=record.seed if is_over else "",
                award=awarding.find_award(self._state, record),
                agreements=self._state.agreements_of.get(auction, ()),
                winners=tuple(winning.bidder for winning in record.winners),
            )

    @query(right="operator")
    def took_part(self, auction: str) -> tuple[str, ...]:
        """Return the parties that announced, bid, committed or offered in an auction, by name. Raises Unknown."""
        with self._deciding:
            return tuple(sorted(bidding.took_part(self._state, self._draft().auction(auction))))

    @query(right="operator")
    def announcer_of(self, auction: str) -> str:
        """Return the party that announced the auction. Raises Unknown."""
        with self._deciding:
            return self._draft().auction(auction).announcer

    @query(right="operator")
    def stand_bys_of(self, agreement: str) -> tuple[str, ...]:
        """Return the providers whose bids stand by for an agreement, best first. None do without fail-over."""
        with self._deciding:
            draft = self._draft()
            record = draft.auction(draft.agreement(agreement).auction)
            if not record.announcement.fail_over:
                return ()
            return tuple(dict.fromkeys(one.provider for one in failing_over.stand_bys(draft, record)))

    @query("auction wait", right="anyone", is_news=_is_closed)
    def await_close(self, auction: str, *, wait_ms: int = 0) -> AuctionView:
        """Wait for an auction to close. Returns the auction once it is closed, or as it is after `wait_ms`."""
        return self._when(lambda: self.auction(auction), lambda view: _is_closed(None, view), wait_ms)

    @query("auction explain", right="participant")
    def explain(self, auction: str) -> str:
        """Explain the award of a closed auction, in words and numbers."""
        view = self.auction(auction)
        if view.award is None:
            raise WrongState(f"auction {auction} has no award yet")
        with self._deciding:
            excluded = self._draft().auction(auction).excluded
        return explain(view.award, excluded)

    @query("auction transcript", right="participant")
    def transcript(self, auction: str) -> Transcript:
        """Return the proof of a closed auction's award. With it any bidder can check the award without trusting the
        moderator: see `auction.formats.transcript.verify_own`. It has excluded bids with the reason, or with `not
        matched` if one side refuses to deal with the other."""
        with self._deciding:
            draft = self._draft()
            record = draft.auction(auction)
            award = awarding.find_award(self._state, record)
            if award is None:
                raise WrongState(f"auction {auction} has no award yet")
            if draft.find("offer_sheet", auction) is not None:
                return self._spot_transcript(draft, record, award)
            excluded = dict(record.excluded)
            rated = bidding.rated_bids(draft, record)
        placed = [one for one in rated if one.bid.bid not in excluded]
        left_out = [(one.bid, excluded[one.bid.bid]) for one in rated if one.bid.bid in excluded]
        ratings = {one.bid.bidder: one.rating for one in placed if one.rating is not None}
        return write_transcript(record.announcement, [one.bid for one in placed], ratings, award, left_out)

    def _spot_transcript(self, draft: Draft, record: Auction, award: Award) -> Transcript:
        """Only the journal has the offers as they were at the award: a standing offer changes with every use."""
        self._commit_and_wait()
        offers: dict[str, StandingOffer] = {}
        for entry in self.store.entries():
            if entry.sequence >= record.announced_sequence:
                break
            for kind, name, offer in decode_changes(decode_body(entry.body))[0]:
                if kind == "offer" and offer.service == record.announcement.service:
                    offers.pop(name, None) if offer.valid_until_ms <= entry.at_ms else offers.update({name: offer})
        considered = {one.bid for one in award.standings}
        among = [offer for name, offer in offers.items() if name in considered]
        ratings = {offer.provider: opinions.rating_at(draft, record, offer.provider) for offer in among}
        left_out = [(offers[name], why) for name, why in record.excluded if name in offers]
        return write_spot_transcript(record.announcement, among, ratings, award, record.announced_ms, left_out)

    @query("bid list", right="own", about="reader")
    def bids(self, auction: str, reader: str) -> list[Bid]:
        """List the bids that the reader may see. In an open format, or after the close if it took part, it sees all
        bids, otherwise its own. Raises Sealed if others have bid and the reader may see none."""
        with self._deciding:
            draft = self._draft(self._now())
            return bidding.bids_shown_to(draft, auction, reader)

    @query("offer list", right="anyone")
    def offers(self, service: str) -> list[StandingOffer]:
        """List the standing offers for a service."""
        with self._deciding:
            now_ms = self._now()
            offers = self._state.offers_of.get(service, {}).values()
            return [offer for offer in offers if offer.valid_until_ms > now_ms]

    # --- agreements and groups ---

    @query("agreement show", right="concerned")
    def agreement(self, agreement: str) -> Agreement:
        """Show an agreement. Raises Unknown."""
        with self._deciding:
            return self._draft().agreement(agreement)

    @query("agreement chain", right="operator")
    def chain(self, agreement: str) -> list[Agreement]:
        """List the agreements from this one up to the first. The chain shows which party is liable to which."""
        with self._deciding:
            return chains.chain_of(self._draft(), agreement)

    @query("agreement subcontracts", right="side")
    def subcontracts(self, agreement: str) -> list[Agreement]:
        """List the agreements directly under this one."""
        with self._deciding:
            return chains.subcontracts_of(self._draft(), agreement)

    @query("agreement invoice", right="side")
    def invoice(self, agreement: str) -> Invoice:
        """Return the invoice of an agreement, with its metered lines. `auction.model.billing` writes it as text, JSON
        and HTML."""
        with self._deciding:
            draft = self._draft()
            record = draft.agreement(agreement)
            shared = draft.find("shares", record.block)
        return invoice(record, shared.meters if shared is not None else None)

    @query("agreement cost", right="side")
    def cost_of(self, agreement: str, party: str, ending: str, figure: int) -> Settlement:
        """Compute what an end would cost if this side stated it now. It uses only what was stated and handed in so
        far."""
        with self._deciding:
            return endings.cost_of(self._draft(self._now()), agreement, party, ending, figure)

    @query("bid cost", right="own", about="entry.bidder")
    def cost_of_bid(self, auction: str, entry: BidEntry) -> Cost:
        """Compute what a bid would hold if it were placed now. It places nothing. Raises what `bid` would raise."""
        with self._deciding:
            draft = self._draft(self._time.read())
            bidding.bid(draft, auction, entry)
            return draft.cost_to(entry.bidder)

    @query("auction withdraw-cost", right="announcer")
    def cost_of_withdrawing(self, auction: str) -> Cost:
        """Compute what withdrawing an auction now would release. It withdraws nothing. Raises what `withdraw_auction`
        would raise."""
        with self._deciding:
            draft = self._draft(self._time.read())
            announcer = draft.auction(auction).announcer
            payments.withdraw(draft, auction)
            return draft.cost_to(announcer)

    @query("agreement receipt-terms", right="side")
    def receipt_terms(self, agreement: str) -> ReceiptTerms:
        """Return the terms that an agreement's receipts must follow. Raises WrongState if it has no receipts."""
        with self._deciding:
            return self._draft().agreement(agreement).receipt_terms(self.config.name)

    @query("group show", right="member")
    def group_of(self, group: str) -> Group:
        """Show a group. Raises Unknown."""
        with self._deciding:
            return self._draft().get("group", group)  # type: ignore[no-any-return]

    # --- ratings ---

    @query("rating show", right="anyone")
    def rating(self, party: str, service: str = PAYMENTS) -> ShownRating:
        """Show a party's rating now. With a service, as its provider; without one, as a payer."""
        with self._deciding:
            self._draft().party(party)
            shown = self._state.reputation.shown_now(party, service, self._now())
            return self._state.people.rating(shown)

    @query("rating standing", right="anyone")
    def standing(self, party: str) -> Standing:
        """Show what else is known about a party. None of it counts in its rating."""
        with self._deciding:
            self._draft().party(party)
            reputation = self._state.reputation
            contested = reputation.contested(party)
            return Standing(party, reputation.circular_ppm(party), *contested)

    @query("rating deals", right="anyone")
    def rated_deals(self, party: str, service: str = PAYMENTS, *, limit: int = 20) -> tuple[PublicDeal, ...]:
        """List the public part of the deals behind a rating. The latest `limit` come first: what was said or earned,
        and the weight in eighths, which reveals no price. Deals whose charges can no longer be taken back are only in
        the sums."""
        check_integer(limit, "limit", 1, LIMIT_MAX)
        with self._deciding:
            self._draft().party(party)
            return self._state.reputation.deals_of(party, service, limit)

    @query("rating opinions", right="anyone")
    def opinions(self, agreement: str) -> tuple[Opinion, ...]:
        """List the published opinions about an agreement. Returns none before they are published."""
        with self._deciding:
            exchange = self._draft().find("exchange", agreement)
            if exchange is None:
                raise Unknown(f"nobody can rate {agreement}: it is not settled, or has been over for long")
            is_open = agreement in self._state.records["revealed"]
            said = map(self._state.people.opinion, (exchange.service, exchange.payment))
            return tuple(one for one in said if one is not None) if is_open else ()

    @query("rating draft", right="own", about="rater")
    def drafted_rating(self, agreement: str, rater: str) -> DraftedRating | None:
        """Draft this side's opinion by the stated rule. The recipient's follows from what the provider earned (see
        `rating.draft_of_service`), the provider's from the payment's outcome. Returns None if nothing can be said
        yet."""
        with self._deciding:
            return opinions.drafted_rating(self._draft(), agreement, rater)

    @query("rating draft-payment", right="side")
    def drafted_payment_rating(self, agreement: str) -> bool | None:
        """Draft the provider's rating of the payment. Returns None if nothing can be said."""
        with self._deciding:
            return opinions.drafted_payment_rating(self._draft().agreement(agreement))

    @query("payment predict", right="anyone")
    def payment_probability_ppm(self, recipient: str) -> int:
        """Predict the probability that a recipient's next charge succeeds. The unit is parts per million."""
        with self._deciding:
            return opinions.payment_probability_ppm(self._draft(self._now()), recipient)

    # --- many records at a time ---

    @query("party assignments", right="own", about="party", is_news=_is_other_version)
    def assignments(
        self, party: str, *, services: tuple[str, ...] = (), known: str = "", wait_ms: int = 0
    ) -> Assignments:
        """List a party's assignments, and mark it present for 10 s. A provider sees what it serves, can take over, or
        should stay connected for, and the auctions of `services` that it can bid in. A recipient sees what is served to
        it. With the `version` of an answer as `known`, the call waits up to `wait_ms` for a different one."""

        def read() -> Assignments:
            with self._deciding:
                now_ms = self._now()
                self._state.polled[party] = now_ms
                return find_assignments(self._draft(now_ms), party, services)

        with self._deciding:
            self._draft().party(party)
            self._state.polled[party] = self._now()  # before what is due by now checks who is present
        return self._when(read, lambda answer: answer.version != known, wait_ms)

    @query("market overview", right="own", about="party", is_news=_is_other_version)
    def overview(self, *, party: str = "", limit: int = 20, known: str = "", wait_ms: int = 0) -> Overview:
        """Show an overview of the market. It has at most `limit` rows of each kind. With a `party`, shows only its
        agreements and ratings. With the `version` of an answer as `known`, the call waits up to `wait_ms` for a
        different one."""

        def read() -> Overview:
            with self._deciding:
                return look(self._state, self._now(), party, limit, self.config.name)

        return self._when(read, lambda answer: answer.version != known, wait_ms)
