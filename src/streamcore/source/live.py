"""The source for live interfaces. It emits a PacketBatch when a chunk is full, or when the batch's first packet has
waited long enough in real time. Packets stay in the rings until the batch is copied to the chunk or dropped.

_port.py opens the sockets, _ring.pyx finds the packets. A live source cannot be slowed down: without a free chunk the
rings fill, and when they are full the kernel drops the newest packets and counts them. When a ring is half full,
config.overload applies: packets that wait for workers are forwarded unprocessed, or packets move from the ring to a
spool (_spool.py).
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

from streamcore.core.capture_form import Block, Blocks, CaptureForm, Interface
from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import SourceError
from streamcore.core.packets import Arena, Chunk, Outgoing, PacketBatch
from streamcore.headers import STANDARD_PORTS, UdpPorts
from streamcore.offloads._completion import Completion
from streamcore.source._facts import described, section_options, statistics_block
from streamcore.source._forwarding import Told, forward
from streamcore.source._port import ANY, Port, Shape, link_type_of, shape, share, space_for
from streamcore.source._ring import LINK_COOKED, Borrowed
from streamcore.source._socket_filter import REJECT_ALL, Instruction, for_socket
from streamcore.source._spool import Spool
from streamcore.source.capture import ChunkSupply, Damage
from streamcore.source.protocol import Offloads, SourceNeeds

LOOPBACK = "lo"  # packets sent there also come in: take them once, as tcpdump does
NANOSECONDS = 9  # digits of a second
TICK_S = 0.5  # the longest sleep of the loop
ACQUIRE_WAIT_S = 0.01
RECORD_HEAD = 16  # bytes before a packet
LOOK_AGAIN_S = 0.002  # a bell may ring before its packet is in the ring
BORROWED_WAIT_S = 0.005  # between checks of the rings while their packets wait for more
ARRIVE_S = 0.05  # at the end, for packets on their way into the ring

Compile = Callable[[int, str], list[Instruction] | None]  # (link type, interface) -> a program; raises UsageError


def open_live(config: Config, needs: SourceNeeds) -> LiveSource:
    """The source of `interface`, with `both` also of `output_interface`. Raises SourceError, UsageError."""
    return LiveSource(
        config, needs.arena, needs.counters, needs.compile, needs.pass_waiting, needs.offloads, needs.ports
    )


class LiveSource:
    """The packets that arrive on config.interfaces; iterate over it for its PacketBatches.

    Parameters: config; arena to take chunks from; counters, which get the kernel's counts; compile, which makes the
    kernel's filter; pass_waiting, called with overload "pass" to forward waiting packets unprocessed; offloads: what
    becomes of checksums and segments that packets leave to hardware, and ports of tunnels that are cut. It receives
    packets as soon as it is made, with VLAN tags in their places. Packets of `any` and of link types without a
    LINKTYPE_ number are cooked (LINKTYPE_LINUX_SLL2). A batch borrows its part of the rings. To keep a batch, call its
    `copy_to_chunk`, which copies the rows in use as pcap records with nanoseconds; otherwise the kernel runs out of
    room and drops packets. Raises SourceError. It ends with `stop`, after config.count packets or config.duration_s;
    packets received before that are read. One thread iterates and calls `pressed`; `stop`, `close`, `progress` and
    `refresh` may be called from any.
    """

    def __init__(
        self,
        config: Config,
        arena: ChunkSupply,
        counters: Counters,
        compile: Compile | None = None,
        pass_waiting: Callable[[], None] | None = None,
        offloads: Offloads = "complete",
        ports: UdpPorts | None = None,
    ) -> None:
        self.name = " and ".join(config.interfaces)
        self.form = CaptureForm("pcap", NANOSECONDS, options=section_options())
        self._kernel_counts: dict[int, list[int]] = {}  # interface -> packets received, packets dropped
        self.interfaces: list[Interface] = []
        self.damage: Damage | None = None
        self.blocks = Blocks()  # the statistics of each interface, at the end
        self.filtered = compile is not None  # by the kernel; false as soon as it cannot on one of the interfaces
        self.blocks_skipped = self.times_clamped = self.shift_ns = 0
        self._config = config
        self._arena = arena
        self._counters = counters
        counters.live = True
        self._compile = compile
        self._pass_waiting = pass_waiting
        self._spool: Spool | None = None
        self._staging: Chunk | None = None  # between a ring and the spool
        self._wait_s = config.latency_ms / 1000  # between two batches, unless they are full
        self._look_again_s = 0.0
        self._due_s = 0.0  # when the next one may leave
        self._taken = self._delivered = 0  # packets: from the rings, and in batches
        self._bytes = 0
        self._lock = threading.Lock()
        self._counting = threading.Lock()  # of the kernel's counts, and of who closes the sockets that tell them
        self._closing = threading.Event()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Two, because the feeder copies from the ring, and this source into the spool.
        self._completions = [] if offloads == "carry" else [
            Completion(ports or STANDARD_PORTS, cuts=offloads == "cut") for _ in range(2)
        ]  # fmt: skip
        self._cuts = offloads == "cut"
        self._left = [0, 0]  # checksums and super-packets that could not be completed, as counted so far
        self._poll, self._waking = select.poll(), select.poll()
        for poll in (self._poll, self._waking):
            poll.register(self._wake, select.POLLIN)
        self._ports: list[Port] = []
        self._turn = 0  # the port whose ring is read next
        self._quiet_s = float("inf")  # the time from which on no more packets can come
        self._over = False
        self._counted_s, self._begin_ns = time.monotonic(), time.time_ns()
        self._ends_s = time.monotonic() + config.duration_s if config.duration_s else float("inf")
        try:
            for number, name in enumerate(config.interfaces):
                link_type = link_type_of(name)
                arena.set_link_type(number, link_type)
                self.interfaces.append(described(link_type, config, name))
            shapes = [
                shape(config.buffer_kib << 10, config.latency_ms, each.link_type)
                for each in self.interfaces
                for _ in range(config.rings)
            ]
            self._space = space_for(shapes, config.buffer_kib)
            # A ring that peeks tells through its bell that packets have come.
            self._retire_s = max((each.retire_ms / 1000 for each in shapes if not each.peeks), default=0.0)
            if config.overload == "spool":
                self._spool = Spool(config.spool_directory, config.spool_bytes)
                self._staging = Arena(1, arena.data_bytes_max, arena.rows_max).acquire()
            for number in range(len(self.interfaces)):
                self._open(number, shapes[number * config.rings])
        except BaseException:
            self._over = True
            self._close_all()
            self.close()
            raise

    def progress(self) -> tuple[int, int | None]:
        """(captured bytes and record headers so far, None: the total is unknown)."""
        return self._bytes, None

    def stop(self) -> None:
        """Stops receiving; the iteration ends after the received packets. Returns at once."""
        self._closing.set()
        if self._wake >= 0:  # not closed
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Ends the iteration and closes the sockets. Delivered batches stay valid."""
        self._closing.set()
        with self._lock:
            self._end()
        wake, self._wake = self._wake, -1
        if wake >= 0:
            os.close(wake)

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[PacketBatch]:
        return self

    def __next__(self) -> PacketBatch:
        with self._lock:
            if self._over:
                raise StopIteration
            batch = None
            try:
                batch = self._next_batch()
            except OSError as error:
                raise SourceError(f"cannot read {self.name}: {error.strerror}") from None
            finally:
                if batch is None:
                    self._end()
        if batch is None:
            raise StopIteration
        return batch

    @property
    def forwards(self) -> bool:
        """Whether `forward` can be used: one ring with a bell, and nothing that looks at single packets."""
        one = len(self._ports) == 1 and self._ports[0].bell is not None
        return one and not (self._spool or self._config.count or self._completions)

    def forward(self, write: Callable[[Outgoing], tuple[int, int]], told: Told) -> bool:
        """Instead of iterating: passes what comes for half a second to write, batch after batch, and adds it to `told`.
        Returns whether there may be more. Raises SourceError, and what write raises."""
        with self._lock:
            if self._over:
                return False
            now_s = time.monotonic()
            more = False
            try:
                self._watch(now_s)
                ends_s = self._ends_s if self._quiet_s == float("inf") else self._quiet_s
                due_s, until_s = min(self._due_s, self._quiet_s), min(now_s + TICK_S, ends_s)
                packets, used, self._due_s = forward(
                    self._ports[0].ring, self._acquire(), self.interfaces, told, write, due_s, self._wait_s, until_s,
                    self._wake, self._number,
                )  # fmt: skip
                self._taken += packets
                self._delivered += packets
                self._bytes += used
                self._listen(0.0, False)
                more = time.monotonic() < self._quiet_s
            except OSError as error:
                raise SourceError(f"cannot read {self.name}: {error.strerror}") from None
            finally:
                if not more:
                    self._end()
            return more

    def _open(self, number: int, shape: Shape) -> None:
        """Opens the ports of an interface. They receive nothing until all are ready. Raises SourceError."""
        config, link_type, name = self._config, self.interfaces[number].link_type, self.interfaces[number].name
        ports = []
        for ring in range(config.rings):
            port = Port(
                self._space, name, number, link_type, shape, snap_length=config.snap_length,
                promiscuous=config.promiscuous, outgoing=not config.output_interface and name != LOOPBACK,
                has_bell=ring == 0, cuts=self._cuts,
            )  # fmt: skip
            ports.append(port)
            self._ports.append(port)
            self._poll.register(port.socket, select.POLLERR if shape.peeks else select.POLLIN | select.POLLERR)
            if port.bell is not None:
                self._poll.register(port.bell, select.POLLIN)
            self._waking.register(port.socket, select.POLLERR)
        if len(ports) > 1:
            share(ports)
        program, exact = for_socket(
            self._compile(link_type, name) if self._compile is not None else None,
            config.snap_length,
            cooked=link_type == LINK_COOKED,
            loopback=socket.if_nametoindex(LOOPBACK) if name == ANY else 0,
        )
        self.filtered = self.filtered and exact
        for port in ports:
            port.filter(program)

    def pressed(self) -> None:
        """Called when the last batch must wait. If a ring is half full, applies config.overload."""
        if not any(2 * port.ring.ready_count > port.ring.block_count for port in self._ports):
            return
        if self._config.overload == "pass" and self._pass_waiting is not None:
            self._pass_waiting()
        elif self._spool is not None:
            self._fill_spool(self._spool)

    def _next_batch(self) -> PacketBatch | None:
        """The next chunk's packets; None at the end."""
        self._watch(time.monotonic())
        if self._spool is not None:
            self.pressed()  # the spool also helps if this thread is too slow
        chunk = self._acquire()
        if self._spool:
            batch = self._spool.take(chunk, self.interfaces, self._number)
            self._bytes += batch.span_stop
        else:
            borrowed = Borrowed()
            rows, used = self._fill(chunk, borrowed)
            if not rows:
                return None
            batch = self._batch(chunk, borrowed, rows, self._number, 0)
            self._bytes += used
        self._delivered += batch.count
        return batch

    @property
    def _number(self) -> int:
        """Of the next packet: those that were cut into several count as several."""
        return self._delivered + (self._completions[0].added if self._completions else 0)

    def _batch(self, chunk: Chunk, borrowed: Borrowed, rows: int, number: int, which: int) -> PacketBatch:
        """The packets in the rings as a batch that `which` of the two completions copies."""
        batch = PacketBatch(chunk, rows, number, self.interfaces)
        batch.offloads = borrowed.offloads
        batch.copier = self._completions[which] if self._completions else None
        return batch

    def _fill(self, chunk: Chunk, borrowed: Borrowed) -> tuple[int, int]:
        """Fills a chunk until it is full, its time is up, or the end. Returns (rows, bytes).

        Its time is up so long after the last batch: a packet that comes alone leaves at once, and more wait for each
        other.
        """
        rows = used = 0
        # One ring waits in its own walk, which costs less than returning here; several rings take turns.
        alone = len(self._ports) == 1
        while self._rows_max():
            due_s = min(self._due_s, self._quiet_s) if alone else 0.0
            ends_s = self._ends_s if self._quiet_s == float("inf") else self._quiet_s
            until_s = min(time.monotonic() + TICK_S, ends_s) if alone else 0.0
            rows, used, full = self._walk(chunk, borrowed, rows, used, due_s, until_s)
            now_s = time.monotonic()
            if full or (rows and now_s >= self._due_s) or now_s >= self._quiet_s:
                break
            self._watch(now_s)
            left_s = min(self._due_s if rows else now_s + TICK_S, ends_s) - now_s
            waited = alone and self._ports[0].bell is not None
            self._listen(0.0 if waited else left_s, rows > 0)
        self._due_s = time.monotonic() + self._wait_s
        self._taken += rows
        return rows, used

    def _fill_spool(self, spool: Spool) -> None:
        """Moves packets from the rings into the spool until it is full."""
        staging = self._staging
        assert staging is not None
        full = True
        while full and spool.has_room_for(staging):
            borrowed = Borrowed()
            rows, used, full = self._walk(staging, borrowed, 0, 0)
            batch = self._batch(staging, borrowed, rows, 0, 1)
            self._counters.count("source.segmented", *batch.copy_to_chunk())
            if rows:
                self._taken += rows
                spool.put(batch)
                self._counters.count("overload.spooled", rows, used - RECORD_HEAD * rows)
            full = full and self._rows_max() > 0

    def _walk(
        self, chunk: Chunk, borrowed: Borrowed, rows: int, used: int, due_s: float = 0.0, until_s: float = 0.0
    ) -> tuple[int, int, bool]:
        """Adds what is ready in the rings, which take turns, and waits as `Ring.gather_into` says. Returns (rows, bytes
        with record headers, whether it is enough)."""
        rows_max = self._rows_max()
        for _ in self._ports:
            rows, used, full = self._ports[self._turn].ring.gather_into(
                chunk, borrowed, rows, used, rows_max, due_s, until_s, self._wake
            )
            self._turn = (self._turn + 1) % len(self._ports)
            if full:
                return rows, used, True
        return rows, used, False

    def _acquire(self) -> Chunk:
        while True:
            chunk = self._arena.acquire(ACQUIRE_WAIT_S)
            if chunk is not None:
                return chunk
            self.pressed()
            self._watch(time.monotonic())

    def _rows_max(self) -> int:
        """The most packets that one chunk may still take."""
        counts = self._config.count and (self.filtered or not self._config.filter)  # else who filters counts
        left = self._config.count + self._config.skip - self._taken if counts else self._arena.rows_max
        return min(left, self._arena.rows_max)

    def _listen(self, seconds: float, are_waiting: bool) -> None:
        """Waits for packets, for the end, or for an interface to go down. While packets wait for more (are_waiting), or
        batches borrow blocks of a ring that the kernel then always reports as readable, it waits for a moment instead.
        """
        quietly = are_waiting or any(not port.shape.peeks and port.ring.borrowed_count for port in self._ports)
        poll, longest_s = (self._waking, BORROWED_WAIT_S) if quietly else (self._poll, TICK_S)
        if time.monotonic() < self._look_again_s:
            longest_s = LOOK_AGAIN_S / 10
        for descriptor, event in poll.poll(max(0.0, min(seconds, longest_s)) * 1000):
            if descriptor == self._wake:
                os.eventfd_read(descriptor)
            elif event & select.POLLERR:
                port = next(port for port in self._ports if port.has(descriptor))
                first = next(each for each in self._ports if each.number == port.number)
                if port.went_down() and port is first:
                    self._counters.bump("source.interface_down")
            else:
                for port in self._ports:
                    port.silence(descriptor)
                self._look_again_s = time.monotonic() + LOOK_AGAIN_S

    def _watch(self, now_s: float) -> None:
        """Checks whether this is the end; from time to time also the kernel's counts, and whether an interface was
        replaced."""
        if self._quiet_s == float("inf") and (self._closing.is_set() or now_s >= self._ends_s):
            self._shut_rings()
        if now_s - self._counted_s < TICK_S:
            return
        self._counted_s = now_s
        self.refresh()
        for port in self._ports:
            port.follow()

    def _shut_rings(self) -> None:
        """Stops packets from entering the rings; those on their way arrive soon."""
        for port in self._ports:
            port.filter(REJECT_ALL)
        self._quiet_s = time.monotonic() + 2 * self._retire_s + ARRIVE_S

    def _end(self) -> None:
        """Counts packets that were received but not read, and closes."""
        if self._over:
            return
        self._over = True
        if self._quiet_s == float("inf"):
            self._shut_rings()
        time.sleep(max(0.0, self._quiet_s - time.monotonic()))
        for port in self._ports:
            self._counters.count("source.unread", *port.ring.skip())
        if self._spool is not None:
            self._counters.count("source.unread", *self._spool.close())
        self.refresh()
        for number, (received, dropped) in sorted(self._kernel_counts.items()):
            block = statistics_block(number, self._begin_ns, time.time_ns(), received, dropped)
            self.blocks.put(Block(self._number, block))
        self._close_all()

    def refresh(self) -> None:
        """Adds the kernel's counts since the last call."""
        with self._counting:
            for port in self._ports:
                statistics = port.statistics()
                counts = self._kernel_counts.setdefault(port.number, [0, 0])
                counts[0] += statistics.received
                counts[1] += statistics.dropped
                self._counters.count("kernel.received", statistics.received, 0)
                self._counters.count("kernel.dropped", statistics.dropped, 0)
                self._counters.bump("kernel.freezes", statistics.freezes)
            left = [sum(each.unfinished for each in self._completions), sum(each.uncut for each in self._completions)]
            self._counters.bump("source.checksum_missing", left[0] - self._left[0])
            self._counters.bump("source.not_segmented", left[1] - self._left[1])
            self._left = left

    def _close_all(self) -> None:
        with self._counting:
            ports, self._ports = self._ports, []
        for port in ports:
            for poll in (self._poll, self._waking):
                poll.unregister(port.socket)
            if port.bell is not None:
                self._poll.unregister(port.bell)
            port.close()
