"""The body by hand gives the very bits of the model's own, a gradient no worse than autograd's, and is used where it may be."""

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
KNOWN = {
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
UNKNOWN = {
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
    for parameter in model.parameters():  # biases and norms too: at 0 and 1 they would show nothing
        parameter.data += 0.05 * torch.randn_like(parameter)
    return pt.FrozenLM(model.to(dtype), fingerprint="f" * 64)


def inputs_of(lm, rows, seq):
    drawn = torch.randn(rows, seq, lm.d_model, generator=torch.Generator().manual_seed(rows))
    return (drawn * lm.embedding_weight.float().std()).to(lm.dtype).requires_grad_()


@pytest.mark.parametrize("name", KNOWN)
def test_bits_and_gradients(name):
    lm, exact = tiny(name, KNOWN[name]), tiny(name, KNOWN[name]).model.float()
    assert lm._fast_body is not None
    errors = []
    for rows, seq in ((1, 1), (3, 7), (5, 40), (1, 130)):
        inputs = inputs_of(lm, rows, seq)
        own, ours = lm.hidden(inputs), lm.hidden_lean(inputs)
        assert torch.equal(own, ours)
        drawn = torch.randn(own.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
        wide = inputs.detach().float().requires_grad_()
        out = exact.base_model(inputs_embeds=wide, use_cache=False).last_hidden_state
        (true,) = torch.autograd.grad(out, wide, drawn.float())
        (autograd,), (written,) = (
            torch.autograd.grad(states, inputs, drawn) for states in (own, ours)
        )
        assert written.dtype == autograd.dtype
        errors.append(
            [((one.float() - true).norm() / true.norm()).item() for one in (written, autograd)]
        )
    ours, theirs = torch.tensor(errors).square().mean(0).sqrt().tolist()
    assert 0 < ours < 1.2 * theirs < 0.1


@pytest.mark.parametrize("name", KNOWN)
def test_bits_and_gradients_behind_a_prefix(name):
    lm = tiny(name, KNOWN[name])
    inputs = inputs_of(lm, 3, 7)
    own, ours = lm.hidden(inputs, PREFIX), lm.hidden_lean(inputs, PREFIX)
    assert torch.equal(own, ours)
    assert not torch.equal(own, lm.hidden(inputs))
    drawn = torch.randn(own.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    (autograd,), (written,) = (torch.autograd.grad(states, inputs, drawn) for states in (own, ours))
    assert (written - autograd).float().norm() < 0.05 * autograd.float().norm()


@pytest.mark.parametrize("name", UNKNOWN)
def test_another_family_goes_its_own_way(name):
    lm = tiny(name, UNKNOWN[name])
    assert lm._fast_body is None
    inputs = inputs_of(lm, 2, 9)
    assert torch.equal(lm.hidden(inputs), lm.hidden_lean(inputs))


def test_float32_goes_its_own_way(tiny_llama):
    assert tiny_llama.dtype == torch.float32
    assert tiny_llama._fast_body is None


def test_long_rows_go_the_fused_kernels_way(monkeypatch):
    lm = tiny("llama", {})
    assert lm._fast_body is not None
    inputs = inputs_of(lm, 1, MAX_LENGTH + 1)
    monkeypatch.setattr(
        type(lm._fast_body), "__call__", lambda *_: pytest.fail("a row that is too long")
    )
    assert torch.equal(lm.hidden(inputs), lm.hidden_lean(inputs))


def test_under_another_kernel_the_model_goes_its_own_way():
    lm = tiny("llama", {})
    inputs = inputs_of(lm, 2, 9)
    plain = lm.hidden_lean(inputs)
    with attention.fused(lm.model):
        assert torch.equal(lm.hidden_lean(inputs), lm.hidden(inputs))
        assert not torch.equal(lm.hidden_lean(inputs), plain)


def test_a_part_that_it_does_not_know_is_not_left_out():
    lm = tiny("llama", {})
    part = lm._body.get_submodule("layers.1.self_attn")
    part.register_parameter("sinks", torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16)))
    assert lm._fast_body is None


def test_a_fit_is_the_same_whichever_of_the_two_it_takes():
    """Not to the bit, as gradients differ in theirs.

    Both become exact, and each decodes by the model's own body.
    """
    lm = tiny("llama", {"hidden_size": 96, "head_dim": 24})
    targets = [[5, 1, 7, 7, 2], [9, 3]]
    by_hand = pt.fit(lm, targets, recipe="fast")
    assert lm._fast_body is not None
    lm.__dict__["_fast_body"] = None
    own = pt.fit(lm, targets, recipe="fast")
    assert [one.exact for one in by_hand] == [one.exact for one in own] == [True, True]
    assert [pt.decode_ids(lm, some).ids for some in (by_hand, own)] == [targets, targets]
