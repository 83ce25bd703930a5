"""The Config of a command that reads a capture and runs no pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamcore.core.config import Config
from streamcore.core.errors import UsageError
from streamcore.core.pipeline_file import make_config


def capture_config(command: str, path: str | None, given: Mapping[str, Any]) -> Config:
    """The pipeline file with the flags over it. Raises UsageError, also if no capture is named."""
    config = make_config(path, given, command)
    if not config.read:
        raise UsageError(f"say what to read: streamcore {command} -r IN.pcap")
    return config
