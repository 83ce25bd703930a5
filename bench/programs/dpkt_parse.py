"""Reads a capture with dpkt and looks at the 5-tuple of every packet. Prints packets, flows, seconds of its loop."""

import json
import sys
import time

import dpkt


def main(path: str, limit: int) -> None:
    flows = set()
    packets = 0
    with open(path, "rb") as capture:
        started = time.perf_counter()
        for _, frame in dpkt.pcap.UniversalReader(capture):
            ip = dpkt.ethernet.Ethernet(frame).data
            if isinstance(ip, dpkt.ip.IP | dpkt.ip6.IP6) and isinstance(ip.data, dpkt.udp.UDP | dpkt.tcp.TCP):
                flows.add((ip.src, ip.dst, ip.p, ip.data.sport, ip.data.dport))
            packets += 1
            if packets == limit:
                break
        loop_s = time.perf_counter() - started
    print(json.dumps({"packets": packets, "flows": len(flows), "loop_s": loop_s}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
