"""The end of a run while the market is still being asked: whatever it gives then is settled, and nothing stays open."""

import threading

from streamcore.core.market_keys import Subcontract
from streamcore.subcontract.allocator import Fixed
from streamcore.subcontract.broker import Broker
from streamcore.subcontract.contract import Wanted


class Slow(Fixed):
    """Answers `replace` and `renew` only when it is let go on; notes what was settled."""

    def __init__(self, providers):
        super().__init__(providers)
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.settled = []

    def replace(self, placement, reason, report):
        self.asked.set()
        assert self.go_on.wait(10)
        return super().replace(placement, reason, report)

    def renew(self, placement, starts_ms, ends_ms):
        following = super().renew(placement, starts_ms, ends_ms)
        self.asked.set()
        assert self.go_on.wait(10)
        return following

    def report(self, placement, report):
        self.settled.append((placement.agreement, placement.provider, len(report.intervals) > 0))
        return super().report(placement, report)


def broker_of(allocator, **more):
    told = Subcontract(price_max=100, minimum_bps=1000, **more)
    return Broker([Wanted(0, "voice", told, "identity", ["identity"], True, True)], allocator, 1000)


def closed(broker, allocator):
    """Closes while an answer is under way, which comes then."""
    assert allocator.asked.wait(10)
    closing = threading.Thread(target=broker.close)
    closing.start()
    while not broker._closing:
        pass
    allocator.go_on.set()
    closing.join(20)
    assert not closing.is_alive()


def named(broker):
    """What the account says was agreed: also what was left without a packet, because it costs money."""
    return sorted((each["agreement"], each["provider"], each["failures"]) for each in broker.account())


def test_who_takes_over_when_the_run_is_over_is_settled():
    allocator = Slow([("north", "n" * 40), ("south", "s" * 40)])
    broker = broker_of(allocator)
    broker.start()
    broker.failed("n" * 40, "died")
    closed(broker, allocator)
    assert [each[:2] for each in allocator.settled] == [("fixed-1", "south")]
    assert named(broker) == [("fixed-1", "north", ["died"]), ("fixed-1", "south", [])]


def test_the_next_block_is_settled_where_the_run_is_over_before_it():
    allocator = Slow([("north", "n" * 40)])
    allocator.go_on.set()
    broker = broker_of(allocator, block_ms=1000)
    broker.start()
    assert allocator.asked.wait(10)  # the next block, at 0.7 of this one
    while broker._contracts[0].following is None:
        pass
    broker.close()
    assert sorted(allocator.settled)[0][:2] == ("fixed-1", "north")
    assert ("fixed-2", "north", False) in allocator.settled
    assert named(broker) == [("fixed-1", "north", []), ("fixed-2", "north", [])]


def test_the_next_block_that_comes_when_the_run_is_over_is_settled():
    allocator = Slow([("north", "n" * 40)])
    broker = broker_of(allocator, block_ms=1000)
    broker.start()
    closed(broker, allocator)
    assert ("fixed-2", "north", False) in allocator.settled
    assert ("fixed-2", "north", []) in named(broker)
