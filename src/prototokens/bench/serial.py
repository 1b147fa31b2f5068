"""The published way, written plainly from the paper's description: one text at a time, full logits, a host read every step.

It is what the engine is measured against, so it is kept simple on purpose and shares nothing with the engine but the model
(Mezentsev & Oseledets, arXiv 2505.21189).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from prototokens.frozen_lm import FrozenLM
from prototokens.recipe import Recipe


class SerialResult(NamedTuple):
    """Whether every token was right, and after how many optimiser steps."""

    exact: bool
    steps: int


def fit_serial(lm: FrozenLM, ids: list[int], recipe: Recipe, seed: int) -> SerialResult:
    """Fit e and m to one text: [e, m, m, ..., m], position i against token i; stops at perfect accuracy."""
    generator = torch.Generator().manual_seed(seed)
    table = lm.embedding_weight.float()
    protos = torch.randn(2, lm.d_model, generator=generator).to(lm.device)
    if recipe.start == "embeddings":
        protos = table.mean(0) + table.std(0) * protos
    protos.requires_grad_()
    lr = recipe.lr * (table.square().mean().sqrt().item() if recipe.lr_unit == "embeddings" else 1.0)
    optimiser = torch.optim.AdamW([protos], lr=lr, betas=recipe.betas, weight_decay=recipe.weight_decay)
    target = torch.tensor(ids, device=lm.device)
    for step in range(recipe.steps + 1):
        inputs = torch.cat([protos[:1], protos[1:].expand(len(ids) - 1, -1)])[None]
        logits = lm.logits(lm.hidden(inputs.to(lm.dtype)))[0].float()
        if (logits.argmax(-1) == target).float().mean().item() == 1.0:
            return SerialResult(True, step)
        loss = torch.nn.functional.cross_entropy(logits / recipe.temperature, target, reduction="sum")
        if recipe.schedule == "cosine":
            optimiser.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / max(1, recipe.steps))) / 2
        optimiser.zero_grad()
        loss.backward()
        loss.item()
        optimiser.step()
    return SerialResult(False, recipe.steps)
