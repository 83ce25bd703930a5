"""The manual's set-up of two machines, as it stands there: in two network namespaces that a cable joins."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamcore.command.demo_capture import shipped_capture
from tests.streamcore.namespaces import join, namespaces

pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")
MANUAL = Path(__file__).parents[3] / "docs" / "subcontracting.md"


class Machine:
    """A namespace with a directory, in which the manual's lines are typed; what they leave running ends with it."""

    def __init__(self, namespace, place):
        self.namespace, self.place = namespace, place
        self._sessions = []
        place.mkdir()

    def types(self, lines):
        told = self.place / "told.txt"
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        with told.open("a") as file:
            shell = self.namespace.start(
                "sh", "-ec", lines, cwd=self.place, env=environment, stdout=file, stderr=file, start_new_session=True
            )
            self._sessions.append(shell.pid)
            assert shell.wait(100) == 0, told.read_text()

    def close(self):
        for pid in self._sessions:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def test_the_manuals_two_machines(root_and_namespaces, tmp_path):
    section = MANUAL.read_text().partition("## Two machines, from nothing")[2]
    market, provider, operator, bond, run = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    (pipeline,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    with namespaces(2) as (left, right), contextlib.ExitStack() as stack:
        join(left, "cable", right, "cable")
        left.run("ip", "address", "add", "10.9.0.1/24", "dev", "cable")
        right.run("ip", "address", "add", "10.9.0.2/24", "dev", "cable")
        ours, theirs = Machine(left, tmp_path / "ours"), Machine(right, tmp_path / "theirs")
        stack.callback(ours.close)
        stack.callback(theirs.close)
        shutil.copy(shipped_capture(), ours.place / "office.pcapng")
        (ours.place / "pipeline.toml").write_text(pipeline)
        ours.types(market)
        theirs.types(provider)
        ours.types(operator)
        theirs.types(bond)
        ours.types(run)
        account = json.loads((ours.place / "account.json").read_text())
        (served,) = account["subcontracts"]
        counts = account["packets"]
        assert (counts["read"], counts["dropped"], account["exit_status"]) == (2846, {}, 0)
        assert counts["written"] == 2846
        assert (served["provider"], served["failures"], served["state"]) == ("north", [], "settled")
        assert served["bytes"] == account["bytes"]["read"]
        assert "market_errors" not in account
        # The run ends before its block of 10 s: the clinic leaves, and pays 10 % of what is undelivered.
        assert served["price"] in (300, 500)  # the standing offer's, or in an auction without another bid the reserve
        assert 0 <= served["paid"] == served["figure"] < served["price"]
        assert served["charged"] == served["paid"] + (served["price"] - served["paid"]) // 10
        assert re.search(r"agreement-[\d.]+ +anonymise +clinic +settled", (ours.place / "told.txt").read_text())
        verified = subprocess.run(
            [sys.executable, "-m", "auction", "verify", "--store", f"sqlite:///{ours.place / 'market.db'}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (verified.stdout, verified.stderr) == ("nothing is wrong\n", "")
