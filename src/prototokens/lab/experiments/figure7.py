"""Figure 7: straight lines and trained curves between two solutions of one text.

Also the noise that a solution withstands.

Each text is fitted from several seeds. Between each two of its solutions: accuracy and least margin
along the straight line, and along a quadratic Bezier curve whose control point is trained through
the frozen model; how much longer than the line the curve is. About each solution: how far it can be
moved in random directions and still decode exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from prototokens.engine.forward import scored_hidden
from prototokens.engine.head import score
from prototokens.engine.inputs import OneStep, arrange
from prototokens.lab import plots
from prototokens.lab.job import Config, Fit, Job, Row, Run
from prototokens.lab.report import Report, Table, share, size_notes
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import geometry, metrics
from prototokens.recipe import Recipe
from prototokens.solution import Solution

TITLE = "Between two solutions of one text: lines, curves, noise"
PLACES = 21  # along each line and curve, its ends among them
FULL_TRAINING = (
    2000,
    4,
)  # of a curve, at the paper's scale: steps, and points drawn at each; on less no verdict rests
POSITIONS = {"cpu": 1024}  # input positions of one pass
POSITIONS_ELSEWHERE = 8192


def jobs(config: Config) -> list[Job]:
    lengths = config.lengths((config.pick(12, 64),))
    if not lengths:
        return []
    seeds = config.seeds(config.pick(4, 10))
    (steps, draws), directions = config.pick((400, 1), FULL_TRAINING), config.pick(16, 100)
    made = []
    for text in config.texts.passages(config.count(2, 5), lengths[0]):
        values = {
            "seeds": seeds,
            "curve_steps": steps,
            "curve_draws": draws,
            "directions": directions,
        }
        pairs = len(seeds) * (len(seeds) - 1) / 2
        decodings = pairs * 2 * PLACES / 3 + len(seeds) * directions * 11 / 3
        work = (
            len(seeds) * config.work(text, lengths[0])
            + (pairs * steps * draws + decodings) * lengths[0]
        )
        made.append(
            Job(
                "figure7",
                config.model,
                (text,),
                "paper",
                config.recipe,
                config.seed,
                values,
                work=work,
            )
        )
    return made


def run(job: Job, lm: FrozenLM) -> Run:
    ids, seeds = job.text.ids, job.values["seeds"]
    fitted = yield [Fit.one(ids, layout=job.layout, recipe=job.recipe, seed=seed) for seed in seeds]
    solved = [solution for (solution,) in fitted if solution.exact]
    scorer = Between(lm, ids, solved[0], job.recipe) if solved else None
    about: Row = {
        "text": job.text.id,
        "length": len(ids),
        "seeds": len(seeds),
        "solved": len(solved),
    }
    if scorer is None:
        return [{**about, "kind": "text"}]
    made: list[Row] = [{**about, "kind": "text"}]
    for solution, noise in zip(
        solved, scorer.noise(solved, job.values["directions"], job.seed), strict=True
    ):
        made.append({**about, "kind": "solution", "solution": solution.seed, **noise})
    if len(solved) > 1:
        pairs, curve = (
            list(combinations(solved, 2)),
            (job.values["curve_steps"], job.values["curve_draws"]),
        )
        for (one, other), values in zip(pairs, scorer.ways(pairs, *curve, job.seed), strict=True):
            made.append({**about, "kind": "pair", "pair": [one.seed, other.seed], **values})
    return made


class Between:
    """Points between solutions of one text, scored by the model."""

    def __init__(self, lm: FrozenLM, ids: Sequence[int], like: Solution, recipe: Recipe):
        self.lm, self.recipe = lm, recipe
        self.vectors = like.protos.shape[0]
        self.plan = OneStep(like.layout).plan(ids)
        self.targets = torch.tensor(list(ids), device=lm.device)
        per_pass = POSITIONS.get(lm.device.type, POSITIONS_ELSEWHERE)
        self.side_by_side = max(1, per_pass // len(self.plan.index))

    def margins(
        self, points: Float[Tensor, "points vectors d_model"]
    ) -> Float32[Tensor, "points tokens"]:
        """Margin of each token at each point; above zero where it decodes right."""
        parts = []
        for part in points.split(self.side_by_side):
            with torch.no_grad():
                hidden = self._hidden(part)
            parts.append(
                score(self.lm, hidden, self.targets.repeat(len(part)), gradient=False)
                .margin.view(len(part), -1)
                .cpu()
            )
        return torch.cat(parts)

    def gradient(
        self, points: Float[Tensor, "points vectors d_model"]
    ) -> Float[Tensor, "points vectors d_model"]:
        """Gradient of each point's loss, at the recipe's temperature, with respect to it."""
        parts = []
        for part in points.split(self.side_by_side):
            with torch.enable_grad():
                moved = part.detach().clone().requires_grad_()
                hidden = self._hidden(moved)
            scores = score(
                self.lm, hidden.detach(), self.targets.repeat(len(part)), self.recipe.temperature
            )
            hidden.backward(scores.gradient)
            assert moved.grad is not None
            parts.append(moved.grad)
        return torch.cat(parts)

    def _hidden(self, points: Tensor) -> Tensor:
        """Hidden states of the scored positions of all points."""
        arranged = arrange(self.lm, [self.plan] * len(points), self.vectors)
        return scored_hidden(self.lm, arranged, points, self.lm.hidden)

    def ways(
        self, pairs: Sequence[tuple[Solution, Solution]], steps: int, draws: int, seed: int
    ) -> list[Row]:
        """Accuracy and least margin along the line and along a trained curve of each pair.

        Also the curve's length.
        """
        start, end = (
            torch.stack([pair[side].protos for pair in pairs]).to(self.lm.device) for side in (0, 1)
        )
        control = geometry.fit_control(
            start, end, self.gradient, steps=steps, lr=self._rate(), draws=draws, seed=seed
        )
        ratio = geometry.length_ratio(start, control, end)
        grid = np.linspace(0, 1, PLACES)
        decodings = {
            "line": [self.margins(geometry.line(start, end, float(t))) for t in grid],
            "curve": [self.margins(geometry.bezier(start, control, end, float(t))) for t in grid],
        }
        made = []
        for number in range(len(pairs)):
            row: Row = {"t": grid.tolist(), "ratio": float(ratio[number])}
            for name, margins in decodings.items():
                row[name] = [float((at[number] > 0).double().mean()) for at in margins]
                row[f"{name}_margin"] = [float(at[number].min()) for at in margins]
            row["distance"] = float((end[number] - start[number]).norm())
            made.append(row)
        return made

    def noise(self, solutions: Sequence[Solution], directions: int, seed: int) -> list[Row]:
        """How far each solution can be moved in random directions and still decode exactly."""
        centres = torch.stack([solution.protos for solution in solutions]).to(self.lm.device)
        norms = centres.flatten(1).norm(dim=1)
        found = geometry.noise_radius(
            centres,
            lambda points: (self.margins(points) > 0).all(1),
            directions=directions,
            at_most=float(norms.max()),
            seed=seed,
        )
        shares = (found.radius.cpu() / norms[:, None].cpu()).double()
        return [
            {
                "norm": float(norm),
                "margin": solution.margin,
                "radius": float(share.median()),
                "radius_low": float(share.quantile(0.1)),
                "radius_high": float(share.quantile(0.9)),
            }
            for solution, norm, share in zip(solutions, norms, shares, strict=True)
        ]

    def _rate(self) -> float:
        """The recipe's learning rate: a control point is on the scale of the vectors."""
        if self.recipe.lr_unit == "absolute":
            return self.recipe.lr
        return self.recipe.lr * self.lm.embedding_scale.rms


COLUMNS = (
    "way",
    "accuracy at the middle",
    "low",
    "high",
    "least accuracy along it",
    "low",
    "high",
    "least margin at the ends",
    "at the middle",
    "low",
    "high",
)


def report(rows: list[Row]) -> Report:
    pairs = [row for row in rows if row["kind"] == "pair"]
    solutions = [row for row in rows if row["kind"] == "solution"]
    texts = [row for row in rows if row["kind"] == "text"]
    seeds, solved = sum(row["seeds"] for row in texts), sum(row["solved"] for row in texts)
    notes = [
        f"{len(texts)} texts, {seeds} fits, of which {seeds - solved} did not become exact;"
        f" {len(pairs)} pairs of solutions"
    ]
    if solutions:
        radius = _by_text([(row["text"], row["radius"]) for row in solutions])
        notes.append(
            f"noise: a solution decodes exactly up to a distance of {radius.value:.3f} of its own"
            " length"
            f" [{radius.low:.3f}, {radius.high:.3f}] in the median of random directions"
        )
    if not pairs:
        return Report(TITLE, [Table("figure7", ("way",), [])], notes)

    def whole(way: str) -> str:
        return share(sum(min(row[way]) == 1 for row in pairs), len(pairs))

    table = [
        _line(name, shown, pairs)
        for name, shown in (("line", "straight line"), ("curve", "trained curve"))
    ]
    ratios = [row["ratio"] for row in pairs]
    trained = {(row["values"]["curve_steps"], row["values"]["curve_draws"]) for row in pairs}
    notes += [
        *(
            f"training of each curve: {steps:,} steps, places drawn at each step: {draws}"
            for steps, draws in sorted(trained)
        ),
        f"the curves are {np.mean(ratios):.3f} times as long as the lines on average,"
        f" {max(ratios):.3f} at most"
        " (published: at most 1.2)",
        f"{whole('curve')} curves and {whole('line')} lines decode exactly at all {PLACES} places"
        " (intervals as if pairs of one"
        " text were independent, which they are not)",
        *size_notes(len(texts)),
    ]
    if trained != {FULL_TRAINING}:
        notes.append(
            f"the experiment's full training of a curve is {FULL_TRAINING[0]:,} steps of"
            f" {FULL_TRAINING[1]} places: with less,"
            " accuracy along the curves is a lower bound and leaves the verdict on them open"
        )
    caption = "Means over pairs; 95% intervals by bootstrap over texts"
    return Report(
        TITLE, [Table("figure7", COLUMNS, table, caption)], notes, {"figure7": _figure(pairs)}
    )


def _line(name: str, shown: str, pairs: list[Row]) -> list:
    middle = PLACES // 2
    at_middle, least, margin = (
        _by_text([(row["text"], value(row)) for row in pairs])
        for value in (
            lambda row: row[name][middle],
            lambda row: min(row[name]),
            lambda row: row[f"{name}_margin"][middle],
        )
    )
    ends = float(np.mean([row[f"{name}_margin"][end] for row in pairs for end in (0, -1)]))
    return [shown, *at_middle, *least, ends, *margin]


def _by_text(values: list[tuple[str, float]]):
    """Mean over texts of each text's mean, with its interval."""
    texts = dict.fromkeys(text for text, _ in values)
    return metrics.bootstrap(
        [float(np.mean([value for name, value in values if name == text])) for text in texts]
    )


def _figure(pairs: list[Row]):
    each = []
    for suffix, title, label in (
        ("", "Accuracy between two solutions", "token accuracy"),
        ("_margin", "Least margin between them", "logits"),
    ):
        series = []
        for name, shown in (("line", "straight line"), ("curve", "trained curve")):
            at = [
                metrics.bootstrap(
                    [row[name + suffix][index] for row in pairs],
                    groups=[row["text"] for row in pairs],
                    resamples=500,
                )
                for index in range(PLACES)
            ]
            y, low, high = zip(*at, strict=True)
            series.append(plots.Series(shown, y, pairs[0]["t"], low, high))
        panel = plots.Panel(
            title,
            "t, from one solution to the other",
            label,
            y_range=(0, 1.03) if not suffix else None,
        )
        each.append((panel, lambda axes, series=series: plots.draw_lines(axes, series)))
    return plots.panels(each)
