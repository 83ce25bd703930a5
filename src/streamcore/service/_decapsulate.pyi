import numpy as np
from numpy.typing import NDArray

from streamcore.headers import UdpPorts

FATES: tuple[str, ...]

def strip(
    data: NDArray[np.uint8],
    offset: NDArray[np.uint32],
    captured_length: NDArray[np.uint32],
    wire_length: NDArray[np.uint32],
    link_type: NDArray[np.uint16],
    ports: UdpPorts,
    kinds: NDArray[np.uint8],
    tunnels_max: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32], list[int], list[int]]: ...
