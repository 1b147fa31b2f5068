"""The frozen head beside two other ways to the same numbers: whole logits through autograd, and PyTorch's fused function."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from prototokens.engine.head import score
from prototokens.frozen_lm import FrozenLM


class Slope(NamedTuple):
    """The loss of each position, or their sum, and its gradient with respect to the hidden states."""

    loss: Tensor
    gradient: Tensor


def chunked(lm: FrozenLM, hidden: Tensor, targets: Tensor, temperature: float) -> Slope:
    """Ours; it gives argmax and margins as well."""
    scores = score(lm, hidden, targets, temperature)
    assert scores.gradient is not None
    return Slope(scores.loss, scores.gradient)


def plain(lm: FrozenLM, hidden: Tensor, targets: Tensor, temperature: float) -> Slope:
    """The whole `[positions, vocabulary]` and autograd; loss and gradient alone."""
    leaf = hidden.detach().requires_grad_()
    loss = functional.cross_entropy(lm.logits(leaf).float() / temperature, targets, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return Slope(loss.detach(), gradient)


def fused(lm: FrozenLM, hidden: Tensor, targets: Tensor, temperature: float) -> Slope:
    """`torch.nn.functional.linear_cross_entropy`; loss and gradient alone. The temperature goes into the hidden states."""
    leaf = hidden.detach().requires_grad_()
    loss = functional.linear_cross_entropy(leaf / temperature, lm.head.weight, targets, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    return Slope(loss.detach(), gradient)


WAYS: dict[str, Callable[[FrozenLM, Tensor, Tensor, float], Slope]] = {"chunked": chunked, "plain": plain, "fused": fused}


def compare_heads(lm: FrozenLM, positions: int, temperature: float = 0.5, tries: int = 5) -> list[dict[str, Any]]:
    """Time, memory and error of each way, for hidden states of random direction and of the size that a final norm gives.

    Returns:
        For each way: `way`, `milliseconds` (median), `peak_bytes` (on a GPU), `gradient_error`: the largest difference from
        the gradient in float64, divided by the largest entry of that, on up to 256 positions.
    """
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, lm.hidden_size, generator=generator).to(lm.device, lm.dtype)
    targets = torch.randint(0, lm.vocab_size, (positions,), generator=generator).to(lm.device)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    peaks = dict.fromkeys(WAYS, 0)
    for _ in range(tries + 1):  # in turn, so that a machine that slows down slows them all
        for name, way in WAYS.items():
            seconds, peaks[name] = _measured(lm, lambda way=way: way(lm, hidden, targets, temperature))
            times[name].append(seconds)
    true = _in_float64(lm, hidden[:256], targets[:256], temperature)
    return [
        {
            "way": name,
            "positions": positions,
            "vocabulary": lm.vocab_size,
            "milliseconds": 1e3 * sorted(times[name][1:])[tries // 2],
            "peak_bytes": peaks[name] or None,
            "gradient_error": _error(way(lm, hidden[:256], targets[:256], temperature).gradient, true),
        }
        for name, way in WAYS.items()
    ]


def _measured(lm: FrozenLM, work: Callable[[], object]) -> tuple[float, int]:
    """Seconds, and on a GPU the most memory that the work took."""
    on_gpu = lm.device.type == "cuda"
    before = 0
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    began = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - began, (torch.cuda.max_memory_allocated() - before) if on_gpu else 0


def _in_float64(lm: FrozenLM, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    leaf = hidden.double().detach().requires_grad_()
    logits = leaf @ lm.head.weight.double().T
    if lm.head.bias is not None:
        logits = logits + lm.head.bias.double()
    loss = functional.cross_entropy(logits / temperature, targets, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


def _error(ours: Tensor, true: Tensor) -> float:
    return ((ours.double() - true).abs().max() / true.abs().max()).item()
