"""Draws the tables of `auction watch`, once or repeatedly. It never writes: it polls a served market, and follows the
journal of a stored one."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from auction.model.errors import AuctionError, JournalBroken, WrongState
from auction.model.money import as_decimal
from auction.moderator.overview import AgreementGlance, AwardGlance, Overview, look
from auction.moderator.state import State
from auction.moderator.upgrade import apply_entry
from auction.storage.store import Store

EVERY_MS = 500
Look = Callable[[], Overview]
_currency = ContextVar("_currency", default="")  # the currency of the market on the screen


class Follower:
    """Follows the journal of a stored market, entry by entry, and returns an overview of it."""

    def __init__(self, store: Store, party: str, limit: int) -> None:
        self._store, self._party, self._limit = store, party, limit
        self._state = State()

    def __call__(self) -> Overview:
        state = self._state
        for entry in self._store.entries(state.sequence):
            if entry.sequence != state.sequence + 1:
                raise JournalBroken(f"the entry after {state.sequence} is missing")
            apply_entry(state, entry)
        state.people.add(self._store.personal(state.people.loaded_to))
        state.people.loaded_to = state.sequence
        if state.old is not None:
            raise WrongState("the market is of an older version: any step of it upgrades it (`auction market rules`)")
        return look(state, max(time.time_ns() // 1_000_000, state.at_ms), self._party, self._limit)


def show_live(look_again: Look, console: Console) -> None:
    """Draws until Ctrl-C. If the market does not answer, it keeps trying. Call it from the main thread."""
    is_enough = False

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal is_enough
        is_enough = True  # in case the exception is lost: Python only prints one raised in a finalizer
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
            while not is_enough:
                live.update(_drawn(look_again, console), refresh=True)
                time.sleep(EVERY_MS / 1000)
    finally:
        signal.signal(signal.SIGINT, before)


def _drawn(look_again: Look, console: Console) -> RenderableType:
    try:
        return draw(look_again(), console.width, console.height)
    except AuctionError as reason:
        return Text(f"{reason.code}: {reason}", style="red")


def draw(seen: Overview, width: int, height: int = 0) -> Group:
    """The four tables, with as many rows as fit in `height` (0: all)."""
    _currency.set(seen.currency)
    room = max(2, (height - 18) // 4) if height else max(len(seen.awards), len(seen.agreements), 1)
    now = datetime.fromtimestamp(seen.now_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return Group(
        Text(f"market at {now} UTC, entry {seen.sequence}, amounts in {seen.currency}", style="bold"),
        _auctions(seen, room, width),
        _awards(seen.awards[:room], width),
        _agreements(seen, room, width),
        _ratings(seen, room * 2, width),
    )


def _table(title: str, width: int, *columns: str) -> Table:
    """A column whose name ends with `>` is right-aligned."""
    wrapping = [name for name in columns if name in ("why", "ends", "remarks")]
    table = Table(title=title, title_justify="left", title_style="bold cyan", box=None, padding=(0, 1))
    table.width = width if wrapping else None
    for name in columns:
        justify: JustifyMethod = "right" if name.endswith(">") else "left"
        wraps = name in wrapping
        table.add_column(name.rstrip(">"), justify=justify, no_wrap=not wraps, ratio=1 if wraps else None)
    return table


def _auctions(seen: Overview, room: int, width: int) -> Table:
    columns = ("auction", "service", "asked by", "format", "rate>", "reserve>", "bids>", "closes in>")
    table = _table(f"Open auctions ({len(seen.auctions)})", width, *columns)
    for one in seen.auctions[:room]:
        left_ms = max(0, one.closes_ms - seen.now_ms)
        table.add_row(
            one.auction,
            one.service,
            one.announcer,
            one.format,
            _rate(one.rate_bps),
            _money(one.reserve),
            str(one.bid_count),
            f"{left_ms / 1000:.1f} s",
        )
    return table


def _awards(awards: tuple[AwardGlance, ...], width: int) -> Table:
    table = _table("Awards, and why", width, "auction", "service", "winner", "price>", "why")
    for one in awards:
        won = ", ".join(one.winners) or Text(one.state, style="red")
        table.add_row(one.auction, one.service, won, _money(one.price), _why(one))
    return table


def _why(award: AwardGlance) -> str:
    """The reasons, without the rule and the reserve, which are the same for every award of the format."""
    return " ".join(award.reasons[2:4]) if len(award.reasons) > 2 else " ".join(award.reasons)


def _agreements(seen: Overview, room: int, width: int) -> Table:
    columns = ("agreement", "service", "recipient", "state", "price>", "charged>", "window", "ends")
    table = _table("Agreements, and how they end", width, *columns)
    for one in seen.agreements[:room]:
        table.add_row(
            one.agreement,
            one.service,
            one.recipient,
            one.state,
            _money(one.price),
            _money(one.charged) if one.state == "settled" else "",
            _window(one, seen.now_ms),
            _ends(one),
        )
    return table


def _ends(one: AgreementGlance) -> Text:
    """The provider, the amount signed so far, both sides' statements, and the penalties."""
    words = one.provider
    if one.of:
        words += f" for the rest of {one.of}"
    if one.signed or one.shortfall:
        words += f", {_money(one.signed)} signed"
    if one.shortfall:
        words += f", {_money(one.shortfall)} short"
    words += "".join(
        f"; {side}: {said.ending}, {_money(said.figure)}"
        for side, said in (("it", one.provider_says), (one.recipient, one.recipient_says))
        if said is not None
    )
    for amount, what in ((one.burnt, "to nobody"), (one.refunded, "refunded"), (one.charged_back, "taken back")):
        words += f"; {_money(amount)} {what}" if amount else ""
    if one.debt:
        return Text(f"{words}; {_money(one.debt)} owed", style="red")
    is_well = one.state == "settled" and one.paid == one.price
    return Text(words, style="green" if is_well else "red" if one.burnt else "")


def _ratings(seen: Overview, room: int, width: int) -> Table:
    columns = ("party", "for", "opinions>", "mean>", "at least>", "measured>", "mean>", "silent>", "remarks")
    table = _table("Ratings", width, *columns)
    for one in seen.ratings[:room]:
        rating = one.rating
        table.add_row(
            rating.party,
            one.service or "paying",
            str(rating.count),
            _percent(rating.mean_ppm),
            _percent(rating.lower_ppm),
            str(rating.evidence_count),
            _percent(rating.evidence_mean_ppm),
            _percent(rating.silence_ppm),
            " | ".join(rating.remarks) + (" (newcomer)" if rating.newcomer and one.service else ""),
        )
    return table


def _window(one: AgreementGlance, now_ms: int) -> str:
    if now_ms < one.starts_ms:
        return f"in {(one.starts_ms - now_ms) / 1000:.0f} s"
    if now_ms >= one.ends_ms:
        return "over"
    return f"{(one.ends_ms - now_ms) / 1000:.0f} s left"


def _money(amount: int) -> str:
    return as_decimal(amount, _currency.get(), ",")


def _percent(ppm: int) -> str:
    return f"{ppm / 10_000:.1f}%"


def _rate(bps: int) -> str:
    for size, unit in ((10**9, "Gbit/s"), (10**6, "Mbit/s"), (10**3, "kbit/s")):
        if bps >= size:
            return f"{bps / size:g} {unit}"
    return f"{bps} bit/s"
