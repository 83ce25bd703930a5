"""The protocol of what sorts packets into files, and the sorter by what stands in a packet. calls.py has the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamcore.core.capture_form import Interface
from streamcore.core.config import Config
from streamcore.core.counters import Counters
from streamcore.core.packets import Outgoing
from streamcore.headers import udp_ports
from streamcore.sink.split._keys import KeyTable
from streamcore.sink.split.labels import LABELS

Numbers = NDArray[np.uint32]
REST = 0  # the number of the file for packets that belong to no other


class Sorter(Protocol):
    """Says which files packets belong into. One thread at a time."""

    def assign(self, outgoing: Outgoing) -> tuple[Numbers, Numbers]:
        """(places, files): each packet that leaves, at least once, and the number of its file."""

    def take_new(self) -> list[tuple[int, str]]:
        """The number and label of each file that is new since the last call. REST has none."""

    def close(self) -> None:
        """Counts what it left out."""


class ByKey:
    """Sorts by flow, host, VLAN, interface or minute."""

    def __init__(self, config: Config, interfaces: Sequence[Interface], counters: Counters) -> None:
        inner = config.flow_key != "outer"
        self._table = KeyTable(config.split, udp_ports(config.decode_as), inner, config.split_files)
        self._label = LABELS[config.split]
        self._interfaces = interfaces
        self._counters = counters

    def assign(self, outgoing: Outgoing) -> tuple[Numbers, Numbers]:
        return self._table.assign(outgoing)

    def take_new(self) -> list[tuple[int, str]]:
        return [(made[0], self._label(made, self._interfaces)) for made in self._table.take_new()]

    def close(self) -> None:
        self._counters.bump("sink.beyond_files", self._table.beyond)


def open_sorter(config: Config, interfaces: Sequence[Interface], counters: Counters) -> Sorter:
    if config.split == "call":
        from streamcore.sink.split.calls import ByCall  # only here: dpkt costs start-up time

        return ByCall(config, counters)
    return ByKey(config, interfaces, counters)
