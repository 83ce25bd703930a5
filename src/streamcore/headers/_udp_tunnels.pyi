from streamcore.headers._walk import UdpPorts

NAMES: tuple[str, ...]
DEFAULTS: tuple[tuple[int, int], ...]
STANDARD_PORTS: UdpPorts
