"""The Config of commands that read a capture without running a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamcore.core.config import Config
from streamcore.core.errors import UsageError
from streamcore.core.pipeline_file import make_config


def capture_config(command: str, path: str | None, given: Mapping[str, Any]) -> Config:
    """The Config of a pipeline file and flags. Raises UsageError, also if neither names a capture."""
    config = make_config(path, given, command)
    if not config.read:
        raise UsageError(f"say what to read: streamcore {command} -r IN.pcap")
    return config
