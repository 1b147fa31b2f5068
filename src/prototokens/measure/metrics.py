"""Capacity metrics: tokens, nats, bits for each trained number, confidence intervals.

Sums are made in float64: a thousand surprisals in float32 lose the digits that differences between
models are described by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

K = TypeVar("K", bound=Hashable)

# Lengths on which the paper searches for the longest prefix that is reproduced, about a factor of
# the root of two apart.
GRID = (4, 5, 8, 11, 16, 22, 32, 45, 64, 90, 128, 181, 256, 362, 512, 724, 1024, 1448)
# A prefix counts as reproduced from this accuracy on.
THRESHOLD = 0.99
RESAMPLES = 2000


class LongestPrefix(NamedTuple):
    """The longest prefix of one text that is reproduced.

    Attributes:
        length: its tokens; 0 where none was reproduced.
        correct: how many of them are right.
        nats: H_LM of the prefix.
    """

    length: int
    correct: int
    nats: float


class Capacity(NamedTuple):
    """The capacity of one model on one source (arXiv 2505.21189, section 4).

    Attributes:
        c_tokens: right tokens of the longest reproduced prefix, the best over texts.
        h_lm: nats of each text's longest reproduced prefix, the mean over texts; `h_lm_std`: their
            standard deviation.
        texts: how many there were; `misses`: those of which not even the shortest prefix was
            reproduced, counted with 0 nats.
    """

    c_tokens: int
    h_lm: float
    h_lm_std: float
    texts: int
    misses: int


class Interval(NamedTuple):
    """A statistic, most often a mean or a share, and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def h_lm(nats: Float[Tensor, " tokens"], length: int | None = None) -> float:
    """H_LM of a text's prefix of `length` tokens, in nats.

    It is the sum of -log P(t_i | t_<i).

    Args:
        nats: surprisal of each token (`FrozenLM.surprisal`).
        length: all tokens, if None.
    """
    if length is not None and not 0 <= length <= len(nats):
        raise ValueError(f"a prefix of {length} tokens of a text of {len(nats)}")
    return float(nats[:length].double().sum())


def longest_prefix(
    correct: Mapping[int, int], nats: Float[Tensor, " tokens"], threshold: float = THRESHOLD
) -> LongestPrefix:
    """The longest prefix of a text of which at least a share `threshold` is right.

    Args:
        correct: prefix length -> right tokens, for every length that was tried.
        nats: surprisal of each token of the text.
    """
    good = [length for length, right in correct.items() if right >= threshold * length]
    if not good:
        return LongestPrefix(0, 0, 0.0)
    return LongestPrefix(max(good), correct[max(good)], h_lm(nats, max(good)))


def capacity(texts: Sequence[LongestPrefix]) -> Capacity:
    """Capacity from what was reproduced of each text.

    Raises:
        ValueError: no texts.
    """
    if not texts:
        raise ValueError("capacity needs at least one text")
    nats = np.array([one.nats for one in texts], dtype=np.float64)
    best = max(one.correct for one in texts)
    return Capacity(
        best,
        float(nats.mean()),
        float(nats.std()),
        len(texts),
        sum(one.length == 0 for one in texts),
    )


def token_gain(
    decoded: Int64[Tensor, " tokens"],
    without: Int64[Tensor, " tokens"],
    target: Int64[Tensor, " tokens"],
) -> int:
    """Right tokens with the vectors, minus right tokens without them.

    Both are of the same model (arXiv 2502.13063, section 3).

    Args:
        decoded: argmax at each position, the vectors before it.
        without: the same, read teacher-forced without any vector.
    """
    return int((decoded == target).sum()) - int((without == target).sum())


def information_gain(without: Float[Tensor, " tokens"], given: Float[Tensor, " tokens"]) -> float:
    """H_LM of a text minus H_LM of it given the vectors, in nats: how much of it the vectors carry.

    Args:
        without: surprisal of each token; `given`: with the vectors before the text.
    """
    return h_lm(without) - h_lm(given)


def bits_per_float(nats: float, floats: float) -> float:
    """Bits of H_LM stored in each trained number.

    Of a vector that several texts share, each takes its part.
    """
    if floats <= 0:
        raise ValueError(f"{floats} trained numbers")
    return nats / math.log(2) / floats


def bound(floats: float, bits: int, vocab_size: int) -> float:
    """Upper bound on the tokens that `floats` numbers of `bits` bits can store.

    N <= floats x bits / log2(vocabulary).

    What no code can beat where all ids are alike likely (arXiv 2502.13063, section 3.4, there for
    one vector).
    """
    if vocab_size < 2:
        raise ValueError(f"a vocabulary of {vocab_size} holds nothing")
    return floats * bits / math.log2(vocab_size)


def share_of_bound(tokens: float, floats: float, bits: int, vocab_size: int) -> float:
    """The share of `bound` that so many reproduced tokens use."""
    return tokens / bound(floats, bits, vocab_size)


def bootstrap(
    values: Sequence[float],
    statistic: Callable[[np.ndarray], float] | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A statistic and its percentile bootstrap interval (Efron 1979).

    Args:
        values: measured values, at least one; most often one for each text.
        statistic: of a sample of them; their mean, if None.
        groups: the group of each value: whole groups are drawn, as for values that are not
            independent of each other within one (several rows of a text, pairs of one context).
            None: each value is drawn by itself.
        level: share of resamples within the interval.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) == 0:
        raise ValueError("an interval needs at least one value")
    chance, ends = np.random.default_rng(seed), [50 * (1 - level), 50 * (1 + level)]
    if statistic is None and groups is None:
        # The same draws as below, all at once.
        means = sample[chance.integers(0, len(sample), (resamples, len(sample)))].mean(axis=1)
        low, high = np.percentile(means, ends)
        return Interval(float(sample.mean()), float(low), float(high))
    of = statistic or (lambda some: float(np.mean(some)))
    members = list(_members(groups, len(sample)).values())
    drawn = []
    for _ in range(resamples):
        chosen = np.concatenate(
            [members[number] for number in chance.integers(0, len(members), len(members))]
        )
        drawn.append(of(sample[chosen]))
    low, high = np.percentile(drawn, ends)
    return Interval(float(of(sample)), float(low), float(high))


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """A share of independent trials and its exact two-sided interval (Clopper and Pearson 1934).

    Unlike a bootstrap, the interval keeps its coverage for few trials and for shares of 0 and 1.

    Args:
        successes: trials that succeeded.
        trials: all trials, at least one.
        level: coverage, at least; each end leaves half of the rest outside.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes in {trials} trials")
    outside = (1 - level) / 2

    def at_most(count: int, share: float) -> float:
        return _binomial_cdf(count, trials, share)

    # Each end is the share at which so extreme a count has just the probability `outside`.
    low = 0.0 if not successes else _crossing(lambda p: 1 - at_most(successes - 1, p) > outside)
    high = 1.0 if successes == trials else _crossing(lambda p: at_most(successes, p) < outside)
    return Interval(successes / trials, low, high)


def _binomial_cdf(count: int, trials: int, share: float) -> float:
    """Probability of at most `count` successes.

    In logarithms, so that large numbers of trials do not overflow.
    """
    k = np.arange(count + 1)
    ways = math.lgamma(trials + 1) - np.array(
        [math.lgamma(n + 1) + math.lgamma(trials - n + 1) for n in k]
    )
    return float(np.exp(ways + k * math.log(share) + (trials - k) * math.log1p(-share)).sum())


def _crossing(above: Callable[[float], bool]) -> float:
    """The share in (0, 1) from which `above` is true.

    It is found by bisection to the last bit of a float64 but a few.
    """
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if above(middle) else (middle, high)
    return (low + high) / 2


def _members(groups: Sequence[K] | None, count: int) -> Mapping[K | int, np.ndarray]:
    """The indices of each group's values."""
    if groups is None:
        return {index: np.array([index]) for index in range(count)}
    if len(groups) != count:
        raise ValueError(f"{len(groups)} groups for {count} values")
    indices: dict[K, list[int]] = {}
    for index, group in enumerate(groups):
        indices.setdefault(group, []).append(index)
    return {group: np.array(numbers) for group, numbers in indices.items()}
