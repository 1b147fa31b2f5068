"""Figures of vectors and of what happens between them and the text.

They are for the page and for `prototokens trace`.

Matplotlib's figures without its global state: nothing is shown, and many can be drawn at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from prototokens._util.extras import need
from prototokens.measure.inside import Inside, appears

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LABELS = 64  # tokens written under a figure; beyond, nothing is
MAX_WORDS = 32  # tokens in a row whose cells are written into
NEAR = 13.0  # points between a mark on a map and the middle of its label
INK, FAINT = "#1f2328", "#6e7781"
RIGHT = "#1a7f37"


def trace(inside: Inside, read: Callable[[int], str]) -> Figure:
    """The whole: attention to e and the m's, what each depth decodes to, and e knocked out.

    Args:
        read: the text of a token.
    """
    depths, count = inside.lens.ids.shape
    wide = min(max(9.0, 1.5 + (0.62 if count <= MAX_WORDS else 0.3) * count), 28.0)
    figure = _figure(wide, 3.6 + 0.62 * depths)
    grid = figure.add_gridspec(3, 2, height_ratios=[1.3, 0.34 * depths, 0.34 * depths])
    attention_by_head(figure.add_subplot(grid[0, 0]), inside, 0)
    attention_by_head(figure.add_subplot(grid[0, 1]), inside, 1)
    lens(figure.add_subplot(grid[1, :]), inside, read)
    knocked_out(figure.add_subplot(grid[2, :]), inside, read)
    return figure


def vectors(protos: Float[Tensor, "vectors d_model"], names: list[str]) -> Figure:
    """Vectors as rows of coloured cells, on one scale, each folded into lines of 64 numbers."""
    count, width = protos.shape
    folds = -(-width // 64)
    cells = torch.nn.functional.pad(protos, (0, folds * 64 - width), value=float("nan")).view(
        count * folds, 64
    )
    figure = _figure(9.0, 0.9 + 0.17 * count * folds)
    axes = figure.add_subplot()
    reach = float(protos.abs().max()) or 1.0
    image = axes.imshow(
        cells.numpy(),
        cmap="RdBu_r",
        vmin=-reach,
        vmax=reach,
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_yticks([number * folds + (folds - 1) / 2 for number in range(count)], names)
    axes.set_xticks([])
    for number in range(1, count):
        axes.axhline(number * folds - 0.5, color="white", linewidth=2)
    axes.set_title(
        f"{count} vectors of {width} numbers, {folds} lines of 64 each",
        fontsize=10,
        color=INK,
        loc="left",
    )
    _bar(axes, image, "value")
    return figure


def attention_by_head(axes: Axes, inside: Inside, vector: int) -> None:
    """A cell for each head: its attention to a vector.

    It is the mean over the positions that have something else to attend to.
    """
    shares = inside.attention[..., min(vector, inside.attention.shape[-1] - 1)][:, :, 1:]
    mean = (
        shares.mean(-1)
        if shares.shape[-1]
        else inside.attention[:, :, 0, min(vector, inside.attention.shape[-1] - 1)]
    )
    _heat(axes, mean, "viridis", (0, 1), "share")
    axes.set_title(
        f"attention to {name_of(vector, inside.attention.shape[-1])}, by layer and head", **_TITLE
    )
    axes.set_ylabel("layer", **_LABEL)
    axes.set_xlabel("head", **_LABEL)
    axes.set_yticks(range(mean.shape[0]), [str(number + 1) for number in range(mean.shape[0])])
    axes.set_xticks(range(mean.shape[1]), [str(number + 1) for number in range(mean.shape[1])])


def attention_by_position(
    axes: Axes, inside: Inside, read: Callable[[int], str], vector: int, layer: int | None = None
) -> None:
    """A row a layer (or, of one layer, a row a head): each position's attention to a vector."""
    shares = inside.attention[..., vector]
    rows = shares.mean(1) if layer is None else shares[layer]
    _heat(axes, rows, "viridis", (0, 1), "share")
    axes.set_ylabel("layer" if layer is None else "head", **_LABEL)
    what = "by layer, the mean of its heads" if layer is None else f"by head of layer {layer + 1}"
    axes.set_title(
        f"attention of each position to {name_of(vector, inside.attention.shape[-1])}, {what}",
        **_TITLE,
    )
    axes.set_yticks(range(len(rows)), [str(number + 1) for number in range(len(rows))])
    # Where e's own output is not read (layout `free`), there is a position more than there are
    # tokens.
    tokens = [read(token) for token in inside.ids.tolist()]
    _token_axis(axes, [""] * (rows.shape[1] - len(tokens)) + tokens)


def lens(axes: Axes, inside: Inside, read: Callable[[int], str]) -> None:
    """What each depth decodes to, and how unlikely it holds the token that comes out at the end."""
    nats, rank, ids = inside.lens.nats, inside.lens.rank, inside.lens.ids
    most = max(1.0, float(nats.max()))
    _heat(axes, nats, "magma_r", (0, most), "nats")
    words = ids.shape[1] <= MAX_WORDS
    for depth, position in (
        (depth, position) for depth in range(len(ids)) for position in range(ids.shape[1])
    ):
        right, dark = bool(rank[depth, position] == 0), float(nats[depth, position]) > most / 2
        if words:
            word = _drawable(shown(read(int(ids[depth, position]))))[:9]
            colour = RIGHT if right and not dark else "white" if dark else INK
            weight = "bold" if right else "normal"
            axes.text(
                position,
                depth,
                word,
                fontsize=7,
                weight=weight,
                color=colour,
                ha="center",
                va="center",
                parse_math=False,
            )
        elif right:
            axes.plot(position, depth, marker="o", markersize=3, color=RIGHT)
    mean = float(appears(inside.lens).float().mean())
    mark = "bold" if words else "a dot"
    axes.set_title(
        f"logit lens: nats of the final token; {mark} where it is decoded (on average from depth"
        f" {mean:.1f} on)",
        **_TITLE,
    )
    axes.set_ylabel("depth", **_LABEL)
    axes.set_yticks(range(len(nats)), ["input", *(str(number) for number in range(1, len(nats)))])
    _token_axis(axes, [read(token) for token in inside.ids.tolist()])


def knocked_out(axes: Axes, inside: Inside, read: Callable[[int], str]) -> None:
    """E hidden from a block on: the lead of the final token.

    Blue where the token stays right, red where it is lost.
    """
    margin = inside.knockout.margin
    reach = max(1.0, float(margin.abs().max()))
    _heat(axes, margin, "RdBu", (-reach, reach), "logits")
    kept = (margin > 0).float().mean(1).tolist()
    names = [
        "none sees it",
        *(f"first {number}" for number in range(1, len(margin) - 1)),
        "all see it",
    ]
    axes.set_title(
        "e hidden from all but the first blocks: margin of each token, and the share that is kept",
        **_TITLE,
    )
    axes.set_yticks(
        range(len(margin)),
        [f"{name}: {share:.0%}" for name, share in zip(names, kept, strict=True)],
    )
    _token_axis(axes, [read(token) for token in inside.ids.tolist()])


def name_of(vector: int, vectors: int) -> str:
    """What a vector is called: e, m, or m_k where there are several."""
    if vector == 0:
        return "e"
    return "m" if vectors == 2 else f"m_{vector}"


def shown(token: str) -> str:
    """A token as a label: spaces and line ends made visible."""
    return token.replace(" ", "␣").replace("\n", "¶").replace("\t", "→") or "∅"


_TITLE: dict[str, Any] = {"fontsize": 10, "color": INK, "loc": "left"}
_LABEL: dict[str, Any] = {"fontsize": 8, "color": FAINT}


def _figure(width: float, height: float) -> Figure:
    figure_class = need("matplotlib.figure", "plots", "a picture").Figure
    return figure_class(figsize=(width, height), dpi=110, layout="constrained")


def _heat(axes: Axes, values: Tensor, colours: str, span: tuple[float, float], unit: str) -> None:
    """Values as coloured cells, with a bar that says what the colours of the span stand for."""
    low, high = span
    image = axes.imshow(
        values.numpy(), cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
    )
    _bar(axes, image, unit)
    axes.tick_params(labelsize=8, colors=FAINT, length=0)


def _bar(axes: Axes, image: Any, unit: str) -> None:
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.025, pad=0.01)
    bar.ax.tick_params(labelsize=8, colors=FAINT)
    bar.set_label(unit, **_LABEL)


def _token_axis(axes: Axes, tokens: list[str]) -> None:
    """Tokens under a figure, as far as they can be distinguished."""
    if len(tokens) > MAX_LABELS:
        axes.set_xlabel("position", **_LABEL)
        return
    labels = [_drawable(shown(token)) for token in tokens]
    axes.set_xticks(
        range(len(labels)),
        labels,
        rotation=60,
        ha="right",
        rotation_mode="anchor",
        family="DejaVu Sans",
    )
    for label in axes.get_xticklabels():
        label.set_parse_math(False)


def _drawable(text: str) -> str:
    """The text with what Matplotlib's own font lacks as boxes.

    It would warn, and draw boxes too.
    """
    manager = need("matplotlib.font_manager", "plots", "a picture")
    known = manager.get_font(manager.findfont("DejaVu Sans")).get_charmap()
    return "".join(letter if ord(letter) in known else "□" for letter in text)


def closer(inside: Inside, read: Callable[[int], str], vector: int, layer: int | None) -> Figure:
    """One vector's attention by position, of all layers or of one."""
    rows = inside.attention.shape[1 if layer is not None else 0]
    figure = _figure(min(max(9.0, 1.5 + 0.42 * inside.attention.shape[2]), 28.0), 1.3 + 0.3 * rows)
    attention_by_position(figure.add_subplot(), inside, read, vector, layer)
    return figure


def plane(points: Float[Tensor, "count 2"], names: list[str]) -> Figure:
    """Points with their names, a colour for each first letter.

    Names stand where they hide neither points nor each other.
    """
    figure = _figure(5.0, 4.0)
    axes = figure.add_subplot()
    letters = sorted({name[0] for name in names})
    for point, name in zip(points.tolist(), names, strict=True):
        number = letters.index(name[0])
        axes.plot(*point, marker="os^D"[number % 4], color=f"C{number}", markersize=8)
    axes.set_title("distances between solutions, on a plane", **_TITLE)
    axes.tick_params(labelsize=8, colors=FAINT, length=0)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.2)
    # until then, the number of pixels between two points is unknown
    figure.draw_without_rendering()
    at = torch.tensor(
        axes.transData.transform(points.tolist()) * 72 / figure.dpi
    )  # as labels are moved: in points
    for name, point, away in zip(names, points.tolist(), _apart(at), strict=True):
        line = (
            {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6}
            if math.hypot(*away) > NEAR
            else None
        )
        axes.annotate(
            name,
            point,
            xytext=away,
            textcoords="offset points",
            fontsize=9,
            color=INK,
            ha="center",
            va="center",
            arrowprops=line,
        )
    return figure


def _apart(at: Tensor) -> list[tuple[float, float]]:
    """How far from its point each label stands.

    A label is free of all points and of the labels before it.

    Args:
        at: [count, 2], in points, as is the result. A label is at most 16 wide and 10 high, a mark
            8 in both.
    """
    taken: list[tuple[Tensor, float, float]] = [(point, 12.0, 9.0) for point in at]
    moved = []
    for point in at:
        ways = [
            (far * math.cos(turn * math.pi / 6), far * math.sin(turn * math.pi / 6))
            for far in (NEAR, 1.8 * NEAR, 2.6 * NEAR)
            for turn in (1, 5, 11, 7, 0, 6, 3, 9, 2, 4, 8, 10)
        ]
        spots = [point + torch.tensor(way, dtype=at.dtype) for way in ways]
        free = (
            number
            for number, spot in enumerate(spots)
            if not any(
                abs(float((spot - x)[0])) < w and abs(float((spot - x)[1])) < h for x, w, h in taken
            )
        )
        best = next(free, 0)
        taken.append((spots[best], 16.0, 10.0))
        moved.append(ways[best])
    return moved
