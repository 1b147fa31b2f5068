"""The tab Decode: a file becomes its text, token by token with its margin.

Also a race of one forward pass against many.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gradio as gr

from prototokens.decoding import decode_text
from prototokens.engine.decode import decode_ids, generate_from
from prototokens.engine.inputs import Cramming
from prototokens.errors import FileError, UsageError
from prototokens.explorer import show
from prototokens.explorer.work import (
    LINE,
    Desk,
    ShelvedText,
    all_tokens,
    from_shelf,
    put_on_shelf,
    show_errors_in,
)
from prototokens.fitting import fit
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.encoded import EncodedText
from prototokens.recipe import Recipe
from prototokens.solution import Chunk

RACE_TOKENS = 128  # of the longest chunk that is raced: the autoregressive baseline is fitted first
RACE_STEPS = 1000
RACE_LASTS = 6000.0  # milliseconds of the slower lane, as shown
TRIES = 3  # measurements of each lane; the quickest counts


def tab(desk: Desk, shelf: gr.State) -> None:
    """Build it."""
    DecodeTab(desk, shelf).connect()


class DecodeTab:
    """The elements of the tab, and what its file and its button do."""

    def __init__(self, desk: Desk, shelf: gr.State) -> None:
        self.desk, self.shelf = desk, shelf
        settings = desk.settings
        with gr.Row():
            with gr.Column():
                self.file = gr.File(
                    label="A .ptok file",
                    file_types=[".ptok"],
                    type="filepath",
                    elem_id="decode-file",
                    height=150,
                )
            with gr.Column():
                self.model = gr.Dropdown(
                    list(settings.models),
                    value=settings.models[0],
                    label="The model it was made with",
                )
                gr.HTML(
                    show.note(
                        f"up to {settings.max_upload / 2**20:.0f} MiB; it is checked before"
                        " anything is decoded"
                    )
                )
        self.message = gr.HTML(elem_id="decode-message")
        self.text = gr.HTML(elem_id="decode-text", min_height=30)
        self.start = gr.Button(
            "Race: one pass against many", visible=False, elem_id="decode-race-go"
        )
        self.track = gr.HTML(elem_id="decode-race", min_height=30)
        self.opened = gr.State(None)

    def connect(self) -> None:
        """Let the file and the button call the handlers."""
        change = {"concurrency_limit": 1, "concurrency_id": LINE, "api_visibility": "private"}
        show_errors = show_errors_in(self.message)
        self.file.change(
            show_errors(self.decode),
            [self.file, self.model, self.shelf],
            [self.message, self.text, self.track, self.start, self.shelf, self.opened],
            show_progress_on=self.text,
            **change,
        )
        self.start.click(
            show_errors(self.race),
            [self.shelf, self.opened],
            [self.message, self.track],
            show_progress_on=self.track,
            **change,
        )

    def decode(self, path: str | None, model: str, shelf: list[ShelvedText]) -> dict[Any, Any]:
        """Decode a file that was sent up."""
        if path is None:
            return {self.text: "", self.track: "", self.start: gr.Button(visible=False)}
        encoded, lm = _load(path), self.desk.model(model)
        decoded = decode_text(lm, encoded)
        tokens = all_tokens(lm, encoded)
        margins = [token.margin for token in tokens if token.margin is not None]
        verdict = (
            "the text that was encoded, by its SHA-256"
            if decoded.matches
            else "NOT the text that was encoded"
        )
        figures = {
            "tokens": f"{decoded.tokens:,}",
            "chunks": str(len(encoded.header.chunks)),
            "vectors": str(len(encoded.vectors)),
            "layout": encoded.layout.name,
            "ms": f"{decoded.seconds * 1000:.0f}",
            "least margin": f"{min(margins):.2f}" if margins else "-",
            "tokens from patches": f"{encoded.repaired_tokens:,}",
        }
        shelved = put_on_shelf(shelf, lm, encoded, decoded.text)
        words = f"{verdict}; {show.passes(decoded.forward_passes)}"
        return {
            self.text: show.judged(words, decoded.matches)
            + show.facts(figures)
            + show.text(tokens, by_margin=True)
            + (show.legend() if margins else ""),
            self.track: "",
            self.start: gr.Button(visible=True),
            self.shelf: shelved,
            self.opened: shelved[0].title,
        }

    def race(self, shelf: list[ShelvedText], title: str | None) -> dict[Any, Any]:
        """Decode the first chunk in one pass and, from memory vectors, token by token."""
        chosen = from_shelf(shelf, title)
        lm = self.desk.model(chosen.model)
        if not chosen.encoded.in_vectors():
            raise UsageError("no chunk of this text is stored in vectors: there is nothing to race")
        chunk = chosen.encoded.chunk(chosen.encoded.in_vectors()[0] + 1)
        if chunk.length > RACE_TOKENS:
            raise UsageError(
                f"the first chunk has {chunk.length} tokens, and the autoregressive baseline is"
                f" fitted for {RACE_TOKENS} at most: encode the text with more chunks"
            )
        return {self.track: _race(lm, chunk)}


def _load(path: str) -> EncodedText:
    """A file that was sent up; messages call it by its own name, not by where the page put it.

    Raises:
        FileError: it cannot be read.
    """
    try:
        return EncodedText.load(path)
    except FileError as error:
        raise FileError(str(error).replace(path, Path(path).name)) from error


def _race(lm: FrozenLM, chunk: Chunk) -> str:
    """Fit the autoregressive baseline to a chunk's text, and time both."""
    target = decode_ids(lm, [chunk]).ids[0]
    method = Cramming(len(chunk.protos))
    (other,) = fit(lm, [target], method=method, recipe=Recipe(steps=RACE_STEPS))
    one_ms, one = _quickest(lambda: decode_ids(lm, [chunk]).ids[0])
    many_ms, many = _quickest(lambda: generate_from(lm, [other])[0])
    slower = max(1.0, RACE_LASTS / many_ms)
    right = sum(a == b for a, b in zip(many, target, strict=True))
    words = (
        f"The first chunk, {chunk.length} tokens, from {len(chunk.protos)} vectors either way. One"
        f" step: {one_ms:.1f} ms."
        f" Token by token from {method.vectors} memory vectors fitted just now ({other.steps}"
        f" steps): {many_ms:.1f} ms,"
        f" {many_ms / one_ms:.0f} times as long; {right} of {chunk.length} tokens right. Shown"
        f" {slower:.0f} times slower."
    )
    lanes = [[lm.detokenize([token]) for token in ids] for ids in (one, many)]
    return show.note(words) + show.race(lanes[0], one_ms, lanes[1], many_ms, slower)


def _quickest(decode: Any) -> tuple[float, list[int]]:
    """(milliseconds of the quickest of several tries, the ids)."""
    best, ids = float("inf"), []
    for _ in range(TRIES):
        began = time.perf_counter()
        ids = decode()
        best = min(best, (time.perf_counter() - began) * 1000)
    return best, ids
