"""How many examples a property-based test draws: all with --all, else the part of them that conftest.py says."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """Of `count` with --all; for `settings(max_examples=…)`."""
    return max(1, count * int(os.environ["EXAMPLES_PERCENT"]) // 100)
