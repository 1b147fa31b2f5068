"""A prefix read from cached keys and values gives what feeding it before every row gives, in every family."""

import pytest
import torch
from transformers import AutoModelForCausalLM, FalconMambaConfig

import prototokens as pt
from prototokens.errors import TextError, UsageError
from prototokens.lm.prefix import run_with_prefix

PREFIX = (3, 1, 4, 1, 5)


@pytest.fixture(scope="module")
def builtin():
    return pt.FrozenLM.from_pretrained()


@pytest.fixture
def without_bos(tiny_llama):
    return pt.FrozenLM(tiny_llama.model, None, name="without a tokenizer")


def inputs_of(lm, rows=3, seq=7):
    drawn = torch.randn(rows, seq, lm.d_model, generator=torch.Generator().manual_seed(rows))
    return (drawn * lm.embedding_weight.float().std()).to(lm.dtype).requires_grad_()


def logits_and_gradient(lm, hidden, inputs):
    logits = lm.logits(hidden)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    return logits, torch.autograd.grad((logits * weights).sum(), inputs)[0]


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_neox", "tiny_gpt2"])
def test_the_cache_gives_the_logits_of_feeding_the_prefix(family, request):
    lm = request.getfixturevalue(family)
    inputs = inputs_of(lm)
    cached, gradient = logits_and_gradient(lm, lm.hidden(inputs, PREFIX), inputs)
    assert lm._prefixed_body._caches[PREFIX] is not None
    whole, expected = logits_and_gradient(
        lm, run_with_prefix(lm._body, lm.embed, inputs, PREFIX), inputs
    )
    torch.testing.assert_close(cached, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(cached, lm.logits(lm.hidden(inputs)), atol=1e-3)


def test_rows_and_steps_share_one_run_through_the_prefix(tiny_llama, monkeypatch):
    lm = tiny_llama
    seen = []
    embed = lm._embedding.forward
    monkeypatch.setattr(
        lm._embedding, "forward", lambda ids: seen.append(ids.numel()) or embed(ids)
    )
    prefix = (7, 7, 3)
    solutions = pt.fit(lm, [[5, 1, 7], [9, 3]], prefix=prefix, layout="keyed:2")
    assert [one.layout.prefix for one in solutions] == [prefix, prefix]
    assert [one.exact for one in solutions] == [True, True]
    # The prefix is looked up for the cache and once more for its trial; no step looks anything up.
    assert sum(count == len(prefix) for count in seen) <= 2
    assert pt.decode_ids(lm, solutions).ids == [[5, 1, 7], [9, 3]]


def test_another_prefix_gives_another_text(tiny_llama):
    (solution,) = pt.fit(tiny_llama, [[5, 1, 7, 2]], prefix=(1, 2))
    assert pt.decode_ids(tiny_llama, [solution]).ids == [[5, 1, 7, 2]]
    moved = pt.Solution(**{**solution.__dict__, "layout": solution.layout.with_prefix((9, 9, 9))})
    assert pt.decode_ids(tiny_llama, [moved]).ids != [[5, 1, 7, 2]]


def test_rows_behind_different_prefixes_are_decoded_side_by_side(tiny_llama):
    prefixes = [(), (1, 2), (), (4,)]
    solutions = [pt.fit(tiny_llama, [[5, 1, 7]], prefix=prefix)[0] for prefix in prefixes]
    assert pt.decode_ids(tiny_llama, solutions).ids == [[5, 1, 7]] * 4


def test_a_model_with_a_state_in_place_of_keys_is_fed_its_prefix():
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 40,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 4,
        "intermediate_size": 64,
    }
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    lm = pt.FrozenLM(AutoModelForCausalLM.from_config(FalconMambaConfig(**sizes, **ends)))
    inputs = inputs_of(lm)
    torch.testing.assert_close(
        lm.hidden(inputs, PREFIX), run_with_prefix(lm._body, lm.embed, inputs, PREFIX)
    )


def test_auto_is_nothing_without_a_bos_token_and_where_the_first_position_responds(
    without_bos, builtin
):
    assert without_bos.bos is None
    assert without_bos.prefix_ids("auto") == ()
    assert builtin.bos is not None
    assert builtin.sink_response > 0.5
    assert builtin.prefix_ids("auto") == ()
    assert builtin.prefix_ids("bos") == (builtin.bos,)


def test_auto_is_bos_where_the_first_position_is_a_sink(builtin, monkeypatch):
    monkeypatch.setitem(builtin.__dict__, "sink_response", 0.01)
    assert builtin.prefix_ids("auto") == (builtin.bos,)
    monkeypatch.undo()


def test_the_published_recipe_has_no_prefix_unless_one_is_named(builtin, monkeypatch):
    monkeypatch.setitem(builtin.__dict__, "sink_response", 0.01)
    recipe = pt.Recipe.named("paper", steps=1)
    assert pt.fit(builtin, "a", recipe=recipe).layout.prefix == ()
    assert pt.fit(builtin, "a", recipe=recipe, prefix="bos").layout.prefix == (builtin.bos,)
    assert pt.fit(builtin, "a", recipe=pt.Recipe.named("fast", steps=1)).layout.prefix == (
        builtin.bos,
    )
    monkeypatch.undo()


def test_prefixes_that_cannot_be(tiny_llama, without_bos, builtin):
    with pytest.raises(UsageError, match="no beginning-of-sequence token"):
        without_bos.prefix_ids("bos")
    with pytest.raises(UsageError, match=r"token ids of .* run from 0 to"):
        tiny_llama.prefix_ids([10**6])
    with pytest.raises(UsageError, match="leaves no position for the text"):
        tiny_llama.prefix_ids([1] * tiny_llama.max_context)
    with pytest.raises(UsageError, match="a prefix is"):
        builtin.prefix_ids("eos")
    with pytest.raises(TextError, match="the prefix is empty"):
        builtin.prefix_ids("text:")
    with pytest.raises(TextError, match="positions"):
        pt.fit(tiny_llama, [[1] * 10], prefix=[1] * (tiny_llama.max_context - 9))
