"""Nothing leaks: captures whose addresses are known go through the command, and what comes out holds none of them.

Each needle is sought as bytes, as text, and reversed. Who is asked whether checksums are still right is tshark.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parents[4] / "shared" / "cases"
NO_CASES = pytest.mark.skipif(not CASES.is_dir(), reason=f"the inputs that failed are not at {CASES}")
TSHARK = shutil.which("tshark")
KEY = "5ec2e7" * 10 + "cafe"  # with a key at random, one in some hundred runs writes a needle's bytes by chance
OK, LOSS = 0, 3


def anonymise(source: Path, target: Path, options: str = "", status: int = OK) -> dict:
    """The account of `streamcore run`."""
    service = "anonymise:" + ",".join(filter(None, (options, f"key={KEY}")))
    command = [sys.executable, "-m", "streamcore", "run", "-r", source, "-w", target, "--service", service, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def needles_of(*texts: str) -> dict[str, list[bytes]]:
    """Every form in which an address, a hardware address or a name may stand in a file."""
    told = {}
    for text in texts:
        try:
            raw = ipaddress.ip_address(text).packed
        except ValueError:
            raw = bytes.fromhex(text.replace(":", "")) if text.count(":") == 5 else b""
        written = [text.encode(), text.upper().encode(), text.encode("utf-16-le")]
        told[text] = [*written, raw, raw[::-1]] if raw else written
    return told


def leaks(path: Path, *texts: str) -> list[str]:
    data = path.read_bytes()
    return [text for text, forms in needles_of(*texts).items() if any(form in data for form in forms)]


@NO_CASES
@pytest.mark.parametrize("ending", ["pcapng", "pcapng.gz"])
def test_blocks_say_no_more_than_reading_takes(tmp_path, ending):
    """packets/A02"""
    source, target = CASES / "packets" / "A02-anonymise-pcapng-metadata" / "meta.pcapng", tmp_path / f"out.{ending}"
    account = anonymise(source, target, "share")
    if ending.endswith("gz"):
        import gzip

        data = gzip.decompress(target.read_bytes())
        target = tmp_path / "out.pcapng"
        target.write_bytes(data)
    assert account["packets"]["written"] == 2
    assert account["metadata_removed"] >= 10
    before = source.read_bytes()
    for text in (b"alice", b"10.1.2.3", b"host ", b"CLIENT_RANDOM", b"secret"):
        assert text not in target.read_bytes(), text
    assert b"10.1.2.3" in before
    assert not leaks(target, "10.1.2.3")


@NO_CASES
def test_addresses_of_interfaces(tmp_path):
    """corpus/interface-address-option"""
    source, target = CASES / "corpus" / "interface-address-option.pcapng", tmp_path / "out.pcapng"
    assert b"192.168.77.5" in source.read_bytes()
    anonymise(source, target)
    assert not leaks(target, "192.168.77.5")


@NO_CASES
@pytest.mark.parametrize("name", ["wifi", "ppp", "ppphdlc", "chdlc", "nflog", "pktap"])
def test_link_types(tmp_path, name):
    """packets/A04: addresses are replaced, or the packet is dropped and counted."""
    source, target = CASES / "packets" / "A04-anonymise-link-types" / f"{name}.pcap", tmp_path / "out.pcap"
    account = anonymise(source, target)
    assert not leaks(target, "10.0.0.1", "192.0.2.7")
    assert account["packets"]["written"] + account["packets"]["dropped"].get("service.not_understood", 0) == 1


@NO_CASES
@pytest.mark.parametrize("name", ["hide", "more"])
@pytest.mark.parametrize("options", ["", "share", "payload=truncate", "unknown=truncate", "mac=zero"])
def test_inner_headers_and_messages(tmp_path, name, options):
    """packets/A05"""
    source, target = CASES / "packets" / "A05-anonymise-inner" / f"{name}.pcap", tmp_path / "out.pcap"
    account = anonymise(source, target, options)
    assert not leaks(target, *ordinary(addresses_of(source)))
    assert account["packets"]["written"] >= 3


@NO_CASES
@pytest.mark.parametrize("name", ["chdlc-lt104", "gre-ip", "gtp-u", "ospfv3", "ppp-lt9", "vxlan"])
def test_real_captures(tmp_path, name):
    """corpus: what tshark reads of it shows no address of before."""
    source, target = CASES / "corpus" / f"{name}.pcap", tmp_path / "out.pcap"
    anonymise(source, target, "share")
    assert not leaks(target, *ordinary(addresses_of(source)))


@NO_CASES
def test_special_addresses_stay_where_that_is_asked_for(tmp_path):
    """packets/C07"""
    source, target = CASES / "packets" / "C07-anonymise-special" / "special.pcap", tmp_path / "out.pcap"
    before = addresses_of(source)
    anonymise(source, target, "special=keep")
    after = addresses_in(target)
    special = {each for each in before if is_special(each)}
    assert len(special) >= 6
    assert special <= after
    assert not {each for each in before - special if not each.startswith("169.254.")} & after
    anonymise(source, target)
    assert not special & addresses_in(target)


def ordinary(addresses: set[str]) -> list[str]:
    """Those that name one host."""
    return [each for each in addresses if not is_special(each)]


def is_special(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return address.is_multicast or address.is_loopback or address.is_unspecified or text == "255.255.255.255"


@functools.cache  # of an input that is read with several options
def addresses_of(path: Path) -> set[str]:
    return addresses_in(path)


def addresses_in(path: Path) -> set[str]:
    """Every address of IP and ARP that tshark sees."""
    if TSHARK is None:
        pytest.skip("tshark is not installed")
    fields = ["ip.addr", "ipv6.addr", "arp.src.proto_ipv4", "arp.dst.proto_ipv4"]
    command = [TSHARK, "-n", "-r", path, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,"]
    done = subprocess.run(
        command + [part for field in fields for part in ("-e", field)], capture_output=True, text=True, check=True
    )
    return {each for each in done.stdout.replace("\t", ",").replace("\n", ",").split(",") if each}
