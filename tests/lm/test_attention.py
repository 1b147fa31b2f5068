"""Plain attention against PyTorch's fused kernel."""

import pytest
import torch
from tests.conftest import GROUPED, SHAPE, VOCAB, make
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from prototokens.lm import attention
from prototokens.lm.frozen_lm import FrozenLM


def bfloat16_llama(model_class=LlamaForCausalLM, config=None):
    config = config or LlamaConfig(**VOCAB, **SHAPE, **GROUPED)
    return FrozenLM(make(model_class, config).bfloat16())


def test_outputs_and_gradients_are_as_accurate_as_the_fused_kernels():
    """The reference is the fused kernel in float64, with grouped heads."""
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    query, key, value = (torch.randn(3, heads, 17, 8) for heads in (4, 2, 2))
    to_out = torch.randn(3, 17, 4, 8)

    def run(function, dtype):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in (query, key, value)]
        out, _ = function(module, *leaves, None, scaling=0.3, is_causal=True)
        return [out.detach(), *torch.autograd.grad(out, leaves, to_out.to(dtype))]

    reference = run(attention.sdpa_attention_forward, torch.float64)
    plain = run(attention.plain_attention, torch.bfloat16)
    fused = run(attention.sdpa_attention_forward, torch.bfloat16)
    for exact, ours, theirs in zip(reference, plain, fused, strict=True):
        bound = 2 * (theirs.double() - exact).abs().max() + 1e-3
        assert (ours.double() - exact).abs().max() < bound


def test_plain_attention_is_used_in_bfloat16_on_a_cpu():
    lm = bfloat16_llama()
    assert lm.model.config._attn_implementation == attention.PLAIN
    inputs = torch.randn(2, 20, lm.d_model)
    with torch.no_grad():
        plain = lm.hidden(inputs).float()
        with attention.fused(lm.model):
            assert lm.model.config._attn_implementation == "sdpa"
            fused = lm.hidden(inputs).float()
    assert lm.model.config._attn_implementation == attention.PLAIN
    torch.testing.assert_close(plain, fused, rtol=0.05, atol=0.05)


def test_boolean_masks_do_not_use_the_fused_kernel(monkeypatch):
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.num_key_value_groups = 1
    query, key, value = (torch.randn(2, 4, 9, 8, dtype=torch.bfloat16) for _ in range(3))
    mask = torch.ones(2, 1, 9, 9, dtype=torch.bool).tril()
    causal, _ = attention.plain_attention(module, query, key, value, None)
    window = mask & ~mask.tril(-4)
    fused, _ = attention.sdpa_attention_forward(module, query, key, value, window)
    monkeypatch.setattr(attention, "sdpa_attention_forward", None)
    assert torch.equal(attention.plain_attention(module, query, key, value, mask)[0], causal)
    torch.testing.assert_close(
        attention.plain_attention(module, query, key, value, window)[0], fused, rtol=0.05, atol=0.05
    )


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_plain_attention_is_used_in_a_compiled_body(monkeypatch):
    """Under `torch.compile` transformers builds a mask, which must not lead to the fused kernel."""
    lm, real, graphs = bfloat16_llama(), torch.compile, []

    def keep(graph, _):
        graphs.append(graph.print_readable(print_output=False))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda body, **_: real(body, backend=keep, dynamic=False))
    torch._dynamo.reset()
    lm.compile()
    inputs = torch.randn(2, 20, lm.d_model)
    torch.testing.assert_close(lm.hidden_static(inputs), lm.hidden(inputs))
    torch._dynamo.reset()
    assert graphs
    assert not any("scaled_dot_product" in graph for graph in graphs)


def test_float32_uses_the_fused_kernel(tiny_llama):
    assert tiny_llama.model.config._attn_implementation == "sdpa"


def test_a_sliding_window_is_respected():
    """A position must not attend to positions before its window."""
    layers = {"layer_types": ["sliding_attention", "sliding_attention"], "sliding_window": 4}
    lm = bfloat16_llama(Gemma3ForCausalLM, Gemma3TextConfig(**VOCAB, **SHAPE, **GROUPED, **layers))
    assert lm.model.config._attn_implementation == attention.PLAIN
    inputs = torch.randn(1, 30, lm.d_model)
    changed = inputs.clone()
    changed[0, 0] += 1.0
    with torch.no_grad():
        before, after = lm.hidden(inputs)[0], lm.hidden(changed)[0]
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[12:], after[12:])


@pytest.mark.parametrize("length", [1, attention.MAX_LENGTH, attention.MAX_LENGTH + 1])
def test_rows_up_to_and_beyond_the_maximum_length(length):
    config = LlamaConfig(**VOCAB, **{**SHAPE, "max_position_embeddings": 1024}, **GROUPED)
    lm = bfloat16_llama(config=config)
    assert lm.hidden(torch.randn(1, length, lm.d_model)).isfinite().all()
    assert lm.generate(torch.tensor([[1, 2, 3]]), 4).shape == (1, 4)
