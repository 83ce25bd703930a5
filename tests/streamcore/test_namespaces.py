"""The namespaces that live tests stand on: what is sent at one end arrives at the other, and nothing is left behind."""

import socket
import subprocess
from pathlib import Path

ALL_PROTOCOLS = 3
FRAME = b"\2" * 6 + b"\4" * 6 + b"\x88\xb5" + bytes(range(50))


def test_a_frame_goes_through_a_pair(pair):
    left, right = pair
    with left.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sender.bind(("near", 0))
    with right.entered():
        receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
        receiver.bind(("far", 0))
    with sender, receiver:
        receiver.settimeout(5)
        sender.send(FRAME)
        assert receiver.recv(2000) == FRAME


def test_nothing_gets_through_the_bump_alone(bump):
    left, middle, _ = bump
    assert subprocess.run(left.command("ping", "-c", "1", "-W", "1", "10.9.0.2"), stdout=subprocess.DEVNULL).returncode
    links = middle.run("ip", "-brief", "link").stdout
    assert {"west", "east"} <= {line.split("@")[0] for line in links.splitlines()}


def test_a_namespace_is_gone_when_it_is_closed(pair):
    left, _ = pair
    path = Path(left.path)
    assert path.exists()
    left.close()
    assert not path.exists()
