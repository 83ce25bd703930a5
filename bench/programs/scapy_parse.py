"""Reads a capture with scapy and looks at the 5-tuple of every packet. Prints packets, flows, seconds of its loop."""

import json
import sys
import time

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapReader


def main(path: str, limit: int) -> None:
    flows = set()
    packets = 0
    with RawPcapReader(path) as capture:
        started = time.perf_counter()
        for frame, _ in capture:
            packet = Ether(frame)
            ip = packet.getlayer(IP) or packet.getlayer(IPv6)
            transport = packet.getlayer(TCP) or packet.getlayer(UDP)
            if ip is not None and transport is not None:
                flows.add((ip.src, ip.dst, transport.name, transport.sport, transport.dport))
            packets += 1
            if packets == limit:
                break
        loop_s = time.perf_counter() - started
    print(json.dumps({"packets": packets, "flows": len(flows), "loop_s": loop_s}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
