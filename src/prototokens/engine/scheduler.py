"""Which groups are fitted side by side: when they enter, are preempted, resume and leave.

A group is what enters and leaves together: one row, or all rows that share a vector. Every group
has its own step count, schedule and optimizer state, so its fit does not depend on the other
groups. Where memory runs out, groups are preempted with all their state, and resumed later.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice

import torch
from torch import Tensor

from prototokens.engine.batch import Batch
from prototokens.engine.inputs import Method
from prototokens.engine.memory import is_out_of_memory, max_positions
from prototokens.engine.optimizer import bytes_per_vector, side
from prototokens.engine.rows import Group, Starts
from prototokens.engine.state import BatchState, GroupState, RowState, TokenState, VectorState
from prototokens.errors import DeviceMemoryError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution

# Factor on the learning rate when a group starts again because its loss was not finite.
RETRY_LR_SCALE = 0.3
# Factor on the learning rate, beside that of the start, in every other attempt after a stall.
STALL_LR_SCALE = 0.5
MAX_DIVERGENCES = 3  # attempts whose loss was not finite after which such a group is given up
MAX_STALLS = 5  # attempts of a group that are given up for lack of a gain
BUCKET = 16  # a compiled body sees widths that are multiples of this


def compiled_width(lm: FrozenLM, longest: int) -> int:
    """Positions of a row, as a compiled body gets it whose longest row has so many."""
    return min(-(-longest // BUCKET) * BUCKET, lm.max_context or longest + BUCKET)


def compiled_heights(full: int) -> list[int]:
    """Rows of the passes that a compiled body sees: a full batch, a quarter of it, ... one."""
    sizes = [full]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 4))
    return sizes


class Scheduler:
    """The groups that run, those that were preempted, and those that wait.

    Attributes:
        batch: the groups that run.
        waiting: the groups that wait; taken from its left.
        preempted: one state for each preempted group, the next to resume last.
        max_positions: input positions, padding included, that may run side by side.
    """

    def __init__(
        self,
        lm: FrozenLM,
        recipe: Recipe,
        method: Method,
        waiting: deque[Group],
        max_rows: int | None,
    ):
        """Nothing runs yet.

        Args:
            max_rows: most rows side by side; None: as many as fill the machine and fit its memory.
        """
        self.lm, self.recipe, self.method = lm, recipe, method
        self.waiting, self.max_rows = waiting, max_rows
        self.preempted: list[BatchState] = []
        self.starts = Starts(lm, recipe, method.vectors)
        self.lr = recipe.lr * (self.starts.rms if recipe.lr_unit == "embeddings" else 1.0)
        self.total = sum(len(group.rows) for group in waiting)
        # Bytes of a row's state; vectors that are shared are counted for each.
        state_bytes = method.vectors * bytes_per_vector(recipe, lm.d_model)
        longest = max((group.positions for group in waiting), default=1)
        self.max_positions = max_positions(lm, longest, state_bytes)
        self.batch = self._laid_out(self._begin([]))

    def fill(self) -> bool:
        """Let groups in up to `max_positions`, preempted ones first; an empty batch takes any.

        Where memory runs out, nothing has entered yet, and fewer are tried; beside running groups,
        none until there is free memory.

        Returns:
            Whether any group runs.

        Raises:
            DeviceMemoryError: memory does not hold a single group.
        """
        while count := self._admissible():
            try:
                self._enter(count)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            else:
                break
            groups = self.batch.groups
            if count == 1 and not groups:
                raise self._too_large(list(islice(self._queue(), 1)))
            fewer = groups or list(islice(self._queue(), (count + 1) // 2))
            self.max_positions = self._positions(fewer)
        return bool(self.batch.groups)

    def leave(self, stay: list[bool]) -> None:
        """Drop the groups that do not stay."""
        self.batch = self._laid_out(self.batch.state.select(stay))

    def preempt(self) -> None:
        """Preempt half of the groups, with all their state, after memory ran out in a step.

        `max_positions` becomes half of the positions that ran.

        Raises:
            DeviceMemoryError: there is one group alone, and memory does not hold it.
        """
        state = self.batch.state
        count = len(state.groups)
        if count < 2:
            raise self._too_large(state.groups)
        stay = (count + 1) // 2
        self.max_positions = max(1, self._positions(state.groups) // 2)
        preempted = [
            state.select([other == index for other in range(count)])
            for index in reversed(range(stay, count))
        ]
        self.leave([index < stay for index in range(count)])
        self.preempted += preempted

    def end_attempt(self, index: int) -> bool:
        """Close the attempt of a running group and record what it found in `group.best`.

        Returns:
            Whether the group is done; if not, it waits for its next attempt.
        """
        group, state = self.batch.groups[index], self.batch.state.of_groups
        steps = int(state.step[index])
        solved, diverged = bool(state.solved[index]), bool(state.diverged[index])
        attempt = self.batch.solutions(index)
        best = max(group.best or attempt, attempt, key=_quality)
        group.solved = solved
        group.row_steps += steps
        group.divergences += diverged
        given_up = group.divergences > MAX_DIVERGENCES
        failure = f"the loss was not finite in {group.divergences} attempts" if given_up else None
        group.best = [replace(one, row_steps=group.row_steps, failure=failure) for one in best]
        again = diverged and not given_up
        if not solved and not diverged:
            if bool(state.stalled[index]) and group.stalls < MAX_STALLS:
                group.stalls += 1
                group.stalled_steps += steps
                again = group.stalled_steps < self.recipe.steps
            if not again and group.restarts < self.recipe.restarts:
                group.restarts += 1
                group.stalled_steps = 0  # a further attempt has the whole budget
                again = True
        if again:
            self.waiting.appendleft(group)
        return not again

    def _queue(self) -> Iterator[Group]:
        """The groups that are next: preempted ones, then those that wait."""
        return chain((state.groups[0] for state in reversed(self.preempted)), self.waiting)

    def _admissible(self) -> int:
        """How many groups of the queue fit within `max_positions`; an empty batch takes one."""
        running = self.batch.groups
        rows, count = len(self.batch), 0
        longest = max((group.positions for group in running), default=0)
        for group in self._queue():
            rows, longest = rows + len(group.rows), max(longest, group.positions)
            fits = rows * self._width(longest) <= self.max_positions
            fits &= self.max_rows is None or rows <= self.max_rows
            if not fits and (running or count):
                break
            count += 1
        return count

    def _enter(self, count: int) -> None:
        """Let the first groups of the queue in; nothing has changed where this fails."""
        resumed = min(count, len(self.preempted))
        entering = list(reversed(self.preempted[len(self.preempted) - resumed :]))
        if count > resumed:
            entering.append(self._begin(list(islice(self.waiting, count - resumed))))
        state = self.batch.state
        for new in entering:
            state = state.joined(new)
        self.batch = self._laid_out(state)
        del self.preempted[len(self.preempted) - resumed :]
        for _ in range(count - resumed):
            self.waiting.popleft()

    def _begin(self, groups: list[Group]) -> BatchState:
        """Groups at the start of an attempt."""
        device, count = self.lm.device, self.method.vectors
        values, grids = [torch.empty(0, self.lm.d_model)], [torch.empty(2, 0)]
        of_row: list[list[int]] = []
        first = 0
        for group in groups:
            distinct = group.index_vectors(count)
            group.step = 0
            value, grid = torch.empty(distinct, self.lm.d_model), torch.zeros(2, distinct)
            # A shared vector is the first row's.
            for row, indices in zip(reversed(group.rows), reversed(group.vectors), strict=True):
                value[indices] = self.starts.draw(row, group)
                if row.start is not None and row.start.grid is not None:
                    grid[:, indices] = torch.stack(row.start.grid)
            values.append(value)
            grids.append(grid)
            of_row += [[first + index for index in indices] for indices in group.vectors]
            first += distinct

        def whole(numbers: list) -> Tensor:
            return torch.tensor(numbers, dtype=torch.int64, device=device)

        rows = [row for group in groups for row in group.rows]
        group_of_row = [index for index, group in enumerate(groups) for _ in group.rows]
        group_of_vector = [
            index for index, group in enumerate(groups) for _ in range(group.distinct)
        ]
        row_of_token = [index for index, row in enumerate(rows) for _ in row.scored_ids]
        return BatchState(
            groups=groups,
            vectors=VectorState.begin(
                torch.cat(values).to(device),
                whole(group_of_vector),
                torch.cat(grids, 1).to(device),
                side(self.recipe, self.lm.d_model),
            ),
            rows=RowState.begin(whole(of_row).view(len(rows), count), whole(group_of_row)),
            tokens=TokenState(
                row=whole(row_of_token),
                weight=torch.ones(len(row_of_token), device=device),
                margin=torch.full((len(row_of_token),), -math.inf, device=device),
            ),
            of_groups=GroupState.begin(
                lr=torch.tensor([self._lr(group) for group in groups], device=device),
                warm_started=torch.tensor(
                    [group.warm_started for group in groups], dtype=torch.bool, device=device
                ),
                budget=whole([max(0, self.recipe.steps - group.stalled_steps) for group in groups]),
                tokens=whole([sum(len(row.scored_ids) for row in group.rows) for group in groups]),
            ),
        )

    def _lr(self, group: Group) -> float:
        """The learning rate of a group's next attempt, scaled as its start asks for."""
        scale = group.lr_scale if group.warm_started else self.starts.scale(group)
        if group.stalls % 2:
            scale *= STALL_LR_SCALE
        return self.lr * scale * RETRY_LR_SCALE**group.divergences

    def _laid_out(self, state: BatchState) -> Batch:
        """A batch of these groups, its inputs padded to one shape."""
        rows = [row for group in state.groups for row in group.rows]
        if not rows:
            return Batch(self.lm, self.recipe, self.method, state, 0, 0)
        width = self._width(max(len(row.plan.index) for row in rows))
        height = self._height(len(rows), width)
        return Batch(self.lm, self.recipe, self.method, state, width, height)

    def _positions(self, groups: list[Group]) -> int:
        """Input positions of these groups side by side, padding included."""
        longest = max(group.positions for group in groups)
        return sum(len(group.rows) for group in groups) * self._width(longest)

    def _width(self, longest: int) -> int:
        """Positions of a row as it is laid out: a compiled body sees few different ones."""
        return compiled_width(self.lm, longest) if self.lm.compiled else longest

    def _height(self, rows: int, width: int) -> int:
        """Rows of a pass: a compiled body sees a full batch, a quarter of it, and so on."""
        if not self.lm.compiled:
            return rows
        capacity = min(self.max_positions // width, self.max_rows or self.total, self.total)
        return min(size for size in compiled_heights(max(rows, capacity)) if size >= rows)

    def _too_large(self, groups: list[Group]) -> DeviceMemoryError:
        rows = sum(len(group.rows) for group in groups)
        longest = max(group.positions for group in groups)
        return DeviceMemoryError(
            f"memory ran out on {self.lm.device} with {rows} rows of {longest} positions alone:"
            " take shorter chunks, a smaller model or another dtype"
        )


def _quality(solutions: list[Solution]) -> tuple[int, float]:
    """How good an attempt was: right tokens, and among equals the least margin."""
    return sum(one.right_tokens for one in solutions), min(one.margin for one in solutions)
