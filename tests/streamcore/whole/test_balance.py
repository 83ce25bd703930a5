"""in = out + dropped, by packets and by bytes, whatever the services do; what was written is counted anew by dpkt."""

import itertools
from pathlib import Path

import dpkt
import pytest

from tests.streamcore.conftest import run_command

OFFICE = Path(__file__).parents[3] / "examples" / "office.pcapng"
EXAMPLE = f"{OFFICE.parent / 'dns_only.py'}:DnsOnly"

CHAINS = [
    [],
    ["slice:0"],
    ["anonymise", "slice:20"],
    ["dedup"],
    ["slice:0", "dedup:packets=5000"],  # cut, so that many are the same, and then dropped
    [EXAMPLE],
    [EXAMPLE, "slice:0"],  # cut what an earlier service has left
    ["slice:0", EXAMPLE],  # dropped after they were cut
    ["scan:text=SIP/2.0", "count"],
]


def sizes(path):
    with open(path, "rb") as file:
        return [len(frame) for _, frame in dpkt.pcapng.Reader(file)]


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "+".join(map(str, chain)).rpartition("/")[2] or "nothing")
@pytest.mark.parametrize(("policy", "order"), [("flow", "total"), ("run", "none")])
def test_the_account_of_a_run(chain, policy, order, tmp_path):
    flags = list(itertools.chain.from_iterable(("--service", service) for service in chain))
    flags += ["--policy", policy, "--order", order, "--segment-packets", "150", "-n", "2", "ip"]
    run = run_command("-r", OFFICE, "-w", tmp_path / "out.pcapng", *flags)
    assert run.status == 0, run.stderr
    read, written = sizes(OFFICE), sizes(tmp_path / "out.pcapng")
    packets, told = run.json["packets"], run.json["bytes"]
    assert (packets["read"], told["read"]) == (len(read), sum(read))
    assert (packets["written"], told["written"]) == (len(written), sum(written))
    assert packets["read"] == packets["written"] + sum(packets["dropped"].values())
    assert told["read"] + told["resized"] == told["written"] + sum(told["dropped"].values())
    assert (told["resized"] < 0) == any("slice" in service for service in chain)
    if any(name in service for service in chain for name in ("dedup:", "Dns")):
        assert len(packets["dropped"]) > 1
    else:  # anonymise drops a fragment whose first one is in another segment
        assert set(packets["dropped"]) <= {
            "filter.not_matched",
            "service.not_understood",
            "service.first_fragment_elsewhere",
        }
    assert "unbalanced" not in run.json
