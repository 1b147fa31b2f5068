"""What fits of a passage are expected to cost, in position-steps.

The forecast, for texts that are read once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from prototokens.lab.methods import method_of, positions
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.planning.forecast import Forecaster
from prototokens.recipe import Recipe


class Costs:
    """Forecasts for passages of one model; each passage is read once."""

    def __init__(self, lm: FrozenLM):
        self.lm = lm
        self._bits: dict[tuple[int, ...], torch.Tensor] = {}

    def fit(self, ids: tuple[int, ...], length: int, layout: str, recipe: Recipe) -> float:
        """Position-steps of a fit of the first `length` tokens."""
        return self._row_steps(ids, length, layout, recipe)[0] * positions(layout, length)

    def climb(
        self, ids: tuple[int, ...], lengths: Sequence[int], layout: str, recipe: Recipe
    ) -> float:
        """Position-steps of fits of growing length.

        They end with the first that more likely fails than not.
        """
        total = 0.0
        for length in lengths:
            if length > len(ids):
                break
            row_steps, exact = self._row_steps(ids, length, layout, recipe)
            total += row_steps * positions(layout, length)
            if exact < 0.5:
                break
        return total

    def _row_steps(
        self, ids: tuple[int, ...], length: int, layout: str, recipe: Recipe
    ) -> tuple[float, float]:
        """(Mean number of row-steps, probability that the fit is exact)."""
        if ids not in self._bits:
            self._bits[ids] = self.lm.surprisal(list(ids)).double().cpu() / math.log(2)
        bits = self._bits[ids][:length].sum()[None]
        tokens = torch.tensor([float(length)], dtype=torch.float64)
        forecast = Forecaster.of(self.lm, recipe).rows(bits, tokens, method_of(layout).layout)
        return float(forecast.row_steps[0]), float(forecast.exact[0])
