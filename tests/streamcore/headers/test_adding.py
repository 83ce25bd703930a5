"""A link type, an EtherType and a tunnel are one function and one row each: a module that adds them is built here."""

import json
import subprocess
import sys
from pathlib import Path

from tests.streamcore.parse.packets_by_hand import ip4

SOURCE = Path(__file__).parents[3] / "src"

ADDED = '''
from streamcore.headers._ip cimport step_ip
from streamcore.headers._walk cimport (
    LAYER_CAPTURE, LAYER_TAG, LAYER_TUNNEL, OUTCOME_UNKNOWN, TUNNEL_GRE, Walk, be16, be32, ends, enter, go_ether_type,
    has, here, register_ether_type, register_link, register_protocol, take, taken,
)

cdef void two_bytes(Walk *walk) noexcept nogil:
    """A link whose header is an EtherType."""
    cdef const unsigned char *p = here(walk)
    if take(walk, LAYER_CAPTURE, 2):
        go_ether_type(walk, be16(p))

cdef void long_tag(Walk *walk) noexcept nogil:
    """A tag of 12 bytes that ends with the EtherType."""
    cdef const unsigned char *p = here(walk)
    if take(walk, LAYER_TAG, 12):
        go_ether_type(walk, be16(p + 10))

cdef void sure(Walk *walk) noexcept nogil:
    """A tunnel that begins with "SURE" and an id; anything else is not believed."""
    cdef const unsigned char *p = here(walk)
    if has(walk, 4) and be32(p) != 0x53555245:
        ends(walk, OUTCOME_UNKNOWN)
    elif take(walk, LAYER_TUNNEL, 8):
        taken(walk).detail = TUNNEL_GRE
        enter(walk, TUNNEL_GRE, be32(p + 4))
        walk.next = step_ip

register_link(147, two_bytes)
register_ether_type(0xABCD, long_tag)
register_protocol(200, sure)
'''

BUILD = """
import sys, numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
sys.argv = ["setup.py", "-q", "build_ext", "--inplace"]
setup(ext_modules=cythonize([Extension("added", ["added.pyx"])], include_path=[{source!r}],
                            compiler_directives={{"language_level": 3}}),
      include_dirs=[numpy.get_include(), {source!r}])
"""

LOOK = """
import json, sys
from streamcore.headers._walk import explain
before = explain(bytes.fromhex(sys.argv[1]), 147)
import added
after = [explain(bytes.fromhex(packet), 147) for packet in sys.argv[1:]]
print(json.dumps([before, after]))
"""


def test_a_link_type_an_ether_type_and_a_tunnel_that_are_added(tmp_path: Path) -> None:
    (tmp_path / "added.pyx").write_text(ADDED)
    built = subprocess.run(
        [sys.executable, "-c", BUILD.format(source=str(SOURCE))], cwd=tmp_path, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    inner = ip4(17, bytes.fromhex("0035003500080000"))
    packet = b"\xab\xcd" + bytes(10) + b"\x08\x00" + ip4(200, b"SURE\x00\x00\x00\x07" + inner)
    other = b"\xab\xcd" + bytes(10) + b"\x08\x00" + ip4(200, b"sure\x00\x00\x00\x07" + inner)
    looked = subprocess.run(
        [sys.executable, "-c", LOOK, packet.hex(), other.hex()], cwd=tmp_path, capture_output=True, text=True
    )
    assert looked.returncode == 0, looked.stderr
    before, (after, doubted) = json.loads(looked.stdout)
    assert before[:2] == [[], "link unknown"]
    layers, outcome, at, tunnel, number, _ = after
    assert [layer[0] for layer in layers] == ["capture", "tag", "ip4", "tunnel", "ip4", "udp"]
    assert [layer[1] for layer in layers] == [0, 2, 14, 34, 42, 62]
    assert (outcome, at, tunnel, number) == ("transport", len(packet), "gre", 7)
    assert [layer[0] for layer in doubted[0]] == ["capture", "tag", "ip4"]
    assert doubted[1:3] == ["unknown", 34]
