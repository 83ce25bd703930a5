"""A service of one's own: keep DNS, drop the rest. streamcore run … --service examples/dns_only.py:DnsOnly"""

from types import MappingProxyType

from streamcore import Service


class DnsOnly(Service):
    """Keep packets from or to a port, 53 unless another is given."""

    name = "dns-only"
    effect = "filter"  # it drops packets, and changes none
    groups = ("headers",)  # the columns that it reads
    reasons = MappingProxyType({"not_dns": "neither port is the one asked for"})

    def __init__(self, port=53):
        self.port = int(port)

    def process(self, segment):
        ports = segment.column("source_port"), segment.column("target_port")
        segment.drop((ports[0] != self.port) & (ports[1] != self.port), "not_dns")
