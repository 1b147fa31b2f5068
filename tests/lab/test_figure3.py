"""Information reproduced both ways, end to end on a tiny model."""

import pytest
import torch
from experiment_runs import carried_out, cells, settings

from prototokens.engine.decode import generate_from
from prototokens.engine.inputs import Cramming
from prototokens.fitting import fit
from prototokens.lab.experiments import figure3
from prototokens.lab.job import Fit
from prototokens.lab.solution_store import SolutionStore
from prototokens.recipe import Recipe


def test_both_ways_on_the_same_texts(tiny_llama, tmp_path):
    config = settings(tiny_llama, most_texts=2, grid=(1, 2, 3))
    jobs, rows, report = carried_out("figure3", tiny_llama, config, tmp_path)
    # Each text in three layouts and with two memories, and all texts with a shared m.
    assert len(jobs) == 2 * 5 + 1
    assert {(row["vectors"], row["way"]) for row in rows} == {
        (count, way) for count in (1, 2) for way in ("one-step", "autoregressive")
    }
    assert len(rows) == 2 * 6
    for row in rows:
        ids = next(text.ids for job in jobs for text in job.texts if text.id == row["text"])
        slow = sum(
            float(value) for value in tiny_llama.surprisal(list(ids)).double()[: row["held"]]
        )
        assert row["nats"] == pytest.approx(slow, rel=1e-6)
        assert (row["floats"] / tiny_llama.d_model) == (1.5 if row["shared"] else row["vectors"])
    table = cells(report, "figure3")
    assert [(line["layout"], line["trained vectors"]) for line in table] == [
        ("paper, m shared", 1),
        ("keyed:1", 1),
        ("paper", 2),
        ("keyed:2", 2),
    ]
    for line in table:
        layout, _, shared = line["layout"].partition(", ")
        mine = [
            row["nats"]
            for row in rows
            if (row["layout"], row["vectors"], row["shared"])
            == (layout, line["trained vectors"], bool(shared))
        ]
        assert line["one-step"] == pytest.approx(sum(mine) / len(mine))
    before = [
        {key: value for key, value in row.items() if key != "shared"}
        for row in rows
        if not row["layout"].startswith("keyed")
    ]
    lines = cells(figure3.report(before), "figure3")  # rows of before there were keyed layouts
    assert [line["layout"] for line in lines] == ["paper, m shared", "paper"]


def test_layouts_of_the_users_own(tiny_llama):
    config = settings(tiny_llama, most_texts=2, grid=(1, 2), chosen_layouts=("keyed:3",))
    assert {job.layout for job in figure3.jobs(config)} == {"keyed:3", "memory:3"}


def test_greedy_decoding_is_real(tiny_llama, tmp_path):
    """The row's figures of real generation are those of the saved solution."""
    config = settings(tiny_llama, most_texts=1, grid=(1, 2))
    jobs, rows, _ = carried_out("figure3", tiny_llama, config, tmp_path)
    (row,) = [row for row in rows if row["layout"] == "memory:2"]
    assert row["held"] > 0
    text = next(job.text for job in jobs if job.layout == "memory:2")
    fit = Fit.one(text.ids[: row["held"]], layout="memory:2", recipe=config.recipe)
    (solution,) = SolutionStore(tmp_path).load(fit, config.model)
    (ids,) = generate_from(tiny_llama, [solution])
    right = (torch.tensor(ids) == torch.tensor(solution.ids)).double().mean()
    assert row["greedy_accuracy"] == pytest.approx(float(right))


def test_gains_equal_a_worked_example(tiny_llama):
    """The text fed to the model itself, with and without the vectors before it, in float64."""
    lm, ids = tiny_llama, [40, 50, 60, 70, 80]
    (solution,) = fit(lm, [ids], method=Cramming(2), recipe=Recipe.named("fast", steps=80))
    gains = figure3.gains(lm, solution)
    text = lm.embed(torch.tensor(ids))
    bos = lm.embed(torch.tensor([lm.tokenizer.bos_token_id]))
    nats, right = [], []
    for lead in (bos, solution.protos):
        logits = (
            lm.model(inputs_embeds=torch.cat([lead, text])[None])
            .logits[0, len(lead) - 1 : -1]
            .double()
        )
        nats.append(-float(logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum()))
        right.append(int((logits.argmax(-1) == torch.tensor(ids)).sum()))
    assert gains["information_gain"] == pytest.approx(nats[0] - nats[1], rel=1e-4)
    assert gains["token_gain"] == right[1] - right[0]
    assert right[1] == solution.correct


def test_one_text_shares_its_m_with_nobody(tiny_llama, tmp_path):
    config = settings(tiny_llama, most_texts=1, grid=(1,))
    _, rows, report = carried_out("figure3", tiny_llama, config, tmp_path)
    assert not [row for row in rows if row["shared"]]
    layouts = [line["layout"] for line in cells(report, "figure3")]
    assert layouts == ["keyed:1", "paper", "keyed:2"]
