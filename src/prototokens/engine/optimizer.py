"""The optimizer: AdamW, or steps preconditioned with each vector's own second-moment matrix.

AdamW (Loshchilov & Hutter, arXiv 1711.05101) divides each coordinate of the averaged gradient by
its own root mean square. Near the limit of what vectors can store the loss is a narrow valley
across many coordinates at once, and a diagonal scaling is not enough. There the averaged gradient
is multiplied by C^(-p), with C the running mean of g g^T, one matrix `[d_model, d_model]` for each
vector (full-matrix Adagrad, Duchi et al. 2011, with exponential decay; theirs has p = 1/2), and
scaled to a root mean square of 1. As such steps do not shrink by themselves, their learning rate
falls with the loss. Measured in docs/recipe.md.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from prototokens.engine.state import GroupState, VectorState
from prototokens.recipe import Recipe

# Steps between two preconditioners of a vector: an eigendecomposition costs more than a step of a
# small model.
REFRESH = 20
DAMPING = 1e-4  # added to the eigenvalues, in units of their mean
# Damping of the first preconditioner, which falls to a tenth with each new one. A few gradients
# span few directions; in all others a small damping would make steps out of rounding errors.
FIRST_DAMPING = 10.0
MIN_LR_SHARE = 0.1  # share of the learning rate that is left at the least loss
MAX_WIDTH = 1024  # d_model beyond which the matrices take too much memory, and steps are AdamW's


def preconditions(recipe: Recipe, d_model: int) -> bool:
    """Whether vectors of this width take preconditioned steps."""
    return recipe.precondition and d_model <= MAX_WIDTH


def side(recipe: Recipe, d_model: int) -> int:
    """Rows and columns of a vector's second-moment matrix: none where it is not needed."""
    return d_model if preconditions(recipe, d_model) else 0


def bytes_per_vector(recipe: Recipe, d_model: int) -> int:
    """State of a vector between the steps, in bytes.

    Its value, two averages, its best value and, where steps are preconditioned, two matrices.
    """
    return 4 * (4 * d_model + 2 * side(recipe, d_model) ** 2)


def token_weights(recipe: Recipe, weight: Tensor, margin: Tensor) -> Tensor:
    """The weights of tokens in the next gradient, from those of the last one, `[tokens]`.

    A token whose margin is not yet above the recipe's gains weight, one that has it falls back
    towards 1. Near the limit of what vectors can store, cross-entropy alone gives up single tokens:
    its gradient at a token that is far off is no larger than at one that is nearly right, and all
    others pull the other way. Weights that grow while a constraint is violated are the multipliers
    of a dual ascent (Arora, Hazan & Kale, "The multiplicative weights update method", 2012).

    Args:
        margin: of each token, in logits; NaN counts as wrong.
    """
    if recipe.token_weight_growth == 0:
        return weight
    grown = (weight * (1 + recipe.token_weight_growth)).clamp_max(recipe.token_weight_max)
    return torch.where(margin > recipe.margin, 1 + (weight - 1) * recipe.token_weight_decay, grown)


def move(
    recipe: Recipe,
    vectors: VectorState,
    groups: GroupState,
    steps: list[int],
    gradient: Tensor,
    loss: Tensor,
) -> None:
    """One step of every vector, at the step count and learning rate of its group.

    If this raises an out-of-memory error, it can be called again: everything that allocates comes
    first, and no state changes before all of it is there.

    Args:
        steps: `groups.step` of each vector as the host counts it, so that nothing has to be read
            back from a GPU.
        gradient: of the weighted loss with respect to the vectors, `[vectors, d_model]`.
        loss: of each group, in nats a token at the recipe's temperature.
    """
    beta1, beta2 = recipe.betas
    lr = _scheduled(recipe, groups, loss)
    count = groups.step + 1
    of_vector, lr = count[vectors.group, None], lr[vectors.group, None]
    exp_avg = vectors.exp_avg.lerp(gradient, 1 - beta1)
    exp_avg_sq, new = vectors.exp_avg_sq, None
    if preconditions(recipe, gradient.shape[1]):
        new = _new_preconditioners(recipe, vectors, steps, gradient)
        step = _preconditioned(recipe, vectors.preconditioner, new, exp_avg)
    else:
        exp_avg_sq = (exp_avg_sq * beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = exp_avg_sq.div(1 - beta2**of_vector).sqrt_().add_(1e-8)
        step = exp_avg.div(1 - beta1**of_vector).div_(scale)
    value = vectors.value - lr * (step + recipe.weight_decay * vectors.value)
    # Nothing below allocates: the matrices, by far the largest tensors, change in place.
    if new is not None:
        vectors.preconditioner.index_copy_(0, *new)
    if preconditions(recipe, gradient.shape[1]):
        vectors.second_moment.mul_(beta2).addcmul_(
            gradient[:, :, None], gradient[:, None, :], value=1 - beta2
        )
    vectors.value, vectors.exp_avg, vectors.exp_avg_sq = value, exp_avg, exp_avg_sq
    groups.step = count


def _scheduled(recipe: Recipe, groups: GroupState, loss: Tensor) -> Tensor:
    """The learning rate of each group at its step, by the recipe's schedule and by its loss."""
    lr = groups.lr
    if recipe.schedule == "cosine":
        lr = lr * (1 + torch.cos(math.pi * groups.step / max(1, recipe.steps))) / 2
    elif recipe.schedule == "inverse":
        lr = lr / (1 + groups.step / recipe.half_life)
    if recipe.slow_below > 0:
        share = (loss / recipe.slow_below).clamp(MIN_LR_SHARE, 1)
        lr = lr * share.where(~groups.warm_started, 1)
    return lr


class _Preconditioners(NamedTuple):
    """New preconditioners: the indices of their vectors, `[due]`, and `[due, d_model, d_model]`."""

    vectors: Tensor
    values: Tensor


def _new_preconditioners(
    recipe: Recipe, vectors: VectorState, steps: list[int], gradient: Tensor
) -> _Preconditioners | None:
    """C^(-p), this gradient included in C, of the vectors that are due for one."""
    due = [index for index, step in enumerate(steps) if step % REFRESH == 0]
    if not due:
        return None
    damping = [max(DAMPING, FIRST_DAMPING * 0.1 ** (steps[index] // REFRESH)) for index in due]
    which = torch.tensor(due, device=gradient.device)
    beta2, some = recipe.betas[1], gradient[which]
    moments = vectors.second_moment[which].mul_(beta2)
    moments.addcmul_(some[:, :, None], some[:, None, :], value=1 - beta2)
    dampings = torch.tensor(damping, device=gradient.device)
    return _Preconditioners(which, _power(moments, dampings, -recipe.precondition_power))


def _preconditioned(
    recipe: Recipe, matrices: Tensor, new: _Preconditioners | None, exp_avg: Tensor
) -> Tensor:
    """Steps `[vectors, d_model]` whose root mean square is `precondition_rate`."""
    steps = _times(matrices, exp_avg)
    if new is not None:
        steps[new.vectors] = _times(new.values, exp_avg[new.vectors])
    size = steps.square().mean(1, keepdim=True).sqrt_().clamp_min_(1e-12)
    return steps / size * recipe.precondition_rate


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Each symmetric matrix times its vector, as a row (on a CPU three times as fast)."""
    return (vectors[:, None, :] @ matrices)[:, 0]


def _power(matrices: Tensor, dampings: Tensor, power: float) -> Tensor:
    """Powers of symmetric matrices `[count, d_model, d_model]`, with dampings `[count]`.

    The identity in place of a matrix that is not finite. LAPACK takes one matrix after another, on
    one thread at this size, so on a CPU each of PyTorch's threads gets a share of them.
    """
    shares = min(len(matrices), torch.get_num_threads()) if matrices.device.type == "cpu" else 1
    if shares < 2:
        return _power_of(matrices, dampings, power)
    with ThreadPoolExecutor(shares) as pool:
        parts = pool.map(
            _power_of, matrices.chunk(shares), dampings.chunk(shares), [power] * shares
        )
    return torch.cat(list(parts))


def _power_of(matrices: Tensor, dampings: Tensor, power: float) -> Tensor:
    finite = matrices.isfinite().flatten(1).all(1)[:, None, None]
    identity = torch.eye(matrices.shape[-1], device=matrices.device)
    values, axes = torch.linalg.eigh(torch.where(finite, matrices, identity))
    values = values.clamp_min(0)
    values += dampings[:, None] * values.mean(1, keepdim=True) + torch.finfo(values.dtype).tiny
    return (axes * values.pow(power)[:, None, :]) @ axes.mT
