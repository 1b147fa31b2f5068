"""Distances at equal distance between the texts.

The distances, the bins, and a difference that is there or not.
"""

import math
import random
from collections import Counter

import numpy as np
import pytest
from experiment_runs import carried_out, cells, settings

from prototokens.lab.experiments import figure6
from prototokens.lab.experiments.figure6 import Pair
from prototokens.lab.passages import Passage


def test_tf_idf_distances_equal_a_worked_example():
    texts = [Passage("a", (1, 1, 2)), Passage("b", (2, 3)), Passage("c", (3, 3, 4))]

    def weights(ids):
        counts = Counter(ids)
        found = {}
        for token, count in counts.items():
            documents = sum(token in text.ids for text in texts)
            found[token] = count * (math.log((1 + len(texts)) / (1 + documents)) + 1)
        return found

    found = figure6.tf_idf_distances(texts)
    for one, first in enumerate(texts):
        for other, second in enumerate(texts):
            a, b = weights(first.ids), weights(second.ids)
            dot = sum(a[token] * b.get(token, 0) for token in a)
            norms = [math.sqrt(sum(value**2 for value in vector.values())) for vector in (a, b)]
            assert float(found[one, other]) == pytest.approx(
                1 - dot / norms[0] / norms[1], abs=1e-9
            )


def made_pairs(shift, seed=0):
    """Pairs whose distance grows with that of their texts.

    Those of one context `shift` closer, and nearer texts among them.
    """
    draw, pairs = random.Random(seed), []
    for context in range(20):
        for same in [True] * 15 + [False] * 60:
            apart = draw.uniform(0.2, 0.8) if same else draw.uniform(0.3, 1.0)
            pairs.append(
                Pair(context, same, apart, 0.5 * apart - shift * same + draw.gauss(0, 0.02))
            )
    return pairs


@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_the_difference_at_equal_distance(shift):
    pairs = made_pairs(shift)
    found = figure6.adjusted(pairs, figure6.edges_of(pairs))
    assert found.value == pytest.approx(-shift, abs=0.015)
    assert (found.high < 0) == (shift > 0)
    # Without regard to the texts' distance there is one even where nothing is left of the context.
    raw = np.mean([pair.distance for pair in pairs if pair.same]) - np.mean(
        [pair.distance for pair in pairs if not pair.same]
    )
    assert raw < -0.05


def test_end_to_end_with_an_embedding_model(tiny_llama, tiny_embedder, tmp_path):
    config = settings(
        tiny_llama, steps=150, most_texts=3, most_seeds=1, grid=(2,), embedder=str(tiny_embedder)
    )
    _, rows, report = carried_out("figure6", tiny_llama, config, tmp_path)
    found = [pair for row in rows for kind in ("same", "other") for pair in row[kind]]
    assert found
    assert all(0 <= value <= 2 for pair in found for value in pair)
    table = cells(report, "figure6")
    assert {line["distance"] for line in table} >= {"semantic"}
    for line in table:
        assert line["pairs"] > 0
        assert line["from"] <= line["mean between texts"] <= line["to"]


def test_without_an_embedding_model_the_report_says_so(tiny_llama, tmp_path):
    config = settings(tiny_llama, steps=150, most_texts=3, most_seeds=1, grid=(2,))
    # Where no two of the continuations have a token in common, their TF-IDF distances are all 1:
    # nothing to bin, which is reported.
    _, rows, report = carried_out("figure6", tiny_llama, config, tmp_path, drawn=None)
    assert all(pair[1] is None for row in rows for pair in row["same"])
    compared = sum("at equal distance" in note for note in report.notes)
    assert compared + sum("equally far apart" in note for note in report.notes) == 2
    assert bool(report.figures) is (compared > 0)
    assert {row["shared"] for row in rows} == {False, True}
    assert any("not measured" in note and "--embedder" in note for note in report.notes)
