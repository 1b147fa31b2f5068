"""Forms of keys: what vectors are multiplied by, or turned by, at each input position.

    prototokens reproduce studies/key_forms.py --texts file:books_val.parquet --scale paper \
        --dtype float32 --steps 300 --out results/key-forms
    prototokens reproduce studies/key_forms.py --from-rows --out results/key-forms

A form makes the inputs of all positions from a few vectors by a fixed linear map; `keyed:K` is the
form "signs, in turns". All forms are fitted by one plain loop with the start, rate, schedule,
temperature, weights of tokens and stopping rule of the recipe, from the same random vectors, and
without its further attempts. It takes the step of `engine.optimizer`, once with the preconditioner
and once as AdamW. A row is a passage, and a passage that is not exact has taken the whole budget.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from prototokens.engine.head import score
from prototokens.engine.optimizer import token_weights
from prototokens.keys import signs
from prototokens.lab.job import Config, Job, Row
from prototokens.lab.report import Report, Table, high_steps, median_steps, percent_interval
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure.metrics import bootstrap
from prototokens.recipe import Recipe

TITLE = "Forms of keys"
SIGNS = "signs, in turns"
FORMS = (
    SIGNS,
    "signs, sum at every position",
    "powers of a permutation",
    "Hadamard rows",
    "Gaussian keys",
    "signs in the eigenbasis",
    "signs on half of the coordinates",
    "signs on a quarter of the coordinates",
    "signs equal over blocks of 4",
    "signs equal over blocks of 16",
    "rotations of pairs",
    "no keys, e then m",
    "no keys, in turns",
)
ALONE = tuple(form for form in FORMS if form not in (FORMS[1], FORMS[11]))  # for one vector
SOLVERS = ("preconditioned", "AdamW")
TRIAL = 4  # passages of which one must be exact before more are run
LAYOUTS = tuple(f"keyed:{count}" for count in (2, 1, 3, 5, 9, 17))  # for the numbers of vectors
REFRESH, FLOOR, FIRST_FLOOR, MIN_LR_SCALE = 20, 1e-4, 10.0, 0.1  # as in `engine.optimizer`
SEED = 17  # of the fixed random parts of a form
COLUMNS = (
    "form",
    "vectors",
    "floats",
    "tokens",
    "exact",
    "95% interval of the share",
    "accuracy",
    "steps, median",
    "90th percentile",
    "position-steps a passage",
    "times the steps of signs",
    "low",
    "high",
)
NOTES = (
    "exact: every margin is above the recipe's; steps are over all passages, one that is not exact"
    " counting as infinite in the median and the percentile, and with its whole budget in"
    " position-steps and ratios",
    "the ratio is the geometric mean over the passages that both forms were tried on, with its 95%"
    " interval by bootstrap; a form whose first passages all failed was not tried on more",
)
Inputs = Callable[[Float[Tensor, "rows vectors d_model"]], Float[Tensor, "rows positions d_model"]]


def jobs(config: Config) -> list[Job]:
    """One for each number of vectors, solver, form and length."""
    lengths = config.lengths(config.pick((4,), (32, 64)))
    if not lengths:
        return []
    texts = tuple(config.texts.passages(config.count(2, 20), max(lengths)))
    cells = [cell for layout in config.layouts(LAYOUTS) for cell in _cells(layout, lengths)]
    return [
        Job(
            "key_forms",
            config.model,
            texts,
            layout,
            replace(config.recipe, precondition=solver == "preconditioned"),
            config.seed,
            {"form": form, "solver": solver, "length": length},
            sum(config.work(text, length, layout) for text in texts),
        )
        for solver in SOLVERS
        for layout, form, length in cells
    ]


def _cells(layout: str, lengths: list[int]) -> list[tuple[str, str, int]]:
    """Layout, form and length of its jobs: all forms with one or two vectors, signs with more."""
    count = Layout.named(layout).vectors
    if count == 2:
        return [(layout, form, length) for length in lengths for form in FORMS]
    if count == 1:
        cells = [(layout, form, min(lengths)) for form in ALONE]
        return list(dict.fromkeys([*cells, (layout, SIGNS, max(lengths))]))
    return [(layout, SIGNS, max(lengths))]


def run(job: Job, lm: FrozenLM) -> list[Row]:
    """Fit the first passages, and the others where one of them is exact."""
    rows: list[Row] = []
    length = job.values["length"]
    for part in (job.texts[:TRIAL], job.texts[TRIAL:]):
        targets = [tuple(text.ids[:length]) for text in part]
        if targets:
            fitted = fit(lm, job, targets)
            rows += [
                {"passage": text.id, **job.values, **row}
                for text, row in zip(part, fitted, strict=True)
            ]
        if not any(row["exact"] for row in rows):
            break
    return rows


def report(rows: list[Row]) -> Report:
    groups: dict[tuple, dict[tuple, list[Row]]] = {}
    order = {form: number for number, form in enumerate(FORMS)}
    for row in sorted(
        rows,
        key=lambda row: (
            row["model"],
            SOLVERS.index(row["solver"]),
            row["length"],
            row["vectors"],
            order[row["form"]],
        ),
    ):
        cells = groups.setdefault((row["model"], row.get("source"), row["solver"]), {})
        cells.setdefault((row["length"], row["vectors"], row["form"]), []).append(row)
    tables = []
    for (model, source, solver), cells in groups.items():
        first = next(iter(cells.values()))[0]
        caption = (
            f"{model} (weights {first['fingerprint'][:8]}; {first['dtype']}), {source}, {solver},"
            f" {first['recipe']['steps']:,} steps at most"
        )
        lines = [
            _line(cell, cells.get((length, vectors, SIGNS), []))
            for (length, vectors, _), cell in cells.items()
        ]
        tables.append(Table(f"key-forms-{len(tables) + 1}", COLUMNS, lines, caption))
    return Report(title=TITLE, notes=list(NOTES), tables=tables)


def _line(rows: list[Row], beside: list[Row]) -> list:
    exact = sum(row["exact"] for row in rows)
    taken = [(row["steps"] + 1) * row["length"] for row in rows]
    first = rows[0]
    return [
        first["form"],
        first["vectors"],
        first["vectors"] * first["d_model"],
        first["length"],
        f"{exact} of {len(rows)}",
        percent_interval(exact, len(rows)),
        statistics.mean(row["correct"] / row["length"] for row in rows),
        median_steps(rows),
        high_steps(rows),
        statistics.mean(taken),
        *_ratio(rows, beside if first["form"] != SIGNS else []),
    ]


def _ratio(rows: list[Row], beside: list[Row]) -> list[float | None]:
    """Geometric mean of steps over those of the passages beside, and its interval."""
    other = {row["passage"]: row["steps"] + 1 for row in beside}
    logs = [
        math.log((row["steps"] + 1) / other[row["passage"]])
        for row in rows
        if row["passage"] in other
    ]
    return [math.exp(value) for value in bootstrap(logs)] if logs else [None, None, None]


def fit(lm: FrozenLM, job: Job, targets: Sequence[tuple[int, ...]]) -> list[Row]:
    """Fit targets of one length side by side; what a row says of each."""
    recipe, seed = job.recipe, job.seed
    count, length = Layout.named(job.layout).vectors, len(targets[0])
    rms = lm.embedding_scale[2]
    lr = recipe.lr * recipe.start_scale * (rms if recipe.lr_unit == "embeddings" else 1.0)
    vectors = starts_of(lm, recipe, count, targets, seed).to(lm.device).requires_grad_()
    optimizer = Preconditioned(vectors, recipe) if recipe.precondition else AdamW(vectors, recipe)
    inputs = inputs_of(job.values["form"], lm, count, length)
    ids = torch.tensor(targets, device=lm.device)
    weight = torch.ones(ids.shape, device=lm.device)
    going, best = torch.arange(len(ids), device=lm.device), torch.zeros_like(ids[:, 0])
    found: list[Row] = [{} for _ in targets]
    for step in range(recipe.steps + 1):
        embeds = inputs(vectors[going]).to(lm.dtype)
        hidden = lm.hidden_static(embeds, job.model.prefix)[:, -length:].flatten(0, 1)
        scores = score(lm, hidden.detach(), ids[going].flatten(), recipe.temperature)
        best[going] = best[going].maximum(scores.right.view(-1, length).sum(1))
        solved = scores.margin.view(-1, length).amin(1) > recipe.margin
        for number, exact in zip(going.tolist(), solved.tolist(), strict=True):
            correct = int(best[number])
            found[number] = {"exact": exact, "correct": correct, "steps": step, "vectors": count}
        if bool(solved.all()) or step == recipe.steps:
            break
        assert scores.gradient is not None
        grown = token_weights(recipe, weight[going].flatten(), scores.margin)
        weight[going] = grown.view(-1, length)
        weighted = (scores.gradient * grown[:, None]).to(hidden.dtype)
        (vectors.grad,) = torch.autograd.grad(hidden, vectors, weighted)
        loss = torch.ones_like(best, dtype=torch.float32)
        loss[going] = scores.loss.view(-1, length).mean(1)
        optimizer.move(lr / (1 + step / recipe.half_life), _slowed(recipe, loss), going)
        going = going[~solved]
    return found


def starts_of(
    lm: FrozenLM, recipe: Recipe, vectors: int, targets: Sequence[tuple[int, ...]], seed: int
) -> Float[Tensor, "rows vectors d_model"]:
    """Random vectors for each target, the same ones for every form."""
    mean, std, _ = lm.embedding_scale
    drawn = []
    for ids in targets:
        generator = torch.Generator().manual_seed(seed + sum(ids))
        noise = torch.randn(vectors, lm.d_model, generator=generator)
        drawn.append(mean.cpu() + recipe.start_scale * std.cpu() * noise)
    return torch.stack(drawn)


def _slowed(recipe: Recipe, loss: Float[Tensor, "rows"]) -> Float[Tensor, "rows"]:
    """By what the rate of each row falls with its loss (`Recipe.slow_below`)."""
    if recipe.slow_below == 0:
        return torch.ones_like(loss)
    return (loss / recipe.slow_below).clamp(MIN_LR_SCALE, 1)


class AdamW:
    """PyTorch's, with a factor on the step of each row."""

    def __init__(self, vectors: Tensor, recipe: Recipe):
        self.vectors, decay = vectors, recipe.weight_decay
        self.inner = torch.optim.AdamW([vectors], 1.0, recipe.betas, weight_decay=decay)

    def move(self, lr: float, slowed: Float[Tensor, "rows"], going: Tensor) -> None:
        del going  # rows do not touch each other
        before = self.vectors.detach().clone()
        self.inner.param_groups[0]["lr"] = lr
        self.inner.step()
        with torch.no_grad():
            self.vectors.copy_(before.lerp(self.vectors, slowed[:, None, None]))


class Preconditioned:
    """The steps of `engine.optimizer`, written out plainly."""

    def __init__(self, vectors: Tensor, recipe: Recipe):
        self.vectors, self.recipe, self.step = vectors, recipe, 0
        self.average = torch.zeros_like(vectors, requires_grad=False)
        self.second = torch.zeros(*vectors.shape, vectors.shape[-1], device=vectors.device)
        self.matrix = torch.zeros_like(self.second)

    @torch.no_grad()
    def move(self, lr: float, slowed: Float[Tensor, "rows"], going: Tensor) -> None:
        assert self.vectors.grad is not None
        fast, slow = self.recipe.betas
        gradient = self.vectors.grad[going]
        self.average[going] = self.average[going].lerp(gradient, 1 - fast)
        self.second[going] = self.second[going].lerp(
            gradient[..., :, None] * gradient[..., None, :], 1 - slow
        )
        if self.step % REFRESH == 0:
            floor = max(FLOOR, FIRST_FLOOR * 0.1 ** (self.step // REFRESH))
            values, axes = torch.linalg.eigh(self.second[going])
            values = values.clamp_min(0)
            values = values + floor * values.mean(-1, keepdim=True) + torch.finfo(values.dtype).tiny
            power = values.pow(-self.recipe.precondition_power)
            self.matrix[going] = (axes * power[..., None, :]) @ axes.mT
        step = (self.average[going][..., None, :] @ self.matrix[going])[..., 0, :]
        size = step.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-12)
        step = step / size * self.recipe.precondition_rate
        step += self.recipe.weight_decay * self.vectors[going]
        self.vectors[going] -= lr * slowed[going, None, None] * step
        self.step += 1


def inputs_of(form: str, lm: FrozenLM, vectors: int, length: int) -> Inputs:
    """The fixed linear map of a form, from vectors to the inputs of all positions."""
    d, device = lm.d_model, lm.device
    generator = torch.Generator().manual_seed(SEED)
    turns = torch.arange(length, device=device) % vectors
    if form == "no keys, e then m":
        turns = torch.arange(length, device=device).clamp_max(vectors - 1)
    if form == "signs, sum at every position":
        keys = signs(length * vectors, d).view(length, vectors, d).to(device)
        return lambda protos: (protos[:, None] * keys).sum(2)
    if form == "powers of a permutation":
        one, powers = torch.randperm(d, generator=generator), [torch.arange(d)]
        for _ in range(length - 1):
            powers.append(powers[-1][one])
        table = torch.stack(powers).to(device)
        return lambda protos: protos[:, turns].gather(2, table.expand(len(protos), -1, -1))
    if form == "rotations of pairs":
        angle = torch.arange(length)[:, None] * torch.rand(d // 2, generator=generator) * math.tau
        cos, sin = angle.cos().to(device), angle.sin().to(device)

        def turned(protos: Tensor) -> Tensor:
            x, y = protos[:, turns].unflatten(2, (d // 2, 2)).unbind(3)
            return torch.stack([x * cos - y * sin, x * sin + y * cos], 3).flatten(2)

        return turned
    if form == "signs in the eigenbasis":
        axes = torch.linalg.eigh(torch.cov(lm.embedding_weight.float().T.cpu())).eigenvectors
        axes, keys = axes.to(device), signs(length, d).to(device)
        return lambda protos: (protos[:, turns] @ axes * keys) @ axes.T
    table = multipliers(form, length, d, generator).to(device)
    return lambda protos: protos[:, turns] * table


def multipliers(
    form: str, length: int, d: int, generator: torch.Generator
) -> Float[Tensor, "positions d_model"]:
    """What the vector of each position is multiplied by, of the forms that only multiply."""
    if form.startswith("no keys"):
        return torch.ones(length, d)
    if form == "Gaussian keys":
        return torch.randn(length, d, generator=generator)
    if form == "Hadamard rows":
        # Sylvester's: the sign of row i and column j is the parity of the bits of i and j.
        both = torch.arange(1, length + 1)[:, None] & torch.arange(d)[None, :]
        parity = sum((both >> bit) & 1 for bit in range(32)) % 2
        return 1.0 - 2.0 * torch.as_tensor(parity)
    if form.startswith("signs equal over blocks of "):
        size = int(form.rsplit(" ", 1)[1])
        return signs(length, -(-d // size)).repeat_interleave(size, 1)[:, :d]
    table = signs(length, d).clone()
    every = {"signs on half": 2, "signs on a quarter": 4}.get(
        form.removesuffix(" of the coordinates")
    )
    if every:
        table[:, torch.arange(d) % every != 0] = 1.0
    return table
