"""The flow hash, the fragments and the flow table, beside dictionaries keyed by what the slow twin finds."""

import functools
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.core.packets import COLUMN_GROUPS, FLAGS
from streamcore.parse._flows import FlowTable
from streamcore.parse.flow_rows import ENDED
from streamcore.parse.parser import Parser
from tests.examples import examples
from tests.streamcore.batches import make_batch
from tests.streamcore.parse import twin
from tests.streamcore.parse.packets_by_hand import (
    ETHERNET,
    SOURCE4,
    TARGET4,
    ethernet,
    fragment6,
    icmp,
    ip4,
    ip6,
    samples,
    tcp,
    udp,
)

FLOW = COLUMN_GROUPS["flow"]
SAMPLES = samples()


def batch_of(packets, *, link_type=ETHERNET, **more):
    batch = make_batch(packets, **more)
    batch.chunk.arena.set_link_type(0, link_type)
    return batch


def hashes(packets, *, seed=1, **more):
    batch = batch_of(packets, **more)
    Parser(seed=seed)(batch, FLOW)
    return batch.flow_hash.tolist()


@functools.lru_cache(1 << 15)  # asked several times of each packet
def twin_key(packet, link_type=ETHERNET):
    """The flow of a packet that is no later fragment, both directions alike."""
    found = twin.parse(packet, link_type)
    vlans = (tuple(found.vlans[:4]), min(len(found.vlans), 255))
    if not found.ips:
        return None
    ip = found.ips[0]
    source, target = ip.ports or (0, 0)
    ends = sorted([(ip.source, source), (ip.target, target)])
    return ip.version, ip.protocol, vlans, tuple(ends)


ENDPOINT = st.tuples(st.sampled_from([0, 1, 2, 255]), st.sampled_from([0, 1, 80, 65535]))


@st.composite
def packets_of_few_flows(draw):
    """Packets whose flows meet often: few addresses and ports, tags, protocols, both versions."""
    (a, port_a), (b, port_b) = draw(ENDPOINT), draw(ENDPOINT)
    payload = tcp(port_a, port_b) if draw(st.booleans()) else udp(port_a, port_b)
    protocol = 6 if len(payload) > 20 else 17
    vlans = draw(st.sampled_from([(), (), (0,), (5,), (5, 6), (6, 5), (1, 2, 3, 4, 5)]))
    options = draw(st.sampled_from([b"", b"", b"\1" * 4]))
    if draw(st.booleans()):
        packet = ip4(protocol, payload, source=bytes([10, 0, 0, a]), target=bytes([10, 0, 0, b]), options=options)
        return ethernet(0x0800, packet, vlans)
    source, target = bytes([a]) + bytes(15), bytes(15) + bytes([b])
    return ethernet(0x86DD, ip6(protocol, payload, source=source, target=target), vlans)


@given(st.lists(packets_of_few_flows(), min_size=1, max_size=80))
@settings(max_examples=examples(200), deadline=None)
def test_equal_flows_have_equal_hashes_and_ids_and_different_ones_do_not(packets):
    keys = [twin_key(packet) for packet in packets]
    values = hashes(packets)
    ids = FlowTable(1000, seed=2).find(batch_of(packets)).tolist()
    for of_hash, of_id, key in zip(values, ids, keys, strict=True):
        assert [v == of_hash for v in values] == [k == key for k in keys]
        assert [i == of_id for i in ids] == [k == key for k in keys]


def test_both_directions_and_the_general_path_hash_alike():
    there = ip4(6, tcp(1000, 80))
    back = ip4(6, tcp(80, 1000), source=TARGET4, target=SOURCE4)
    with_options = ip4(6, tcp(1000, 80), options=b"\1" * 4)
    assert len(set(hashes([ethernet(0x0800, p) for p in (there, back, with_options)]))) == 1
    on_raw = hashes([there, back], link_type=101)
    assert set(on_raw) == set(hashes([ethernet(0x0800, there)]))


def test_another_seed_gives_other_hashes():
    packets = [ethernet(0x0800, ip4(17, udp(port, 53))) for port in range(2000)]
    one, other = np.array(hashes(packets, seed=1)), np.array(hashes(packets, seed=2))
    assert np.count_nonzero(one == other) < 3
    batch = batch_of(packets)
    Parser()(batch, FLOW)
    assert np.count_nonzero(batch.flow_hash == one) < 3


def test_hashes_fill_their_range_evenly():
    """Low, high and middle bits of hashes of keys that differ little: chi-square of 64 cells, far from improbable."""
    packets = [
        ethernet(0x0800, ip4(17, udp(port, 53), source=bytes([10, 0, last, 1])))
        for port in range(1024, 1324)
        for last in range(20)
    ]
    values = np.array(hashes(packets), np.uint64)
    for shift in (0, 13, 26):
        counts = np.bincount(((values >> np.uint64(shift)) & np.uint64(63)).astype(np.int64), minlength=64)
        expected = len(packets) / 64
        assert ((counts - expected) ** 2 / expected).sum() < 140  # 63 degrees of freedom: 1 in 10 million
    assert len(set(values.tolist())) > len(packets) - 4


def test_what_has_no_ip_is_told_apart_by_its_mac_addresses():
    arp = SAMPLES["arp"][1]
    back = arp[6:12] + arp[:6] + arp[12:]
    other = arp[:5] + b"\x09" + arp[6:]
    values = hashes([arp, back, other])
    assert values[0] == values[1] != values[2]
    assert len(set(hashes([b"\1" * 40, b"\2" * 50], link_type=147))) == 1


# Fragments.


def fragments4(identification=7, protocol=17, payload=None):
    first = ip4(protocol, payload or udp(5000, 53), part=0x2000, identification=identification)
    later = ip4(protocol, b"later", part=2, identification=identification)
    return ethernet(0x0800, first), ethernet(0x0800, later)


def parsed(parser, packets, **more):
    batch = batch_of(packets, **more)
    parser(batch, FLOW | COLUMN_GROUPS["headers"])
    orphans = (batch.flags & FLAGS["orphan"]) != 0
    return batch.flow_hash.tolist(), orphans.tolist()


def test_a_later_fragment_follows_the_first_one():
    first, later = fragments4()
    whole = ethernet(0x0800, ip4(17, udp(5000, 53)))
    values, orphans = parsed(Parser(seed=1), [later, first, later, whole])
    assert values[1] == values[2] == values[3] != values[0]
    assert orphans == [True, False, False, False]


def test_from_batch_to_batch_and_with_other_groups():
    first, later = fragments4()
    parser = Parser(seed=1)
    wanted = parsed(parser, [first])[0]
    batch = batch_of([later])
    parser(batch, COLUMN_GROUPS["headers"])
    assert not batch.flags[0] & FLAGS["orphan"]
    assert batch.source_port[0] == 0
    parser(batch, FLOW)
    assert batch.flow_hash.tolist() == wanted
    assert parser.counts()["parse.orphan_fragments"] == 0


def test_another_datagram_is_another_matter():
    first, _ = fragments4(7)
    _, later = fragments4(8)
    tagged = ethernet(0x0800, ip4(17, b"later", part=2, identification=7), [9])
    assert parsed(Parser(seed=1), [first, later, tagged])[1] == [False, True, True]


def test_ip6_fragments_whose_first_has_more_headers():
    options = bytes([17, 0, 1, 4, 0, 0, 0, 0])
    first = ethernet(0x86DD, ip6(44, fragment6(60, 0, 1, 3, options + udp(5000, 53))))
    later = ethernet(0x86DD, ip6(44, fragment6(60, 5, 0, 3, b"rest")))
    whole = ethernet(0x86DD, ip6(17, udp(5000, 53)))
    values, orphans = parsed(Parser(seed=1), [first, later, whole])
    assert values[0] == values[1] == values[2]
    assert not any(orphans)


def test_after_a_minute_of_capture_time_it_is_forgotten():
    first, later = fragments4()
    second = 10**9
    assert parsed(Parser(), [first, later], times_ns=[0, 59 * second])[1] == [False, False]
    assert parsed(Parser(), [first, later], times_ns=[0, 61 * second])[1] == [False, True]
    assert parsed(Parser(), [first, later], times_ns=[61 * second, 0])[1] == [False, True]
    batch = batch_of([first, later])
    batch.timestamp_ns[:] = [-(2**63), 2**63 - 1]
    Parser()(batch, COLUMN_GROUPS["headers"] | FLOW)
    assert batch.flags[1] & FLAGS["orphan"]


def test_a_stateless_parser_remembers_none():
    first, later = fragments4()
    assert parsed(Parser(stateless=True), [first, later])[1] == [False, True]


def test_the_fragment_table_is_bounded():
    parser = Parser(fragments_max=64)
    firsts = [fragments4(number)[0] for number in range(4000)]
    laters = [fragments4(number)[1] for number in range(4000)]
    _, orphans = parsed(parser, firsts + laters, times_ns=list(range(8000)))
    assert 4000 - 64 <= sum(orphans) < 4000


# The flow table.


def totals(rows):
    """(version, protocol, ports, addresses) -> [packets, bytes] of flow rows, directions added."""
    result = Counter()
    for row in rows:
        ends = sorted(
            [
                (row["source_address"].tobytes(), int(row["source_port"])),
                (row["target_address"].tobytes(), int(row["target_port"])),
            ]
        )
        vlans = tuple(row["vlan"][: row["vlan_count"]].tolist())
        key = (int(row["ip_version"]), int(row["protocol"]), vlans, tuple(ends))
        result[key, "packets"] += int(row["packets"] + row["packets_back"])
        result[key, "bytes"] += int(row["bytes"] + row["bytes_back"])
    return result


def traffic(rng, flows, count):
    """(packets, times, wire lengths) of `flows` flows, IPv4 and IPv6, both directions."""
    packets, times, lengths = [], [], []
    for i in range(count):
        flow = rng.randrange(flows)
        back = rng.random() < 0.4
        ports = (1000 + flow % 7, 80) if not back else (80, 1000 + flow % 7)
        payload = tcp(*ports, flags=rng.choice([2, 16, 24, 1])) if flow % 3 else udp(*ports)
        protocol = 6 if flow % 3 else 17
        ends = [(flow // 2).to_bytes(4, "big"), b"\x0a\0\0\1"]
        if back:
            ends.reverse()
        if flow % 2:
            packets.append(
                ethernet(0x0800, ip4(protocol, payload, source=ends[0], target=ends[1]), [flow % 5] * (flow % 4))
            )
        else:
            ends = [end * 4 for end in ends]
            packets.append(
                ethernet(0x86DD, ip6(protocol, payload, source=ends[0], target=ends[1]), [flow % 5] * (flow % 4))
            )
        times.append(i * 1000)
        lengths.append(len(packets[-1]) + rng.randrange(1000))
    return packets, times, lengths


@pytest.mark.parametrize(("flows", "flows_max"), [(50, 1 << 12), (9000, 1 << 14), (3000, 100), (500, 1), (20000, 5000)])
def test_sums_as_a_dictionary_has_them(flows, flows_max):
    packets, times, lengths = traffic(random.Random(flows), flows, 20_000)
    table = FlowTable(flows_max, seed=3)
    gone, ids = [], []
    for start in range(0, len(packets), 3001):
        part = slice(start, start + 3001)
        ids += table.find(batch_of(packets[part], times_ns=times[part], wire_lengths=lengths[part])).tolist()
        gone.append(table.ended())
        assert table.count <= flows_max
    rows = np.concatenate([*gone, table.export()])
    expected = Counter()
    for packet, length in zip(packets, lengths, strict=True):
        version, protocol, (vlans, _), ends = twin_key(packet)
        mapped = tuple((twin_address(address), port) for address, port in ends)
        key = (version, protocol, vlans, tuple(sorted(mapped)))
        expected[key, "packets"] += 1
        expected[key, "bytes"] += length
    assert totals(rows) == expected
    # Every id is one flow's, and counts what its row says.
    assert sorted(rows["id"].tolist()) == list(range(len(rows)))
    by_id = dict(zip(rows["id"].tolist(), (rows["packets"] + rows["packets_back"]).tolist(), strict=True))
    assert Counter(ids) == Counter(by_id)
    keys = {}
    for number, packet in zip(ids, packets, strict=True):
        assert keys.setdefault(number, twin_key(packet)) == twin_key(packet)
    if len(set(map(twin_key, packets))) <= flows_max:
        assert table.evicted == 0
        assert len(rows) == len(set(map(twin_key, packets)))
    else:
        assert table.evicted == len(rows) - table.count > 0
        assert {ENDED[why] for why in np.concatenate(gone)["ended"].tolist()} == {"evicted"}


def twin_address(raw):
    return b"\0" * 10 + b"\xff\xff" + raw if len(raw) == 4 else raw


def test_the_source_is_who_sent_the_first_packet_or_whom_a_syn_ack_answers():
    there = ethernet(0x0800, ip4(6, tcp(40000, 80, flags=0x02, data=b"")), [5])
    back = ethernet(0x0800, ip4(6, tcp(80, 40000, flags=0x12, data=b""), source=TARGET4, target=SOURCE4), [5])
    middle = ethernet(0x0800, ip4(6, tcp(80, 40000, flags=0x10, data=b""), source=TARGET4, target=SOURCE4), [5])
    for first, answer, history in ((there, back, b"Sh"), (back, there, b"^hS"), (middle, there, b"As")):
        table = FlowTable(10)
        table.find(batch_of([first, answer, first], times_ns=[50, 20, 70], wire_lengths=[100, 200, 300]))
        (row,) = table.export()
        from_there = first is not middle
        assert row["source_address"].tobytes()[12:] == (SOURCE4 if from_there else TARGET4)
        assert (row["source_port"], row["target_port"]) == ((40000, 80) if from_there else (80, 40000))
        counts = [row[name].tolist() for name in ("packets", "packets_back", "bytes", "bytes_back")]
        assert counts == ([2, 1, 400, 200] if first is not back else [1, 2, 200, 400])
        assert (row["first_ns"], row["last_ns"], row["history"]) == (20, 70, history)
        flags = {there: 0x02, back: 0x12, middle: 0x10}
        assert row["tcp_flags"] == (0x10 if first is middle else 0x02)
        assert row["tcp_flags_back"] == (flags[answer] if first is not back else 0x12)
        assert (row["vlan_count"], row["vlan"].tolist(), row["protocol"]) == (1, [5, 0, 0, 0], 6)
        source_mac, target_mac = there[6:12], there[:6]
        if first is back:
            source_mac, target_mac = back[:6], back[6:12]
        assert (row["source_mac"].tobytes(), row["target_mac"].tobytes()) == (source_mac, target_mac)


def test_after_idle_ms_a_new_flow_begins():
    packet = ethernet(0x0800, ip4(1, icmp()))
    table = FlowTable(10, idle_ms=1)
    ids = table.find(batch_of([packet] * 4, times_ns=[0, 1_000_000, 2_000_001, 2_000_002]))
    assert ids.tolist() == [0, 0, 1, 1]
    (gone,) = table.ended()
    assert (gone["id"], gone["packets"], ENDED[int(gone["ended"])]) == (0, 2, "idle")
    assert len(table.ended()) == 0
    assert table.export()["id"].tolist() == [1]


def test_fragments_count_with_their_flow():
    first, later = fragments4()
    table = FlowTable(10)
    ids = table.find(batch_of([first, later, ethernet(0x0800, ip4(17, udp(5000, 53)))]))
    assert ids.tolist() == [0, 0, 0]


@given(st.lists(st.tuples(st.sampled_from(sorted(SAMPLES)), st.integers(0, 120)), min_size=1, max_size=150))
@settings(max_examples=examples(60), deadline=None)
def test_any_packets_are_all_counted(chosen):
    packets = [SAMPLES[name][1][:size] for name, size in chosen]
    table = FlowTable(5)
    table.find(batch_of(packets))
    rows = np.concatenate([table.ended(), table.export()])
    assert int((rows["packets"] + rows["packets_back"]).sum()) == len(packets)
    assert int((rows["bytes"] + rows["bytes_back"]).sum()) == sum(map(len, packets))


@pytest.mark.parametrize("flows_max", [0, -1, 1 << 40])
def test_a_table_of_no_sensible_size_is_refused(flows_max):
    with pytest.raises(ValueError, match="flow table"):
        FlowTable(flows_max)
