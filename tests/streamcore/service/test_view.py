"""The view: what a service sees, what it may do, what comes out; beside lists of bytes as the slow twin."""

from __future__ import annotations

import numpy as np
import pytest
from packets_by_hand import make_segment, packets_of, run

from streamcore.service.protocol import Service
from streamcore.service.view import EffectError, ResultTooLarge, View

PACKETS = [bytes([i]) * (20 + i) for i in range(10)]
REASONS = dict.fromkeys(("made.even", "made.large", "made.again", "made.first", "x"), "")
ORDERS = [None, list(range(10)), [2, 3, 4], [9, 1, 4], []]


def service(effect: str, work, **attributes) -> Service:
    kind = type(
        "Made",
        (Service,),
        {"name": "made", "effect": effect, "process": lambda self, segment: work(segment), "reasons": REASONS}
        | attributes,
    )
    return kind()


@pytest.mark.parametrize("rows", ORDERS)
@pytest.mark.parametrize("gap", [0, 12])
def test_packets_and_columns_are_those_of_the_rows(rows, gap):
    segment = make_segment(PACKETS, rows, gap=gap)
    view = View(segment, None, [])
    wanted = range(10) if rows is None else rows
    assert packets_of(view) == [PACKETS[row] for row in wanted]
    assert view.column("timestamp_ns").tolist() == [row * 1_000_000 for row in wanted]
    assert view.link_type().tolist() == [1] * len(wanted)


def test_consecutive_rows_are_views():
    segment = make_segment(PACKETS, [3, 4, 5])
    view = View(segment, None, [])
    assert np.shares_memory(view.offset, segment.batch.offset)
    assert np.shares_memory(view.data, segment.batch.data)


@pytest.mark.parametrize("rows", ORDERS)
@pytest.mark.parametrize("gap", [0, 12])
def test_writable_copies_whole_records_in_row_order(rows, gap):
    segment = make_segment(PACKETS, rows, gap=gap)
    batch = segment.batch
    before = batch.data.copy()

    def invert(view):
        data = view.writable()
        assert view.writable() is data
        for at, length in zip(view.offset, view.captured_length, strict=True):
            data[at : at + length] ^= 0xFF

    view = run(segment, service("rewrite", invert))
    wanted = range(10) if rows is None else rows
    inverted = [bytes(b ^ 0xFF for b in PACKETS[row]) for row in wanted]
    assert packets_of(view) == inverted
    headers = [before[batch.offset[row] - 16 : batch.offset[row]].tobytes() for row in wanted]
    records = b"".join(head + packet for head, packet in zip(headers, inverted, strict=True))
    assert view.data.tobytes() == records
    assert view.result().packed == len(records)
    assert view.result().offset is None  # lengths are kept
    assert (batch.data == before).all()


def test_a_chain_shares_what_was_written():
    def add_one(view):
        data = view.writable()
        data[view.offset] += 1

    view = run(
        make_segment(PACKETS),
        service("rewrite", add_one),
        service("rewrite", add_one),
        service("observe", lambda v: None),
    )
    assert packets_of(view) == [bytes([p[0] + 2]) + p[1:] for p in PACKETS]


def test_truncate_keeps_the_wire_length_and_moves_nothing():
    view = run(make_segment(PACKETS), service("resize", lambda v: v.truncate(np.minimum(v.captured_length, 22))))
    assert packets_of(view) == [packet[:22] for packet in PACKETS]
    result = view.result()
    assert result.packed == 0
    assert result.captured_length.tolist() == [min(len(p), 22) for p in PACKETS]
    assert result.wire_length.tolist() == [len(p) for p in PACKETS]
    assert (result.offset == make_segment(PACKETS).batch.offset).all()


def test_truncate_then_write_then_truncate():
    def clear(view):
        view.writable()[view.offset] = 0

    cut = [service("resize", lambda v, n=n: v.truncate(np.minimum(v.captured_length, n))) for n in (22, 10)]
    view = run(make_segment(PACKETS, gap=8), cut[0], service("rewrite", clear), cut[1])
    assert packets_of(view) == [b"\0" + p[1:10] for p in PACKETS]
    result = view.result()
    assert [view.data[at] for at in result.offset] == [0] * 10


def test_truncate_does_not_make_longer():
    with pytest.raises(ValueError, match="use replace"):
        run(make_segment(PACKETS), service("resize", lambda v: v.truncate(v.captured_length + 1)))


def double(view):
    parts = [packet * 2 for packet in packets_of(view)]
    lengths = np.array([len(p) for p in parts], np.uint32)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.uint32)
    view.replace(np.frombuffer(b"".join(parts), np.uint8), starts, lengths, view.wire_length)


def test_replace_and_write_on():
    def clear(view):
        view.writable()[view.offset] = 0

    view = run(
        make_segment(PACKETS),
        service("resize", double),
        service("resize", double),
        service("rewrite", clear),
        region_bytes=4000,
    )
    assert packets_of(view) == [b"\0" + (p * 4)[1:] for p in PACKETS]
    assert view.result().packed == sum(4 * len(p) for p in PACKETS)


def test_replace_from_the_region_itself():
    def reverse_order(view):
        data = view.writable()
        view.replace(data, view.offset[::-1], view.captured_length[::-1], view.wire_length[::-1])

    assert packets_of(run(make_segment(PACKETS), service("resize", reverse_order))) == PACKETS[::-1]


def test_the_region_bounds_what_is_made():
    with pytest.raises(ResultTooLarge):
        run(make_segment(PACKETS), service("resize", double), region_bytes=400)
    for rows in (None, [9, 1, 4]):
        with pytest.raises(ResultTooLarge):
            run(make_segment(PACKETS, rows), service("rewrite", lambda v: v.writable()), region_bytes=50)


def test_replace_refuses_packets_outside_its_data():
    def outside(view):
        ones = np.ones(10, np.uint32)
        view.replace(np.zeros(10, np.uint8), ones * 10, ones, ones)

    with pytest.raises(ValueError, match="outside"):
        run(make_segment(PACKETS), service("resize", outside))


def test_drop_counts_once_and_hides_packets_from_later_services():
    def drop_even(view):
        view.drop(view.captured_length % 2 == 0, "made.even")

    seen = []

    def drop_large(view):
        seen.extend(packets_of(view))
        view.drop(view.captured_length > 25, "made.large")
        view.drop(view.captured_length > 25, "made.again")
        view.comment(0, "the first one left")

    def cut(view):
        view.truncate(view.captured_length - 1)

    view = run(
        make_segment(PACKETS), service("filter", drop_even), service("filter", drop_large), service("resize", cut)
    )
    odd = [p for p in PACKETS if len(p) % 2]
    assert seen == odd
    assert packets_of(view) == [p[:-1] for p in odd if len(p) <= 25]
    result = view.result()
    assert result.keep.tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 0, 0]
    assert result.drops == {
        "made.even": (5, sum(len(p) for p in PACKETS if len(p) % 2 == 0)),
        "made.large": (2, sum(len(p) for p in odd if len(p) > 25)),
        "made.again": (0, 0),
    }
    assert result.comments == {1: [b"the first one left"]}
    assert result.captured_length.tolist() == [len(p) - (k == 1) for p, k in zip(PACKETS, result.keep, strict=True)]


def test_keys_are_spread_over_dropped_packets():
    def drop_first(view):
        view.drop(np.arange(10) == 0, "made.first")

    def keys(view):
        view.keys(np.ones((len(view), 2), np.uint64))

    view = run(make_segment(PACKETS), service("filter", drop_first), service("filter", keys, drops_by_keys=True))
    assert view.result().keys.tolist() == [[0, 0]] + [[1, 1]] * 9
    with pytest.raises(EffectError, match="drops_by_keys"):
        run(make_segment(PACKETS), service("filter", keys))


ACTIONS = {
    "writable": (lambda v: v.writable(), {"rewrite", "resize"}),
    "truncate": (lambda v: v.truncate(v.captured_length), {"resize"}),
    "replace": (lambda v: v.replace(v.data, v.offset, v.captured_length, v.wire_length), {"resize"}),
    "drop": (lambda v: v.drop(np.zeros(len(v), bool), "x"), {"filter"}),
    "keys": (lambda v: v.keys(np.zeros((len(v), 2), np.uint64)), {"filter"}),
    "comment": (lambda v: v.comment(0, "x"), {"observe", "rewrite", "resize", "filter"}),
    "report": (lambda v: v.report(1), {"observe", "rewrite", "resize", "filter"}),
}


@pytest.mark.parametrize("effect", ["observe", "rewrite", "resize", "filter"])
@pytest.mark.parametrize("action", ACTIONS)
def test_effects_are_enforced(effect, action):
    call, allowed = ACTIONS[action]
    made = service(effect, call, drops_by_keys=True)
    if effect in allowed:
        run(make_segment(PACKETS), made)
        return
    with pytest.raises(EffectError, match=f'effect "{effect}"'):
        run(make_segment(PACKETS), made)


@pytest.mark.parametrize("name", ["data", "offset", "captured_length", "wire_length"])
def test_nothing_else_can_be_written(name):
    def write(view):
        getattr(view, name)[0] = 1

    with pytest.raises(ValueError, match="read-only"):
        run(make_segment(PACKETS), service("observe", write))
    with pytest.raises(ValueError, match="read-only"):
        run(make_segment(PACKETS), service("rewrite", lambda v: (v.writable(), write(v))))
