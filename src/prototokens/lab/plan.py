"""What jobs will cost, before any is started: position-steps by the forecast of fits, seconds by the machine's speed now."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from prototokens.engine.fit import fit
from prototokens.forecast import Forecaster
from prototokens.frozen_lm import FrozenLM
from prototokens.lab.job import Job
from prototokens.lab.models import method_of, positions
from prototokens.recipe import Recipe

TRIAL_LENGTH = 32  # tokens of the rows by which the machine's rate is measured
TRIAL_POSITIONS = {"cpu": 1024, "cuda": 1 << 16}
TRIAL_STEPS = 4


def total_work(jobs: Iterable[Job]) -> float:
    """Position-steps of all jobs together: those that ask for the same fits take the work of one."""
    return sum({job.same or job.key: job.work for job in jobs}.values())


class Costs:
    """Forecasts for passages of one model; each passage is read once."""

    def __init__(self, lm: FrozenLM):
        self.lm = lm
        self._bits: dict[tuple[int, ...], torch.Tensor] = {}

    def fit(self, ids: tuple[int, ...], length: int, layout: str, recipe: Recipe) -> float:
        """Position-steps of a fit of the first `length` tokens."""
        return self._row_steps(ids, length, layout, recipe)[0] * positions(layout, length)

    def climb(self, ids: tuple[int, ...], lengths: Sequence[int], layout: str, recipe: Recipe) -> float:
        """Position-steps of fits of growing length, up to the first that more likely fails than not."""
        total = 0.0
        for length in lengths:
            if length > len(ids):
                break
            row_steps, exact = self._row_steps(ids, length, layout, recipe)
            total += row_steps * positions(layout, length)
            if exact < 0.5:
                break
        return total

    def _row_steps(self, ids: tuple[int, ...], length: int, layout: str, recipe: Recipe) -> tuple[float, float]:
        """(Mean number of row-steps, probability that the fit is exact)."""
        if ids not in self._bits:
            self._bits[ids] = self.lm.surprisal(list(ids)).double().cpu() / math.log(2)
        bits = self._bits[ids][:length].sum()[None]
        tokens = torch.tensor([float(length)], dtype=torch.float64)
        told = Forecaster.of(self.lm, recipe).rows(bits, tokens, method_of(layout).vectors)
        return float(told.row_steps[0]), float(told.exact[0])


class Rate(NamedTuple):
    """How fast fits go here and now.

    Attributes:
        position_steps: a second, with full batches.
        flops: of floating-point operations a second that this comes to.
    """

    position_steps: float
    flops: float


def measure_rate(lm: FrozenLM, flops_per_position: float) -> Rate:
    """Time a few steps of full batches: seconds, not minutes."""
    rows = TRIAL_POSITIONS.get(lm.device.type, TRIAL_POSITIONS["cpu"]) // TRIAL_LENGTH
    targets = [[(number + place) % lm.vocab_size for place in range(TRIAL_LENGTH)] for number in range(rows)]
    best = math.inf
    for steps in (1, TRIAL_STEPS, TRIAL_STEPS):
        began = time.perf_counter()
        solutions = fit(lm, targets, recipe=Recipe.named("fast", steps=steps), rows=rows)
        spent = sum(solution.row_steps for solution in solutions) * TRIAL_LENGTH
        if steps > 1:  # the first pass warms up
            best = min(best, (time.perf_counter() - began) / spent)
    return Rate(1 / best, flops_per_position / best)
