"""Whether an encoder's start saves time.

The same texts fitted both ways in turn, its own cost counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from prototokens.encoder.encoder import Encoder
from prototokens.encoder.judge import judged
from prototokens.encoder.starts import encodings_for_fits, starts_at
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
RATES = (1.0, 0.5, 0.3, 0.15)  # shares of the recipe's that are tried from an encoder's vectors


def tune(
    lm: FrozenLM,
    encoder: Encoder,
    texts: Sequence[Sequence[int]],
    recipe: Recipe = FAST,
    log: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """After how many refinements a fit goes on from the encoder's vectors, and at which rate.

    The pair with the fewest row-steps of those with the most exact texts.

    Args:
        texts: of one length; others than those that the encoder is to be proved on.

    Returns:
        `length` in tokens, `texts`, `refinements` (None: all), `rate`; `tried`: each pair with its
        `row_steps` and how many were `exact`.
    """
    part, tried = [list(ids) for ids in texts], []
    early = encoder.shape.refinements + 1
    for limit in (None, early) if encoder.shape.refinements else (None,):
        encodings = encoder.encodings(lm, part, limit, recipe.margin)
        for rate in RATES:
            starts = [
                Start(one.protos, lr_scale=rate, row_steps=one.feedback_passes) for one in encodings
            ]
            solutions = fit(lm, part, layout=encoder.layout, recipe=recipe, start=starts)
            exact = sum(one.exact for one in solutions)
            row_steps = sum(one.row_steps for one in solutions)
            row = {"refinements": limit, "rate": rate, "row_steps": row_steps, "exact": exact}
            tried.append(row)
            if log:
                after = "all refinements" if limit is None else f"{limit} refinements"
                log(
                    f"{len(part[0])} tokens: after {after} and at {rate:g} times the rate"
                    f" {row_steps} row-steps"
                )
    best = min(tried, key=lambda row: (-row["exact"], row["row_steps"]))
    chosen = {name: best[name] for name in ("refinements", "rate")}
    return {"length": len(part[0]), "texts": len(part), **chosen, "tried": tried}


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
        its row-steps the feedback passes of its refinements; it has their number (`passes`) too,
        and the share of tokens that are `right` where fits go on.
    """
    spent = dict.fromkeys(WAYS, 0.0)
    before: list[Solution] = []
    found: dict[str, list[Solution]] = {way: [] for way in WAYS}
    size = -(-len(texts) // BLOCKS)
    for number, first in enumerate(range(0, len(texts), size)):
        part = [list(ids) for ids in texts[first : first + size]]
        for way in WAYS if number % 2 == 0 else WAYS[::-1]:
            wait(lm.device)
            began = time.monotonic()
            encodings = []
            if way == "encoder":
                encodings = encodings_for_fits(lm, encoder, part, recipe.margin)
            starts = starts_at(encoder, encodings, part) if encodings else "random"
            found[way] += fit(lm, part, layout=encoder.layout, recipe=recipe, start=starts)
            wait(lm.device)
            spent[way] += time.monotonic() - began
            if encodings:
                before += judged(lm, encoder.layout, part, encodings)
        if log:
            log(
                f"{len(texts[0])} tokens: {len(found['random'])} of {len(texts)} texts fitted both"
                " ways"
            )
    row = {
        "length": len(texts[0]),
        "texts": len(texts),
        "recipe": recipe.name,
        "dtype": str(lm.dtype).removeprefix("torch."),
        **{way: _summary(found[way], spent[way]) for way in WAYS},
    }
    row["encoder"]["passes"] = sum(one.row_steps for one in before)
    tokens = len(texts) * len(texts[0])
    row["encoder"]["right"] = round(sum(one.correct or 0 for one in before) / tokens, 5)
    return row


def _summary(solutions: list[Solution], seconds: float) -> dict[str, Any]:
    steps = sorted(solution.steps for solution in solutions)
    return {
        "seconds": round(seconds, 3),
        "row_steps": sum(solution.row_steps for solution in solutions),
        "steps_median": steps[len(steps) // 2],
        "exact": sum(solution.exact for solution in solutions),
    }
