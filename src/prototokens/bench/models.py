"""Models of random weights at chosen shapes, made in memory.

What a step costs does not depend on what a model knows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from prototokens.errors import UsageError
from prototokens.lm.frozen_lm import FrozenLM


class Shape(NamedTuple):
    """The dimensions that determine a model's cost."""

    family: str
    d_model: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocab_size: int
    tied: bool


def llama(d_model: int) -> Shape:
    """A small Llama of this width, with the depth and vocabulary of the built-in model.

    Its heads have 64 numbers, its feed-forward layers are 2.5 times as wide.
    """
    return Shape("llama", d_model, 6, d_model // 64, d_model // 64, 5 * d_model // 2, 4096, True)


SHAPES = {
    **{f"llama-{width}": llama(width) for width in (128, 256, 512, 1024)},
    "pythia-160m": Shape("gpt_neox", 768, 12, 12, 12, 3072, 50304, False),
    "llama-3.2-1b": Shape("llama", 2048, 16, 32, 8, 8192, 128256, True),
}


def random_model(
    name: str | Shape, dtype: torch.dtype, device: torch.device, context: int = 2048
) -> FrozenLM:
    """A model of a shape, or of its name, with random weights, the same each time.

    Raises:
        UsageError: no such shape.
    """
    if isinstance(name, str) and name not in SHAPES:
        raise UsageError(f"there is no shape {name!r}: choose from {', '.join(SHAPES)}")
    shape = SHAPES[name] if isinstance(name, str) else name
    common = {
        "hidden_size": shape.d_model,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.feed_forward,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tied,
        "max_position_embeddings": context,
    }
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        if shape.family == "llama":
            model = LlamaForCausalLM(LlamaConfig(**common, num_key_value_heads=shape.kv_heads))
        else:
            model = GPTNeoXForCausalLM(GPTNeoXConfig(**common))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return FrozenLM(
        model,
        name=f"random:{name if isinstance(name, str) else shape.family}",
        fingerprint="random weights",
    )
