"""The moderator: every command of the market, each over a rule in `rules`. Those that move money are in `payments`,
what reads is in `queries`.

To add a command, write a method here with its rule; its decorator makes it served and a step of the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from auction.moderator.records import BlockShares, Group, Refusals
from auction.moderator.rules import (
    admission,
    announcing,
    at_once,
    awarding,
    banning,
    bidding,
    blocks,
    failing_over,
    groups,
    opinions,
    parties,
    payments,
)
from auction.moderator.rules import ending as endings
from auction.moderator.terms import AuctionTerms, BidEntry, Held, Registered


class Moderator(Payments):
    """Conducts auctions, keeps agreements, charges and ratings; the only writer of its market.

    `store` is where the market is kept (in memory without one); `clock` returns ms since 1970; `random_bytes` makes
    tokens and tie-breaking seeds. Every command takes a `key`: sent again under the same key, it has one effect and the
    same answer. Every command either does all it says or raises an `AuctionError` and changes nothing."""

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
        key: str | None = None,
    ) -> Registered:
        """Registers a party. Its kind is `provider`, `recipient`, or a recipient's `user`, `device` or `number`.

        A number's name is its telephone number in E.164. `controller` names who stands behind the party, if several
        are one in interest; it has to consent, so in a served market it registers the party itself. `signature` by the
        public key (purpose `party`) shows that who registers has it; a served market wants it of all but the operator.
        Raises Exists, BadValue, BadNumber, BadSignature."""
        token = self._random_bytes(32).hex()
        hashed = token_hash(token)
        arguments = (party, kind, public_key, belongs_to, controller, capacity_bps, signature)

        def decide(draft: Draft, *given: Any) -> str:
            return parties.register(draft, hashed, *given)

        name = self._run("register", key, arguments, decide, str)
        # Only a hash is stored, so the token can be handed out by the very call that made it, and by no other.
        is_ours = self._state.owners.get(hashed) == name
        return Registered(name, token if is_ours else "")

    @command("party renew-token", right="stranger")
    def renew_token(self, party: str, signature: Signature) -> Registered:
        """Replaces a party's token. The party's key signs for it (purpose `token`, empty body)."""
        token = self._random_bytes(32).hex()
        arguments = (party, signature, token_hash(token))
        return Registered(self._run("renew_token", None, arguments, parties.renew_token, str), token)

    @command("party replace-token", right="operator")
    def replace_token(self, party: str, *, key: str | None = None) -> Registered:
        """Gives a party another token. The former one opens nothing from then on, not even what waits for an answer.
        For one that is lost or known to others, where no key of the party's can sign for `renew_token`."""
        token = self._random_bytes(32).hex()
        hashed = token_hash(token)

        def decide(draft: Draft, party: str) -> str:
            return parties.give_token(draft, party, hashed)

        name = self._run("replace_token", key, (party,), decide, str)
        return Registered(name, token if self._state.owners.get(hashed) == name else "")

    @command("party revoke-token", right="operator")
    def revoke_token(self, party: str, *, key: str | None = None) -> str:
        """Takes a party's token away. It opens nothing from then on; `replace_token` gives another. Returns the
        party."""

        def decide(draft: Draft, party: str) -> str:
            return parties.give_token(draft, party, "")

        return self._run("revoke_token", key, (party,), decide, str)

    @command("party change-key", right="own", about="party")
    def change_key(self, party: str, public_key: str, signature: Signature, *, key: str | None = None) -> Party:
        """Gives a party another public key. `signature` is by the new key (purpose `key`, body
        `auction.model.signing.party_body`). Agreements keep the keys that they were made with; the former key still
        says with whom the party is one in interest. Raises BadSignature, Exists for a key that another has or had."""
        return self._run("change_key", key, (party, public_key, signature), parties.change_key, Party)

    @command("party change-capacity", right="own", about="party")
    def change_capacity(self, party: str, capacity_bps: int, *, key: str | None = None) -> Party:
        """Changes what a provider can serve at a time. It is never below what it has promised: its blocks, its bids
        that may win, and its offers. Raises NoCapacity."""
        return self._run("change_capacity", key, (party, capacity_bps), parties.change_capacity, Party)

    @command("party change-attributes", right="operator")
    def change_attributes(self, party: str, attributes: dict[str, str], *, key: str | None = None) -> Party:
        """Says what the operator has found of a party. All its attributes are replaced. A block may require some
        (`Block.requires`), and who lacks one at the close is excluded."""
        return self._run("change_attributes", key, (party, attributes), parties.change_attributes, Party)

    @command("party refuse", right="own", about="party")
    def refuse_party(self, party: str, other: str, *, key: str | None = None) -> Refusals:
        """Puts another on the list of those that a party will not deal with. The list is its own; it counts for what is
        announced and offered from then on, and for all that are one in interest with who is on it. A bid that is
        placed binds."""
        return self._run("refuse_party", key, (party, other), admission.refuse, Refusals)

    @command("party accept", right="own", about="party")
    def accept_party(self, party: str, other: str, *, key: str | None = None) -> Refusals:
        """Takes another off the list of those that a party will not deal with."""
        return self._run("accept_party", key, (party, other), admission.accept, Refusals)

    @command("party ban", right="operator")
    def ban(self, party: str, *, key: str | None = None) -> Party:
        """Bans a party, and who is one in interest with it. It announces, bids and offers nothing any more: its open
        auctions are void and its offers over, and all goes back; its bids are not considered. What it has agreed goes
        on to its end."""
        banned = self._run("ban", key, (party,), banning.ban, Party)
        self._send_pending()
        return banned

    @command("party lift-ban", right="operator")
    def lift_ban(self, party: str, *, key: str | None = None) -> Party:
        """Lifts a ban."""
        return self._run("lift_ban", key, (party,), banning.lift, Party)

    # --- blocks ---

    @command("block publish", right="own", about="block.provider")
    def publish_block(self, block: Block, *, key: str | None = None) -> Block:
        """Sets a block of a provider's capacity aside for sale. It is sold in auctions. Raises NoCapacity if the
        provider's blocks would add up to more than its capacity at some instant."""
        return self._run("publish_block", key, (block,), blocks.publish_block, Block)

    @command("block split-in-time", right="own", about="holder")
    def split_block_in_time(
        self, block: str, holder: str, at_ms: int, *, key: str | None = None
    ) -> tuple[Block, Block]:
        """Replaces a block by two that follow each other. It must not have started."""
        return self._run("split_block_in_time", key, (block, holder, at_ms), blocks.split_block_in_time, blocks.Pair)

    @command("block split-in-rate", right="own", about="holder")
    def split_block_in_rate(
        self, block: str, holder: str, first_bps: int, *, key: str | None = None
    ) -> tuple[Block, Block]:
        """Replaces a block by two side by side. The first has `first_bps`. The block must not have started."""
        return self._run(
            "split_block_in_rate", key, (block, holder, first_bps), blocks.split_block_in_rate, blocks.Pair
        )

    @command("block resell", right="operator")
    def resell_block(self, block: str, seller: str, buyer: str, price: int, *, key: str | None = None) -> Block:
        """Passes a sold block on before it starts. The price is paid at once from the buyer's balance. An agreement
        about the whole block passes with it: the buyer is its recipient from then on, gets what is returned, and rates.
        (To find the best buyer, auction the block: see `announce`.)"""
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
        """Announces an auction. A `Block` is what a recipient asks for, and providers bid to provide it; the name of a
        block is what its holder sells, and recipients bid for it. `prime` names the agreement a part of which this
        subcontracts. Held at once: the reserve with δ of who will pay, δ of it and Φ of who sells. Where a card pays,
        nobody can bid before `pay`. Raises InsufficientFunds, BadValue, Exists, NotAllowed."""
        arguments = (announcer, block, terms, auction, prime)
        return self._run("announce", key, arguments, announcing.announce_openly, Announcement)

    @command("auction withdraw", right="announcer")
    def withdraw_auction(self, auction: str, *, key: str | None = None) -> Announcement:
        """Takes an announcement back, before its first bid. All that was held goes back."""
        announcement = self._run("withdraw_auction", key, (auction,), payments.withdraw, Announcement)
        self._send_pending()
        return announcement

    @command("auction close", right="anyone")
    def close(self, auction: str, *, key: str | None = None) -> Award:
        """Closes an auction whose time has come. Raises WrongState before that; the award of one that is closed
        already is the one it got."""
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
        """Holds a whole sealed auction as one command. It is announced, bid in the order given, and awarded, with what
        that holds. A bid that is refused, or an announcement that is not funded, refuses the whole; a winner whose hold
        cannot be placed gives way to the next."""
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
        """Awards a block at once to the best standing offer that can be held. It waits for nobody. `terms.open_for_ms`
        is the deadline of the answer. With `wait=False` the answer comes before it is durable (no I/O): it is written
        with the next command or by `flush`, and lost if the process dies before that. When 256 answers are not written
        yet, the next one waits until they are. Raises NoAward."""
        return self._run("spot", key, (recipient, block, terms, prime), at_once.award_at_once, Agreement, wait=wait)

    # --- bids and offers ---

    @command("bid place", right="own", about="entry.bidder")
    def bid(self, auction: str, entry: BidEntry, *, key: str | None = None) -> Bid:
        """Places a bid. It holds δ of the reserve, or of who pays its price with δ. Raises TooLate once the moderator's
        sequence has closed the auction; LinkedParties, NoCapacity, InsufficientFunds, BadSignature, Expired, Replayed,
        BadAmount."""
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
        """Binds the bidder to a bid by its hash. The hash is `auction.model.bid.commitment`. Held until the bid is
        revealed, and lost to nobody where it is not: the reserve, or of who bids to pay `deposit` with δ, which its bid
        is at most. Raises TooLate from the close on, Exists for a second one or a copied one."""
        arguments = (auction, bidder, commitment, deposit, signature)
        return self._run("commit", key, arguments, bidding.commit, Commitment)

    @command("bid reveal", right="own", about="entry.bidder")
    def reveal(self, auction: str, entry: BidEntry, *, key: str | None = None) -> Bid:
        """Reveals a committed bid after the close. What its commitment held is free again. Raises BadSignature for a
        bid other than the committed one, TooLate after the end of revealing."""
        return self._run("reveal", key, (auction, entry), bidding.reveal, Bid)

    @command("offer place", right="own", about="offer.provider")
    def stand_offer(
        self, offer: StandingOffer, signature: Signature | None = None, *, key: str | None = None
    ) -> StandingOffer:
        """Places a provider's firm offer until `valid_until_ms`. That is in 24 hours at most; δ of the price of all its
        units is held so long. One of the same name replaces the provider's former."""
        return self._run("stand_offer", key, (offer, signature), at_once.stand_offer, StandingOffer)

    @command("offer withdraw", right="own", about="provider")
    def withdraw_offer(self, offer: str, provider: str, *, key: str | None = None) -> StandingOffer:
        """Withdraws a standing offer."""
        return self._run("withdraw_offer", key, (offer, provider), at_once.withdraw_offer, StandingOffer)

    @command("offer keep-warm", right="own", about="recipient")
    def keep_warm(self, recipient: str, offers: tuple[str, ...], until_ms: int, *, key: str | None = None) -> Warm:
        """Asks the providers of offers to stay connected. They do so until `until_ms`, so that a spot award or a
        takeover needs no new connection. It costs nothing and promises nothing; a later one replaces it."""
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
        """Publishes where a recipient listens, or a provider's key. The recipient listens for providers at `address`
        with this CURVE public key; a provider has no address and will come with the key. A later one replaces it."""
        return self._run(
            "publish_endpoint", key, (party, curve_key, address, signature), parties.publish_endpoint, Endpoint
        )

    # --- agreements ---

    @command("agreement hand-in", right="own", about="party")
    def hand_in(self, agreement: str, party: str, receipt: SignedReceipt, *, key: str | None = None) -> Agreement:
        """Hands a receipt in. While the agreement runs or closes, the highest one that both sides have signed bounds
        what can be stated. Afterwards, one that the recipient has signed above the figure that it stated: it owes what
        is missing, and as much again. Raises BadSignature, BadValue, WrongState, TooLate."""
        return self._run("hand_in", key, (agreement, party, receipt), endings.hand_in, Agreement)

    @command("agreement end", right="own", about="party")
    def end(self, agreement: str, party: str, ending: str, figure: int, *, key: str | None = None) -> Agreement:
        """States how an agreement ends for one side. That is `finished`, `leaving` (its own fault or choice) or
        `blaming`. `figure` is what of the price has been earned. Where both state the same figure it is settled at
        once; otherwise a side may restate until closing is over."""
        ended = self._run("end", key, (agreement, party, ending, figure), endings.end, Agreement)
        if ended.is_over and ended.processor_reference:
            self._send_pending()
            return self.agreement(agreement)
        return ended

    @command("agreement prove", right="recipient")
    def prove(self, agreement: str, proof: FalseInterval, *, key: str | None = None) -> Agreement:
        """Proves that a result in an interval is false. The re-executor that the terms name executes the segment again
        (see `judges`). The provider loses Φ to nobody, the interval earns nothing, and the recipient may leave free of
        δ. Raises WrongState where the terms name none, NotAllowed where the result is right."""
        with self._deciding:
            checked = endings.check_proof(self._draft(), agreement, proof)
        judge = self.judges.get(checked.judge)
        if judge is None:
            raise WrongState(f"no re-executor judges {agreement}: blame its provider instead")
        if not judge(checked, proof):
            raise NotAllowed(f"executed again, the segment gives the result that {checked.provider} sent")
        return self._run("prove", key, (agreement, proof), endings.prove, Agreement)

    @command("agreement arbitrate", right="own", about="arbiter")
    def arbitrate(
        self, agreement: str, arbiter: str, to_provider: int, to_recipient: int, *, key: str | None = None
    ) -> Agreement:
        """Hands out what would go to nobody. Only an arbiter that both sides have named does so, while the agreement
        closes."""
        arguments = (agreement, arbiter, to_provider, to_recipient)
        return self._run("arbitrate", key, arguments, endings.arbitrate, Agreement)

    @command("agreement take-over", right="own", about="provider")
    def take_over(self, agreement: str, provider: str, *, key: str | None = None) -> Agreement:
        """Takes over what is left of an agreement whose provider has left. It is what `assignments` shows the provider
        as an offer: its own bid in proportion, as an agreement of its own. Raises NoAward where nothing is offered."""
        return self._run("take_over", key, (agreement, provider), failing_over.take_over, Agreement)

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
        """Rates the other side of an agreement. The recipient says, from one of its devices, whether the service was
        satisfactorily provided; the provider whether the recipient satisfactorily paid. It weighs what was charged and
        stayed. The signature is the device's, or the provider's. The answer shows the rater's own side alone, until
        both are in."""
        arguments = (agreement, rater, satisfied, device, remark, signature)
        return self._run("rate", key, arguments, opinions.rate, Exchange)

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
        """Gives the rating that `drafted_rating` returns. It counts at once, or with `overrule_ms` above zero only when
        that time has passed and this side has said nothing itself (see `rate`). The signature is over the drafted
        words. Raises WrongState if nothing can be drafted."""
        arguments = (agreement, rater, device, overrule_ms, signature)
        return self._run("rate_as_drafted", key, arguments, opinions.rate_as_drafted, DraftedRating)

    # --- sharing a block ---

    @command("share open", right="holder")
    def share_block(
        self, block: str, holder: str, rule: str, *, channel_bps: int = 0, key: str | None = None
    ) -> BlockShares:
        """Opens a shareable block to members of one kind. The rule is `recipients`, telephone `numbers` (each call
        needs a whole channel of `channel_bps`), or client `devices` of several users."""
        return self._run("share_block", key, (block, holder, rule, channel_bps), blocks.share_block, BlockShares)

    @command("share join", right="holder")
    def join_share(self, block: str, share: Share, *, key: str | None = None) -> BlockShares:
        """Adds a member, also while the block runs. Between devices, users join first, as who has no user."""
        return self._run("join_share", key, (block, share), blocks.join_share, BlockShares)

    @command("share leave", right="holder")
    def leave_share(self, block: str, member: str, *, key: str | None = None) -> BlockShares:
        """Removes a member. What was metered of it stays. A user takes its devices along."""
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
        """Counts what members were allowed and used in an interval."""
        return self._run("meter", key, (block, interval_ms, used_bits, asked), blocks.meter, dict[str, Meter])

    # --- groups in which some will pay and some won't ---

    @command("group open", right="own", about="organiser")
    def open_group(
        self, auction: str, organiser: str, *, extra_cost: int = 0, device: str = "", key: str | None = None
    ) -> Group:
        """Opens a group with an announcement. It shares the price of the agreement. The organiser has announced and
        funded the auction. `extra_cost` is of each member who is served (such as a device's set-up), `device` signs for
        the group: both are fixed from then on."""
        return self._run("open_group", key, (auction, organiser, extra_cost, device), groups.open_group, Group)

    @command("group offer-price", right="own", about="by")
    def offer_price(self, group: str, by: str, price: int, expires_ms: int, *, key: str | None = None) -> Group:
        """Offers a price for all, or counters the other's. The group's organiser or the provider does so. The price
        can only come down: none rises above the award."""
        return self._run("offer_price", key, (group, by, price, expires_ms), groups.offer_price, Group)

    @command("group accept-price", right="own", about="by")
    def accept_price(self, group: str, by: str, *, key: str | None = None) -> Group:
        """Accepts the price that is offered. The agreement has that price from then on."""
        return self._run("accept_price", key, (group, by), groups.accept_price, Group)

    @command("group reject-price", right="own", about="by")
    def reject_price(self, group: str, by: str, *, key: str | None = None) -> Group:
        """Ends the bargaining. The awarded price stands."""
        return self._run("reject_price", key, (group, by), groups.reject_price, Group)

    @command("group join", right="own", about="member")
    def join_group(self, group: str, member: str, limit: int, *, key: str | None = None) -> Group:
        """Puts in the most that a member will pay for its part. 0 is a member that won't. It is held, sealed from the
        organiser, and may only rise."""
        return self._run("join_group", key, (group, member, limit), groups.join_group, Group)

    @command("group pledge", right="own", about="sponsor")
    def pledge(self, group: str, sponsor: str, amount: int, *, opted_in: bool, key: str | None = None) -> Group:
        """Pledges money of a willing member for the unwilling. It is all or nothing, held until the group is settled,
        and may only rise."""
        return self._run("pledge", key, (group, sponsor, amount, opted_in), groups.pledge, Group)

    @command("group settle", right="organiser")
    def settle_group(self, group: str, *, key: str | None = None) -> Group:
        """Shares the price among the willing members. It does so within an hour after the award, by the Moulin
        mechanism, serves the unwilling if the pledges cover their share, and gives everything else back. What is taken
        replaces the organiser's money. Group-strategyproof and budget balanced; not efficient. If nobody is willing,
        the group has failed and the agreement is the organiser's alone."""
        return self._run("settle_group", key, (group,), groups.settle, Group)
