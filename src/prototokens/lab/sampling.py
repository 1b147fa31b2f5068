"""Sampling from the model, so that a text depends on its own seed and context alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import LogitsProcessorList

from prototokens.lm.frozen_lm import FrozenLM


class Gumbel:
    """Adds Gumbel noise, so that the greedy choice is a sample (Gumbel 1954).

    Each row has its own random stream.
    """

    def __init__(self, streams: list[torch.Generator], banned: list[int]):
        self.streams, self.banned = streams, banned

    def __call__(
        self, input_ids: Int64[Tensor, "rows seq"], scores: Float[Tensor, "rows vocab"]
    ) -> Float[Tensor, "rows vocab"]:
        uniform = torch.stack(
            [
                torch.rand(scores.shape[1], generator=stream, dtype=torch.float64)
                for stream in self.streams
            ]
        )
        noisy = scores.double() - torch.log(-torch.log(uniform)).to(scores.device)
        noisy[:, self.banned] = -torch.inf
        return noisy


@torch.no_grad()
def sample(
    lm: FrozenLM, contexts: Sequence[tuple[int, ...]], tokens: int, seeds: Sequence[str]
) -> list[tuple[int, ...]]:
    """Continuations at temperature 1 of contexts of one length, special tokens left out."""
    special = (
        []
        if lm.tokenizer is None
        else [token for token in lm.tokenizer.all_special_ids if token < lm.vocab_size]
    )
    gumbel = Gumbel(
        [_stream(seed, context) for seed, context in zip(seeds, contexts, strict=True)], special
    )
    writer: Any = lm.model
    ids = torch.tensor(contexts, device=lm.device)
    out = writer.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        use_cache=True,
        pad_token_id=0,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        logits_processor=LogitsProcessorList([gumbel]),
    )
    return [tuple(row) for row in out[:, ids.shape[1] :].tolist()]


def _stream(seed: str, context: tuple[int, ...]) -> torch.Generator:
    digest = hashlib.blake2b(repr((seed, context)).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
