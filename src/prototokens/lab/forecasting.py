"""Fit the coefficients of the cost forecast to rows of real fits, and judge it on other rows.

For each recipe, the log of the steps is a weighted sum of the features of `planning.forecast` and
an offset for each model, with logistic noise; a row that ran out of steps says that it takes more.
The likelihood is maximised with a weak pull of the weights towards zero and of the offsets towards
each other. Whole passages are left out for judging, a fifth at a time: no passage is on both sides.
The rank correlation is Spearman's, of forecast steps and steps; rows that were not exact count as
more steps than any. `within` is the mean of the correlations inside cells of one model, layout and
length, where nothing but the text differs.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prototokens.lab.methods import method_of
from prototokens.lab.report import Table
from prototokens.planning.forecast import Curve, features

FOLDS = 5
PULL = 0.01  # of the weights towards zero, in squared units; the constant is free
BETWEEN = (
    0.5  # how far models are taken to lie apart before any two are known, in the log of the steps
)
CELL = 6  # rows of a cell, at least, for a correlation inside it


@dataclass(frozen=True)
class Rows:
    """Rows of one recipe, as tensors."""

    found: dict[str, Tensor]
    model: Tensor
    log_steps: Tensor
    exact: Tensor
    fold: Tensor
    cell: list[tuple]
    fingerprints: list[str]
    names: list[str]

    def __len__(self) -> int:
        return len(self.log_steps)

    def where(self, kept: Tensor) -> Rows:
        """The rows that a mask selects."""
        found = {name: values[kept] for name, values in self.found.items()}
        cell = [one for one, keep in zip(self.cell, kept.tolist(), strict=True) if keep]
        return replace(
            self,
            found=found,
            model=self.model[kept],
            log_steps=self.log_steps[kept],
            exact=self.exact[kept],
            fold=self.fold[kept],
            cell=cell,
        )


class Fitted(NamedTuple):
    """What one fit of the coefficients gave."""

    weights: Tensor
    offsets: Tensor
    spread: float
    between: float


def read(paths: list[Path]) -> dict[str, list[dict]]:
    """Rows by recipe; each once, wherever it was found."""
    kept: dict[str, dict] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            which = [
                row[name]
                for name in ("fingerprint", "dtype", "layout", "recipe", "seed", "ids_sha256")
            ]
            kept.setdefault(json.dumps(which, sort_keys=True), row)
    by_recipe: dict[str, list[dict]] = defaultdict(list)
    for row in kept.values():
        by_recipe[row["recipe"]["name"]].append(row)
    return dict(by_recipe)


def tensors(rows: list[dict]) -> Rows:
    """Features, outcomes and folds of rows."""
    fingerprints = sorted({row["fingerprint"] for row in rows})
    named = {row["fingerprint"]: row["model"] for row in rows}
    parts = []
    for row in rows:
        layout = method_of(row["layout"]).layout
        bits, tokens = (
            torch.tensor([value], dtype=torch.float64)
            for value in (row["nats"] / math.log(2), row["length"])
        )
        parts.append(features(bits, tokens, layout, row["floats"] // layout.vectors))
    # A passage is the same at every length: its fold is drawn from its name, not from its ids.
    passages = [f"{row['model']} {row.get('source')} {row['passage']}" for row in rows]
    folds = [int(hashlib.sha256(name.encode()).hexdigest(), 16) % FOLDS for name in passages]
    return Rows(
        {name: torch.cat([part[name] for part in parts]) for name in parts[0]},
        torch.tensor([fingerprints.index(row["fingerprint"]) for row in rows]),
        torch.tensor(
            [
                float(max(1, row["steps"] if row["exact"] else row["recipe"]["steps"]))
                for row in rows
            ]
        )
        .double()
        .log(),
        torch.tensor([bool(row["exact"]) for row in rows]),
        torch.tensor(folds),
        [
            (row["fingerprint"], row["dtype"], row.get("source"), row["layout"], row["length"])
            for row in rows
        ],
        fingerprints,
        [f"{named[fingerprint]} ({fingerprint[:8]})" for fingerprint in fingerprints],
    )


def log_likelihood(rows: Rows, mu: Tensor, spread: Tensor | float) -> Tensor:
    """The log-likelihood of each row.

    That is the density of its log steps where it was exact, else the chance of more steps than it
    had.
    """
    deviation = (rows.log_steps - mu) / spread
    more = torch.nn.functional.logsigmoid(-deviation)
    density = more + torch.nn.functional.logsigmoid(deviation) - torch.as_tensor(spread).log()
    return torch.where(rows.exact, density, more)


def solve(rows: Rows) -> Fitted:
    """The most likely coefficients, under the pull."""
    design = torch.stack(list(rows.found.values()), dim=1)
    scale = design.abs().amax(0).clamp(min=1e-9)
    free = torch.tensor([float(name == "constant") for name in rows.found], dtype=torch.float64)
    weights = torch.zeros(design.shape[1], dtype=torch.float64, requires_grad=True)
    offsets = torch.zeros(len(rows.fingerprints), dtype=torch.float64, requires_grad=True)
    log_spread = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    chosen = [weights, offsets, log_spread]
    optimiser = torch.optim.LBFGS(
        chosen,
        max_iter=2000,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        mu = design / scale @ weights + offsets[rows.model]
        pull = PULL * ((1 - free) * weights**2).sum() / 2 + (offsets**2).sum() / (2 * BETWEEN**2)
        value = pull - log_likelihood(rows, mu, log_spread.exp()).sum()
        value.backward()
        return value

    optimiser.step(loss)
    seen = offsets.detach()[rows.model.unique()]
    # The spread of the offsets, with what was taken beforehand counted as one more model.
    between = math.sqrt((BETWEEN**2 + float((seen**2).sum())) / (1 + len(seen)))
    return Fitted(
        (weights / scale).detach(), offsets.detach(), float(log_spread.detach().exp()), between
    )


def curve(rows: Rows, fitted: Fitted) -> Curve:
    """The coefficients as the package uses them."""
    weights = {name: float(value) for name, value in zip(rows.found, fitted.weights, strict=True)}
    return Curve(
        weights,
        fitted.spread,
        fitted.between,
        dict(zip(rows.fingerprints, map(float, fitted.offsets), strict=True)),
    )


def predicted(rows: Rows, by: Curve) -> tuple[Tensor, Tensor]:
    """The log of the median steps that is forecast for each row, and the spread around it."""
    mu, spread = (
        torch.zeros(len(rows), dtype=torch.float64),
        torch.zeros(len(rows), dtype=torch.float64),
    )
    for number, fingerprint in enumerate(rows.fingerprints):
        kept = rows.model == number
        found = {name: values[kept] for name, values in rows.found.items()}
        mu[kept], spread[kept] = by.log_steps(found, fingerprint), by.spread_of(fingerprint)
    return mu, spread


def ranks(values: Tensor) -> Tensor:
    """Ranks, equal values sharing the mean of theirs."""
    return (values[:, None] > values).sum(1).double() + (values[:, None] == values).sum(
        1
    ).double() / 2


def spearman(a: Tensor, b: Tensor) -> float | None:
    """Rank correlation; None where one side is all alike."""
    a, b = ranks(a), ranks(b)
    if a.unique().numel() < 2 or b.unique().numel() < 2:
        return None
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def judge(rows: Rows, mu: Tensor, spread: Tensor) -> dict[str, float | int | None]:
    """How good forecasts of these rows were."""
    happened = torch.where(rows.exact, rows.log_steps, math.inf)
    inside = []
    for cell in dict.fromkeys(rows.cell):
        kept = torch.tensor([one == cell for one in rows.cell])
        if int(kept.sum()) >= CELL and (value := spearman(mu[kept], happened[kept])) is not None:
            inside.append(value)
    missed = (mu - rows.log_steps)[rows.exact].abs()
    # At each row's own end: was it exact by then? For the budget's rows that is the forecast of
    # success.
    out = {
        "rows": len(rows),
        "rank_correlation": spearman(mu, happened),
        "within": statistics.mean(inside) if inside else None,
        "log_likelihood": float(log_likelihood(rows, mu, spread).mean()),
        "steps_off_by_median": math.exp(float(missed.median())) if len(missed) else None,
    }
    return {
        name: round(value, 3) if isinstance(value, float) else value for name, value in out.items()
    }


def held_out(rows: Rows) -> dict[str, float | int | None]:
    """Judge each fifth of the passages with a fit to the other four."""
    mu, spread = (
        torch.zeros(len(rows), dtype=torch.float64),
        torch.zeros(len(rows), dtype=torch.float64),
    )
    for fold in range(FOLDS):
        kept = rows.fold == fold
        if bool(kept.any()) and not bool(kept.all()):
            mu[kept], spread[kept] = predicted(
                rows.where(kept), curve(rows, solve(rows.where(~kept)))
            )
    return judge(rows, mu, spread)


def unseen_models(rows: Rows) -> dict[str, dict[str, float | int | None]]:
    """Judge each model with a fit to the others."""
    out = {}
    for number, name in enumerate(rows.names):
        kept = rows.model == number
        if bool(kept.all()):
            continue
        others = curve(rows, solve(rows.where(~kept)))
        others.offsets.pop(rows.fingerprints[number])
        out[name] = judge(rows.where(kept), *predicted(rows.where(kept), others))
    return out


def judgement(recipes: dict[str, dict]) -> Table:
    """How good the shipped forecast is on rows that it was not fitted to.

    The file with the coefficients records it.
    """
    columns = [
        "recipe",
        "rows judged",
        "rows in all",
        "rank correlation",
        "within a cell",
        "steps off by, median",
    ]
    cells = []
    for recipe, values in recipes.items():
        parts = {"passages held out": values["held_out"]}
        parts |= {
            f"all of {name}, none of it seen": found
            for name, found in values["unseen_models"].items()
        }
        for name, found in parts.items():
            numbers = [found["rank_correlation"], found["within"], found["steps_off_by_median"]]
            cells.append(
                [
                    recipe,
                    name,
                    found["rows"],
                    *("-" if number is None else f"{number:.2f}" for number in numbers),
                ]
            )
    return Table("forecast", columns, cells)


def fitted_record(rows: list[dict], files: list[Path]) -> dict[str, Any]:
    """What `forecast.json` holds of a recipe: the coefficients, and how good they are.

    Args:
        rows: of that recipe.
        files: that they come from.
    """
    some = tensors(rows)
    fitted = solve(some)
    models = zip(some.fingerprints, some.names, fitted.offsets, strict=True)
    weights = zip(some.found, fitted.weights, strict=True)
    recipes = sorted({json.dumps(row["recipe"], sort_keys=True) for row in rows})
    return {
        "weights": {feature: round(float(value), 4) for feature, value in weights},
        "spread": round(fitted.spread, 4),
        "between": round(fitted.between, 4),
        "models": {
            fingerprint: {
                "name": model,
                "offset": round(float(offset), 4),
                "rows": int((some.model == number).sum()),
            }
            for number, (fingerprint, model, offset) in enumerate(models)
        },
        "rows": {
            "count": len(some),
            "exact": int(some.exact.sum()),
            "files": sorted(f"{path.parent.name}/{path.name}" for path in files),
            "recipes": [json.loads(recipe) for recipe in recipes],
        },
        "held_out": held_out(some),
        "unseen_models": unseen_models(some),
    }
