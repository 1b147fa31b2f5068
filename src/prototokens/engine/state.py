"""What a batch holds of its rows, as tensors along three axes: vectors, rows, groups.

Each kind is a dataclass whose tensors share their first axis, so entering is a concatenation and
leaving a selection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

Kind = TypeVar("Kind", bound="State")


@dataclass
class State:
    """Tensors that share their first axis."""

    def joined(self: Kind, new: Kind) -> Kind:
        """These entries and then the new ones, copied."""
        return type(self)(
            *(
                torch.cat([getattr(self, field.name), getattr(new, field.name)])
                for field in fields(self)
            )
        )

    def select(self: Kind, keep: Tensor) -> Kind:
        """A copy of the entries where `keep` is true."""
        return type(self)(*(getattr(self, field.name)[keep] for field in fields(self)))


@dataclass
class Vectors(State):
    """State along the axis of distinct vectors.

    `[vectors, d_model]`, but `group`, `scale` and `levels` `[vectors]`.

    A vector with a `scale` above zero is scored on its grid (`engine.grid`). `outer` (C) and
    `whitener` (C^(-p)) are `[vectors, d_model, d_model]`, empty where the recipe does not whiten.
    """

    now: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    best: Tensor
    group: Tensor
    scale: Tensor
    levels: Tensor
    outer: Tensor
    whitener: Tensor


@dataclass
class Rows(State):
    """State along the axis of rows: `[rows]`, but `slots` `[rows, vectors]`."""

    slots: Tensor
    group: Tensor
    correct: Tensor
    margin: Tensor


@dataclass
class Tokens(State):
    """State along the axis of scored tokens, `[tokens]`, in the order of the rows.

    The row of each, and its weight.

    `weight` multiplies a token's loss in the gradient (`Recipe.token_weight_growth`).
    """

    row: Tensor
    weight: Tensor


@dataclass
class Groups(State):
    """State along the axis of groups, `[groups]`.

    Optimiser steps so far, the learning rate, the best seen, and `steady`.

    `budget` is the number of optimiser steps that the attempt may take, and `tokens` that of scored
    tokens.

    `least_loss` is the loss of the last gain and `gained` the step of it (`Recipe.stall`).

    `steady` are those whose rate does not fall with the loss: they began at vectors that were
    given.
    """

    age: Tensor
    rate: Tensor
    correct: Tensor
    margin: Tensor
    step: Tensor
    solved: Tensor
    broken: Tensor
    steady: Tensor
    budget: Tensor
    tokens: Tensor
    least_loss: Tensor
    gained: Tensor
    stalled: Tensor

    @staticmethod
    def begun(rate: Tensor, steady: Tensor, budget: Tensor, tokens: Tensor) -> Groups:
        """Groups before their first step."""
        none, never = torch.zeros_like(budget), torch.zeros_like(steady)
        return Groups(
            age=none,
            rate=rate,
            correct=none - 1,
            margin=torch.full_like(rate, -math.inf),
            step=none,
            solved=never,
            broken=never,
            steady=steady,
            budget=budget,
            tokens=tokens,
            least_loss=torch.full_like(rate, math.inf),
            gained=none,
            stalled=never,
        )
