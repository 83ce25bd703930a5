"""The one walk over a packet's headers, shared by `parse` and `service`. It finds every header,
and how far the packet is understood.

Importing this package registers every known link type and tunnel.
"""

from streamcore.headers import _ether_types, _ip, _links, _ppp, _routing, _tunnels, _udp_tunnels, _wireless
from streamcore.headers._udp_tunnels import STANDARD_PORTS
from streamcore.headers._walk import TUNNELS, UdpPorts
from streamcore.headers.ports import udp_ports

STEPS = (
    _ether_types,
    _ip,
    _links,
    _ppp,
    _routing,
    _tunnels,
    _udp_tunnels,
    _wireless,
)  # imported to fill the tables

__all__ = ["STANDARD_PORTS", "TUNNELS", "UdpPorts", "udp_ports"]
