"""`anonymise` on real captures: addresses are Crypto-PAn's, checksums that were right still are, wrong ones still are
wrong, and those of a pseudo-header alone still are that.

Where the headers stand is taken from parse/, and checksums are summed up here, so nothing of the walk under test is
used.
"""

from __future__ import annotations

import ipaddress
import struct
from functools import cache
from pathlib import Path

import pytest
from packets_by_hand import packets_of, run
from yacryptopan import CryptoPAn

from streamcore.core.errors import SourceError
from streamcore.core.packets import Segment
from streamcore.service.anonymise import Anonymise
from streamcore.tools.reader import read

CORPUS = Path(__file__).parents[4] / "shared" / "corpus" / "dev"
SHIPPED = Path(__file__).parents[3] / "examples" / "office.pcapng"
ENDINGS = {".pcap", ".pcapng", ".cap"}
PACKETS_MAX = 1500  # of one capture: the oracle takes some 100 us for an address of IPv4, and 400 for one of IPv6
KEY = bytes(range(32))
PARTIAL = -1
NONE = -2


@cache
def mapped(address: bytes) -> bytes:
    return (
        oracle()
        .anonymize_bin(int.from_bytes(address, "big"), 4 if len(address) == 4 else 6)
        .to_bytes(len(address), "big")
    )


@cache
def oracle() -> CryptoPAn:
    return CryptoPAn(KEY)


def total(data: bytes) -> int:
    """The sum of RFC 1071: 0xFFFF over data with a right checksum in it."""
    value = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2])) + (
        data[-1] << 8 if len(data) % 2 else 0
    )
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def sums(packet: bytes, version: int, protocol: int, l3: int, l4: int, fragment: bool) -> list[int]:
    """What the checksums of the outermost IP header and of the TCP, UDP or ICMP in it add up to, where all of it is
    captured; PARTIAL: it is the sum of the pseudo-header alone; NONE: it is zero, and wrong.
    """
    found = []
    if version == 4 and len(packet) >= l3 + 20:
        found.append(total(packet[l3 : l3 + 4 * (packet[l3] & 15)]))
        if packet[l3 + 10 : l3 + 12] == b"\0\0" and found[0] != 0xFFFF:
            found[0] = NONE
        stop = l3 + struct.unpack_from(">H", packet, l3 + 2)[0]
        ends = packet[l3 + 12 : l3 + 20]
    elif version == 6 and len(packet) >= l3 + 40:
        stop = l3 + 40 + struct.unpack_from(">H", packet, l3 + 4)[0]
        ends = packet[l3 + 8 : l3 + 40]
    else:
        return found
    if l4 - l3 != (20 if version == 4 else 40):
        return found  # options may name another target, which the checksum covers: test_anonymise.py has such
    if fragment or l4 == 65535 or stop > len(packet) or stop < l4 + (20 if protocol == 6 else 8):
        return found
    upper = packet[l4:stop]
    if protocol == 1:
        found.append(total(upper))
    elif protocol in (6, 58) or (protocol == 17 and upper[6:8] != b"\0\0"):
        around = ends + struct.pack(">HH", 0, protocol)
        told = int.from_bytes(upper[16:18] if protocol == 6 else upper[6:8], "big")
        found.append(total(around + struct.pack(">H", len(upper)) + upper))
        if (
            protocol != 58
            and found[-1] != 0xFFFF
            and told in (total(around + struct.pack(">H", len(upper))), total(around))
        ):
            found[-1] = PARTIAL
    at = {1: 2, 6: 16, 58: 2}.get(protocol)
    if at is not None and upper[at : at + 2] == b"\0\0" and found[-1] != 0xFFFF:
        found[-1] = NONE
    return found


def check(path: Path) -> tuple[int, int]:
    """(checksums that were right, packets with an address)."""
    right = with_address = seen = 0
    service = Anonymise(key=KEY.hex(), unknown="pass")
    service.start()
    for batch in read(path):
        count = min(len(batch), PACKETS_MAX - seen)
        seen += count
        segment = Segment(0, batch, 0, count)
        after = packets_of(run(segment, service))
        for row in range(count):
            before = batch.packet(row).tobytes()
            version, l3 = int(batch.ip_version[row]), int(batch.l3_offset[row])
            if not version:
                continue
            at, size = (l3 + 12, 4) if version == 4 else (l3 + 8, 16)
            ends = before[at : at + size], before[at + size : at + 2 * size]
            if len(ends[1]) < size:
                continue
            with_address += 1
            assert after[row][at : at + 2 * size] == mapped(ends[0]) + mapped(ends[1]), (
                row,
                ipaddress.ip_address(ends[0]),
            )
            fragment = bool(batch.flags[row] & 4)
            more = version, int(batch.protocol[row]), l3, int(batch.l4_offset[row]), fragment
            sums_before = sums(before, *more)
            assert [s if s < 0 else s % 0xFFFF for s in sums(after[row], *more)] == [
                s if s < 0 else s % 0xFFFF for s in sums_before
            ], row
            right += sums_before.count(0xFFFF)
        if seen >= PACKETS_MAX:
            break
    return right, with_address


def captures() -> list[Path]:
    return sorted(path for path in CORPUS.rglob("*") if path.suffix in ENDINGS) if CORPUS.is_dir() else []


def test_the_shipped_capture():
    right, with_address = check(SHIPPED)
    assert right > 1000
    assert with_address > 1000


@pytest.mark.corpus
@pytest.mark.skipif(not captures(), reason=f"the capture corpus is not at {CORPUS}")
@pytest.mark.filterwarnings("ignore::streamcore.tools.reader.DamageWarning")
def test_captures_of_the_corpus():
    right = checked = 0
    for path in captures():
        try:
            more = check(path)
        except SourceError:
            continue  # no capture, and the reader says so: its own tests are about that
        except AssertionError as error:
            raise AssertionError(f"{path.relative_to(CORPUS)}: {error}") from error
        right += more[0]
        checked += more[1]
    assert right > 10_000
    assert checked > 10_000
