"""Forecast the cost of a fit before it begins.

Will a row be exact, and after how many steps?

The steps of a row rise as a power of its tokens for each vector, less where a vector has other
neighbours at each of its positions, and the power rises with the bits for each trained number: the
text's information under the model, which one pass gives, over the numbers that are trained. Models
of very different size hold half a bit a number at most in one vector repeated, and up to one bit
where neighbours change. How steep the rise is was measured: `scripts/artefacts/fit_forecast.py`
fits the coefficients of each recipe to rows of real fits and writes `forecast.json`, with what they
come from. A model that is not among those rows gets what the others have in common, and a wider
spread.

The number of steps is taken as log-logistic: log T = mu + spread * L, with L from the logistic
distribution, so that the share of rows that are exact after t steps is sigmoid((log t - mu) /
spread), and rows that ran out of budget can be fitted too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import FAST, Recipe

FALLBACK = "fast"  # whose curve serves recipes that have none
POINTS = 65  # of the integral over a row's steps


class Forecast(NamedTuple):
    """What is expected of one row.

    Attributes:
        exact: probability that it becomes exact within the recipe's steps and restarts, in [0, 1].
        steps: optimiser steps it takes if it does: the median.
        row_steps: forward and backward passes that are spent on it, whether it does or not: the
            mean.
    """

    exact: float
    steps: float
    row_steps: float


class Forecasts(NamedTuple):
    """Forecasts of many rows: tensors with one number for each row."""

    exact: Float64[Tensor, " rows"]
    steps: Float64[Tensor, " rows"]
    row_steps: Float64[Tensor, " rows"]


def features(
    bits: Float64[Tensor, " rows"], tokens: Float64[Tensor, " rows"], layout: Layout, d_model: int
) -> dict[str, Float64[Tensor, " rows"]]:
    """The features that the forecast of a row's steps is computed from.

    Args:
        bits: of the row's text under the model.
        tokens: of it.
        layout: of its vectors.

    Returns:
        constant: 1.
        density: log of tokens for each vector. With its weight alone, steps would rise as a power
            of it.
        variety: log of the different stretches of three vectors in the input, for each vector; 0
            where they are fewer.
        crowding: density times the bits for each trained number: the power rises with how full the
            vectors are.
    """
    vectors = layout.vectors
    density = (tokens / vectors).log()
    stretches = [layout.windows(max(1, round(count))) for count in tokens.tolist()]
    return {
        "constant": torch.ones_like(density),
        "density": density,
        "variety": (tokens.new_tensor(stretches) / vectors).clamp(min=1).log(),
        "crowding": density * bits / (vectors * d_model),
    }


@dataclass(frozen=True)
class Curve:
    """How the steps of one recipe depend on the features of a row.

    Attributes:
        weights: of the features, in the log of the steps.
        spread: of the log of the steps around that, on a model that was measured.
        between: how far models lie apart, a standard deviation in the log of the steps.
        offsets: of the models that were measured, by fingerprint.
    """

    weights: dict[str, float]
    spread: float
    between: float
    offsets: dict[str, float]

    @staticmethod
    def of(recipe: Recipe) -> Curve:
        """The curve of a recipe, by its name; of `fast` where it has none."""
        known = _stored()["recipes"]
        values = known.get(recipe.name) or known[FALLBACK]
        offsets = {fingerprint: model["offset"] for fingerprint, model in values["models"].items()}
        return Curve(values["weights"], values["spread"], values["between"], offsets)

    def log_steps(self, found: dict[str, Tensor], fingerprint: str) -> Float64[Tensor, " rows"]:
        """mu: the log of the median number of steps, budget or not."""
        mu = sum(weight * found[name] for name, weight in self.weights.items())
        assert isinstance(mu, Tensor)
        return mu + self.offsets.get(fingerprint, 0.0)

    def spread_of(self, fingerprint: str) -> float:
        """The spread on a model; wider on one that was never measured."""
        if fingerprint in self.offsets:
            return self.spread
        # A logistic distribution of scale s has the standard deviation pi s / sqrt(3).
        return math.hypot(self.spread, self.between * math.sqrt(3) / math.pi)


@dataclass(frozen=True)
class Forecaster:
    """Forecasts for one model and one recipe.

    Attributes:
        curve: how steps rise with what a row has to hold.
        recipe: whose budget counts.
        d_model: of the model; `fingerprint`: of its weights.
    """

    curve: Curve
    recipe: Recipe
    d_model: int
    fingerprint: str

    @staticmethod
    def of(lm: FrozenLM, recipe: Recipe = FAST) -> Forecaster:
        """The forecaster of this model, as far as it was measured, and of this recipe."""
        return Forecaster(Curve.of(recipe), recipe, lm.d_model, lm.fingerprint)

    @property
    def measured(self) -> bool:
        """Whether this very model is among the rows that the coefficients come from."""
        return self.fingerprint in self.curve.offsets

    def __call__(
        self, bits: Sequence[float] | Float[Tensor, " tokens"], layout: Layout
    ) -> Forecast:
        """The forecast of one row.

        Args:
            bits: information of each of its tokens under the model (`surprisal`, over log 2).
            layout: how its vectors are arranged.
        """
        each = torch.as_tensor(bits, dtype=torch.float64).cpu()
        tokens = torch.tensor([float(len(each))], dtype=torch.float64)
        expected = self.rows(each.sum()[None], tokens, layout)
        return Forecast(*(float(values) for values in expected))

    def rows(
        self, bits: Float64[Tensor, " rows"], tokens: Float64[Tensor, " rows"], layout: Layout
    ) -> Forecasts:
        """The forecasts of many rows, from the bits and the tokens of each."""
        mu = self.curve.log_steps(features(bits, tokens, layout, self.d_model), self.fingerprint)
        spread = self.curve.spread_of(self.fingerprint)
        budget = self.recipe.steps
        if budget == 0:
            return Forecasts(torch.zeros_like(mu), torch.zeros_like(mu), torch.ones_like(mu))
        once = torch.sigmoid((math.log(budget) - mu) / spread)
        # The median of those that end within the budget: half of their share lies below it. Its
        # logit by way of logs, as the share itself is zero in double precision where the budget is
        # far too small.
        half = torch.nn.functional.logsigmoid((math.log(budget) - mu) / spread) - math.log(2)
        steps = (mu + spread * (half - torch.log1p(-half.exp()))).exp().clamp(max=budget)
        # The mean of min(T, budget) is the integral, from zero to the budget, of the share that
        # still runs.
        ends = torch.linspace(0, 1, POINTS, dtype=torch.float64) ** 2 * budget
        running = torch.sigmoid((mu[:, None] - ends.clamp(min=1e-9).log()) / spread)
        attempt = (
            torch.trapezoid(running, ends, dim=1) + 1
        )  # the vectors are scored once more than they are moved
        failed = 1 - once
        attempts = sum(failed**restart for restart in range(self.recipe.restarts + 1))
        return Forecasts(1 - failed ** (self.recipe.restarts + 1), steps, attempt * attempts)


@cache
def _stored() -> dict[str, Any]:
    return json.loads(
        files("prototokens.planning").joinpath("forecast.json").read_text(encoding="utf-8")
    )
