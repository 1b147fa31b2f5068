"""The fit: train the vectors of many rows until the frozen model emits their targets."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from prototokens.engine.batch import Batch, StepResult
from prototokens.engine.inputs import Method
from prototokens.engine.memory import is_out_of_memory
from prototokens.engine.progress import Progress
from prototokens.engine.rows import RANDOM, Group, Init, groups_of
from prototokens.engine.scheduler import Scheduler
from prototokens.errors import UsageError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution

# Steps between two checks of what is solved: on a GPU a check waits for all running work.
CHECK_EVERY = {"cuda": 10}


def fit(
    lm: FrozenLM,
    targets: Sequence[Sequence[int]],
    method: Method,
    recipe: Recipe,
    init: Init = RANDOM,
    *,
    rows: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    finished: Callable[[int, Solution], None] | None = None,
) -> list[Solution]:
    """Fit proto-tokens to targets.

    Args:
        targets: the ids of each.
        method: how vectors and model are joined.
        init: where the vectors begin; by default at random, with the seed 0.
        rows, progress, finished: as `fitting.fit` takes them.

    Returns:
        A solution for each target, in their order.

    Raises:
        TextError: a target is empty or longer than the model's context.
        UsageError: an option with an impossible value.
        DeviceMemoryError: memory does not hold a single row.
    """
    if rows is not None and rows < 1:
        raise UsageError(f"rows must be at least 1, not {rows}")
    groups = groups_of(lm, targets, method, init, least_lead=recipe.least_lead)
    # Longest first: rows of similar length run together, and no long row runs alone at the end.
    waiting = deque(sorted(groups, key=lambda group: -group.positions))
    total = sum(len(group.rows) for group in groups)
    solutions: dict[int, Solution] = {}
    solved = row_steps = 0
    began = time.monotonic()
    scheduler = Scheduler(lm, recipe, method, waiting, rows)

    while scheduler.fill():
        batch = scheduler.batch
        taken, result = _steps(batch, CHECK_EVERY.get(lm.device.type, 1))
        row_steps += taken * len(batch)
        if result is None:
            scheduler.preempt()
            continue
        if progress:
            counts = {"done": len(solutions), "solved": solved, "total": total}
            progress(_progress(batch, result, began, row_steps=row_steps, **counts))
        for group in _finished(scheduler):
            solved += len(group.rows) * group.solved
            for row, solution in zip(group.rows, group.best, strict=True):
                solutions[row.order] = solution
                if finished:
                    finished(row.order, solution)

    assert len(solutions) == total
    return [solutions[order] for order in range(total)]


def _progress(batch: Batch, result: StepResult, began: float, **counts: int) -> Progress:
    """The progress after a step of a fit that began at this monotonic time."""
    return Progress(
        accuracy=result.accuracy.item(),
        loss=result.loss.item(),
        seconds=time.monotonic() - began,
        vectors_of=batch.vectors_of,
        **counts,
    )


def _finished(scheduler: Scheduler) -> list[Group]:
    """End the attempts that are over; returns the groups without another, which leave the batch."""
    batch = scheduler.batch
    ended = batch.ended()
    indices = [index for index, ends in enumerate(ended) if ends]
    groups = [batch.groups[index] for index in indices if scheduler.end_attempt(index)]
    if indices:
        scheduler.leave([not ends for ends in ended])
    return groups


def _steps(batch: Batch, count: int) -> tuple[int, StepResult | None]:
    """Take optimizer steps until memory runs out in one; `Scheduler.preempt` then makes room.

    The error is not kept: its frames would keep all tensors of the step alive, and there is less
    memory than that.

    Returns:
        How many steps were taken, and the result of the last one; None if memory ran out in it.
    """
    result = None
    for taken in range(count):
        try:
            result = batch.step()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return taken, None
    return count, result
