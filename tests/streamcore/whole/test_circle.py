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
# Later fragments of pings. tcpdump counts 8 by 'icmp and ip[6:2] & 0x1fff != 0', and 8 by
# 'ip6[6] == 44 and ip6[42:2] & 0xfff8 != 0'. One is dropped where its first one ends a segment, and a run is cut into
# segments of 50 packets.
LATER = 16 * TIMES
ASKED = {"north": 300, "south": 380}
RESERVE = 900
BOND = 2_000


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


def packets(path):
    with open(path, "rb") as file:
        return [(when, bytes(packet)) for when, packet in dpkt.pcapng.Reader(file)]


def is_later_fragment(packet):
    """Of the two kinds of frame in the capture that hold one."""
    if packet[12:14] == b"\x08\x00":
        return bool(int.from_bytes(packet[20:22]) & 0x1FFF)
    return packet[12:14] == b"\x86\xdd" and packet[20] == 44 and bool(int.from_bytes(packet[56:58]) & 0xFFF8)


def without_later_fragments(found):
    return [(when, packet) for when, packet in found if not is_later_fragment(packet)]


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
    assert any(f"{winner} won it: it offered {ASKED[winner] / 100:,.2f}," in line for line in block["explanation"])


def test_the_first_is_won_by_the_cheaper_and_the_second_by_the_better(played):
    first, second = played["blocks"]
    assert first["auction"]["award"]["winners"][0]["bidder"] == "north"
    assert second["auction"]["award"]["winners"][0]["bidder"] == "south"
    assert {one["party"]: one.get("count", 0) for one in second["auction"]["ratings"]} == {"north": 1, "south": 1}
    for name in ASKED:
        before, after = first["ratings_before"][name], first["ratings_after"][name]
        assert after == second["ratings_before"][name]
        assert after["evidence_count"] == before["evidence_count"] + 1
        assert (after["evidence_mean_ppm"] > before["evidence_mean_ppm"]) == (name == "south")


def test_who_failed_half_way_is_replaced_at_the_runner_ups_own_price(played):
    block = played["blocks"][0]
    failed, rest = block["agreements"]
    assert (failed["provider"], rest["provider"], rest["of"]) == ("north", "south", failed["id"])
    window_ms = failed["ends_ms"] - failed["starts_ms"]
    left_ms = rest["ends_ms"] - rest["starts_ms"]
    assert (window_ms, rest["ends_ms"]) == (20_000, failed["ends_ms"])
    assert 0 < left_ms < window_ms
    assert failed["price"] == block["auction"]["award"]["winners"][0]["price"]
    assert rest["price"] == ASKED["south"] * left_ms // window_ms
    assert (failed["provider_ending"], failed["recipient_ending"]) == ("leaving", "blaming")
    # Both prices lie within what was held of the reserve.
    assert failed["price"] + rest["price"] <= RESERVE
    reports = block["run"]["subcontracts"]
    assert [each["provider"] for each in reports] == ["north", "south"]
    assert reports[0]["failures"]
    assert not reports[1]["failures"]
    assert all(each["segments"] > 0 for each in reports)


def test_what_is_paid_follows_from_the_ends_to_the_unit(played):
    """Who leaves pays δ of what is undelivered to the other side; nothing goes to nobody, for the figures are equal."""
    spent, earned = 0, dict.fromkeys(ASKED, 0)
    for block in played["blocks"]:
        for agreement, invoice in zip(block["agreements"], block["invoices"], strict=True):
            paid, provider = agreement["paid"], agreement["provider"]
            share = (agreement["price"] - paid) // 10
            said = [agreement[f"{side}_says"]["figure"] for side in ("provider", "recipient")]
            assert (agreement["state"], said, agreement.get("burnt", 0)) == ("settled", [paid, paid], 0)
            assert 0 < paid < agreement["price"]
            if agreement["provider_ending"] == "leaving":
                assert agreement["charged"] == paid
                spent, earned[provider] = spent + paid - share, earned[provider] + paid - share
            else:
                assert agreement["recipient_ending"] == "leaving"
                assert agreement["charged"] == paid + share
                spent, earned[provider] = spent + paid + share, earned[provider] + paid + share
            assert invoice["balance"] == agreement["charged"]
        assert block["balances"]["harbour-clinic"] == 10_000 - spent
        for name, amount in earned.items():
            assert block["balances"][name] + block["bonds"][name] == 5_000 + amount
    assert spent == sum(earned.values()) > 0


def test_what_is_earned_is_the_share_of_the_block_that_was_served(block):
    for agreement in block["agreements"]:
        window_ms = agreement["ends_ms"] - agreement["starts_ms"]
        served_ms = agreement["ended_ms"] - agreement["starts_ms"]
        assert agreement["paid"] <= agreement["price"] * served_ms // window_ms


def test_both_sides_rate_and_the_ratings_follow_their_rules(block):
    assert len(block["opinions"]) == 2 * len(block["agreements"])
    for agreement in block["agreements"]:
        about = [each for each in block["opinions"] if each["agreement"] == agreement["id"]]
        service, payment = sorted(about, key=lambda each: each["kind"], reverse=True)
        provider = agreement["provider"]
        assert (service["rater"], service["ratee"], service["device"]) == ("harbour-clinic", provider, "desk")
        assert (payment["rater"], payment["ratee"], payment["satisfied"]) == (provider, "harbour-clinic", True)
        # Who failed has not earned 80 %; who served until the clinic left has earned all that it could.
        assert service["satisfied"] == (provider == "south")


def test_every_packet_comes_out_once_and_is_accounted_for(block):
    run = block["run"]
    counts = run["packets"]
    lost = counts["dropped"].get("service.first_fragment_elsewhere", 0)
    assert (counts["read"], counts["written"], run["exit_status"]) == (PACKETS, PACKETS - lost, 0)
    assert counts["dropped"] == ({"service.first_fragment_elsewhere": lost} if lost else {})
    assert lost <= LATER
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
    assert sum(is_later_fragment(packet) for _, packet in expected) == LATER
    for block in played["blocks"]:
        assert without_later_fragments(packets(block["output"])) == without_later_fragments(expected)


def test_the_market_verifies_and_the_words_carry_the_figures(played):
    assert played["found"] == []
    told = "\n".join(played["told"])
    for block in played["blocks"]:
        for agreement in block["agreements"]:
            assert f"{agreement['id']} with {agreement['provider']}, price {agreement['price'] / 100:.2f}" in told
            assert f"charged: {agreement['charged'] / 100:.2f} EUR" in told
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
