"""The speed of a device, measured: the name of a processor does not tell how fast bfloat16 is."""

from __future__ import annotations

import time
from functools import cache

import torch

MIN_SPEEDUP = 1.5  # over float32, from which bfloat16 is worth its rounding errors
TRIAL_SIZE = 256  # rows and columns of the matrices that are multiplied to measure it


def matrix_product_rate(
    device: torch.device, dtype: torch.dtype, size: int = 1024, tries: int = 6
) -> float:
    """Floating-point operations per second of a product of square matrices: the best of `tries`."""
    a = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(tries):
        wait(device)
        began = time.perf_counter()
        torch.mm(a, a)
        wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


@cache
def bfloat16_pays(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are clearly faster than in float32.

    On a CPU this is measured once, in milliseconds. CPUs without instructions for bfloat16 are up
    to 70 times slower with it.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Many short tries are made because on a busy machine most of them are disturbed.
    rates = [
        matrix_product_rate(device, dtype, TRIAL_SIZE, tries=12)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    return rates[1] > MIN_SPEEDUP * rates[0]


def wait(device: torch.device) -> None:
    """Wait until a GPU has finished the work that was submitted to it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
