"""Scoring against candidate tokens: what it may differ in, and what it may never decide."""

from dataclasses import replace

import pytest
import torch

import prototokens as pt
from prototokens.engine import candidates
from prototokens.engine.decode import decode_ids
from prototokens.engine.forward import inputs_of
from prototokens.engine.head import score
from prototokens.engine.inputs import OneStep
from prototokens.engine.rows import groups_of
from prototokens.errors import UsageError

IDS = [[5, 9, 2, 7], [11, 3, 3, 8, 1, 4], [6, 12, 2]]
RECIPE = pt.Recipe.named("fast", steps=300)


@pytest.fixture
def few(monkeypatch):
    """Every model's vocabulary counts as large, and two tokens a position are candidates."""
    monkeypatch.setattr(candidates, "MIN_VOCABULARY", 1)
    monkeypatch.setattr(candidates, "LIKELIEST", 2)


def batch_of(lm, ids=IDS):
    """Groups of these targets, hidden states of all their positions, and the targets."""
    groups = groups_of(lm, ids, OneStep(pt.Layout.named("keyed:2")))
    count = sum(len(target) for target in ids)
    hidden = torch.randn(count, lm.hidden_size, generator=torch.Generator().manual_seed(1))
    return groups, hidden, torch.tensor([token for target in ids for token in target])


def test_small_vocabularies_and_the_published_recipe_are_scored_in_full(tiny_llama, monkeypatch):
    assert not candidates.pays(tiny_llama, RECIPE)
    monkeypatch.setattr(candidates, "MIN_VOCABULARY", tiny_llama.vocab_size)
    assert candidates.pays(tiny_llama, RECIPE)
    assert not candidates.pays(tiny_llama, pt.Recipe.named("paper"))


def test_with_every_token_a_candidate_nothing_differs(any_lm, monkeypatch):
    monkeypatch.setattr(candidates, "LIKELIEST", any_lm.vocab_size)
    groups, hidden, targets = batch_of(any_lm)
    plain = score(any_lm, hidden, targets, RECIPE.temperature)
    for step in (0, 1):  # the whole vocabulary, then the candidates
        for group in groups:
            group.step = step
        scores, full = candidates.score_candidates(any_lm, RECIPE, groups, hidden, targets)
        assert full.tolist() == [step == 0] * len(IDS)
        torch.testing.assert_close(scores.loss, plain.loss, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(scores.margin, plain.margin, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(scores.gradient, plain.gradient, rtol=1e-3, atol=1e-5)


def test_the_gradient_leaves_out_no_more_than_unlikely_tokens(any_lm, monkeypatch):
    monkeypatch.setattr(candidates, "LIKELIEST", 16)
    groups, hidden, targets = batch_of(any_lm)
    hidden *= 5 / any_lm.logits(hidden).std()  # a sharp softmax, as fits have at this temperature
    scores, _ = candidates.score_candidates(any_lm, RECIPE, groups, hidden, targets)
    plain = score(any_lm, hidden, targets, RECIPE.temperature)
    assert scores.gradient is not None
    assert plain.gradient is not None
    error = (scores.gradient - plain.gradient).norm() / plain.gradient.norm()
    assert error < 0.05


def test_a_row_that_is_solved_among_its_candidates_alone_is_not_solved(tiny_llama, few):
    """Its candidates miss the token that the model prefers: the whole vocabulary decides."""
    groups, hidden, targets = batch_of(tiny_llama, IDS[:1])
    (group,) = groups
    group.step, group.rows[0].candidates = 1, targets.unique()
    weight = tiny_llama.head.weight
    others = [token for token in range(tiny_llama.vocab_size) if token not in IDS[0]]
    # Towards a token that is no candidate, then so far towards the target that it leads among them.
    strongest = weight[others].norm(dim=1).argmax()
    hidden = 50 * weight[targets] + 100 * weight[others][strongest]
    among = replace(tiny_llama.head, weight=weight[group.rows[0].candidates])
    indices = torch.searchsorted(group.rows[0].candidates, targets)
    solved_among = score(tiny_llama, hidden, indices, head=among).margin.min() > RECIPE.margin
    scores, full = candidates.score_candidates(tiny_llama, RECIPE, groups, hidden, targets)
    assert solved_among
    assert full.tolist() == [True]
    assert not scores.right.all()


def test_solutions_are_exact_by_the_whole_vocabulary(any_lm, few):
    solutions = pt.fit(any_lm, IDS, layout="keyed:2", recipe=RECIPE)
    assert all(solution.exact for solution in solutions)
    assert decode_ids(any_lm, solutions).ids == IDS
    for solution in solutions:
        inputs = inputs_of(any_lm, solution)
        hidden = any_lm.hidden(inputs[None])[0][solution.layout.scored(solution.length)]
        margin = score(any_lm, hidden.detach(), torch.tensor(solution.ids)).margin.min()
        assert margin.item() == pytest.approx(solution.margin, abs=1e-3)


def test_unsolved_rows_report_scores_of_the_whole_vocabulary(tiny_llama, few):
    recipe = replace(RECIPE, steps=2, margin=1e3)
    (solution,) = pt.fit(tiny_llama, IDS[1:2], layout="keyed:2", recipe=recipe)
    assert solution.steps == 0  # steps 1 and 2 saw candidates alone
    assert decode_ids(tiny_llama, [solution]).ids != IDS[1:2] or solution.exact


def test_a_row_gets_the_same_result_alone_and_in_a_batch(tiny_llama, few):
    recipe = replace(RECIPE, steps=9, margin=1e3)
    (alone,) = pt.fit(tiny_llama, IDS[:1], layout="keyed:2", recipe=recipe)
    crowd = pt.fit(tiny_llama, [IDS[1], IDS[0], IDS[2]], layout="keyed:2", recipe=recipe, rows=2)
    torch.testing.assert_close(crowd[1].protos, alone.protos, rtol=1e-3, atol=1e-3)


def test_the_step_between_is_part_of_the_recipe():
    with pytest.raises(UsageError, match="full_head_every"):
        pt.Recipe.named("fast", full_head_every=0)
    assert pt.Recipe.from_dict({"name": "fast"}).full_head_every == 1  # files of before
