"""Causal attention by plain matrix products, for short rows in bfloat16 on a CPU.

PyTorch's fused kernel for CPUs is made for long float32 rows. In bfloat16, forward and backward, it
takes 5 times as long as two products and a softmax at 32 positions, 3 times at 128, 1.5 times at
512 (dev/LOG.md), which was a third of a whole fit. In float32 the fused kernel is as fast or
faster, and is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PLAIN = "prototokens_plain"  # the name under which transformers knows `plain_attention`
# Longest row, in positions. For longer rows the memory for the scores, `[rows, heads, seq, seq]`,
# would cost more than the time that plain products save.
MAX_LENGTH = 512


def plain_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers' interface defines it.

    Two cases are computed here: causal attention without a mask, and a boolean mask of the keys
    that each query attends to. transformers builds such a mask for rows behind a prefix, and under
    `torch.compile` for plain causal attention too. A bias or a long row goes to the fused kernel.

    Args:
        query, key, value: `[rows, heads, seq, head_dim]`.

    Returns:
        The output `[rows, seq, heads, head_dim]`, and None in place of the attention weights.
    """
    length, keys = query.shape[2], key.shape[2]
    if attention_mask is None:
        supported = keys == length
    else:
        supported = attention_mask.dtype == torch.bool and attention_mask.shape[-2:] == (
            length,
            keys,
        )
    supported = supported and options.get("position_bias") is None
    if (
        not supported
        or keys > MAX_LENGTH
        or query.dtype != torch.bfloat16
        or not getattr(module, "is_causal", True)
    ):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.mT
    if attention_mask is None:
        causal_mask = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    else:
        causal_mask = ~attention_mask
    mixed = scores.masked_fill(causal_mask, -torch.inf).softmax(-1) @ value
    return mixed.transpose(1, 2).contiguous(), None


def use_plain(model: Any) -> None:
    """Switch a model to plain attention if it would use the fused kernel in bfloat16 on a CPU."""
    weight = model.get_input_embeddings().weight
    if (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and model.config._attn_implementation == "sdpa"
    ):
        AttentionInterface.register(PLAIN, plain_attention)
        AttentionMaskInterface.register(PLAIN, sdpa_mask)
        model.set_attn_implementation(PLAIN)


@contextmanager
def fused(model: Any) -> Iterator[None]:
    """Make the model use PyTorch's fused kernels inside a `with` block, for comparisons."""
    chosen = model.config._attn_implementation
    if chosen != PLAIN:
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(chosen)
