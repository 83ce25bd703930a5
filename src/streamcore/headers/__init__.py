"""The one walk over a packet's headers, which `parse` and `service` share: what stands where, how far it is understood.

Importing this package registers every link type and every tunnel that is known.
"""

from streamcore.headers import _ether_types, _ip, _links, _tunnels

__all__ = ["_ether_types", "_ip", "_links", "_tunnels"]
