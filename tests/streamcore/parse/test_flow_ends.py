"""When flows end, and what TCP makes of them, beside a slow twin that keeps every packet."""

import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.parse._flows import FlowTable
from streamcore.parse.flow_rows import ENDED, STATES
from tests.streamcore.parse.packets_by_hand import SOURCE4, TARGET4, ethernet, icmp, ip4, ip6, tcp, udp
from tests.streamcore.parse.test_flows import batch_of

FIN, SYN, RST, ACK = 1, 2, 4, 16
SECOND = 10**9
IDLE, ACTIVE, CLOSED = 10 * SECOND, 60 * SECOND, 2 * SECOND


def segment(back=False, flags=ACK, data=b"", sequence=1, port=1000, ttl=64):
    ports = (80, port) if back else (port, 80)
    ends = {"source": TARGET4, "target": SOURCE4} if back else {}
    head = bytearray(tcp(*ports, flags=flags, data=data))
    head[4:8] = struct.pack(">I", sequence)
    packet = bytearray(ethernet(0x0800, ip4(6, bytes(head), **ends)))
    packet[14 + 8] = ttl
    return bytes(packet)


def table_of(**more):
    return FlowTable(1000, 1, **{"idle_ms": 10_000, "active_ms": 60_000, "closed_ms": 2_000} | more)


def rows_of(packets, times_ns, table=None, step=7, **more):
    """All rows by id, and whether those of flows that ended were handed out before the end."""
    table = table or table_of(**more)
    rows = []
    for start in range(0, len(packets), step):
        part = slice(start, start + step)
        table.add(batch_of(packets[part], times_ns=times_ns[part]))
        rows.append(table.ended())
    return np.sort(np.concatenate([*rows, table.export()]), order="id")


class Twin:
    """One flow, with everything that it saw."""

    def __init__(self, packet):
        turned = packet["flags"] & (SYN | ACK) == SYN | ACK
        self.source_back = packet["back"] != turned
        self.packets, self.letters = [], ["^"] if turned else []

    def add(self, packet):
        back = packet["back"] != self.source_back
        flags, found = packet["flags"], []
        if flags & SYN:
            found.append("H" if flags & ACK else "S")
        if packet["data"]:
            found.append("D")
        elif flags & (ACK | SYN | FIN | RST) == ACK:
            found.append("A")
        found += ["F"] * bool(flags & FIN) + ["R"] * bool(flags & RST)
        for letter in found:
            written = letter.lower() if back else letter
            if written not in self.letters:
                self.letters.append(written)
        self.packets.append((packet, back))

    @property
    def closed(self):
        both = {back for packet, back in self.packets if packet["flags"] & FIN}
        return len(both) == 2 or any(packet["flags"] & RST for packet, _ in self.packets)

    def over(self, packet):
        times = [each["time"] for each, _ in self.packets]
        gap, age = packet["time"] - max(times), packet["time"] - min(times)
        if gap > (CLOSED if self.closed else IDLE):
            return "closed" if self.closed else "idle"
        if age > ACTIVE:
            return "closed" if self.closed else "active"
        if packet["flags"] & (SYN | ACK) == SYN:
            if self.closed:
                return "closed"
            back = packet["back"] != self.source_back
            syns = [p for p, b in self.packets if b == back and p["flags"] & (SYN | ACK) == SYN]
            if syns:
                return "reused" if syns[0]["sequence"] != packet["sequence"] else ""
            more = any(each["data"] or each["flags"] & FIN for each, _ in self.packets)
            return "reused" if more or {"A", "a"} & set(self.letters) else ""
        return ""

    def row(self, ended):
        def of(back):
            chosen = [packet for packet, b in self.packets if b == back]
            flags = 0
            for packet in chosen:
                flags |= packet["flags"]
            ttls = [packet["ttl"] for packet in chosen] or [0]
            return len(chosen), sum(40 + len(packet["data"]) for packet in chosen), flags, min(ttls), max(ttls)

        return ended, "".join(self.letters), of(False), of(True)


def twin_rows(packets):
    flow, rows = None, []
    for packet in packets:
        if flow and (why := flow.over(packet)):
            rows.append(flow.row(why))
            flow = None
        flow = flow or Twin(packet)
        flow.add(packet)
    return [*rows, flow.row("closed" if flow.closed else "")]


PACKET = st.fixed_dictionaries(
    {
        "back": st.booleans(),
        "flags": st.sampled_from([SYN, SYN | ACK, ACK, ACK, ACK | 8, FIN | ACK, RST, RST | ACK]),
        "data": st.sampled_from([b"", b"", b"payload"]),
        "sequence": st.sampled_from([1, 1, 2]),
        "ttl": st.sampled_from([64, 64, 63, 255, 0]),
        "gap": st.sampled_from([0, 1, SECOND, CLOSED, CLOSED + 1, 5 * SECOND, IDLE, IDLE + 1, 9 * SECOND]),
    }
)


@given(st.lists(PACKET, min_size=1, max_size=60), st.integers(1, 20), st.integers(0, 4 * 10**18))
@settings(max_examples=200, deadline=None)
def test_flows_end_as_a_slow_twin_says(packets, step, begin):
    time = begin
    for packet in packets:
        time += packet["gap"]
        packet["time"] = time
    raw = [segment(p["back"], p["flags"], p["data"], p["sequence"], ttl=p["ttl"]) for p in packets]
    rows = rows_of(raw, [packet["time"] for packet in packets], step=step)
    found = []
    for row in rows:
        ways = [
            tuple(int(row[name + back]) for name in ("packets", "ip_bytes", "tcp_flags", "ttl_min", "ttl_max"))
            for back in ("", "_back")
        ]
        found.append((ENDED[int(row["ended"])], row["history"].decode(), *ways))
    assert found == twin_rows(packets)


# What the manual of Zeek's conn.log says of each state.
STATES_BY_HISTORY = {
    "S": "S0", "Sh": "S1", "ShADad": "S1", "ShADadFf": "SF", "ShADadfF": "SF", "Sr": "REJ", "ShF": "S2", "Shf": "S3",
    "ShADR": "RSTO", "ShAr": "RSTR", "SR": "RSTOS0", "SF": "SH", "^hr": "RSTRH", "^hf": "SHR", "Aa": "OTH", "Dd": "OTH",
    "R": "OTH",
}  # fmt: skip


def test_a_history_amounts_to_a_state():
    flags = {"S": SYN, "H": SYN | ACK, "A": ACK, "D": ACK, "F": FIN | ACK, "R": RST}
    for history, state in STATES_BY_HISTORY.items():
        letters = history.replace("^", "")
        packets = [
            segment(each.islower(), flags[each.upper()], b"x" if each.upper() == "D" else b"") for each in letters
        ]
        (row,) = rows_of(packets, list(range(len(packets))))
        assert (row["history"].decode(), STATES[row["state"]]) == (history, state)
    there, back = (
        (ethernet(0x0800, ip4(17, udp(1, 2)))),
        ethernet(0x0800, ip4(17, udp(2, 1), source=TARGET4, target=SOURCE4)),
    )
    for packets, history, state in (([there], "D", "S0"), ([there, back], "Dd", "SF")):
        (row,) = rows_of(packets, list(range(len(packets))))
        assert (row["history"].decode(), STATES[row["state"]]) == (history, state)
    (row,) = rows_of([ethernet(0x0800, ip4(1, icmp()))], [0])
    assert (row["history"], STATES[row["state"]]) == (b"", "OTH")


def test_flows_leave_while_the_capture_is_read():
    """A flow a second, for hours: the table never has more than those of the idle time and of half a sweep."""
    table = table_of()
    packets = [ethernet(0x0800, ip4(17, udp(1024 + i % 60_000, 53))) for i in range(20_000)]
    most = 0
    for start in range(0, len(packets), 500):
        part = range(start, start + 500)
        table.add(batch_of([packets[i] for i in part], times_ns=[i * SECOND for i in part]))
        most = max(most, table.count)
        assert {ENDED[why] for why in table.ended()["ended"].tolist()} <= {"idle"}
    assert most < 200


def test_how_the_capture_is_divided_into_batches_changes_nothing():
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, 4000, 3000)) * SECOND
    packets = [
        segment(bool(rng.integers(2)), int(rng.choice([SYN, ACK, FIN | ACK])), port=int(rng.integers(1, 40)))
        for _ in times
    ]
    packets[100], times[100] = segment(), 10**18  # far ahead of all others: it ends no flow but its own
    one, other, third = (rows_of(packets, times.tolist(), step=step) for step in (3000, 1, 77))
    assert one.tobytes() == other.tobytes() == third.tobytes()
    assert int((one["packets"] + one["packets_back"]).sum()) == len(packets)
    whole = rows_of(packets, times.tolist(), idle_ms=0, active_ms=0, closed_ms=0)
    assert len(whole) == 40  # ports 1 to 39, and 1000
    assert {ENDED[why] for why in whole["ended"].tolist()} == {""}


def test_lengths_tos_ttl_icmp_and_vlan_of_each_direction():
    ask = bytearray(ethernet(0x0800, ip4(17, udp(1000, 53, b"question")), [7]) + bytes(9))  # padded by 9 bytes
    ask[18 + 1], ask[18 + 8] = 0xB8, 61
    answer = bytearray(ethernet(0x0800, ip4(17, udp(53, 1000, b"answers"), source=TARGET4, target=SOURCE4), [7]))
    answer[18 + 1], answer[18 + 8] = 0x20, 250
    (row,) = rows_of([bytes(ask), bytes(answer), bytes(answer)], [0, 1, 2])
    assert [row[n] for n in ("ip_bytes", "payload_bytes", "tos", "ttl_min", "ttl_max")] == [36, 8, 0xB8, 61, 61]
    back = [row[f"{n}_back"] for n in ("ip_bytes", "payload_bytes", "tos", "ttl_min", "ttl_max")]
    assert back == [70, 14, 0x20, 250, 250]
    assert (row["bytes"], row["bytes_back"], row["vlan"][0]) == (len(ask), 2 * len(answer), 7)
    echo = ethernet(0x86DD, ip6(58, bytes([128, 3, 0, 0, 1, 2, 3, 4, 5])))
    (row,) = rows_of([echo], [0])
    assert (row["icmp_type"], row["icmp_code"], row["ip_bytes"]) == (128, 3, 49)


def test_first_packets_have_lengths_and_gaps():
    packets = [segment(), segment(back=True, data=b"abc"), segment(data=b"xy"), segment()]
    (row,) = rows_of(packets, [10, 25, 27, 90], first_packets=3)
    size = len(packets[0])
    assert (row["first_count"], row["first_lengths"].tolist()) == (3, [size, -(size + 3), size + 2])
    assert row["first_gaps_ns"].tolist() == [0, 15, 2]
    assert row["packets"] == 3


def test_sums_beyond_32_bits_and_lengths_that_a_record_invents():
    table = table_of()
    for _ in range(3):
        table.add(batch_of([segment(data=b"ab")] * 3, wire_lengths=[0xFFFFFFFF, 0x7FFFFFFF, 1], times_ns=[1, 2, 3]))
    (row,) = table.export()
    assert (row["packets"], row["bytes"]) == (9, 3 * (0xFFFFFFFF + 0x7FFFFFFF + 1))
    assert (row["ip_bytes"], row["payload_bytes"], row["history"]) == (9 * 42, 18, b"D")


def test_a_packet_without_time_takes_that_of_the_one_before():
    batch = batch_of([segment()] * 3, times_ns=[10**18, 0, 10**18 + 5])
    batch.record[1] = 4
    table = table_of()
    table.add(batch)
    (row,) = table.export()
    assert (row["packets"], row["first_ns"], row["last_ns"]) == (3, 10**18, 10**18 + 5)
