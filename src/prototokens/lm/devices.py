"""What a device is fast at, measured rather than looked up: names of processors do not tell."""

from __future__ import annotations

import time
from functools import cache

import torch

PAYS = 1.5  # times as fast as float32, from which bfloat16 is worth its rounding
TRIAL_SIZE = 256


def matrix_product_rate(
    device: torch.device, dtype: torch.dtype, size: int = 1024, tries: int = 6
) -> float:
    """Floating-point operations a second of a product of two square matrices, the best of several tries."""
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

    On a CPU it is tried once, in milliseconds.

    On CPUs without instructions for it, bfloat16 is up to 70 times slower.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # The best of many short tries: on a busy machine most of them are disturbed.
    rates = [
        matrix_product_rate(device, dtype, TRIAL_SIZE, tries=12)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    return rates[1] > PAYS * rates[0]


def wait(device: torch.device) -> None:
    """For work that a GPU still has to end."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
