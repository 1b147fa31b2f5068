"""The tabs together: what each of them shows when it is opened, and the address of a state."""

from __future__ import annotations

from typing import Any

import gradio as gr

from prototokens.errors import UsageError
from prototokens.explorer import address, decode, encode, inside, results, space
from prototokens.explorer.work import LINE, Desk, show_errors_in
from prototokens.samples import short


class Opening:
    """The tabs, which fill themselves when they are opened, and the button for an address.

    Attributes:
        fields: what an address can set, by its names of `address.State`.
        asked: what the address asks for, as `encode.Asked`.
    """

    def __init__(self, desk: Desk, shelf: gr.State, share: gr.Button, said: gr.HTML) -> None:
        self.desk, self.shelf, self.share, self.said = desk, shelf, share, said
        self.asked = gr.State(encode.Asked())
        with gr.Tabs(elem_id="tabs") as self.tabs:
            with gr.Tab("Encode", id="encode"):
                self.encode = encode.tab(desk, shelf)
            with gr.Tab("Decode", id="decode") as self.on_decode:
                self.decode = decode.tab(desk, shelf)
            with gr.Tab("Space", id="space") as self.on_space:
                self.space = space.tab(desk)
            with gr.Tab("Inside", id="inside") as self.on_inside:
                self.inside = inside.tab(desk, shelf)
            with gr.Tab("Results", id="results") as self.on_results:
                self.results = results.tab(desk)
        self.fields = {
            **{name: field for name, field in self.encode.fields.items() if name != "paced"},
            "a": self.space.first,
            "b": self.space.second,
            "rows": self.results.chosen,
        }

    def connect(self, page: gr.Blocks) -> None:
        """Let the page read its address, and each tab fill itself."""
        line: dict[str, Any] = {
            "concurrency_limit": 1,
            "concurrency_id": LINE,
            "api_visibility": "private",
        }
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        read = page.load(
            show_errors_in(self.said)(self.read),
            None,
            [self.said, self.tabs, self.asked, *self.fields.values()],
            **quiet,
        )
        first = self.encode
        encoded = read.then(
            show_errors_in(first.message, first.live, first.race)(first.open),
            [self.asked, *first.inputs],
            first.outputs,
            js=encode.PRESSED,
            show_progress="hidden",
            **line,
        )
        encoded.then(self.turn, self.asked, self.tabs, **quiet)
        two, space_, four = self.decode, self.space, self.inside
        self.on_decode.select(
            show_errors_in(two.message)(two.open),
            [two.file, self.shelf, two.opened],
            two.outputs,
            show_progress_on=two.text,
            **line,
        )
        self.on_space.select(
            show_errors_in(space_.message)(space_.open),
            [space_.found, space_.first, space_.second, space_.model],
            space_.outputs,
            show_progress_on=space_.overview,
            **line,
        )
        self.on_inside.select(
            show_errors_in(four.message)(four.open),
            [self.shelf, four.seen],
            four.outputs,
            show_progress_on=four.whole,
            **line,
        )
        self.on_results.select(self.results.open, self.results.chosen, self.results.chosen, **quiet)
        self.share.click(
            None, list(self.fields.values()), self.said, js=address.script(self.defaults())
        )

    def defaults(self) -> dict[str, str | int]:
        """What the fields of an address hold when nothing was set."""
        return {
            "text": short(),
            "model": self.desk.settings.models[0],
            "layout": address.LAYOUT,
            "start": "random",
            "recipe": "fast",
            "seed": 0,
            "steps": encode.MAX_STEPS,
            "a": space.FIRST,
            "b": space.SECOND,
            "rows": self.results.open(None) or "",
        }

    def read(self, request: gr.Request) -> dict[Any, Any]:
        """Set the fields as the address asks for."""
        settings = self.desk.settings
        state = address.read(dict(request.query_params), settings.models, settings.max_characters)
        if state.rows is not None and state.rows not in self.results.names():
            raise UsageError(f"{state.rows!r} is not among the tables of this page")
        found = {
            self.fields[name]: value
            for name in self.fields
            if (value := getattr(state, name)) is not None
        }
        text = any(getattr(state, name) is not None for name in ENCODED)
        later = state.tab if state.tab in LATER else None
        if state.tab is not None and later is None:
            found[self.tabs] = gr.Tabs(selected=state.tab)
        return {**found, self.asked: encode.Asked(text, later or "")}

    def turn(self, asked: encode.Asked) -> Any:
        """Open the tab that needs the encoded text, once there is one."""
        return gr.Tabs(selected=asked.tab) if asked.tab else gr.skip()


LATER = ("decode", "inside")  # tabs that show the text of an address once it is encoded
# Where an address sets one of these, the text is encoded when it is opened.
ENCODED = ("text", "model", "layout", "start", "recipe", "seed", "steps")
