"""Distances between solutions: the right pairs, the right distances, misses left out."""

import math

import pytest
from experiment_runs import carried_out, cells, settings

from prototokens.lab.experiments import figure5
from prototokens.lab.kept import Kept


def cosine(one, other):
    dot = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    norms = [math.sqrt(sum(float(a) ** 2 for a in vector)) for vector in (one, other)]
    return 1 - dot / norms[0] / norms[1]


def test_pairs_of_each_kind(tiny_llama, tmp_path):
    config = settings(tiny_llama, steps=150, most_texts=3, most_seeds=3, grid=(2,))
    (job,), rows, report = carried_out("figure5", tiny_llama, config, tmp_path)
    assert len(job.texts) == 3 * 4
    assert len({text.context for text in job.texts}) == 3
    fits = figure5.wanted(job)
    assert len(fits) == 3 * (3 + 3)
    assert [fit.seed for fit in fits[:6]] == [0, 0, 0, 0, 1, 2]
    solutions = [Kept(tmp_path).load(fit, config.model)[0] for fit in fits[:6]]
    if all(solution.exact for solution in solutions):
        assert len(rows[0]["same_context"]) == 6
        assert len(rows[0]["same_text"]) == 3
    # The first pair of one context by hand: e's, m's, and both as one vector.
    first, second = [solution for solution in solutions[:4] if solution.exact][:2]
    slow = [cosine(first.protos[part], second.protos[part]) for part in (0, 1)]
    slow.append(cosine(first.protos.flatten(), second.protos.flatten()))
    assert rows[0]["same_context"][0] == pytest.approx(slow, abs=1e-6)
    assert rows[0]["exact"] == sum(solution.exact for solution in solutions)
    # Sampled continuations of tiny random models may be alike; then a pair of one context is one text twice.
    table = cells(report, "figure5")
    assert {line["vectors"] for line in table} == {"e", "m", "e and m"}


def test_what_is_not_exact_is_left_out(tiny_llama, tmp_path):
    config = settings(tiny_llama, steps=0, most_texts=2, most_seeds=2, grid=(8,))
    (job,), rows, report = carried_out("figure5", tiny_llama, config, tmp_path, drawn=False)
    assert all(row["exact"] == 0 and not row["same_text"] and not row["other_context"] for row in rows)
    assert f"{len(figure5.wanted(job))} did not become exact" in report.notes[0]
    assert not report.tables[0].rows


def test_other_pairs_are_of_other_contexts():
    for place, pairs in enumerate(figure5.other_pairs([5, 5, 5], 4, seed=0)):
        assert len(pairs) == 5
        assert all(there != place and 0 <= one < 4 and 0 <= its < 4 for one, there, its in pairs)
    assert list(figure5.other_pairs([5], 4, seed=0)) == [[]]  # a single context has no others
