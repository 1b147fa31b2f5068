"""Weights rounded as GGML stores them, against what llama.cpp wrote.

`ggml_blocks.json` has the bytes that `ggml_quantize_chunk` of llama-cpp-python 0.3.36 made of
`numbers()`, in hexadecimal digits, by format.
"""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tests.gguf_files import tiny_model
from transformers import GPT2Config, GPT2LMHeadModel

from prototokens.lm.ggml_rounding import (
    FORMATS,
    FUNCTIONS,
    NotRoundedError,
    rounded,
    rounded_input,
    rounding_inputs,
)
from prototokens.lm.ggml_rounding import rounded_as_file as as_file

BLOCKS = json.loads(Path(__file__).with_name("ggml_blocks.json").read_text(encoding="utf-8"))
BITS = {"Q8_0": 8, "Q6_K": 6, "Q5_K": 5, "Q5_1": 5, "Q5_0": 5, "Q4_K": 4}


def numbers():
    places = np.arange(256, dtype=np.float32)
    return torch.from_numpy(np.sin(places**2 * np.float32(0.37)).astype(np.float32) * 0.05)[None]


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_numbers_are_those_that_llama_cpp_stores(kind):
    stored = np.frombuffer(bytes.fromhex(BLOCKS[kind]), np.uint8)[None]
    expected = torch.from_numpy(gguf.dequantize(stored, gguf.GGMLQuantizationType[kind]))
    found = rounded(numbers(), kind)
    assert (found == expected).float().mean() > 0.9
    step = 0.1 / 2 ** BITS[kind]
    assert (found - expected).abs().max() <= 1.5 * step


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0", "Q5_1"])
def test_simple_formats_are_those_of_the_gguf_library(kind):
    weight = torch.randn(8, 96, generator=torch.Generator().manual_seed(0))
    number = gguf.GGMLQuantizationType[kind]
    expected = gguf.dequantize(gguf.quantize(weight.numpy(), number), number)
    torch.testing.assert_close(rounded(weight, kind), torch.from_numpy(expected))


@pytest.mark.parametrize("kind", FORMATS)
def test_more_bits_are_nearer_and_zeros_stay(kind):
    weight = torch.randn(4, 512, generator=torch.Generator().manual_seed(0))
    weight[0] = 0
    found = rounded(weight, kind)
    assert not found[0].any()
    errors = [float((rounded(weight, one) - weight).square().mean()) for one in FORMATS]
    assert errors == sorted(errors)
    assert found.isfinite().all()


def test_rows_that_no_superblock_divides_take_another_format():
    weight = torch.randn(4, 288, generator=torch.Generator().manual_seed(0))
    for kind, other in {"Q6_K": "Q8_0", "Q5_K": "Q5_1", "Q4_K": "Q5_0"}.items():
        assert torch.equal(rounded(weight, kind), rounded(weight, other))
    with pytest.raises(NotRoundedError, match="30 numbers are no multiple of 32"):
        rounded(torch.zeros(2, 30), "Q4_K")


def test_a_model_is_copied_and_its_matrices_are_rounded():
    model = tiny_model(hidden_size=256, intermediate_size=256, head_dim=64)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    made = as_file(model, "Q4_K").state_dict()
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    for name, weight in before.items():
        if weight.ndim == 1:
            assert torch.equal(made[name], weight)
        else:
            kind = "Q6_K" if name in ("lm_head.weight", "model.embed_tokens.weight") else "Q4_K"
            assert torch.equal(made[name], rounded(weight, kind)), name


def test_matrices_that_stand_the_other_way_are_rounded_along_their_inputs():
    shape = {"n_embd": 256, "n_layer": 1, "n_head": 2, "n_positions": 32, "vocab_size": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0))
    made = as_file(model, "Q5_K").transformer
    weight = model.transformer.h[0].mlp.c_fc.weight.data
    assert torch.equal(made.h[0].mlp.c_fc.weight.data, rounded(weight.T.contiguous(), "Q5_K").T)
    assert torch.equal(made.wpe.weight, model.transformer.wpe.weight)


@pytest.mark.parametrize("kind", FORMATS)
def test_inputs_are_rounded_to_eight_bits(kind):
    values = torch.randn(2, 3, 512, generator=torch.Generator().manual_seed(0))
    found = rounded_input(values, kind)
    size = {"F16": 1, "Q8_0": 32}.get(kind, 256)
    step = values.view(2, 3, -1, size).abs().amax(-1, keepdim=True) / (127 if size > 1 else 1024)
    moved = (found - values).view(2, 3, -1, size).abs()
    assert 0 < float((moved / step).max()) < 0.6
    assert torch.equal(
        rounded_input(values[..., :288], "Q4_K"), rounded_input(values[..., :288], "Q8_0")
    )


def test_layers_round_their_inputs_for_a_while():
    model = tiny_model()
    layer, given = model.model.layers[0].mlp.up_proj, torch.randn(3, 32)
    with rounding_inputs(model, "Q8_0"):
        inside, head = layer(given), model.lm_head(given)
    torch.testing.assert_close(inside, rounded_input(given, "Q8_0") @ layer.weight.T)
    torch.testing.assert_close(head, given @ model.lm_head.weight.T)
    torch.testing.assert_close(layer(given), given @ layer.weight.T)


def test_weights_of_another_form_are_named():
    model = tiny_model()
    model.experts = torch.nn.Parameter(torch.zeros(2, 32, 32), requires_grad=False)
    with pytest.raises(NotRoundedError, match="experts has 3 dimensions"):
        as_file(model, "Q8_0")
