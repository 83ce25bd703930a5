"""The source of live packets alone, until SIGTERM: streamcore_receive.py INTERFACE."""

import json
import signal
import sys

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.packets import Arena
from streamcore.source.live import LiveSource

config = Config(interface=sys.argv[1], write="nowhere")
counters = Counters()
arena = Arena(config.chunks, config.chunk_bytes, config.chunk_rows)
source = LiveSource(config, arena, counters)
signal.signal(signal.SIGTERM, lambda *_: source.stop())
packets = captured_bytes = 0
for batch in source:
    packets += batch.count
    captured_bytes += batch.byte_count
    del batch
source.close()
print(json.dumps({"packets": packets, "bytes": captured_bytes, "drops": counters.packets("kernel.dropped")}))
