"""Capacity, gains, bits and intervals against worked examples and slow references."""

import math
import random
import statistics

import numpy as np
import pytest
import torch

from prototokens.measure import metrics


def test_h_lm_is_the_sum_of_surprisals_of_the_prefix(tiny_llama):
    ids = list(range(40, 80))
    nats = tiny_llama.surprisal(ids)
    # One forward pass of the model itself for each token, its probability read off in float64.
    slow = []
    for index, token in enumerate(ids):
        logits = tiny_llama.model(torch.tensor([[256, *ids[:index]]])).logits[0, -1].double()
        slow.append(-float(logits.log_softmax(-1)[token]))
    assert metrics.h_lm(nats, 16) == pytest.approx(sum(slow[:16]), rel=1e-5)
    assert metrics.h_lm(nats) == pytest.approx(sum(slow), rel=1e-5)
    assert metrics.h_lm(nats, 0) == 0
    with pytest.raises(ValueError, match="prefix of 41"):
        metrics.h_lm(nats, 41)


def test_the_capacity_length_is_the_longest_prefix_above_the_threshold():
    nats = torch.arange(200, dtype=torch.float32)
    found = metrics.longest_prefix({4: 4, 90: 90, 128: 127, 181: 179}, nats)
    assert found == (128, 127, sum(range(128)))  # 127 of 128 is 0.992, 179 of 181 is 0.989
    assert metrics.longest_prefix({4: 3}, nats) == (0, 0, 0.0)
    assert metrics.longest_prefix({100: 99}, nats).length == 100  # exactly 0.99 counts


def test_capacity_is_the_best_texts_tokens_and_the_mean_nats():
    texts = [
        metrics.LongestPrefix(32, 32, 100.0),
        metrics.LongestPrefix(45, 45, 80.0),
        metrics.LongestPrefix(0, 0, 0.0),
    ]
    found = metrics.capacity(texts)
    assert (found.c_tokens, found.texts, found.misses) == (45, 3, 1)
    assert found.h_lm == pytest.approx(60)
    assert found.h_lm_std == pytest.approx(statistics.pstdev([100, 80, 0]))
    with pytest.raises(ValueError, match="at least one"):
        metrics.capacity([])


def test_gains():
    target = torch.tensor([5, 6, 7, 8])
    assert metrics.token_gain(torch.tensor([5, 6, 7, 0]), torch.tensor([5, 0, 0, 0]), target) == 2
    assert metrics.information_gain(
        torch.tensor([3.0, 4.0]), torch.tensor([0.5, 0.25])
    ) == pytest.approx(6.25)


def test_bits_and_bound_agree_with_published_figures():
    # Llama-3.2-1B, random words, m not shared: 1551.3 nats in two vectors of 2048 numbers is 0.55
    # bits a number.
    assert metrics.bits_per_float(1551.3, 2 * 2048) == pytest.approx(0.546, abs=1e-3)
    # A vocabulary of 2^16 and 16 bits: a number holds a token.
    assert metrics.bound(2048, 16, 1 << 16) == 2048
    assert metrics.share_of_bound(512, 2048, 16, 1 << 16) == 0.25
    with pytest.raises(ValueError, match="vocabulary of 1"):
        metrics.bound(8, 16, 1)
    with pytest.raises(ValueError, match="0 trained numbers"):
        metrics.bits_per_float(1.0, 0)


def test_bootstrap_covers_the_mean_as_often_as_it_says():
    hits = 0
    for seed in range(120):
        sample = np.random.default_rng(seed).normal(3.0, 2.0, 40).tolist()
        found = metrics.bootstrap(sample, resamples=300, seed=seed)
        assert found.low < found.value < found.high
        hits += found.low <= 3.0 <= found.high
    assert 0.87 <= hits / 120 <= 0.99


def test_bootstrap_of_a_normal_sample_is_near_the_textbook_interval():
    sample = np.random.default_rng(0).normal(0.0, 1.0, 400).tolist()
    found = metrics.bootstrap(sample, seed=1)
    half = 1.96 * statistics.stdev(sample) / math.sqrt(400)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)


def test_bootstrap_by_groups_is_wider_where_values_within_one_are_alike():
    draw = random.Random(0)
    means = [draw.gauss(0, 1) for _ in range(12)]
    values = [mean + draw.gauss(0, 0.01) for mean in means for _ in range(20)]
    groups = [number for number in range(12) for _ in range(20)]
    apart, together = metrics.bootstrap(values), metrics.bootstrap(values, groups=groups)
    assert apart.value == together.value
    assert together.high - together.low > 3 * (apart.high - apart.low)
    with pytest.raises(ValueError, match="1 groups for 240"):
        metrics.bootstrap(values, groups=["a"])


def test_bootstrap_of_any_statistic_and_of_one_value():
    assert metrics.bootstrap([4.0]) == (4.0, 4.0, 4.0)
    found = metrics.bootstrap([1.0, 2.0, 3.0, 100.0], lambda sample: float(np.median(sample)))
    assert found.value == 2.5
    assert found.low >= 1
    with pytest.raises(ValueError, match="at least one"):
        metrics.bootstrap([])


def test_means_drawn_at_once_are_those_drawn_one_by_one():
    values = [random.Random(1).gauss(0, 1) for _ in range(9)]
    assert metrics.bootstrap(values) == pytest.approx(
        metrics.bootstrap(values, lambda sample: float(np.mean(sample)))
    )
    assert metrics.bootstrap([0.25]) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Ends that follow from the definition alone: 0 of n and n of n have closed forms.
        (0, 6, 0.0, 1 - 0.025 ** (1 / 6)),
        (6, 6, 0.025 ** (1 / 6), 1.0),
        (0, 1, 0.0, 0.975),
        # Of textbooks and of R's binom.test, to the digits that they print.
        (4, 20, 0.0573, 0.4366),
        (48, 50, 0.8629, 0.9951),
        (7, 21, 0.1459, 0.5697),
        (997, 1000, 0.99126, 0.99938),
    ],
)
def test_clopper_pearson_gives_known_intervals(successes, trials, low, high):
    found = metrics.clopper_pearson(successes, trials)
    assert found.value == successes / trials
    assert found.low == pytest.approx(low, abs=6e-5)
    assert found.high == pytest.approx(high, abs=6e-5)


def test_clopper_pearson_leaves_exactly_that_much_in_each_tail():
    found = metrics.clopper_pearson(3, 10, level=0.9)

    def tail(share, counts):
        return math.fsum(math.comb(10, k) * share**k * (1 - share) ** (10 - k) for k in counts)

    assert tail(found.low, range(3, 11)) == pytest.approx(0.05, abs=1e-9)
    assert tail(found.high, range(4)) == pytest.approx(0.05, abs=1e-9)


def test_clopper_pearson_covers_at_least_as_often_as_it_says():
    draw = random.Random(0)
    for share in (0.02, 0.5, 0.9):
        counts = [sum(draw.random() < share for _ in range(12)) for _ in range(300)]
        covered = sum(
            one.low <= share <= one.high for one in (metrics.clopper_pearson(n, 12) for n in counts)
        )
        assert covered / 300 >= 0.93


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (3, 2), (-1, 4)])
def test_clopper_pearson_refuses_counts_that_cannot_be(successes, trials):
    with pytest.raises(ValueError, match=f"{successes} successes in {trials} trials"):
        metrics.clopper_pearson(successes, trials)
