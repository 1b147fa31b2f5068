"""Conditional reconstruction: the right tokens stand before the vectors, and are counted right."""

import math

import pytest
import torch
from experiment_runs import carried_out, cells, settings

from prototokens.engine.decode import decode_ids
from prototokens.lab.experiments import context
from prototokens.lab.job import Fit
from prototokens.lab.passages import Passage
from prototokens.lab.solution_store import SolutionStore


@pytest.fixture(scope="module")
def made(tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("context")
    config = settings(tiny_llama, most_texts=2, grid=(3, 6))
    return folder, *carried_out("context", tiny_llama, config, folder)


def test_every_passage_stands_behind_every_context(made):
    _, jobs, rows, report = made
    kinds = {
        ("none", 0),
        *((name, size) for name in ("preceding", "unrelated") for size in (8, 32)),
    }
    assert {(row["context"], row["context_tokens"]) for row in rows} == kinds
    assert len(rows) == len(jobs) == 2 * len(kinds)
    assert len(report.tables) == 2
    assert any("leave it open" in note for note in report.notes)


def test_contexts_are_the_tokens_before_the_passage_and_before_another_one():
    text, other = Passage("a", (1, 2), (3, 4, 5)), Passage("b", (6,), (7, 8, 9))
    assert context.prefixes((0,), text, other, (2,)) == [
        ("none", 0, ()),
        ("BOS", 0, (0,)),
        ("preceding", 2, (0, 4, 5)),
        ("unrelated", 2, (0, 8, 9)),
    ]
    assert [name for name, _, _ in context.prefixes((), text, other, (2,))] == [
        "none",
        "preceding",
        "unrelated",
    ]


def test_vectors_are_fitted_and_decoded_behind_the_context(tiny_llama, made):
    folder, jobs, rows, _ = made
    job = next(job for job in jobs if job.values["context_tokens"] == 32)
    row = next(row for row in rows if row["key"] == job.key)
    prefix = tuple(job.values["prefix"])
    assert len(prefix) == 32
    fit = Fit.one(job.text.ids[:3], layout=job.layout, recipe=job.recipe, prefix=prefix)
    (solution,) = SolutionStore(folder).load(fit, job.model)
    assert solution.layout.prefix == prefix
    (decoded,) = decode_ids(tiny_llama, [solution]).ids
    right = sum(a == b for a, b in zip(decoded, job.text.ids, strict=False))
    assert row["tried"][0][:2] == [3, right / 3]


def test_information_given_the_context_is_that_of_the_model_reading_both(tiny_llama, made):
    _, jobs, rows, _ = made
    job = next(job for job in jobs if job.values["context"] == "preceding")
    row = next(row for row in rows if row["key"] == job.key)
    whole = torch.tensor([tiny_llama.bos, *job.values["prefix"], *job.text.ids])
    logits = tiny_llama.model(whole[None]).logits[0].double().log_softmax(-1)
    start = 1 + len(job.values["prefix"])
    nats = [-float(logits[at - 1, whole[at]]) for at in range(start, len(whole))]
    assert row["passage_nats_given"] == pytest.approx(sum(nats), rel=1e-4)
    assert row["nats_given"] == pytest.approx(sum(nats[: row["held"]]), rel=1e-4)


def test_gains_compare_each_text_with_itself():
    def row(text, name, size, held, steps):
        return {
            "text": text,
            "layout": "keyed:2",
            "context": name,
            "context_tokens": size,
            "held": held,
            "nats": 10.0,
            "nats_given": 2.0 * held,
            "bits_per_float": 0.1,
            "bits_per_float_given": 0.1,
            "passage_nats": 20.0,
            "passage_nats_given": 15.0 if size else 20.0,
            "ended": True,
            "tried": [[4, 1.0, steps], [8, 0.5, 99]],
        }

    rows = [row("a", "none", 0, 4, 20), row("b", "none", 0, 8, 10)]
    rows += [row("a", "preceding", 16, 8, 10), row("b", "preceding", 16, 16, 5)]
    report = context.report(rows)
    (gain,) = cells(report, "gains-1")
    assert gain["tokens reproduced, times"] == 2
    assert gain["steps, times"] == pytest.approx(0.5)
    table = {line["context"]: line for line in cells(report, "context-1")}
    assert table["preceding"]["removed"] == 0.25
    assert table["none"]["H_LM, bits"] == pytest.approx(10 / math.log(2))
