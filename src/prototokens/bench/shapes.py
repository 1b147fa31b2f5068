"""The time of a step by length, by number of rows and by width of the model.

By length, by rows side by side, and by the model's width.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from prototokens.engine.batch import Batch
from prototokens.engine.inputs import OneStep
from prototokens.engine.rows import groups_of
from prototokens.engine.scheduler import Scheduler
from prototokens.layout import tiled
from prototokens.lm.devices import matrix_product_rate
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe

LENGTHS = (16, 32, 64, 128, 256, 512)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def step_costs(
    models: Sequence[FrozenLM], lengths: Sequence[int], rows: Sequence[int | None], steps: int = 10
) -> Iterator[dict[str, Any]]:
    """Time whole fit steps for each model, length and number of rows.

    A step is the forward pass, the head, the backward pass and the optimizer.

    Args:
        rows: side by side; None: as many as the engine takes by itself.
        steps: timed after two that are not; the median counts.

    Yields:
        For each combination: what `prototokens bench --what shapes --json` lists under `shapes`.
    """
    for lm in models:
        peak, flops = matrix_product_rate(lm.device, lm.dtype), lm.flops_per_position()
        for length in lengths:
            if lm.max_context is not None and length > lm.max_context:
                continue
            for count in rows:
                batch = _batch(lm, length, count)
                seconds = _median_step(batch, steps)
                rate = flops * length * len(batch) / seconds
                yield {
                    "model": lm.name,
                    "d_model": lm.d_model,
                    "length": length,
                    "rows": len(batch),
                    "milliseconds": 1e3 * seconds,
                    "row_steps_per_second": len(batch) / seconds,
                    "gflops": rate / 1e9,
                    "share_of_peak": rate / peak,
                }


def _batch(lm: FrozenLM, length: int, rows: int | None) -> Batch:
    """Rows of random ids that are never solved; only the shapes matter."""
    generator = torch.Generator().manual_seed(0)
    method, recipe = OneStep(tiled(1)), Recipe(margin=1e9)
    ids = torch.randint(0, lm.vocab_size, (rows or 4096, length), generator=generator).tolist()
    waiting = deque(groups_of(lm, ids, method))
    scheduler = Scheduler(lm, recipe, method, waiting, rows)
    if rows is not None:
        scheduler.max_positions = rows * length
    scheduler.fill()
    return scheduler.batch


def _median_step(batch: Batch, steps: int) -> float:
    """Seconds of a step; on a GPU ten steps are timed at a time, as a fit measures them."""
    each = 10 if batch.lm.device.type == "cuda" else 1
    times = []
    for _ in range(steps + 2):
        batch.ended()
        began = time.perf_counter()
        for _ in range(each):
            batch.step()
        batch.ended()
        times.append((time.perf_counter() - began) / each)
    return sorted(times[2:])[steps // 2]
