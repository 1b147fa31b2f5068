"""`score` against plain logits of the model, and against what a fit says."""

import math

import numpy as np
import pytest
import torch

import prototokens as pt
from prototokens.errors import TextError, UsageError

IDS = [5, 9, 2, 7]


def test_loss_margins_and_accuracy_are_those_of_the_models_logits(any_lm):
    protos = torch.randn(2, any_lm.d_model, generator=torch.Generator().manual_seed(0))
    found = pt.score(any_lm, IDS, protos, "paper", prefix="none")
    layout = pt.Layout.named("paper")
    inputs = protos[layout.index(len(IDS))][None]
    logits = any_lm.logits(any_lm.hidden(inputs))[0].float()
    losses = torch.nn.functional.cross_entropy(logits, torch.tensor(IDS), reduction="none")
    torch.testing.assert_close(found.losses, losses, rtol=1e-4, atol=1e-4)
    assert found.loss == pytest.approx(losses.mean().item(), rel=1e-4)
    for margin, row, token in zip(found.margins.tolist(), logits, IDS, strict=True):
        others = torch.cat([row[:token], row[token + 1 :]])
        assert margin == pytest.approx((row[token] - others.max()).item(), abs=1e-3)
    assert found.accuracy == (logits.argmax(-1) == torch.tensor(IDS)).float().mean().item()
    assert found.correct == 4 * found.accuracy


@pytest.mark.parametrize("layout", ["keyed:2", "free", "mixed:3"])
def test_a_solution_scores_as_its_fit_says(tiny_llama, layout):
    solution = pt.fit(tiny_llama, "abcd", layout=layout, prefix=[3])
    found = pt.score(tiny_llama, "abcd", solution)
    assert found.margin == pytest.approx(solution.margin, abs=1e-4)
    assert found.margins.tolist() == pytest.approx(solution.margins, abs=1e-4)
    assert found.exact
    assert found.tokens == ("a", "b", "c", "d")
    given = pt.score(tiny_llama, "abcd", solution.protos.numpy(), layout, prefix=[3])
    assert torch.equal(given.losses, found.losses)
    kept = pt.score(tiny_llama, "abcd", solution.protos, solution.layout)
    assert torch.equal(kept.losses, found.losses)


def test_nothing_asks_for_a_gradient(tiny_llama):
    protos = torch.zeros(2, tiny_llama.d_model, requires_grad=True)
    found = pt.score(tiny_llama, torch.tensor(IDS), protos, "paper")
    assert not found.losses.requires_grad
    assert math.isfinite(found.loss)


def test_the_view_escapes_and_the_summary_is_one_line(tiny_llama):
    found = pt.score(tiny_llama, "<b>", np.zeros((2, 32)), "paper")
    assert "&lt;" in found._repr_html_()
    assert repr(found).startswith("VectorScore(")
    assert "\n" not in repr(found)


WRONG = [
    ((None, torch.zeros(2, 32), "paper"), TypeError, r"score\(\) takes as targets"),
    ((["ab", "cd"], torch.zeros(2, 32), "paper"), TypeError, "one target"),
    ((IDS, [[0.0]], "paper"), TypeError, "takes as vectors a tensor"),
    ((IDS, torch.zeros(2, 32)), TypeError, "needs the layout"),
    ((IDS, torch.zeros(2, 32), 3), TypeError, "takes as layout"),
    ((IDS, torch.zeros(3, 32), "paper"), UsageError, "has 2 vectors"),
    ((IDS, torch.zeros(2, 31), "paper"), UsageError, "width 31"),
    (("", torch.zeros(2, 32), "paper"), TextError, "empty"),
    (([9999], torch.zeros(2, 32), "paper"), TextError, "outside the vocabulary"),
    (([1] * 500, torch.zeros(2, 32), "paper"), TextError, "500 tokens"),
]


@pytest.mark.parametrize(("given", "kind", "words"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments_are_named(tiny_llama, given, kind, words):
    with pytest.raises(kind, match=words):
        pt.score(tiny_llama, *given)


def test_a_solution_of_another_model_is_refused(tiny_llama, tiny_qwen3):
    solution = pt.fit(tiny_llama, IDS, steps=1)
    with pytest.raises(UsageError, match="fitted to a model with fingerprint"):
        pt.score(tiny_qwen3, IDS, solution)
    assert pt.score(tiny_qwen3, IDS, solution, any_model=True).loss > 0
