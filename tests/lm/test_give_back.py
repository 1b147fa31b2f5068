"""A model that was wrapped is given back as it was."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import prototokens as pt
from prototokens.errors import UsageError


@pytest.fixture
def model():
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = LlamaForCausalLM(config).train()
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    model.model.norm.eval()
    return model


def flags(model):
    parameters = {name: one.requires_grad for name, one in model.named_parameters()}
    return parameters, {name: one.training for name, one in model.named_modules()}


def test_flags_and_modes_come_back(model):
    before = flags(model)
    with pt.FrozenLM(model) as lm:
        assert not any(flags(model)[0].values())
        assert not any(flags(model)[1].values())
        solution = pt.fit(lm, [1, 2, 3], steps=1)
        pt.decode_ids(lm, [solution])
    assert flags(model) == before
    lm.release()
    assert flags(model) == before


def test_the_attention_comes_back(model):
    model.bfloat16()
    before = model.config._attn_implementation
    lm = pt.FrozenLM(model)
    lm.release()
    assert model.config._attn_implementation == before


def test_they_come_back_after_an_error(model):
    before = flags(model)
    with pytest.raises(ValueError, match="mine"), pt.FrozenLM(model):
        raise ValueError("mine")
    assert flags(model) == before


def test_a_released_model_is_not_used(model):
    lm = pt.FrozenLM(model)
    solution = pt.fit(lm, [1, 2, 3], steps=1)
    lm.release()
    for use in (
        lambda: pt.fit(lm, [1, 2, 3]),
        lambda: pt.decode(lm, solution),
        lambda: pt.decode_ids(lm, [solution]),
        lambda: pt.score(lm, [1, 2, 3], solution),
        lambda: pt.encode(lm, "abc"),
        lm.__enter__,
    ):
        with pytest.raises(UsageError, match="was released"):
            use()
    assert pt.decode_ids(pt.FrozenLM(model), [solution]).ids


def test_training_goes_on(model):
    with pt.FrozenLM(model):
        pass
    loss = model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss
    loss.backward()
    assert model.lm_head.weight.grad is not None
