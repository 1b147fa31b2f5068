"""Quantiles of a sample with their exact intervals, which assume no distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Quantile(NamedTuple):
    """A quantile of a sample.

    Attributes:
        value: the least value of the sample that the share of it does not exceed.
        low, high: values of the sample between which the population's quantile lies; infinite
            where the sample is too small to say.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        high = f"{self.high:.2f}" if math.isfinite(self.high) else "?"
        low = f"{self.low:.2f}" if math.isfinite(self.low) else "?"
        return f"{self.value:.2f} [{low}, {high}]"


def quantile_interval(values: Sequence[float], share: float, level: float = 0.95) -> Quantile:
    """The quantile of a share, with the interval of order statistics that covers it at a level.

    The number of values below the population's quantile is binomial, so two ranks enclose it with
    at least the level's probability, half of the rest on either side.

    Args:
        values: independent draws, at least one.
        share: in (0, 1).
        level: of the interval.
    """
    ordered, count, tail = sorted(values), len(values), (1 - level) / 2
    low = high = 0  # ranks, counted from 1; 0 and count + 1 stand for the infinities
    below = 0.0  # the chance that fewer than `rank` values lie below the quantile
    for rank in range(1, count + 1):
        below += _binomial(rank - 1, count, share)
        if below <= tail:
            low = rank
        if below < 1 - tail:
            high = rank
    high += 1
    return Quantile(
        ordered[max(1, math.ceil(share * count)) - 1],
        ordered[low - 1] if low else -math.inf,
        ordered[high - 1] if high <= count else math.inf,
    )


def _binomial(successes: int, trials: int, share: float) -> float:
    """The chance of exactly so many successes."""
    ways = (
        math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    )
    return math.exp(ways + successes * math.log(share) + (trials - successes) * math.log1p(-share))
