"""Makes the broker of a run. Its allocator is the market, unless the caller gives another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamcore.core.config import Config
from streamcore.core.errors import UsageError

if TYPE_CHECKING:
    from streamcore.subcontract.allocator import Allocator
    from streamcore.subcontract.broker import Broker
    from streamcore.subcontract.contract import Wanted


def make_broker(config: Config, wanted: list[Wanted], allocator: Allocator | None) -> Broker | None:
    """The broker for the streams that may be subcontracted; None if there are none. Raises UsageError, MarketError."""
    if not wanted:
        return None
    from streamcore.subcontract.broker import Broker  # only here: it costs start-up time

    if allocator is None:
        if config.market is None:
            raise UsageError(f"stream {wanted[0].name}: subcontract needs a market to ask, as [market] with its url")
        from streamcore.subcontract.served import connect  # and so does the auction

        allocator = connect(config.market, config.listen, config.key)
    return Broker(wanted, allocator, config.lease_ms)
