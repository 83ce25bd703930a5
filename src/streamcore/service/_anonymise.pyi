import numpy as np
from numpy.typing import NDArray

from streamcore.headers import UdpPorts
from streamcore.service._address_table import AddressTable

COUNTED_NAMES: tuple[str, ...]
REPLACED: int
KEEPING: tuple[str, ...]

class Anonymiser:
    def __init__(
        self,
        table: AddressTable,
        mac: str = "keep",
        payload: str = "keep",
        names: bool = False,
        special: bool = False,
        hash_key: bytes = ...,
        drops: bool = True,
    ) -> None: ...
    def counts(self) -> NDArray[np.uint64]: ...
    def rewrite(
        self,
        data: NDArray[np.uint8],
        offset: NDArray[np.uint32],
        captured_length: NDArray[np.uint32],
        link_type: NDArray[np.uint16],
        todo: NDArray[np.uint32],
        verdict: NDArray[np.uint8],
        kept: NDArray[np.uint32],
        ports: UdpPorts,
        again: bool = False,
        source: NDArray[np.uint8] | None = None,
    ) -> tuple[int, NDArray[np.uint32], NDArray[np.uint64]]: ...
