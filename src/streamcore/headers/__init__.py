"""The one walk over a packet's headers, which `parse` and `service` share: what stands where, how far it is understood.

Importing this package registers every link type and every tunnel that is known.
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
)  # imported: the tables are filled

__all__ = ["STANDARD_PORTS", "TUNNELS", "UdpPorts", "udp_ports"]
