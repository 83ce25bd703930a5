"""Bugs planted one at a time in the rule files: the tests of that rule must fail for each.

Every bug is one replaced piece of text, which must stand in the file exactly once. The tests run in a fork of this
process, where what they need besides our own files is imported already, with the profile `planted` of conftest.py. The
fork imports our files anew, and takes the text with the bug for the one it is planted in; the file stays as it is.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import pytest

import auction

PACKAGE = Path(auction.__file__).parent
TESTS = Path(__file__).parents[1]
PATIENCE_S = 100
HYPOTHESIS = "_hypothesis_pytestplugin"


class Bug(NamedTuple):
    """What is planted where, and the tests that must find it: a file, or one of its tests."""

    name: str
    file: str
    right: str
    wrong: str
    test: str


BUGS = [
    Bug(
        "the reserve does not bound the price",
        "formats/scored.py",
        "max(signed, ranked[1][0] - ranked[0][1])",
        "ranked[1][0] - ranked[0][1]",
        "formats/test_scored.py::test_second_score_pays_the_worst_price_that_still_wins",
    ),
    Bug(
        "the second's price instead of its score",
        "formats/scored.py",
        "ranked[1][0] - ranked[0][1]",
        "ranked[1][0] - ranked[1][1]",
        "formats/test_scored.py::test_second_score_pays_the_worst_price_that_still_wins",
    ),
    Bug(
        "the reserve itself is beyond the reserve",
        "formats/scored.py",
        "if signed >= bound else",
        "if signed > bound else",
        "formats/test_scored.py::test_winner_is_the_best_score_within_the_reserve",
    ),
    Bug(
        "the worst score wins",
        "formats/scored.py",
        ", reverse=True)",
        ")",
        "formats/test_reference.py::test_winners_and_prices_are_the_references",
    ),
    Bug(
        "a loser is told a price that may lose",
        "formats/scored.py",
        "rival[0] - value + 1",
        "rival[0] - value - 1",
        "formats/test_scored.py::test_needed_would_have_won_for_sure",
    ),
    Bug(
        "the draw forgets the seed",
        "model/award.py",
        "sha256(self._prefix + party.encode())",
        "sha256(party.encode())",
        "formats/test_scored.py::test_ties_go_by_the_seed_and_not_by_who_came_first",
    ),
    Bug(
        "who came for the tie takes part in it",
        "model/award.py",
        'b"\\1" if registered > self._announced',
        'b"\\0" if registered > self._announced',
        "formats/test_scored.py::test_who_registered_after_the_announcement_wins_no_tie",
    ),
    Bug(
        "a transcript may say that a late one was there",
        "formats/transcript.py",
        "registered.get(bid.bidder, bid.registered) != bid.registered",
        "False",
        "formats/test_transcript.py::test_who_is_said_to_have_come_earlier_is_found",
    ),
    Bug(
        "a shortfall that both have stated is nobody's",
        "model/agreement.py",
        'if provider == recipient == "finished":',
        "if False:",
        "market/test_evidence.py::test_a_shortfall_that_both_have_stated_counts_without_receipts",
    ),
    Bug(
        "who never serves weighs nothing",
        "model/agreement.py",
        'if not provider and recipient in ("finished", "blaming"):',
        "if False:",
        "market/test_evidence.py::test_who_leaves_or_says_nothing_weighs_what_it_did_not_serve",
    ),
    Bug(
        "an early finish waits for an answer to a reproach",
        "model/closing.py",
        "and provider.figure == recipient.figure\n\n\ndef endings",
        "and provider.figure == recipient.figure and {provider.ending, recipient.ending} != "
        '{"finished", "blaming"}\n\n\ndef endings',
        "model/test_closing.py::test_equal_figures_are_taken_as_they_are",
    ),
    Bug(
        "what was held for fail-over stays held",
        "moderator/rules/failing_over.py",
        "kept = min(agreement.recipient_held, agreement.own_hold)",
        "kept = agreement.recipient_held",
        "market/test_stopping.py::test_a_recipient_that_blames_can_stop_fail_over",
    ),
    Bug(
        "an offer holds no capacity",
        "moderator/rules/at_once.py",
        "rate_bps=offer.rate_bps_max,\n        from_ms",
        "rate_bps=1,\n        from_ms",
        "market/test_standing_offers.py::test_money_and_capacity_are_held_while_it_stands",
    ),
    Bug(
        "what is awarded out of an offer does not leave less of it",
        "moderator/rules/at_once.py",
        "used.peak_bps(starts_ms, ends_ms) > most_bps",
        "False",
        "market/test_standing_offers.py::test_a_spot_award_takes_of_what_the_offer_holds_and_of_nothing_else",
    ),
    Bug(
        "a recipient says what offer its block comes of",
        "moderator/rules/announcing.py",
        'parent="", offer="", state="free"',
        'parent="", state="free"',
        "market/test_standing_offers.py::test_nobody_says_of_its_own_block_that_it_comes_of_an_offer",
    ),
    Bug(
        "a bid that holds nothing binds nobody",
        "moderator/draft.py",
        "return [one for one in last.values() if not one.withdrawn]",
        "return [one for one in last.values() if one.held]",
        "moderator/test_admission.py::test_a_bid_binds_also_where_it_holds_nothing",
    ),
    Bug(
        "a commitment is revealed after a ban",
        "moderator/rules/bidding.py",
        "if committed.withdrawn:",
        "if False:",
        "moderator/test_admission.py::test_a_commitment_of_who_was_banned_is_revealed_no_more",
    ),
    Bug(
        "the price follows a bid that was withdrawn",
        "moderator/rules/bidding.py",
        "if gone and before is not None and before.leader is not None:",
        "if False:",
        "moderator/test_admission.py::test_in_the_open_a_banned_leader_binds_nobody",
    ),
    Bug(
        "a leader that cannot win binds later bids",
        "moderator/rules/bidding.py",
        "if before.leader is not None and admission.why_excluded(draft, record, before.leader.bidder):",
        "if False:",
        "moderator/test_admission.py::test_in_the_open_a_leader_with_a_debt_binds_no_later_bid",
    ),
    Bug(
        "who leads after a ban need not have the capacity",
        "moderator/rules/bidding.py",
        "if not leader or record.block is None or draft.has_room(draft.party(leader), record.block):",
        "if True:",
        "moderator/test_admission.py::test_who_leads_after_a_ban_has_the_capacity_for_it",
    ),
    Bug(
        "nobody is kept out while the clock is in doubt",
        "moderator/core.py",
        ', "revoke_token", "ban"}',
        "}",
        "moderator/test_clock.py::test_the_operator_keeps_out_who_does_harm_also_while_the_clock_is_in_doubt",
    ),
    Bug(
        "what fails is tried at once again",
        "moderator/rules/due.py",
        "return known is not None and known.next_ms > 0 and known.due_ms == due_ms",
        "return False",
        "moderator/test_overdue.py::test_what_is_loaded_anew_is_not_tried_before_its_time",
    ),
    Bug(
        "what fails is never tried again",
        "moderator/state.py",
        'heapq.heappush(self.due, (new.next_ms, "overdue", new.id))',
        "pass",
        "moderator/test_overdue.py::test_a_deadline_that_fails_hurts_its_own_agreement_alone",
    ),
    Bug(
        "any amount comes in",
        "moderator/rules/parties.py",
        "    holds.check_room(draft, amount)\n",
        "",
        "moderator/test_overdue.py::test_all_the_money_of_a_market_is_bounded",
    ),
    Bug(
        "what is no HTTP is refused in another shape",
        "web/application.py",
        "return _Connection(self, loop",
        "return web.RequestHandler(self, loop",
        "web/test_serve.py::test_every_refusal_has_the_shape_of_the_others",
    ),
    Bug(
        "a name that was put away is free again",
        "moderator/retiring.py",
        "        state.names_used.add(name_digest(kind, name))\n",
        "        pass\n",
        "market/test_memory.py::test_a_name_is_never_given_to_a_second_thing",
    ),
    Bug(
        "a saved state forgets the names that were put away",
        "moderator/saved.py",
        "    state.names_used = set(head.names_used)\n",
        "",
        "market/test_memory.py::test_a_name_is_never_given_to_a_second_thing",
    ),
    Bug(
        "any party sees the prices of any auction",
        "web/rights.py",
        "if asked.caller.party not in asked.market.took_part(asked.about):",
        "if False:",
        "web/test_who_sees.py::test_sealed_bids_are_seen_by_who_took_part_and_after_the_close",
    ),
    Bug(
        "an auction shows its award to any party",
        "web/rights.py",
        "return msgspec.structs.replace(answer, award=None)",
        "pass",
        "web/test_who_sees.py::test_sealed_bids_are_seen_by_who_took_part_and_after_the_close",
    ),
    Bug(
        "sealed bids are open to any party after the close",
        "moderator/rules/bidding.py",
        "is_over and reader in took_part(draft.state, record)",
        "is_over",
        "web/test_who_sees.py::test_sealed_bids_are_seen_by_who_took_part_and_after_the_close",
    ),
    Bug(
        "who stands by for nothing sees the agreement",
        "moderator/queries.py",
        "            if not record.announcement.fail_over:\n                return ()\n",
        "",
        "web/test_who_sees.py::test_sealed_bids_are_seen_by_who_took_part_and_after_the_close",
    ),
    Bug(
        "a journal with less in its rules is opened",
        "moderator/upgrade.py",
        "if rules.format <= FORMAT and msgspec.json.encode(rules) != bytes(raw):",
        "if False:",
        "storage/test_rules_kept.py::test_a_journal_of_a_version_in_development_is_refused_in_one_line",
    ),
    Bug(
        "a ruling gives back more than is held",
        "moderator/rules/ending.py",
        "back = min(settled_back(settlement), max(0, agreement.recipient_held - to_capture(settlement)))",
        "back = settled_back(settlement)",
        "market/test_simulation.py::test_what_once_went_wrong_goes_well",
    ),
    Bug(
        "what a part is still to be awarded of is put away",
        "moderator/retiring.py",
        'if any(state.records["auction"][auction].prime == name for auction in state.alive["auction"]):',
        "if False:",
        "market/test_simulation.py::test_what_once_went_wrong_goes_well",
    ),
    Bug(
        "a jump of the clock is taken for time",
        "moderator/clock.py",
        "if self.has_jumped or (reading_ms != expected_ms and has_jumped(expected_ms, reading_ms)):",
        "if self.has_jumped:",
        "moderator/test_clock.py::test_nothing_is_decided_by_a_clock_that_has_jumped",
    ),
    Bug(
        "time goes on while the clock is in doubt",
        "moderator/core.py",
        "            return self._state.at_ms\n        if self._time.has_jumped",
        "            return now_ms\n        if self._time.has_jumped",
        "moderator/test_clock.py::test_doubt_is_in_the_journal_and_no_start_forgets_it",
    ),
    Bug(
        "a restart makes the clock right",
        "moderator/state.py",
        "self.is_clock_in_doubt = not new.is_trusted",
        "pass",
        "moderator/test_clock.py::test_doubt_is_in_the_journal_and_no_start_forgets_it",
    ),
    Bug(
        "what was committed is lost while the market is away",
        "moderator/rules/due.py",
        "if draft.state.back_ms and due_ms == reveal_until_ms",
        "if False and due_ms == reveal_until_ms",
        "moderator/test_clock.py::test_a_commitment_is_not_lost_while_the_market_is_away",
    ),
    Bug(
        "new names start at the prior whatever the records are",
        "moderator/reputation.py",
        "found.append(bound if bound < lower_ppm(*prior, rules.z_squared) else PPM)",
        "found.append(PPM)",
        "market/test_newcomers.py::test_a_new_name_starts_no_higher_than_a_tenth_of_the_money_was_served",
    ),
    Bug(
        "where new names start changes after the announcement",
        "moderator/rules/opinions.py",
        "record.announced_ms, start)",
        "record.announced_ms, draft.state.reputation.start(service, draft.at_ms))",
        "market/test_newcomers.py::test_the_announcement_says_where_they_start_and_later_deals_change_nothing_of_it",
    ),
    Bug(
        "the journal's reader takes any start of new names",
        "moderator/invariants.py",
        "if said != state.reputation.start(of, entry.at_ms):",
        "if False:",
        "market/test_newcomers.py::test_an_announcement_that_says_otherwise_is_found_by_who_reads_the_journal",
    ),
    Bug(
        "insured quality costs nothing",
        "model/closing.py",
        "left = case.insured - by_own_word",
        "left = 0",
        "market/test_newcomers.py::test_what_is_insured_pays_for_what_is_not_delivered",
    ),
    Bug(
        "who denies keeps what it has insured",
        "model/closing.py",
        'pays = min(left, case.undelivered(lower))\n            gets = pays if target == "nobody"',
        'pays = min(left, case.undelivered(lower)) if target != "nobody" else 0\n'
        '            gets = pays if target == "nobody"',
        "market/test_newcomers.py::test_to_deny_or_to_be_silent_costs_what_to_admit_costs",
    ),
    Bug(
        "insured quality is not held",
        "moderator/rules/holds.py",
        "amounts_of(draft, announcement).delta + entry.insured",
        "amounts_of(draft, announcement).delta",
        "market/test_newcomers.py::test_who_insures_its_quality_is_ranked_by_it_and_that_verifies",
    ),
    Bug(
        "what is insured is no part of the bid",
        "model/bid.py",
        "more = (bid.insured,) if bid.insured else ()",
        "more = ()",
        "market/test_newcomers.py::test_who_insures_its_quality_is_ranked_by_it_and_that_verifies",
    ),
    Bug(
        "a deal's weight is public to the unit",
        "moderator/reputation.py",
        "weight_eighths=public_eighths(weight_of(self._value(deal), self.rules)),",
        "weight_eighths=self._value(deal),",
        "attacks/test_taker.py::test_of_others_deals_a_weight_in_eighths_is_public_and_no_price",
    ),
    Bug(
        "prices of others' auctions are shown",
        "moderator/overview.py",
        "if party and party not in bidding.took_part(state, one):",
        "if False:",
        "attacks/test_taker.py::test_of_others_deals_a_weight_in_eighths_is_public_and_no_price",
    ),
    Bug(
        "the taker may be a party",
        "moderator/rules/parties.py",
        "if rules.taker and draft.state.sharing.get(rules.taker):",
        "if False:",
        "attacks/test_taker.py::test_the_taker_is_no_party_and_stands_behind_none",
    ),
    Bug(
        "a party may be the taker",
        "moderator/rules/parties.py",
        "if config.taker and config.taker in names:",
        "if False:",
        "attacks/test_taker.py::test_the_taker_is_no_party_and_stands_behind_none",
    ),
    Bug(
        "a request is sent before it is stored",
        "moderator/payments.py",
        "            if self.sends_outside:\n                raise ToBeSent(request)\n",
        "",
        "payment/test_order.py::test_awaited",
    ),
    Bug(
        "a group sends what is not stored",
        "moderator/payments.py",
        "if self._grouped and not self.sends_outside:",
        "if False:",
        "payment/test_order.py::test_within_a_group_nothing_is_sent",
    ),
    Bug(
        "auctions are kept for ever",
        "moderator/retiring.py",
        '"auction": _auction,',
        '"auction": lambda *_: [],',
        "market/test_memory.py::test_it_stays_the_same_however_many_deals_there_were",
    ),
    Bug(
        "what is owed is forgotten with its agreement",
        "moderator/retiring.py",
        "if one.debt or one.auction",
        "if one.auction",
        "market/test_memory.py::test_what_is_owed_is_kept_until_it_is_paid",
    ),
    Bug(
        "a history that is counted anew forgets the sums of before",
        "moderator/reputation.py",
        "opinions, evidence = self._base.get((party, service), (EMPTY, EMPTY))",
        "opinions, evidence = EMPTY, EMPTY",
        "market/test_memory.py::test_ratings_are_what_they_would_be_if_nothing_was_put_away",
    ),
    Bug(
        "pairs begin anew where a history is counted anew",
        "moderator/reputation.py",
        "                if name in self._base_pairs:\n",
        "                if False:\n",
        "market/test_memory.py::test_ratings_are_what_they_would_be_if_nothing_was_put_away",
    ),
    Bug(
        "a timeline forgets what is to come",
        "model/block.py",
        "del self._times[0][:step], self._levels[0][:step]",
        "del self._times[0][: step + 1], self._levels[0][: step + 1]",
        "market/test_memory.py::test_a_timeline_forgets_what_is_over_and_nothing_else",
    ),
    Bug(
        "the first bid of a bidder counts",
        "model/award.py",
        "{bid.bidder: bid for bid in ordered}",
        "{bid.bidder: bid for bid in reversed(list(ordered))}",
        "formats/test_reference.py::test_winners_and_prices_are_the_references",
    ),
    Bug(
        "other currencies are taken",
        "model/award.py",
        "if bid.currency != currency:",
        "if False:",
        "formats/test_scored.py::test_bids_that_do_not_belong_are_refused",
    ),
    Bug(
        "the mean ranks",
        "model/bid.py",
        "opinion_ppm, evidence_ppm = rating.lower_ppm, rating",
        "opinion_ppm, evidence_ppm = rating.mean_ppm, rating",
        "model/test_bid.py::test_quality_is_worth_its_lower_bounds_and_nothing_for_a_stranger",
    ),
    Bug(
        "the commitment forgets the salt",
        "model/bid.py",
        "bid.limit, bid.salt)\n",
        "bid.limit)\n",
        "model/test_bid.py::test_commitment_binds_what_the_bidder_chose_and_no_more",
    ),
    Bug(
        "True is an amount",
        "model/money.py",
        "    if type(value) is int and 0 <= value <= AMOUNT_MAX:",
        "    if isinstance(value, int) and 0 <= value <= AMOUNT_MAX:",
        "model/test_money.py::test_amounts_that_are_refused",
    ),
    Bug(
        "the remainder goes to the smallest rests",
        "model/money.py",
        "(-(total * weights[i] % weight_sum), i)",
        "(total * weights[i] % weight_sum, i)",
        "model/test_money.py::test_split_is_exact_fair_and_as_by_hand",
    ),
    Bug(
        "a part that lost sets no uniform price",
        "formats/uniform_price.py",
        "units < row[2].quantity",
        "units == 0",
        "formats/test_uniform_price.py::test_units_and_price_are_as_sold_one_by_one",
    ),
    Bug(
        "units are served twice",
        "formats/uniform_price.py",
        "left -= units",
        "left -= 1",
        "formats/test_uniform_price.py::test_units_and_price_are_as_sold_one_by_one",
    ),
    Bug(
        "an equal limit takes the lead",
        "formats/open_bidding.py",
        "if limit > leaders_limit:",
        "if limit >= leaders_limit:",
        "formats/test_open_bidding.py::test_every_step_keeps_what_bidders_rely_on",
    ),
    Bug(
        "with fail-over nobody is a back-up",
        "formats/open_bidding.py",
        "        if announcement.fail_over:\n            return state\n",
        "",
        "formats/test_open_bidding.py::test_with_fail_over_a_bid_that_does_not_improve_is_a_back_up",
    ),
    Bug(
        "the proxy bids past its limit",
        "formats/open_bidding.py",
        "min(limit, max(leaders_limit + increment, offered))",
        "max(leaders_limit + increment, offered)",
        "formats/test_open_bidding.py::test_every_step_keeps_what_bidders_rely_on",
    ),
    Bug(
        "a bid at the close is in time",
        "formats/open_bidding.py",
        "if bid.placed_ms >= state.closes_ms:",
        "if bid.placed_ms > state.closes_ms:",
        "formats/test_open_bidding.py::test_soft_close_moves_a_stated_number_of_times",
    ),
    Bug(
        "the ramp does not wait for its step",
        "formats/dutch.py",
        "// ramp.step_ms * ramp.step",
        "* ramp.step // ramp.step_ms",
        "formats/test_dutch.py::test_first_to_accept_the_walked_price_wins_at_it",
    ),
    Bug(
        "an offer that is over is taken",
        "formats/spot.py",
        "offer.valid_until_ms > now_ms",
        "offer.valid_until_ms >= now_ms",
        "formats/test_spot.py::test_every_misfit_is_refused_with_its_reason",
    ),
    Bug(
        "an item is given twice",
        "formats/packages.py",
        "old[with_it ^ package.mask] + package.rank",
        "old[with_it] + package.rank",
        "formats/test_packages.py::test_the_choice_is_the_best_of_all_subsets",
    ),
    Bug(
        "VCG looks at the wrong items of the others",
        "formats/packages.py",
        "others_before + others_after[::-1]",
        "others_before + others_after",
        "formats/test_packages.py::test_prices_are_what_each_presence_changes_for_the_others",
    ),
    Bug(
        "another bid than the committed one is revealed",
        "formats/commit_reveal.py",
        "if commitment(bid) != handed_in.commitment:",
        "if False:",
        "formats/test_commit_reveal.py::test_bonds_are_lost_by_exactly_those_who_did_not_reveal",
    ),
    Bug(
        "the transcript may leave bids out",
        "formats/transcript.py",
        "if tuple(map(entry_of, ordered)) != transcript.entries:",
        "if False:",
        "formats/test_transcript.py::test_what_a_moderator_changes_is_found",
    ),
    Bug(
        "a full share is still paid for",
        "groups/sharing.py",
        "        left -= limits[i]\n",
        "",
        "groups/test_sharing.py::test_fill_is_max_min_fair_and_exact",
    ),
    Bug(
        "unused guarantees are not lent",
        "groups/sharing.py",
        "first = [min(share.guaranteed, limit) for",
        "first = [share.guaranteed for",
        "groups/test_sharing.py::test_recipients_get_guarantees_first_and_never_more_than_the_block",
    ),
    Bug(
        "who bids just its share leaves",
        "groups/sponsorship.py",
        "if bids[member] < share",
        "if bids[member] <= share",
        "groups/test_sponsorship.py::test_moulin_is_budget_balanced_and_nobody_pays_above_its_bid",
    ),
    Bug(
        "pledges that just suffice are refunded",
        "groups/sponsorship.py",
        "sum(held.values()) >= target",
        "sum(held.values()) > target",
        "groups/test_sponsorship.py::test_pledges_are_all_or_nothing_and_every_unit_comes_back_or_counts",
    ),
    Bug(
        "a friend's weight is not bounded",
        "model/weighing.py",
        "bound = pair_bound(known, rules)",
        "bound = known",
        "model/test_weighing.py::test_a_pair_grows_slower_than_in_proportion",
    ),
    Bug(
        "opinions show a millisecond late",
        "model/rating.py",
        "both or now_ms >= self.finished_ms",
        "both or now_ms > self.finished_ms",
        "model/test_rating.py::test_opinions_stay_hidden_until_both_are_in_or_14_days_have_passed",
    ),
    Bug(
        "the bound is the upper one",
        "model/rating.py",
        "z_squared // 2 - root)",
        "z_squared // 2 + root)",
        "model/test_rating.py::test_bound_is_below_the_mean_and_moves_the_right_way",
    ),
    Bug(
        "the idle are blamed",
        "model/receipt.py",
        "due = min(asked_bits, terms.bits_at(rate_bps, terms.length_ms(number)))",
        "due = terms.bits_at(rate_bps, terms.length_ms(number))",
        "model/test_receipt.py::test_what_intervals_earn",
    ),
    Bug(
        "an expired offer can be accepted",
        "groups/negotiation.py",
        "now_ms >= self.offers[-1].expires_ms",
        "now_ms > self.offers[-1].expires_ms",
        "groups/test_negotiation.py::test_deadlines_hold_to_the_millisecond",
    ),
    Bug(
        "small payments are lost",
        "model/circles.py",
        "if payer != payee and amount:",
        "if payer != payee and amount > 1:",
        "model/test_rating.py::test_circles_are_gone_and_balances_stay",
    ),
]


def run_tests(test: str, file: str, text: str, output: Path) -> tuple[int, str]:
    """The status and the output of pytest on one test, with that text in place of a file of the package."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            status = in_the_fork(test, file, text, output)
        finally:
            os._exit(status)
    ended = os.pidfd_open(child)
    try:
        if not select.select([ended], [], [], PATIENCE_S)[0]:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(ended)
    return status, output.read_text()


def in_the_fork(test: str, file: str, text: str, output: Path) -> int:
    with output.open("w", buffering=1) as told:
        for number, stream in ((1, "stdout"), (2, "stderr")):
            os.dup2(told.fileno(), number)
            setattr(sys, stream, told)
        os.environ["AUCTION_TEST_PROFILE"] = "planted"
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "/").is_relative_to(PACKAGE) or is_a_test(module):
                del sys.modules[name]
        plant(PACKAGE / file, text)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # to find them all takes longer than the test
        options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "pytest_timeout", "-p", HYPOTHESIS]
        return int(pytest.main([*options, str(TESTS / test)]))


def is_a_test(module: object) -> bool:
    return Path(getattr(module, "__file__", None) or "/").is_relative_to(TESTS.parent)


def plant(path: Path, text: str) -> None:
    """From here on this process imports `text` where it would import that file."""
    as_it_is = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, name: str) -> CodeType | None:
        if self.path == str(path):
            return compile(text, self.path, "exec", dont_inherit=True)
        return as_it_is(self, name)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every second bug, or with --all each."""
    if "bug" in metafunc.fixturenames:
        bugs = BUGS if metafunc.config.getoption("--all") else BUGS[::2]
        metafunc.parametrize("bug", bugs, ids=[bug.name for bug in bugs])


def test_each_can_be_planted_at_one_place() -> None:
    texts = {file: (PACKAGE / file).read_text() for file in {bug.file for bug in BUGS}}
    assert [bug.name for bug in BUGS if texts[bug.file].count(bug.right) != 1] == []


def test_a_planted_bug_is_found(bug: Bug, tmp_path: Path) -> None:
    text = (PACKAGE / bug.file).read_text()
    status, told = run_tests(bug.test, bug.file, text.replace(bug.right, bug.wrong), tmp_path / "told")
    # 1: tests ran and failed. Anything else (no test found, an import that breaks) would find nothing.
    assert status == 1, told
    assert " failed" in told
    assert "error" not in told.splitlines()[-1]


def test_without_a_bug_they_pass_and_the_text_is_what_is_tested(tmp_path: Path) -> None:
    text = (PACKAGE / "model/money.py").read_text()
    assert run_tests("model/test_money.py", "model/money.py", text, tmp_path / "told")[0] == 0
    wrong = "raise RuntimeError('the text is imported')\n"
    status, told = run_tests("model/test_money.py", "model/money.py", wrong, tmp_path / "told")
    assert status not in (0, 1)
    assert "the text is imported" in told
