"""The shape of the set of solutions.

Distances, straight lines, quadratic Bezier curves, and the noise that a solution withstands.

Points are tensors of any shape, several side by side along the first dimension; whether a point is
a solution, and which way it would have to move to become one, is computed by functions that the
caller gives. So this module needs no model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Nodes of the Gauss-Legendre rule for a curve's length; the speed of a quadratic curve is smooth
# but where it turns back.
NODES = 64


class Noise(NamedTuple):
    """How much noise each centre withstands.

    Attributes:
        radius: for each centre and direction, the largest distance at which the point was still a
            solution.
        at_most: the largest distance that was tried; a radius of so much means "at least".
    """

    radius: Float[Tensor, "centres directions"]
    at_most: float


def cosine_distances(vectors: Float[Tensor, "count width"]) -> Float[Tensor, "count count"]:
    """1 minus the cosine between each two vectors, in float64.

    0 for the same direction, 2 for opposite ones.

    Raises:
        ValueError: a vector of length zero, which has no direction.
    """
    wide = vectors.double()
    norms = wide.norm(dim=1, keepdim=True)
    if bool((norms == 0).any()):
        raise ValueError("a vector of length zero has no direction")
    unit = wide / norms
    return (1 - unit @ unit.T).clamp(0, 2).fill_diagonal_(0)


def line(
    start: Float[Tensor, "*shape"], end: Float[Tensor, "*shape"], t: float
) -> Float[Tensor, "*shape"]:
    """The point at `t` of [0, 1] on the straight line."""
    return (1 - t) * start + t * end


def bezier(
    start: Float[Tensor, "pairs *shape"],
    control: Float[Tensor, "pairs *shape"],
    end: Float[Tensor, "pairs *shape"],
    t: float | Float[Tensor, " pairs"],
) -> Float[Tensor, "pairs *shape"]:
    """The point at `t` of each quadratic Bezier curve: (1-t)^2 start + 2t(1-t) control + t^2 end.

    Args:
        t: one position for all curves, or one for each.
    """
    at = torch.as_tensor(t, dtype=start.dtype, device=start.device)
    at = at.reshape(-1, *[1] * (start.dim() - 1)) if at.dim() else at
    return (1 - at) ** 2 * start + 2 * at * (1 - at) * control + at**2 * end


def length(
    start: Float[Tensor, "pairs *shape"],
    control: Float[Tensor, "pairs *shape"],
    end: Float[Tensor, "pairs *shape"],
) -> Float[Tensor, " pairs"]:
    """The length of each quadratic Bezier curve, in float64.

    Its speed summed by a Gauss-Legendre rule.
    """
    first, last = (
        (two - one).double().flatten(1) for one, two in ((start, control), (control, end))
    )
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    total = first.new_zeros(first.shape[0])
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        total += weight * 2 * ((1 - node) * first + node * last).norm(dim=1)
    return total


def length_ratio(
    start: Float[Tensor, "pairs *shape"],
    control: Float[Tensor, "pairs *shape"],
    end: Float[Tensor, "pairs *shape"],
) -> Float[Tensor, " pairs"]:
    """How many times as long as the straight line between its ends each curve is; never below 1."""
    straight = (end - start).double().flatten(1).norm(dim=1)
    if bool((straight == 0).any()):
        raise ValueError("the two ends of a curve are one point")
    return length(start, control, end) / straight


def fit_control(
    start: Float[Tensor, "pairs *shape"],
    end: Float[Tensor, "pairs *shape"],
    gradient: Callable[[Float[Tensor, "points *shape"]], Float[Tensor, "points *shape"]],
    *,
    steps: int,
    lr: float,
    draws: int = 1,
    seed: int = 0,
) -> Float[Tensor, "pairs *shape"]:
    """Train the control point of a quadratic Bezier curve between each two points.

    The loss becomes low all along the curve.

    Each step draws positions t ~ U(0, 1) on every curve and moves its control point, by Adam,
    against the mean gradient of the loss there (Garipov et al., arXiv 1802.10026; in arXiv
    2505.21189, section 5, for these vectors). The learning rate falls to zero along half a cosine.
    Curves are independent of each other: Adam works on each number by itself.

    Args:
        gradient: points -> gradient of each point's own loss with respect to it; a curve's points
            follow each other.
        lr: Adam's rate at the beginning.
        draws: positions on each curve in a step, one in each of so many equal parts of it.

    Returns:
        The control points; the middle of the straight line, where `steps` is 0.
    """
    control = line(start, end, 0.5).clone()
    adam = torch.optim.Adam([control], lr=lr)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, steps))
    chance = torch.Generator().manual_seed(seed)
    shape = start.shape[1:]
    ones = [1] * len(shape)
    for _ in range(steps):
        t = ((torch.arange(draws) + torch.rand(len(start), draws, generator=chance)) / draws).to(
            start
        )
        first, bent, last = (point.repeat_interleave(draws, 0) for point in (start, control, end))
        gradients = gradient(bezier(first, bent, last, t.flatten())).view(len(start), draws, *shape)
        # By the chain rule: the point moves 2t(1-t) times as far as the control point does.
        control.grad = (gradients * (2 * t * (1 - t)).view(len(start), draws, *ones)).mean(1)
        adam.step()
        falling.step()
    return control.detach()


def noise_radius(
    centres: Float[Tensor, "centres *shape"],
    holds: Callable[[Float[Tensor, "points *shape"]], Bool[Tensor, " points"]],
    *,
    directions: int,
    at_most: float,
    halvings: int = 10,
    seed: int = 0,
) -> Noise:
    """How far each point can be moved, in random directions, before it is no solution any more.

    The distance is bisected along each direction, which takes the solutions along it for one
    stretch that begins at the centre. Directions are uniform on the sphere, and the same for every
    centre.

    Args:
        holds: points -> whether each is a solution. Centres come first along the first dimension,
            directions within each.
        at_most: no distance beyond it is tried.
        halvings: the radius is known to `at_most` / 2^halvings.
    """
    count, shape = len(centres), centres.shape[1:]
    chance = torch.Generator().manual_seed(seed)
    ways = torch.randn(directions, *shape, generator=chance).to(centres)
    ways /= ways.flatten(1).norm(dim=1).view(-1, *[1] * len(shape))

    def tried(radius: Tensor) -> Tensor:
        points = centres[:, None] + radius.view(count, directions, *[1] * len(shape)) * ways
        return holds(points.flatten(0, 1)).view(count, directions).to(centres.device)

    inside = centres.new_zeros(count, directions)
    outside = torch.full_like(inside, at_most)
    far = tried(outside)
    for _ in range(halvings):
        middle = (inside + outside) / 2
        good = tried(middle)
        inside, outside = torch.where(good, middle, inside), torch.where(good, outside, middle)
    return Noise(torch.where(far, torch.full_like(inside, at_most), inside), at_most)
