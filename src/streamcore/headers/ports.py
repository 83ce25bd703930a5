"""`--decode-as`: which tunnel over UDP is tried on which port, in the words of the command line.

The steps, and the ports that need no word, are in _udp_tunnels.pyx.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from streamcore.core.errors import UsageError
from streamcore.headers._udp_tunnels import DEFAULTS, NAMES, STANDARD_PORTS
from streamcore.headers._walk import UdpPorts

FORM = re.compile(r"udp\.port==?([0-9]{1,5}),([a-z0-9-]+)")  # with one =, or with two as tshark wants them


def udp_ports(decode_as: Sequence[str]) -> UdpPorts:
    """The standard ports and those of `decode_as`, such as "udp.port=8472,vxlan". The tunnels' own checks stay: a
    datagram that does not look like the tunnel is payload. Raises UsageError with one line.
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
            raise UsageError(f"decode_as: {port} is no UDP port: {text!r}")
        if name not in NAMES:
            raise UsageError(f"decode_as: there is no tunnel {name!r} over UDP: use one of {', '.join(NAMES)}")
        if added.setdefault(port, NAMES.index(name)) != NAMES.index(name):
            raise UsageError(f"decode_as: UDP port {port} is given to {NAMES[added[port]]} and to {name}: choose one")
    return UdpPorts([*DEFAULTS, *added.items()])
