"""The moderator: every command of the market. Each method runs one rule of `rules`. Commands that move money are in
`payments`, queries in `queries`.

To add a command, write a method here and its rule. The decorator makes it served and a step of the command line. The
docstring is the help of the step, so it is in the imperative, and its first sentence fits on one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from auction.formats.commit_reveal import Commitment
from auction.groups.sharing import Share
from auction.model.agreement import Agreement
from auction.model.award import Award
from auction.model.bid import Announcement, Bid, StandingOffer
from auction.model.block import Block
from auction.model.earned import FalseInterval
from auction.model.endpoint import Endpoint, Warm
from auction.model.errors import NotAllowed, WrongState
from auction.model.meter import Meter
from auction.model.party import Party, Signature, token_hash
from auction.model.rating import DraftedRating, Exchange
from auction.model.receipt import SignedReceipt
from auction.moderator.draft import Draft
from auction.moderator.methods import command
from auction.moderator.payments import Payments
from auction.moderator.records import BlockShares, Erased, Group, Refusals
from auction.moderator.rules import (
    admission,
    announcing,
    at_once,
    awarding,
    banning,
    bidding,
    blocks,
    erasing,
    failing_over,
    groups,
    opinions,
    parties,
    payments,
)
from auction.moderator.rules import ending as endings
from auction.moderator.terms import AuctionTerms, BidEntry, Held, Registered


class Moderator(Payments):
    """Holds auctions and keeps agreements, charges and ratings. It is the only writer of its market.

    `store` keeps the market (default: in memory); `clock` returns ms since 1970; `random_bytes` makes tokens and
    tie-breaking seeds. Every command takes a `key`: sent again under the same key, it takes effect once and returns the
    same answer. Every command either does everything it says or raises an `AuctionError` and changes nothing."""

    # --- parties ---

    @command("party register", right="registration")
    def register(
        self,
        party: str,
        kind: str,
        *,
        public_key: str = "",
        belongs_to: str = "",
        controller: str = "",
        capacity_bps: int = 0,
        signature: Signature | None = None,
        name: str = "",
        key: str | None = None,
    ) -> Registered:
        """Register a party. Its kind is `provider`, `recipient`, or a recipient's `user`, `device` or `number`.

        An empty `party` gets an id of the market's own, which the answer has; so does a number, whose `party` is its
        telephone number. `name` and the number are personal: they stay out of the journal and can be erased (`erase`);
        `id_of` finds the id by them. `controller` names the party that controls this one, so that linked parties cannot
        bid against each other; it must consent, so in a served market the controller itself registers the party.
        `signature` by the public key (purpose `party`) proves possession of the key; a served market requires it from
        everyone but the operator. Who gets an id of the market's own signs an empty name. Raises Exists, BadValue,
        BadNumber, BadSignature."""
        token = self._random_bytes(32).hex()
        hashed = token_hash(token)
        stated = (kind, public_key, belongs_to, controller, capacity_bps, signature)
        impersonal = ("" if kind == "number" else party, *stated)

        def decide(draft: Draft, *given: Any) -> str:
            return parties.register(draft, hashed, *given)

        made = self._run("register", key, (party, *stated, name), decide, str, hashed=impersonal)
        # Only a hash is stored, so only the call that made the token can return it.
        is_ours = self._state.owners.get(hashed) == made
        return Registered(made, token if is_ours else "")

    @command("party renew-token", right="stranger")
    def renew_token(self, party: str, signature: Signature) -> Registered:
        """Replace a party's token. The party's key signs the request (purpose `token`, empty body)."""
        token = self._random_bytes(32).hex()
        arguments = (party, signature, token_hash(token))
        return Registered(self._run("renew_token", None, arguments, parties.renew_token, str), token)

    @command("party replace-token", right="operator")
    def replace_token(self, party: str, *, key: str | None = None) -> Registered:
        """Replace a party's token by a new one. The former token is void at once, also for calls that wait for an
        answer. Use it for a token that is lost or leaked, if the party has no key to sign `renew_token` with."""
        token = self._random_bytes(32).hex()
        hashed = token_hash(token)

        def decide(draft: Draft, party: str) -> str:
            return parties.give_token(draft, party, hashed)

        name = self._run("replace_token", key, (party,), decide, str)
        return Registered(name, token if self._state.owners.get(hashed) == name else "")

    @command("party revoke-token", right="operator")
    def revoke_token(self, party: str, *, key: str | None = None) -> str:
        """Revoke a party's token. `replace_token` issues another. Returns the party."""

        def decide(draft: Draft, party: str) -> str:
            return parties.give_token(draft, party, "")

        return self._run("revoke_token", key, (party,), decide, str)

    @command("party change-key", right="own", about="party")
    def change_key(self, party: str, public_key: str, signature: Signature, *, key: str | None = None) -> Party:
        """Change a party's public key. `signature` is by the new key (purpose `key`, body
        `auction.model.signing.party_body`). Agreements keep the keys that they were made with; the former key still
        links the party to others. Raises BadSignature, Exists for a key that another party has or had."""
        return self._run("change_key", key, (party, public_key, signature), parties.change_key, Party)

    @command("party change-capacity", right="own", about="party")
    def change_capacity(self, party: str, capacity_bps: int, *, key: str | None = None) -> Party:
        """Change a provider's capacity. It cannot be below what the provider has promised in blocks, in bids that may
        win, and in offers. Raises NoCapacity."""
        return self._run("change_capacity", key, (party, capacity_bps), parties.change_capacity, Party)

    @command("party change-attributes", right="operator")
    def change_attributes(self, party: str, attributes: dict[str, str], *, key: str | None = None) -> Party:
        """Set a party's attributes, as verified by the operator. They replace all former ones. A block may require some
        (`Block.requires`); a bidder that lacks one at the close is excluded."""
        return self._run("change_attributes", key, (party, attributes), parties.change_attributes, Party)

    @command("party refuse", right="own", about="party")
    def refuse_party(self, party: str, other: str, *, key: str | None = None) -> Refusals:
        """Refuse to deal with another party. It joins the caller's private list, which counts for later announcements
        and offers, and for all parties linked to those on it. A bid placed before still binds."""
        return self._run("refuse_party", key, (party, other), admission.refuse, Refusals)

    @command("party accept", right="own", about="party")
    def accept_party(self, party: str, other: str, *, key: str | None = None) -> Refusals:
        """Accept a refused party again."""
        return self._run("accept_party", key, (party, other), admission.accept, Refusals)

    @command("party ban", right="operator")
    def ban(self, party: str, *, key: str | None = None) -> Party:
        """Ban a party and the parties linked to it. They can no longer announce, bid or offer. Their open auctions
        become void, their offers end, their bids and commitments are withdrawn, and the holds are released. Their
        agreements go on to the end."""
        banned = self._run("ban", key, (party,), banning.ban, Party)
        self._send_pending()
        return banned

    @command("party lift-ban", right="operator")
    def lift_ban(self, party: str, *, key: str | None = None) -> Party:
        """Lift a ban."""
        return self._run("lift_ban", key, (party,), banning.lift, Party)

    @command("party erase", right="operator")
    def erase(self, party: str, *, key: str | None = None) -> Erased:
        """Erase the names, telephone numbers and remarks of a party. Those of all that are part of it go too, and so do
        remarks about it. The journal still verifies: it has digests alone. Nothing of them is left in the database
        then. The party can begin nothing new; its money stays its own. Raises WrongState while something of it is
        under way, StoreFailed if another process reads the database: send it again then."""
        return self._run("erase", key, (party,), erasing.erase, Erased)

    # --- blocks ---

    @command("block publish", right="own", about="block.provider")
    def publish_block(self, block: Block, *, key: str | None = None) -> Block:
        """Set a block of a provider's capacity aside for sale in auctions. Raises NoCapacity if the provider's blocks
        would exceed its capacity at some instant."""
        return self._run("publish_block", key, (block,), blocks.publish_block, Block)

    @command("block split-in-time", right="own", about="holder")
    def split_block_in_time(
        self, block: str, holder: str, at_ms: int, *, key: str | None = None
    ) -> tuple[Block, Block]:
        """Replace a block by two consecutive ones. The block must not have started."""
        return self._run("split_block_in_time", key, (block, holder, at_ms), blocks.split_block_in_time, blocks.Pair)

    @command("block split-in-rate", right="own", about="holder")
    def split_block_in_rate(
        self, block: str, holder: str, first_bps: int, *, key: str | None = None
    ) -> tuple[Block, Block]:
        """Replace a block by two parallel ones. The first has `first_bps`. The block must not have started."""
        return self._run(
            "split_block_in_rate", key, (block, holder, first_bps), blocks.split_block_in_rate, blocks.Pair
        )

    @command("block resell", right="operator")
    def resell_block(self, block: str, seller: str, buyer: str, price: int, *, key: str | None = None) -> Block:
        """Resell a block before it starts. The buyer pays the price at once from its balance. An agreement about the
        whole block passes with it: the buyer becomes its recipient, gets what is returned, and rates. (To find the best
        buyer, auction the block: see `announce`.)"""
        return self._run("resell_block", key, (block, seller, buyer, price), blocks.resell_block, Block)

    # --- auctions ---

    @command("auction announce", right="own", about="announcer")
    def announce(
        self,
        announcer: str,
        block: Block | str,
        terms: AuctionTerms,
        *,
        auction: str = "",
        prime: str = "",
        key: str | None = None,
    ) -> Announcement:
        """Announce an auction. With a `Block`, a recipient asks for it and providers bid to provide it. With the name
        of a block, its holder sells it and recipients bid for it. `prime` names the agreement of which this
        subcontracts a part. The market holds at once the reserve plus δ of it (the share for leaving) if the announcer
        will pay, or δ of the reserve and the penalty Φ if it sells. If a card pays, nobody can bid before `pay`. Raises
        InsufficientFunds, BadValue, Exists, NotAllowed."""
        arguments = (announcer, block, terms, auction, prime)
        return self._run("announce", key, arguments, announcing.announce_openly, Announcement)

    @command("auction withdraw", right="announcer")
    def withdraw_auction(self, auction: str, *, key: str | None = None) -> Announcement:
        """Withdraw an auction before its first bid. Everything held for it is released."""
        announcement = self._run("withdraw_auction", key, (auction,), payments.withdraw, Announcement)
        self._send_pending()
        return announcement

    @command("auction close", right="participant")
    def close(self, auction: str, *, key: str | None = None) -> Award:
        """Close an auction whose bidding has ended. Raises WrongState before that. For an auction that is closed
        already, returns its award."""
        return self._run("close", key, (auction,), awarding.award_of, Award)

    @command("auction hold", right="operator")
    def hold_auction(
        self,
        announcer: str,
        block: Block | str,
        terms: AuctionTerms,
        entries: Sequence[BidEntry],
        *,
        auction: str = "",
        key: str | None = None,
    ) -> Held:
        """Run a whole sealed auction in one command. It is announced, bid in the order given, and awarded, with all
        holds. If a bid is refused or the announcement is not funded, the whole command is refused. If a winner's hold
        cannot be placed, the next bid wins."""
        return self._run("hold_auction", key, (announcer, block, terms, entries, auction), at_once.hold, Held)

    @command("auction spot", right="own", about="recipient")
    def spot(
        self,
        recipient: str,
        block: Block,
        terms: AuctionTerms,
        *,
        prime: str = "",
        key: str | None = None,
        wait: bool = True,
    ) -> Agreement:
        """Award a block at once to the best standing offer. An offer whose hold cannot be placed is passed over.
        `terms.open_for_ms` is the deadline of the answer. With `wait=False` the answer comes before it is durable (no
        I/O): it is written with the next command or by `flush`, and is lost if the process dies before that. After 256
        unwritten answers the next one waits until they are written. Raises NoAward."""
        return self._run("spot", key, (recipient, block, terms, prime), at_once.award_at_once, Agreement, wait=wait)

    # --- bids and offers ---

    @command("bid place", right="own", about="entry.bidder")
    def bid(self, auction: str, entry: BidEntry, *, key: str | None = None) -> Bid:
        """Place a bid. The market holds δ (the share for leaving) of the reserve if the bidder will provide, or the
        price plus δ of it if the bidder will pay. Raises TooLate once the moderator's sequence has closed the auction;
        LinkedParties, NoCapacity, InsufficientFunds, BadSignature, Expired, Replayed, BadAmount."""
        return self._run("bid", key, (auction, entry), bidding.bid, Bid)

    @command("bid commit", right="own", about="bidder")
    def commit(
        self,
        auction: str,
        bidder: str,
        commitment: str,
        signature: Signature | None = None,
        *,
        deposit: int = 0,
        key: str | None = None,
    ) -> Commitment:
        """Commit to a bid by its hash, to reveal it after the close. The hash is `auction.model.bid.commitment`. Until
        the bid is revealed the market holds the reserve if the bidder will provide. If it will pay, the market holds
        `deposit` plus δ of it (the share for leaving), and the bid can be at most the deposit. If the bid is never
        revealed, that goes to nobody. Raises TooLate from the close on, Exists for a second or a copied commitment."""
        arguments = (auction, bidder, commitment, deposit, signature)
        return self._run("commit", key, arguments, bidding.commit, Commitment)

    @command("bid reveal", right="own", about="entry.bidder")
    def reveal(self, auction: str, entry: BidEntry, *, key: str | None = None) -> Bid:
        """Reveal a committed bid after the close. The commitment's hold is released. Raises BadSignature for a bid
        other than the committed one, TooLate after the end of revealing."""
        return self._run("reveal", key, (auction, entry), bidding.reveal, Bid)

    @command("offer place", right="own", about="offer.provider")
    def stand_offer(
        self, offer: StandingOffer, signature: Signature | None = None, *, key: str | None = None
    ) -> StandingOffer:
        """Place a firm offer that stands until `valid_until_ms`. That is at most 24 hours away. Meanwhile the market
        holds δ (the share for leaving) of the price of all its units. An offer replaces the provider's earlier one of
        the same name."""
        return self._run("stand_offer", key, (offer, signature), at_once.stand_offer, StandingOffer)

    @command("offer withdraw", right="own", about="provider")
    def withdraw_offer(self, offer: str, provider: str, *, key: str | None = None) -> StandingOffer:
        """Withdraw a standing offer."""
        return self._run("withdraw_offer", key, (offer, provider), at_once.withdraw_offer, StandingOffer)

    @command("offer keep-warm", right="own", about="recipient")
    def keep_warm(self, recipient: str, offers: tuple[str, ...], until_ms: int, *, key: str | None = None) -> Warm:
        """Ask the providers of offers to stay connected until `until_ms`. A spot award or a takeover then needs no new
        connection. It costs nothing and promises nothing. A later request replaces it."""
        return self._run("keep_warm", key, (recipient, offers, until_ms), parties.keep_warm, Warm)

    @command("endpoint publish", right="own", about="party")
    def publish_endpoint(
        self,
        party: str,
        curve_key: str,
        *,
        address: str = "",
        signature: Signature | None = None,
        key: str | None = None,
    ) -> Endpoint:
        """Publish where a recipient listens, or a provider's key. A recipient listens for providers at `address` with
        this CURVE public key. A provider has no address, and connects with this key. A later endpoint replaces it."""
        return self._run(
            "publish_endpoint", key, (party, curve_key, address, signature), parties.publish_endpoint, Endpoint
        )

    # --- agreements ---

    @command("agreement hand-in", right="own", about="party")
    def hand_in(self, agreement: str, party: str, receipt: SignedReceipt, *, key: str | None = None) -> Agreement:
        """Hand in a receipt. While the agreement runs or closes, the highest receipt that both sides signed bounds the
        figures that count. After it is settled, a receipt that the recipient signed above its stated figure makes it
        owe the difference twice. Raises BadSignature, BadValue, WrongState, TooLate."""
        return self._run("hand_in", key, (agreement, party, receipt), endings.hand_in, Agreement)

    @command("agreement end", right="own", about="party")
    def end(self, agreement: str, party: str, ending: str, figure: int, *, key: str | None = None) -> Agreement:
        """State how an agreement ends for one side. The ending is `finished`, `leaving` (its own fault or choice) or
        `blaming`; `figure` is the part of the price that was earned. If both sides state the same figure, the agreement
        is settled at once; otherwise a side may restate until closing is over."""
        ended = self._run("end", key, (agreement, party, ending, figure), endings.end, Agreement)
        if ended.is_over and ended.processor_reference:
            self._send_pending()
            return self.agreement(agreement)
        return ended

    @command("agreement prove", right="recipient")
    def prove(self, agreement: str, proof: FalseInterval, *, key: str | None = None) -> Agreement:
        """Prove that a result in an interval is false. The judge that the terms name executes the segment again (see
        `judges`). The provider loses the penalty Φ to nobody, the interval earns nothing, and the recipient may leave
        without paying δ (the share for leaving). Raises WrongState if the terms name no judge, NotAllowed if the result
        is right."""
        with self._deciding:
            checked = endings.check_proof(self._draft(), agreement, proof)
        judge = self.judges.get(checked.judge)
        if judge is None:
            raise WrongState(f"{agreement} has no judge: blame its provider instead")
        if not judge(checked, proof):
            raise NotAllowed(f"the judge got the same result as {checked.provider} for the segment")
        return self._run("prove", key, (agreement, proof), endings.prove, Agreement)

    @command("agreement arbitrate", right="own", about="arbiter")
    def arbitrate(
        self, agreement: str, arbiter: str, to_provider: int, to_recipient: int, *, key: str | None = None
    ) -> Agreement:
        """Divide what would go to nobody between the two sides. Only an arbiter that both sides have named may, while
        the agreement closes."""
        arguments = (agreement, arbiter, to_provider, to_recipient)
        return self._run("arbitrate", key, arguments, endings.arbitrate, Agreement)

    @command("agreement take-over", right="own", about="provider")
    def take_over(self, agreement: str, provider: str, *, key: str | None = None) -> Agreement:
        """Take over the rest of an agreement whose provider has left. `assignments` shows the caller the offer: its own
        bid in proportion. The rest becomes a separate agreement. Raises NoAward if nothing is offered."""
        return self._run("take_over", key, (agreement, provider), failing_over.take_over, Agreement)

    @command("agreement stop-failover", right="recipient")
    def stop_fail_over(self, agreement: str, *, key: str | None = None) -> Agreement:
        """Stop fail-over, so that nobody takes over the rest. Its recipient may do so at any time,
        even after blaming its provider; the hold beyond P(1+δ) is released at once. Takeovers already made go on.
        Raises WrongState without fail-over."""
        return self._run("stop_fail_over", key, (agreement,), failing_over.stop, Agreement)

    # --- ratings ---

    @command("rating give", right="rater")
    def rate(
        self,
        agreement: str,
        rater: str,
        satisfied: bool,
        *,
        device: str = "",
        remark: str = "",
        signature: Signature | None = None,
        key: str | None = None,
    ) -> Exchange:
        """Rate the other side of an agreement. The recipient says, from one of its devices, whether the service was
        satisfactorily provided; the provider says whether the recipient satisfactorily paid. The weight is the charge
        less refunds and chargebacks. The device or the provider signs. Until both sides have rated, the answer shows
        only the rater's own opinion."""
        arguments = (agreement, rater, satisfied, device, remark, signature)
        impersonal = (agreement, rater, satisfied, device, signature)
        rated = self._run("rate", key, arguments, opinions.rate, Exchange, hashed=impersonal)
        people = self._state.people
        return msgspec.structs.replace(
            rated, service=people.opinion(rated.service), payment=people.opinion(rated.payment)
        )

    @command("rating give-drafted", right="rater")
    def rate_as_drafted(
        self,
        agreement: str,
        rater: str,
        *,
        device: str = "",
        overrule_ms: int = 0,
        signature: Signature | None = None,
        key: str | None = None,
    ) -> DraftedRating:
        """Give the drafted rating of `rating draft`. It counts at once, or with `overrule_ms` after that time, unless
        this side has rated by itself before (see `rate`). The signature covers the drafted words. Raises WrongState if
        nothing can be drafted."""
        arguments = (agreement, rater, device, overrule_ms, signature)
        return self._run("rate_as_drafted", key, arguments, opinions.rate_as_drafted, DraftedRating)

    # --- sharing a block ---

    @command("share open", right="holder")
    def share_block(
        self, block: str, holder: str, rule: str, *, channel_bps: int = 0, key: str | None = None
    ) -> BlockShares:
        """Open a shareable block to members of one kind. The rule is `recipients`, telephone `numbers` (each call needs
        a whole channel of `channel_bps`), or client `devices` of several users."""
        return self._run("share_block", key, (block, holder, rule, channel_bps), blocks.share_block, BlockShares)

    @command("share join", right="holder")
    def join_share(self, block: str, share: Share, *, key: str | None = None) -> BlockShares:
        """Add a member, also while the block runs. In a block shared by devices the users join first, as members
        without a user."""
        return self._run("join_share", key, (block, share), blocks.join_share, BlockShares)

    @command("share leave", right="holder")
    def leave_share(self, block: str, member: str, *, key: str | None = None) -> BlockShares:
        """Remove a member. Its metered use stays. If a user is removed, so are its devices."""
        return self._run("leave_share", key, (block, member), blocks.leave_share, BlockShares)

    @command("share meter", right="holder")
    def meter(
        self,
        block: str,
        interval_ms: int,
        used_bits: dict[str, int],
        asked: dict[str, int] | None = None,
        *,
        key: str | None = None,
    ) -> dict[str, Meter]:
        """Meter what each member was allowed and used in an interval."""
        return self._run("meter", key, (block, interval_ms, used_bits, asked), blocks.meter, dict[str, Meter])

    # --- groups in which only some pay ---

    @command("group open", right="own", about="organiser")
    def open_group(
        self, auction: str, organiser: str, *, extra_cost: int = 0, device: str = "", key: str | None = None
    ) -> Group:
        """Open a group that shares the price of an auction's agreement. The organiser has announced and funded the
        auction. `extra_cost` is the cost of each member that is served (such as setting up a device); `device` signs
        for the group. Both are fixed from then on."""
        return self._run("open_group", key, (auction, organiser, extra_cost, device), groups.open_group, Group)

    @command("group offer-price", right="own", about="by")
    def offer_price(self, group: str, by: str, price: int, expires_ms: int, *, key: str | None = None) -> Group:
        """Offer a price for the whole group, or counter the other side's. The organiser and the provider bargain. No
        offer may be above the awarded price."""
        return self._run("offer_price", key, (group, by, price, expires_ms), groups.offer_price, Group)

    @command("group accept-price", right="own", about="by")
    def accept_price(self, group: str, by: str, *, key: str | None = None) -> Group:
        """Accept the offered price. The agreement has that price from then on."""
        return self._run("accept_price", key, (group, by), groups.accept_price, Group)

    @command("group reject-price", right="own", about="by")
    def reject_price(self, group: str, by: str, *, key: str | None = None) -> Group:
        """End the bargaining. The awarded price stands."""
        return self._run("reject_price", key, (group, by), groups.reject_price, Group)

    @command("group join", right="own", about="member")
    def join_group(self, group: str, member: str, limit: int, *, key: str | None = None) -> Group:
        """Join a group, and state the most that the member will pay. A member with 0 pays nothing. The limit is held,
        hidden from the organiser, and can only be raised."""
        return self._run("join_group", key, (group, member, limit), groups.join_group, Group)

    @command("group pledge", right="own", about="sponsor")
    def pledge(self, group: str, sponsor: str, amount: int, *, opted_in: bool, key: str | None = None) -> Group:
        """Pledge a paying member's money for those that do not pay. A pledge is used whole or not at all, is held until
        the group is settled, and can only be raised."""
        return self._run("pledge", key, (group, sponsor, amount, opted_in), groups.pledge, Group)

    @command("group settle", right="organiser")
    def settle_group(self, group: str, *, key: str | None = None) -> Group:
        """Share the price among the members that pay. It must be done within an hour after the award. The Moulin
        mechanism sets each share; members that do not pay are served if the pledges cover their share; everything else
        is released. The members' money replaces the organiser's. Group-strategyproof and budget balanced; not
        efficient. If no member pays, the group has failed and the organiser pays alone."""
        return self._run("settle_group", key, (group,), groups.settle, Group)
