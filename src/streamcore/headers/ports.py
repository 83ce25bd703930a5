"""`--decode-as`: which tunnel over UDP is tried on which port, as given on the command line.

The steps and the standard ports are in _udp_tunnels.pyx.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from streamcore.core.errors import UsageError
from streamcore.headers._udp_tunnels import DEFAULTS, NAMES, STANDARD_PORTS
from streamcore.headers._walk import UdpPorts

FORM = re.compile(r"udp\.port==?([0-9]{1,5}),([a-z0-9-]+)")  # one =, or two as in tshark


def udp_ports(decode_as: Sequence[str]) -> UdpPorts:
    """The standard ports and those of `decode_as`, such as "udp.port=8472,vxlan". Every tunnel's own checks still
    apply: a datagram that fails them is payload. Raises UsageError with one line.
    """
    if not decode_as:
        return STANDARD_PORTS
    added: dict[int, int] = {}
    for text in decode_as:
        found = FORM.fullmatch(text)
        if found is None:
            raise UsageError(f"decode_as must be udp.port=NUMBER,TUNNEL, as in udp.port=8472,vxlan, not {text!r}")
        port, name = int(found[1]), found[2]
        if not 1 <= port <= 65_535:
            raise UsageError(f"decode_as: {port} is not a UDP port: {text!r}")
        if name not in NAMES:
            raise UsageError(f"decode_as: there is no tunnel {name!r} over UDP: use one of {', '.join(NAMES)}")
        if added.setdefault(port, NAMES.index(name)) != NAMES.index(name):
            raise UsageError(f"decode_as: UDP port {port} is given to {NAMES[added[port]]} and {name}: choose one")
    return UdpPorts([*DEFAULTS, *added.items()], added)
