"""The cost of jobs, before any is started.

The position-steps they name, and the machine's speed now.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import NamedTuple

from prototokens.fitting import fit
from prototokens.lab.job import Job
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe

TRIAL_LENGTH = 32  # tokens of the rows by which the machine's rate is measured
TRIAL_POSITIONS = {"cpu": 1024, "cuda": 1 << 16}
TRIAL_STEPS = 4


def total_work(jobs: Iterable[Job]) -> float:
    """Position-steps of all jobs together.

    Those that ask for the same fits take the work of one.
    """
    return sum({job.same or job.key: job.work for job in jobs}.values())


class Rate(NamedTuple):
    """The measured speed of fits on this machine.

    Attributes:
        position_steps: a second, with full batches.
        flops: of floating-point operations a second that this comes to.
    """

    position_steps: float
    flops: float


def measure_rate(lm: FrozenLM, flops_per_position: float) -> Rate:
    """Time a few steps of full batches: seconds, not minutes."""
    rows = TRIAL_POSITIONS.get(lm.device.type, TRIAL_POSITIONS["cpu"]) // TRIAL_LENGTH
    targets = [
        [(number + position) % lm.vocab_size for position in range(TRIAL_LENGTH)]
        for number in range(rows)
    ]
    best = math.inf
    for steps in (1, TRIAL_STEPS, TRIAL_STEPS):
        began = time.perf_counter()
        solutions = fit(lm, targets, recipe=Recipe(steps=steps), rows=rows)
        spent = sum(solution.row_steps for solution in solutions) * TRIAL_LENGTH
        if steps > 1:  # the first pass warms up
            best = min(best, (time.perf_counter() - began) / spent)
    return Rate(1 / best, flops_per_position / best)
