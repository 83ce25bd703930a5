"""The demonstration with the market: a stream that providers run, from the announcement to the ratings, twice.

The market, two providers and the pipeline run as separate processes, as on several machines. This file only starts
them, queries the market, and prints what happened; only the figures are special to the demonstration.
"""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from streamcore.command.demo_capture import describe, shipped_capture
from streamcore.core.errors import SinkError, StreamcoreError
from streamcore.disperse.remote import make_keys
from streamcore.subcontract.served import PlainMarket

SERVICE = "anonymise"
PROVIDERS = {"north": 3_00, "south": 3_80}  # each one's price for a block, in cents; north is cheaper, and will fail
PRICE_MAX = 9_00  # the part above the price pays for a takeover
MINIMUM_BPS = 500_000
TIMES = 3  # the bundled capture, repeated
BLOCK_MS, AUCTION_MS, LEASE_MS = 20_000, 600, 8_000
DEPOSIT = {"harbour-clinic": 100_00, "north": 50_00, "south": 50_00}
BOND = 20_00
VALUE_FULL = 2_00
CAPACITY_BPS = 100_000_000
RULES = f"""# A deal of {VALUE_FULL / 100:.2f} EUR has full weight, so that a single one shows in the ratings.
[rating]
value_full = {VALUE_FULL}
newcomer_bond = 1_000
satisfied_from_ppm = 800_000
"""
FAILS_AFTER_S = 2.0  # from its first segments on; the first block's run takes some ten seconds
WAIT_S = 60.0


class Circle:
    """Plays the demonstration in a directory, and passes each line of text to `tell`."""

    def __init__(self, directory: str, tell: Callable[[str], None]) -> None:
        self._place = Path(directory).resolve()
        self._input = self._place / "office-input.pcapng"
        self._tell = tell
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._tokens: dict[str, str] = {}
        self._agreements: set[str] = set()
        self._address = f"tcp://127.0.0.1:{free_port()}"
        self._key = secrets.token_hex(32)

    def play(self) -> dict[str, Any]:
        """Plays two blocks, from the auction to the ratings. Returns the results. Raises StreamcoreError."""
        with self._ended():
            self._open_market()
            self._register()
            blocks = [
                self._block("first", "No provider has a rating yet, so the price decides.", 1_000_000, fails="north"),
                self._block("second", "The ratings from the first are shown, and outweigh the lower price.", 8_000_000),
            ]
            return {"blocks": blocks, "found": self._verify()}

    def _open_market(self) -> None:
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            (self._place / "rules.toml").write_text(RULES)
            self._input.write_bytes(shipped_capture().read_bytes() * TIMES)
            for name in ("market.db", "market.db-wal", "market.db-shm"):
                (self._place / name).unlink(missing_ok=True)
        except OSError as error:
            raise SinkError(f"cannot write to {self._place}: {(error.strerror or str(error)).lower()}") from None
        operator = self._place / "operator.token"
        words = ["auction", "serve", "--json", "--store", f"sqlite:///{self._place / 'market.db'}"]
        words += ["--listen", "127.0.0.1:0", "--rules", str(self._place / "rules.toml")]
        words += ["--operator-token-file", str(operator)]
        process = self._start("market", words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("{"):
            raise StreamcoreError("the market did not start: is the extra `serve` installed?")
        self._market = PlainMarket(json.loads(line)["listening"], operator.read_text().strip())
        self._tell(f"The market: auction serve at {self._market.url}, kept in {self._place / 'market.db'}")

    def _register(self) -> None:
        """As the operator, registers the clinic and the providers, and books their deposits."""
        ask = self._market.ask
        for name, amount in DEPOSIT.items():
            kind = "recipient" if name == "harbour-clinic" else "provider"
            capacity_bps = 0 if kind == "recipient" else CAPACITY_BPS
            self._tokens[name] = ask("register", party=name, kind=kind, capacity_bps=capacity_bps)["token"]
            ask("deposit", party=name, amount=amount, currency="EUR")
            if kind == "provider":
                ask("post_bond", self._tokens[name], party=name, amount=BOND, currency="EUR")
            token = self._place / f"{name}.token"
            token.touch(0o600)  # whoever reads it can act for the party
            token.write_text(self._tokens[name])
            if not (self._place / "keys" / f"{name}.key_secret").exists():  # of a demonstration before
                make_keys(name, str(self._place / "keys"))
        ask("register", self._tokens["harbour-clinic"], party="desk", kind="device", belongs_to="harbour-clinic")
        self._tell(
            f"harbour-clinic has paid in {money(DEPOSIT['harbour-clinic'])} EUR; "
            + " and ".join(f"{name} (asks {money(price)} a block)" for name, price in PROVIDERS.items())
            + f" have put up bonds of {money(BOND)}"
        )

    def _start(self, name: str, words: list[str], stdout: Any = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", *words]
        with self._log(name).open("w") as log:
            process = subprocess.Popen(command, stdout=stdout or log, stderr=log, text=True)
        self._processes[name] = process
        return process

    def _start_provider(self, name: str) -> None:
        self._start(name, self._provider(name, PROVIDERS[name]))
        self._awaited(functools.partial(self._offers, name), f"{name} offers")

    def _log(self, name: str) -> Path:
        return self._place / f"{name}.log"

    @contextlib.contextmanager
    def _ended(self) -> Iterator[None]:
        """Ends every process that was started, users before what they use."""
        try:
            yield
        finally:
            for process in reversed(self._processes.values()):
                if process.poll() is None:
                    process.terminate()
            for process in self._processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                if process.poll() is None:
                    process.kill()
                    process.wait()
                if process.stdout is not None:
                    process.stdout.close()

    def _block(self, title: str, words: str, maximum_bps: int, fails: str = "") -> dict[str, Any]:
        """Runs the pipeline in one block, with this maximum rate. The provider `fails` is killed while it works."""
        self._tell(f"\nThe {title} block. {words}")
        before = self._ratings()
        for name in PROVIDERS:
            if name not in self._processes:
                self._start_provider(name)
            rating = before[name]
            self._tell(
                f"  {name:<6} {rating['count']} opinions, at least {percent(rating['lower_ppm'])} satisfied; measured "
                f"{rating['evidence_count']} times, at least {percent(rating['evidence_lower_ppm'])} delivered"
            )
        output = self._place / f"office-{title}.pcapng"
        pipeline = self._start(
            title, ["streamcore", *self._pipeline(title, output, maximum_bps)], stdout=subprocess.PIPE
        )
        agreement = self._awaited(lambda: self._serving(pipeline), "an agreement for the stream")
        auction = self._market.ask("auction", auction=agreement["auction"])
        explanation = self._market.ask("explain", auction=agreement["auction"]).splitlines()
        for line in explanation:
            self._tell(f"  {line}")
        if fails:
            self._awaited(functools.partial(self._has_begun, pipeline, fails, agreement["id"]), f"work of {fails}")
            time.sleep(FAILS_AFTER_S)
            self._processes[fails].send_signal(signal.SIGKILL)
            self._processes[fails].wait()
            self._tell(f"  {fails} is killed while it works")
        printed, _ = pipeline.communicate(timeout=WAIT_S)
        if not printed.strip():
            raise StreamcoreError(f"the pipeline failed: {(self._place / f'{title}.log').read_text().strip()}")
        run = json.loads(printed.splitlines()[-1])
        self._tell_run(run)
        if fails:
            self._start_provider(fails)
            self._tell(f"  {fails} is started again: it knows that it has failed, and tells the market so")
        outcome = self._outcome(run)
        return {
            "run": run, "auction": auction, "explanation": explanation, "ratings_before": before,
            "ratings_after": self._ratings(), "output": str(output), **outcome,
        }  # fmt: skip

    def _tell_run(self, run: dict[str, Any]) -> None:
        for each in run["subcontracts"]:
            failed = f", failed: {'; '.join(each['failures'])}" if each["failures"] else ""
            self._tell(
                f"  {each['provider']} ran {each['segments']} segments of {', '.join(each['streams'])}, "
                f"{each['audited']} audited, {each['audits_failed']} of them wrong{failed}"
            )
        self._tell(
            f"  {run['packets']['read']:,} packets in, {run['packets']['written']:,} out; "
            f"{run['segments']['resent']} segments were sent again after a failure"
        )
        for reason, count in run["packets"]["dropped"].items():
            self._tell(f"  {count:,} dropped: {reason}")

    def _outcome(self, run: dict[str, Any]) -> dict[str, Any]:
        """The outcome of a run's agreements, once both sides of each have stated its end and rated."""
        ask = self._market.ask
        agreements, opinions, invoices = [], [], []
        for served in run["subcontracts"]:
            name = served["agreement"]
            agreement = self._awaited(functools.partial(self._settled_one, name), f"the end of {name}")
            self._tell_end(agreement)
            if not served.get("satisfied"):  # it was settled after the run, so the device rates it now
                with contextlib.suppress(StreamcoreError):
                    words = {"agreement": name, "rater": "harbour-clinic", "device": "desk"}
                    ask("rate_as_drafted", self._tokens["harbour-clinic"], **words)
            both = functools.partial(ask, "opinions", agreement=name)
            for opinion in self._awaited(both, "the opinions of both sides"):
                verdict = "satisfied" if opinion["satisfied"] else "not satisfied"
                self._tell(f"  {opinion['rater']} rates {opinion['ratee']}: {verdict} ({opinion['remark']})")
                opinions.append(opinion)
            agreements.append(agreement)
            invoices.append(ask("invoice", agreement=name))
        balances = {party: ask("balance", party=party) for party in DEPOSIT}
        bonds = {party: ask("bond", party=party) for party in PROVIDERS}
        spent = DEPOSIT["harbour-clinic"] - balances["harbour-clinic"]
        self._tell(f"  In all harbour-clinic has spent {money(spent)} EUR so far; all other holds were released")
        money_of = {"balances": balances, "bonds": bonds, "invoices": invoices}
        return {"agreements": agreements, "opinions": opinions, **money_of}

    def _settled_one(self, name: str) -> dict[str, Any] | None:
        agreement: dict[str, Any] = self._market.ask("agreement", agreement=name)
        return agreement if agreement["state"] == "settled" else None

    def _tell_end(self, agreement: dict[str, Any]) -> None:
        """Prints the statements and payments of an agreement."""
        price, paid, provider = agreement["price"], agreement.get("paid", 0), agreement["provider"]
        share = (price - paid) * agreement["delta_ppm"] // 1_000_000
        of = f", for the rest of {agreement['of']}" if agreement.get("of") else ""
        self._tell(f"  {agreement['id']} with {provider}, price {money(price)}{of}:")
        ends = {side: agreement.get(f"{side}_ending", "") for side in ("provider", "recipient")}
        said = f"{provider} states {ends['provider']}, harbour-clinic {ends['recipient']}"
        self._tell(f"    {said}: {money(paid)} earned")
        if ends["provider"] == "leaving":
            self._tell(f"    {provider} pays {money(share)} to harbour-clinic for what it did not deliver")
        elif ends["recipient"] == "leaving":
            self._tell(f"    harbour-clinic ends before the block does, and pays {money(share)} for leaving")
        self._tell(f"    charged: {money(agreement.get('charged', 0))} EUR")

    def _ratings(self) -> dict[str, Any]:
        zero = {"count": 0, "lower_ppm": 0, "evidence_count": 0, "evidence_lower_ppm": 0}
        return {name: zero | self._market.ask("rating", party=name, service=SERVICE) for name in PROVIDERS}

    def _serving(self, pipeline: subprocess.Popen[str]) -> dict[str, Any] | None:
        """The agreement of this run, once it has begun."""
        if pipeline.poll() is not None:
            raise StreamcoreError(f"the pipeline ended before an agreement was made, see {self._place}/*.log")
        for glance in self._market.ask("overview", limit=1)["agreements"]:
            if glance["state"] in ("agreed", "running") and glance["agreement"] not in self._agreements:
                self._agreements.add(glance["agreement"])
                return {**self._market.ask("agreement", agreement=glance["agreement"])}
        return None

    def _offers(self, name: str) -> bool:
        """Whether a provider is ready to see auctions."""
        return "offers" in self._log(name).read_text()

    def _has_begun(self, pipeline: subprocess.Popen[str], name: str, agreement: str) -> bool:
        """Whether the provider's log shows that it has processed a part of the agreement."""
        if pipeline.poll() is not None:
            raise StreamcoreError(f"the run ended before {name} processed anything")
        return f"{agreement}: the first segments" in self._log(name).read_text()

    def _awaited(self, look: Callable[[], Any], what: str) -> Any:
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            if found := look():
                return found
            time.sleep(0.05)
        raise StreamcoreError(f"waited {WAIT_S:.0f} s in vain for {what}; see {self._place}/*.log")

    def _verify(self) -> list[str]:
        """Stops the market, and checks its journal and every invariant."""
        market = self._processes["market"]
        market.terminate()
        market.wait(20)
        done = subprocess.run(
            [sys.executable, "-m", "auction", "verify", "--json", "--store", f"sqlite:///{self._place / 'market.db'}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
        )
        found: list[str] = json.loads(done.stdout)["found"]
        self._tell(f"\nThe market's journal and every invariant were checked: {len(found)} broken")
        return found

    def _provider(self, name: str, price: int) -> list[str]:
        key = str(self._place / "keys" / f"{name}.key_secret")
        words = ["streamcore", "provider", "--market", self._market.url, "--key", key, "--service", SERVICE]
        words += ["--token-file", str(self._place / f"{name}.token"), "--pricing", f"fixed:{price}"]
        return [*words, "--capacity-mbps", str(CAPACITY_BPS // 10**6), "--no-standing-offers"]

    def _pipeline(self, title: str, output: Path, maximum_bps: int) -> list[str]:
        """Writes the pipeline file. Returns the command line that runs it."""
        path = self._place / f"{title}.toml"
        path.write_text(f'''# Under an agreement a provider processes the calls; the local worker does the rest.
read = "{self._input}"
write = "{output}"
workers = 1
segment-packets = 50
chunk-rows = 1024
lease-ms = {LEASE_MS}
service = ["anonymise:key={self._key}"]
listen = "{self._address}"
key = "{self._place / "keys" / "harbour-clinic.key_secret"}"

[market]
url = "{self._market.url}"
token-file = "{self._place / "harbour-clinic.token"}"
device = "desk"
auction-ms = {AUCTION_MS}

[[stream]]
name = "calls"
select = "udp"
service = ["anonymise:key={self._key}"]

[stream.subcontract]
service = "{SERVICE}"
objective = "quality"
price-max = {PRICE_MAX}
minimum-bps = {MINIMUM_BPS}
maximum-bps = {maximum_bps}
block-ms = {BLOCK_MS}
deadline-ms = {LEASE_MS}
audit = 0.2
otherwise = "refuse"
''')
        return ["run", "--config", str(path), "--json", "-q"]


def show_circle(directory: str, as_json: bool) -> int:
    """Plays the demonstration and prints it; with `as_json` as one object on standard output. Returns the exit
    status."""
    lines: list[str] = []
    result = Circle(directory, lines.append if as_json else print).play()
    if as_json:
        print(json.dumps({"told": lines, **result}))
    else:
        print(f"\nOutput: {result['blocks'][-1]['output']}")
        for line in describe(Path(result["blocks"][-1]["output"])):
            print(f"  {line}")
        print(f"To look at it: auction watch --once -d sqlite:///{Path(directory).resolve() / 'market.db'}")
    return 1 if result["found"] else max(block["run"]["exit_status"] for block in result["blocks"])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def money(cents: int) -> str:
    return f"{cents / 100:.2f}"


def percent(ppm: int) -> str:
    return f"{ppm / 10_000:.1f}%"
