"""Flows beside nfpcapd's, added up for each direction of addresses, ports and protocol, on 30 captures of the corpus.

What the two do not see alike stands in docs/columns.md; captures with such packets are not in the list.
"""

import csv
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from streamcore.core.config import Config
from streamcore.tools.flows.reading import write_flows

CORPUS = Path(__file__).parents[4] / "shared" / "corpus" / "dev"
NUMBERS = {"TCP": 6, "UDP": 17, "ICMP": 1, "ICMP6": 58, "IGMP": 2, "OSPF": 89}
CAPTURES = """
CESNET+ipfixprobe/tests__functional__inputs__rtsp.pcap
CESNET+ipfixprobe/tests__functional__inputs__wg.pcap
LibtraceTeam+libtrace/test__traces__8021x.pcap
OISF+suricata-verify/tests__igmp__igmp-v1-v2-rgmp-01__wireshark-wiki-IGMP-dataset.pcap
OISF+suricata-verify/tests__lua__lua-transform-10-bug-8173__suri-crash-13.107.253.70-only.pcap
OISF+suricata-verify/tests__smb-filename__input.pcap
OISF+suricata-verify/tests__vxlan-decoder-03__vxlan.pcap
arkime+arkime/tests__pcap__mpls-basic.pcap
arkime+arkime/tests__pcap__ntlm_synthetic.pcap
arkime+arkime/tests__pcap__ospf.pcap
cisco+mercury/test__data__test_decrypt.pcap
cisco+mercury/unit_tests__pcaps__dns_packet.capture2.pcap
cisco+mercury/unit_tests__pcaps__geneve.pcap
cisco+mercury/unit_tests__pcaps__mdns_capture.pcap
cisco+mercury/unit_tests__pcaps__quic-crypto-packets.pcap
cisco+mercury/unit_tests__pcaps__quic_ppp.pcap
google+gopacket/pcap__test_loopback.pcap
kbandla+dpkt/examples__data__nb6-http.pcap
nfstream+nfstream/tests__pcaps__anydesk.pcap
nfstream+nfstream/tests__pcaps__mdns.pcap
nfstream+nfstream/tests__pcaps__no_sni.pcap
nfstream+nfstream/tests__pcaps__pps.pcap
nfstream+nfstream/tests__pcaps__wa_video.pcap
nfstream+nfstream/tests__pcaps__zoom.pcap
ntop+nDPI/tests__cfgs__default__pcap__1kxun.pcap
ntop+nDPI/tests__cfgs__default__pcap__bfd.pcap
ntop+nDPI/tests__cfgs__default__pcap__capwap.pcap
ntop+nDPI/tests__cfgs__default__pcap__cassandra.pcap
ntop+nDPI/tests__cfgs__default__pcap__dos_win98_smb_netbeui.pcap
ntop+nDPI/tests__cfgs__default__pcap__dtls.pcap
""".strip().splitlines()


def of_nfpcapd(capture, directory):
    """(protocol, source, target, ports) -> [packets, bytes of IP]."""
    directory.mkdir()
    words = ["nfpcapd", "-r", str(capture), "-w", str(directory), "-t", "3600"]
    subprocess.run(words, capture_output=True, check=True, timeout=60)
    form = "fmt:%pr,%sa,%da,%sp,%dp,%pkt,%byt"
    words = ["nfdump", "-q", "-R", str(directory), "-o", form, "-N", "-6"]
    text = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    sums = Counter()
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == 7:
            protocol, source, target, *ports, packets, size = (cell.strip() for cell in row)
            number = NUMBERS.get(protocol) or int(protocol)
            add(sums, number, source, target, ports if number in (6, 17) else (0, 0), int(packets), int(size))
    return sums


def add(sums, protocol, source, target, ports, packets, size):
    key = (protocol, source, target, *map(int, ports))
    if packets:
        sums[key, "packets"] += packets
        sums[key, "bytes"] += size


def of_ours(capture, out):
    assert write_flows(Config(read=str(capture)), str(out), "json") == 0
    sums = Counter()
    for row in map(json.loads, out.read_text().splitlines()):
        if row["ip_version"]:
            there, back = row["source_address"], row["target_address"]
            ports = (row["source_port"], row["target_port"]) if row["protocol"] in (6, 17) else (0, 0)
            add(sums, row["protocol"], there, back, ports, row["packets"], row["ip_bytes"])
            add(sums, row["protocol"], back, there, ports[::-1], row["packets_back"], row["ip_bytes_back"])
    return sums


def test_flows_add_up_to_those_of_nfpcapd(tmp_path):
    if not shutil.which("nfpcapd"):
        pytest.skip("nfdump is not installed")
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not beside this tree")
    assert len(CAPTURES) == 30
    for number, name in enumerate(CAPTURES):
        theirs = of_nfpcapd(CORPUS / name, tmp_path / str(number))
        assert theirs, name
        assert of_ours(CORPUS / name, tmp_path / "out.json") == theirs, name
