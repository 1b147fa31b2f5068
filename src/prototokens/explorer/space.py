"""The tab Space: solutions of one text and of another.

How far apart, what lies between, what noise and exchange do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr
import torch
from torch import Tensor

from prototokens.engine.forward import scored_hidden
from prototokens.engine.head import score
from prototokens.engine.inputs import OneStep, arrange
from prototokens.errors import TextError, UsageError
from prototokens.explorer import pictures, show
from prototokens.explorer.work import LINE, Desk, tokens_of, told
from prototokens.fitting import fit
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import geometry
from prototokens.ptok.encoded import Chunk
from prototokens.ptok.source import read_source
from prototokens.recipe import Recipe
from prototokens.solution import Solution

SEEDS = 3  # solutions of each text
MOST_TOKENS = 48  # of a text here: two vectors have to hold it
CURVE_STEPS = 300
CURVE_RATE = 0.1  # Adam's, in units of the root mean square of the two solutions
FIRST = "The lamp had been burning since dusk."
SECOND = "No ship had come in for eleven days."


class Found(NamedTuple):
    """What the tab knows of a visitor's texts.

    Attributes:
        model: its name.
        solutions: `SEEDS` of the first text, then as many of the second.
        names: of each, A1 ... and B1 ...
        control: of the Bezier curve from A1 to A2.
    """

    model: str
    solutions: list[Solution]
    names: list[str]
    control: Tensor


def tab(desk: Desk) -> None:
    """Build it."""
    settings = desk.settings
    with gr.Row():
        first = gr.Textbox(FIRST, label="Text A", lines=2, elem_id="space-first")
        second = gr.Textbox(SECOND, label="Text B", lines=2, elem_id="space-second")
    with gr.Row():
        model = gr.Dropdown(list(settings.models), value=settings.models[0], label="Model")
        go = gr.Button(f"Find {SEEDS} solutions of each", variant="primary", elem_id="space-go")
    said = gr.HTML(elem_id="space-said")
    found = gr.State(None)
    overview = gr.HTML(elem_id="space-overview", min_height=30)
    with gr.Column(visible=False) as tools:
        with gr.Row():
            way = gr.Radio(
                ["straight line", "Bezier curve"],
                value="straight line",
                label="Way from A1 to A2",
                elem_id="space-way",
            )
            place = gr.Slider(0, 1, 0, step=0.02, label="Place on the way", elem_id="space-place")
        between = gr.HTML(elem_id="space-between")
        noise = gr.Slider(
            0, 1, 0, step=0.02, label="Noise on A1, in units of its own size", elem_id="space-noise"
        )
        noisy = gr.HTML(elem_id="space-noisy")
        names = [f"{letter}{number}" for letter in "AB" for number in range(1, SEEDS + 1)]
        with gr.Row():
            its_e = gr.Dropdown(names, value="A1", label="e of", elem_id="space-e")
            its_m = gr.Dropdown(names, value="B1", label="m of", elem_id="space-m")
        mixed = gr.HTML(elem_id="space-mixed")

    @told(said)
    def run(first: str, second: str, model: str) -> dict[Any, Any]:
        desk.check_text(first + second)
        lm = desk.model(model)
        known = _find(lm, model, first, second)
        return {
            found: known,
            overview: _overview(known),
            tools: gr.Column(visible=True),
            place: 0,
            noise: 0,
            between: _walked(desk, known, "straight line", 0),
            noisy: _shaken(desk, known, 0),
            mixed: _swapped(desk, known, "A1", "B1"),
        }

    @told(said)
    def walk(known: Found | None, way: str, place: float) -> dict[Any, Any]:
        return {between: _walked(desk, _there(known), way, place)}

    @told(said)
    def shake(known: Found | None, amount: float) -> dict[Any, Any]:
        return {noisy: _shaken(desk, _there(known), amount)}

    @told(said)
    def swap(known: Found | None, its_e: str, its_m: str) -> dict[Any, Any]:
        return {mixed: _swapped(desk, _there(known), its_e, its_m)}

    line: dict[str, Any] = {
        "concurrency_limit": 1,
        "concurrency_id": LINE,
        "api_visibility": "private",
    }
    moving = {**line, "trigger_mode": "always_last", "show_progress": "minimal"}
    outputs = [said, found, overview, tools, place, noise, between, noisy, mixed]
    go.click(run, [first, second, model], outputs, show_progress_on=overview, **line)
    gr.on(
        [place.input, way.input],
        walk,
        [found, way, place],
        [said, between],
        show_progress_on=between,
        **moving,
    )
    noise.input(shake, [found, noise], [said, noisy], show_progress_on=noisy, **moving)
    gr.on(
        [its_e.input, its_m.input],
        swap,
        [found, its_e, its_m],
        [said, mixed],
        show_progress_on=mixed,
        **moving,
    )


def _walked(desk: Desk, known: Found, way: str, place: float) -> str:
    """What the point at `place` of the way from A1 to A2 decodes to."""
    one, two = (solution.protos for solution in known.solutions[:2])
    if way == "straight line":
        protos = geometry.line(one, two, place)
    else:
        protos = geometry.bezier(one[None], known.control[None], two[None], place)[0]
    return _against(desk.model(known.model), protos, known.solutions[0])


def _shaken(desk: Desk, known: Found, amount: float) -> str:
    """What A1 with so much noise on it decodes to; the noise is the same, whatever its amount."""
    solution = known.solutions[0]
    chance = torch.Generator().manual_seed(0)
    noise = (
        torch.randn(solution.protos.shape, generator=chance)
        * solution.protos.square().mean().sqrt()
    )
    return _against(desk.model(known.model), solution.protos + amount * noise, solution)


def _swapped(desk: Desk, known: Found, its_e: str, its_m: str) -> str:
    """What e of one solution with m of another decodes to."""
    e, m = (known.solutions[known.names.index(name)] for name in (its_e, its_m))
    protos = torch.cat([e.protos[:1], m.protos[1:]])
    return _against(desk.model(known.model), protos, e) + show.note(
        f"coloured by the text of {its_e}"
    )


def _there(known: Found | None) -> Found:
    if known is None:
        raise UsageError("there are no solutions yet: find some first")
    return known


def _find(lm: FrozenLM, model: str, first: str, second: str) -> Found:
    """Solutions of both texts from several starts, in one batch, and the curve between two of them.

    Raises:
        TextError: a text is empty or too long, or was not solved.
    """
    targets = []
    for name, text in (("A", first), ("B", second)):
        ids = read_source(lm, text).ids
        if len(ids) > MOST_TOKENS:
            raise TextError(
                f"text {name} has {len(ids)} tokens, and two vectors are asked to hold"
                f" {MOST_TOKENS} here: shorten it"
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
    rate = CURVE_RATE * float(torch.stack([one, two]).square().mean().sqrt())
    control = geometry.fit_control(
        one[None], two[None], _slope(lm, solutions[0]), steps=CURVE_STEPS, lr=rate
    )[0]
    return Found(model, solutions, names, control)


def _slope(lm: FrozenLM, solution: Solution) -> Callable[[Tensor], Tensor]:
    """Points in the space of vectors -> the slope of the loss of the solution's text at each."""
    plan = OneStep(solution.layout).plan(solution.ids)
    target = torch.tensor(solution.ids, device=lm.device)
    temperature = Recipe().temperature

    def slope(points: Tensor) -> Tensor:
        leaves = points.to(lm.device).requires_grad_()
        with torch.enable_grad():
            arranged = arrange(lm, [plan] * len(points), len(solution.protos))
            hidden = scored_hidden(lm, arranged, leaves, lm.hidden)
            scores = score(lm, hidden.detach(), target.repeat(len(points)), temperature)
            (gradient,) = torch.autograd.grad(hidden, leaves, scores.gradient)
        return gradient.to(points.device, points.dtype)

    return slope


def _against(lm: FrozenLM, protos: Tensor, solution: Solution) -> str:
    """What vectors decode to, beside the text of a solution."""
    tokens = tokens_of(lm, Chunk(protos, solution.layout, solution.length), solution.ids)
    right = sum(bool(token.right) for token in tokens)
    return show.note(f"{right} of {len(tokens)} tokens right") + show.text(tokens)


def _overview(known: Found) -> str:
    """Distances of the e's and of the m's, and a map."""
    parts = []
    for number, name in enumerate(("e", "m")):
        distances = geometry.cosine_distances(
            torch.stack([solution.protos[number] for solution in known.solutions])
        )
        rows = [
            [known.names[row], *(f"{value:.2f}" for value in distances[row].tolist())]
            for row in range(len(distances))
        ]
        parts.append(
            show.note(f"cosine distances of the {name}'s") + show.table(["", *known.names], rows)
        )
    whole = torch.stack([solution.protos.flatten() for solution in known.solutions])
    figure = pictures.plane(_flattened(torch.cdist(whole, whole)), known.names)
    steps = ", ".join(
        f"{name} {solution.steps}"
        for name, solution in zip(known.names, known.solutions, strict=True)
    )
    one, two, control = (
        known.solutions[0].protos[None],
        known.solutions[1].protos[None],
        known.control[None],
    )
    ratio = float(geometry.length_ratio(one, control, two)[0])
    exact = sum(solution.exact for solution in known.solutions)
    words = f"{exact} of {len(known.names)} exact; steps: {steps}; the curve from A1 to A2 is {ratio:.2f} times as long as the line"
    return (
        show.note(words)
        + "".join(parts)
        + show.picture(figure, "the solutions on a plane", small=True)
    )


def _flattened(distances: Tensor) -> Tensor:
    """Points on a plane whose distances come near the given ones.

    Classical scaling (Torgerson 1952).
    """
    squared = distances.double().square()
    centred = -0.5 * (squared - squared.mean(0) - squared.mean(1, keepdim=True) + squared.mean())
    values, vectors = torch.linalg.eigh(centred)
    return vectors[:, -2:].flip(1) * values[-2:].flip(0).clamp_min(0).sqrt()
