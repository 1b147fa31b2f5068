"""Solutions of two texts, and what lies between them: what the tab Space knows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prototokens.errors import TextError
from prototokens.explorer import charts, show
from prototokens.fitting import fit
from prototokens.lab.experiments.figure7 import Between
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import geometry
from prototokens.ptok.source import read_source
from prototokens.recipe import Recipe
from prototokens.solution import Solution

SEEDS = 3  # solutions of each text
MAX_TOKENS = 48  # of a text here: two vectors have to hold it
CURVE_STEPS, CURVE_DRAWS = 60, 4
CURVE_RATE = 0.1  # Adam's, in units of the root mean square of the two solutions
PLACES = 26  # along the line and along the curve, their ends among them
LOUDEST = 1.0  # amount of noise, in units of the solution's own root mean square
WAYS = ("straight line", "Bezier curve")


class Scores(NamedTuple):
    """What points decode to: for each the share of right tokens, and the least margin in logits."""

    accuracy: list[float]
    margin: list[float]


class Found(NamedTuple):
    """What the tab knows of a visitor's texts.

    Attributes:
        model: its name.
        solutions: `SEEDS` of the first text, then as many of the second.
        names: of each, A1 ... and B1 ...
        control: of the Bezier curve from A1 to A2.
        ways: scores along the line and along the curve.
        noise: scores of A1 with more and more of one noise.
    """

    model: str
    solutions: list[Solution]
    names: list[str]
    control: Tensor
    ways: dict[str, Scores]
    noise: Scores


def find(lm: FrozenLM, model: str, first: str, second: str) -> Found:
    """Solutions of both texts from several starts, in one batch, and what lies between two of them.

    Raises:
        TextError: a text is empty or too long, or was not solved.
    """
    targets = []
    for name, text in (("A", first), ("B", second)):
        ids = read_source(lm, text).ids
        if len(ids) > MAX_TOKENS:
            raise TextError(
                f"text {name} has {len(ids)} tokens, and two vectors are asked to hold"
                f" {MAX_TOKENS} here: shorten it"
            )
        targets += [ids] * SEEDS
    solutions = fit(lm, targets, seed=[*range(SEEDS), *range(SEEDS)])
    names = [f"{letter}{number + 1}" for letter in "AB" for number in range(SEEDS)]
    if not (solutions[0].exact and solutions[1].exact):
        raise TextError(
            "two exact solutions of text A were not found within the recipe's steps: try a shorter"
            " one"
        )
    one, two = solutions[0].protos, solutions[1].protos
    scorer = Between(lm, solutions[0].ids, solutions[0], Recipe())
    rate = CURVE_RATE * float(torch.stack([one, two]).square().mean().sqrt())
    control = geometry.fit_control(
        one[None].to(lm.device),
        two[None].to(lm.device),
        scorer.gradient,
        steps=CURVE_STEPS,
        lr=rate,
        draws=CURVE_DRAWS,
    )[0].cpu()
    found = Found(model, solutions, names, control, {}, Scores([], []))
    ways = {way: _scores(lm, scorer, [on_way(found, way, t) for t in places()]) for way in WAYS}
    noise = _scores(lm, scorer, [noisy(found, LOUDEST * t) for t in places()])
    return found._replace(ways=ways, noise=noise)


def places() -> list[float]:
    """Where points lie between two ends: from 0 to 1."""
    return [float(t) for t in np.linspace(0, 1, PLACES)]


def on_way(found: Found, way: str, position: float) -> Tensor:
    """The vectors at a place between A1 and A2."""
    one, two = (solution.protos for solution in found.solutions[:2])
    if way == WAYS[0]:
        return geometry.line(one, two, position)
    return geometry.bezier(one[None], found.control[None], two[None], position)[0]


def noisy(found: Found, amount: float) -> Tensor:
    """A1 with so much noise on it; the noise is the same, whatever its amount."""
    protos = found.solutions[0].protos
    chance = torch.Generator().manual_seed(0)
    noise = torch.randn(protos.shape, generator=chance) * protos.square().mean().sqrt()
    return protos + amount * noise


def _scores(lm: FrozenLM, scorer: Between, points: list[Tensor]) -> Scores:
    margins = scorer.margins(torch.stack(points).to(lm.device))
    return Scores((margins > 0).double().mean(1).tolist(), margins.min(1).values.tolist())


def along(found: Found, mark: float | None = None) -> str:
    """Accuracy and least margin along the line and along the curve, as in figure 7 of the paper.

    Args:
        mark: the place that is looked at.
    """
    x = charts.Axis("place on the way from A1 (0) to A2 (1)", 0, 1)
    accuracy = [charts.Line(way, places(), found.ways[way].accuracy) for way in WAYS]
    margin = [charts.Line(way, places(), found.ways[way].margin) for way in WAYS]
    share = charts.Axis("share of the tokens of text A", 0, 1, percent=True)
    return show.cards(
        charts.lines("Tokens right between two solutions", x, share, accuracy, mark),
        charts.lines("Least margin", x, charts.Axis("logits"), margin, mark),
        grow=True,
    )


def under_noise(found: Found, mark: float | None = None) -> str:
    """Accuracy of A1 under more and more noise."""
    x = charts.Axis("noise, times the root mean square of A1", 0, LOUDEST)
    amounts = [LOUDEST * t for t in places()]
    share = charts.Axis("share of the tokens of text A", 0, 1, percent=True)
    line = charts.Line("tokens right", amounts, found.noise.accuracy)
    return show.cards(charts.lines("Tokens right under noise", x, share, [line], mark), grow=True)


def overview(found: Found) -> str:
    """How far the solutions are apart: distances of the e's and of the m's, and a map."""
    steps = ", ".join(
        f"{name} {solution.steps}"
        for name, solution in zip(found.names, found.solutions, strict=True)
    )
    exact = sum(solution.exact for solution in found.solutions)
    one, two, control = (
        found.solutions[0].protos[None],
        found.solutions[1].protos[None],
        found.control[None],
    )
    ratio = float(geometry.length_ratio(one, control, two)[0])
    words = (
        f"{exact} of {len(found.names)} exact; steps: {steps}; the curve from A1 to A2 is"
        f" {ratio:.2f} times as long as the line."
    )
    whole = torch.stack([solution.protos.flatten() for solution in found.solutions])
    points = flattened(torch.cdist(whole, whole))
    axes = ("first axis, units of the vectors", "second axis")
    plane = charts.plane(points, found.names, axes, "the solutions on a plane")
    return show.note(words) + show.cards(
        *(_distances(found, number, name) for number, name in enumerate(("e", "m"))),
        show.head("The solutions on a plane, as far apart as they are") + plane,
    )


def _distances(found: Found, number: int, name: str) -> str:
    """A heat map of the cosine distances of one vector of all solutions."""
    distances = geometry.cosine_distances(
        torch.stack([solution.protos[number] for solution in found.solutions])
    )
    most = max(1.0, float(distances.max()))
    rows = [
        (
            one,
            [
                charts.Cell(
                    f"{value:.2f}", f"{name} of {one} and of {other}: {value:.3f}", value / most
                )
                for other, value in zip(found.names, line, strict=True)
            ],
        )
        for one, line in zip(found.names, distances.tolist(), strict=True)
    ]
    title = f"Cosine distances of the {name}'s"
    map_of_them = charts.heat("solution", found.names, rows, title)
    return show.head(title) + map_of_them + show.note("0: the same direction; 1: at right angles")


def flattened(distances: Tensor) -> Tensor:
    """Points on a plane whose distances come near the given ones.

    Classical scaling (Torgerson 1952).
    """
    squared = distances.double().square()
    centred = -0.5 * (squared - squared.mean(0) - squared.mean(1, keepdim=True) + squared.mean())
    values, vectors = torch.linalg.eigh(centred)
    return vectors[:, -2:].flip(1) * values[-2:].flip(0).clamp_min(0).sqrt()
