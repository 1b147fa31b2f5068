"""The peak memory of the frozen head, each way in a fresh process.

Weights and hidden states are not counted.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch

from prototokens.bench.heads import WAYS
from prototokens.bench.models import Shape, random_model
from prototokens.bench.peak import PeakMemory

# The whole logits of the plain way, and their gradient, may be more than the machine has: it is
# left out.
MEASURED = ("chunked", "fused")


class Work(NamedTuple):
    """The input of the head: `rows` of `tokens` positions of width `d_model`.

    Each position has `vocabulary` logits.
    """

    vocabulary: int = 128_256
    d_model: int = 2048
    rows: int = 16
    tokens: int = 512


LARGE = Work()


def head_memory(
    dtype: torch.dtype,
    device: torch.device,
    work: Work | None = None,
    ways: Sequence[str] = MEASURED,
) -> list[dict[str, Any]]:
    """Loss and gradient of all positions at once, by each way.

    Args:
        work: by default `LARGE`.

    Returns:
        For each way: `way`, the numbers of `work`, `dtype`, `device`, `peak_bytes` (null where it
        cannot be measured), and
        `logits_bytes`: what all logits would take in float32.
    """
    work = work or LARGE
    about = {
        **work._asdict(),
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device),
        "logits_bytes": 4 * work.rows * work.tokens * work.vocabulary,
    }
    rows = []
    for way in ways:
        # A process that was forked would begin with this one's memory.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            peak = fresh.submit(
                _peak, way, work, dtype, str(device), torch.get_num_threads()
            ).result()
        rows.append({"way": way, **about, "peak_bytes": peak})
    return rows


def _peak(way: str, work: Work, dtype: torch.dtype, device: str, threads: int) -> int | None:
    torch.set_num_threads(threads)
    torch_device = torch.device(device)
    heads = max(1, work.d_model // 64)
    shape = Shape("llama", work.d_model, 1, heads, heads, work.d_model, work.vocabulary, tied=True)
    lm = random_model(shape, dtype, torch_device)
    positions = work.rows * work.tokens
    hidden = torch.randn(positions, work.d_model, dtype=dtype, device=torch_device)
    targets = torch.randint(0, work.vocabulary, (positions,), device=torch_device)
    with PeakMemory(torch_device) as memory:
        WAYS[way](lm, hidden, targets, 0.5)
    return memory.extra
