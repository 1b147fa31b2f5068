"""FrozenLM: embeddings, hidden states and logits of every family against the model's own."""

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from prototokens.lm.frozen_lm import FrozenLM
from small_models import SMALL, random_model

IDS = torch.tensor([[3, 141, 59, 26, 5, 35, 89], [79, 32, 38, 46, 26, 43, 38]])


def vectors(lm, rows=2, length=9, seed=0):
    """Random input vectors, twice as large as the embeddings."""
    noise = torch.randn(rows, length, lm.d_model, generator=torch.Generator().manual_seed(seed))
    return 2 * lm.embedding_weight.std() * noise


def test_logits_equal_those_of_the_model(any_lm):
    inputs = vectors(any_lm)
    with torch.no_grad():
        expected = any_lm.model(inputs_embeds=inputs, use_cache=False).logits
    logits = any_lm.logits(any_lm.hidden(inputs))
    assert logits.dtype == expected.dtype
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_embeddings_give_the_logits_of_the_ids(any_lm):
    with torch.no_grad():
        expected = any_lm.model(input_ids=IDS, use_cache=False).logits
    logits = any_lm.logits(any_lm.hidden(any_lm.embed(IDS)))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(any_lm.embedding_weight[IDS], any_lm.embed(IDS))


@pytest.mark.parametrize(
    ("model_class", "config", "expected"),
    [
        pytest.param(PhiForCausalLM, PhiConfig(vocab_size=97, **SMALL), (True, 1.0), id="bias"),
        pytest.param(
            CohereForCausalLM,
            CohereConfig(vocab_size=97, logit_scale=0.3, **SMALL),
            (False, 0.3),
            id="factor",
        ),
        pytest.param(
            GraniteForCausalLM,
            GraniteConfig(vocab_size=97, logits_scaling=7, **SMALL),
            (False, 1 / 7),
            id="divisor",
        ),
    ],
)
def test_heads_with_a_bias_or_a_scale(model_class, config, expected):
    config.pad_token_id = None
    model = random_model(model_class, config)
    if model.lm_head.bias is not None:
        torch.nn.init.normal_(model.lm_head.bias)
    lm = FrozenLM(model)
    assert (lm.head.bias is not None, lm.head.scale) == expected
    inputs = vectors(lm)
    torch.testing.assert_close(
        lm.logits(lm.hidden(inputs)), model(inputs_embeds=inputs).logits, rtol=1e-5, atol=1e-6
    )


FALCON = {
    "vocab_size": 150,
    "mamba_d_ssm": 16,
    "mamba_n_heads": 2,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
}


def test_embed_applies_a_factor_that_the_body_applies_to_ids_alone():
    """Falcon-H1 multiplies the embeddings of ids, but not `inputs_embeds`."""
    shape = {
        "num_key_value_heads": 2,
        "embedding_multiplier": 3.5,
        "mamba_chunk_size": 8,
        "pad_token_id": None,
    }
    model = random_model(FalconH1ForCausalLM, FalconH1Config(**SMALL, **FALCON, **shape))
    lm = FrozenLM(model)
    assert torch.equal(lm.embed(IDS), 3.5 * model.get_input_embeddings()(IDS))
    assert torch.equal(lm.embedding_weight[IDS], lm.embed(IDS))
    with torch.no_grad():
        expected = model(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(lm.logits(lm.hidden(lm.embed(IDS))), expected, rtol=1e-5, atol=1e-6)


def test_the_soft_cap_of_the_head_is_applied(tiny_gemma2):
    huge = 100 * tiny_gemma2.head.weight[:3]
    assert tiny_gemma2.head.softcap == 5.0
    assert 4.9 < tiny_gemma2.logits(huge).max() <= 5.0


def test_widths_and_maximum_context(tiny_opt, tiny_gpt2, tiny_mamba):
    assert (tiny_opt.d_model, tiny_opt.hidden_size, tiny_opt.model.config.hidden_size) == (
        24,
        24,
        32,
    )
    assert tiny_opt.hidden(vectors(tiny_opt)).shape == (2, 9, 24)
    assert (tiny_gpt2.d_model, tiny_gpt2.vocab_size, tiny_gpt2.max_context) == (24, 260, 64)
    assert tiny_mamba.max_context is None


def test_gradients_reach_the_inputs_and_no_weight(any_lm):
    before = any_lm.weights_hash()
    inputs = vectors(any_lm).requires_grad_()
    any_lm.logits(any_lm.hidden(inputs))[:, 4].logsumexp(-1).sum().backward()
    assert inputs.grad is not None
    assert (inputs.grad[:, :5].abs().amax(-1) > 0).all()
    assert (inputs.grad[:, 5:] == 0).all()
    assert not any_lm.model.training
    assert not any(
        parameter.requires_grad or parameter.grad is not None
        for parameter in any_lm.model.parameters()
    )
    assert any_lm.weights_hash() == before


def test_padding_after_a_row_does_not_change_it(any_lm):
    inputs = vectors(any_lm, rows=3)
    padded = torch.cat([inputs[:, :5], 50 * vectors(any_lm, rows=3, length=12, seed=1)], dim=1)
    expected, states = any_lm.hidden(inputs[:, :5]), any_lm.hidden(padded)[:, :5]
    torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-5)
