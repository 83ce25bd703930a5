"""What a service reports, in lines for people."""

from streamcore.core.counters import Counters
from streamcore.run.accounting import Accounting
from streamcore.run.summaries import in_words

SUMMARY = {
    "packets": 2_000,
    "exact": True,
    "window_ms": None,
    "protocols": {"tcp": {"packets": 1_500, "bytes": 90_000}, "udp": {"packets": 500, "bytes": 30_000}},
    "top": [{"addresses": ["10.0.0.1", "10.0.0.2"], "packets": number} for number in range(12)],
}


def test_figures_tables_and_lists():
    lines = in_words("count", SUMMARY)
    assert lines[:5] == [
        "  count: packets 2,000, exact yes",
        "    protocols",
        "      tcp: packets 1,500, bytes 90,000",
        "      udp: packets 500, bytes 30,000",
        "    top:",
    ]
    assert lines[5] == "      addresses 10.0.0.1 10.0.0.2, packets 0"
    assert lines[-1] == "      and 2 more (--json has them all)"
    assert len(lines) == 16


def test_times_are_shown_as_times():
    lines = in_words("count", {"bins": [{"start_ms": 1_700_000_000_500, "packets": 1}]})
    assert lines[-1] == "      start 2023-11-14 22:13:20.500, packets 1"  # date -u -d @1700000000.5


def test_they_stand_in_the_account():
    accounting = Accounting(Counters(), 1.0, (), services={"slice": {"packets_cut": 7}})
    assert accounting.text().splitlines()[1:] == ["  slice: packets cut 7"]
