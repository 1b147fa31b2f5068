"""Tokens that a model cannot tell from others: found, and left out of a fit."""

import copy

import pytest
import torch

import prototokens as pt
from prototokens.lm.untrained import (
    all_untrained,
    nearest,
    state_norm,
    untrained,
    untrained_positions,
)

ALIKE = (200, 201, 202, 255)  # ids whose output rows are made nearly the same


@pytest.fixture
def glitched(tiny_llama):
    """A model that never learned to tell four tokens apart, and its output matrix."""
    model = copy.deepcopy(tiny_llama.model)
    rows = model.get_output_embeddings().weight.data
    # Seeded: with some differences a fit tells them apart, by a margin of a hundred thousandth.
    noise = torch.randn(len(ALIKE), rows.shape[1], generator=torch.Generator().manual_seed(0))
    rows[list(ALIKE)] = rows[200] + 1e-4 * noise
    return pt.FrozenLM(model, tiny_llama.tokenizer, name="glitched"), rows


def test_nearest_rows_are_those_of_the_whole_matrix(glitched):
    lm, rows = glitched
    distances = torch.cdist(rows.double(), rows.double()).fill_diagonal_(torch.inf)
    found = nearest(lm, torch.arange(lm.vocab_size))
    expected = distances.min(1)
    assert torch.allclose(found.distance.double(), expected.values, atol=1e-3)
    apart = expected.values > 1e-2
    assert found.token[apart].tolist() == expected.indices[apart].tolist()


def test_untrained_tokens_are_those_whose_rows_coincide(glitched, tiny_llama):
    lm, _ = glitched
    assert all_untrained(lm, 0.05) == list(ALIKE)
    assert untrained(lm, [3, 200, 255, 200], 0.05) == {200, 255}
    assert untrained_positions(lm, [3, 200, 4, 255], 0.05) == (1, 3)
    assert all_untrained(tiny_llama, 0.05) == []
    assert untrained(lm, [200], 0.0) == frozenset()
    assert all_untrained(lm, 1e9) == list(ALIKE)  # a margin out of reach makes no token untrained


def test_no_hidden_state_gives_such_a_token_more_than_the_bound(glitched):
    lm, rows = glitched
    found = nearest(lm, torch.tensor([200]))
    hidden = torch.randn(1000, rows.shape[1])
    hidden *= state_norm(lm) / hidden.norm(dim=1, keepdim=True)
    lead = hidden @ (rows[200] - rows[found.token[0]])
    assert float(lead.abs().max()) <= float(found.distance) * state_norm(lm) < 0.1


@pytest.mark.parametrize("layout", ["keyed:2", "paper"])
def test_a_fit_leaves_them_out_and_says_so(glitched, layout):
    lm, _ = glitched
    ids = [200, 5, 9, 201, 7, 202]
    recipe = pt.Recipe.named("fast", steps=300)
    (solution,) = pt.fit(lm, [ids], layout=layout, recipe=recipe)
    assert solution.excluded == (0, 3, 5)
    assert solution.exact_where_scored
    assert not solution.exact
    assert solution.correct == 3
    assert solution.margin > recipe.margin
    (decoded,) = pt.decode_ids(lm, [solution]).ids
    assert [decoded[place] for place in (1, 2, 4)] == [5, 9, 7]
    told = pt.Recipe.named("fast", steps=300, untrained_slack=0.0)
    (whole,) = pt.fit(lm, [ids], layout=layout, recipe=told)
    assert whole.excluded == ()
    assert not whole.exact
    assert whole.margin < recipe.margin


def test_a_target_of_such_tokens_alone_takes_no_step(glitched):
    lm, _ = glitched
    solutions = pt.fit(lm, [[200, 255], [5, 6]], recipe="fast")
    assert [one.exact_where_scored for one in solutions] == [True, True]
    assert solutions[0].steps == 0
    assert solutions[0].correct == 0
    assert solutions[1].exact


def test_the_company_of_such_a_row_changes_nothing(glitched):
    lm, _ = glitched
    alone = pt.fit(lm, [[5, 200, 6, 9]])[0]
    beside = pt.fit(lm, [[200] * 7, [5, 200, 6, 9], [1, 2, 3]])[1]
    assert torch.allclose(alone.protos, beside.protos, atol=1e-5)
    assert alone.steps == beside.steps


def test_a_text_with_such_tokens_is_encoded_and_comes_back(glitched, tmp_path):
    lm, _ = glitched
    text = lm.detokenize([100, 101, 200, 102, 103, 201, 104, 105, 106, 255, 107, 108])
    ids = lm.tokenize(text)
    expected = len(untrained_positions(lm, ids, 0.05))
    assert expected, "nothing to test"
    plan = pt.plan_chunks(lm, ids)
    assert plan.untrained == expected
    assert f"{expected} of {len(ids)} tokens by patch" in plan.describe()
    encoded = pt.encode(lm, text)
    assert encoded.exact
    encoded.save(tmp_path / "text.ptok")
    loaded = pt.EncodedText.load(tmp_path / "text.ptok")
    assert pt.decode(lm, loaded) == text
    assert loaded.header.patched == expected


def test_the_published_recipe_scores_every_token():
    assert pt.Recipe.named("fast").least_lead == pytest.approx(2 * 0.05)
    assert pt.Recipe.named("paper").least_lead == 0
    assert pt.Recipe.from_dict({"name": "fast"}).least_lead == 0  # files of before
