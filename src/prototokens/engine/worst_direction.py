"""How little it takes to change a token, if the change is made in the worst direction.

Noise that is alike in all directions hardly ever points where a margin falls fastest: vectors of
thousands of numbers withstand far more of it than of a change along the gradient of a margin. To
first order, a margin m is gone after a step of length m / ||gradient of m||, the distance to a
linear decision boundary (Moosavi-Dezfooli et al., DeepFool, arXiv 1511.04599).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float32
from torch import Tensor

from prototokens.engine.forward import scored_hidden, stacked
from prototokens.engine.inputs import OneStep, arrange
from prototokens.engine.matrix import POSITIONS, Row, margins, passes
from prototokens.lm.frozen_lm import FrozenLM

CLOSEST = 8  # positions of a row, those of least margin, at which the gradient is taken


def worst_direction_radius(
    lm: FrozenLM, rows: Sequence[Row], free: Sequence[Tensor]
) -> float | None:
    """The shortest step that changes a token of any row, to first order.

    It is a share of the norm of the row's vectors. Only the `CLOSEST` positions of least margin of
    each row are considered: the true value, to first order, is at most this.

    Args:
        lm: the frozen model.
        rows: with the ids that they should give.
        free: for each row, which positions count.

    Returns:
        0 where a token is wrong already, None where no position counts.
    """
    found = [
        margin.masked_fill(~mask, math.inf)
        for margin, mask in zip(margins(lm, rows), free, strict=True)
    ]
    radii = []
    done = 0
    for part in passes(rows, POSITIONS, 0):
        radii += _radii(lm, part, found[done : done + len(part)])
        done += len(part)
    least = min(radii, default=math.inf)
    return max(least, 0.0) if math.isfinite(least) else None


def _radii(lm: FrozenLM, rows: Sequence[Row], found: Sequence[Tensor]) -> list[float]:
    """Of each position that is considered, of all rows of a pass."""
    protos = stacked([row.protos for row in rows], lm.device).requires_grad_()
    plans = [OneStep(row.layout).plan(row.ids) for row in rows]
    starts = torch.tensor([0, *(len(row.ids) for row in rows)]).cumsum(0)[:-1]
    targets = torch.tensor([token for row in rows for token in row.ids], device=lm.device)
    with torch.enable_grad():
        # Not the lean body: it can be differentiated once.
        hidden = scored_hidden(lm, arrange(lm, plans, protos.shape[1]), protos, lm.hidden)
    norms = protos.detach().flatten(1).norm(dim=1)
    order = [margin.argsort()[:CLOSEST] for margin in found]
    radii = []
    for number in range(max(map(len, order))):
        turn = [row for row, positions in enumerate(order) if number < len(positions)]
        turn = [row for row in turn if math.isfinite(float(found[row][order[row][number]]))]
        if not turn:
            break
        where = torch.stack([starts[row] + order[row][number] for row in turn]).to(lm.device)
        with torch.enable_grad():
            margin = _margin(lm, hidden[where], targets[where])
            (gradient,) = torch.autograd.grad(margin.sum(), protos, retain_graph=True)
        steps = (
            margin.detach() / gradient.flatten(1).norm(dim=1)[turn].clamp_min(1e-30) / norms[turn]
        )
        radii += steps.nan_to_num(nan=0.0).tolist()
    return radii


def _margin(lm: FrozenLM, hidden: Tensor, targets: Tensor) -> Float32[Tensor, " rows"]:
    """True logit minus the best other one, differentiable."""
    logits = lm.logits(hidden).float()
    true = logits.gather(1, targets[:, None])[:, 0]
    return true - logits.scatter(1, targets[:, None], -torch.inf).amax(1)
