"""Imperfect reconstructions end to end.

Scores of the texts that were decoded, and errors counted token by token.
"""

import pytest
from experiment_runs import carried_out, cells, settings

from prototokens.engine.decode import decode_ids
from prototokens.lab.experiments import quality as experiment
from prototokens.lab.job import Fit
from prototokens.lab.solution_store import SolutionStore
from prototokens.measure import quality


@pytest.fixture(scope="module")
def made(tiny_llama, tiny_embedder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    config = settings(tiny_llama, most_texts=2, grid=(3, 8), embedder=str(tiny_embedder))
    return folder, *carried_out("quality", tiny_llama, config, folder)


def test_a_row_is_of_what_was_decoded(tiny_llama, made):
    folder, jobs, rows, _ = made
    assert len(rows) == 2 * 2 * 3  # texts, lengths, budgets
    for job, row in ((job, row) for job in jobs for row in rows if row["key"] == job.key):
        fit = Fit.one(job.text.ids, recipe=job.recipe)
        (solution,) = SolutionStore(folder).load(fit, job.model)
        (ids,) = decode_ids(tiny_llama, [solution]).ids
        reference, text = tiny_llama.detokenize(job.text.ids), tiny_llama.detokenize(ids)
        assert row["cer"] == quality.character_error_rate(reference, text)
        assert row["accuracy"] == pytest.approx(sum(row["right"]) / len(ids))
        assert row["right"] == [
            int(one == other) for one, other in zip(ids, job.text.ids, strict=True)
        ]
        assert row["perplexity"] == pytest.approx(quality.perplexity(tiny_llama.surprisal(ids)))
        assert -1 <= row["semantic"] <= 1.0001


def test_errors_add_up(made):
    _, _, rows, report = made
    errors = cells(report, "errors")
    wrong = sum(row["right"].count(0) for row in rows)
    tokens = sum(len(row["right"]) for row in rows if not row["exact"])
    assert wrong > 0
    later = sum(
        index / len(row["right"]) >= 0.2
        for row in rows
        if not row["exact"]
        for index in range(len(row["right"]))
    )
    assert (
        sum(line["tokens"] for line in errors if line["property"] == "later surprisal")
        == later
        < tokens
    )
    for name in ("frequency", "surprisal", "position"):
        mine = [line for line in errors if line["property"] == name]
        assert sum(line["wrong"] for line in mine) == wrong
        assert sum(line["tokens"] for line in mine) == tokens
    assert sum(line["fits"] for line in cells(report, "quality")) == len(rows)


def test_without_an_embedding_model_the_report_says_so(made):
    _, _, rows, _ = made
    report = experiment.report(
        [{name: value for name, value in row.items() if name != "semantic"} for row in rows]
    )
    assert any("--embedder" in note for note in report.notes)
    assert "semantic similarity" not in report.tables[0].columns
