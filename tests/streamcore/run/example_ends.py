"""An example of a source and of two sinks, as docs/ARCHITECTURE.md says that they are added. None of them is a file."""

import struct

from streamcore import SinkError
from streamcore.core.capture_form import CaptureForm, Interface
from streamcore.core.ends import EndKind
from streamcore.core.packets import PacketBatch
from streamcore.sink.opening import SINKS
from streamcore.source._records import Walker

MEMORY = "memory:"
ETHERNET = 1


class MemorySource:
    """The packets of `held`, a batch each; `fails_after` batches it raises."""

    held = ()
    fails_after = -1
    made = None

    def __init__(self, config, needs):
        type(self).made = self
        self.form = CaptureForm("pcap", 9)
        self.interfaces = [Interface(ETHERNET, 65_535, 9)]
        self.damage = None
        self.blocks_skipped = self.times_clamped = self.shift_ns = 0
        self.blocks, self.filtered = None, False
        self.closed = 0
        self._arena = needs.arena
        self._arena.set_link_type(0, ETHERNET)
        self._given = 0
        self._stopped = False

    def __iter__(self):
        return self

    def __next__(self):
        if self._given == self.fails_after:
            raise OSError("the memory failed")
        if self._stopped or self._given == len(self.held):
            raise StopIteration
        data = self.held[self._given]
        chunk = self._arena.acquire()
        record = struct.pack("<IIII", 1_700_000_000 + self._given, 0, len(data), len(data)) + data
        chunk.data[: len(record)] = memoryview(record)
        walker = Walker()
        walker.set_pcap(False, 1, 65_535, kuznetzov=False)
        walker.begin(chunk)
        walker.walk(chunk, 0, len(record))
        batch = PacketBatch(chunk, walker.rows, self._given, self.interfaces, span_stop=len(record))
        self._given += 1
        return batch

    def progress(self):
        return self._given, len(self.held)

    def pressed(self):
        pass

    def refresh(self):
        pass

    def stop(self):
        self._stopped = True

    def close(self):
        self.stop()
        self.closed += 1


class MemorySink:
    """Keeps the packets that are written in `packets`."""

    made = None
    place = None
    metadata_removed = 0
    unsure = (0, 0)
    incomplete = ()
    paces = False
    name = "example"

    def __init__(self, config, needs):
        type(self).made = self
        self.packets = []
        self.ends = []

    def write(self, outgoing):
        packets = [data for _, data in outgoing.packets()]
        self.packets += packets
        return len(packets), sum(map(len, packets))

    def flush(self):
        pass

    def stop(self):
        pass

    def close(self):
        self.ends.append("close")

    def abandon(self):
        self.ends.append("abandon")


class FaultySink:
    """Wraps the sink that would be used without it, and fails at one call: `at` names the method and its turn."""

    at = ("write", 0)
    made = None
    place = None
    metadata_removed = 0
    unsure = (0, 0)
    incomplete = ()
    paces = False
    name = "example"

    def __init__(self, config, needs):
        type(self).made = self
        inner = next(kind for kind in SINKS.values() if kind is not FAULTY and kind.suits(config))
        self.inner = open_with(inner, config, needs)
        self.calls = []

    def write(self, outgoing):
        self._called("write")
        return self.inner.write(outgoing)

    def flush(self):
        self.inner.flush()

    def stop(self):
        self.inner.stop()

    def close(self):
        self._called("close")
        self.inner.close()

    def abandon(self):
        self.calls.append("abandon")
        self.inner.abandon()

    def _called(self, name):
        turn = self.calls.count(name)
        self.calls.append(name)
        if (name, turn) == self.at:
            raise SinkError(f"injected: {name} {turn}")


def open_with(kind, config, needs):
    from importlib import import_module

    module, _, name = kind.open.partition(":")
    return getattr(import_module(module), name)(config, needs)


MEMORY_SOURCE = EndKind(lambda config: config.read.startswith(MEMORY), f"{__name__}:MemorySource")
MEMORY_SINK = EndKind(lambda config: config.write.startswith(MEMORY), f"{__name__}:MemorySink")
FAULTY = EndKind(lambda config: True, f"{__name__}:FaultySink")
