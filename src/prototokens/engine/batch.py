"""The rows that are being fitted: they enter when there is room, and leave when they are done.

A group is what enters and leaves together: one row, or all rows that share a vector. Every group
has its own age, schedule and optimiser state, so a row's way does not depend on its company. Where
memory runs out, groups are set aside with all their state, and go on from there when there is room
again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import Tensor

from prototokens.engine import candidates
from prototokens.engine.forward import scored_hidden
from prototokens.engine.grid import on_grid
from prototokens.engine.head import Scores, score
from prototokens.engine.inputs import Arranged, Method, arrange
from prototokens.engine.memory import is_out_of_memory, room
from prototokens.engine.optimizer import bytes_per_vector, move, side, token_weights
from prototokens.engine.rows import Group, Starts
from prototokens.engine.state import Groups, Rows, Tokens, Vectors
from prototokens.errors import DeviceMemoryError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution

RETRY_RATE = (
    0.3  # factor on the learning rate when a group starts again because its loss was not finite
)
MOST_BREAKS = 3  # starts after which such a group is given up
STALL_GAIN = 0.1  # by how much the loss has to fall to count as a gain (`Recipe.stall`)
STALL_ACCURACY = 0.75  # share of right tokens from which on a slow attempt goes on
MAX_STALLS = 5  # attempts of a group that are given up for lack of a gain
BUCKET = 16  # a compiled body sees widths that are multiples of this


class Members(NamedTuple):
    """Groups and all their state: those in work, or those set aside."""

    groups: list[Group]
    vectors: Vectors
    rows: Rows
    tokens: Tokens
    state: Groups


def compiled_width(lm: FrozenLM, widest: int) -> int:
    """Positions of a row, as a compiled body gets it whose widest row has so many."""
    return min(-(-widest // BUCKET) * BUCKET, lm.max_context or widest + BUCKET)


def compiled_heights(full: int) -> list[int]:
    """Rows of the passes that a compiled body sees.

    A full batch, a quarter of it, and so on down to one.
    """
    sizes = [full]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 4))
    return sizes


def _joined(work: Members, new: Members) -> Members:
    """Groups behind the ones in work, numbered on from theirs."""
    count, size = len(work.vectors.now), len(work.groups)
    return Members(
        [*work.groups, *new.groups],
        work.vectors.joined(replace(new.vectors, group=new.vectors.group + size)),
        work.rows.joined(
            replace(new.rows, group=new.rows.group + size, slots=new.rows.slots + count)
        ),
        work.tokens.joined(replace(new.tokens, row=new.tokens.row + len(work.rows.slots))),
        work.state.joined(new.state),
    )


def _reached(solutions: list[Solution]) -> tuple[int, float]:
    """How good an attempt was: most tokens right, and among equals the largest least margin."""
    return sum(one.correct for one in solutions), min(one.margin for one in solutions)


class Batch:
    """Groups side by side, with everything that a step needs.

    Args:
        rows: most rows side by side; None: as many as fill the machine and fit its memory.
        waiting: the groups that wait; taken from its left.
    """

    def __init__(
        self, lm: FrozenLM, recipe: Recipe, method: Method, waiting: deque[Group], rows: int | None
    ):
        self.lm, self.recipe, self.method = lm, recipe, method
        self.waiting, self.most_rows = waiting, rows
        self.starts = Starts(lm, recipe, method.vectors)
        self.lr = recipe.lr * (self.starts.rms if recipe.lr_unit == "embeddings" else 1.0)
        self.aside: list[Members] = []
        self.total = sum(len(group.rows) for group in waiting)
        # A row of `method.vectors`; those that are shared are counted for each.
        kept = method.vectors * bytes_per_vector(recipe, lm.d_model)
        self.room = room(lm, max((group.positions for group in waiting), default=1), kept)
        self.arranged: Arranged | None = None
        self.targets: Tensor | None = None
        wide, flat = torch.empty(0, lm.d_model, device=lm.device), torch.empty(0, device=lm.device)
        whole, flag = flat.to(torch.int64), flat.to(torch.bool)
        self.groups: list[Group] = []
        self.side = side(recipe, lm.d_model)
        matrices = torch.empty(0, self.side, self.side, device=lm.device)
        self.vectors = Vectors(wide, wide, wide, wide, whole, flat, flat, matrices, matrices)
        self.rows = Rows(whole.view(0, method.vectors), whole, whole, flat)
        self.tokens = Tokens(whole, flat)
        self.state = Groups.begun(flat, flag, whole, whole)

    def __len__(self) -> int:
        return sum(len(group.rows) for group in self.groups)

    # Entering and leaving

    def fill(self) -> bool:
        """Let groups in while there is room, those set aside first; an empty batch takes any.

        Whether there is work.

        Where memory runs out, nothing has entered yet, and fewer are tried; beside groups in work,
        none until there is room.

        Raises:
            DeviceMemoryError: memory does not hold a single group.
        """
        while count := self._fitting():
            try:
                self._enter(count)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            else:
                break
            if count == 1 and not self.groups:
                raise self._too_large(list(islice(self._line(), 1)))
            self.room = self._positions(self.groups or list(islice(self._line(), (count + 1) // 2)))
        return bool(self.groups)

    def _line(self) -> Iterator[Group]:
        """The groups that are next: those set aside, the last one first, then those that wait."""
        return chain((members.groups[0] for members in reversed(self.aside)), self.waiting)

    def _fitting(self) -> int:
        """How many of the line there is room for; an empty batch has room for one."""
        rows, widest, count = (
            len(self),
            max((group.positions for group in self.groups), default=0),
            0,
        )
        for group in self._line():
            rows, widest = rows + len(group.rows), max(widest, group.positions)
            fits = rows * self._width(widest) <= self.room and (
                self.most_rows is None or rows <= self.most_rows
            )
            if not fits and (self.groups or count):
                break
            count += 1
        return count

    def _enter(self, count: int) -> None:
        """Let the first of the line in; nothing has changed where this fails."""
        resumed = min(count, len(self.aside))
        entering = list(reversed(self.aside[len(self.aside) - resumed :]))
        if count > resumed:
            entering.append(self._begin(list(islice(self.waiting, count - resumed))))
        work = Members(self.groups, self.vectors, self.rows, self.tokens, self.state)
        for members in entering:
            work = _joined(work, members)
        self._take(work)
        del self.aside[len(self.aside) - resumed :]
        for _ in range(count - resumed):
            self.waiting.popleft()

    def leave(self, stay: list[bool]) -> None:
        """Drop the groups that do not stay."""
        self._take(self._members(stay))

    def back_off(self) -> None:
        """Halve the room, and set groups aside, with all their state, until the rest fits it.

        Raises:
            DeviceMemoryError: there is one group alone, and memory does not hold it.
        """
        count = len(self.groups)
        if count < 2:
            raise self._too_large(self.groups)
        stay = (count + 1) // 2
        self.room = max(1, self._positions(self.groups) // 2)
        aside = [
            self._members([other == number for other in range(count)])
            for number in reversed(range(stay, count))
        ]
        self.leave([number < stay for number in range(count)])
        self.aside += aside

    def _positions(self, groups: list[Group]) -> int:
        """Input positions of these groups side by side, padding included."""
        return sum(len(group.rows) for group in groups) * self._width(
            max(group.positions for group in groups)
        )

    def _width(self, widest: int) -> int:
        """Positions of a row as it is laid out: a compiled body sees few different ones."""
        return compiled_width(self.lm, widest) if self.lm.compiled else widest

    def _height(self, rows: int, width: int) -> int:
        """Rows of a pass, empty ones among them.

        A compiled body sees a full batch, a quarter of it, and so on.
        """
        if not self.lm.compiled:
            return rows
        full = max(rows, min(self.room // width, self.most_rows or self.total, self.total))
        return min(size for size in compiled_heights(full) if size >= rows)

    def _too_large(self, groups: list[Group]) -> DeviceMemoryError:
        rows, widest = (
            sum(len(group.rows) for group in groups),
            max(group.positions for group in groups),
        )
        return DeviceMemoryError(
            f"memory ran out on {self.lm.device} with {rows} rows of {widest} positions alone: take"
            " shorter chunks,"
            " a smaller model or another dtype"
        )

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
                drawn[places] = self.starts.draw(row, group.attempt)
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

        lengths = [len(row.ids) for group in groups for row in group.rows]
        of_token = [number for number, length in enumerate(lengths) for _ in range(length)]
        rows = len(of_row)
        rates = [
            self.lr * self._scale(group) * group.rate * RETRY_RATE**group.breaks for group in groups
        ]
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
            Rows(
                whole(slots), whole(of_row), all_of(rows, 0), all_of(rows, -math.inf, torch.float32)
            ),
            Tokens(whole(of_token), all_of(len(of_token), 1, torch.float32)),
            Groups.begun(
                rate=torch.tensor(rates, device=device),
                steady=torch.tensor([group.steady for group in groups], device=device),
                # What stalled attempts took comes out of the recipe's budget.
                budget=whole([max(0, self.recipe.steps - group.stalled_steps) for group in groups]),
                tokens=whole([sum(len(row.ids) for row in group.rows) for group in groups]),
            ),
        )

    def _scale(self, group: Group) -> float:
        """Of an attempt's rate: that of its random start.

        1 where it begins at vectors that were given.
        """
        return 1.0 if group.steady else self.recipe.start_scale

    def _members(self, chosen: list[bool]) -> Members:
        """The chosen groups with their state, numbered anew from zero."""
        keep = torch.tensor(chosen, device=self.lm.device)
        number = keep.cumsum(0) - 1
        of_vector = keep[self.vectors.group]
        of_row = keep[self.rows.group]
        vectors, rows = self.vectors.select(of_vector), self.rows.select(of_row)
        tokens = self.tokens.select(of_row[self.tokens.row])
        tokens.row = (of_row.cumsum(0) - 1)[tokens.row]
        vectors.group, rows.group = number[vectors.group], number[rows.group]
        rows.slots = (of_vector.cumsum(0) - 1)[rows.slots]
        groups = [group for group, is_chosen in zip(self.groups, chosen, strict=True) if is_chosen]
        return Members(groups, vectors, rows, tokens, self.state.select(keep))

    def _take(self, work: Members) -> None:
        """Make these groups the ones in work, laid out; nothing has changed where this fails.

        What depends on who is in work: padded inputs, and the targets in the order of the rows.
        """
        arranged, targets, height = None, None, 0
        rows = [row for group in work.groups for row in group.rows]
        if rows:
            width = self._width(max(len(row.plan.index) for row in rows))
            height = self._height(len(rows), width)
            arranged = arrange(self.lm, [row.plan for row in rows], self.method.vectors, width)
            targets = torch.tensor(
                [token for row in rows for token in row.ids], device=self.lm.device
            )
        self.groups, self.vectors, self.rows, self.tokens, self.state = work
        self.arranged, self.targets, self.height = arranged, targets, height
        self.gridded = any(row.start is not None and row.start.grid is not None for row in rows)

    # A step

    def step(self) -> None:
        """Score the vectors, note what is the best so far, and move them.

        Where memory runs out, the step has not been taken: what was noted by then would be noted
        again, and nothing has moved.
        """
        assert self.arranged is not None
        assert self.targets is not None
        # The gradient at what is scored moves what stands behind it: straight through the rounding,
        # where there is one.
        self.scored = (
            on_grid(self.vectors.now, self.vectors.scale, self.vectors.levels)
            if self.gridded
            else self.vectors.now
        )
        protos = self.scored.clone().requires_grad_()
        read = scored_hidden(
            self.lm, self.arranged, protos[self.rows.slots], self.lm.hidden_static, self.height
        )
        scores, full = self._scores(read.detach(), self.targets)
        assert scores.gradient is not None
        weight = token_weights(self.recipe, self.tokens.weight, scores.margin)
        weighted = (
            scores.gradient
            if weight is self.tokens.weight
            else (scores.gradient * weight[:, None]).to(read.dtype)
        )
        (gradient,) = torch.autograd.grad(read, protos, weighted)
        self._record(scores, full)
        new_tokens = replace(self.tokens, weight=weight)
        self._update(gradient)
        self.tokens = new_tokens

    def _scores(self, hidden: Tensor, targets: Tensor) -> tuple[Scores, Tensor | bool]:
        """The scores, and which groups (True: all) were scored against the whole vocabulary."""
        if candidates.pays(self.lm, self.recipe):
            return candidates.score_candidates(self.lm, self.recipe, self.groups, hidden, targets)
        return score(self.lm, hidden, targets, self.recipe.temperature), True

    def _record(self, scores: Scores, full: Tensor | bool) -> None:
        """Note, for each group, whether the vectors just scored are its best so far.

        Only scores against the whole vocabulary (`full`) count; a copy is kept of what is best.
        """
        assert self.arranged is not None
        rows, state, vectors, of_row = self.rows, self.state, self.vectors, self.arranged.row_of
        correct = torch.zeros_like(rows.correct).index_add_(0, of_row, scores.right.long())
        margin = torch.full_like(rows.margin, math.inf).scatter_reduce_(
            0, of_row, scores.margin, "amin"
        )
        loss = torch.zeros_like(rows.margin).index_add_(0, of_row, scores.loss)
        total = torch.zeros_like(state.correct).index_add_(0, rows.group, correct)
        least = torch.full_like(state.margin, math.inf).scatter_reduce_(
            0, rows.group, margin, "amin"
        )
        finite = torch.zeros_like(state.margin).index_add_(0, rows.group, loss).isfinite()
        going = ~self._ended()
        better = (total > state.correct) | ((total == state.correct) & (least > state.margin))
        better &= finite & going & full
        mean_loss = torch.zeros_like(state.margin).scatter_reduce_(
            0, rows.group[of_row], scores.loss, "mean", include_self=False
        )
        best_correct = torch.where(better, total, state.correct)
        gain = mean_loss < state.least_loss * (1 - STALL_GAIN)
        gained = torch.where(gain, state.age, state.gained)
        stalled = (state.age - gained > self.recipe.stall) & (
            best_correct < STALL_ACCURACY * state.tokens
        )
        new_state = replace(
            state,
            least_loss=torch.where(gain, mean_loss, state.least_loss),
            gained=gained,
            stalled=state.stalled | (stalled & going & (self.recipe.stall > 0)),
            correct=best_correct,
            margin=torch.where(better, least, state.margin),
            step=torch.where(better, state.age, state.step),
            broken=state.broken | (~finite & going),
            solved=state.solved | (better & (least > self.recipe.margin)),
        )
        of_better = better[rows.group]
        new_rows = replace(
            rows,
            correct=torch.where(of_better, correct, rows.correct),
            margin=torch.where(of_better, margin, rows.margin),
        )
        best = torch.where(better[vectors.group, None], self.scored, vectors.best)
        self.accuracy, self.loss = scores.right.float().mean(), scores.loss.mean()
        self.group_loss = mean_loss
        # All of it or, where memory ran out above, nothing.
        self.state, self.rows, self.vectors = new_state, new_rows, replace(vectors, best=best)

    def _update(self, gradient: Tensor) -> None:
        ages = [group.age for group in self.groups for _ in range(group.distinct)]
        move(self.recipe, self.vectors, self.state, ages, gradient, self.group_loss)
        for group in self.groups:
            group.age += 1

    # The end of an attempt

    def _ended(self) -> Tensor:
        """For each group, whether its attempt has ended.

        Solved, broken, stalled, or every vector of its budget scored.
        """
        state = self.state
        return state.solved | state.broken | state.stalled | (state.age > state.budget)

    def over(self) -> list[bool]:
        """`_ended`, on the host: on a GPU this waits for the work in hand."""
        return self._ended().tolist()

    def end_attempt(self, number: int) -> bool:
        """Close a group's attempt: note what it gave in `group.best`.

        False: another attempt is due, and it waits for it.
        """
        group, state = self.groups[number], self.state
        attempt = self._solutions(number)
        group.spent += int(state.age[number])
        previous = max(group.best or attempt, attempt, key=_reached)
        solved, broken = bool(state.solved[number]), bool(state.broken[number])
        group.solved = solved
        group.breaks += broken
        stalled = (
            bool(state.stalled[number]) and not (solved or broken) and group.stalls < MAX_STALLS
        )
        if stalled:
            group.stalls += 1
            group.stalled_steps += int(state.age[number])
            stalled = group.stalled_steps < self.recipe.steps
        given_up = group.breaks > MOST_BREAKS
        failure = f"the loss was not finite in {group.breaks} attempts" if given_up else None
        group.best = [replace(one, row_steps=group.spent, failure=failure) for one in previous]
        if stalled or (broken and not given_up):
            self.waiting.appendleft(group)
            return False
        if not broken and not solved and group.restarts < self.recipe.restarts:
            group.restarts += 1
            group.stalled_steps = 0  # a further attempt has the whole budget
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
                restarts=group.attempt,
                seed=row.seed,
            )
            for row, place in zip(group.rows, places, strict=True)
        ]

    def vectors_of(self, order: int) -> Tensor | None:
        """The vectors, as they were just scored, of the target with that order.

        None where it is not in the batch.
        """
        rows = [row.order for group in self.groups for row in group.rows]
        return (
            self.scored[self.rows.slots[rows.index(order)]].detach().cpu().clone()
            if order in rows
            else None
        )
