"""Explains an award in words: the winner and the reason, the second, and what each loser would have needed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from auction.formats import FORMATS
from auction.model.award import Award, Standing, Winning
from auction.model.money import as_decimal


def explain(award: Award, excluded: Iterable[tuple[str, str]] = ()) -> str:
    """Explains in words and numbers how the award came about: winner, price rule, second, and what each loser needed.
    Amounts have the decimals of the currency. `excluded` are bids that were not considered, with the reason."""
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
            offered, score = (as_decimal(one, award.currency, ",") for one in (second.offered, second.score))
            lines.append(f"Second was {second.bid} of {second.bidder} at {offered}, score {score}.")
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
    words = f"Amounts are in {award.currency}; the reserve is {side} {as_decimal(award.reserve, award.currency, ',')}."
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
    amounts = (standing.offered, standing.quality, standing.score, winning.price)
    offered, quality, score, price = (as_decimal(one, award.currency, ",") for one in amounts)
    words = (
        f"{winning.bid} of {winning.bidder} won {what}: it offered {offered}, its quality is worth {quality}, "
        f"its score is {score}; it {verb} {price}"
    )
    if award.unit_price is not None:
        words += f" ({as_decimal(award.unit_price, award.currency, ',')} a unit)"
    return words + "."


def _why_it_lost(award: Award, standing: Standing) -> str:
    offered, score = (as_decimal(one, award.currency, ",") for one in (standing.offered, standing.score))
    words = f"{standing.bid} of {standing.bidder} offered {offered}, score {score}: "
    if standing.outcome == "not_considered":
        return words + "not considered, since this auction was drawn for newcomers."
    if standing.outcome == "refused":
        return words + f"refused, {_reason(standing)}."
    words += "beyond the reserve; " if standing.outcome == "beyond_reserve" else ""
    if standing.needed is None:
        return words + (_reason(standing) or "no price would have won") + "."
    side = "or less" if award.direction == "provide" else "or more"
    return words + f"{as_decimal(standing.needed, award.currency, ',')} {side} would have won."


def _reason(standing: Standing) -> str:
    """The format's reason. It is part of the award, which has a digest, so its amounts stay in minor units."""
    return standing.why + (" (in minor units)" if re.search(r"\b[0-9]+\b", standing.why) else "")
