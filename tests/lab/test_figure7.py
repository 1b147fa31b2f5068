"""Lines, curves and noise between solutions, scored by the model.

The gradient of the loss against autograd.
"""

import pytest
import torch
from experiment_runs import carried_out, cells, settings
from torch.nn import functional

from prototokens.fitting import fit
from prototokens.lab.experiments.figure7 import PLACES, Between
from prototokens.recipe import Recipe


@pytest.fixture
def between(tiny_llama):
    recipe = Recipe.named("fast", steps=300)
    solutions = [
        one
        for one in fit(
            tiny_llama, [[65, 66, 67]] * 3, layout="paper", recipe=recipe, seed=[0, 1, 2]
        )
        if one.exact
    ]
    assert len(solutions) > 1
    return Between(tiny_llama, [65, 66, 67], solutions[0], recipe), solutions


def test_gradients_and_margins_against_autograd(tiny_llama, between):
    scorer, solutions = between
    points = torch.stack([one.protos for one in solutions]).requires_grad_()
    inputs = torch.stack([points[:, 0], points[:, 1], points[:, 1]], 1)
    logits = tiny_llama.model(inputs_embeds=inputs).logits.double() / scorer.recipe.temperature
    target = torch.tensor([65, 66, 67]).repeat(len(points))
    functional.cross_entropy(logits.flatten(0, 1), target, reduction="sum").backward()
    torch.testing.assert_close(scorer.gradient(points.detach()), points.grad, atol=1e-4, rtol=1e-3)
    plain = logits * scorer.recipe.temperature
    true = plain.gather(2, target.view(len(points), 3, 1))
    others = plain.scatter(2, target.view(len(points), 3, 1), -torch.inf).amax(2, keepdim=True)
    torch.testing.assert_close(
        scorer.margins(points.detach()).double(),
        (true - others)[..., 0].detach(),
        atol=1e-4,
        rtol=1e-3,
    )
    # In parts of one row each, the same.
    scorer.side_by_side = 1
    torch.testing.assert_close(scorer.gradient(points.detach()), points.grad, atol=1e-4, rtol=1e-3)


def test_ends_of_every_way_are_the_solutions(between):
    scorer, solutions = between
    (way, *_) = scorer.ways([(solutions[0], solutions[1])], steps=20, draws=2, seed=0)
    for name in ("line", "curve"):
        assert len(way[name]) == PLACES
        assert way[name][0] == way[name][-1] == 1
        assert way[f"{name}_margin"][0] == pytest.approx(solutions[0].margin, abs=1e-3)
        assert way[f"{name}_margin"][-1] == pytest.approx(solutions[1].margin, abs=1e-3)
    assert way["ratio"] >= 1
    assert way["distance"] == pytest.approx(
        float((solutions[0].protos - solutions[1].protos).norm()), rel=1e-5
    )


def test_solutions_decode_exactly_under_noise_below_the_reported_radius(tiny_llama, between):
    scorer, solutions = between
    for solution, found in zip(
        solutions, scorer.noise(solutions, directions=8, seed=3), strict=True
    ):
        assert 0 < found["radius_low"] <= found["radius"] <= found["radius_high"] <= 1
        ways = torch.randn(8, *solution.protos.shape, generator=torch.Generator().manual_seed(3))
        ways /= ways.flatten(1).norm(dim=1).view(-1, 1, 1)
        within = solution.protos + 0.5 * found["radius_low"] * found["norm"] * ways
        holds = (scorer.margins(within) > 0).all(1)
        assert float(holds.double().mean()) >= 0.85


def test_end_to_end(tiny_llama, tmp_path):
    config = settings(
        tiny_llama, steps=300, sources=("random-tokens",), most_texts=2, most_seeds=3, grid=(2,)
    )
    _, rows, report = carried_out("figure7", tiny_llama, config, tmp_path)
    texts = [row for row in rows if row["kind"] == "text"]
    pairs = [row for row in rows if row["kind"] == "pair"]
    assert len(texts) == 2
    assert len(pairs) == sum(row["solved"] * (row["solved"] - 1) // 2 for row in texts)
    line, curve = cells(report, "figure7")
    assert line["least accuracy along it"] <= 1
    assert curve["way"] == "trained curve"


def test_texts_that_nothing_solved_are_reported(tiny_llama, tmp_path):
    from prototokens.lab import experiments
    from prototokens.lab.records import Records
    from prototokens.lab.sweep import Local, sweep

    config = settings(tiny_llama, steps=0, most_texts=1, most_seeds=2, grid=(12,))
    experiment = experiments.load("figure7")
    rows = sweep(experiment.jobs(config), Records(tmp_path), Local(tiny_llama))
    assert [(row["kind"], row["solved"]) for row in rows] == [("text", 0)]
    report = experiment.report(rows)
    assert "2 did not become exact" in report.notes[0]
    assert not report.figures
