"""The state of the rows that are fitted side by side, as tensors along four axes.

Along each axis, vectors, rows, scored tokens and groups, a dataclass has tensors that share their
first dimension. Groups that enter are concatenated, and groups that leave are selected away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from prototokens.engine.rows import Group

Kind = TypeVar("Kind", bound="_Axis")


@dataclass(kw_only=True)
class _Axis:
    """Tensors that share their first dimension."""

    def joined(self: Kind, new: Kind) -> Kind:
        """These entries and then the new ones, copied."""
        return type(self)(
            **{
                field.name: torch.cat([getattr(self, field.name), getattr(new, field.name)])
                for field in fields(self)
            }
        )

    def select(self: Kind, keep: Tensor) -> Kind:
        """A copy of the entries where `keep` is true."""
        return type(self)(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


@dataclass(kw_only=True)
class VectorState(_Axis):
    """State of distinct vectors: `[vectors, d_model]` unless stated otherwise.

    Attributes:
        value: the vectors that are trained.
        exp_avg, exp_avg_sq: AdamW's averages of the gradient and of its square.
        best: the best values scored in this attempt.
        group: the group of each, `[vectors]`.
        grid_scale, grid_levels: the grid that a vector is scored on (`engine.grid`), `[vectors]`;
            a scale of zero means none.
        second_moment, preconditioner: the running mean C of g g^T and C^(-p),
            `[vectors, d_model, d_model]`; `[vectors, 0, 0]` where the recipe does not precondition.
    """

    value: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    best: Tensor
    group: Tensor
    grid_scale: Tensor
    grid_levels: Tensor
    second_moment: Tensor
    preconditioner: Tensor

    @staticmethod
    def begin(value: Tensor, group: Tensor, grid: Tensor, side: int) -> VectorState:
        """Vectors before their first step.

        Args:
            grid: scales and levels, `[2, vectors]`.
            side: rows and columns of a preconditioner.
        """
        matrices = value.new_zeros(len(value), side, side)
        return VectorState(
            value=value,
            exp_avg=torch.zeros_like(value),
            exp_avg_sq=torch.zeros_like(value),
            best=value.clone(),
            group=group,
            grid_scale=grid[0],
            grid_levels=grid[1],
            second_moment=matrices,
            preconditioner=matrices.clone(),
        )


@dataclass(kw_only=True)
class RowState(_Axis):
    """State of rows.

    Attributes:
        vectors: the indices of a row's vectors, `[rows, vectors]`.
        group: the group of each, `[rows]`.
        correct, margin: right tokens and least margin of the best values scored, `[rows]`.
    """

    vectors: Tensor
    group: Tensor
    correct: Tensor
    margin: Tensor

    @staticmethod
    def begin(vectors: Tensor, group: Tensor) -> RowState:
        """Rows before they are scored."""
        return RowState(
            vectors=vectors,
            group=group,
            correct=torch.zeros_like(group),
            margin=torch.full_like(group, -math.inf, dtype=torch.float32),
        )


@dataclass(kw_only=True)
class TokenState(_Axis):
    """State of scored tokens, `[tokens]`, in the order of the rows.

    Attributes:
        row: the row of each.
        weight: what its loss is multiplied by in the gradient (`Recipe.token_weight_growth`).
        margin: at the best values scored, in logits.
    """

    row: Tensor
    weight: Tensor
    margin: Tensor


@dataclass(kw_only=True)
class GroupState(_Axis):
    """State of groups in their current attempt, `[groups]`.

    Attributes:
        step: optimizer steps so far.
        lr: learning rate, before the schedule.
        correct, margin, best_step: right tokens and least margin of the best values, and the step
            at which they were scored.
        solved: every margin was above the recipe's.
        diverged: a loss was not finite.
        warm_started: the attempt began at vectors that were given; its rate does not fall with the
            loss.
        budget: optimizer steps that the attempt may take.
        tokens: scored tokens.
        least_loss, gain_step: loss of the last gain, and its step (`Recipe.stall`).
        stalled: the attempt is given up for lack of a gain.
    """

    step: Tensor
    lr: Tensor
    correct: Tensor
    margin: Tensor
    best_step: Tensor
    solved: Tensor
    diverged: Tensor
    warm_started: Tensor
    budget: Tensor
    tokens: Tensor
    least_loss: Tensor
    gain_step: Tensor
    stalled: Tensor

    @staticmethod
    def begin(lr: Tensor, warm_started: Tensor, budget: Tensor, tokens: Tensor) -> GroupState:
        """Groups before their first step."""
        zero, false = torch.zeros_like(budget), torch.zeros_like(warm_started)
        return GroupState(
            step=zero,
            lr=lr,
            correct=zero - 1,
            margin=torch.full_like(lr, -math.inf),
            best_step=zero,
            solved=false,
            diverged=false,
            warm_started=warm_started,
            budget=budget,
            tokens=tokens,
            least_loss=torch.full_like(lr, math.inf),
            gain_step=zero,
            stalled=false,
        )

    def ended(self) -> Tensor:
        """Whether the attempt has ended: solved, diverged, stalled, or its budget spent."""
        return self.solved | self.diverged | self.stalled | (self.step > self.budget)


@dataclass(kw_only=True)
class BatchState:
    """Groups and all their state; indices count within it."""

    groups: list[Group]
    vectors: VectorState
    rows: RowState
    tokens: TokenState
    of_groups: GroupState

    def joined(self, new: BatchState) -> BatchState:
        """These groups and then the new ones."""
        vectors, groups, rows = len(self.vectors.value), len(self.groups), len(self.rows.group)
        return BatchState(
            groups=[*self.groups, *new.groups],
            vectors=self.vectors.joined(replace(new.vectors, group=new.vectors.group + groups)),
            rows=self.rows.joined(
                replace(new.rows, group=new.rows.group + groups, vectors=new.rows.vectors + vectors)
            ),
            tokens=self.tokens.joined(replace(new.tokens, row=new.tokens.row + rows)),
            of_groups=self.of_groups.joined(new.of_groups),
        )

    def select(self, chosen: Sequence[bool]) -> BatchState:
        """A copy of the chosen groups with all their state, counted anew from zero."""
        keep = torch.tensor(chosen, device=self.rows.group.device)
        of_vector, of_row = keep[self.vectors.group], keep[self.rows.group]
        vectors, rows = self.vectors.select(of_vector), self.rows.select(of_row)
        tokens = self.tokens.select(of_row[self.tokens.row])
        tokens.row = (of_row.cumsum(0) - 1)[tokens.row]
        new_index = keep.cumsum(0) - 1
        vectors.group, rows.group = new_index[vectors.group], new_index[rows.group]
        rows.vectors = (of_vector.cumsum(0) - 1)[rows.vectors]
        return BatchState(
            groups=[group for group, kept in zip(self.groups, chosen, strict=True) if kept],
            vectors=vectors,
            rows=rows,
            tokens=tokens,
            of_groups=self.of_groups.select(keep),
        )
