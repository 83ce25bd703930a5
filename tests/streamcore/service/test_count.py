"""`count` beside counting one packet at a time with dictionaries, whatever the segments and their order."""

from __future__ import annotations

import ipaddress
import random
from collections import defaultdict

import msgspec
import numpy as np
import pytest
from packets_by_hand import make_segment, run

from streamcore.service._count import FLOW, Flows, by_time
from streamcore.service.count import NAMES, Count
from streamcore.service.load import load


def traffic(seed: int, count: int = 4000, hosts: int = 8):
    """Rows of (version, protocol, source, source port, target, target port, wire length, time)."""
    rng = random.Random(seed)
    fours = [rng.getrandbits(32) for _ in range(hosts)]
    sixes = [rng.getrandbits(128) for _ in range(hosts)]
    rows = []
    for i in range(count):
        version = rng.choice([4, 4, 4, 6, 0])
        pool = sixes if version == 6 else fours
        protocol = rng.choice([6, 17, 1, 200])
        ports = rng.choice([53, 443, 50000]), rng.choice([53, 443, 50000])
        time_ns = rng.choice([i * 2_000_000, i * 2_000_000 - 5_000_000, 0])
        rows.append(
            (
                version,
                protocol,
                rng.choice(pool),
                ports[0],
                rng.choice(pool),
                ports[1],
                rng.randrange(40, 1500),
                time_ns,
            )
        )
    return rows


def segment_of(rows, order=None):
    segment = make_segment([b""] * len(rows), order, wire_length=[row[6] for row in rows])
    batch = segment.batch
    batch.groups = 31
    for i, (version, protocol, source, source_port, target, target_port, _, time_ns) in enumerate(rows):
        mapped = 0xFFFF_0000_0000 if version == 4 else 0
        batch.ip_version[i], batch.protocol[i] = version, protocol
        batch.source_port[i], batch.target_port[i] = source_port, target_port
        batch.source_address[i] = list((mapped | source).to_bytes(16, "big"))
        batch.target_address[i] = list((mapped | target).to_bytes(16, "big"))
        batch.timestamp_ns[i] = time_ns
    return segment


def twin(rows, bin_ns=1_000_000_000):
    protocols, flows, bins = (defaultdict(lambda: [0, 0]) for _ in range(3))
    for version, protocol, source, source_port, target, target_port, length, time_ns in rows:
        groups = [
            protocols[NAMES.get(protocol, f"protocol_{protocol}") if version else "not_ip"],
            bins[time_ns // bin_ns],
        ]
        if version:
            kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
            ends = sorted([(source, source_port), (target, target_port)])
            name = NAMES.get(protocol, f"protocol_{protocol}")
            groups.append(flows[tuple(str(kind(a)) for a, _ in ends), tuple(p for _, p in ends), name])
        for group in groups:
            group[0] += 1
            group[1] += length
    return protocols, flows, bins


def counted(main, rows, seed=0, size=500):
    """main after the segments' reports, which come in any order, as they travel."""
    rng = random.Random(seed)
    reports = []
    at = 0
    while at < len(rows):
        part = rows[at : at + rng.randrange(1, size)]
        at += len(part)
        order = sorted(rng.sample(range(len(part)), len(part))) if rng.random() < 0.5 else None
        reports += run(segment_of(part, order), load("count:bin-ms=1000")).result().reports
    rng.shuffle(reports)
    for _, report in reports:
        main.merge(msgspec.msgpack.decode(msgspec.msgpack.encode(report)))
    return main.summary()


def total(summary_part):
    return sum(g["packets"] for g in summary_part), sum(g["bytes"] for g in summary_part)


@pytest.mark.parametrize("seed", range(4))
def test_counts_equal_the_slow_twin(seed):
    rows = traffic(seed)
    told = counted(load("count:top=100000"), rows, seed)
    protocols, flows, bins = twin(rows)
    assert {n: (g["packets"], g["bytes"]) for n, g in told["protocols"].items()} == {
        n: tuple(g) for n, g in protocols.items()
    }
    shown = {
        (tuple(f["addresses"]), tuple(f["ports"]), f["protocol"]): [f["packets"], f["bytes"]]
        for f in told["flows"]["top"]
    }
    assert shown == dict(flows)
    assert told["flows"]["count"] == len(flows)
    assert told["flows"]["count_is_exact"]
    assert told["flows"]["other"] == {"packets": 0, "bytes": 0}
    sizes = [f["bytes"] for f in told["flows"]["top"]]
    assert sizes == sorted(sizes, reverse=True)
    assert {b["start_ms"] // 1000: [b["packets"], b["bytes"]] for b in told["time"]["bins"]} == dict(bins)


def test_what_is_left_out_is_counted():
    rows = traffic(9, hosts=40)
    told = counted(load("count:top=3,flows=50,bins=2"), rows)
    in_all = total(twin(rows)[1].values() and [{"packets": p, "bytes": b} for p, b in twin(rows)[1].values()])
    assert len(told["flows"]["top"]) == 3
    assert not told["flows"]["count_is_exact"]
    assert total([*told["flows"]["top"], told["flows"]["other"]]) == in_all
    assert len(told["time"]["bins"]) == 2
    assert total([*told["time"]["bins"], told["time"]["other"]]) == (told["packets"], told["bytes"]) == (
        len(rows), sum(row[6] for row in rows)
    )  # fmt: skip


def test_large_flows_stay_when_small_ones_are_folded():
    large = [(4, 6, 1, 80, 2, 5000, 1500, 0)] * 400
    small = [(4, 17, 3, 53, 1000 + i, 6000, 60, 0) for i in range(3000)]
    rows = [row for pair in zip(small, large * 8, strict=False) for row in pair]
    told = counted(load("count:top=1,flows=100"), rows, size=300)
    assert told["flows"]["top"] == [
        {
            "addresses": ["0.0.0.1", "0.0.0.2"],
            "ports": [80, 5000],
            "protocol": "tcp",
            "packets": 3000,
            "bytes": 4_500_000,
        }
    ]


def test_a_report_stays_small_and_adds_up():
    rows = [(6, 17, i, 1, 1 << 100, 2, 100 + (i == 7), i * 10**9) for i in range(9000)]
    report = run(segment_of(rows), load("count")).result().reports[0][1]
    assert len(msgspec.msgpack.encode(report)) < 500_000
    main = load("count:top=1")
    main.merge(report)
    told = main.summary()
    assert total([*told["flows"]["top"], told["flows"]["other"]]) == (9000, 900_001)
    assert told["flows"]["top"][0]["bytes"] == 101
    assert total([*told["time"]["bins"], told["time"]["other"]]) == (9000, 900_001)
    assert told["time"]["other"]["packets"] == 9000 - 4096


def test_bins_before_1970_and_at_the_ends_of_time():
    ends = np.iinfo(np.int64)
    times = [-1, -1_000, -1_001, 0, 999, 1000, ends.min, ends.max]
    runs = by_time(np.array(times, np.int64), np.ones(8, np.uint32), 1000)
    bins = [number for number, packets, _ in runs.tolist() for _ in range(packets)]
    assert bins == [time // 1000 for time in times]


def test_empty():
    assert load("count").summary()["packets"] == 0
    service = load("count")
    assert run(make_segment([]), service).result().reports == []


def test_the_table_of_flows_refuses_what_has_no_room():
    flows = Flows(3)
    with pytest.raises(ValueError, match="fit"):
        flows.add_rows(np.zeros(4, FLOW))
    assert isinstance(Count().summary(), dict)
