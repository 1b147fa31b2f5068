"""The tab Encode: a text goes into vectors, and fills in on the page while it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, NamedTuple

import gradio as gr

from prototokens.decoding import decode_text
from prototokens.encoding import encode
from prototokens.engine.progress import Progress
from prototokens.explorer import pictures, show
from prototokens.explorer.work import (
    LINE,
    Desk,
    Settings,
    ShelvedText,
    all_tokens,
    put_on_shelf,
    read,
    show_errors_in,
)
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.planning.chunks import ChunkPlan, plan_chunks
from prototokens.ptok.encoded import EncodedText
from prototokens.ptok.source import read_source
from prototokens.ptok.spans import Solved
from prototokens.recipe import Recipe
from prototokens.samples import short
from prototokens.solution import Chunk

LAYOUTS = ["auto", "keyed:1", "keyed:2", "keyed:5", "paper", "free", "mixed:4", "tiled:4"]
EVERY = 0.25  # seconds from picture to picture
MAX_SHOWN = 24  # chunks whose text is decoded for each picture
# The time of the click goes with it: a request may wait in the line, and a Stop overtakes it.
PRESSED = "(...given) => [...given.slice(0, -1), performance.now()]"


class Stopped(Exception):
    """The visitor asked a fit to stop."""


class LiveFit:
    """An encoding that runs in a thread of its own, and can be watched and stopped."""

    def __init__(
        self,
        lm: FrozenLM,
        text: str,
        ids: list[int],
        plan: ChunkPlan,
        recipe: Recipe,
        seed: int,
        stop: Event,
    ):
        self.lm, self.text, self.ids, self.plan, self.stop = lm, text, ids, plan, stop
        self.spans = plan.spans()
        self.solved: Solved = {}
        self.frames: Queue[str] = Queue(maxsize=1)
        self.curves: tuple[list[float], list[float]] = ([], [])
        self.outcome: EncodedText | Exception | None = None
        self._last = 0.0
        self.thread = Thread(target=self._run, args=(recipe, seed), daemon=True)
        self.thread.start()

    def watch(self) -> Iterator[str]:
        """Pictures of the fit until it has ended; leaving early stops it."""
        try:
            while self.thread.is_alive() or not self.frames.empty():
                try:
                    yield self.frames.get(timeout=0.1)
                except Empty:
                    continue
        finally:
            if self.thread.is_alive():
                self.stop.set()
            self.thread.join()

    def drawn(self) -> str:
        """The curves so far."""
        right, loss = self.curves
        return show.curve(
            right, "#1a7f37", "share of tokens right, of the chunks at work"
        ) + show.curve(loss, "#0969da", "loss, in nats")

    def _run(self, recipe: Recipe, seed: int) -> None:
        try:
            self.outcome = encode(
                self.lm,
                self.text,
                plan=self.plan,
                recipe=recipe,
                seed=seed,
                progress=self._show,
                kept=self.solved,
            )
        except Exception as error:  # handed over to the thread that watches, and raised there
            self.outcome = error

    def _show(self, now: Progress) -> None:
        if self.stop.is_set():
            raise Stopped
        for values, value in zip(self.curves, (now.accuracy, now.loss), strict=True):
            values.append(value)
        if time.monotonic() - self._last < EVERY and now.accuracy < 1:
            return
        self._last = time.monotonic()
        tokens, margin = self._tokens(now)
        figures = {
            "tokens right": f"{now.accuracy:.0%}",
            "loss, nats": f"{now.loss:.3f}",
            "least margin": "…" if margin is None else f"{margin:.2f}",
            "chunks done": f"{now.solved} of {now.total}",
            "steps": f"{len(self.curves[0]):,}",
            "row-steps a second": f"{now.row_steps / max(now.seconds, 1e-9):,.0f}",
            "seconds": f"{now.seconds:.1f}",
        }
        frame = show.facts(figures) + show.text(tokens) + self.drawn()
        try:
            self.frames.put_nowait(frame)
        except Full:
            return  # the page has not shown the one before yet

    def _tokens(self, now: Progress) -> tuple[list[show.Token], float | None]:
        """The whole text as it decodes just now, and the least margin of what is at work."""
        tokens, least, decoded = [], None, 0
        first_attempt = now.total == len(self.spans)
        for order, span in enumerate(self.spans):
            ids = self.ids[span.start : span.end]
            protos = now.vectors_of(order) if first_attempt and decoded < MAX_SHOWN else None
            if protos is not None:
                decoded += 1
                got = read(self.lm, Chunk(protos, self.plan.layout, len(ids)), ids)
                least = min(float(got.margin.min()), float("inf") if least is None else least)
                pairs = zip(got.ids.tolist(), got.margin.tolist(), ids, strict=True)
                tokens += [
                    show.Token(self.lm.detokenize([token]), margin, token == true)
                    for token, margin, true in pairs
                ]
            else:
                right = True if span in self.solved else None
                tokens += [show.Token(self.lm.detokenize([token]), None, right) for token in ids]
        return tokens, least


class Request(NamedTuple):
    """What a visitor has set when they press Encode; in the order of `EncodeTab.inputs`."""

    text: str
    model: str
    layout: str
    recipe: str
    seed: float
    steps: float
    shelf: list[ShelvedText]
    pressed: float


def tab(desk: Desk, shelf: gr.State) -> None:
    """Build it."""
    EncodeTab(desk, shelf).connect()


class EncodeTab:
    """The elements of the tab, and what its two buttons do."""

    def __init__(self, desk: Desk, shelf: gr.State) -> None:
        self.desk, self.shelf = desk, shelf
        with gr.Row():
            self.inputs = [*self._fields(desk.settings)]
        with gr.Row():
            self.go = gr.Button("Encode", variant="primary", elem_id="encode-go")
            self.halted = gr.Button("Stop", elem_id="encode-stop")
        self.message = gr.HTML(elem_id="encode-message")
        self.live = gr.HTML(elem_id="encode-live", min_height=40)
        self.download = gr.DownloadButton(
            "Download the .ptok", visible=False, elem_id="encode-download"
        )
        self.pressed = gr.Number(visible=False)
        self.inputs += [shelf, self.pressed]

    def _fields(self, settings: Settings) -> list[Any]:
        """The fields of a request that a visitor sees, in its order."""
        with gr.Column(scale=3):
            text = gr.Textbox(
                short(),
                label="Text",
                lines=5,
                max_lines=14,
                elem_id="encode-text",
                info=f"up to {settings.max_characters:,} characters",
            )
        with gr.Column(scale=2):
            model = gr.Dropdown(
                list(settings.models),
                value=settings.models[0],
                label="Model",
                elem_id="encode-model",
            )
            with gr.Row():
                layout = gr.Dropdown(
                    LAYOUTS,
                    value="auto",
                    label="Vectors",
                    info="mixed:K is e and K m's",
                    min_width=120,
                )
                recipe = gr.Dropdown(["fast", "paper"], value="fast", label="Recipe", min_width=120)
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, min_width=100)
                steps = gr.Slider(100, 5000, 2000, step=100, label="Most steps", min_width=160)
        return [text, model, layout, recipe, seed, steps]

    def connect(self) -> None:
        """Let the buttons call the handlers."""
        self.go.click(
            show_errors_in(self.message, self.live)(self.run),
            self.inputs,
            [self.message, self.live, self.download, self.shelf],
            show_progress_on=self.live,
            js=PRESSED,
            concurrency_limit=1,
            concurrency_id=LINE,
            api_visibility="private",
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

    def run(self, request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        """Encode the text, and show it while it is fitted.

        Args:
            request: which visitor it is.
            values: the fields of a `Request`.
        """
        given, visitor = Request(*values), str(request.session_hash)
        stopping = self.desk.begin(visitor, given.pressed)
        # What was offered before is not of this text, be it refused or not.
        yield {
            self.live: show.note("loading the model, reading the text"),
            self.download: gr.DownloadButton(visible=False),
        }
        self.desk.check_text(given.text)
        lm = None if stopping.is_set() else self.desk.model(given.model)
        if lm is None or stopping.is_set():
            yield {self.live: show.judged("stopped before it began", False)}
            return
        ids = read_source(lm, given.text).ids
        plan = plan_chunks(lm, ids, given.layout)
        recipe = Recipe.named(given.recipe, steps=int(given.steps))
        fit = LiveFit(lm, given.text, ids, plan, recipe, int(given.seed), stopping)
        frame = ""
        for frame in fit.watch():
            yield {self.live: show.note(plan.describe()) + frame}
        if isinstance(fit.outcome, Stopped):
            yield {self.live: show.judged("stopped: this is how far it got", False) + frame}
            return
        if isinstance(fit.outcome, Exception):
            raise fit.outcome
        assert fit.outcome is not None
        path = self.desk.file_of(visitor)
        yield {
            self.live: _outcome(lm, fit.outcome, ids, fit.outcome.save(path), fit.drawn()),
            self.download: gr.DownloadButton(value=str(path), visible=True),
            self.shelf: put_on_shelf(given.shelf, lm, fit.outcome, given.text),
        }

    def halt(self, pressed: float, request: gr.Request) -> str:
        """Stop what the visitor fits, or keep it from beginning."""
        self.desk.stop(str(request.session_hash), pressed)
        return show.note(
            "Stop is noted: what runs ends at its next step, and what waits will not begin."
        )


def _outcome(lm: FrozenLM, encoded: EncodedText, ids: list[int], size: int, curves: str) -> str:
    """The outcome of a fit, decoded from the vectors.

    Its numbers, tokens and curves, the first chunk's vectors.
    """
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
    shown = (
        show.judged(
            f"{verdict}; decoded from the file in {passes}, {decoded.seconds * 1000:.0f} ms",
            decoded.matches,
        )
        + show.facts(figures)
        + show.text(all_tokens(lm, encoded, ids))
        + curves
    )
    if not encoded.in_vectors():
        return shown + show.note("no chunk is stored in vectors: there are none to draw")
    first = encoded.chunk(encoded.in_vectors()[0] + 1).protos
    names = [pictures.name_of(number, len(first)) for number in range(len(first))]
    return shown + show.picture(
        pictures.vectors(first, names), "the vectors of the first chunk as coloured cells"
    )
