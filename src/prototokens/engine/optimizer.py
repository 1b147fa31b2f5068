"""How vectors move: AdamW, or a step that sees how the numbers of a vector hang together.

AdamW (Loshchilov & Hutter, arXiv 1711.05101) divides each number's averaged gradient by its own
root mean square. Near the limit of what vectors hold the loss is a narrow valley across many
numbers at once, and this is not enough. There the averaged gradient is multiplied by C^(-p), with C
the running mean of g g^T, one matrix `[d_model, d_model]` for each vector (the full matrix of Duchi
et al. 2011, with a memory that fades; theirs has p = 1/2), and scaled to a root mean square of 1.
As such steps do not shrink by themselves, their rate falls with the loss. Measured in
docs/recipe.md.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from prototokens.engine.state import Groups, Vectors
from prototokens.recipe import Recipe

# steps between two whitening matrices of a vector: eigenvalues cost more than a small model's step
REFRESH = 20
FLOOR = 1e-4  # added to the eigenvalues, in units of their mean
# The floor of a row's first matrix. A few gradients span few directions, and in all others a low
# floor would make steps out of
# rounding: it falls to a tenth with each new one.
FIRST_FLOOR = 10.0
SLOWEST = 0.1  # share of the rate that is left at the least loss
WIDEST = 1024  # beyond it the matrices take too much memory, and steps stay AdamW's


def whitens(recipe: Recipe, d_model: int) -> bool:
    """Whether vectors of this width take whitened steps."""
    return recipe.whiten and d_model <= WIDEST


def side(recipe: Recipe, d_model: int) -> int:
    """Rows and columns of a vector's matrix: none where it is not needed."""
    return d_model if whitens(recipe, d_model) else 0


def bytes_per_vector(recipe: Recipe, d_model: int) -> int:
    """What a vector keeps between the steps.

    Itself, two averages and its best, and two matrices where it is whitened.
    """
    return 4 * (4 * d_model + 2 * side(recipe, d_model) ** 2)


def token_weights(recipe: Recipe, weight: Tensor, margin: Tensor) -> Tensor:
    """The weights of tokens in the next gradient, from those of the last one, `[tokens]`.

    A token whose margin is not yet above the recipe's gains weight, one that has it falls back
    towards 1. Near the limit of what vectors hold, cross-entropy alone gives up single tokens: its
    gradient at a token that is far off is no larger than at one that is nearly right, and all
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
    recipe: Recipe, vectors: Vectors, state: Groups, ages: list[int], gradient: Tensor, loss: Tensor
) -> None:
    """One step of every vector, at the age and rate of its group.

    Everything that takes memory comes first, and nothing is changed before all of it is there:
    where memory runs out, the step can be taken again.

    Args:
        ages: `state.age` on the host, for each vector: so that nothing has to be read back from a
            GPU.
        loss: of each group, in nats a token at the recipe's temperature.
    """
    fast, slow = recipe.betas
    rate = state.rate
    if recipe.schedule == "cosine":
        rate = rate * (1 + torch.cos(math.pi * state.age / max(1, recipe.steps))) / 2
    elif recipe.schedule == "inverse":
        rate = rate / (1 + state.age / recipe.half_life)
    if recipe.slow_below > 0:
        rate = rate * (loss / recipe.slow_below).clamp(SLOWEST, 1).where(~state.steady, 1)
    older = state.age + 1
    age, rate = older[vectors.group, None], rate[vectors.group, None]
    average = vectors.exp_avg.lerp(gradient, 1 - fast)
    square, new = vectors.exp_avg_sq, None
    if whitens(recipe, gradient.shape[1]):
        new = _new_whiteners(recipe, vectors, ages, gradient)
        step = _whitened(recipe, vectors.whitener, new, average)
    else:
        square = (square * slow).addcmul_(gradient, gradient, value=1 - slow)
        scale = square.div(1 - slow**age).sqrt_().add_(1e-8)
        step = average.div(1 - fast**age).div_(scale)
    now = vectors.now - rate * (step + recipe.weight_decay * vectors.now)
    # From here on no memory is taken: the matrices, by far the largest, change in place.
    if new is not None:
        vectors.whitener.index_copy_(0, *new)
    if whitens(recipe, gradient.shape[1]):
        vectors.outer.mul_(slow).addcmul_(
            gradient[:, :, None], gradient[:, None, :], value=1 - slow
        )
    vectors.now, vectors.exp_avg, vectors.exp_avg_sq, state.age = now, average, square, older


class _Whiteners(NamedTuple):
    """New whitening matrices: the numbers of their vectors, `[due]`, and the matrices, `[due, d_model, d_model]`."""

    vectors: Tensor
    values: Tensor


def _new_whiteners(
    recipe: Recipe, vectors: Vectors, ages: list[int], gradient: Tensor
) -> _Whiteners | None:
    """C^(-p) with this gradient in C, of the vectors that are due for one."""
    due = [number for number, age in enumerate(ages) if age % REFRESH == 0]
    if not due:
        return None
    floors = [max(FLOOR, FIRST_FLOOR * 0.1 ** (ages[number] // REFRESH)) for number in due]
    which = torch.tensor(due, device=gradient.device)
    slow, slopes = recipe.betas[1], gradient[which]
    outer = (
        vectors.outer[which]
        .mul_(slow)
        .addcmul_(slopes[:, :, None], slopes[:, None, :], value=1 - slow)
    )
    return _Whiteners(
        which, _power(outer, torch.tensor(floors, device=gradient.device), -recipe.whiten_power)
    )


def _whitened(recipe: Recipe, whitener: Tensor, new: _Whiteners | None, average: Tensor) -> Tensor:
    """Steps of root mean square `whiten_rate`, `[vectors, d_model]`, by each vector's matrix, the new one if there is one."""
    whitened = _times(whitener, average)
    if new is not None:
        whitened[new.vectors] = _times(new.values, average[new.vectors])
    size = whitened.square().mean(1, keepdim=True).sqrt_().clamp_min_(1e-12)
    return whitened / size * recipe.whiten_rate


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Each symmetric matrix times its vector, as a row.

    On a CPU three times as fast as a column.
    """
    return (vectors[:, None, :] @ matrices)[:, 0]


def _power(matrices: Tensor, floors: Tensor, power: float) -> Tensor:
    """Of symmetric matrices `[count, d_model, d_model]`, with floors `[count]`.

    The identity for one not finite.

    LAPACK takes one matrix after another, on one thread at this size: on a CPU each thread of
    PyTorch's gets its share of them.
    """
    shares = min(len(matrices), torch.get_num_threads()) if matrices.device.type == "cpu" else 1
    if shares < 2:
        return _power_of(matrices, floors, power)
    with ThreadPoolExecutor(shares) as pool:
        parts = pool.map(_power_of, matrices.chunk(shares), floors.chunk(shares), [power] * shares)
    return torch.cat(list(parts))


def _power_of(matrices: Tensor, floors: Tensor, power: float) -> Tensor:
    finite = matrices.isfinite().flatten(1).all(1)[:, None, None]
    values, axes = torch.linalg.eigh(
        torch.where(finite, matrices, torch.eye(matrices.shape[-1], device=matrices.device))
    )
    values = values.clamp_min(0)
    values = (
        values + floors[:, None] * values.mean(1, keepdim=True) + torch.finfo(values.dtype).tiny
    )
    return (axes * values.pow(power)[:, None, :]) @ axes.mT
