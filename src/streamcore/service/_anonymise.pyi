import numpy as np
from numpy.typing import NDArray

from streamcore.service._address_table import AddressTable

class Anonymiser:
    addresses: int
    not_reached: int
    def __init__(self, table: AddressTable) -> None: ...
    def rewrite(
        self,
        data: NDArray[np.uint8],
        offset: NDArray[np.uint32],
        captured_length: NDArray[np.uint32],
        link_type: NDArray[np.uint16],
        todo: NDArray[np.uint32],
    ) -> tuple[int, NDArray[np.uint32], NDArray[np.uint64]]: ...
