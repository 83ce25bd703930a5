"""The sink for live interfaces. It opens the packet sockets, and retries or counts packets that the kernel refuses.

_send.pyx sends the packets. Only Ethernet packets can be sent; packets of other link types are refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time

from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.errors import RightsError, SinkError
from streamcore.core.packets import Outgoing
from streamcore.headers import udp_ports
from streamcore.sink._encode import first_not_accepted
from streamcore.sink._send import Sender
from streamcore.sink.protocol import Place, SinkNeeds

SOL_PACKET, VIRTIO, QDISC_BYPASS = 263, 15, 20
GET_FLAGS, GET_MTU, GET_HARDWARE_ADDRESS = 0x8913, 0x8921, 0x8927  # SIOCGIFFLAGS, SIOCGIFMTU, SIOCGIFHWADDR
IS_UP = 1
NAME_BYTES_MAX = 15  # of an interface: IFNAMSIZ less the zero
ETHERNET_HARDWARE = (1, 772)  # ARPHRD_ETHER, ARPHRD_LOOPBACK
LINK_ETHERNET = 1

# The kernel's error -> the counter of packets refused with it.
REASONS = {
    errno.EMSGSIZE: "sink.too_long",
    errno.EINVAL: "sink.too_short",
    errno.ENETDOWN: "sink.interface_down",
    errno.ENXIO: "sink.interface_down",
    errno.ENODEV: "sink.interface_down",
    errno.ENOBUFS: "sink.queue_full",
    errno.EAGAIN: "sink.queue_full",
    errno.ENOMEM: "sink.queue_full",
}
# How long a refused packet is retried, in seconds: a capture can wait, live packets cannot.
PATIENCE_S = {"sink.interface_down": 10.0, "sink.queue_full": 1.0}
LIVE_PATIENCE_S = {"sink.interface_down": 0.0, "sink.queue_full": 0.02}
PAUSE_S = 0.0001
LOOK_S = 0.1  # between checks whether a removed interface is back, and of the MTU


def open_live(config: Config, needs: SinkNeeds) -> LiveSink:
    """The sink of `output_interface`. Raises SinkError, RightsError."""
    return LiveSink(config, needs.counters)


class LiveSink:
    """Sends the second stream on config.output_interface, or with config.both each packet on the other interface.

    Parameters: config; counters, which count packets that are not sent, by reason. Packets leave unchanged, paced as
    config says. A packet that the kernel refuses is retried for a bounded time. The sockets bypass the queueing
    discipline, so that the kernel reports what it drops; therefore tcpdump does not see the packets on the sending
    interface, only at the other end. Raises SinkError, RightsError. One thread writes; `stop` may be called from any.
    """

    def __init__(self, config: Config, counters: Counters) -> None:
        names = (config.output_interface, *config.live) if config.both else (config.output_interface,)
        self._counters = counters
        self._patience_s = LIVE_PATIENCE_S if config.interface else PATIENCE_S
        self._accepted = bytearray(1 << 16)  # interfaces of the first stream that carry Ethernet
        self._shortened = 0
        self._outputs: list[Output] = []
        try:
            # What live packets leave to hardware is left to that of the other side; captures have no such packets.
            self._outputs.extend(Output(name, virtio=bool(config.interface)) for name in names)
        except BaseException:
            self.abandon()
            raise
        self.name = config.output_interface
        self._paces = bool(config.replay_speed or config.rate_pps or config.rate_mbps)
        self._sender = Sender(
            [output.socket.fileno() for output in self._outputs],
            self._trouble,
            1 / config.replay_speed if config.replay_speed else 0.0,
            1e9 / config.rate_pps if config.rate_pps else 0.0,
            8e3 / config.rate_mbps if config.rate_mbps else 0.0,
            spreads=bool(config.interface),
            virtio=bool(config.interface),
            ports=udp_ports(config.decode_as),
        )
        self._looked_s = 0.0

    def write(self, outgoing: Outgoing) -> tuple[int, int]:
        """Sends packets when they are due. Returns the (packets, captured bytes) sent. Raises SinkError."""
        while (interface := first_not_accepted(outgoing, self._accepted)) >= 0:
            if (link_type := outgoing.batch.interfaces[interface].link_type) != LINK_ETHERNET:
                raise SinkError(
                    f"cannot send on {self._outputs[0].name}: it carries Ethernet, and these packets are of link type"
                    f" {link_type} (source_mac and target_mac give them headers)"
                )
            self._accepted[interface] = 1
        if outgoing.batch.offloads:
            self._look_at_mtu()
        try:
            return self._sender.send(outgoing)
        except OSError as error:
            raise SinkError(f"cannot send on {error.filename}: {_words(error)}") from None
        finally:
            if self._sender.shortened != self._shortened:
                self._counters.bump("sink.sent_cut", self._sender.shortened - self._shortened)
                self._shortened = self._sender.shortened

    def _look_at_mtu(self) -> None:
        """From time to time: it may change while packets are sent."""
        if (now_s := time.monotonic()) - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        for number, output in enumerate(self._outputs):
            self._sender.set_mtu(number, output.mtu())

    @property
    def place(self) -> Place | None:
        """None: an interface cannot be truncated."""
        return None

    @property
    def paces(self) -> bool:
        """Whether a speed or a rate says when packets are due."""
        return self._paces

    @property
    def unsure(self) -> tuple[int, int]:
        """Nothing: what is counted was sent."""
        return 0, 0

    @property
    def incomplete(self) -> list[str]:
        """Nothing: what is not sent is counted."""
        return []

    @property
    def metadata_removed(self) -> int:
        """0: frames have no metadata."""
        return 0

    def flush(self) -> None:
        """Does nothing: no packet is kept back."""

    def stop(self) -> None:
        """Stops sending: `write` returns soon, with the packets that it has sent."""
        self._sender.stopped = True

    def close(self) -> None:
        """Closes the sockets."""
        for output in self._outputs:
            output.socket.close()

    abandon = close

    def _trouble(self, number: int, problem: int, byte_count: int) -> bool:
        """Handles a packet that was not sent. Returns True to retry it; False if it was given up and counted. Raises
        OSError."""
        output = self._outputs[number]
        reason = REASONS.get(problem)
        if reason is None:
            raise OSError(problem, os.strerror(problem), output.name)
        if reason in self._patience_s:
            if problem in (errno.ENXIO, errno.ENODEV) and output.is_bound_again():
                return True
            if output.may_try_again(self._sender.sent_on(number), self._patience_s[reason]):
                return True
        self._counters.count(reason, 1, byte_count)
        return False


class Output:
    """A packet socket that sends on one interface, and receives nothing. Raises SinkError, RightsError."""

    def __init__(self, name: str, *, virtio: bool = False) -> None:
        self.name = name
        self._sent = -1  # packets sent at the last refusal
        self._since_s = 0.0  # when that refusal began
        self._looked_s = 0.0
        try:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError:
            raise RightsError(f"cannot send on {name}: this needs CAP_NET_RAW") from None
        try:
            if len(os.fsencode(name)) > NAME_BYTES_MAX:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            asked = struct.pack("16s16x", os.fsencode(name))
            hardware = struct.unpack_from("H", fcntl.ioctl(self.socket, GET_HARDWARE_ADDRESS, asked), 16)[0]
            flags = struct.unpack_from("H", fcntl.ioctl(self.socket, GET_FLAGS, asked), 16)[0]
            if hardware not in ETHERNET_HARDWARE:
                raise SinkError(f"cannot send on {name}: it is not an Ethernet interface")
            if not flags & IS_UP:
                raise SinkError(f"cannot send on {name}: it is down, type 'ip link set {name} up'")
            self.socket.setsockopt(SOL_PACKET, QDISC_BYPASS, 1)
            self.socket.setsockopt(SOL_PACKET, VIRTIO, virtio)
            self._bind()
        except OSError as error:
            self.socket.close()
            raise SinkError(f"cannot send on {name}: {_words(error)}") from None
        except SinkError:
            self.socket.close()
            raise

    def mtu(self) -> int:
        """0: the interface is gone."""
        try:
            answer = fcntl.ioctl(self.socket, GET_MTU, struct.pack("16s16x", os.fsencode(self.name)))
        except OSError:
            return 0
        return int(struct.unpack_from("i", answer, 16)[0])

    def may_try_again(self, sent: int, patience_s: float) -> bool:
        """Pauses, and returns whether to retry a packet. sent: packets sent so far. If that has grown since the last
        refusal, this one is new, and its first packet is always retried, because the socket may have reported an old
        error.
        """
        now_s = time.monotonic()
        if sent != self._sent:
            self._sent, self._since_s = sent, now_s
            return True
        if now_s - self._since_s >= patience_s:
            return False
        time.sleep(PAUSE_S)
        return True

    def is_bound_again(self) -> bool:
        """Whether the interface was removed and is back, and the socket is bound to it again."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return False
        self._looked_s = now_s
        try:
            self._bind()
        except OSError:
            return False
        return True

    def _bind(self) -> None:
        self.socket.bind((self.name, 0))  # protocol 0: receive nothing; sent packets keep their own


def _words(error: OSError) -> str:
    if error.errno == errno.ENODEV:
        return "there is no such interface (see 'ip link')"
    return os.strerror(error.errno).lower() if error.errno else str(error)
