"""The rows that are being fitted: they enter when there is room, and leave when they are done.

A group is what enters and leaves together: one row, or all rows that share a vector. Every group has its own age, schedule
and optimiser state, so a row's way does not depend on its company. Where memory runs out, groups are set aside with all their
state, and go on from there when there is room again.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from prototokens.engine.grid import on_grid
from prototokens.engine.head import Scores, score
from prototokens.engine.inputs import Arranged, Method, arrange
from prototokens.engine.memory import room
from prototokens.engine.optimiser import move, side
from prototokens.engine.rows import Group, Starts
from prototokens.engine.state import Groups, Rows, Vectors
from prototokens.errors import DeviceMemoryError
from prototokens.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution

RETRY_RATE = 0.3  # factor on the learning rate when a group starts again because its loss was not finite
MOST_BREAKS = 3  # starts after which such a group is given up
BUCKET = 16  # a compiled body sees widths that are multiples of this


class Members(NamedTuple):
    """Groups and all their state: those in work, or those set aside."""

    groups: list[Group]
    vectors: Vectors
    rows: Rows
    state: Groups


class Batch:
    """Groups side by side, with everything that a step needs.

    Args:
        rows: most rows side by side; None: as many as fill the machine and fit its memory.
        waiting: the groups that wait; taken from its left.
    """

    def __init__(self, lm: FrozenLM, recipe: Recipe, method: Method, waiting: deque[Group], rows: int | None):
        self.lm, self.recipe, self.method = lm, recipe, method
        self.waiting, self.most_rows = waiting, rows
        self.starts = Starts(lm, recipe, method.vectors)
        self.lr = recipe.lr * (self.starts.rms if recipe.lr_unit == "embeddings" else 1.0)
        self.aside: list[Members] = []
        self.room = room(lm, max((group.positions for group in waiting), default=1))
        self.arranged: Arranged | None = None
        wide, flat = torch.empty(0, lm.d_model, device=lm.device), torch.empty(0, device=lm.device)
        whole, flag = flat.to(torch.int64), flat.to(torch.bool)
        self.groups: list[Group] = []
        self.side = side(recipe, lm.d_model)
        matrices = torch.empty(0, self.side, self.side, device=lm.device)
        self.vectors = Vectors(wide, wide, wide, wide, whole, flat, flat, matrices, matrices)
        self.rows = Rows(whole.view(0, method.vectors), whole, whole, flat)
        self.state = Groups(whole, flat, whole, flat, whole, flag, flag)

    def __len__(self) -> int:
        return sum(len(group.rows) for group in self.groups)

    # Entering and leaving

    def fill(self) -> bool:
        """Let groups in while there is room, those set aside first; an empty batch takes any. Whether there is work."""
        entering: list[Group] = []
        count, widest = len(self), max((group.positions for group in self.groups), default=0)
        resumed = False
        while self.aside or self.waiting:
            group = self.aside[-1].groups[0] if self.aside else self.waiting[0]
            count, widest = count + len(group.rows), max(widest, group.positions)
            fits = count * widest <= self.room and (self.most_rows is None or count <= self.most_rows)
            if not fits and (self.groups or entering):
                break
            if self.aside:
                self._join(self.aside.pop())
                resumed = True
            else:
                entering.append(self.waiting.popleft())
        if entering:
            self._join(self._begin(entering))
        if entering or resumed:
            self._lay_out()
        return bool(self.groups)

    def leave(self, stay: list[bool]) -> None:
        """Drop the groups that do not stay."""
        kept = self._members(stay)
        self.groups, self.vectors, self.rows, self.state = kept
        self._lay_out()

    def back_off(self) -> None:
        """Halve the room, and set groups aside, with all their state, until the rest fits it.

        Raises:
            DeviceMemoryError: there is one group alone, and memory does not hold it.
        """
        count = len(self.groups)
        if count < 2:
            widest = max(group.positions for group in self.groups)
            raise DeviceMemoryError(
                f"memory ran out on {self.lm.device} with {len(self)} rows of {widest} positions alone: take shorter chunks,"
                " a smaller model or another dtype"
            )
        self.room = max(1, len(self) * max(group.positions for group in self.groups) // 2)
        for number in reversed(range((count + 1) // 2, count)):
            self.aside.append(self._members([other == number for other in range(count)]))
        self.leave([number < (count + 1) // 2 for number in range(count)])

    def _begin(self, groups: list[Group]) -> Members:
        """Groups at their starts, numbered from zero."""
        device = self.lm.device
        starts, grids, slots, of_vector, of_row = [], [], [], [], []
        count = 0
        for number, group in enumerate(groups):
            distinct = group.place(self.method.vectors)
            group.age = 0
            drawn, grid = torch.empty(distinct, self.lm.d_model), torch.zeros(2, distinct)
            for row, places in zip(reversed(group.rows), reversed(group.slots), strict=True):
                drawn[places] = self.starts.draw(row, group.restarts + group.breaks)
                if row.start is not None and row.start.grid is not None:
                    grid[:, places] = torch.stack(row.start.grid)
            starts.append(drawn)
            grids.append(grid)
            slots += [[count + place for place in places] for places in group.slots]
            of_vector += [number] * distinct
            of_row += [number] * len(group.rows)
            count += distinct
        now = torch.cat(starts).to(device)
        scale, levels = torch.cat(grids, 1).to(device)
        matrices = torch.zeros(len(now), self.side, self.side, device=device)

        def whole(values: list) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        def all_of(size: int, value: float, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.full((size,), value, dtype=dtype, device=device)

        rows, size = len(of_row), len(groups)
        rate = torch.tensor([self.lr * RETRY_RATE**group.breaks for group in groups], device=device)
        return Members(
            groups,
            Vectors(
                now,
                torch.zeros_like(now),
                torch.zeros_like(now),
                now.clone(),
                whole(of_vector),
                scale,
                levels,
                matrices,
                matrices.clone(),
            ),
            Rows(whole(slots), whole(of_row), all_of(rows, 0), all_of(rows, -math.inf, torch.float32)),
            Groups(
                all_of(size, 0),
                rate,
                all_of(size, -1),
                all_of(size, -math.inf, torch.float32),
                all_of(size, 0),
                all_of(size, 0, torch.bool),
                all_of(size, 0, torch.bool),
            ),
        )

    def _members(self, chosen: list[bool]) -> Members:
        """The chosen groups with their state, numbered anew from zero."""
        keep = torch.tensor(chosen, device=self.lm.device)
        number = keep.cumsum(0) - 1
        of_vector = keep[self.vectors.group]
        vectors, rows = self.vectors.select(of_vector), self.rows.select(keep[self.rows.group])
        vectors.group, rows.group = number[vectors.group], number[rows.group]
        rows.slots = (of_vector.cumsum(0) - 1)[rows.slots]
        groups = [group for group, is_chosen in zip(self.groups, chosen, strict=True) if is_chosen]
        return Members(groups, vectors, rows, self.state.select(keep))

    def _join(self, new: Members) -> None:
        """Put groups behind the ones in work."""
        count, size = self.vectors.now.shape[0], len(self.groups)
        new.vectors.group, new.rows.group = new.vectors.group + size, new.rows.group + size
        new.rows.slots = new.rows.slots + count
        self.vectors.append(new.vectors)
        self.rows.append(new.rows)
        self.state.append(new.state)
        self.groups = [*self.groups, *new.groups]

    def _lay_out(self) -> None:
        """What depends on who is in work: padded inputs, and the targets in the order of the rows."""
        if not self.groups:
            self.arranged = None
            return
        rows = [row for group in self.groups for row in group.rows]
        width = max(len(row.plan.index) for row in rows)
        if self.lm.compiled:
            width = min(-(-width // BUCKET) * BUCKET, self.lm.max_context or width + BUCKET)
        self.arranged = arrange(self.lm, [row.plan for row in rows], self.method.vectors, width)
        self.targets = torch.tensor([token for row in rows for token in row.ids], device=self.lm.device)
        self.gridded = any(row.start is not None and row.start.grid is not None for row in rows)

    # A step

    def step(self) -> None:
        """Score the vectors, note what is the best so far, and move them."""
        assert self.arranged is not None
        # The gradient at what is scored moves what stands behind it: straight through the rounding, where there is one.
        self.scored = on_grid(self.vectors.now, self.vectors.scale, self.vectors.levels) if self.gridded else self.vectors.now
        protos = self.scored.clone().requires_grad_()
        inputs = self.arranged.inputs(protos[self.rows.slots])
        read = self.lm.hidden(inputs.to(self.lm.dtype)).flatten(0, 1)[self.arranged.read]
        scores = score(self.lm, read.detach(), self.targets, self.recipe.temperature)
        (gradient,) = torch.autograd.grad(read, protos, scores.gradient)
        self._record(scores)
        self._update(gradient)

    def _record(self, scores: Scores) -> None:
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
        better &= finite & ~self._ended()
        state.correct = torch.where(better, total, state.correct)
        state.margin = torch.where(better, least, state.margin)
        state.step = torch.where(better, state.age, state.step)
        state.broken |= ~finite & ~self._ended()
        state.solved |= better & (least > self.recipe.margin)
        rows.correct = torch.where(better[rows.group], correct, rows.correct)
        rows.margin = torch.where(better[rows.group], margin, rows.margin)
        self.vectors.best = torch.where(better[self.vectors.group, None], self.scored, self.vectors.best)

    def _update(self, gradient: Tensor) -> None:
        ages = [group.age for group in self.groups for _ in range(group.distinct)]
        move(self.recipe, self.vectors, self.state, ages, gradient)
        for group in self.groups:
            group.age += 1

    # The end of an attempt

    def _ended(self) -> Tensor:
        """For each group, whether its attempt has ended: solved, broken, or every vector of its budget scored."""
        state = self.state
        return state.solved | state.broken | (state.age > self.recipe.steps)

    def over(self) -> list[bool]:
        """`_ended`, on the host: on a GPU this waits for the work in hand."""
        return self._ended().tolist()

    def end_attempt(self, number: int) -> bool:
        """Close a group's attempt: note what it gave in `group.best`. False: another attempt is due, and it waits for it."""
        group, state = self.groups[number], self.state
        attempt = self._solutions(number)
        group.spent += int(state.age[number])
        previous, reached = group.best or attempt, sum(one.correct for one in attempt)
        if reached >= sum(one.correct for one in previous):
            previous = attempt
        solved, broken = bool(state.solved[number]), bool(state.broken[number])
        group.solved = solved
        group.breaks += broken
        given_up = group.breaks > MOST_BREAKS
        failure = f"the loss was not finite in {group.breaks} attempts" if given_up else None
        group.best = [replace(one, row_steps=group.spent, failure=failure) for one in previous]
        if broken and not given_up:
            self.waiting.appendleft(group)
            return False
        if not broken and not solved and group.restarts < self.recipe.restarts:
            group.restarts += 1
            self.waiting.appendleft(group)
            return False
        return True

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
        """The vectors, as they were just scored, of the target with that order; None where it is not in the batch."""
        rows = [row.order for group in self.groups for row in group.rows]
        return self.scored[self.rows.slots[rows.index(order)]].detach().cpu().clone() if order in rows else None
