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
from prototokens.explorer.work import LINE, Desk, show_errors_in, tokens_of
from prototokens.fitting import fit
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import geometry
from prototokens.ptok.source import read_source
from prototokens.recipe import Recipe
from prototokens.solution import Chunk, Solution

SEEDS = 3  # solutions of each text
MAX_TOKENS = 48  # of a text here: two vectors have to hold it
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
    SpaceTab(desk).connect()


class SpaceTab:
    """The elements of the tab, and what its button, sliders and lists do."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        models = desk.settings.models
        with gr.Row():
            self.first = gr.Textbox(FIRST, label="Text A", lines=2, elem_id="space-first")
            self.second = gr.Textbox(SECOND, label="Text B", lines=2, elem_id="space-second")
        with gr.Row():
            self.model = gr.Dropdown(list(models), value=models[0], label="Model")
            self.go = gr.Button(
                f"Find {SEEDS} solutions of each", variant="primary", elem_id="space-go"
            )
        self.message = gr.HTML(elem_id="space-message")
        self.found = gr.State(None)
        self.overview = gr.HTML(elem_id="space-overview", min_height=30)
        with gr.Column(visible=False) as self.tools:
            self._tools()

    def _tools(self) -> None:
        """What can be tried on solutions that were found."""
        with gr.Row():
            self.path = gr.Radio(
                ["straight line", "Bezier curve"],
                value="straight line",
                label="Way from A1 to A2",
                elem_id="space-way",
            )
            self.position = gr.Slider(
                0, 1, 0, step=0.02, label="Place on the way", elem_id="space-place"
            )
        self.between = gr.HTML(elem_id="space-between")
        self.noise = gr.Slider(
            0, 1, 0, step=0.02, label="Noise on A1, in units of its own size", elem_id="space-noise"
        )
        self.noisy = gr.HTML(elem_id="space-noisy")
        names = [f"{letter}{number}" for letter in "AB" for number in range(1, SEEDS + 1)]
        with gr.Row():
            self.e_of = gr.Dropdown(names, value="A1", label="e of", elem_id="space-e")
            self.m_of = gr.Dropdown(names, value="B1", label="m of", elem_id="space-m")
        self.mixed = gr.HTML(elem_id="space-mixed")

    def connect(self) -> None:
        """Let the elements call the handlers."""
        line: dict[str, Any] = {
            "concurrency_limit": 1,
            "concurrency_id": LINE,
            "api_visibility": "private",
        }
        moving = {**line, "trigger_mode": "always_last", "show_progress": "minimal"}
        show_errors = show_errors_in(self.message)
        self.go.click(
            show_errors(self.run),
            [self.first, self.second, self.model],
            [
                self.message,
                self.found,
                self.overview,
                self.tools,
                self.position,
                self.noise,
                self.between,
                self.noisy,
                self.mixed,
            ],
            show_progress_on=self.overview,
            **line,
        )
        gr.on(
            [self.position.input, self.path.input],
            show_errors(self.walk),
            [self.found, self.path, self.position],
            [self.message, self.between],
            show_progress_on=self.between,
            **moving,
        )
        self.noise.input(
            show_errors(self.shake),
            [self.found, self.noise],
            [self.message, self.noisy],
            show_progress_on=self.noisy,
            **moving,
        )
        gr.on(
            [self.e_of.input, self.m_of.input],
            show_errors(self.swap),
            [self.found, self.e_of, self.m_of],
            [self.message, self.mixed],
            show_progress_on=self.mixed,
            **moving,
        )

    def run(self, first: str, second: str, model: str) -> dict[Any, Any]:
        """Find solutions of both texts."""
        self.desk.check_text(first + second)
        known = _find(self.desk.model(model), model, first, second)
        return {
            self.found: known,
            self.overview: _overview(known),
            self.tools: gr.Column(visible=True),
            self.position: 0,
            self.noise: 0,
            self.between: _walked(self.desk, known, "straight line", 0),
            self.noisy: _shaken(self.desk, known, 0),
            self.mixed: _swapped(self.desk, known, "A1", "B1"),
        }

    def walk(self, known: Found | None, path: str, position: float) -> dict[Any, Any]:
        """Decode a point between A1 and A2."""
        return {self.between: _walked(self.desk, _there(known), path, position)}

    def shake(self, known: Found | None, amount: float) -> dict[Any, Any]:
        """Decode A1 with noise on it."""
        return {self.noisy: _shaken(self.desk, _there(known), amount)}

    def swap(self, known: Found | None, e_of: str, m_of: str) -> dict[Any, Any]:
        """Decode the e of one solution with the m of another."""
        return {self.mixed: _swapped(self.desk, _there(known), e_of, m_of)}


def _walked(desk: Desk, known: Found, path: str, position: float) -> str:
    """What the point at `position` of the path from A1 to A2 decodes to."""
    one, two = (solution.protos for solution in known.solutions[:2])
    if path == "straight line":
        protos = geometry.line(one, two, position)
    else:
        protos = geometry.bezier(one[None], known.control[None], two[None], position)[0]
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


def _swapped(desk: Desk, known: Found, e_of: str, m_of: str) -> str:
    """What e of one solution with m of another decodes to."""
    e, m = (known.solutions[known.names.index(name)] for name in (e_of, m_of))
    protos = torch.cat([e.protos[:1], m.protos[1:]])
    return _against(desk.model(known.model), protos, e) + show.note(
        f"coloured by the text of {e_of}"
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
    rate = CURVE_RATE * float(torch.stack([one, two]).square().mean().sqrt())
    control = geometry.fit_control(
        one[None], two[None], _gradient(lm, solutions[0]), steps=CURVE_STEPS, lr=rate
    )[0]
    return Found(model, solutions, names, control)


def _gradient(lm: FrozenLM, solution: Solution) -> Callable[[Tensor], Tensor]:
    """Points in the space of vectors -> the gradient of the loss of the solution's text at each."""
    plan = OneStep(solution.layout).plan(solution.ids)
    target = torch.tensor(solution.ids, device=lm.device)
    temperature = Recipe().temperature

    def gradient_at(points: Tensor) -> Tensor:
        leaves = points.to(lm.device).requires_grad_()
        with torch.enable_grad():
            arranged = arrange(lm, [plan] * len(points), len(solution.protos))
            hidden = scored_hidden(lm, arranged, leaves, lm.hidden)
            scores = score(lm, hidden.detach(), target.repeat(len(points)), temperature)
            (gradient,) = torch.autograd.grad(hidden, leaves, scores.gradient)
        return gradient.to(points.device, points.dtype)

    return gradient_at


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
    words = f"{exact} of {len(known.names)} exact; steps: {steps}; the curve from A1 to A2 is"
    words += f" {ratio:.2f} times as long as the line"
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
