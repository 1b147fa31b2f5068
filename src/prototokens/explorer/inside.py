"""The tab Inside: attention to e and the m's, and what each depth decodes to.

Also what is left without e.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from prototokens.explorer import pictures, show
from prototokens.explorer.work import LINE, Desk, ShelvedText, chunk_of, from_shelf, show_errors_in
from prototokens.measure.inside import Inside, look

ALL = "all, the mean of their heads"


def tab(desk: Desk, shelf: gr.State) -> gr.Dropdown:
    """Build it; gives the list of texts, for the page to fill."""
    with gr.Row():
        chosen = gr.Dropdown(
            [], label="A text that was encoded or opened", elem_id="inside-text", scale=3
        )
        number = gr.Number(1, label="Chunk", precision=0, minimum=1, scale=1, min_width=90)
        go = gr.Button("Look inside", variant="primary", elem_id="inside-go", scale=1)
    message = gr.HTML(elem_id="inside-message")
    seen = gr.State(None)
    whole = gr.HTML(elem_id="inside-whole", min_height=30)
    with gr.Row(visible=False) as choice:
        vector = gr.Dropdown(["e"], value="e", label="Attention to", elem_id="inside-vector")
        layer = gr.Dropdown([ALL], value=ALL, label="Layers", elem_id="inside-layer")
    closer = gr.HTML(elem_id="inside-closer")

    @show_errors_in(message)
    def run(shelf: list[ShelvedText], title: str | None, number: float | None) -> dict[Any, Any]:
        text = from_shelf(shelf, title)
        lm = desk.model(text.model)
        inside = look(lm, chunk_of(text.encoded, number))
        read = {
            token: lm.detokenize([token])
            for token in {*inside.ids.tolist(), *inside.lens.ids.flatten().tolist()}
        }
        vectors = inside.attention.shape[-1]
        names = [pictures.name_of(each, vectors) for each in range(vectors)]
        layers = [ALL, *(f"layer {each + 1}, by head" for each in range(inside.attention.shape[0]))]
        words = "attention by layer and head, the logit lens, and the margins with e knocked out"
        return {
            seen: (inside, read),
            choice: gr.Row(visible=True),
            whole: show.picture(pictures.trace(inside, read.__getitem__), words),
            vector: gr.Dropdown(names, value="e"),
            layer: gr.Dropdown(layers, value=ALL),
            closer: _closer(inside, read, "e", ALL),
        }

    @show_errors_in(message)
    def change(
        seen: tuple[Inside, dict[int, str]] | None, vector: str, layer: str
    ) -> dict[Any, Any]:
        return {closer: "" if seen is None else _closer(*seen, vector, layer)}

    line: dict[str, Any] = {
        "concurrency_limit": 1,
        "concurrency_id": LINE,
        "api_visibility": "private",
    }
    outputs = [message, seen, choice, whole, vector, layer, closer]
    go.click(run, [shelf, chosen, number], outputs, show_progress_on=whole, **line)
    gr.on([vector.input, layer.input], change, [seen, vector, layer], [message, closer], **line)
    return chosen


def _closer(inside: Inside, read: dict[int, str], vector: str, layer: str) -> str:
    """One vector's attention, position by position."""
    vectors = inside.attention.shape[-1]
    number = next(each for each in range(vectors) if pictures.name_of(each, vectors) == vector)
    which = None if layer == ALL else int(layer.split()[1].rstrip(",")) - 1
    figure = pictures.closer(inside, read.__getitem__, number, which)
    return show.picture(figure, f"attention of each position to {vector}")
