"""The fit: train the vectors of many rows until the frozen model emits their targets."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from prototokens.engine.batch import Batch, StepResult
from prototokens.engine.inputs import Method
from prototokens.engine.memory import is_out_of_memory
from prototokens.engine.progress import Progress
from prototokens.engine.rows import Start, groups_of
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
    *,
    seed: int | Sequence[int] = 0,
    share: str | None = None,
    starts: Sequence[Start | None] | None = None,
    rows: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    finished: Callable[[int, Solution], None] | None = None,
) -> list[Solution]:
    """Fit proto-tokens to targets.

    Args:
        targets: the ids of each.
        method: how vectors and model are joined.
        starts: vectors that each target begins from (None: at random), of which those with a grid
            stay on it; by default all begin at random.
        seed, share, rows, progress, finished: as `fitting.fit` takes them.

    Returns:
        A solution for each target, in their order.

    Raises:
        TextError: a target is empty or longer than the model's context.
        UsageError: an option that cannot be meant.
        DeviceMemoryError: memory does not hold a single row.
    """
    if rows is not None and rows < 1:
        raise UsageError(f"rows must be at least 1, not {rows}")
    groups = groups_of(lm, targets, method, seed, share, starts, margin=recipe.untrained_margin)
    # Longest first: rows of similar length run together, and no long row runs alone at the end.
    waiting = deque(sorted(groups, key=lambda group: -group.positions))
    total = sum(len(group.rows) for group in groups)
    solutions: dict[int, Solution] = {}
    solved = row_steps = 0
    began = time.monotonic()
    scheduler = Scheduler(lm, recipe, method, waiting, rows)
    steps_between_checks = CHECK_EVERY.get(lm.device.type, 1)

    while scheduler.fill():
        batch = scheduler.batch
        taken, result = _steps(batch, steps_between_checks)
        row_steps += taken * len(batch)
        if result is None:
            scheduler.preempt()
            continue
        if progress:
            progress(
                Progress(
                    len(solutions),
                    solved,
                    total,
                    result.accuracy.item(),
                    result.loss.item(),
                    row_steps,
                    time.monotonic() - began,
                    batch.vectors_of,
                )
            )
        ended = batch.ended()
        for index in (index for index, ends in enumerate(ended) if ends):
            if not scheduler.end_attempt(index):
                continue
            group = batch.groups[index]
            solved += len(group.rows) * group.solved
            for row, solution in zip(group.rows, group.best, strict=True):
                solutions[row.order] = solution
                if finished:
                    finished(row.order, solution)
        if any(ended):
            scheduler.leave([not ends for ends in ended])

    assert len(solutions) == total
    return [solutions[order] for order in range(total)]


def _steps(batch: Batch, count: int) -> tuple[int, StepResult | None]:
    """Take steps.

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
