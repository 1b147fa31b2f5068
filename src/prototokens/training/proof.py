"""Whether an encoder's start saves time.

The same texts fitted both ways in turn, its own cost counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from prototokens.encoder.encoder import Encoder
from prototokens.encoder.starts import starts_of
from prototokens.engine.rows import Start
from prototokens.fitting import fit
from prototokens.lm.devices import wait
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import FAST, Recipe
from prototokens.solution import Solution

# the texts are fitted in so many parts, each both ways, the first way in turn: so both meet the
# same machine
BLOCKS = 4
WAYS = ("random", "encoder")
RATES = (
    1.0,
    0.5,
    0.3,
    0.15,
    0.08,
)  # shares of the recipe's that are tried from an encoder's vectors


def tune(
    lm: FrozenLM,
    encoder: Encoder,
    texts: Sequence[Sequence[int]],
    recipe: Recipe = FAST,
    log: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """The rate at which fits go from the encoder's vectors.

    That with the fewest row-steps of those with the most exact texts.

    Args:
        texts: of one length; others than those that the encoder is to be proved on.

    Returns:
        `length` in tokens, `texts`, `rate`; `tried`: each rate with its `row_steps` and how many
        were `exact`.
    """
    part, tried = [list(ids) for ids in texts], []
    encodings = encoder.encodings(lm, part, margin=recipe.margin)
    for rate in RATES:
        starts = [
            Start(one.protos, lr_scale=rate, row_steps=one.feedback_passes) for one in encodings
        ]
        solutions = fit(lm, part, layout=encoder.layout, recipe=recipe, start=starts)
        exact, row_steps = (
            sum(one.exact for one in solutions),
            sum(one.row_steps for one in solutions),
        )
        tried.append({"rate": rate, "row_steps": row_steps, "exact": exact})
        if log:
            log(f"{len(part[0])} tokens: at {rate:g} times the rate {row_steps} row-steps")
    best = min(tried, key=lambda row: (-row["exact"], row["row_steps"]))
    return {"length": len(part[0]), "texts": len(part), "rate": best["rate"], "tried": tried}


def prove(
    lm: FrozenLM,
    encoder: Encoder,
    texts: Sequence[Sequence[int]],
    recipe: Recipe = FAST,
    log: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """One row: texts of one length, fitted both ways.

    Returns:
        `length` in tokens, `texts`, `recipe`, `dtype`; and for each way `seconds`, `row_steps`,
        `steps_median` and how many came out `exact`. Seconds of `encoder` hold its own pass, and
        its row-steps the feedback passes of its refinements.
    """
    spent = dict.fromkeys(WAYS, 0.0)
    found: dict[str, list[Solution]] = {way: [] for way in WAYS}
    size = -(-len(texts) // BLOCKS)
    for number, first in enumerate(range(0, len(texts), size)):
        part = [list(ids) for ids in texts[first : first + size]]
        for way in WAYS if number % 2 == 0 else WAYS[::-1]:
            wait(lm.device)
            began = time.monotonic()
            starts = starts_of(lm, encoder, part, recipe.margin) if way == "encoder" else "random"
            found[way] += fit(lm, part, layout=encoder.layout, recipe=recipe, start=starts)
            wait(lm.device)
            spent[way] += time.monotonic() - began
        if log:
            log(
                f"{len(texts[0])} tokens: {len(found['random'])} of {len(texts)} texts fitted both"
                " ways"
            )
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
