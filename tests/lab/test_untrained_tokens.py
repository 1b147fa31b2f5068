"""The experiment on untrained tokens: what is listed, and what is tried in passages."""

import copy

import pytest
import torch
from experiment_runs import carried_out, cells, settings

import prototokens as pt
from prototokens.lab.experiments import untrained

ALIKE = (200, 201, 202, 255)


@pytest.fixture
def glitched(tiny_llama):
    model = copy.deepcopy(tiny_llama.model)
    rows = model.get_output_embeddings().weight.data
    rows[list(ALIKE)] = rows[200] + 1e-3 * torch.randn(len(ALIKE), rows.shape[1])
    return pt.FrozenLM(model, tiny_llama.tokenizer, name="glitched")


def test_end_to_end(glitched, tmp_path):
    config = settings(glitched, most_texts=2, grid=(6,), steps=200)
    jobs, rows, report = carried_out("untrained", glitched, config, tmp_path)
    assert len(jobs) == 3
    assert [row["token"] for row in cells(report, "untrained")] == list(ALIKE)
    assert all(row["largest possible lead, logits"] < 1 for row in cells(report, "untrained"))
    trials = [row for row in rows if row["about"] == untrained.TRIAL]
    assert len(trials) == 2 * 2 * 2  # passages, kinds, margins
    assert {row["token"] in ALIKE for row in trials if row["kind"] == untrained.UNTRAINED} == {True}
    table = {
        (row["token put in the middle"], row["margin asked for, logits"]): row
        for row in cells(report, "trials")
    }
    assert table["untrained", untrained.MARGIN]["solved"] == 0
    assert table["control", untrained.SMALL_MARGIN]["solved"] == 2
    assert "4 of 260 tokens cannot lead another one by" in report.notes[0]


def test_a_model_without_untrained_tokens_has_only_the_control(tiny_llama, tmp_path):
    config = settings(tiny_llama, most_texts=1, grid=(4,), steps=60)
    _, rows, report = carried_out("untrained", tiny_llama, config, tmp_path, drawn=False)
    assert {row["kind"] for row in rows if row["about"] == untrained.TRIAL} == {"control"}
    assert [table.name for table in report.tables] == ["trials"]
