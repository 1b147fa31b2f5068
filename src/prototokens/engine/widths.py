"""In how many bits a number of a vector can be stored; `engine.grid` has the arithmetic.

Without PyTorch: file headers and options of commands are checked against these alone.
"""

from __future__ import annotations

from typing import Literal

from prototokens.errors import UsageError

GRID_BITS = range(1, 9)  # bits of a number on a grid
WIDTHS = (*GRID_BITS, 16, 32)  # of a number in a file; 16 and 32 are floating-point numbers


def check_bits(bits: int | str) -> int | Literal["auto"]:
    """The bits themselves.

    Raises:
        UsageError: no such number.
    """
    if bits == "auto":
        return "auto"
    if isinstance(bits, int) and bits in WIDTHS:
        return bits
    raise UsageError(f"bits must be one of {', '.join(map(str, WIDTHS))} or 'auto', not {bits!r}")
