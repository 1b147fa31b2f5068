"""Whether an encoder's start saves time: the same texts fitted both ways in turn, its own cost counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from prototokens.devices import wait
from prototokens.encoder.encoder import Encoder
from prototokens.engine.fit import fit
from prototokens.engine.grid import Start
from prototokens.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution

BLOCKS = 4  # the texts are fitted in so many parts, each both ways, the first way in turn: so both meet the same machine
WAYS = ("random", "encoder")


def prove(
    lm: FrozenLM,
    encoder: Encoder,
    texts: Sequence[Sequence[int]],
    recipe: str | Recipe = "fast",
    said: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """One row: texts of one length, fitted both ways.

    Returns:
        `length` in tokens, `texts`, `recipe`, `dtype`; and for each way `seconds`, `row_steps`, `steps_median` and how many
        came out `exact`. Seconds of `encoder` hold its own pass.
    """
    recipe = Recipe.named(recipe)
    spent = dict.fromkeys(WAYS, 0.0)
    found: dict[str, list[Solution]] = {way: [] for way in WAYS}
    size = -(-len(texts) // BLOCKS)
    for number, first in enumerate(range(0, len(texts), size)):
        part = [list(ids) for ids in texts[first : first + size]]
        for way in WAYS if number % 2 == 0 else WAYS[::-1]:
            wait(lm.device)
            began = time.monotonic()
            starts = [Start(protos) for protos in encoder.vectors(lm, part)] if way == "encoder" else "random"
            found[way] += fit(lm, part, layout=encoder.layout, recipe=recipe, start=starts)
            wait(lm.device)
            spent[way] += time.monotonic() - began
        if said:
            said(f"{len(texts[0])} tokens: {len(found['random'])} of {len(texts)} texts fitted both ways")
    return {
        "length": len(texts[0]),
        "texts": len(texts),
        "recipe": recipe.name,
        "dtype": str(lm.dtype).removeprefix("torch."),
        **{way: _summary(found[way], spent[way]) for way in WAYS},
    }


def _summary(solutions: list[Solution], seconds: float) -> dict[str, Any]:
    steps = sorted(solution.steps for solution in solutions)
    return {
        "seconds": round(seconds, 3),
        "row_steps": sum(solution.row_steps for solution in solutions),
        "steps_median": steps[len(steps) // 2],
        "exact": sum(solution.exact for solution in solutions),
    }
