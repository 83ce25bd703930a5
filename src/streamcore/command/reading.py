"""The Config of commands that read a capture without running a pipeline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from streamcore.core.config import Config
from streamcore.core.errors import UsageError
from streamcore.core.pipeline_file import make_config


def capture_config(command: str, path: str | None, given: Mapping[str, Any]) -> Config:
    """The Config of a pipeline file and flags. Raises UsageError, also if neither names a capture."""
    # numpy, which is loaded after this, would start a thread for each processor; no table needs them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    config = make_config(path, given, command)
    if not config.read:
        raise UsageError(f"say what to read: streamcore {command} -r IN.pcap")
    if "inputs" in given and len(config.captures) < 2:
        raise UsageError("inputs has no effect with one capture: name several with -r")
    return config
