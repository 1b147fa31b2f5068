"""The tab Encode: a text goes into vectors, and fills in on the page while it does."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from threading import Event
from typing import Any, NamedTuple

import gradio as gr

from prototokens.decoding import decode_text
from prototokens.encoding import PlannedEncoding, plan_encoding
from prototokens.errors import UsageError
from prototokens.explorer import address, racing, show, vectors
from prototokens.explorer.live import Curves, LiveFit
from prototokens.explorer.racing import Stopped
from prototokens.explorer.tokens import all_tokens
from prototokens.explorer.work import (
    LINE,
    Desk,
    Settings,
    ShelvedText,
    put_on_shelf,
    show_errors_in,
)
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.options import EncodeOptions
from prototokens.ptok.encoded import EncodedText
from prototokens.samples import short

LAYOUTS = ["keyed:1", "keyed:2", "keyed:5", "paper", "free", "mixed:4", "tiled:4", "tiled:8"]
MAX_STEPS = 2000  # of a fit, unless a visitor asks for more
# The time of the click goes with it: a request may wait in the line, and a Stop overtakes it.
PRESSED = "(...given) => [...given.slice(0, -1), performance.now()]"
SHOWS = (
    "A text goes into two trained vectors, and the frozen model gives all of it back in one"
    " forward pass."
)
MATTERS = (
    "Watch it fill in from random vectors: no weight of the model changes, so whatever comes out"
    " was in the model and in these few numbers."
)


class Request(NamedTuple):
    """What a visitor has set when they press Encode; in the order of `EncodeTab.inputs`."""

    text: str
    model: str
    layout: str
    start: str
    recipe: str
    seed: float
    steps: float
    paced: bool
    shelf: list[ShelvedText]
    pressed: float


class Asked(NamedTuple):
    """What an address asks for.

    Attributes:
        text: whether it names a text, or how to encode it, so that it is encoded at once.
        tab: that is opened once the text is encoded; empty: none is.
    """

    text: bool = False
    tab: str = ""


class Example(NamedTuple):
    """The encoded text that the tabs open with, computed once.

    Attributes:
        encoded: its vectors; `ids`: of the text; `curves`: of the fit.
    """

    encoded: EncodedText
    ids: list[int]
    curves: Curves


def tab(desk: Desk, shelf: gr.State) -> EncodeTab:
    """Build it."""
    made = EncodeTab(desk, shelf)
    made.connect()
    return made


class EncodeTab:
    """The elements of the tab, and what its two buttons do."""

    def __init__(self, desk: Desk, shelf: gr.State) -> None:
        self.desk, self.shelf = desk, shelf
        gr.HTML(show.lead(SHOWS, MATTERS))
        self.fields = self._fields(desk.settings)
        with gr.Row():
            self.go = gr.Button("Encode", variant="primary", elem_id="encode-go", scale=3)
            self.halted = gr.Button("Stop", elem_id="encode-stop", scale=1)
        self.message = gr.HTML(elem_id="encode-message")
        self.live = gr.HTML(elem_id="encode-live", min_height=40)
        self.race = gr.HTML(elem_id="encode-race")
        self.vectors = gr.HTML(elem_id="encode-vectors")
        self.download = gr.DownloadButton(
            "Download the .ptok", visible=False, elem_id="encode-download"
        )
        self.pressed = gr.Number(visible=False)
        self.inputs = [*self.fields.values(), shelf, self.pressed]
        self.outputs = [
            self.message,
            self.live,
            self.race,
            self.vectors,
            self.download,
            self.shelf,
        ]

    def _fields(self, settings: Settings) -> dict[str, Any]:
        """The fields of a request that a visitor sees, by name and in its order."""
        with gr.Row():
            with gr.Column(scale=3):
                text = gr.Textbox(
                    short(),
                    label="Text",
                    lines=3,
                    max_lines=14,
                    elem_id="encode-text",
                    info=f"up to {settings.max_characters:,} characters",
                )
            with gr.Column(scale=2):
                start = gr.Radio(
                    [
                        ("random vectors, then a fit", "random"),
                        ("an encoder's, no fit needed", "encoder"),
                    ],
                    value="random",
                    label="Start from",
                    elem_id="encode-start",
                )
                paced = gr.Checkbox(
                    True, label="slow enough to watch", elem_id="encode-paced", container=False
                )
        with gr.Row():
            layout = gr.Dropdown(
                [("auto", "auto"), *((_named(name), name) for name in LAYOUTS)],
                value=address.LAYOUT,
                label="Vectors",
                min_width=150,
                elem_id="encode-layout",
                allow_custom_value=True,
            )
            model = gr.Dropdown(
                list(settings.models),
                value=settings.models[0],
                label="Model",
                min_width=150,
                elem_id="encode-model",
            )
            recipe = gr.Dropdown(list(address.RECIPES), value="fast", label="Recipe", min_width=110)
            seed = gr.Number(0, label="Seed", precision=0, min_width=80, elem_id="encode-seed")
            steps = gr.Slider(
                *address.STEPS, MAX_STEPS, step=100, label="Most steps", min_width=170
            )
        return {
            "text": text,
            "model": model,
            "layout": layout,
            "start": start,
            "recipe": recipe,
            "seed": seed,
            "steps": steps,
            "paced": paced,
        }

    def connect(self) -> None:
        """Let the buttons call the handlers."""
        line: dict[str, Any] = {
            "show_progress_on": self.live,
            "js": PRESSED,
            "concurrency_limit": 1,
            "concurrency_id": LINE,
            "api_visibility": "private",
        }
        emptied = (self.live, self.race, self.vectors)
        self.go.click(
            show_errors_in(self.message, *emptied)(self.run), self.inputs, self.outputs, **line
        )
        self.halted.click(
            self.halt,
            self.pressed,
            self.message,
            js=PRESSED,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        # An encoder brings its own layout.
        self.fields["start"].input(
            lambda start: "auto" if start == "encoder" else address.LAYOUT,
            self.fields["start"],
            self.fields["layout"],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )

    def run(self, request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        """Encode the text, and show it while it is fitted; then race it.

        Args:
            request: which visitor it is.
            values: the fields of a `Request`.
        """
        given, visitor = Request(*values), str(request.session_hash)
        stopping = self.desk.begin(visitor, given.pressed)
        made = yield from self._fit(given, visitor, stopping)
        if made is not None:
            yield {self.race: _raced(self.desk.model(given.model), made.encoded, stopping)}

    def _fit(
        self, given: Request, visitor: str, stopping: Event
    ) -> Generator[dict[Any, Any], None, Example | None]:
        """Encode the text, and show it while it is fitted; None where it was stopped."""
        # What was offered before is not of this text, be it refused or not.
        yield {
            self.live: show.note("loading the model, reading the text"),
            self.race: "",
            self.vectors: "",
            self.download: gr.DownloadButton(visible=False),
        }
        self.desk.check_text(given.text)
        lm = None if stopping.is_set() else self.desk.model(given.model)
        if lm is None or stopping.is_set():
            yield {self.live: show.judged("stopped before it began", False)}
            return None
        planned = _planned(lm, given)
        fit = LiveFit(planned, stopping, given.paced)
        frame = ""
        for frame in fit.watch():
            yield {self.live: show.note(planned.plan.describe()) + frame}
        if isinstance(fit.outcome, Stopped):
            yield {self.live: show.judged("stopped: this is how far it got", False) + frame}
            return None
        if isinstance(fit.outcome, Exception):
            raise fit.outcome
        assert fit.outcome is not None
        made = Example(fit.outcome, planned.source.ids, fit.curves)
        shelf = put_on_shelf(given.shelf, lm, fit.outcome, given.text)
        yield {**self._shown(lm, made, visitor), self.shelf: shelf}
        return made

    def open(self, request: gr.Request, asked: Asked, *values: Any) -> Iterator[dict[Any, Any]]:
        """What the tab opens with: the text of the address, or the example."""
        given, visitor = Request(*values), str(request.session_hash)
        if asked.text:
            stopping = self.desk.begin(visitor, given.pressed)
            made = yield from self._fit(given, visitor, stopping)
            if made is not None and not asked.tab:
                yield {self.race: _raced(self.desk.model(given.model), made.encoded, stopping)}
            return
        if not has_example(self.desk):
            yield {self.live: show.note("Press Encode: this model is loaded when it is needed.")}
            return
        yield {self.live: show.note("the example is computed: the model is loaded, then fitted")}
        lm, made = self.desk.model(given.model), example(self.desk)
        yield {**self._shown(lm, made, visitor), self.shelf: with_example(self.desk, given.shelf)}
        yield {self.race: self.desk.once("race", lambda: _raced(lm, made.encoded, Event()))}

    def _shown(self, lm: FrozenLM, made: Example, visitor: str) -> dict[Any, Any]:
        """An encoded text, saved for the visitor."""
        path = self.desk.file_of(visitor)
        size = made.encoded.save(path)
        return {
            self.live: _outcome(lm, made, size),
            self.race: show.head(RACE) + show.note("fitting vectors for the slower lane ..."),
            self.vectors: _described(lm, made.encoded),
            self.download: gr.DownloadButton(value=str(path), visible=True),
        }

    def halt(self, pressed: float, request: gr.Request) -> str:
        """Stop what the visitor fits, or keep it from beginning."""
        self.desk.stop(str(request.session_hash), pressed)
        return show.note(
            "Stop is noted: what runs ends at its next step, and what waits will not begin."
        )


RACE = "The race: one pass against token by token"


def has_example(desk: Desk) -> bool:
    """Whether tabs open with an example: only the built-in model fits one in a moment."""
    return desk.settings.models[0] == "builtin"


def example(desk: Desk) -> Example:
    """The example of the tab Encode: fitted once, then kept."""

    def fitted() -> Example:
        lm = desk.model(desk.settings.models[0])
        options = EncodeOptions(layout=address.LAYOUT, start="random")
        planned, curves = plan_encoding(lm, short(), options), Curves()
        return Example(planned.run(progress=curves.add), planned.source.ids, curves)

    return desk.once("example", fitted)


def with_example(desk: Desk, shelf: list[ShelvedText]) -> list[ShelvedText]:
    """A shelf that holds the example, where it was empty and there is one."""
    if shelf or not has_example(desk):
        return shelf
    return put_on_shelf(shelf, desk.model("builtin"), example(desk).encoded, short())


def _named(layout: str) -> str:
    """A layout as the list calls it."""
    kind, _, count = layout.partition(":")
    if kind == "keyed":
        return f"{count} ({layout})"
    return layout


def _planned(lm: FrozenLM, given: Request) -> PlannedEncoding:
    """The text, cut as it will be fitted."""
    options = EncodeOptions(
        layout=given.layout,
        start=given.start,
        recipe=given.recipe,
        steps=int(given.steps),
        seed=int(given.seed),
    )
    return plan_encoding(lm, given.text, options)


def _raced(lm: FrozenLM, encoded: EncodedText, stop: Event) -> str:
    try:
        return show.head(RACE) + racing.race(lm, racing.raced_chunk(encoded), stop)
    except UsageError as error:
        return show.head(RACE) + show.note(str(error))
    except Stopped:
        return ""


def _outcome(lm: FrozenLM, made: Example, size: int) -> str:
    """The outcome of a fit, decoded from the vectors: its numbers, tokens and curves."""
    encoded = made.encoded
    decoded, header = decode_text(lm, encoded), encoded.header
    verdict = (
        "exact" if decoded.matches else f"NOT exact: {header.accuracy:.1%} of the tokens are right"
    )
    verdict += (
        f", with {encoded.repaired_tokens:,} of the tokens from patches"
        if encoded.repaired_tokens
        else ""
    )
    passes = show.passes(decoded.forward_passes)
    figures = {
        "tokens": f"{decoded.tokens:,}",
        "vectors": str(len(encoded.vectors)),
        "numbers a token": f"{encoded.vectors.numel() / decoded.tokens:.1f}",
        "steps, the most": str(max(header.steps)),
        "least margin": "-" if header.min_margin is None else f"{header.min_margin:.2f}",
        "bytes of the file": f"{size:,}",
    }
    return (
        show.judged(
            f"{verdict}; decoded from the file in {passes}, {decoded.seconds * 1000:.0f} ms",
            decoded.matches,
        )
        + show.facts(figures)
        + show.text(all_tokens(lm, encoded, made.ids))
        + (made.curves.drawn() if max(header.steps) else show.note("No step was needed."))
    )


def _described(lm: FrozenLM, encoded: EncodedText) -> str:
    """The vectors of the first chunk."""
    if not encoded.in_vectors():
        return show.note("no chunk is stored in vectors: there are none to describe")
    first = encoded.chunk(encoded.in_vectors()[0] + 1)
    names = vectors.names_of(len(first.protos))
    return vectors.described(lm, first.protos, names, first.layout.key_version > 0)
