"""Packets of another source as Ethernet frames: headers added or rewritten, cut to an MTU. _frame.pyx makes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from streamcore.core.capture_form import CaptureForm, Interface
from streamcore.core.counters import Counters
from streamcore.core.errors import SourceError
from streamcore.core.frames import Frames
from streamcore.core.packets import Chunk, PacketBatch
from streamcore.headers import STANDARD_PORTS, UdpPorts
from streamcore.source._frame import FRAMED_LINKS, WITHOUT_ADDRESSES, Framer
from streamcore.source.capture import ACQUIRE_WAIT_S, ChunkSupply
from streamcore.source.protocol import Source

LINK_ETHERNET = 1
HAS_SOURCE = (113, 276)  # Linux cooked headers say who sent the packet
CHECK_LENGTH = 13  # if_fcslen


class FramedSource:
    """The packets of `inner` as Ethernet frames; iterate over it for its PacketBatches.

    frames says which headers they get, and what becomes of longer ones than its MTU. Interfaces are those of inner,
    with Ethernet's link type. Counters get what was cut and segmented, and packets that cannot be framed: those are
    read, and lost. inner must take its chunks elsewhere than from arena. Raises SourceError for a link type that cannot
    be turned into Ethernet. One thread iterates; `stop`, `close` and `progress` may be called from any.
    """

    def __init__(
        self,
        inner: Source,
        arena: ChunkSupply,
        frames: Frames,
        counters: Counters | None = None,
        ports: UdpPorts = STANDARD_PORTS,
        parser: Any = None,
    ) -> None:
        self._inner = inner
        self._arena = arena
        self._frames = frames
        self._counters = counters
        self._parser = parser
        self.name = getattr(inner, "name", "")
        self.form: CaptureForm = inner.form._replace(one_section=True)
        self.interfaces: list[Interface] = []
        self.blocks = inner.blocks
        self.filtered = inner.filtered
        self.shift_ns = 0
        self._batches = iter(inner)
        self._given: PacketBatch | None = None
        self._at = 0  # the first row of it that is left
        self._packets = 0
        self._closing = threading.Event()
        self._framer = Framer(
            frames.source_mac, frames.target_mac, frames.vlan, frames.mtu, frames.segments, ports, arena.data_bytes_max
        )
        self._counted = [0, 0, 0, 0]
        self._describe()

    @property
    def damage(self) -> object | None:
        """Where and why the inner source ended early; None if it did not."""
        return self._inner.damage

    @property
    def times_clamped(self) -> int:
        """The number of packets so far whose time does not fit 64-bit nanoseconds."""
        return self._inner.times_clamped

    @property
    def blocks_skipped(self) -> int:
        """The number of pcapng blocks so far that are neither packets, interfaces nor sections."""
        return self._inner.blocks_skipped

    def progress(self) -> tuple[int, int | None]:
        """(bytes read so far, the total or None if unknown)."""
        return self._inner.progress()

    def refresh(self) -> None:
        """Does nothing: a capture counts as it reads."""

    def pressed(self) -> None:
        """Does nothing: a capture can wait for the workers."""

    def stop(self) -> None:
        """Ends the iteration soon. Returns at once."""
        self._closing.set()
        self._inner.stop()

    def close(self) -> None:
        """Ends the iteration and closes the inner source. Delivered batches stay valid."""
        self.stop()
        self._inner.close()

    def __iter__(self) -> Iterator[PacketBatch]:
        return self

    def __next__(self) -> PacketBatch:
        batch = None
        while batch is None:
            if self._given is None:
                self._given, self._at = next(self._batches), 0
                self._describe()
            batch = self._frame(self._given)
        return batch

    def _frame(self, given: PacketBatch) -> PacketBatch | None:
        """Frames of the next packets of a batch; None if none of them can be framed."""
        chunk = self._acquire()
        if chunk is None:
            raise StopIteration
        framer = self._framer
        framer.begin(chunk)
        link_types = np.array([interface.link_type for interface in self._inner.interfaces], np.uint16)
        self._at = framer.take(given, link_types, self._at)
        self.shift_ns = self._inner.shift_ns
        if self._at == given.count:
            self._given = None
        rows, used = framer.rows, framer.used
        framer.begin(None)
        self._count()
        if not rows:
            return None
        batch = PacketBatch(
            chunk, rows, self._packets, self.interfaces, span_start=0, span_stop=used, parser=self._parser
        )
        batch.contiguous = False
        self._packets += rows
        return batch

    def _acquire(self) -> Chunk | None:
        while not self._closing.is_set():
            chunk = self._arena.acquire(ACQUIRE_WAIT_S)
            if chunk is not None:
                return chunk
        return None

    def _describe(self) -> None:
        """Describes the interfaces that inner has found by now. Raises SourceError."""
        for interface in self._inner.interfaces[len(self.interfaces) :]:
            link_type, frames = interface.link_type, self._frames
            if link_type not in FRAMED_LINKS:
                raise SourceError(f"cannot make Ethernet frames of packets of link type {link_type} ({self.name})")
            if link_type in WITHOUT_ADDRESSES and not frames.target_mac:
                raise SourceError(f"packets of link type {link_type} have no addresses: give target_mac ({self.name})")
            if link_type in WITHOUT_ADDRESSES and link_type not in HAS_SOURCE and not frames.source_mac:
                raise SourceError(f"packets of link type {link_type} have no addresses: give source_mac ({self.name})")
            self._arena.set_link_type(len(self.interfaces), LINK_ETHERNET)
            options = tuple(option for option in interface.options if option[0] != CHECK_LENGTH)
            self.interfaces.append(interface._replace(link_type=LINK_ETHERNET, fcs_length=-1, options=options))

    def _count(self) -> None:
        """Counts what the framer has done since the last call."""
        framer, counters = self._framer, self._counters
        now = [framer.segmented, framer.cut, framer.refused, framer.refused_bytes]
        segmented, cut, refused, refused_bytes = (a - b for a, b in zip(now, self._counted, strict=True))
        self._counted = now
        if counters is None:
            return
        counters.count("source.segmented", segmented, 0)
        counters.bump("source.cut_to_mtu", cut)
        counters.count("source.read", refused, refused_bytes)
        counters.count("source.not_framed", refused, refused_bytes)
