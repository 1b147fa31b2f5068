"""The tab Inside: attention to e and the m's, and what each depth decodes to.

Also what is left without e.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from prototokens.explorer import depths, show
from prototokens.explorer.encode import with_example
from prototokens.explorer.vectors import names_of
from prototokens.explorer.work import LINE, Desk, ShelvedText, chunk_of, from_shelf, show_errors_in
from prototokens.lm.tokenization import token_texts
from prototokens.measure.inside import Inside, look

ALL = "all, the mean of their heads"
SHOWS = "How the frozen model turns the vectors into the text, layer by layer."
MATTERS = (
    "It shows in which depth a text appears, how much of it stands on e alone, and where the model"
    " looks for it: the vectors are read, not only copied out."
)


class Seen(NamedTuple):
    """What was measured, and what it is called.

    Attributes:
        title: of the text, and the number of its chunk.
        inside: the measurements.
        texts: of every token that some depth decodes to.
        tokens: the text of each position.
    """

    title: tuple[str, int]
    inside: Inside
    texts: dict[int, str]
    tokens: list[str]


def tab(desk: Desk, shelf: gr.State) -> InsideTab:
    """Build it."""
    made = InsideTab(desk, shelf)
    made.connect()
    return made


class InsideTab:
    """The elements of the tab, and what its button and lists do."""

    def __init__(self, desk: Desk, shelf: gr.State) -> None:
        self.desk, self.shelf = desk, shelf
        gr.HTML(show.lead(SHOWS, MATTERS))
        with gr.Row():
            self.chosen = gr.Dropdown(
                [], label="A text that was encoded or opened", elem_id="inside-text", scale=3
            )
            self.number = gr.Number(1, label="Chunk", precision=0, minimum=1, scale=1, min_width=90)
            self.go = gr.Button("Look inside", variant="primary", elem_id="inside-go", scale=1)
        self.message = gr.HTML(elem_id="inside-message")
        self.seen = gr.State(None)
        with gr.Row():
            with gr.Column(scale=27, min_width=320):
                self.whole = gr.HTML(elem_id="inside-whole", min_height=30)
            with gr.Column(scale=10, min_width=320, visible=False) as self.choice:
                self.closer = gr.HTML(elem_id="inside-closer")
                with gr.Row():
                    self.vector = gr.Dropdown(
                        ["e"], value="e", label="to", elem_id="inside-vector", min_width=90
                    )
                    self.layer = gr.Dropdown(
                        [ALL], value=ALL, label="Layers", elem_id="inside-layer", min_width=150
                    )
        self.heads = gr.HTML(elem_id="inside-heads")
        self.outputs = [
            self.message,
            self.shelf,
            self.seen,
            self.chosen,
            self.choice,
            self.whole,
            self.heads,
            self.vector,
            self.layer,
            self.closer,
        ]

    def connect(self) -> None:
        """Let the elements call the handlers."""
        line: dict[str, Any] = {
            "concurrency_limit": 1,
            "concurrency_id": LINE,
            "api_visibility": "private",
        }
        show_errors = show_errors_in(self.message)
        self.go.click(
            show_errors(self.run),
            [self.shelf, self.chosen, self.number],
            self.outputs,
            show_progress_on=self.whole,
            **line,
        )
        gr.on(
            [self.vector.input, self.layer.input],
            show_errors(self.change),
            [self.seen, self.vector, self.layer],
            [self.message, self.closer],
            **line,
        )

    def open(self, shelf: list[ShelvedText], seen: Seen | None) -> dict[Any, Any]:
        """What the tab shows when it is chosen: the newest text, unless it shows one already."""
        shelf = with_example(self.desk, shelf)
        titles = [each.title for each in shelf]
        if not titles:
            return {self.whole: show.note("Encode a text, or open a file, in the first two tabs.")}
        title = seen.title[0] if seen is not None and seen.title[0] in titles else titles[0]
        listed = gr.Dropdown(titles, value=title)
        if seen is not None and seen.title[0] == title:
            return {self.chosen: listed}
        return {**self.run(shelf, title, 1), self.chosen: listed, self.shelf: shelf}

    def run(
        self, shelf: list[ShelvedText], title: str | None, number: float | None
    ) -> dict[Any, Any]:
        """Look inside while a chunk is decoded."""
        text = from_shelf(shelf, title)
        lm = self.desk.model(text.model)
        inside = look(lm, chunk_of(text.encoded, number))
        read = {*inside.ids.tolist(), *inside.lens.ids.flatten().tolist()}
        texts = token_texts(lm.tokenizer, read, known=lm.vocab_size)
        tokens = [texts[token] for token in inside.ids.tolist()]
        seen = Seen((text.title, int(number or 1)), inside, texts, tokens)
        vectors = names_of(inside.attention.shape[-1])
        layers = [ALL, *(f"layer {each + 1}, by head" for each in range(inside.attention.shape[0]))]
        return {
            self.seen: seen,
            self.choice: gr.Column(visible=True),
            self.whole: _whole(seen),
            self.heads: show.head("Attention by layer and head, in percent: mean over positions")
            + depths.heads(inside),
            self.vector: gr.Dropdown(vectors, value="e"),
            self.layer: gr.Dropdown(layers, value=ALL),
            self.closer: depths.positions(inside, tokens, 0, None),
        }

    def change(self, seen: Seen | None, vector: str, layer: str) -> dict[Any, Any]:
        """Another vector, or another layer."""
        if seen is None:
            return {self.closer: ""}
        number = names_of(seen.inside.attention.shape[-1]).index(vector)
        which = None if layer == ALL else int(layer.split()[1].rstrip(",")) - 1
        return {self.closer: depths.positions(seen.inside, seen.tokens, number, which)}


def _whole(seen: Seen) -> str:
    """The lens and the knocked-out e, side by side."""
    lens = depths.lens(seen.inside, seen.tokens, seen.texts)
    return show.cards(lens, depths.knocked_out(seen.inside, seen.tokens))
