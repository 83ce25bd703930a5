"""A slow reader of IPFIX messages (RFC 7011), and what a record says beside the flow that it is of.

It reads what our writer may write, and refuses all else: lengths that vary, options, padding.
"""

import struct

from streamcore.headers import TUNNELS
from streamcore.parse.flow_rows import ENDED

REVERSE = 29_305  # the enterprise number of the reverse direction (RFC 5103)
SECONDS_1900_TO_1970 = 2_208_988_800
# Field of a flow -> (enterprise, element) of IANA's registry.
OF_ALL = {
    "id": (0, 148), "packets": (0, 2), "packets_back": (REVERSE, 2), "bytes": (0, 352), "bytes_back": (REVERSE, 352),
}  # fmt: skip
OF_IP = {
    "ip_bytes": (0, 1), "ip_bytes_back": (REVERSE, 1), "source_port": (0, 7), "target_port": (0, 11),
    "protocol": (0, 4), "tcp_flags": (0, 6), "tcp_flags_back": (REVERSE, 6), "tos": (0, 5), "tos_back": (REVERSE, 5),
    "ttl_min": (0, 52), "ttl_max": (0, 53), "ttl_min_back": (REVERSE, 52), "ttl_max_back": (REVERSE, 53),
}  # fmt: skip
END_REASONS = {"idle": 1, "active": 2, "closed": 3, "reused": 3, "": 4, "evicted": 5}  # flowEndReason


class BadIpfix(Exception):
    """These are no messages that the reader reads; str() says why."""


def ipfix_records(raw):
    """(records as {(enterprise, element): bytes}, lengths of the messages). Raises BadIpfix, and nothing else: whatever
    stands there takes time in proportion to its length, because each element of a record takes a byte at least."""
    templates, records, lengths, at = {}, [], [], 0
    while at < len(raw):
        version, length, _, sequence, domain = _unpacked(">HHIII", raw, at, len(raw))
        _must((version, domain) == (10, 1), f"version {version}, domain {domain}")
        _must(sequence == len(records), f"sequence {sequence} after {len(records)} records")
        _must(16 <= length <= len(raw) - at, f"a message of {length} bytes")
        lengths.append(length)
        set_at, at = at + 16, at + length
        while set_at < at:
            number, size = _unpacked(">HH", raw, set_at, at)
            _must(4 <= size <= at - set_at, f"a set of {size} bytes")
            begin, set_at = set_at + 4, set_at + size
            if number == 2:
                templates |= _templates(raw, begin, set_at)
                continue
            _must(number in templates, f"a set {number} without a template")
            records += _records(raw, begin, set_at, templates[number])
    return records, lengths


def _records(raw, at, end, elements):
    width = sum(size for _, size in elements)
    _must((end - at) % width == 0, f"{end - at} bytes of records of {width}")
    found = []
    while at < end:
        record = {}
        for name, size in elements:
            record[name] = raw[at : at + size]
            at += size
        found.append(record)
    return found


def _templates(raw, at, end):
    found = {}
    while at < end:
        number, count = _unpacked(">HH", raw, at, end)
        at, elements = at + 4, {}
        _must(number >= 256 and count > 0, f"a template {number} of {count} elements")
        for _ in range(count):
            element, size = _unpacked(">HH", raw, at, end)
            (enterprise,) = _unpacked(">I", raw, at + 4, end) if element & 0x8000 else (0,)
            at += 8 if element & 0x8000 else 4
            name = (enterprise, element & 0x7FFF)
            _must(name not in elements, f"element {name} twice")
            _must(0 < size < 0xFFFF, f"element {name} of {size} bytes")
            elements[name] = size
        found[number] = list(elements.items())
    return found


def _unpacked(layout, raw, at, end):
    _must(at + struct.calcsize(layout) <= end, f"an end within what begins at byte {at}")
    return struct.unpack_from(layout, raw, at)


def _must(holds, words):
    if not holds:
        raise BadIpfix(words)


def record_of(row):
    """What the record of a flow holds, from the flow's row. Times have nanoseconds and both eras of NTP."""
    record = {element: _number(row, name) for name, element in OF_ALL.items()}
    for milliseconds, nanoseconds, name in ((152, 156, "first_ns"), (153, 157, "last_ns")):
        record[0, milliseconds] = (int(row[name]) // 10**6).to_bytes(8, "big")
        seconds, rest_ns = divmod(int(row[name]), 10**9)
        fraction = -(-(rest_ns << 32) // 10**9)  # the first one that is not before it
        record[0, nanoseconds] = struct.pack(">II", (seconds + SECONDS_1900_TO_1970) & 0xFFFFFFFF, fraction)
    record[0, 136] = bytes([END_REASONS[ENDED[int(row["ended"])]]])
    record[0, 239] = b"\1"  # the source is the initiator
    record[0, 56], record[0, 80] = row["source_mac"].tobytes(), row["target_mac"].tobytes()
    record[0, 58] = int(row["vlan"][0]).to_bytes(2, "big")
    if not row["ip_version"]:
        record[0, 256] = _number(row, "ether_type")
        return record
    record |= {element: _number(row, name) for name, element in OF_IP.items()}
    is_four = row["ip_version"] == 4
    for element, name in (((8, 27), "source_address"), ((12, 28), "target_address")):
        record[0, element[not is_four]] = row[name].tobytes()[12 if is_four else 0 :]
    is_icmp = row["protocol"] in (1, 58)
    record[0, 32 if is_four else 139] = bytes([row["icmp_type"], row["icmp_code"]]) if is_icmp else b"\0\0"
    tunnel = TUNNELS[int(row["tunnel_kind"])]
    if tunnel == "vxlan":
        record[0, 351] = b"\1" + int(row["tunnel_id"]).to_bytes(7, "big")
    elif tunnel == "gtp":
        record[0, 507] = _number(row, "tunnel_id")
    return record


def _number(row, name):
    return int(row[name]).to_bytes(row[name].dtype.itemsize, "big")
