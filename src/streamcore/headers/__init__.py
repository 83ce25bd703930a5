"""The one walk over a packet's headers, which `parse` and `service` share: what stands where, how far it is understood.

Importing this package registers every link type and every tunnel that is known.
"""

from streamcore.headers import _ether_types, _ip, _links, _ppp, _routing, _tunnels, _udp_tunnels, _wireless
from streamcore.headers._udp_tunnels import NAMES as UDP_TUNNELS
from streamcore.headers._udp_tunnels import decode_as
from streamcore.headers._walk import TUNNELS

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

__all__ = ["TUNNELS", "UDP_TUNNELS", "decode_as"]
