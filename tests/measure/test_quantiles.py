"""Quantiles and their intervals: the ranks of the textbook, and the coverage that is promised."""

import math
import random
from fractions import Fraction
from itertools import accumulate

import pytest

from prototokens.measure.quantiles import quantile_interval


@pytest.mark.parametrize(
    ("count", "share", "low", "value", "high"),
    [
        (10, 0.5, 2, 5, 9),  # ranks 2 and 9 of 10: 97.9% for the median
        (20, 0.5, 6, 10, 15),
        (3, 0.5, -math.inf, 2, math.inf),
        (1, 0.9, -math.inf, 1, math.inf),
    ],
)
def test_the_ranks_that_enclose_a_quantile(count, share, low, value, high):
    values = [float(number) for number in range(1, count + 1)]
    random.Random(0).shuffle(values)
    found = quantile_interval(values, share)
    assert (found.low, found.value, found.high) == (low, value, high)


@pytest.mark.parametrize(("count", "share"), [(37, 0.9), (367, 0.99), (368, 0.99), (500, 0.99)])
def test_the_ranks_are_those_of_exact_fractions(count, share):
    exact = Fraction(str(share))
    chances = [
        math.comb(count, k) * exact**k * (1 - exact) ** (count - k) for k in range(count + 1)
    ]
    fewer = list(accumulate(chances))  # at place k: that at most k values lie below
    tail = Fraction(1, 40)
    low = max((rank for rank in range(1, count + 1) if fewer[rank - 1] <= tail), default=-math.inf)
    high = min(
        (rank for rank in range(1, count + 1) if fewer[rank - 1] >= 1 - tail), default=math.inf
    )
    found = quantile_interval(list(range(1, count + 1)), share)
    assert (found.low, found.high) == (low, high)


def test_the_interval_covers_as_often_as_it_says():
    draw = random.Random(0)
    covered = 0
    for _ in range(1000):
        found = quantile_interval([draw.expovariate(1.0) for _ in range(60)], 0.8)
        covered += found.low <= math.log(5) <= found.high
    assert 0.94 <= covered / 1000 <= 0.99


def test_characters_that_cannot_be_printed_are_question_marks():
    assert str(quantile_interval([1.0, 2.0], 0.5)) == "1.00 [?, ?]"
    assert str(quantile_interval(list(range(100)), 0.5)) == "49.00 [39.00, 60.00]"
