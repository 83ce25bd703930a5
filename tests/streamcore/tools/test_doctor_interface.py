"""`doctor -i`: what it says of an interface is what ethtool and ip say of it. The oracle is ethtool."""

import json
import re
import subprocess
import time

from tests.streamcore.conftest import COMMAND
from tests.streamcore.namespaces import join, namespaces


def told_in(namespace, interface, *before):
    """(exit status, {what: (state, words)}) of the doctor in a namespace."""
    command = namespace.command(*before, *COMMAND, "doctor", "-i", interface, "--json")
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = {each["what"]: (each["state"], each["words"]) for each in json.loads(run.stdout)["findings"]}
    return run.returncode, found


def switched_on(namespace, interface):
    """The offloads that merge packets and that ethtool shows as on."""
    shown = namespace.run("ethtool", "-k", interface).stdout
    names = {
        "tcp-segmentation-offload": "tso",
        "generic-segmentation-offload": "gso",
        "generic-receive-offload": "gro",
        "large-receive-offload": "lro",
    }
    return {names[name] for name in re.findall(r"^([\w-]+): on", shown, re.MULTILINE) if name in names}


def test_a_pair_as_it_should_be(pair):
    status, told = told_in(pair[0], "near")
    assert status == 0
    assert told["capability"] == ("ok", "CAP_NET_RAW")
    assert told["interface"] == ("ok", "near is up")
    assert told["driver"][1].startswith("veth")
    assert told["offloads"][0] == told["checksums"][0] == "ok"
    assert switched_on(pair[0], "near") == set()
    assert told["mtu"] == ("ok", "1500 bytes: frames of up to 1514 without VLAN tags can be sent")


def test_offloads_that_merge_packets_are_named(root_and_namespaces):
    with namespaces(2) as (left, right):
        join(left, "near", right, "far", mtu=9000, offloads=True)
        on = switched_on(left, "near")
        assert on  # or there is nothing to see here
        status, told = told_in(left, "near")
        assert (status, told["offloads"][0], told["checksums"][0]) == (0, "ok", "ok")
        assert set(told["offloads"][1].partition(" merge ")[0].split(", ")) == on
        assert told["checksums"][1].startswith("left to the hardware")
        assert told["mtu"][1].startswith("9000 bytes: frames of up to 9014")


def test_what_is_down_has_no_carrier_or_is_not_there(pair):
    left, right = pair
    right.set_link("far", "down")
    deadline = time.monotonic() + 10
    while "LOWER_UP" in left.run("ip", "link", "show", "near").stdout:  # the kernel tells the other end in its own time
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert told_in(left, "near")[1]["interface"] == (
        "missing", "near has no carrier: nothing is connected to it"
    )  # fmt: skip
    assert told_in(right, "far")[1]["interface"] == ("missing", "far is down: ip link set far up")
    status, told = told_in(left, "nowhere")
    assert (status, told["interface"]) == (1, ("broken", "there is no nowhere here: 'ip link' lists the interfaces"))
    assert told_in(left, "any")[0] == 0


def test_without_the_right(pair):
    status, told = told_in(pair[0], "near", "setpriv", "--bounding-set=-net_raw")
    assert (status, told["capability"][0]) == (1, "broken")
