"""--decode-as: which UDP ports are tried for which tunnel, in one run and not in another; as tshark does."""

import subprocess
import threading

import pytest

import streamcore
from streamcore.core.errors import UsageError
from streamcore.headers import udp_ports
from streamcore.headers._walk import explain
from tests.streamcore.conftest import COMMAND, read_pcap, write_pcap

pytest.importorskip("scapy", reason="scapy makes the packets: pip install -e .[dev]")
from tests.streamcore.headers.made_packets import KINDS, Fields, frame, over_udp
from tests.streamcore.headers.test_tshark import as_tshark_reads, as_we_read, needs_tshark, write

VXLAN = b"\x08\0\0\0\0\0\x07\0" + bytes(frame(Fields()))
OVER_UDP = {  # tunnel: the kind of made packet, its own port, tshark's name for it
    "vxlan": ("vxlan", 4789, "vxlan"),
    "geneve": ("geneve", 6081, "geneve"),
    "gtp": ("gtp", 2152, "gtp"),
    "lisp": ("lisp", 4341, "lisp-data"),
    "mpls": ("mpls in udp", 6635, "mpls"),
    "tzsp": ("tzsp", 37_008, "tzsp"),
}


def tunnel(packet, *decode_as):
    return explain(packet, 1, udp_ports(decode_as))[3:5]


def moved(packet, port, other):
    """A packet whose UDP ports `port` are `other` instead; IPv4 without options on Ethernet."""
    ports = packet[34:38].replace(port.to_bytes(2, "big"), other.to_bytes(2, "big"))
    return packet[:34] + ports + packet[38:40] + b"\0\0" + packet[42:]


@pytest.mark.parametrize("text", ["udp.port=8472,vxlan", "udp.port==8472,vxlan"])
def test_a_port_that_is_added_is_tried_and_only_there(text):
    packet = over_udp(VXLAN, 8472)
    assert tunnel(packet) == ("", 0)
    assert tunnel(packet, text) == ("vxlan", 7)
    assert tunnel(packet) == ("", 0)
    assert tunnel(over_udp(VXLAN, 4789), text) == ("vxlan", 7)
    assert tunnel(over_udp(b"\1" + VXLAN, 8472), text) == ("", 0)  # it does not look like one


def test_a_standard_port_may_be_given_another_tunnel():
    assert tunnel(over_udp(VXLAN, 6081), "udp.port=6081,vxlan") == ("vxlan", 7)


@needs_tshark
def test_as_tshark_decodes_it(tmp_path):
    """Each tunnel at a port of ours, 7001 and after; in one run of tshark, and of ours each by itself."""
    varied = [Fields(number=n, six=n % 2 == 0, flag=n % 3 == 0, ports=(20_001, 20_002 + n)) for n in range(16, 28)]
    made, decode_as = [], []
    for other, (name, (kind, port, their_name)) in enumerate(OVER_UDP.items(), 7001):
        link, make = KINDS[kind]
        made += [(name, other, link, moved(make(fields), port, other)) for fields in varied]
        decode_as += ["-d", f"udp.port=={other},{their_name}"]
    write(tmp_path / "made.pcapng", [(link, packet) for _, _, link, packet in made])
    for (name, other, link, packet), theirs in zip(
        made, as_tshark_reads(tmp_path / "made.pcapng", *decode_as), strict=True
    ):
        assert len(theirs) == 3, name  # two IP headers and the ports: tshark followed the tunnel
        assert as_we_read(packet, link, udp_ports([f"udp.port={other},{name}"])) == theirs, name


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (["vxlan"], "udp.port=NUMBER,TUNNEL"),
        (["udp.port=8472"], "udp.port=NUMBER,TUNNEL"),
        (["tcp.port=8472,vxlan"], "udp.port=NUMBER,TUNNEL"),
        (["udp.port=8472,vxlan,gtp"], "udp.port=NUMBER,TUNNEL"),
        (["udp.port=0,vxlan"], "0 is not a UDP port"),
        (["udp.port=65536,vxlan"], "65536 is not a UDP port"),
        (["udp.port=8472,vxlam"], "no tunnel 'vxlam'"),
        (["udp.port=1,vxlan", "udp.port=1,gtp"], "port 1 is given to vxlan and gtp"),
    ],
)
def test_a_bad_value_is_one_line_and_status_2(given, match, tmp_path):
    with pytest.raises(UsageError, match=match):
        udp_ports(given)
    capture = write_pcap(tmp_path / "in.pcap", [over_udp(VXLAN, 8472)])
    flags = [word for text in given for word in ("--decode-as", text)]
    for words in (["packets", "--tsv", "-"], ["flows"], ["run", "-w", str(tmp_path / "out.pcap")]):
        told = subprocess.run([*COMMAND, *words, "-r", str(capture), *flags], capture_output=True, text=True)
        assert (told.returncode, told.stdout, told.stderr.count("\n")) == (2, "", 1), told.stderr
    assert not (tmp_path / "out.pcap").exists()
    with pytest.raises(UsageError, match=match):
        streamcore.read(capture, decode_as=given)


def test_every_way_to_give_it(tmp_path):
    capture = str(write_pcap(tmp_path / "in.pcap", [over_udp(VXLAN, 8472)]))
    (batch,) = streamcore.read(capture, decode_as=["udp.port=8472,vxlan"])
    assert (batch.depth.tolist(), batch.tunnel_id.tolist()) == ([2], [7])
    file = tmp_path / "keys.toml"
    file.write_text('decode-as = ["udp.port=1,gtp", "udp.port=8472,vxlan"]\n')
    flags = ["--decode-as", "udp.port=1,gtp", "--decode-as", "udp.port=8472,vxlan"]
    for words in (["packets", "--tsv", "-"], ["flows", "--csv"]):
        for given in (flags, ["--config", str(file)]):
            told = subprocess.run([*COMMAND, *words, "-r", capture, *given], capture_output=True, text=True, check=True)
            head, row = (line.split("\t" if "\t" in line else ",") for line in told.stdout.splitlines())
            told_row = dict(zip(head, row, strict=True))
            assert (told_row["tunnel_kind"], told_row["tunnel_id"]) == ("vxlan", "7")


def test_two_runs_in_one_process_each_use_their_own_ports(tmp_path):
    """The workers too: they strip what the run's table says is a tunnel."""
    packets = [over_udp(VXLAN, port) for port in (8472, 9999)] * 50
    capture = str(write_pcap(tmp_path / "in.pcap", packets))
    wanted = {8472: [VXLAN[8:], packets[1]] * 50, 9999: [packets[0], VXLAN[8:]] * 50}
    begin, failed = threading.Barrier(2), []

    def run(port):
        out = tmp_path / f"{port}.pcap"
        keys = {"read": capture, "write": str(out), "service": ["decapsulate"], "workers": 1, "quiet": True}
        begin.wait(30)
        try:
            streamcore.Pipeline(streamcore.Config(**keys, decode_as=[f"udp.port={port},vxlan"])).run()
            assert [packet for _, packet in read_pcap(out)] == wanted[port]
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(port,)) for port in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
