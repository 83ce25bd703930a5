"""Explains an award in words: the winner and the reason, the second, and what each loser would have needed. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from auction.formats import FORMATS
from auction.model.award import Award, Standing, Winning


def explain(award: Award, excluded: Iterable[tuple[str, str]] = ()) -> str:
    """Explains in words and numbers how the award came about: winner, price rule, second, and what each loser needed.
    `excluded` are bids that were not considered, with the reason."""
    lines = [f"Auction {award.auction} ({award.format}): {_rule_of(award)}."]
    lines.append(_conditions(award))
    standing_of = {standing.bid: standing for standing in award.standings}
    if award.failed:
        lines.append("No award: no bid was within the reserve.")
    for winning in award.winners:
        lines.append(_why_it_won(award, winning, standing_of[winning.bid]))
    runners_up = award.runners_up
    if not award.failed:
        if runners_up:
            second = runners_up[0]
            lines.append(f"Second was {second.bid} of {second.bidder} at {second.offered}, score {second.score}.")
        else:
            lines.append("There was no second bid within the reserve.")
    lines.extend(_why_it_lost(award, standing) for standing in award.standings if standing.outcome != "won")
    lines.extend(f"{bid} was not considered: {why}." for bid, why in excluded)
    return "\n".join(lines)


def _rule_of(award: Award) -> str:
    known = FORMATS.get(award.format)
    return known.words if known is not None else "a format that this version does not know"


def _conditions(award: Award) -> str:
    side = "at most" if award.direction == "provide" else "at least"
    words = f"Amounts are minor units of {award.currency}; the reserve is {side} {award.reserve}."
    if award.newcomers_only:
        words += " The seed drew this auction for newcomers, so only they were considered."
    if award.tie_drawn:
        words += " A tie was broken by the lowest hash of seed, auction and party."
        words += " Who registered after the announcement came last in it." if award.late else ""
    if award.gap_ppm:
        words += f" The choice is within {award.gap_ppm} millionths of the best possible value."
    return words


def _why_it_won(award: Award, winning: Winning, standing: Standing) -> str:
    what = f"{winning.quantity} units" if winning.quantity != 1 else "it"
    if winning.items:
        what = " + ".join(winning.items)
    verb = "is paid" if award.direction == "provide" else "pays"
    words = (
        f"{winning.bid} of {winning.bidder} won {what}: it offered {standing.offered}, its quality is worth "
        f"{standing.quality}, its score is {standing.score}; it {verb} {winning.price}"
    )
    return words + (f" ({award.unit_price} a unit)." if award.unit_price is not None else ".")


def _why_it_lost(award: Award, standing: Standing) -> str:
    words = f"{standing.bid} of {standing.bidder} offered {standing.offered}, score {standing.score}: "
    if standing.outcome == "not_considered":
        return words + "not considered, since this auction was drawn for newcomers."
    if standing.outcome == "refused":
        return words + f"refused, {standing.why}."
    words += "beyond the reserve; " if standing.outcome == "beyond_reserve" else ""
    if standing.needed is None:
        return words + (standing.why or "no price would have won") + "."
    side = "or less" if award.direction == "provide" else "or more"
    return words + f"{standing.needed} {side} would have won."
