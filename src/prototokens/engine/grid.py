"""Vectors on a grid: 2^bits levels at odd multiples of one scale for each vector.

A number on the grid takes `bits` bits in a file. The levels are -(2^b - 1), ..., -3, -1, 1, 3, ...,
2^b - 1: all 2^b of them serve, down to one bit. A fit on a grid trains a free vector, scores the
nearest vector on the grid, and moves the free one by the gradient at that point (the
straight-through estimator, Bengio et al., arXiv 1308.3432).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

# Shares of the largest number that are tried as the outermost level: with few bits the
# error is smaller where the largest numbers are clipped.
CUTS = tuple(0.2 + 0.02 * step for step in range(41))


class Grid(NamedTuple):
    """The grids of a row's vectors.

    Attributes:
        scale: of each vector; 0 for one that is free.
        levels: 2^bits of each.
    """

    scale: Float32[Tensor, "vectors"]
    levels: Float32[Tensor, "vectors"]


def levels_of(
    protos: Float32[Tensor, "vectors d_model"],
    scale: Float32[Tensor, "vectors"],
    levels: Float32[Tensor, "vectors"],
) -> Float32[Tensor, "vectors d_model"]:
    """The nearest level of each number, from 0 to levels - 1, counted from the lowest."""
    steps = (
        protos / (2 * scale.clamp_min(torch.finfo(torch.float32).tiny))[:, None]
        + levels[:, None] / 2
    )
    return steps.floor().clamp_min_(0).minimum(levels[:, None] - 1)


def values_of(
    codes: Float32[Tensor, "vectors d_model"] | Int64[Tensor, "vectors d_model"],
    scale: Float32[Tensor, "vectors"],
    levels: Float32[Tensor, "vectors"],
) -> Float32[Tensor, "vectors d_model"]:
    """The numbers that levels stand for."""
    return (2 * codes + 1 - levels[:, None]) * scale[:, None]


def on_grid(
    protos: Float32[Tensor, "vectors d_model"],
    scale: Float32[Tensor, "vectors"],
    levels: Float32[Tensor, "vectors"],
) -> Float32[Tensor, "vectors d_model"]:
    """The nearest vectors on the grid; those with scale 0 are returned unchanged."""
    return torch.where(
        scale[:, None] > 0, values_of(levels_of(protos, scale, levels), scale, levels), protos
    )


def nearest_grid(protos: Float32[Tensor, "vectors d_model"], bits: int) -> Grid:
    """For each vector, the grid with the least squared distance to it, among `CUTS`."""
    levels = torch.full((protos.shape[0],), float(2**bits))
    largest = protos.abs().amax(1).clamp_min(1e-12)
    scales = torch.stack([cut * largest / (2**bits - 1) for cut in CUTS])
    errors = torch.stack(
        [(on_grid(protos, scale, levels) - protos).square().sum(1) for scale in scales]
    )
    return Grid(scales.gather(0, errors.argmin(0, keepdim=True))[0], levels)
