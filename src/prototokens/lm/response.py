"""A model's response to fixed input vectors, to detect changes in the code that runs the model.

Equal weights do not imply equal outputs. Between two versions of transformers, the body of Gemma 1
and 2 stopped multiplying its input vectors by the square root of its width. The weights, and so
their fingerprint, stayed the same, but vectors fitted with one version did not decode with the
other. A file therefore records the model's response to input vectors that depend only on the width
and the scale of its embedding table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

POSITIONS = 4
NUMBERS = 16  # coordinates of the last hidden state that are recorded
TABLE_ROWS = 64  # rows of the embedding table that set the scale of the input vectors
DIGITS = 3  # decimal places that are recorded
# Largest distance of two responses, as a share of their norm. Measured on tiny random models of ten
# families: bfloat16 instead of float32 moves a response by 0.005 to 0.030, the change in Gemma 2 by
# 0.65.
TOLERANCE = 0.3


@torch.no_grad()
def respond(hidden: Callable[[Tensor], Tensor], table: Float[Tensor, "ids d_model"]) -> list[float]:
    """Coordinates of the hidden state after fixed input vectors, divided by its root mean square.

    Args:
        hidden: from input vectors `[1, seq, d_model]` to hidden states `[1, seq, hidden]`.
        table: the embedding table as it is stored, without any factor that the code applies to it.
    """
    width = table.shape[1]
    angles = (
        torch.arange(POSITIONS * width, dtype=torch.float64).square().reshape(1, POSITIONS, width)
    )
    rms = table[:TABLE_ROWS].double().square().mean().sqrt().cpu()
    vectors = (angles.sin() * 2**0.5 * rms).float().to(table.device)
    state = hidden(vectors)[0, -1].double().cpu()
    state = state / state.square().mean().sqrt().clamp_min(1e-12)
    index = torch.linspace(0, len(state) - 1, min(NUMBERS, len(state))).round().long()
    return [round(number, DIGITS) for number in state[index].tolist()]


def differ(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two responses differ by more than rounding explains."""
    if len(first) != len(second):
        return True
    a, b = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    # `not <=` and not `>`, so that NaN counts as different.
    return not bool((a - b).norm() <= TOLERANCE * torch.maximum(a.norm(), b.norm()))
