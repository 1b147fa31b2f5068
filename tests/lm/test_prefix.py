"""Prefixes: cached keys and values give the same logits as feeding the prefix to every row."""

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
    random = torch.randn(rows, seq, lm.d_model, generator=torch.Generator().manual_seed(rows))
    return (random * lm.embedding_weight.float().std()).to(lm.dtype).requires_grad_()


def logits_and_gradient(lm, hidden, inputs):
    logits = lm.logits(hidden)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    return logits, torch.autograd.grad((logits * weights).sum(), inputs)[0]


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_neox", "tiny_gpt2"])
def test_cached_and_fed_prefixes_give_the_same_logits_and_gradients(family, request):
    lm = request.getfixturevalue(family)
    inputs = inputs_of(lm)
    logits, gradient = logits_and_gradient(lm, lm.hidden(inputs, PREFIX), inputs)
    assert lm._prefixed_body._caches[PREFIX] is not None
    expected, expected_gradient = logits_and_gradient(
        lm, run_with_prefix(lm._body, lm.embed, inputs, PREFIX), inputs
    )
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(logits, lm.logits(lm.hidden(inputs)), atol=1e-3)


def test_all_rows_and_steps_of_a_fit_share_one_run_of_the_prefix(tiny_llama, monkeypatch):
    lm = tiny_llama
    lengths = []
    embed = lm._embedding.forward
    monkeypatch.setattr(
        lm._embedding, "forward", lambda ids: lengths.append(ids.numel()) or embed(ids)
    )
    prefix = (7, 7, 3)
    solutions = pt.fit(lm, [[5, 1, 7], [9, 3]], prefix=prefix, layout="keyed:2")
    assert [solution.layout.prefix for solution in solutions] == [prefix, prefix]
    assert [solution.exact for solution in solutions] == [True, True]
    # The prefix is embedded for the cache and once more for the trial of the cache, in no step.
    assert sum(length == len(prefix) for length in lengths) <= 2
    assert pt.decode_ids(lm, solutions).ids == [[5, 1, 7], [9, 3]]


def test_vectors_decode_to_their_text_behind_their_own_prefix_only(tiny_llama):
    (solution,) = pt.fit(tiny_llama, [[5, 1, 7, 2]], prefix=(1, 2))
    assert pt.decode_ids(tiny_llama, [solution]).ids == [[5, 1, 7, 2]]
    changed = pt.Solution(**{**solution.__dict__, "layout": solution.layout.with_prefix((9, 9, 9))})
    assert pt.decode_ids(tiny_llama, [changed]).ids != [[5, 1, 7, 2]]


def test_solutions_with_different_prefixes_decode_together(tiny_llama):
    prefixes = [(), (1, 2), (), (4,)]
    solutions = [pt.fit(tiny_llama, [[5, 1, 7]], prefix=prefix)[0] for prefix in prefixes]
    assert pt.decode_ids(tiny_llama, solutions).ids == [[5, 1, 7]] * 4


def test_a_state_space_model_is_fed_the_prefix():
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


def test_auto_is_no_prefix_without_bos_or_without_an_attention_sink(without_bos, builtin):
    assert without_bos.bos is None
    assert without_bos.prefix_ids("auto") == ()
    assert builtin.bos is not None
    assert builtin.sink_response > 0.5
    assert builtin.prefix_ids("auto") == ()
    assert builtin.prefix_ids("bos") == (builtin.bos,)


def test_auto_is_bos_with_an_attention_sink(builtin, monkeypatch):
    monkeypatch.setitem(builtin.__dict__, "sink_response", 0.01)
    assert builtin.prefix_ids("auto") == (builtin.bos,)
    monkeypatch.undo()


def test_the_published_recipe_has_no_automatic_prefix(builtin, monkeypatch):
    monkeypatch.setitem(builtin.__dict__, "sink_response", 0.01)
    recipe = pt.Recipe.named("paper", steps=1)
    assert pt.fit(builtin, "a", recipe=recipe).layout.prefix == ()
    assert pt.fit(builtin, "a", recipe=recipe, prefix="bos").layout.prefix == (builtin.bos,)
    assert pt.fit(builtin, "a", recipe=pt.Recipe.named("fast", steps=1)).layout.prefix == (
        builtin.bos,
    )
    monkeypatch.undo()


def test_invalid_prefixes(tiny_llama, without_bos, builtin):
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
