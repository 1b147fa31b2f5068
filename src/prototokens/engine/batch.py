"""The rows that are being fitted: they enter when there is room, and leave when they are done.

A group is what enters and leaves together: one row, or all rows that share a vector. Every group has its own age, schedule
and optimiser state, so a row's way does not depend on its company. All state is in tensors along three axes (vectors, rows,
groups); entering and leaving are a concatenation and a selection.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prototokens.engine.head import Scores
from prototokens.engine.inputs import Arranged, Method, arrange
from prototokens.engine.rows import Group, Starts
from prototokens.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution

# Input positions of one pass. On a CPU the matrix products stop gaining beyond about a thousand (measured: dev/LOG.md).
POSITIONS = {"cpu": 1024, "cuda": 1 << 16}
RETRY_RATE = 0.3  # factor on the learning rate when a group starts again because its loss was not finite
MOST_BREAKS = 3  # starts after which such a group is given up


@dataclass
class Vectors:
    """State along the axis of distinct vectors, `[vectors, d_model]` but for `group`, `[vectors]`."""

    now: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    best: Tensor
    group: Tensor


@dataclass
class Rows:
    """State along the axis of rows: `[rows]`, but `slots` `[rows, vectors]`."""

    slots: Tensor
    group: Tensor
    length: Tensor
    correct: Tensor
    margin: Tensor


@dataclass
class Groups:
    """State along the axis of groups, `[groups]`: optimiser steps so far, factor on the rate, and the best seen."""

    age: Tensor
    rate: Tensor
    correct: Tensor
    margin: Tensor
    step: Tensor
    solved: Tensor
    broken: Tensor


class Batch:
    """Groups side by side, with everything that a step needs."""

    def __init__(self, lm: FrozenLM, recipe: Recipe, method: Method):
        self.lm, self.recipe, self.method = lm, recipe, method
        self.starts = Starts(lm, recipe, method.vectors)
        unit = self.starts.rms if recipe.lr_unit == "embeddings" else 1.0
        self.lr = recipe.lr * unit
        self.groups: list[Group] = []
        self.arranged: Arranged | None = None
        self._empty()

    def _empty(self) -> None:
        d_model, device = self.lm.d_model, self.lm.device
        wide, flat = torch.empty(0, d_model, device=device), torch.empty(0, device=device)
        whole = torch.empty(0, dtype=torch.int64, device=device)
        flag = torch.empty(0, dtype=torch.bool, device=device)
        self.vectors = Vectors(wide, wide, wide, wide, whole)
        self.rows = Rows(whole.view(0, self.method.vectors), whole, whole, whole, flat)
        self.state = Groups(whole, flat, whole, flat, whole, flag, flag)

    def __len__(self) -> int:
        return sum(len(group.rows) for group in self.groups)

    def fill(self, waiting: deque[Group], rows: int | None) -> None:
        """Let waiting groups in while there is room, `rows` at most or what suits the device; an empty batch takes any."""
        room = POSITIONS.get(self.lm.device.type, POSITIONS["cpu"])
        entering: list[Group] = []
        count, widest = len(self), max((group.positions for group in self.groups), default=0)
        while waiting:
            group = waiting[0]
            count, widest = count + len(group.rows), max(widest, group.positions)
            fits = count * widest <= room if rows is None else count <= rows
            if not fits and (self.groups or entering):
                break
            entering.append(waiting.popleft())
        if entering:
            self.enter(entering)

    def enter(self, groups: list[Group]) -> None:
        """Let groups in, each at its start."""
        device, recipe = self.lm.device, self.recipe
        starts, slots, of_vector, of_row = [], [], [], []
        count = self.vectors.now.shape[0]
        for number, group in enumerate(groups, start=len(self.groups)):
            distinct = group.place(self.method.vectors)
            drawn = torch.empty(distinct, self.lm.d_model)
            for row, places in zip(reversed(group.rows), reversed(group.slots), strict=True):
                drawn[places] = self.starts.draw(row, group.restarts + group.breaks)
            starts.append(drawn)
            slots += [[count + place for place in places] for places in group.slots]
            of_vector += [number] * distinct
            of_row += [number] * len(group.rows)
            count += distinct
        rows = [row for group in groups for row in group.rows]
        now = torch.cat(starts).to(device)

        def whole(values: list) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        def all_of(size: int, value: float | bool, dtype: torch.dtype) -> Tensor:
            return torch.full((size,), value, dtype=dtype, device=device)

        size = len(groups)
        self._append(self.vectors, Vectors(now, torch.zeros_like(now), torch.zeros_like(now), now.clone(), whole(of_vector)))
        self._append(
            self.rows,
            Rows(
                whole(slots),
                whole(of_row),
                whole([len(row.ids) for row in rows]),
                all_of(len(rows), 0, torch.int64),
                all_of(len(rows), -math.inf, torch.float32),
            ),
        )
        rate = torch.tensor([RETRY_RATE**group.breaks for group in groups], device=device)
        self._append(
            self.state,
            Groups(
                all_of(size, 0, torch.int64),
                rate * self.lr,
                all_of(size, -1, torch.int64),
                all_of(size, -math.inf, torch.float32),
                all_of(size, 0, torch.int64),
                all_of(size, recipe.margin < 0, torch.bool),
                all_of(size, False, torch.bool),
            ),
        )
        self.groups += groups
        self._lay_out()

    def leave(self, stay: list[bool]) -> None:
        """Drop the groups that do not stay."""
        device = self.lm.device
        keep = torch.tensor(stay, device=device)
        number = keep.cumsum(0) - 1
        vectors, rows = keep[self.vectors.group], keep[self.rows.group]
        place = vectors.cumsum(0) - 1
        self._select(self.vectors, vectors)
        self._select(self.rows, rows)
        self._select(self.state, keep)
        self.vectors.group, self.rows.group = number[self.vectors.group], number[self.rows.group]
        self.rows.slots = place[self.rows.slots]
        self.groups = [group for group, stays in zip(self.groups, stay, strict=True) if stays]
        self._lay_out()

    @staticmethod
    def _append(state, new) -> None:
        for name, tensor in vars(new).items():
            setattr(state, name, torch.cat([getattr(state, name), tensor]))

    @staticmethod
    def _select(state, keep: Tensor) -> None:
        for name, tensor in vars(state).items():
            setattr(state, name, tensor[keep])

    def _lay_out(self) -> None:
        if not self.groups:
            self.arranged = None
            return
        rows = [row for group in self.groups for row in group.rows]
        self.arranged = arrange(self.lm, [row.plan for row in rows], self.method.vectors)
        self.targets = torch.tensor([token for row in rows for token in row.ids], device=self.lm.device)

    def record(self, scores: Scores) -> None:
        """Note, for each group, whether the vectors just scored are its best so far, and keep a copy where they are."""
        assert self.arranged is not None
        rows, state, of_row = self.rows, self.state, self.arranged.row_of
        correct = torch.zeros_like(rows.correct).index_add_(0, of_row, scores.right.long())
        margin = torch.full_like(rows.margin, math.inf).scatter_reduce_(0, of_row, scores.margin, "amin")
        loss = torch.zeros_like(rows.margin).index_add_(0, of_row, scores.loss)
        self.accuracy, self.loss = scores.right.float().mean(), scores.loss.mean()
        total = torch.zeros_like(state.correct).index_add_(0, rows.group, correct)
        least = torch.full_like(state.margin, math.inf).scatter_reduce_(0, rows.group, margin, "amin")
        finite = torch.zeros_like(state.margin).index_add_(0, rows.group, loss).isfinite()
        better = (total > state.correct) | ((total == state.correct) & (least > state.margin))
        better &= finite & ~state.solved
        state.correct = torch.where(better, total, state.correct)
        state.margin = torch.where(better, least, state.margin)
        state.step = torch.where(better, state.age, state.step)
        state.solved |= better & (least > self.recipe.margin)
        state.broken |= ~finite & ~state.solved
        rows.correct = torch.where(better[rows.group], correct, rows.correct)
        rows.margin = torch.where(better[rows.group], margin, rows.margin)
        chosen = better[self.vectors.group, None]
        self.vectors.best = torch.where(chosen, self.vectors.now, self.vectors.best)

    def update(self, gradient: Tensor) -> None:
        """One AdamW step (Loshchilov & Hutter 2019), each vector at the age and rate of its group."""
        recipe, vectors, state = self.recipe, self.vectors, self.state
        fast, slow = recipe.betas
        rate = state.rate
        if recipe.schedule == "cosine":
            rate = rate * (1 + torch.cos(math.pi * state.age / max(1, recipe.steps))) / 2
        state.age = state.age + 1
        age, rate = state.age[vectors.group, None], rate[vectors.group, None]
        vectors.exp_avg.lerp_(gradient, 1 - fast)
        vectors.exp_avg_sq.mul_(slow).addcmul_(gradient, gradient, value=1 - slow)
        scale = vectors.exp_avg_sq.div(1 - slow**age).sqrt_().add_(1e-8)
        step = vectors.exp_avg.div(1 - fast**age).div_(scale)
        vectors.now = vectors.now - rate * (step + recipe.weight_decay * vectors.now)

    def over(self) -> list[bool]:
        """For each group, whether its attempt has ended: solved, broken, or out of budget."""
        state = self.state
        return (state.solved | state.broken | (state.age >= self.recipe.steps)).tolist()

    def end_attempt(self, number: int) -> Group | None:
        """Close a group's attempt: note what it gave in `group.best`; returns the group where another attempt is due."""
        group, state = self.groups[number], self.state
        attempt = self._solutions(number)
        group.spent += int(state.age[number]) + 1
        previous, reached = group.best or attempt, sum(one.correct for one in attempt)
        if reached >= sum(one.correct for one in previous):
            previous = attempt
        solved, broken = bool(state.solved[number]), bool(state.broken[number])
        group.breaks += broken
        given_up = group.breaks > MOST_BREAKS
        failure = f"the loss was not finite in {group.breaks} attempts" if given_up else None
        group.best = [replace(one, row_steps=group.spent, failure=failure) for one in previous]
        if broken and not given_up:
            return group
        if not broken and not solved and group.restarts < self.recipe.restarts:
            group.restarts += 1
            return group
        return None

    def _solutions(self, number: int) -> list[Solution]:
        """For each row of a group, the best vectors that were scored in this attempt."""
        group = self.groups[number]
        places = (self.rows.group == number).nonzero()[:, 0].tolist()
        return [
            Solution(
                protos=self.vectors.best[self.rows.slots[place]].cpu().clone(),
                layout=self.method.layout,
                ids=row.ids,
                correct=int(self.rows.correct[place]),
                margin=float(self.rows.margin[place]),
                steps=int(self.state.step[number]),
                row_steps=0,
                restarts=group.restarts + group.breaks,
                seed=row.seed,
            )
            for row, place in zip(group.rows, places, strict=True)
        ]

    def vectors_of(self, order: int) -> Tensor | None:
        """The vectors, as they are now, of the target with that order; None where it is not in the batch."""
        rows = [row.order for group in self.groups for row in group.rows]
        return self.vectors.now[self.rows.slots[rows.index(order)]].detach().cpu().clone() if order in rows else None
