"""How fast this machine fits, by a few steps on a plan's own first chunks.

So a forecast of steps becomes one of time.
"""

from __future__ import annotations

from dataclasses import replace

from prototokens.engine.fit import fit
from prototokens.engine.inputs import OneStep
from prototokens.engine.progress import Progress
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.planning.chunks import ChunkPlan
from prototokens.recipe import Recipe

STEPS = 3
# Positions of the trial, so that it runs as full as the fit itself will, and ends soon.
POSITIONS, POSITIONS_GPU = 1 << 10, 1 << 15


def measured_pace(
    lm: FrozenLM, ids: list[int], plan: ChunkPlan, recipe: Recipe, rows: int | None = None
) -> float | None:
    """Row-steps a second, in the steps behind the first, which warms up.

    None where the clock did not move.

    Args:
        ids: of the text that is planned.
        rows: most rows side by side, as `fit` takes it.
    """
    enough = POSITIONS if lm.device.type == "cpu" else POSITIONS_GPU
    spans = plan.spans()[:rows]
    targets = [ids[span.start : span.end] for span in spans if span.start < enough]
    seen: list[Progress] = []
    # No row may leave early: the margin is out of reach.
    trial = replace(recipe, steps=STEPS, restarts=0, margin=1e9)
    fit(lm, targets, OneStep(plan.layout), trial, rows=rows, progress=seen.append)
    done, seconds = seen[-1].row_steps - seen[0].row_steps, seen[-1].seconds - seen[0].seconds
    return done / seconds if done > 0 and seconds > 0 else None
