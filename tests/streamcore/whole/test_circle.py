"""The demonstration with the market, figure by figure: announced, bid, awarded, failed over, audited, charged, rated,
and the next auction decided by it. What came out is compared with a run that knew no market.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import dpkt
import pytest

pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")

TIMES = 3  # the shipped capture, of which tshark says 2,846 packets, 1,870 of them UDP
PACKETS, CALLS = 2846 * TIMES, 1870 * TIMES
ASKED = {"north": 300, "south": 380}
RESERVE = 600


def command(*words):
    done = subprocess.run([sys.executable, "-m", "streamcore", *words], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    place = tmp_path_factory.mktemp("circle")
    return json.loads(command("demo", "--market", "--json", "--output", str(place))) | {"place": place}


@pytest.fixture(params=[0, 1], ids=["first", "second"])
def block(request, played):
    return played["blocks"][request.param]


def owed(leg):
    return leg["price"] * leg.get("delivered_ppm", 0) // 1_000_000


def packets(path):
    with open(path, "rb") as file:
        return [(when, bytes(packet)) for when, packet in dpkt.pcapng.Reader(file)]


def test_the_award_follows_from_bids_and_ratings_by_the_stated_rule(block):
    award = block["auction"]["award"]
    shown = {one["party"]: one for one in block["auction"]["ratings"]}
    scores = {}
    for standing in award["standings"]:
        rating = shown[standing["bidder"]]
        quality = sum(RESERVE * rating[name] // 1_000_000 for name in ("lower_ppm", "evidence_lower_ppm"))
        assert (standing["offered"], standing["quality"]) == (ASKED[standing["bidder"]], quality)
        scores[standing["bidder"]] = (quality - standing["offered"], quality)
    (winner, (_, quality)), (_, (second, _)) = sorted(scores.items(), key=lambda each: -each[1][0])
    (won,) = award["winners"]
    assert (won["bidder"], won["price"]) == (winner, min(RESERVE, quality - second))
    assert any(f"{winner} won it: it offered {ASKED[winner]}," in line for line in block["explanation"])


def test_the_first_is_won_by_the_cheaper_and_the_second_by_the_better(played):
    first, second = played["blocks"]
    assert first["auction"]["award"]["winners"][0]["bidder"] == "north"
    assert second["auction"]["award"]["winners"][0]["bidder"] == "south"
    assert {one["party"]: one.get("count", 0) for one in second["auction"]["ratings"]} == {"north": 0, "south": 1}
    for name in ASKED:
        before, after = first["ratings_before"][name], first["ratings_after"][name]
        assert after == second["ratings_before"][name]
        assert after["evidence_count"] == before["evidence_count"] + 1
        assert (after["evidence_mean_ppm"] > before["evidence_mean_ppm"]) == (name == "south")


def test_who_failed_half_way_is_replaced_and_each_is_paid_for_its_part(played):
    block = played["blocks"][0]
    agreement, award = block["agreement"], block["auction"]["award"]
    north, south = agreement["legs"]
    assert [(leg["provider"], leg.get("failed", False)) for leg in (north, south)] == [
        ("north", True),
        ("south", False),
    ]
    window_ms = agreement["ends_ms"] - agreement["starts_ms"]
    assert (window_ms, north["from_ms"], south["until_ms"]) == (20_000, agreement["starts_ms"], agreement["ends_ms"])
    assert north["until_ms"] == south["from_ms"]
    left_ms = south["until_ms"] - south["from_ms"]
    assert 0 < left_ms < window_ms
    price = award["winners"][0]["price"]
    assert south["price"] == min(price * left_ms // window_ms, ASKED["south"] * left_ms // window_ms)
    assert north["price"] == price - price * left_ms // window_ms
    reports = block["run"]["subcontracts"]
    assert [each["provider"] for each in reports] == ["north", "south"]
    assert reports[0]["failures"]
    assert not reports[1]["failures"]
    assert all(each["segments"] > 0 for each in reports)


def test_what_is_charged_is_the_price_in_proportion_to_delivery(played):
    spent, earned = 0, dict.fromkeys(ASKED, 0)
    for block in played["blocks"]:
        agreement = block["agreement"]
        assert (agreement["state"], agreement["charged"]) == ("charged", sum(map(owed, agreement["legs"])))
        assert block["invoice"]["balance"] == agreement["charged"]
        assert (
            sum(leg["price"] for leg in agreement["legs"])
            <= agreement["price"]
            == block["auction"]["award"]["winners"][0]["price"]
        )
        spent += agreement["charged"]
        for leg in agreement["legs"]:
            earned[leg["provider"]] += owed(leg)
        assert block["balances"] == {
            "harbour-clinic": 10_000 - spent,
            **{name: 5_000 - 2_000 + amount for name, amount in earned.items()},
        }
    assert spent > 0


def test_both_sides_rate_and_the_ratings_follow_their_rules(block):
    agreement = block["agreement"]
    service, payment = sorted(block["opinions"], key=lambda each: each["kind"], reverse=True)
    last = agreement["legs"][-1]
    wrong = sum(each["audits_failed"] for each in block["run"]["subcontracts"])
    assert (service["rater"], service["ratee"], service["device"]) == ("harbour-clinic", last["provider"], "desk")
    assert service["satisfied"] == (last["delivered_ppm"] >= 800_000 and not wrong)
    assert (payment["rater"], payment["ratee"], payment["satisfied"]) == (last["provider"], "harbour-clinic", True)
    assert service["evidence"] == [last["measurement"]]


def test_every_packet_comes_out_once_and_is_accounted_for(block):
    run = block["run"]
    assert (run["packets"]["read"], run["packets"]["written"], run["exit_status"]) == (PACKETS, PACKETS, 0)
    assert run["streams"]["calls"]["packets"]["selected"] == CALLS
    assert "market_errors" not in run
    assert "unbalanced" not in run
    by_providers = sum(each["bytes"] for each in run["subcontracts"])
    assert 0 < by_providers <= run["streams"]["calls"]["bytes"]["selected"]
    assert all(0 < each["audited"] <= each["segments"] and each["audits_failed"] == 0 for each in run["subcontracts"])


def test_the_second_stream_is_that_of_a_run_that_knew_no_market(played, tmp_path):
    told = tomllib.loads((played["place"] / "first.toml").read_text())
    alone = tmp_path / "alone.pcapng"
    command("run", "-q", "-r", told["read"], "-w", str(alone), "-n", "1", "--service", told["service"][0])
    expected = packets(alone)
    assert len(expected) == PACKETS
    assert packets(played["blocks"][0]["output"]) == expected
    assert packets(played["blocks"][1]["output"]) == expected


def test_the_market_verifies_and_the_words_carry_the_figures(played):
    assert played["found"] == []
    told = "\n".join(played["told"])
    for block in played["blocks"]:
        agreement = block["agreement"]
        assert f"charged: {agreement['charged'] / 100:.2f} of {agreement['price'] / 100:.2f} EUR" in told
        for each in block["run"]["subcontracts"]:
            assert f"{each['provider']} ran {each['segments']} segments of calls" in told
    assert "harbour-clinic rates south: satisfied" in told


def test_nothing_is_left_running(played):
    place = str(played["place"])
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert place not in process.read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
