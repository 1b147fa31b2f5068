"""Keys: fixed signs that make one vector look different at every input position.

A keyed layout feeds `key_i * v` at position i, element by element, with keys of +1 and -1 as in
spread-spectrum coding and holographic binding. Nothing more is stored and nothing more is trained.
The signs come from an integer hash of position and coordinate, not from a library's random
generator, so that a reader in any language can make them (docs/file-format.md has the rule and test
vectors).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32
    from torch import Tensor

VERSION = 1  # of the rule; files record it
POSITION, COORDINATE = 0x9E3779B1, 0x85EBCA77  # odd multipliers of a position and of a coordinate
MIX = ((15, 0x2C1B3C6D), (12, 0x297A2D39))  # shift and odd multiplier of each mixing round


@lru_cache(maxsize=64)
def signs(positions: int, d_model: int) -> Float32[Tensor, "positions d_model"]:
    """The keys of the first positions of a row, as a tensor: `sign_array`."""
    import torch  # not above: what only reads a header does not wait for PyTorch

    return torch.from_numpy(sign_array(positions, d_model))


def sign_array(positions: int, d_model: int) -> Float32[np.ndarray, "positions d_model"]:
    """The keys of the first positions of a row: +1 or -1 for each coordinate.

    With i the position and j the coordinate, both from zero, and all arithmetic modulo 2^32: h = i
    * POSITION + j * COORDINATE + VERSION; then, for each (shift, multiplier) of MIX, h = (h xor (h
    >> shift)) * multiplier. The sign is -1 where the top bit of h xor (h >> 15) is set, else +1.
    The keys of fewer positions are a prefix of those of more.
    """
    import numpy as np  # not above, as it takes a tenth of a second

    i = np.arange(positions, dtype=np.uint64)[:, None]
    j = np.arange(d_model, dtype=np.uint64)[None, :]
    h = (i * np.uint64(POSITION) + j * np.uint64(COORDINATE) + np.uint64(VERSION)).astype(np.uint32)
    for shift, multiplier in MIX:
        h = (h ^ (h >> shift)) * np.uint32(multiplier)
    h ^= h >> 15
    return 1 - 2 * (h >> 31).astype(np.float32)
