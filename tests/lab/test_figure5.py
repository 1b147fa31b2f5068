"""Distances between solutions: the right pairs, the right distances, misses left out."""

import math

import pytest
from experiment_runs import carried_out, cells, settings

from prototokens.lab.experiments import figure5
from prototokens.lab.solution_store import SolutionStore


def cosine(one, other):
    dot = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    norms = [math.sqrt(sum(float(a) ** 2 for a in vector)) for vector in (one, other)]
    return 1 - dot / norms[0] / norms[1]


def test_pairs_of_each_kind(tiny_llama, tmp_path):
    config = settings(tiny_llama, steps=150, most_texts=3, most_seeds=3, grid=(2,))
    (job, shared), rows, report = carried_out("figure5", tiny_llama, config, tmp_path)
    assert (job.values["shared"], shared.values["shared"]) == (False, True)
    assert len(job.texts) == 3 * 4
    assert len({text.context for text in job.texts}) == 3
    fits = figure5.wanted(job)
    assert len(fits) == 3 * (3 + 3)
    assert [fit.seed for fit in fits[:6]] == [0, 0, 0, 0, 1, 2]
    solutions = [SolutionStore(tmp_path).load(fit, config.model)[0] for fit in fits[:6]]
    first_row = next(row for row in rows if row["context"] == 0 and not row["shared"])
    if all(solution.exact for solution in solutions):
        assert len(first_row["same_context"]) == 6
        assert len(first_row["same_text"]) == 3
    # The first pair of one context by hand: e's, m's, and both as one vector.
    first, second = [solution for solution in solutions[:4] if solution.exact][:2]
    slow = [cosine(first.protos[part], second.protos[part]) for part in (0, 1)]
    slow.append(cosine(first.protos.flatten(), second.protos.flatten()))
    assert first_row["same_context"][0] == pytest.approx(slow, abs=1e-6)
    assert first_row["exact"] == sum(solution.exact for solution in solutions)
    # Sampled continuations of tiny random models may be alike; then a pair of one context is one
    # text twice.
    table = cells(report, "figure5")
    assert {line["vectors"] for line in table if line["m"] == figure5.OWN} == {"e", "m", "e and m"}
    assert {line["vectors"] for line in table if line["m"] == figure5.ALL} <= {"e"}


def test_one_m_for_all_texts_and_seeds(tiny_llama, tmp_path):
    """As in the paper: the m is one, and e's of one text differ by their seeds."""
    config = settings(tiny_llama, steps=300, most_texts=2, most_seeds=3, grid=(1,))
    (_, job), rows, _ = carried_out("figure5", tiny_llama, config, tmp_path)
    (wish,) = figure5.wanted(job)
    assert (wish.share, wish.seeds) == ("m", (0, 0, 0, 0, 1, 2) * 2)
    solutions = SolutionStore(tmp_path).load(wish, config.model)
    assert len(solutions) == 12
    assert all((one.protos[1] == solutions[0].protos[1]).all() for one in solutions)
    assert len({tuple(one.protos[0].tolist()) for one in solutions[3:6]}) == 3
    shared = [row for row in rows if row["shared"]]
    assert all(
        pair[1] == pytest.approx(0, abs=1e-12) for row in shared for pair in row["same_text"]
    )
    assert [pair[0] > 0.001 for row in shared for pair in row["same_text"]] == [True] * (3 * 2)


def test_inexact_solutions_are_left_out(tiny_llama, tmp_path):
    config = settings(tiny_llama, steps=0, most_texts=2, most_seeds=2, grid=(8,))
    (job, _), rows, report = carried_out("figure5", tiny_llama, config, tmp_path, drawn=False)
    assert all(
        row["exact"] == 0 and not row["same_text"] and not row["other_context"] for row in rows
    )
    assert f"{2 * len(figure5.wanted(job))} did not become exact" in report.notes[0]
    assert not report.tables[0].rows


def test_other_pairs_are_of_other_contexts():
    for number, pairs in enumerate(figure5.other_pairs([5, 5, 5], 4, seed=0)):
        assert len(pairs) == 5
        assert all(there != number and 0 <= one < 4 and 0 <= its < 4 for one, there, its in pairs)
    assert list(figure5.other_pairs([5], 4, seed=0)) == [[]]  # a single context has no others


def test_differences_are_paired_by_context():
    def row(context, near, far):
        pairs = {
            "same_text": [[near] * 3],
            "same_context": [[far] * 3, [far] * 3],
            "other_context": [],
        }
        return {
            "context": context,
            "shared": False,
            "length": 4,
            "solutions": 3,
            "exact": 3,
            **pairs,
        }

    # Contexts differ by far more than kinds of pairs do: unpaired, the difference could not be
    # distinguished from zero.
    report = figure5.report([row(0, 0.1, 0.2), row(1, 0.5, 0.6), row(2, 0.8, 0.9)])
    lines = [line for line in cells(report, "figure5_differences") if line["vectors"] == "e"]
    assert [(line["further apart"], line["than"], line["contexts"]) for line in lines] == [
        ("same context", "same text, other seed", 3)
    ]
    assert [lines[0][name] for name in ("difference", "low", "high")] == pytest.approx([0.1] * 3)
    assert any("3 contexts of a source at most" in note for note in report.notes)
