"""Why keys work: how differently the tokens of a text pull at the vectors, by layout.

    prototokens reproduce studies/keys.py --texts file:books_val.parquet --scale paper \
        --dtype float32 --out results/keys
    prototokens reproduce studies/keys.py --from-rows --out results/keys

For vectors at random, on the scale of the embeddings, the gradient of each token's loss with
respect to all vectors is taken by itself and scaled to length one. Where many of these gradients
are alike, a step that helps one token moves the others too, and the problem is badly conditioned.
A row is a passage and a layout: the effective rank of the inputs and of the gradients (the
exponential of the entropy of the squared singular values; Roy & Vetterli 2007), the mean cosine
between the gradients of two tokens, and the condition number of their Gram matrix, which is the
empirical Gauss-Newton matrix of the fit seen from the tokens.
"""

from __future__ import annotations

import statistics

import torch
from jaxtyping import Float
from torch import Tensor

from prototokens.engine.forward import scored_hidden
from prototokens.engine.head import score
from prototokens.engine.inputs import OneStep, arrange
from prototokens.lab.job import Config, Job, Row
from prototokens.lab.report import Report, Table, layouts_of
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM

TITLE = "Keys: how differently tokens pull at the vectors"
LAYOUTS = ("one", "keyed:1", "paper", "alternating", "mixed:1", "keyed:2", "mixed:4", "keyed:5")
LENGTH = 32
MEASURES = ("input_rank", "gradient_rank", "cosine", "condition")
COLUMNS = (
    "model",
    "layout",
    "vectors",
    "tokens",
    "passages",
    "effective rank of the inputs",
    "effective rank of the gradients",
    "mean cosine of two gradients",
    "condition number",
)


def jobs(config: Config) -> list[Job]:
    found = []
    for layout in config.layouts(LAYOUTS):
        (length,) = config.lengths([LENGTH], layout)
        texts = tuple(config.texts.passages(config.count(2, 20), length))
        found.append(Job("keys", config.model, texts, layout, config.recipe, config.seed))
    return found


def run(job: Job, lm: FrozenLM) -> list[Row]:
    layout = Layout.named(job.layout).with_prefix(job.model.prefix)
    mean, std, _ = lm.embedding_scale
    rows: list[Row] = []
    for number, text in enumerate(job.texts):
        generator = torch.Generator().manual_seed(job.seed + number)
        protos = mean + std * torch.randn(layout.vectors, lm.d_model, generator=generator)
        measured = _measured(lm, layout, protos.to(lm.device), list(text.ids))
        rows.append({"passage": text.id, "length": len(text.ids), **measured})
    return rows


def report(rows: list[Row]) -> Report:
    cells: dict[tuple, list[Row]] = {}
    order = layouts_of(rows, LAYOUTS)
    for row in sorted(rows, key=lambda row: (row["model"], order.index(row["layout"]))):
        cells.setdefault((row["model"], row["layout"], row["length"]), []).append(row)
    lines = [
        [model, layout, Layout.named(layout).vectors, length, len(cell)]
        + [float(f"{statistics.median(row[name] for row in cell):.3g}") for name in MEASURES]
        for (model, layout, length), cell in cells.items()
    ]
    notes = ["medians over passages, vectors at random, before any step of a fit"]
    return Report(title=TITLE, notes=notes, tables=[Table("keys", COLUMNS, lines, TITLE)])


def _measured(lm: FrozenLM, layout: Layout, protos: Tensor, ids: list[int]) -> dict[str, float]:
    """What a row says of one passage."""
    vectors = protos.requires_grad_()
    arranged = arrange(lm, [OneStep(layout).plan(ids)], layout.vectors)
    hidden = scored_hidden(lm, arranged, vectors[None], lm.hidden)
    targets = torch.tensor(ids, device=lm.device)
    hidden_gradient = score(lm, hidden.detach(), targets).gradient
    assert hidden_gradient is not None
    gradients = []
    for token in range(len(ids)):
        alone = torch.zeros_like(hidden_gradient)
        alone[token] = hidden_gradient[token]
        (gradient,) = torch.autograd.grad(hidden, vectors, alone, retain_graph=True)
        gradients.append(gradient.flatten().float() / gradient.float().norm())
    stacked = torch.stack(gradients)
    inputs = arranged.inputs(vectors[None])[0].detach()
    gram = stacked @ stacked.mT
    values = torch.linalg.svdvals(stacked.double())
    pairs = len(ids) * (len(ids) - 1)
    return {
        "input_rank": _effective_rank(inputs),
        "gradient_rank": _effective_rank(stacked),
        "cosine": float((gram.sum() - gram.trace()) / pairs),
        "condition": float((values[0] / values[-1].clamp_min(1e-12)) ** 2),
    }


def _effective_rank(matrix: Float[Tensor, "rows columns"]) -> float:
    """The exponential of the entropy of the squared singular values."""
    shares = torch.linalg.svdvals(matrix.double()).square()
    shares = shares / shares.sum()
    return float((-(shares * shares.clamp_min(1e-300).log()).sum()).exp())
