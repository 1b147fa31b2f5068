"""Arithmetic coding with a language model.

The size that a text has when its tokens are coded one after another.

A reference coder, small and exact (Witten, Neal & Cleary, Communications of the ACM 30(6), 1987):
integers only, so what it writes can be read back wherever the same integers come out of the model.
It is here to measure with. Reading a text back takes one pass of the model for each token, and the
very same rounding as when it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from prototokens.lm.frozen_lm import FrozenLM

PRECISION = 24  # the probabilities of all tokens are integers that add up to 2^PRECISION
STATE = 48  # bits of the interval
HALF, QUARTER = 1 << (STATE - 1), 1 << (STATE - 2)
ROWS = 256  # positions whose probabilities exist at a time


def coded_bytes(lm: FrozenLM, ids: list[int]) -> int:
    """Bytes of a text's tokens under arithmetic coding with the model's probabilities.

    Each token has its probability given those before it (`FrozenLM.surprisal`).
    """
    return len(write(_intervals(lm, ids)))


def frequencies(logits: Float[Tensor, "positions vocab"]) -> Int64[Tensor, "positions vocab"]:
    """Probabilities as integers: none is zero, and those of a position add up to 2^PRECISION."""
    vocab = logits.shape[-1]
    whole = (logits.double().softmax(-1) * ((1 << PRECISION) - vocab)).long() + 1
    # What rounding left over goes to the likeliest token, which can always spare or take it.
    likeliest = whole.argmax(-1, keepdim=True)
    return whole.scatter_add_(-1, likeliest, (1 << PRECISION) - whole.sum(-1, keepdim=True))


def write(intervals: Iterable[tuple[int, int]]) -> bytes:
    """Symbols as bytes.

    Args:
        intervals: of each symbol, the sum of the frequencies before it and its own, out of
            2^PRECISION.
    """
    low, high, pending, bits = 0, (1 << STATE) - 1, 0, []

    def put(bit: int) -> None:
        nonlocal pending
        bits.append(bit)
        bits.extend([1 - bit] * pending)
        pending = 0

    for before, own in intervals:
        low, high = _narrow(low, high, before, own)
        while True:
            if high < HALF:
                put(0)
            elif low >= HALF:
                put(1)
                low, high = low - HALF, high - HALF
            elif low >= QUARTER and high < HALF + QUARTER:
                pending += 1
                low, high = low - QUARTER, high - QUARTER
            else:
                break
            low, high = 2 * low, 2 * high + 1
    pending += 1
    put(int(low >= QUARTER))
    bits += [0] * (-len(bits) % 8)
    return bytes(
        int("".join(map(str, bits[start : start + 8])), 2) for start in range(0, len(bits), 8)
    )


def read(coded: bytes, count: int, symbol_at: Callable[[int], tuple[int, int, int]]) -> list[int]:
    """The symbols that were written.

    Args:
        count: how many.
        symbol_at: for a number in 0 ... 2^PRECISION - 1, the symbol whose interval holds it, and
            that interval; called once for each symbol, in order.
    """
    bits = (byte >> shift & 1 for byte in coded for shift in range(7, -1, -1))
    low, high, value = 0, (1 << STATE) - 1, 0
    for _ in range(STATE):
        value = 2 * value + next(bits, 0)
    symbols = []
    for _ in range(count):
        point = (((value - low + 1) << PRECISION) - 1) // (high - low + 1)
        symbol, before, own = symbol_at(point)
        symbols.append(symbol)
        low, high = _narrow(low, high, before, own)
        while True:
            if low >= HALF:
                low, high, value = low - HALF, high - HALF, value - HALF
            elif low >= QUARTER and high < HALF + QUARTER:
                low, high, value = low - QUARTER, high - QUARTER, value - QUARTER
            elif high >= HALF:
                break
            low, high, value = 2 * low, 2 * high + 1, 2 * value + next(bits, 0)
    return symbols


def _narrow(low: int, high: int, before: int, own: int) -> tuple[int, int]:
    span = high - low + 1
    return low + (span * before >> PRECISION), low + (span * (before + own) >> PRECISION) - 1


@torch.no_grad()
def _intervals(lm: FrozenLM, ids: list[int]) -> Iterable[tuple[int, int]]:
    tokens = torch.tensor(ids, dtype=torch.int64, device=lm.device)
    for start, logits in lm.predictions(tokens):
        for first in range(0, len(logits), ROWS):
            whole = frequencies(logits[first : first + ROWS])
            target = tokens[start + first : start + first + len(whole), None]
            own = whole.gather(1, target)
            before = whole.cumsum(1).gather(1, target) - own
            yield from zip(before[:, 0].tolist(), own[:, 0].tolist(), strict=True)
