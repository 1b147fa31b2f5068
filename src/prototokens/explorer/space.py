"""The tab Space: solutions of one text and of another.

How far apart, what lies between, what noise and exchange do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from prototokens.errors import UsageError
from prototokens.explorer import show
from prototokens.explorer.encode import has_example
from prototokens.explorer.solutions import (
    LOUDEST,
    SEEDS,
    WAYS,
    Found,
    along,
    find,
    noisy,
    on_way,
    overview,
    under_noise,
)
from prototokens.explorer.tokens import tokens_of
from prototokens.explorer.work import LINE, Desk, show_errors_in
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Chunk, Solution

FIRST = "The lamp had been burning since dusk."
SECOND = "No ship had come in for eleven days."
SHOWS = "One text has many solutions, and they lie far apart: three of each of two texts."
MATTERS = (
    "The straight line between two of them leaves the solutions, a curve stays among them: vectors"
    " of one text cannot be averaged, yet they are no islands."
)


def tab(desk: Desk) -> SpaceTab:
    """Build it."""
    made = SpaceTab(desk)
    made.connect()
    return made


class SpaceTab:
    """The elements of the tab, and what its button, sliders and lists do."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        models = desk.settings.models
        gr.HTML(show.lead(SHOWS, MATTERS))
        with gr.Row():
            self.first = gr.Textbox(FIRST, label="Text A", lines=1, elem_id="space-first")
            self.second = gr.Textbox(SECOND, label="Text B", lines=1, elem_id="space-second")
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
        self.outputs = [
            self.message,
            self.found,
            self.overview,
            self.tools,
            self.position,
            self.noise,
            self.ways,
            self.between,
            self.noises,
            self.noisy,
            self.mixed,
        ]

    def _tools(self) -> None:
        """What can be tried on solutions that were found."""
        self.ways = gr.HTML(elem_id="space-ways")
        with gr.Row():
            self.path = gr.Radio(
                list(WAYS), value=WAYS[0], label="Way from A1 to A2", elem_id="space-way"
            )
            self.position = gr.Slider(
                0, 1, 0, step=0.02, label="Place on the way", elem_id="space-place"
            )
        self.between = gr.HTML(elem_id="space-between")
        self.noises = gr.HTML(elem_id="space-noises")
        self.noise = gr.Slider(
            0,
            LOUDEST,
            0,
            step=0.02,
            label="Noise on A1, times its root mean square",
            elem_id="space-noise",
        )
        self.noisy = gr.HTML(elem_id="space-noisy")
        names = [f"{letter}{number}" for letter in "AB" for number in range(1, SEEDS + 1)]
        gr.HTML(show.head("e of one solution with m of another"))
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
            self.outputs,
            show_progress_on=self.overview,
            **line,
        )
        gr.on(
            [self.position.input, self.path.input],
            show_errors(self.walk),
            [self.found, self.path, self.position],
            [self.message, self.ways, self.between],
            show_progress_on=self.between,
            **moving,
        )
        self.noise.input(
            show_errors(self.shake),
            [self.found, self.noise],
            [self.message, self.noises, self.noisy],
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

    def open(
        self, found: Found | None, first: str, second: str, model: str
    ) -> Iterator[dict[Any, Any]]:
        """What the tab shows when it is chosen for the first time: the texts that it opens with."""
        if found is not None or (not has_example(self.desk) and (first, second) == (FIRST, SECOND)):
            yield {}
            return
        yield {
            self.overview: show.note(f"{SEEDS} solutions of each text are fitted, and the curve")
        }
        if (first, second, model) == (FIRST, SECOND, self.desk.settings.models[0]):
            lm = self.desk.model(model)
            yield self._shown(self.desk.once("space", lambda: find(lm, model, first, second)))
            return
        yield self.run(first, second, model)

    def run(self, first: str, second: str, model: str) -> dict[Any, Any]:
        """Find solutions of both texts."""
        self.desk.check_text(first + second)
        return self._shown(find(self.desk.model(model), model, first, second))

    def _shown(self, known: Found) -> dict[Any, Any]:
        lm = self.desk.model(known.model)
        return {
            self.found: known,
            self.overview: overview(known),
            self.tools: gr.Column(visible=True),
            self.position: 0.5,
            self.noise: 0,
            self.ways: along(known, 0.5),
            self.between: _against(lm, on_way(known, WAYS[0], 0.5), known.solutions[0]),
            self.noises: under_noise(known, 0),
            self.noisy: _against(lm, noisy(known, 0), known.solutions[0]),
            self.mixed: _swapped(lm, known, "A1", "B1"),
        }

    def walk(self, known: Found | None, path: str, position: float) -> dict[Any, Any]:
        """Decode a point between A1 and A2."""
        known = _there(known)
        lm = self.desk.model(known.model)
        shown = _against(lm, on_way(known, path, position), known.solutions[0])
        return {self.ways: along(known, position), self.between: shown}

    def shake(self, known: Found | None, amount: float) -> dict[Any, Any]:
        """Decode A1 with noise on it."""
        known = _there(known)
        lm = self.desk.model(known.model)
        shown = _against(lm, noisy(known, amount), known.solutions[0])
        return {self.noises: under_noise(known, amount), self.noisy: shown}

    def swap(self, known: Found | None, e_of: str, m_of: str) -> dict[Any, Any]:
        """Decode the e of one solution with the m of another."""
        known = _there(known)
        return {self.mixed: _swapped(self.desk.model(known.model), known, e_of, m_of)}


def _swapped(lm: FrozenLM, known: Found, e_of: str, m_of: str) -> str:
    """What e of one solution with m of another decodes to."""
    e, m = (known.solutions[known.names.index(name)] for name in (e_of, m_of))
    protos = torch.cat([e.protos[:1], m.protos[1:]])
    return _against(lm, protos, e) + show.note(f"coloured by the text of {e_of}")


def _there(known: Found | None) -> Found:
    if known is None:
        raise UsageError("there are no solutions yet: find some first")
    return known


def _against(lm: FrozenLM, protos: Tensor, solution: Solution) -> str:
    """What vectors decode to, beside the text of a solution."""
    tokens = tokens_of(lm, Chunk(protos, solution.layout, solution.length), solution.ids)
    right = sum(token.count for token in tokens if token.right)
    return show.note(f"{right} of {solution.length} tokens right") + show.text(tokens)
