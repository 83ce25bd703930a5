"""Puts SIP messages together that came in several packets: fragments of a datagram, segments of a TCP connection.

Bounded: the oldest is given up when there are too many, and one that grows too long.
"""

from __future__ import annotations

from collections import OrderedDict

from streamcore.sink.split.sip import MESSAGE_BYTES_MAX, begins, early_call_id, message_bytes

DATAGRAMS_MAX = 256
STREAMS_MAX = 512
EARLY_MAX = 16  # segments that came before those in front of them
PORTS_MAX = 16  # on which SIP over TCP is looked for, besides 5060

Taken = tuple[list[bytes], list[str]]  # whole messages; Call-IDs of messages that are not whole yet


class Datagrams:
    """Fragmented datagrams, by name."""

    def __init__(self) -> None:
        self._parts: OrderedDict[int, dict[int, bytes]] = OrderedDict()
        self._sizes: dict[int, int] = {}  # of those whose last fragment is there
        self._known: dict[int, str] = {}

    def take(self, name: int, offset: int, more: bool, data: bytes) -> Taken:
        """Adds a fragment: bytes from an offset in the datagram, UDP's header at 0."""
        parts = self._parts.setdefault(name, {})
        self._parts.move_to_end(name)
        if offset == 0:
            self._known[name] = early_call_id(data[8:])
        if offset + len(data) <= MESSAGE_BYTES_MAX and sum(map(len, parts.values())) <= MESSAGE_BYTES_MAX:
            parts.setdefault(offset, data)
        if not more:
            self._sizes[name] = offset + len(data)
        known = [self._known[name]] if self._known.get(name) else []
        whole = self._whole(parts, self._sizes.get(name, 0))
        if whole:
            self._forget(name)
        elif len(self._parts) > DATAGRAMS_MAX:
            self._forget(next(iter(self._parts)))
        return ([whole[8:]] if whole else []), known

    def _whole(self, parts: dict[int, bytes], size: int) -> bytes:
        if not size or sum(map(len, parts.values())) < size:
            return b""
        data = b""
        for offset in sorted(parts):
            if offset > len(data):
                return b""
            data += parts[offset][len(data) - offset :]
        return data if len(data) >= size else b""

    def _forget(self, name: int) -> None:
        self._parts.pop(name, None)
        self._sizes.pop(name, None)
        self._known.pop(name, None)


class _Stream:
    """One direction of a connection."""

    __slots__ = ("call_id", "data", "early", "next")

    def __init__(self, sequence: int) -> None:
        self.next = sequence  # of the byte after `data`
        self.data = b""  # of the message that is not whole
        self.early: dict[int, bytes] = {}
        self.call_id = ""  # of the last message

    def starts_anew(self, sequence: int) -> bool:
        """Whether a message that begins here begins a new connection, or stands behind something that was lost."""
        ahead = (sequence - self.next) & 0xFFFFFFFF
        if self.data or self.early:
            return len(self.early) == EARLY_MAX
        return 0 < ahead < 1 << 31 or 1 << 20 < (1 << 32) - ahead < 1 << 32


class Streams:
    """TCP connections that carry SIP, by direction."""

    def __init__(self) -> None:
        self._streams: OrderedDict[tuple[bytes, int, bytes, int], _Stream] = OrderedDict()
        self._ports: set[int] = set()

    def listens(self, port: int) -> bool:
        """Whether to look for SIP on this port from now on: for the first few."""
        if len(self._ports) < PORTS_MAX:
            self._ports.add(port)
        return port in self._ports

    def take(self, key: tuple[bytes, int, bytes, int], sequence: int, data: bytes) -> Taken:
        """Adds a segment. A connection is taken up at a segment in which a message begins."""
        stream = self._streams.get(key)
        if begins(data) and (stream is None or stream.starts_anew(sequence)):
            stream = self._streams[key] = _Stream(sequence)
            if len(self._streams) > STREAMS_MAX:
                self._streams.popitem(last=False)
        if stream is None:
            return [], []
        self._streams.move_to_end(key)
        ahead = (sequence - stream.next) & 0xFFFFFFFF
        if ahead >= 1 << 31:  # sent again, at least in part
            before, data = data, data[(1 << 32) - ahead :]
            if not data:
                again = early_call_id(before) or stream.call_id
                return [], [again] if again else []
        elif ahead:
            if len(stream.early) < EARLY_MAX and sum(map(len, stream.early.values())) < MESSAGE_BYTES_MAX:
                stream.early[sequence] = data
            early = early_call_id(data) or stream.call_id
            return [], [early] if early else []
        self._append(stream, data)
        return self._messages(key, stream)

    def _append(self, stream: _Stream, data: bytes) -> None:
        while True:
            stream.data += data
            stream.next = (stream.next + len(data)) & 0xFFFFFFFF
            waiting = [
                each
                for each in stream.early
                if (each - stream.next) & 0xFFFFFFFF == 0
                or ((stream.next - each) & 0xFFFFFFFF) < len(stream.early[each])
            ]
            if not waiting:
                return
            first = stream.early.pop(waiting[0])
            data = first[(stream.next - waiting[0]) & 0xFFFFFFFF :]

    def _messages(self, key: tuple[bytes, int, bytes, int], stream: _Stream) -> Taken:
        whole: list[bytes] = []
        while stream.data:
            stream.data = stream.data.lstrip(b"\r\n")  # kept alive (RFC 5626)
            size = message_bytes(stream.data)
            if size < 0 or size > MESSAGE_BYTES_MAX:
                if stream.data:
                    del self._streams[key]  # it is not SIP, or goes on after something that was not captured
                break
            if size == 0 or size > len(stream.data):
                break
            whole.append(stream.data[:size])
            stream.data = stream.data[size:]
        for each in (*whole, stream.data):
            stream.call_id = early_call_id(each) or stream.call_id
        left = early_call_id(stream.data) if stream.data else ""
        return whole, [left] if left else ([stream.call_id] if not whole and stream.data and stream.call_id else [])
