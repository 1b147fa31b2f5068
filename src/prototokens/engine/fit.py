"""The fit: move the vectors of many rows, and nothing else, until the frozen model emits their targets."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, overload

from prototokens.engine.batch import Batch
from prototokens.engine.inputs import Method, OneStep
from prototokens.engine.memory import is_out_of_memory
from prototokens.engine.progress import Progress
from prototokens.engine.rows import Start, Target, groups_of
from prototokens.errors import UsageError
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution

if TYPE_CHECKING:
    from prototokens.encoder.encoder import Encoder

# Steps between two looks of the host at what is solved: on a GPU a look waits for all the work in hand.
LOOK_EVERY = {"cuda": 10}


@overload
def fit(
    lm: FrozenLM,
    targets: str,
    *,
    layout: str | Layout = ...,
    recipe: str | Recipe = ...,
    seed: int | Sequence[int] = ...,
    share: str | None = ...,
    method: Method | None = ...,
    start: str | Encoder | Sequence[Start | None] = ...,
    rows: int | None = ...,
    progress: Callable[[Progress], None] | None = ...,
    finished: Callable[[int, Solution], None] | None = ...,
) -> Solution: ...
@overload
def fit(
    lm: FrozenLM,
    targets: Sequence[Target],
    *,
    layout: str | Layout = ...,
    recipe: str | Recipe = ...,
    seed: int | Sequence[int] = ...,
    share: str | None = ...,
    method: Method | None = ...,
    start: str | Encoder | Sequence[Start | None] = ...,
    rows: int | None = ...,
    progress: Callable[[Progress], None] | None = ...,
    finished: Callable[[int, Solution], None] | None = ...,
) -> list[Solution]: ...


def fit(
    lm: FrozenLM,
    targets: str | Sequence[Target],
    *,
    layout: str | Layout = "paper",
    recipe: str | Recipe = "fast",
    seed: int | Sequence[int] = 0,
    share: str | None = None,
    method: Method | None = None,
    start: str | Encoder | Sequence[Start | None] = "random",
    rows: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    finished: Callable[[int, Solution], None] | None = None,
) -> Solution | list[Solution]:
    """Fit proto-tokens to targets.

    Args:
        lm: the frozen model.
        targets: a text, or a list of texts and lists of token ids.
        layout: an arrangement or its name (`Layout.named`).
        recipe: a recipe or its name (`Recipe.named`).
        seed: of the starts; a list gives each target its own.
        share: one e (or one m) for all targets; then they are solved together or not at all.
        method: how vectors and model are joined, if not by `layout` in one step: `engine.inputs.Cramming(K)`, the
            autoregressive counterpart; then `layout` is not looked at.
        start: where the vectors begin: `random`; `encoder`, the one that ships for this model and layout; `auto`, that one
            where it has proved to save time; an encoder (`encoder.starts`); or for each target vectors of its own (None:
            at random), of which those with a grid stay on it.
        rows: most rows side by side; by default as many as fill the machine.
        progress: called after every step (on a GPU, every tenth).
        finished: called with the order and the solution of each target as it ends.

    Returns:
        A Solution for a text, or a list of them in the order of the targets.

    Raises:
        TextError: a target is empty or longer than the model's context.
        UsageError: an option that cannot be meant.
        DeviceMemoryError: memory does not hold a single row.
    """
    if rows is not None and rows < 1:
        raise UsageError(f"rows must be at least 1, not {rows}")
    recipe = Recipe.named(recipe)
    method = method or OneStep(Layout.named(layout))
    single = isinstance(targets, str)
    given = [targets] if single else targets
    groups = groups_of(lm, given, method, seed, share, _starts(lm, given, method, start, recipe.margin))
    # Longest first: rows of like length run together, and no long one is left to run alone at the end.
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
            accuracy, loss, seconds = batch.accuracy.item(), batch.loss.item(), time.monotonic() - began
            progress(Progress(len(solutions), solved, total, accuracy, loss, row_steps, seconds, batch.vectors_of))
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
    return solutions[0] if single else [solutions[order] for order in range(total)]


def _steps(batch: Batch, count: int) -> tuple[int, bool]:
    """Take steps; returns how many were taken, and whether memory ran out in the next one.

    The error is not kept: by its frames it would hold all that the step had made, and there is less memory than that.
    """
    for taken in range(count):
        try:
            batch.step()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return taken, True
    return count, False


def _starts(
    lm: FrozenLM, targets: Sequence[Target], method: Method, start: str | Encoder | Sequence[Start | None], margin: float
) -> Sequence[Start | None] | None:
    """Vectors that each target begins from; None where all begin at random."""
    if start == "random":
        return None
    if isinstance(start, Sequence) and not isinstance(start, str):
        return start
    from prototokens.encoder.starts import begin

    return begin(lm, targets, method.layout, start, margin).starts
