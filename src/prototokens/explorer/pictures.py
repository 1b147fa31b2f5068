"""The figure of what happens between vectors and text, for `prototokens trace`.

Tokens stand below each other, a row for each, so that a chunk of any length can be read.
Matplotlib's figures without its global state: nothing is shown, and many can be drawn at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from prototokens._util.extras import need
from prototokens.explorer.depths import label
from prototokens.explorer.vectors import names_of
from prototokens.measure.inside import Inside, appears

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_WRITTEN = 6000  # cells that are written into; where there are more, dots mark what counts
LETTERS = 8  # of a token in a cell
LABEL_LETTERS = 18  # of a token beside a row
ROW, WORD, NUMBER, SHARE = 0.2, 0.56, 0.4, 0.36  # inches: height of a row, widths of a cell
BESIDE, HEAD, GAP = 1.55, 1.0, 0.75  # for labels of rows, what stands above, between parts
HEADS_IN_A_ROW = 6  # maps of heads side by side
USUAL = 0.98  # share of the values that a scale reaches over: the largest few would pale all others
INK, FAINT = "#1f2328", "#57606a"
RIGHT = "#1a7f37"
_TITLE: dict[str, Any] = {"fontsize": 10, "color": INK, "loc": "left"}
_LABEL: dict[str, Any] = {"fontsize": 8, "color": FAINT}


def trace(inside: Inside, read: Callable[[int], str]) -> Figure:
    """The whole: attention to every vector, what each depth decodes to, and e knocked out.

    Args:
        read: the text of a token.
    """
    depths, count = inside.lens.ids.shape
    layers, heads, _, vectors = inside.attention.shape
    names = names_of(vectors)
    lines, map_width = -(-vectors // HEADS_IN_A_ROW), max(1.2, 0.22 * heads)
    across = (BESIDE, max(1.2, SHARE * vectors), WORD * depths, NUMBER * depths)
    maps_wide = 0.5 + min(vectors, HEADS_IN_A_ROW) * (map_width + 0.5)
    wide = max(sum(across) + 3 * GAP, maps_wide + GAP)
    map_height = max(0.8, 0.18 * layers)
    above = 0.1 + lines * (map_height + 0.85)
    tall = above + HEAD + ROW * count + 0.15
    sheet = Sheet(_figure(wide, tall), wide, tall)
    most = max(float(_looking(inside).max()), 1e-9)
    for number, name in enumerate(names):
        row, column = divmod(number, HEADS_IN_A_ROW)
        left, top = 0.5 + column * (map_width + 0.5), 0.4 + row * (map_height + 0.85)
        axes = sheet.axes(left, top, map_width, map_height)
        attention_by_head(axes, inside, number, name, most)
        if number == min(vectors, HEADS_IN_A_ROW) - 1:
            sheet.bar(axes, left + map_width + 0.1, top, map_height, "share")
    tokens = [_drawable(label(read(token)))[:LABEL_LETTERS] for token in inside.ids.tolist()]
    left, top, height = BESIDE, above + HEAD, ROW * count
    draws: list[tuple[str, Callable[[Axes], None]]] = [
        ("share", lambda axes: attention_by_position(axes, inside, names, tokens)),
        ("nats", lambda axes: lens(axes, inside, read)),
        ("logits", lambda axes: knocked_out(axes, inside)),
    ]
    for width, (unit, draw) in zip(across[1:], draws, strict=True):
        axes = sheet.axes(left, top, width, height)
        draw(axes)
        sheet.bar(axes, left + width + 0.1, top, min(height, 2.0), unit)
        left += width + GAP
    return sheet.figure


class Sheet(NamedTuple):
    """A figure on which axes are placed in inches, from the upper left corner.

    A layout engine would draw every word twice, and a long chunk has thousands.

    Attributes:
        width, height: in inches.
    """

    figure: Figure
    width: float
    height: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        return self.figure.add_axes(
            (
                left / self.width,
                bottom / self.height,
                width / self.width,
                height / self.height,
            )
        )

    def bar(self, axes: Axes, left: float, top: float, height: float, unit: str) -> None:
        """What the colours of axes stand for."""
        bar = self.figure.colorbar(axes.images[0], cax=self.axes(left, top, 0.1, height))
        bar.ax.tick_params(labelsize=8, colors=FAINT)
        bar.set_label(unit, **_LABEL)


def _looking(inside: Inside) -> Tensor:
    """Mean attention over the positions that have something else to attend to."""
    shares = inside.attention
    return (shares[:, :, 1:] if shares.shape[2] > 1 else shares).mean(2)


def attention_by_head(axes: Axes, inside: Inside, vector: int, name: str, most: float) -> None:
    """A cell for each head: its attention to a vector, the mean over positions.

    Args:
        most: the largest share of all vectors, for one scale.
    """
    mean = _looking(inside)[..., vector]
    _heat(axes, mean, "viridis", (0, most))
    axes.set_title(f"attention to {name}", **_TITLE)
    axes.set_ylabel("layer", **_LABEL)
    axes.set_xlabel("head", **_LABEL)
    _ticks(axes.set_yticks, [str(number + 1) for number in range(mean.shape[0])])
    _ticks(axes.set_xticks, [str(number + 1) for number in range(mean.shape[1])])


def attention_by_position(
    axes: Axes, inside: Inside, names: Sequence[str], tokens: Sequence[str]
) -> None:
    """A column for each vector: the attention of each position to it, mean of layers and heads."""
    # Where e's own output is not read (layout `free`), the first position gives no token.
    shares = inside.attention.mean((0, 1))[-len(tokens) :]
    _heat(axes, shares, "viridis", (0, max(float(shares.flatten().quantile(USUAL)), 1e-9)))
    axes.set_title("attention", **_TITLE)
    axes.set_xlabel("to vector", **_LABEL)
    _columns(axes, names)
    axes.set_yticks(range(len(tokens)), tokens, family="DejaVu Sans Mono", color=INK)
    for text in axes.get_yticklabels():
        text.set_parse_math(False)


def lens(axes: Axes, inside: Inside, read: Callable[[int], str]) -> None:
    """What each depth decodes to, and how unlikely it holds the token that comes out at the end."""
    nats, rank, ids = inside.lens.nats.T, inside.lens.rank.T, inside.lens.ids.T
    most = _usual(nats[:, 1:] if nats.shape[1] > 1 else nats)  # inputs are far from any token
    _heat(axes, nats, "Purples", (0, 1.3 * most))
    written = nats.numel() <= MAX_WRITTEN
    for position, depth in torch.cartesian_prod(*map(torch.arange, nats.shape)).tolist():
        right, dark = bool(rank[position, depth] == 0), float(nats[position, depth]) > 0.8 * most
        if written:
            word = _drawable(label(read(int(ids[position, depth]))))[:LETTERS]
            colour = RIGHT if right and not dark else "white" if dark else INK
            _write(axes, depth, position, word, colour, bold=right)
        elif right:
            axes.plot(depth, position, marker="o", markersize=3, color=RIGHT)
    mean = float(appears(inside.lens).float().mean())
    mark = "bold" if written else "a dot"
    axes.set_title(
        f"logit lens: nats of the final token; {mark}: decoded already\n(on average from depth"
        f" {mean:.1f} on)",
        **_TITLE,
    )
    axes.set_xlabel("depth", **_LABEL)
    _columns(axes, ["input", *(str(number) for number in range(1, nats.shape[1]))])
    axes.set_yticks([])


def knocked_out(axes: Axes, inside: Inside) -> None:
    """E hidden from a block on: the lead of the final token.

    Blue where the token stays right, red where it is lost.
    """
    margin = inside.knockout.margin.T
    reach = _usual(margin.abs())
    _heat(axes, margin, "RdBu", (-reach, reach))
    if margin.numel() <= MAX_WRITTEN:
        for position, seen in torch.cartesian_prod(*map(torch.arange, margin.shape)).tolist():
            value = float(margin[position, seen])
            colour = "white" if abs(value) > 0.7 * reach else INK
            _write(axes, seen, position, f"{value:.1f}", colour)
    kept = (margin > 0).float().mean(0).tolist()
    blocks = ["none", *(str(number) for number in range(1, margin.shape[1] - 1)), "all"]
    axes.set_title("e hidden from all but the first blocks:\nmargin of each token", **_TITLE)
    axes.set_xlabel("blocks that see e, and the share of tokens kept", **_LABEL)
    _columns(axes, [f"{name}\n{share:.0%}" for name, share in zip(blocks, kept, strict=True)])
    axes.set_yticks([])


def _usual(values: Float[Tensor, "*shape"]) -> float:
    """A value that all but the largest few stay below, and at least 1."""
    return max(1.0, float(values.float().flatten().quantile(USUAL)))


def _figure(width: float, height: float) -> Figure:
    figure_class = need("matplotlib.figure", "plots", "a picture").Figure
    return figure_class(figsize=(width, height), dpi=110)


def _heat(axes: Axes, values: Tensor, colours: str, span: tuple[float, float]) -> None:
    """Values as coloured cells."""
    low, high = span
    axes.imshow(
        values.numpy(), cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
    )
    axes.tick_params(labelsize=8, colors=FAINT, length=0)


def _write(axes: Axes, x: float, y: float, text: str, colour: str, bold: bool = False) -> None:
    """Letters in the middle of a cell."""
    axes.text(
        x,
        y,
        text,
        fontsize=7,
        weight="bold" if bold else "normal",
        color=colour,
        ha="center",
        va="center",
        parse_math=False,
    )


def _columns(axes: Axes, names: Sequence[str]) -> None:
    """Names of columns, above them: the foot of a long picture is far away."""
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    axes.tick_params(labelsize=8, colors=FAINT, length=0, top=False)
    axes.set_xticks(range(len(names)), list(names))


def _ticks(set_ticks: Any, names: Sequence[str]) -> None:
    """Names of rows or columns, of many only some."""
    every = -(-len(names) // 16)
    set_ticks(range(0, len(names), every), list(names[::every]))


def _drawable(text: str) -> str:
    """The text with what Matplotlib's own font lacks as boxes.

    It would warn, and draw boxes too.
    """
    return "".join(letter if ord(letter) in _known_letters() else "□" for letter in text)


@cache
def _known_letters() -> frozenset[int]:
    manager = need("matplotlib.font_manager", "plots", "a picture")
    return frozenset(manager.get_font(manager.findfont("DejaVu Sans")).get_charmap())
