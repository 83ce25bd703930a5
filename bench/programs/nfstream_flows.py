"""Groups a capture into flows with NFStream, without its dissector. Prints packets, flows, seconds of its loop."""

import json
import sys
import time

from nfstream import NFStreamer


def main(path: str) -> None:
    flows = packets = 0
    started = time.perf_counter()
    for flow in NFStreamer(source=path, n_dissections=0, statistical_analysis=False):
        flows += 1
        packets += flow.bidirectional_packets
    loop_s = time.perf_counter() - started
    print(json.dumps({"packets": packets, "flows": flows, "loop_s": loop_s}))


if __name__ == "__main__":  # it starts processes
    main(sys.argv[1])
