"""Services that misbehave in every way that a run must survive. Loaded by path, as a user's own would be."""

import os
import time
from types import MappingProxyType

import numpy as np

from streamcore.service.protocol import Service


class Marked(Service):
    """Base: misbehaves on segments that hold a packet whose number (in the payload) is divisible by `every`."""

    def __init__(self, every=0, pause_ms=0):
        self.every, self.pause_ms = int(every), int(pause_ms)

    def bad(self, segment):
        time.sleep(self.pause_ms / 1000)
        at = np.asarray(segment.offset, np.int64) + 42
        numbers = [int.from_bytes(segment.data[i : i + 8].tobytes(), "big") for i in at]
        return bool(self.every) and any(number % self.every == 0 for number in numbers)


class Slow(Marked):
    """Takes pause_ms for a segment, and turns the payload's last byte. A worker that has begun is a file in `begun`."""

    effect = "rewrite"

    def __init__(self, begun="", every=0, pause_ms=0):
        super().__init__(every, pause_ms)
        self.begun = begun

    def process(self, segment):
        if self.begun:
            open(f"{self.begun}/{os.getpid()}", "w").close()
        time.sleep(self.pause_ms / 1000)
        data = segment.writable()
        data[np.asarray(segment.offset, np.int64) + segment.captured_length - 1] ^= 0xFF


class Hop(Service):
    """Takes one from the time to live of IPv4, as a router does (RFC 1141)."""

    effect = "rewrite"

    def process(self, segment):
        data = segment.writable()
        for at in (int(each) for each in segment.offset):
            link = at + 12 + 4 * (data[at + 12 : at + 14].tobytes() == b"\x81\0")
            if data[link : link + 2].tobytes() == b"\x08\0":
                header = link + 2
                data[header + 8] -= 1
                checksum = int.from_bytes(data[header + 10 : header + 12].tobytes(), "big") + 0x100
                checksum = (checksum & 0xFFFF) + (checksum >> 16)
                data[header + 10 : header + 12] = np.frombuffer(checksum.to_bytes(2, "big"), np.uint8)


class DropsEvery(Service):
    """Drops each packet longer than `longer` of which the number among those that this worker has seen is divisible."""

    effect = "filter"
    reasons = MappingProxyType({"every": "for a test"})

    def __init__(self, every=50, longer=1000):
        self.every, self.longer, self.seen = int(every), int(longer), 0

    def process(self, segment):
        numbers = self.seen + np.cumsum(np.asarray(segment.captured_length) > self.longer)
        self.seen = int(numbers[-1])
        segment.drop((np.asarray(segment.captured_length) > self.longer) & (numbers % self.every == 0), "every")


class Raises(Marked):
    def process(self, segment):
        if self.bad(segment):
            raise RuntimeError("this packet is not to my taste")


class Hangs(Marked):
    def process(self, segment):
        if self.bad(segment):
            time.sleep(3600)


class Dies(Marked):
    def process(self, segment):
        if self.bad(segment):
            os._exit(9)


class TooMuch(Marked):
    effect = "resize"

    def process(self, segment):
        if self.bad(segment):
            size = np.full(len(segment), 200_000, np.uint32)
            segment.replace(np.zeros(200_000, np.uint8), np.zeros(len(segment), np.uint32), size, size)


class Undeclared(Marked):
    effect = "observe"

    def process(self, segment):
        if self.bad(segment):
            segment.writable()[0] = 1


class Header(Marked):
    """Declares rewrite, and changes a record header: the timestamp."""

    effect = "rewrite"

    def process(self, segment):
        bad = self.bad(segment)
        data = segment.writable()
        if bad:
            data[int(segment.offset[0]) - 16] ^= 1


class NoStart(Marked):
    def start(self):
        raise RuntimeError("my licence has run out")

    def process(self, segment):
        pass


class Prints(Service):
    def process(self, segment):
        print("a service that prints", flush=True)  # it is killed in the end


class Hashes(Service):
    """Reports the flow hash of every packet, by its source port, and does not declare the group that fills it."""

    def __init__(self, pause_ms=0):
        self.pause_ms = int(pause_ms)
        self.hashes = {}

    def process(self, segment):
        time.sleep(self.pause_ms / 1000)
        pairs = zip(segment.column("source_port").tolist(), segment.column("flow_hash").tolist(), strict=True)
        segment.report(sorted(set(pairs)))

    def merge(self, report):
        for port, value in report:
            self.hashes.setdefault(str(port), set()).add(value)

    def summary(self):
        return {"hashes": {port: sorted(values) for port, values in self.hashes.items()}}


class Anew(Service):
    """Hands every packet out one by one, as it was."""

    effect = "resize"

    def process(self, segment):
        segment.replace(segment.data.copy(), segment.offset, segment.captured_length, segment.wire_length)
