"""Checks this machine: one line for each thing that a run may need, with what to do if it is missing."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MEMORY_INFORMATION = "/proc/meminfo"
MEMORY_BYTES_MAX = 300 << 20  # of all processes of a run with the default keys


class Finding(NamedTuple):
    what: str
    state: str  # "ok", "missing" (an extra, or slower without), "broken" (no run), "advice" (could be better)
    words: str


def examine(as_json: bool, interface: str | None = None) -> int:
    """Prints the findings, including those for a named live interface. Returns 1 if something is broken."""
    findings = [check() for check in CHECKS]
    if interface is not None:
        from streamcore.tools.doctor_interface import findings_on

        findings += [Finding(*each) for each in findings_on(interface)]
    if as_json:
        print(json.dumps({"findings": [finding._asdict() for finding in findings]}))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            print(f"{finding.state:<8}{finding.what:<{width}}  {finding.words}")
    return int(any(finding.state == "broken" for finding in findings))


def python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.machine()}, {sys.platform}")


def native() -> Finding:
    for name in (
        "streamcore.core.packets",
        "streamcore.source._records",
        "streamcore.parse._columns",
        "streamcore.sink._encode",
    ):
        try:
            importlib.import_module(name)
        except ImportError as error:
            return Finding("native modules", "broken", f"{error}: build them with 'make build' or 'pip install .'")
    return Finding("native modules", "ok", "built")


def shared_memory() -> Finding:
    try:
        os.close(os.memfd_create("streamcore-doctor"))
    except (AttributeError, OSError) as error:
        return Finding("shared memory", "broken", f"memfd_create: {error}; Linux 3.17 or later is needed")
    return Finding("shared memory", "ok", "memfd")


def memory() -> Finding:
    """Checks free memory. Chunks are shared memory, which counts as memory, not as files."""
    need_mib = MEMORY_BYTES_MAX >> 20
    try:
        memory = dict(line.split(":") for line in Path(MEMORY_INFORMATION).read_text().splitlines())
        free_mib = int(memory["MemAvailable"].split()[0]) >> 10
    except (OSError, KeyError, ValueError) as error:
        return Finding("memory", "missing", f"cannot tell how much is free: {error}")
    if free_mib < need_mib:
        words = f"{free_mib} MiB are free, a run may take {need_mib}: lower chunks in a pipeline file"
        return Finding("memory", "missing", words)
    return Finding("memory", "ok", f"{free_mib:,} MiB are free, a run should stay below {need_mib}")


def zeromq() -> Finding:
    zmq = importlib.import_module("zmq")
    if not zmq.has("curve"):
        return Finding("zeromq", "missing", f"{zmq.zmq_version()} without CURVE: no remote workers")
    return Finding("zeromq", "ok", f"{zmq.zmq_version()} with CURVE")


def libpcap() -> Finding:
    try:
        from streamcore.parse.filter import Filter

        Filter("tcp port 443")
    except Exception as error:
        return Finding("libpcap", "missing", f"no BPF expressions: {error}")
    return Finding("libpcap", "ok", "compiles BPF expressions")


def hyperscan() -> Finding:
    try:
        importlib.import_module("hyperscan")
    except ImportError:
        return Finding(
            "hyperscan", "missing", "scan uses Python's re: pip install 'streamcore-auction[scan]' is faster"
        )
    return Finding("hyperscan", "ok", "scan uses it")


def extras() -> Finding:
    wanted = {"parquet": "pyarrow", "postgres": "psycopg", "cards": "stripe", "packages": "highspy"}
    missing = [extra for extra, module in wanted.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return Finding("extras", "ok", ", ".join(wanted))
    words = f"without {', '.join(missing)}: pip install 'streamcore-auction[{','.join(missing)}]' if you need them"
    return Finding("extras", "missing", words)


def cores() -> Finding:
    count = len(os.sched_getaffinity(0))
    return Finding(
        "cores",
        "ok" if count > 1 else "missing",
        f"{count}" + ("" if count > 1 else ": workers share it with the pipeline"),
    )


def capture_tools() -> Finding:
    found = [name for name in ("tcpdump", "tshark") if shutil.which(name)]
    return Finding(
        "capture tools", "ok" if found else "missing", ", ".join(found) or "tcpdump helps to record captures"
    )


CHECKS: list[Callable[[], Finding]] = [
    python, native, shared_memory, memory, zeromq, libpcap, hyperscan, extras, cores, capture_tools,
]  # fmt: skip
