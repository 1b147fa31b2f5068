"""The published way, written plainly from the paper's description.

One text at a time, full logits, a host read every step.

It is what the engine is measured against, so it is kept simple on purpose and shares nothing with
the engine but the model, and the constants of a recipe (Mezentsev & Oseledets, arXiv 2505.21189).
With `fast` it takes the same steps as the engine, so that the two differ in how the work is done
and in nothing else.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from prototokens.engine.optimizer import (
    DAMPING,
    FIRST_DAMPING,
    MIN_LR_SHARE,
    REFRESH,
    preconditions,
)
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe


class SerialResult(NamedTuple):
    """The result of a serial fit.

    Attributes:
        exact: whether every token was right, by the recipe's margin.
        steps: optimiser steps taken.
        protos: the vectors that were scored last.
    """

    exact: bool
    steps: int
    protos: Float32[Tensor, "2 d_model"]


def fit_serial(
    lm: FrozenLM, ids: list[int], recipe: Recipe, start: Float32[Tensor, "2 d_model"]
) -> SerialResult:
    """Fit e and m to one text: [e, m, m, ..., m], position i against token i.

    Stops at perfect accuracy, with the margin.

    Args:
        recipe: all of it but the restarts: there is one attempt.
        start: the vectors to begin from, on any device.
    """
    protos = start.clone().to(lm.device).requires_grad_()
    scale = (
        lm.embedding_weight.float().square().mean().sqrt().item()
        if recipe.lr_unit == "embeddings"
        else 1.0
    )
    lr = recipe.lr * scale * recipe.start_scale
    optimiser = (
        Preconditioned(protos, recipe)
        if preconditions(recipe, lm.d_model)
        else torch.optim.AdamW([protos], betas=recipe.betas, weight_decay=recipe.weight_decay)
    )
    target = torch.tensor(ids, device=lm.device)
    weight = torch.ones(len(ids), device=lm.device)
    for step in range(recipe.steps + 1):
        inputs = torch.cat([protos[:1], protos[1:].expand(len(ids) - 1, -1)])[None]
        logits = lm.logits(lm.hidden(inputs.to(lm.dtype)))[0].float()
        exact = _right(logits, target, recipe.margin)
        if exact or step == recipe.steps:
            break
        losses = torch.nn.functional.cross_entropy(
            logits / recipe.temperature, target, reduction="none"
        )
        weight = _weights(recipe, weight, logits.detach(), target)
        loss = (weight * losses).sum()
        rate = lr * _schedule(recipe, step)
        nats = losses.mean().item()
        if recipe.slow_below > 0:
            rate *= min(1.0, max(MIN_LR_SHARE, nats / recipe.slow_below))
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return SerialResult(exact, step, protos.detach().cpu())


def _schedule(recipe: Recipe, step: int) -> float:
    """Factor on the rate at a step, counted from zero."""
    if recipe.schedule == "cosine":
        return (1 + math.cos(math.pi * step / max(1, recipe.steps))) / 2
    return 1 / (1 + step / recipe.half_life) if recipe.schedule == "inverse" else 1.0


def _weights(
    recipe: Recipe,
    weight: Float[Tensor, "tokens"],
    logits: Float[Tensor, "tokens vocab"],
    target: Int64[Tensor, "tokens"],
) -> Float[Tensor, "tokens"]:
    """The weight of each token.

    It grows while the token's margin is too small, and falls back to 1 once it is not.
    """
    if recipe.token_weight_growth == 0:
        return weight
    others = logits.scatter(1, target[:, None], -torch.inf).amax(1)
    wide = logits.gather(1, target[:, None])[:, 0] - others > recipe.margin
    grown = (weight * (1 + recipe.token_weight_growth)).clamp_max(recipe.token_weight_max)
    return torch.where(wide, 1 + (weight - 1) * recipe.token_weight_decay, grown)


def _right(
    logits: Float[Tensor, "tokens vocab"], target: Int64[Tensor, "tokens"], margin: float
) -> bool:
    """Whether every token is the likeliest.

    Where a margin is asked for, it also leads the next one by more than that.
    """
    if (logits.argmax(-1) == target).float().mean().item() < 1.0:
        return False
    if margin == 0:
        return True
    first, second = logits.topk(2, -1).values.unbind(-1)
    return (first - second).min().item() > margin


class Preconditioned(torch.optim.Optimizer):
    """The step of `engine.optimizer`, a vector at a time.

    X - lr * precondition_rate * u / rms(u), with u = C^(-p) a.

    Args:
        protos: the vectors, each with a matrix of its own.
    """

    def __init__(self, protos: Tensor, recipe: Recipe):
        super().__init__([protos], {"lr": recipe.lr})
        self.recipe, self.taken = recipe, 0
        count, width = protos.shape
        self.average = torch.zeros_like(protos)
        self.second_moment = [torch.zeros(width, width, device=protos.device) for _ in range(count)]
        self.preconditioner = list(self.second_moment)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore
        (protos,), lr = self.param_groups[0]["params"], self.param_groups[0]["lr"]
        fast, slow = self.recipe.betas
        self.average = fast * self.average + (1 - fast) * protos.grad
        for number, gradient in enumerate(protos.grad):
            self.second_moment[number] = slow * self.second_moment[number] + (
                1 - slow
            ) * torch.outer(gradient, gradient)
            if self.taken % REFRESH == 0:
                damping = max(DAMPING, FIRST_DAMPING * 0.1 ** (self.taken // REFRESH))
                values, axes = torch.linalg.eigh(self.second_moment[number])
                values = values.clamp_min(0)
                values = values + damping * values.mean() + torch.finfo(values.dtype).tiny
                self.preconditioner[number] = (
                    axes @ torch.diag(values**-self.recipe.precondition_power) @ axes.T
                )
            step = self.preconditioner[number] @ self.average[number]
            step = (
                step / step.square().mean().sqrt().clamp_min(1e-12) * self.recipe.precondition_rate
            )
            protos[number] -= lr * (step + self.recipe.weight_decay * protos[number])
        self.taken += 1
