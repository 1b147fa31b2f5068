"""Ordinary, autoregressive uses of a frozen model: greedy generation, next-token logits, surprisal.

`FrozenLM` has a method for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor
from torch.nn import functional

from prototokens.errors import UsageError

if TYPE_CHECKING:
    from prototokens.lm.frozen_lm import FrozenLM

# Longest window of text, in tokens, for `surprisal`: attention over a longer one costs more than
# the additional context is worth.
SURPRISAL_WINDOW = 4096
SURPRISAL_WINDOW_UNLIMITED = 1024  # for a model that states no maximum context
SURPRISAL_CHUNK = 256  # positions whose logits exist at a time


@torch.no_grad()
def generate(
    lm: FrozenLM,
    prompt: Int[Tensor, "rows tokens"] | Float[Tensor, "rows vectors d_model"],
    count: int,
) -> Int[Tensor, "rows count"]:
    """The `count` tokens that greedy decoding appends to a prompt, with a key-value cache.

    Args:
        prompt: ids, or input vectors in their place.
    """
    model: Any = lm.model
    inputs = {"inputs_embeds": prompt} if prompt.is_floating_point() else {"input_ids": prompt}
    out = model.generate(
        **inputs,
        attention_mask=torch.ones(prompt.shape[:2], dtype=torch.int64, device=prompt.device),
        do_sample=False,
        use_cache=True,
        pad_token_id=0,
        max_new_tokens=count,
        min_new_tokens=count,
    )
    return out[:, -count:]


@torch.no_grad()
def surprisal(
    lm: FrozenLM, ids: Sequence[int] | Int[Tensor, " tokens"]
) -> Float32[Tensor, " tokens"]:
    """Surprisal of each token given the tokens before it: -log p, in nats.

    See `FrozenLM.surprisal` for the windows in which a long text is read.
    """
    tokens = torch.as_tensor(ids, dtype=torch.int64, device=lm.device)
    nats = torch.empty(tokens.shape, device=lm.device)
    for start, logits in predictions(lm, tokens):
        part = slice(start, start + len(logits))
        nats[part] = functional.cross_entropy(logits, tokens[part], reduction="none")
    return nats


@torch.no_grad()
def predictions(
    lm: FrozenLM, tokens: Int64[Tensor, " tokens"]
) -> Iterator[tuple[int, Float32[Tensor, "positions vocab"]]]:
    """Next-token logits for every token of a text, given the tokens before it.

    Yields:
        The index of the first token of a chunk, and the logits for every token of the chunk; the
        chunks are consecutive and cover the text.

    Raises:
        UsageError: an id outside the model's vocabulary.
    """
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < lm.vocab_size:
        given = f"got {int(tokens.min())} to {int(tokens.max())}"
        raise UsageError(f"the ids of {lm.name!r} run from 0 to {lm.vocab_size - 1}; {given}")
    bos = None if lm.tokenizer is None else lm.tokenizer.bos_token_id
    lead = tokens.new_tensor([] if bos is None else [bos])
    window = (
        SURPRISAL_WINDOW_UNLIMITED
        if lm.max_context is None
        else min(lm.max_context, SURPRISAL_WINDOW)
    )
    context = window - len(lead)  # tokens of the text in one window
    done = 1 - len(lead)
    if done and tokens.numel():
        yield 0, torch.zeros(1, lm.vocab_size, device=lm.device)
    while done < len(tokens):
        start = max(0, done - context // 2)
        stop = min(start + context, len(tokens) - 1)
        inputs = torch.cat([lead, tokens[start:stop]])
        # Output p predicts token start + p + 1 - len(lead). The outputs for tokens that an earlier
        # window has covered are dropped.
        states = lm.hidden(lm.embed(inputs)[None])[0, done - start - 1 + len(lead) :]
        for chunk in states.split(SURPRISAL_CHUNK):
            yield done, lm.logits(chunk).float()
            done += len(chunk)
