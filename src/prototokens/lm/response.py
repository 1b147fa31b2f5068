"""What a model's code makes of fixed vectors.

Equal weights do not mean that input vectors mean the same.

Between two versions of transformers, the body of Gemma 1 and 2 stopped multiplying its input
vectors by the square root of its width. The weights, and so their fingerprint, stayed the same,
while vectors fitted before meant something else after. A file therefore records how the model
answered to vectors that depend on nothing but its table and its width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

POSITIONS = 4
NUMBERS = 16  # of the last hidden state that are kept
TABLE_ROWS = 64  # from which the size of the vectors is taken
DIGITS = 3
# Of the norm of a response. Measured on tiny random models of ten families: bfloat16 in place of
# float32 moves it by 0.005 to 0.030, the other convention of Gemma 2 by 0.65.
TOLERANCE = 0.3


@torch.no_grad()
def respond(hidden: Callable[[Tensor], Tensor], table: Float[Tensor, "ids d_model"]) -> list[float]:
    """Some numbers of the hidden state after fixed vectors, in units of its root mean square.

    Args:
        hidden: input vectors `[1, seq, d_model]` to hidden states `[1, seq, hidden]`.
        table: of embeddings, as it is stored: whatever the code does to its rows is left out.
    """
    width = table.shape[1]
    angles = (
        torch.arange(POSITIONS * width, dtype=torch.float64).square().reshape(1, POSITIONS, width)
    )
    size = table[:TABLE_ROWS].double().square().mean().sqrt().cpu()
    vectors = (angles.sin() * 2**0.5 * size).float().to(table.device)
    state = hidden(vectors)[0, -1].double().cpu()
    state = state / state.square().mean().sqrt().clamp_min(1e-12)
    places = torch.linspace(0, len(state) - 1, min(NUMBERS, len(state))).round().long()
    return [round(number, DIGITS) for number in state[places].tolist()]


def differ(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two responses are further apart than rounding explains."""
    if len(one) != len(other):
        return True
    a, b = torch.tensor(one, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)
    # Not `>`: what is no number differs.
    return not bool((a - b).norm() <= TOLERANCE * torch.maximum(a.norm(), b.norm()))
