"""The tab Decode: a file becomes its text, token by token with its margin.

Also a race of one forward pass against many.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from prototokens._util.words import counted
from prototokens.decoding import decode_text
from prototokens.errors import FileError
from prototokens.explorer import racing, show
from prototokens.explorer.encode import with_example
from prototokens.explorer.tokens import all_tokens
from prototokens.explorer.work import (
    LINE,
    Desk,
    ShelvedText,
    from_shelf,
    put_on_shelf,
    show_errors_in,
)
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.encoded import EncodedText

SHOWS = "A .ptok file becomes its text again, and each token shows by how much it won."
MATTERS = (
    "The margin is the lead of its logit over the best other token: what is wide survives other"
    " kernels, batch sizes and fewer bits; what is narrow is where an error would begin."
)


def tab(desk: Desk, shelf: gr.State) -> DecodeTab:
    """Build it."""
    made = DecodeTab(desk, shelf)
    made.connect()
    return made


class DecodeTab:
    """The elements of the tab, and what its file and its button do."""

    def __init__(self, desk: Desk, shelf: gr.State) -> None:
        self.desk, self.shelf = desk, shelf
        settings = desk.settings
        gr.HTML(show.lead(SHOWS, MATTERS))
        with gr.Row():
            with gr.Column():
                self.file = gr.File(
                    label="A .ptok file of your own",
                    file_types=[".ptok"],
                    type="filepath",
                    elem_id="decode-file",
                    height=140,
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
        self.plain = gr.Textbox(
            label="The text",
            lines=2,
            max_lines=12,
            interactive=False,
            buttons=["copy"],
            visible=False,
            elem_id="decode-plain",
        )
        self.start = gr.Button(
            "Race: one pass against token by token", visible=False, elem_id="decode-race-go"
        )
        self.track = gr.HTML(elem_id="decode-race", min_height=30)
        self.opened = gr.State(None)
        self.outputs = [
            self.message,
            self.text,
            self.plain,
            self.track,
            self.start,
            self.shelf,
            self.opened,
        ]

    def connect(self) -> None:
        """Let the file and the button call the handlers."""
        change = {"concurrency_limit": 1, "concurrency_id": LINE, "api_visibility": "private"}
        show_errors = show_errors_in(self.message)
        self.file.change(
            show_errors(self.decode),
            [self.file, self.model, self.shelf],
            self.outputs,
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

    def open(
        self, path: str | None, shelf: list[ShelvedText], opened: str | None
    ) -> dict[Any, Any]:
        """What the tab shows when it is chosen: the newest text, unless there is a file."""
        if path is not None or (shelf and shelf[0].title == opened):
            return {}
        shelf = with_example(self.desk, shelf)
        if not shelf:
            return {self.text: show.note("Open a file here, or encode a text in the first tab.")}
        newest = shelf[0]
        shown = self._shown(self.desk.model(newest.model), newest.encoded)
        words = show.note(f"As a file of it would be decoded: “{newest.title}”")
        shown[self.text] = words + shown[self.text]
        return {**shown, self.shelf: shelf, self.opened: newest.title}

    def decode(self, path: str | None, model: str, shelf: list[ShelvedText]) -> dict[Any, Any]:
        """Decode a file that was sent up."""
        if path is None:
            hidden = {self.start: gr.Button(visible=False), self.plain: gr.Textbox(visible=False)}
            return {self.text: "", self.track: "", **hidden}
        encoded, lm = _load(path), self.desk.model(model)
        shown = self._shown(lm, encoded)
        shelved = put_on_shelf(shelf, lm, encoded, decode_text(lm, encoded).text)
        return {**shown, self.shelf: shelved, self.opened: shelved[0].title}

    def _shown(self, lm: FrozenLM, encoded: EncodedText) -> dict[Any, Any]:
        """A text as it decodes: verdict, numbers, tokens, and plain."""
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
        words = f"{verdict}; {show.passes(decoded.forward_passes)}"
        return {
            self.text: show.judged(words, decoded.matches)
            + show.facts(figures)
            + show.text(tokens, by_margin=True)
            + (show.legend() if margins else ""),
            self.plain: gr.Textbox(
                decoded.text,
                visible=True,
                label=f"The text, {counted(len(decoded.text), 'character')}",
            ),
            self.track: "",
            self.start: gr.Button(visible=True),
        }

    def race(self, shelf: list[ShelvedText], title: str | None) -> dict[Any, Any]:
        """Decode the first chunk in one pass and, from memory vectors, token by token."""
        chosen = from_shelf(shelf, title)
        chunk = racing.raced_chunk(chosen.encoded)
        return {self.track: racing.race(self.desk.model(chosen.model), chunk)}


def _load(path: str) -> EncodedText:
    """A file that was sent up; messages call it by its own name, not by where the page put it.

    Raises:
        FileError: it cannot be read.
    """
    try:
        return EncodedText.load(path)
    except FileError as error:
        raise FileError(str(error).replace(path, Path(path).name)) from error
