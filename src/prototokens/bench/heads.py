"""The frozen head beside two other ways to compute the same numbers.

Whole logits through autograd, and PyTorch's fused function.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from prototokens.bench.peak import PeakMemory
from prototokens.engine.head import score
from prototokens.lm.devices import wait
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.head import Head


class HeadOutput(NamedTuple):
    """The loss of each position or their sum, and its gradient at the hidden states."""

    loss: Tensor
    gradient: Tensor


def chunked(lm: FrozenLM, hidden: Tensor, targets: Tensor, temperature: float) -> HeadOutput:
    """Ours; it gives argmax and margins as well."""
    scores = score(lm, hidden, targets, temperature)
    assert scores.gradient is not None
    return HeadOutput(scores.loss, scores.gradient)


def plain(lm: FrozenLM, hidden: Tensor, targets: Tensor, temperature: float) -> HeadOutput:
    """The whole `[positions, vocabulary]` and autograd; loss and gradient alone."""
    return _through_autograd(lm.head, hidden, targets, temperature)


def fused(lm: FrozenLM, hidden: Tensor, targets: Tensor, temperature: float) -> HeadOutput:
    """`torch.nn.functional.linear_cross_entropy`; the sum of the loss, and the gradient.

    It knows no soft cap.

    Scale and temperature go into the hidden states and the bias.
    """
    leaf, factor, bias = hidden.detach().requires_grad_(), lm.head.scale / temperature, lm.head.bias
    loss = functional.linear_cross_entropy(
        leaf * factor,
        lm.head.weight,
        targets,
        linear_bias=None if bias is None else bias * factor,
        reduction="sum",
    )
    (gradient,) = torch.autograd.grad(loss, leaf)
    return HeadOutput(loss.detach(), gradient)


def in_float64(lm: FrozenLM, hidden: Tensor, targets: Tensor, temperature: float) -> HeadOutput:
    """The reference: the head as it is defined, in float64.

    The head as it is defined, bias, scale and soft cap among it, in float64.
    """
    head = lm.head
    bias = None if head.bias is None else head.bias.double()
    exact = Head(head.weight.double(), bias, head.softcap, head.scale)
    return _through_autograd(exact, hidden.double(), targets, temperature)


def _through_autograd(
    head: Head, hidden: Tensor, targets: Tensor, temperature: float
) -> HeadOutput:
    leaf = hidden.detach().requires_grad_()
    logits = head(leaf)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    loss = functional.cross_entropy(logits / temperature, targets, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return HeadOutput(loss.detach(), gradient)


WAYS: dict[str, Callable[[FrozenLM, Tensor, Tensor, float], HeadOutput]] = {
    "chunked": chunked,
    "plain": plain,
    "fused": fused,
}


def ways_of(lm: FrozenLM) -> list[str]:
    """The ways that give this model's numbers."""
    return [name for name in WAYS if name != "fused" or lm.head.softcap is None]


def compare_heads(
    lm: FrozenLM, positions: int, temperature: float = 0.5, tries: int = 5
) -> list[dict[str, Any]]:
    """Time, memory and error of each way.

    Hidden states have random directions, and the size that a final norm gives.

    Returns:
        For each way: `way`, `milliseconds` (median), `peak_bytes` (beside weights, hidden states
        and targets; on a GPU, else
        None: `head_memory` measures it), `gradient_error`: the largest difference from the gradient
            in float64, divided by the
        largest entry of that, on up to 256 positions.
    """
    on_gpu = lm.device.type == "cuda"
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, lm.hidden_size, generator=generator).to(lm.device, lm.dtype)
    targets = torch.randint(0, lm.vocab_size, (positions,), generator=generator).to(lm.device)
    names = ways_of(lm)
    times: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, int | None] = dict.fromkeys(names)
    for _ in range(tries + 1):  # in turn, so that a machine that slows down slows them all
        for name in names:
            with PeakMemory(lm.device) as memory:
                wait(lm.device)
                began = time.perf_counter()
                WAYS[name](lm, hidden, targets, temperature)
                wait(lm.device)
                times[name].append(time.perf_counter() - began)
            peaks[name] = memory.extra if on_gpu else None
    true = in_float64(lm, hidden[:256], targets[:256], temperature).gradient
    return [
        {
            "way": name,
            "positions": positions,
            "vocabulary": lm.vocab_size,
            "milliseconds": 1e3 * sorted(times[name][1:])[tries // 2],
            "peak_bytes": peaks[name],
            "gradient_error": _error(
                WAYS[name](lm, hidden[:256], targets[:256], temperature).gradient, true
            ),
        }
        for name in names
    ]


def _error(ours: Tensor, true: Tensor) -> float:
    return ((ours.double() - true).abs().max() / true.abs().max()).item()
