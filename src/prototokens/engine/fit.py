"""The fit: move the vectors of many rows, and nothing else, until the frozen model emits their targets."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from prototokens.engine.batch import Batch
from prototokens.engine.inputs import Method
from prototokens.engine.memory import is_out_of_memory
from prototokens.engine.progress import Progress
from prototokens.engine.rows import Start, groups_of
from prototokens.errors import UsageError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution

# Steps between two looks of the host at what is solved: on a GPU a look waits for all the work in
# hand.
LOOK_EVERY = {"cuda": 10}


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
    groups = groups_of(lm, targets, method, seed, share, starts)
    # Longest first: rows of like length run together, and no long one is left to run alone at the
    # end.
    waiting = deque(sorted(groups, key=lambda group: -group.positions))
    total = sum(len(group.rows) for group in groups)
    solutions: dict[int, Solution] = {}
    solved = row_steps = 0
    began = time.monotonic()
    batch = Batch(lm, recipe, method, waiting, rows)
    steps_between_looks = LOOK_EVERY.get(lm.device.type, 1)

    while batch.fill():
        taken, ran_out = _steps(batch, steps_between_looks)
        row_steps += taken * len(batch)
        if ran_out:
            batch.back_off()
            continue
        if progress:
            accuracy, loss, seconds = (
                batch.accuracy.item(),
                batch.loss.item(),
                time.monotonic() - began,
            )
            progress(
                Progress(
                    len(solutions),
                    solved,
                    total,
                    accuracy,
                    loss,
                    row_steps,
                    seconds,
                    batch.vectors_of,
                )
            )
        over = batch.over()
        for number in (number for number, ends in enumerate(over) if ends):
            if not batch.end_attempt(number):
                continue
            group = batch.groups[number]
            solved += len(group.rows) * group.solved
            for row, solution in zip(group.rows, group.best, strict=True):
                solutions[row.order] = solution
                if finished:
                    finished(row.order, solution)
        if any(over):
            batch.leave([not ends for ends in over])

    assert len(solutions) == total
    return [solutions[order] for order in range(total)]


def _steps(batch: Batch, count: int) -> tuple[int, bool]:
    """Take steps; returns how many were taken, and whether memory ran out in the next one.

    The error is not kept: by its frames it would hold all that the step had made, and there is less
    memory than that.
    """
    for taken in range(count):
        try:
            batch.step()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return taken, True
    return count, False
