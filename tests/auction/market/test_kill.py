"""`kill -9` in the middle of commands: nothing that was acknowledged is lost, and nothing is done twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from killing import check_kills_come_at_their_step, kill_and_compare


@pytest.mark.timeout(600)
def test_kills_lose_no_acknowledged_command_on_sqlite(tmp_path: Path) -> None:
    kills = int(os.environ["AUCTION_KILLS"])
    assert kill_and_compare(lambda kill: f"sqlite:///{tmp_path / f'market-{kill}.db'}", kills) > 2 * kills


def test_kills_come_at_the_step_that_is_said(tmp_path: Path) -> None:
    check_kills_come_at_their_step(f"sqlite:///{tmp_path / 'market.db'}")
