"""Active bits: eight neurons per byte, as the store keeps them.

Conventions: least significant bit first (neuron n is bit n % 8 of byte n // 8), the last byte padded with zeros. Pure.
"""

import numpy as np
from numpy.typing import NDArray


def pack(active: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Bools to bits: (..., neuron) -> uint8 (..., byte), byte = ceil(neuron / 8)."""
    return np.packbits(active, axis=-1, bitorder="little")


def unpack(bits: NDArray[np.uint8], n_neurons: int) -> NDArray[np.bool_]:
    """Bits to bools: uint8 (..., byte) -> (..., neuron); `unpack(pack(x), x.shape[-1])` is x."""
    return np.unpackbits(bits, axis=-1, count=n_neurons, bitorder="little").view(bool)
