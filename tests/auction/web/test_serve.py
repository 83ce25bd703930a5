"""A served market: the methods, answers and errors are the moderator's own, and each party acts for itself alone."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")

from markets import asked, awarded, market, settled
from serving import OPERATOR, served, start_process
from simulated_cards import Cards

from auction.command.cli import main
from auction.model import errors
from auction.model.block import Block
from auction.model.errors import AuctionError, BadToken, BadValue, Declined, KeyReused, NotAllowed, Unknown, Unreachable
from auction.model.party import token_hash
from auction.moderator import AuctionTerms, BidEntry, Moderator
from auction.moderator.clock import ManualClock
from auction.moderator.invariants import verify
from auction.storage.sql_store import SqlStore
from auction.web.client import MarketClient
from auction.web.wire import REQUEST_BYTES_MAX, decode_failure, encode_failure

SERVED = sorted(name for name, method in Moderator.methods.items() if method.is_served)
TERMS = AuctionTerms(receipts=False, reserve=1_000, open_for_ms=10_000)


class World:
    """A market that stands still, served, with a client for each party."""

    def __init__(self, url: str, moderator: Moderator, clock: ManualClock) -> None:
        self.url, self.moderator, self.clock = url, moderator, clock
        self.operator = MarketClient(url, OPERATOR)
        self.tokens = {}
        for name in ("rita", "p0", "p1", "p2", "phone"):
            # They registered before the market was served, and their tokens were not kept: they get others.
            token = f"token of {name}"
            record = msgspec.structs.replace(moderator.party(name), token_hash=token_hash(token))
            moderator._run("token", None, (), lambda draft, r=record: draft.put("party", r.id, r), None)
            self.tokens[name] = token

    def by(self, name: str) -> MarketClient:
        return MarketClient(self.url, self.tokens[name], retry_for_ms=0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    moderator, clock = market(SqlStore(f"sqlite:///{tmp_path / 'market.db'}"), processors={"card": Cards()})
    with served(moderator) as url:
        yield World(url, moderator, clock)


def test_a_whole_market_over_the_network_comes_to_what_it_comes_to_without(world: World) -> None:
    rita, clock, other = world.by("rita"), world.clock, market()
    played = []
    for recipient, bidders, _moderator, time_ in (
        (rita, [world.by(f"p{i}") for i in range(3)], world.moderator, clock),
        (other[0], [other[0]] * 3, other[0], other[1]),
    ):
        auction = recipient.announce("rita", asked(time_), TERMS).auction
        for number, price in enumerate((300, 200, 250)):
            bidders[number].bid(auction, BidEntry(f"p{number}", price))
        time_.advance(10_000)
        view = recipient.await_close(auction, wait_ms=5_000)
        (name,) = view.agreements
        time_.advance(120_000)
        recipient.end(name, "rita", "finished", 125)
        bidders[1].end(name, "p1", "finished", 125)
        recipient.rate(name, "rita", True, device="phone")
        bidders[1].rate(name, "p1", True)
        assert view.award is not None
        played.append(
            (
                view.award.winners[0].price,
                recipient.agreement(name).charged,
                bidders[1].balance("p1"),
                recipient.rating("p1", "anonymise"),
                [(one.kind, one.satisfied) for one in recipient.opinions(name)],
                recipient.explain(auction).replace(auction, "A").splitlines()[0].split(" ", 1)[1],
            )
        )
    assert played[0][:5] == played[1][:5]
    assert played[0][1] == 125
    store = world.moderator.store
    assert isinstance(store, SqlStore)
    assert verify(store) == []


def test_every_method_of_the_moderator_is_served_but_those_about_one_process() -> None:
    public = {name for name in dir(Moderator) if not name.startswith("_") and callable(getattr(Moderator, name))}
    assert set(SERVED) == public - {"group", "flush"}
    for name in SERVED:
        assert callable(getattr(MarketClient, name))
    assert not hasattr(MarketClient, "group")


def every_error() -> list[type[AuctionError]]:
    return [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, AuctionError)]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.code)
def test_errors_travel_as_what_they_are(kind: type[AuctionError]) -> None:
    raised = kind("why not")
    status, body = encode_failure(raised)
    came = decode_failure(body)
    assert (type(came), str(came), 400 <= status < 600) == (kind, "why not", True)
    if isinstance(raised, Declined):
        came = decode_failure(encode_failure(Declined("no", "insufficient_funds"))[1])
        assert isinstance(came, Declined)
        assert came.reason == "insufficient_funds"


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"error": 1}', b"<html>", b'{"error": "new", "message": ""}'])
def test_an_answer_that_is_no_error_of_ours_is_an_error_all_the_same(body: bytes) -> None:
    assert type(decode_failure(body)) is AuctionError


# What each may not: (who, what, why not). Every line is tried against a market in which it would otherwise succeed.
BLOCK = Block(id="", provider="", service="s", starts_ms=2**42, ends_ms=2**42 + 1, minimum_bps=1)
FORBIDDEN: list[tuple[str, str, dict[str, Any]]] = [
    ("p0", "bid", {"auction": "AUCTION", "entry": BidEntry("p1", 100)}),
    ("p0", "bids", {"auction": "AUCTION", "reader": "p1"}),
    ("p0", "announce", {"announcer": "rita", "block": BLOCK, "terms": TERMS}),
    ("phone", "announce", {"announcer": "rita", "block": BLOCK, "terms": TERMS}),
    ("p0", "deposit", {"party": "p0", "amount": 5, "currency": "EUR"}),
    ("p0", "withdraw", {"party": "p0", "amount": 5, "currency": "EUR"}),
    ("p0", "balance", {"party": "rita"}),
    ("p0", "post_bond", {"party": "p1", "amount": 0, "currency": "EUR"}),
    ("p0", "release_bond", {"party": "p1", "amount": 5, "currency": "EUR"}),
    ("p0", "register", {"party": "new", "kind": "provider"}),
    ("p0", "register", {"party": "new", "kind": "device", "belongs_to": "rita"}),
    ("p0", "publish_endpoint", {"party": "rita", "curve_key": "k" * 40, "address": "tcp://192.0.2.66:1"}),
    ("p0", "assignments", {"party": "p1"}),
    ("p0", "keep_warm", {"recipient": "rita", "offers": (), "until_ms": 1}),
    ("p0", "pay", {"auction": "AUCTION"}),
    ("p0", "withdraw_auction", {"auction": "AUCTION"}),
    ("p1", "end", {"agreement": "AGREEMENT", "party": "rita", "ending": "leaving", "figure": 250}),
    ("rita", "end", {"agreement": "AGREEMENT", "party": "p1", "ending": "leaving", "figure": 0}),
    ("p0", "end", {"agreement": "AGREEMENT", "party": "p0", "ending": "leaving", "figure": 0}),
    ("p0", "cost_of", {"agreement": "AGREEMENT", "party": "p1", "ending": "leaving", "figure": 0}),
    ("p0", "receipt_terms", {"agreement": "AGREEMENT"}),
    ("p0", "take_over", {"agreement": "AGREEMENT", "provider": "p2"}),
    ("p0", "arbitrate", {"agreement": "AGREEMENT", "arbiter": "rita", "to_provider": 1, "to_recipient": 1}),
    ("rita", "refund", {"agreement": "AGREEMENT", "amount": 1}),
    ("rita", "charge_back", {"agreement": "AGREEMENT", "amount": 1}),
    ("p1", "rate", {"agreement": "AGREEMENT", "rater": "rita", "satisfied": True, "device": "phone"}),
    ("rita", "rate", {"agreement": "AGREEMENT", "rater": "p1", "satisfied": True}),
    ("p0", "open_group", {"auction": "AUCTION", "organiser": "rita"}),
    ("p0", "announcer_of", {"auction": "AUCTION"}),
    ("p0", "stand_bys_of", {"agreement": "AGREEMENT"}),
    ("rita", "hold_auction", {"announcer": "rita", "block": BLOCK, "terms": TERMS, "entries": [BidEntry("p0", 1)]}),
    ("p3", "agreement", {"agreement": "AGREEMENT"}),
    ("rita", "resume_payments", {}),
]


@pytest.mark.parametrize(("who", "what", "named"), FORBIDDEN, ids=lambda one: one if isinstance(one, str) else "")
def test_nobody_acts_for_another(world: World, who: str, what: str, named: dict[str, Any]) -> None:
    if who == "p3":
        world.tokens["p3"] = world.operator.register("p3", "provider").token
    agreement = awarded(world.moderator, world.clock)
    auction = world.moderator.announce("rita", asked(world.clock), TERMS).auction
    names = {"AGREEMENT": agreement, "AUCTION": auction}
    named = {name: names.get(value, value) if isinstance(value, str) else value for name, value in named.items()}
    before = world.moderator.state.sequence
    if what == "refund":
        named["key"] = "r"
    with pytest.raises(NotAllowed) as caught:
        getattr(world.by(who), what)(**named)
    assert type(caught.value) is NotAllowed
    assert world.moderator.state.sequence == before


def test_a_stranger_and_a_wrong_token_get_nowhere(world: World) -> None:
    for token in ("", "x", OPERATOR[:-1], "Ω"):
        for what in SERVED:
            if what in ("register", "renew_token", "authenticate", "dispute"):
                continue
            status, body = ask(world.url, what, b"{}", token)
            assert status in (401, 422), (what, body)  # what lacks arguments is refused before anyone is asked
            assert status == 401 or b"bad_value" in body
        with pytest.raises(BadToken):
            MarketClient(world.url, token, retry_for_ms=0).balance("rita")
        with pytest.raises(NotAllowed):
            MarketClient(world.url, token, retry_for_ms=0).register("new", "provider")


def ask(url: str, what: str, body: bytes, token: str = OPERATOR, **headers: str) -> tuple[int, bytes]:
    """A request by hand."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    try:
        sent = {"Authorization": b"Bearer " + token.encode(), **headers}
        connection.request("POST", f"/v1/{what}", body, sent)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("deposit", b""),
        ("deposit", b"{"),
        ("deposit", b"[1]"),
        ("deposit", b"\xff\xfe"),
        ("deposit", b"[" * 100_000),
        ("deposit", b'{"party": "rita", "amount": 1.5, "currency": "EUR"}'),
        ("deposit", b'{"party": "rita", "amount": "1", "currency": "EUR"}'),
        ("deposit", b'{"party": "rita", "amount": 99999999999999999999999, "currency": "EUR"}'),
        ("deposit", b'{"party": "rita", "amount": 1, "currency": "EUR", "more": 1}'),
        ("deposit", b'{"party": "rita", "amount": NaN, "currency": "EUR"}'),
        ("refund", b'{"agreement": "a", "amount": 1}'),
    ],
)
def test_what_does_not_fit_is_refused_with_a_typed_error(world: World, what: str, body: bytes) -> None:
    before = world.moderator.state.sequence
    status, answer = ask(world.url, what, body)
    assert (status, type(decode_failure(answer))) in ((422, BadValue), (422, errors.BadAmount)), answer
    assert world.moderator.state.sequence == before


@pytest.mark.parametrize("what", ["group", "flush", "_run", "state", "__init__", "store", "nothing", "%2e%2e"])
def test_there_is_no_other_method(world: World, what: str) -> None:
    status, answer = ask(world.url, what, b"{}")
    assert (status, type(decode_failure(answer))) == (404, Unknown)


def test_a_request_is_bounded(world: World) -> None:
    status, answer = ask(world.url, "deposit", b" " * (REQUEST_BYTES_MAX + 1))
    assert (status, type(decode_failure(answer))) == (413, BadValue)
    assert world.operator.balance("rita") == 1_000_000


def test_every_refusal_has_the_shape_of_the_others(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """Also of what is not HTTP: one line of JSON with the code, and nothing in the log of the operator."""
    host, port = world.url.removeprefix("http://").split(":")
    head = "POST /v1/deposit HTTP/1.1\r\nHost: market\r\n"
    asked = {
        "a key of 300 bytes": (422, head + f"Idempotency-Key: {'k' * 300}\r\n"),
        "a key of 9 KB": (400, head + f"Idempotency-Key: {'k' * 9_000}\r\n"),
        "a key of 100 KB": (400, head + f"Idempotency-Key: {'k' * 100_000}\r\n"),
        "a long path": (400, f"POST /v1/{'d' * 9_000} HTTP/1.1\r\n"),
        "many headers": (400, head + "".join(f"X-{number}: {'v' * 900}\r\n" for number in range(1_000))),
        "no HTTP": (400, "deposit rita\r\n"),
        "a header without a name": (400, head + ": x\r\n"),
        "a GET": (405, head.replace("POST", "GET")),
        "another path": (404, head.replace("/v1/", "/v2/")),
        "a path below": (404, head.replace("deposit", "deposit/more")),
    }
    body = b'{"party": "rita", "amount": 1, "currency": "EUR"}'
    for name, (wanted, words) in asked.items():
        with socket.create_connection((host, int(port)), 20) as connection:
            rest = f"Authorization: Bearer {OPERATOR}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            with suppress(OSError):  # the market need not read on
                connection.sendall(words.encode() + rest.encode() + body)
            answer = b""
            with suppress(OSError):
                while more := connection.recv(65_536):
                    answer += more
        first, _, said = answer.partition(b"\r\n\r\n")
        assert first.split()[1].decode() == str(wanted), (name, answer)
        failure = msgspec.json.decode(said)
        assert failure.keys() == {"error", "message"}, name
        assert "\n" not in failure["message"], name
    assert world.operator.balance("rita") == 1_000_000
    assert capfd.readouterr().err == ""


def test_who_asks_whether_it_may_go_on_is_told_so(world: World) -> None:
    host, port = world.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(b"POST /v1/now_ms HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: 2\r\n")
        connection.sendall(f"Authorization: Bearer {OPERATOR}\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        assert b" 200 " in connection.recv(1_000)


def test_a_key_has_one_effect_and_is_its_callers_own(world: World) -> None:
    for _ in range(3):
        assert world.operator.deposit("rita", 5, "EUR", key="a/1") == 1_000_005
    with pytest.raises(KeyReused):
        world.operator.deposit("rita", 6, "EUR", key="a/1")
    before = world.by("p0").balance("p0")
    world.operator.deposit("p0", 10, "EUR")
    world.operator.deposit("p1", 10, "EUR")
    bonds = [world.by(name).post_bond(name, 10, "EUR", key="same") for name in ("p0", "p1")]
    assert bonds == [100_010, 100_010]
    assert world.by("p0").balance("p0") == before
    for key in (" x", "x\ny", "ü", "k" * 201):
        with pytest.raises(BadValue):
            world.operator.deposit("rita", 1, "EUR", key=key)


def test_a_party_never_sees_hashes_of_tokens_nor_anothers_card(world: World) -> None:
    assert world.by("p0").party("rita").token_hash == ""
    assert world.operator.party("rita").token_hash != ""
    card = msgspec.structs.replace(TERMS, method="card", source="tok_secret")
    auction = world.by("rita").announce("rita", asked(world.clock), card).auction
    assert b"tok_secret" not in msgspec.json.encode(world.by("p1").auction(auction))
    awarded(world.moderator, world.clock, fail_over=True)
    for provider in ("p0", "p1", "p2"):
        feed = world.by(provider).assignments(provider, services=("anonymise",))
        assert b"tok_secret" not in msgspec.json.encode(feed)
        assert len(feed.assignments) == 1


def test_who_has_a_token_can_ask_whose_it_is(world: World) -> None:
    assert world.by("p1").name == "p1"
    with pytest.raises(BadToken):
        _ = MarketClient(world.url, "nobody's").name


def test_a_recipient_registers_and_speaks_for_its_devices(world: World) -> None:
    rita = world.by("rita")
    token = rita.register("tablet", "device", belongs_to="rita").token
    name = awarded(world.moderator, world.clock)
    tablet = MarketClient(world.url, token)
    settled(world.moderator, name)
    with pytest.raises(NotAllowed):
        tablet.rate(name, "p1", True, device="tablet")
    tablet.rate(name, "rita", True, device="tablet")


def test_open_registration_lets_anyone_in_with_a_token_of_its_own(tmp_path: Path) -> None:
    moderator, _ = market()
    with served(moderator, open_registration=True) as url:
        given = MarketClient(url).register("newcomer", "provider", capacity_bps=5)
        assert MarketClient(url, given.token).name == "newcomer"
        with pytest.raises(NotAllowed):
            MarketClient(url).register("gadget", "device", belongs_to="rita")


def test_long_polls_end_with_the_news_and_not_before(world: World) -> None:
    p1 = world.by("p1")
    known = p1.assignments("p1").version
    began = time.monotonic()
    assert p1.assignments("p1", known=known, wait_ms=150).version == known
    assert time.monotonic() - began >= 0.15
    answers: list[tuple[float, str]] = []

    def wait() -> None:
        told = p1.assignments("p1", known=known, wait_ms=20_000)
        answers.append((time.monotonic(), told.assignments[0].role))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    world.operator.deposit("rita", 1, "EUR")  # something happens that does not concern it
    assert not answers
    world.by("rita").announce("rita", asked(world.clock), TERMS, auction="wanted")
    p1.bid("wanted", BidEntry("p1", 200))
    world.clock.advance(10_000)
    began = time.monotonic()
    waiting.join(10)
    assert answers[0][1] == "winner"  # closed by time alone: nobody asked for anything
    assert answers[0][0] - began < 1


def test_many_wait_at_once_and_are_all_told(world: World) -> None:
    auction = world.by("rita").announce("rita", asked(world.clock), TERMS).auction
    states: list[str] = []

    def wait() -> None:
        states.append(world.by("p0").await_close(auction, wait_ms=20_000).state)

    waiting = [threading.Thread(target=wait) for _ in range(40)]
    for thread in waiting:
        thread.start()
    time.sleep(0.2)
    world.clock.advance(10_000)
    for thread in waiting:
        thread.join(10)
    assert states == ["void"] * 40


def test_a_stopping_market_answers_who_waits(tmp_path: Path) -> None:
    moderator, _ = market()
    done = []
    with served(moderator) as url:
        client = MarketClient(url, OPERATOR, retry_for_ms=0)
        known = client.assignments("p0").version
        thread = threading.Thread(target=lambda: done.append(client.assignments("p0", known=known, wait_ms=60_000)))
        thread.start()
        time.sleep(0.2)
    thread.join(5)
    assert [one.version for one in done] == [known]


def test_nobody_there_is_a_typed_error_after_the_time_to_retry() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(Unreachable):
        MarketClient(url, "x", retry_for_ms=200).now_ms()
    assert 0.05 <= time.monotonic() - began < 5  # the last pause would have gone beyond the time
    for bad in ("", "host:1", "ftp://host", "http://"):
        with pytest.raises(BadValue):
            MarketClient(bad)


def test_a_market_that_is_killed_and_started_again_is_survived(tmp_path: Path) -> None:
    """Deposits go on while the process is killed three times: each arrives exactly once."""
    store_url = f"sqlite:///{tmp_path / 'market.db'}"
    process, url = start_process(store_url, tmp_path)
    port = int(url.rpartition(":")[2])
    client = MarketClient(url, OPERATOR, retry_for_ms=30_000)
    client.register("rita", "recipient")
    sent = []
    stop = threading.Event()

    def deposit() -> None:
        while not stop.is_set():
            client.deposit("rita", 1, "EUR")
            sent.append(1)

    threads = [threading.Thread(target=deposit) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            before = len(sent)
            while len(sent) < before + 30:
                time.sleep(0.01)
            process.kill()
            process.wait(20)
            process, _ = start_process(store_url, tmp_path, port)
        time.sleep(0.1)
    finally:
        stop.set()
        for thread in threads:
            thread.join(40)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    store = SqlStore(store_url)
    assert verify(store) == []
    assert Moderator(store).balance("rita") == len(sent)
    store.close()


def test_over_tls(tmp_path: Path) -> None:
    made = tmp_path / "market.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-keyout", str(tmp_path / "key.pem"), "-out", str(made), "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    words = ("--tls-certificate", str(made), "--tls-key", str(tmp_path / "key.pem"))
    process, url = start_process(f"sqlite:///{tmp_path / 'm.db'}", tmp_path, 0, *words)
    try:
        assert url.startswith("https://")
        assert MarketClient(url, OPERATOR, authority=str(made)).register("rita", "recipient").party == "rita"
        with pytest.raises(Unreachable) as caught:
            MarketClient(url, OPERATOR, retry_for_ms=0).now_ms()  # who is not told whom to trust trusts nobody
        assert "certificate" in str(caught.value).lower()
    finally:
        process.terminate()
        process.wait(20)


def test_the_command_speaks_to_a_served_market(world: World, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "token").write_text(OPERATOR + "\n")
    there = ["--market", world.url, "--token-file", str(tmp_path / "token"), "--json"]
    assert main(["account", "deposit", "rita", "7", "EUR", *there]) == 0
    assert capsys.readouterr().out == "1000007\n"
    assert main(["account", "balance", "nobody", *there]) == 1
    assert msgspec.json.decode(capsys.readouterr().out)["error"] == "unknown"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--listen", "nowhere"], "bad_value"),
        (["--listen", "127.0.0.1:99999"], "bad_value"),
        (["--listen", "192.0.2.1:1"], "unreachable"),
        (["--rules", "/nowhere"], "bad_value"),
        (["--operator-token-file", "/nowhere/token"], "bad_value"),
        (["--store", "sqlite:////nowhere/m.db"], "store_failed"),
    ],
)
def test_what_cannot_be_served_is_said(words: list[str], code: str, tmp_path: Path, capsys: Any) -> None:
    store = ["--store", f"sqlite:///{tmp_path / 'm.db'}"] if "--store" not in words else []
    assert main(["serve", "--json", *store, *words]) == 1
    assert msgspec.json.decode(capsys.readouterr().out)["error"] == code


def test_the_operators_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    from auction.web.handler import make_token

    path = tmp_path / "token"
    made = make_token(str(path))
    assert (len(made), make_token(str(path)), path.stat().st_mode & 0o777) == (64, made, 0o600)
    path.write_text("short")
    with pytest.raises(BadValue):
        make_token(str(path))


def test_rules_are_read_from_a_file(tmp_path: Path) -> None:
    from auction.moderator.config import read_rules

    path = tmp_path / "rules.toml"
    path.write_text("signatures = true\n[rating]\nnewcomer_bond = 20\n")
    config = read_rules(str(path), "USD")
    assert (config.currency, config.signatures, config.rating.newcomer_bond) == ("USD", True, 20)
    for wrong in ("signature = true", "[rating]\nnewcomer_bond = -1", "[rating]\nhidden = 1", "=", "signatures = 2"):
        path.write_text(wrong)
        with pytest.raises(AuctionError):
            read_rules(str(path), "EUR")


def test_the_manuals_example_of_a_served_market(tmp_path: Path) -> None:
    manual = Path(__file__).parents[3] / "docs" / "auction.md"
    _, _, example = re.findall(r"```python\n(.*?)```", manual.read_text(), re.DOTALL)
    process, url = start_process(f"sqlite:///{tmp_path / 'm.db'}", tmp_path)
    try:
        (tmp_path / "operator.token").write_text(OPERATOR)
        example = example.replace("http://127.0.0.1:8620", url)
        done = subprocess.run(
            [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.startswith("Assignments(version=")
    finally:
        process.terminate()
        process.wait(20)
