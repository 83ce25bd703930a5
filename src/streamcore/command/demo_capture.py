"""The demonstration: anonymises the bundled capture with two workers, and prints each step."""

from __future__ import annotations

import os
import secrets
import shlex
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np

from streamcore.core.errors import SinkError
from streamcore.core.pipeline_file import make_config
from streamcore.run.pipeline import Pipeline
from streamcore.tools.reader import read

WORKERS = 2
SEGMENT_PACKETS = 200  # small, so that the bundled capture gives some twenty segments
PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6"}


def shipped_capture() -> Path:
    """The path of the bundled capture."""
    return Path(str(resources.files("streamcore") / "data" / "office.pcapng"))


def show(directory: str) -> int:
    """Runs the demonstration, writes into `directory` and prints each step. Returns the exit status of the run."""
    capture = shipped_capture()
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise SinkError(f"cannot make the directory {directory}: {(error.strerror or str(error)).lower()}") from None
    output = os.path.join(directory, "office-anonymised.pcapng")
    key = secrets.token_hex(32)
    config = make_config(
        flags={
            "read": str(capture), "write": output, "workers": WORKERS, "segment_packets": SEGMENT_PACKETS,
            "service": [{"name": "anonymise", "key": key}, "count"], "policy": "flow", "order": "total",
        }
    )  # fmt: skip
    print(f"Input: {capture}")
    for line in describe(capture):
        print(f"  {line}")
    print(f"\nProcessing: {WORKERS} workers receive segments of the flows over ZeroMQ, anonymise and count them")
    accounting = Pipeline(config).run()
    for share in accounting.shares:
        did = f"{share.segments} segments, {share.packets:,} packets, {share.bytes:,} bytes"
        print(f"  worker {share.slot}: {did}, busy {share.busy_s * 1000:.1f} ms")
    print(f"\nOutput: {output}")
    for line in describe(Path(output)):
        print(f"  {line}")
    print("\nAccounting: " + accounting.text())
    by_hand = ["streamcore", "run", "-r", str(capture), "-w", output, "-n", str(WORKERS), "--segment-packets"]
    by_hand += [str(SEGMENT_PACKETS), "--service", f"anonymise:key={key}", "--service", "count"]
    print("\nTo run it yourself: " + shlex.join(by_hand))
    return accounting.exit_status


def describe(capture: Path) -> list[str]:
    """Describes a capture in a few lines: packets, bytes, duration, protocols, busiest addresses."""
    packets = byte_count = 0
    first_ns, last_ns = 2**63 - 1, 0
    protocols: Counter[int] = Counter()
    addresses: Counter[bytes] = Counter()
    for batch in read(capture):
        packets += len(batch)
        byte_count += int(batch.captured_length.sum(dtype=np.uint64))
        first_ns, last_ns = min(first_ns, int(batch.timestamp_ns.min())), max(last_ns, int(batch.timestamp_ns.max()))
        numbers, counts = np.unique(batch.protocol[batch.ip_version > 0], return_counts=True)
        protocols.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        four = batch.source_address[batch.ip_version == 4, 12:]
        addresses.update(row.tobytes() for row in four)
    named = ", ".join(f"{PROTOCOLS.get(number, number)} {count:,}" for number, count in protocols.most_common())
    busiest = ", ".join(".".join(map(str, address)) for address, _ in addresses.most_common(3))
    return [
        f"{packets:,} packets, {byte_count:,} bytes, {(last_ns - first_ns) / 1e9:.3f} s",
        f"IP packets by protocol: {named}",
        f"busiest IPv4 sources: {busiest}",
    ]
