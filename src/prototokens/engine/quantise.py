"""Quantisation: vectors are rounded to a grid, and moved along it until they are exact again.

This measures the capacity of vectors in bits: how few bits a number may have while the text is
still reproduced exactly. A chunk's solution is rounded to the nearest grid of a width
(`engine.grid`); where tokens are wrong then, a short fit from there, scored on the grid at every
step, repairs them. The rounded numbers are the ones that are scored, so what is exact here is exact
in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from jaxtyping import Float32
from torch import Tensor

from prototokens.engine.fit import fit
from prototokens.engine.grid import Grid, nearest_grid
from prototokens.engine.inputs import OneStep
from prototokens.engine.progress import Progress
from prototokens.engine.rows import Init, Start
from prototokens.engine.widths import GRID_BITS, WIDTHS, check_bits
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution

POLISH_STEPS = 300
POLISH_LR_SCALE = 0.3  # factor on the recipe's learning rate: the vectors are nearly right


class Quantised(NamedTuple):
    """A chunk's vectors in few bits.

    Attributes:
        solution: with the rounded vectors.
        bits: of each of their numbers.
        grid: that they lie on; None for 16 and 32 bits.
        row_steps: forward and backward passes spent on rounding them, failed tries among them.
    """

    solution: Solution
    bits: int
    grid: Grid | None = None
    row_steps: int = 0


def quantise(
    lm: FrozenLM,
    solutions: Sequence[Solution],
    bits: int | Literal["auto"],
    recipe: Recipe,
    *,
    share: str | None = None,
    rows: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[Quantised]:
    """Round each solution to the fewest bits, from `bits` upward, in which it stays exact.

    Args:
        bits: of a number; `auto` looks for the fewest by halving the range from 1 to 8.
        recipe: whose margin has to be reached; its other values but the steps and the rate serve as
            they are.
        share: as in `fit`: rows that share a vector are rounded together.

    Returns:
        For each solution, its vectors rounded; one that is not exact to begin with stays as it is,
        in 32 bits.

    Raises:
        UsageError: no such number of bits.
    """
    found = [Quantised(solution, 32) for solution in solutions]
    exact = [number for number, solution in enumerate(solutions) if solution.exact_where_scored]
    if check_bits(bits) == 32 or not exact or (share and len(exact) < len(solutions)):
        return found
    polish = polish_recipe(recipe)
    first = -1 if bits == "auto" else WIDTHS.index(int(bits)) - 1
    searches = [
        _Search(members, first, len(WIDTHS) - 1)
        for members in ([exact] if share else [[number] for number in exact])
    ]
    while waiting := [search for search in searches if search.high - search.low > 1]:
        tries = {
            search: (search.low + search.high) // 2 if bits == "auto" else search.low + 1
            for search in waiting
        }
        widths = {
            number: WIDTHS[index] for search, index in tries.items() for number in search.members
        }
        part = [solutions[number] for number in widths]
        options = {"share": share, "rows": rows, "progress": progress}
        tried = dict(
            zip(widths, rounded(lm, part, list(widths.values()), polish, **options), strict=True)
        )
        for search, index in tries.items():
            serves = all(tried[number].solution.margin > polish.margin for number in search.members)
            search.high, search.low = (index, search.low) if serves else (search.high, index)
            for number in search.members:
                spent = found[number].row_steps + tried[number].row_steps
                found[number] = (tried[number] if serves else found[number])._replace(
                    row_steps=spent
                )
    return found


@dataclass(eq=False)
class _Search:
    """The range that is left for chunks that are rounded together.

    Attributes:
        low: index in WIDTHS of the widest that is known to fail.
        high: index of the narrowest that is known to serve.
    """

    members: list[int]
    low: int
    high: int


def rounded(
    lm: FrozenLM,
    solutions: Sequence[Solution],
    widths: Sequence[int],
    recipe: Recipe,
    *,
    share: str | None = None,
    rows: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[Quantised]:
    """Each solution in so many bits, exact or not.

    Rounded, and moved on its grid for at most `recipe.steps` steps.

    Args:
        widths: bits of each solution's numbers, among `WIDTHS`; with 16 and 32 nothing is moved.
        recipe: of the steps (`polish_recipe`); one without steps rounds and no more.
        share: as in `fit`.
    """
    found: dict[int, Quantised] = {}
    for on_grids in (True, False):
        part = [number for number, width in enumerate(widths) if (width in GRID_BITS) == on_grids]
        if not part:
            continue
        starts = [_start(solutions[number].protos, widths[number]) for number in part]
        moved = fit(
            lm,
            [solutions[number].ids for number in part],
            OneStep(solutions[part[0]].layout),
            recipe if on_grids else replace(recipe, steps=0),
            Init(share=share, starts=starts),
            rows=rows,
            progress=progress,
        )
        for number, start, one in zip(part, starts, moved, strict=True):
            before = solutions[number]
            whole = replace(
                one,
                steps=before.steps,
                row_steps=before.row_steps,
                restarts=before.restarts,
                seed=before.seed,
            )
            found[number] = Quantised(whole, widths[number], start.grid, one.row_steps)
    return [found[number] for number in range(len(solutions))]


def polish_recipe(recipe: Recipe) -> Recipe:
    """The recipe that repairs rounded vectors: its margin, in few and short steps."""
    return replace(recipe, steps=POLISH_STEPS, restarts=0, lr=POLISH_LR_SCALE * recipe.lr)


def _start(protos: Float32[Tensor, "vectors d_model"], bits: int) -> Start:
    return (
        Start(protos, nearest_grid(protos, bits))
        if bits in GRID_BITS
        else Start(protos.half().float())
    )
