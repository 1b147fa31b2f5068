"""Scores of texts against slow references, and errors by kind of token."""

import math
import random

import pytest
import torch

from prototokens.errors import MissingExtraError
from prototokens.measure import quality

WORDS = ["the", "sea", "was", "grey", "and", "he", "never", "saw", "it", ".", "again"]


def edits(one, other):
    """Levenshtein's distance by the whole table."""
    table = [list(range(len(other) + 1))]
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(row[-1] + 1, table[-1][j] + 1, table[-1][j - 1] + (a != b)))
        table.append(row)
    return table[-1][-1]


def common(one, other):
    """Length of the longest common subsequence by the whole table."""
    table = [[0] * (len(other) + 1)]
    for a in one:
        row = [0]
        for j, b in enumerate(other, 1):
            row.append(table[-1][j - 1] + 1 if a == b else max(row[-1], table[-1][j]))
        table.append(row)
    return table[-1][-1]


def chrf_slowly(reference, text, order=6, beta=2):
    """Mean precision and recall of character n-grams without spaces, then F2."""

    def grams(string, n):
        found = {}
        string = "".join(string.split())
        for start in range(len(string) - n + 1):
            found[string[start : start + n]] = found.get(string[start : start + n], 0) + 1
        return found

    precision, recall, orders = 0.0, 0.0, 0
    for n in range(1, order + 1):
        wanted, got = grams(reference, n), grams(text, n)
        if not wanted or not got:
            continue
        both = sum(min(count, wanted.get(gram, 0)) for gram, count in got.items())
        precision, recall, orders = (
            precision + both / sum(got.values()),
            recall + both / sum(wanted.values()),
            orders + 1,
        )
    precision, recall = precision / orders, recall / orders
    return (
        100 * (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
        if precision + recall
        else 0.0
    )


def some_texts(seed):
    draw = random.Random(seed)
    reference = draw.choices(WORDS, k=20)
    text = [draw.choice(WORDS) if draw.random() < 0.3 else word for word in reference]
    return " ".join(reference), " ".join(text)


@pytest.mark.parametrize("seed", range(5))
def test_scores_against_slow_references(seed):
    reference, text = some_texts(seed)
    found = quality.scores(reference, text)
    assert found.cer == pytest.approx(edits(reference, text) / len(reference), abs=1e-12)
    shared, a, b = (
        common(reference.split(), text.split()),
        len(reference.split()),
        len(text.split()),
    )
    assert found.rouge_l == pytest.approx(
        2 * (shared / a) * (shared / b) / (shared / a + shared / b), abs=1e-12
    )
    assert found.chrf == pytest.approx(chrf_slowly(reference, text), abs=1e-6)


def test_bleu_equals_a_worked_example():
    # 6 words, one of them wrong: precisions 5/6, 3/5, 2/4, 1/3, no brevity penalty.
    reference, text = "he never saw the sea again", "he was saw the sea again"
    slow = 100 * math.exp(sum(math.log(p) for p in (5 / 6, 3 / 5, 2 / 4, 1 / 3)) / 4)
    assert quality.bleu(reference, text) == pytest.approx(slow)


def test_the_same_text_is_perfect_and_nothing_is_worth_nothing():
    assert quality.scores("He saw it.", "He saw it.") == pytest.approx((0.0, 100.0, 100.0, 1.0))
    assert quality.scores("He saw it.", "") == (1.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="not empty"):
        quality.character_error_rate("", "x")


def test_perplexity():
    assert quality.perplexity(torch.tensor([math.log(8.0)] * 5)) == pytest.approx(8)
    with pytest.raises(ValueError, match="no tokens"):
        quality.perplexity(torch.zeros(0))


def test_semantic_similarity_is_the_cosine():
    one, other = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])
    assert quality.semantic_similarity(one, other) == pytest.approx(24 / 25)


def test_errors_by_kind_of_token():
    wrong = torch.tensor([True, False, True, True, False])
    bins = quality.error_bins([0.5, 1.0, 2.0, 4.0, 9.0], wrong, [0, 1, 4, 8])
    assert [(one.tokens, one.wrong) for one in bins] == [
        (1, 1),
        (2, 1),
        (1, 1),
    ]  # 9 is outside; 4 belongs to the last
    assert [one.rate for one in bins] == [1, 0.5, 1]
    assert quality.error_bins([], torch.zeros(0, dtype=torch.bool), [0, 1])[0].rate is None
    assert (
        quality.error_bins([8.0], torch.tensor([True]), [0, 4, 8])[1].wrong == 1
    )  # the last edge counts
    with pytest.raises(ValueError, match="ascend"):
        quality.error_bins([1.0], torch.tensor([True]), [1, 1])
    with pytest.raises(ValueError, match="2 values for 1"):
        quality.error_bins([1.0, 2.0], torch.tensor([True]), [0, 1])


def test_frequencies():
    assert quality.frequencies([7, 8, 9], [[7, 7, 8], [7]]) == [3, 1, 0]


def test_a_missing_library_is_a_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'prototokens\[metrics\]'"):
        quality.chrf("a", "b")
