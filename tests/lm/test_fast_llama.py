"""The hand-written body: bit-identical hidden states, accurate gradients, and when it is used."""

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import prototokens as pt
from prototokens.lm import attention
from prototokens.lm.attention import MAX_LENGTH

SIZES = {
    "vocab_size": 40,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
SUPPORTED = {
    "llama": {"head_dim": 16},
    "llama, a head for each key, biases": {
        "num_key_value_heads": 4,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "llama, heads wider than the model": {"head_dim": 24},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 16},
    "gemma3_text": {
        "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 16,
    },
}
UNSUPPORTED = {
    "gemma3_text, a short window": {"head_dim": 16, "sliding_window": 8},
    "granite": {"residual_multiplier": 0.5},  # the same parts, put together otherwise
    "llama, another gate": {"hidden_act": "gelu"},
    "mistral, a short window": {"sliding_window": 8},
    "olmo2": {},
}
PREFIX = (3, 1, 4, 1, 5)


def tiny(name, changes, dtype=torch.bfloat16):
    kind, _, _ = name.partition(",")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**{**SIZES, **changes}))
    # Biases and norms are changed too: at 0 and 1 an error in them would have no effect.
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return pt.FrozenLM(model.to(dtype), fingerprint="f" * 64)


def inputs_of(lm, rows, seq):
    random = torch.randn(rows, seq, lm.d_model, generator=torch.Generator().manual_seed(rows))
    return (random * lm.embedding_weight.float().std()).to(lm.dtype).requires_grad_()


@pytest.mark.parametrize("name", SUPPORTED)
def test_hidden_states_are_bit_identical_and_gradients_accurate(name):
    lm, exact = tiny(name, SUPPORTED[name]), tiny(name, SUPPORTED[name]).model.float()
    assert lm._fast_body is not None
    errors = []
    for rows, seq in ((1, 1), (3, 7), (5, 40), (1, 130)):
        inputs = inputs_of(lm, rows, seq)
        expected, states = lm.hidden(inputs), lm.hidden_lean(inputs)
        assert torch.equal(expected, states)
        to_states = torch.randn(states.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
        wide = inputs.detach().float().requires_grad_()
        out = exact.base_model(inputs_embeds=wide, use_cache=False).last_hidden_state
        (true,) = torch.autograd.grad(out, wide, to_states.float())
        (autograd,) = torch.autograd.grad(expected, inputs, to_states)
        (gradient,) = torch.autograd.grad(states, inputs, to_states)
        assert gradient.dtype == autograd.dtype
        errors.append(
            [((found.float() - true).norm() / true.norm()).item() for found in (gradient, autograd)]
        )
    error, autograd_error = torch.tensor(errors).square().mean(0).sqrt().tolist()
    assert 0 < error < 1.2 * autograd_error < 0.1


@pytest.mark.parametrize("name", SUPPORTED)
def test_hidden_states_behind_a_prefix_are_bit_identical(name):
    lm = tiny(name, SUPPORTED[name])
    inputs = inputs_of(lm, 3, 7)
    expected, states = lm.hidden(inputs, PREFIX), lm.hidden_lean(inputs, PREFIX)
    assert torch.equal(expected, states)
    assert not torch.equal(expected, lm.hidden(inputs))
    to_states = torch.randn(states.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    (autograd,) = torch.autograd.grad(expected, inputs, to_states)
    (gradient,) = torch.autograd.grad(states, inputs, to_states)
    assert (gradient - autograd).float().norm() < 0.05 * autograd.float().norm()


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_family_uses_its_own_body(name):
    lm = tiny(name, UNSUPPORTED[name])
    assert lm._fast_body is None
    inputs = inputs_of(lm, 2, 9)
    assert torch.equal(lm.hidden(inputs), lm.hidden_lean(inputs))


def test_float32_uses_the_models_own_body(tiny_llama):
    assert tiny_llama.dtype == torch.float32
    assert tiny_llama._fast_body is None


def test_long_rows_use_the_models_own_body(monkeypatch):
    lm = tiny("llama", {})
    assert lm._fast_body is not None
    inputs = inputs_of(lm, 1, MAX_LENGTH + 1)
    monkeypatch.setattr(
        type(lm._fast_body), "__call__", lambda *_: pytest.fail("a row that is too long")
    )
    assert torch.equal(lm.hidden(inputs), lm.hidden_lean(inputs))


def test_another_attention_kernel_uses_the_models_own_body():
    lm = tiny("llama", {})
    inputs = inputs_of(lm, 2, 9)
    plain = lm.hidden_lean(inputs)
    with attention.fused(lm.model):
        assert torch.equal(lm.hidden_lean(inputs), lm.hidden(inputs))
        assert not torch.equal(lm.hidden_lean(inputs), plain)


def test_a_body_with_an_additional_parameter_is_unsupported():
    lm = tiny("llama", {})
    attention_module = lm._body.get_submodule("layers.1.self_attn")
    sinks = torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    attention_module.register_parameter("sinks", sinks)
    assert lm._fast_body is None


def test_fits_with_either_body_become_exact():
    """The vectors differ, because gradients do; both decode with the model's own body."""
    lm = tiny("llama", {"hidden_size": 96, "head_dim": 24})
    targets = [[5, 1, 7, 7, 2], [9, 3]]
    with_fast_body = pt.fit(lm, targets, recipe="fast")
    assert lm._fast_body is not None
    lm.__dict__["_fast_body"] = None
    with_own_body = pt.fit(lm, targets, recipe="fast")
    for solutions in (with_fast_body, with_own_body):
        assert [solution.exact for solution in solutions] == [True, True]
        assert pt.decode_ids(lm, solutions).ids == targets
