"""The frozen head: loss, argmax, margins and the gradient to the hidden states in one chunked pass.

The gradient of a cross-entropy through a frozen linear head needs no autograd: with p the softmax
of the logits at the loss temperature t and y the one-hot target, d loss / d hidden = (p - y) W / t.
So each chunk of positions makes its logits once, uses them for everything, and overwrites them with
the next chunk's: the whole `[positions, vocabulary]` never exists.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.head import Head

# Logits of a chunk. On a CPU they should stay in the last-level cache between the passes over them;
# on a GPU a chunk has to be large enough to fill it, and small enough for its memory. That is at
# most, in bytes a logit, 4 for the logits, 4 for their softmax, 4 for the derivative of a soft cap:
# 12 * 2^25 = 403 MB, and with the gradient of 16 rows of 512 positions, 2,048 wide in bfloat16 (34
# MB), 437 MB in all. Without a soft cap 8 * 2^25 = 268 MB, 302 MB in all.
CHUNK_LOGITS = {"cpu": 1 << 20, "cuda": 1 << 25}
# Positions of a chunk at least: with fewer, reading the head's matrix twice takes longer than
# multiplying by it (a vocabulary of 128,256, 2,048 wide, 128 positions in bfloat16 on one thread:
# 3.8 s with 8 to a chunk, 1.5 s with 32, 1.1 s with 64).
MIN_POSITIONS = 64


class Scores(NamedTuple):
    """What the head says of every position.

    Attributes:
        loss: cross-entropy at the loss temperature, in nats.
        right: whether the argmax is the target.
        margin: true logit minus the best other logit (temperature 1).
        gradient: of the summed loss with respect to the hidden states; None where it was not asked
            for.
        likeliest: the tokens with the largest logits, as many as were asked for; None where none
            were.
    """

    loss: Float32[Tensor, "positions"]
    right: Bool[Tensor, "positions"]
    margin: Float32[Tensor, "positions"]
    gradient: Float[Tensor, "positions hidden"] | None
    likeliest: Int64[Tensor, "positions top"] | None = None


def chunk_positions(lm: FrozenLM, vocabulary: int | None = None) -> int:
    """Positions per chunk for this model, or so many of its tokens, on its device."""
    logits = CHUNK_LOGITS.get(lm.device.type, 1 << 24)
    return max(MIN_POSITIONS, logits // (vocabulary or lm.vocab_size))


@torch.no_grad()
def score(
    lm: FrozenLM,
    hidden: Float[Tensor, "positions hidden"],
    targets: Int64[Tensor, "positions"],
    temperature: float = 1.0,
    gradient: bool = True,
    *,
    head: Head | None = None,
    top: int = 0,
) -> Scores:
    """Score hidden states against targets.

    Args:
        hidden: final hidden states, in the model's dtype.
        temperature: of the loss alone; margins are of the undivided logits.
        gradient: whether the gradient is wanted.
        head: in place of the model's own, one of some of its tokens; targets count along it.
        top: how many of the likeliest tokens of each position to return. With some, the gradient at
            a position is summed over those and the target alone: each token that it leaves out is
            less likely than all of them.
    """
    head = head or lm.head
    count = hidden.shape[0]
    loss, margin = hidden.new_empty(2, count, dtype=torch.float32)
    grad = torch.empty_like(hidden) if gradient else None
    likeliest = targets.new_empty(count, top) if top else None
    size = chunk_positions(lm, len(head.weight))
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        target = targets[part, None]
        logits = head(hidden[part]).float()
        true_logit = logits.gather(1, target)
        # The best other logit: the true one is taken out and put back (no copy of the logits).
        best_other = logits.scatter_(1, target, -torch.inf).amax(1, keepdim=True)
        logits.scatter_(1, target, true_logit)
        margin[part] = (true_logit - best_other)[:, 0]
        if likeliest is not None:
            likeliest[part] = logits.topk(top, dim=1, sorted=False).indices
        # The gradient's sum over the vocabulary: all of it, or these tokens of each position.
        some = None if likeliest is None else torch.cat([likeliest[part], target], 1)
        derivative = None
        if grad is not None and head.softcap is not None:
            chosen = logits if some is None else logits.gather(1, some)
            derivative = _softcap_derivative(chosen, head.softcap)
        probabilities = logits.mul_(1 / temperature).softmax(-1)
        del logits
        # -log p by way of the likeliest token, whose p is never too small for a float32.
        best = torch.maximum(true_logit, best_other)
        largest = probabilities.amax(1, keepdim=True)
        loss[part] = ((best - true_logit) / temperature - largest.log())[:, 0]
        if grad is not None:
            difference = _minus_one_hot(probabilities, target, some)
            if derivative is not None:
                difference = difference.mul_(derivative)
            grad[part] = _to_hidden(head, difference, some).mul_(1 / temperature)
    # Equal logits are not counted as right: argmax takes the first of them, and a margin of zero
    # proves nothing.
    return Scores(loss, margin > 0, margin, grad, likeliest)


def _minus_one_hot(probabilities: Tensor, target: Tensor, tokens: Tensor | None) -> Tensor:
    """P - y of all tokens, in place, or of `tokens`, the last of which are the targets."""
    difference = probabilities.scatter_add_(1, target, probabilities.new_full(target.shape, -1.0))
    if tokens is None:
        return difference
    difference = difference.gather(1, tokens)
    # A target among the likeliest is in the sum already.
    twice = (tokens[:, :-1] == target).any(1, keepdim=True)
    difference[:, -1:].masked_fill_(twice, 0)
    return difference


def _softcap_derivative(logits: Tensor, cap: float) -> Tensor:
    """Of the soft cap c * tanh(x / c) at the x that gave these logits: 1 - (logits / c)^2."""
    return logits.div(cap).square_().neg_().add_(1)


def _to_hidden(head: Head, gradient: Tensor, tokens: Tensor | None) -> Tensor:
    """The gradient with respect to the logits, back through scale and matrix.

    Args:
        gradient: `[positions, vocabulary]`, or `[positions, tokens]` where there are `tokens`.
        tokens: of each position, those whose logits have a gradient.
    """
    if head.scale != 1.0:
        gradient = gradient.mul_(head.scale)
    gradient = gradient.to(head.weight.dtype)
    if tokens is None:
        return gradient @ head.weight
    return (gradient[:, None, :] @ head.weight[tokens])[:, 0]


@torch.no_grad()
def argmax(lm: FrozenLM, hidden: Float[Tensor, "positions hidden"]) -> Int64[Tensor, "positions"]:
    """The most likely token at each position, chunk by chunk."""
    size = chunk_positions(lm)
    # `max` gives the first of equal logits, as `argmax` does, in a quarter of its time on a CPU.
    return torch.cat([lm.logits(part).max(-1).indices for part in hidden.split(size)])
