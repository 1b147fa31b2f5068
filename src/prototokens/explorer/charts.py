"""Charts as HTML and SVG: lines over axes, heat maps, points on a plane.

Lines are stretched to the width of the page while letters keep their size, so a chart is as sharp
and as readable on a phone as on a desk. What the pointer is on shows its value: `data-tip`, which
`style.HEAD` shows. Text that a visitor or a file can have put there is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

MAX_POINTS = 200  # of a line; more are thinned out
TICKS = 5  # about so many on an axis
PLANE, EDGE, BELOW = (420, 320), 44, 40  # size of a plane; room left of it and below it
NEAR = 13.0  # units between a mark on a plane and the middle of its label
COLOURS = ("blue", "amber", "green", "violet")


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
        name: in the legend, and in the tooltip.
        x, y: its points.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Axis(NamedTuple):
    """An axis: what it shows, and its ends where they are known beforehand.

    Attributes:
        name: with the unit.
        low, high: ends; None: those of the values.
        log: whether it is logarithmic.
        percent: whether values are shares, to be written as percentages.
    """

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    percent: bool = False


class Cell(NamedTuple):
    """A cell of a heat map.

    Attributes:
        text: in it.
        tip: the tooltip.
        share: how deep its colour is, from 0 to 1.
        colour: one of those that the style sheet names (`--pt-blue` ...).
        framed: whether it is marked.
    """

    text: str
    tip: str
    share: float
    colour: str = "blue"
    framed: bool = False


def lines(title: str, x: Axis, y: Axis, drawn: Sequence[Line], mark: float | None = None) -> str:
    """Lines over labelled axes; nothing where no line has two points.

    Args:
        mark: a value of x at which a dashed line stands.
    """
    drawn = [_thinned(one) for one in drawn if len(one.x) > 1]
    if not drawn:
        return ""
    x = _ends(x, [value for one in drawn for value in one.x])
    y = _ends(y, [value for one in drawn for value in one.y])
    paths = "".join(
        f'<polyline fill="none" stroke="rgb(var(--pt-{_colour(number)}))" stroke-width="2"'
        f' stroke-dasharray="{"none" if number % 2 == 0 else "5 3"}" stroke-linejoin="round"'
        ' vector-effect="non-scaling-stroke" points="'
        + " ".join(
            f"{100 * _place(x, a):.2f},{100 - 100 * _place(y, b):.2f}"
            for a, b in zip(one.x, one.y, strict=True)
        )
        + '"/>'
        for number, one in enumerate(drawn)
    )
    grid = "".join(
        f'<path d="M0 {100 - 100 * _place(y, at):.2f}H100" stroke="var(--pt-line)"'
        ' stroke-width="0.6" vector-effect="non-scaling-stroke"/>'
        for at in _ticks(y)
    )
    left = "".join(
        f'<i style="bottom:{100 * _place(y, at):.1f}%">{_written(y, at)}</i>' for at in _ticks(y)
    )
    under = "".join(
        f'<i style="left:{100 * _place(x, at):.1f}%">{_written(x, at)}</i>' for at in _ticks(x)
    )
    marked = "" if mark is None else f'<b style="left:{100 * _place(x, mark):.1f}%"></b>'
    return (
        '<figure class="pt-chart" role="img"'
        f' aria-label="{escape(_described(title, x, y, drawn))}">'
        f"<figcaption><b>{escape(title)}</b>: {escape(y.name)}</figcaption>{_keys(drawn)}"
        f'<div class="pt-plot"><div class="pt-y">{left}</div><div class="pt-area">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{grid}{paths}</svg>{marked}'
        f'{_tips(x, y, drawn)}</div><div class="pt-x">{under}</div>'
        f'<div class="pt-xname">{escape(x.name)}</div></div></figure>'
    )


def _described(title: str, x: Axis, y: Axis, drawn: Sequence[Line]) -> str:
    """A chart in words, for who cannot see it: the first and the last value of each line."""
    ends = "; ".join(
        f"{one.name}: {_written(y, one.y[0])} at {_written(x, one.x[0])},"
        f" {_written(y, one.y[-1])} at {_written(x, one.x[-1])}"
        for one in drawn
    )
    return f"{title}, {y.name} over {x.name}. {ends}"


def _keys(drawn: Sequence[Line]) -> str:
    """The legend, where there are several lines."""
    if len(drawn) < 2:
        return ""
    keys = "".join(
        f'<span><i style="border-color:rgb(var(--pt-{_colour(number)}));'
        f'border-top-style:{"solid" if number % 2 == 0 else "dashed"}"></i>{escape(one.name)}'
        "</span>"
        for number, one in enumerate(drawn)
    )
    return f'<div class="pt-keys">{keys}</div>'


def _tips(x: Axis, y: Axis, drawn: Sequence[Line]) -> str:
    """A strip for each value of x, which shows the values of all lines there."""
    values: dict[float, list[str]] = {}
    for one in drawn:
        for at, value in zip(one.x, one.y, strict=True):
            values.setdefault(at, []).append(f"{one.name} {_written(y, value)}")
    places = sorted((_place(x, at), at) for at in values)
    edges = [
        0.0,
        *((one[0] + other[0]) / 2 for one, other in pairwise(places)),
        1.0,
    ]
    return "".join(
        f'<i style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"'
        f' data-tip="{_told([f"{x.name}: {_written(x, at)}", *values[at]])}"></i>'
        for (low, high), (_, at) in zip(pairwise(edges), places, strict=True)
    )


def _told(parts: Sequence[str]) -> str:
    """The lines of a tooltip, as the value of an attribute."""
    return "&#10;".join(escape(part) for part in parts)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _thinned(one: Line) -> Line:
    """At most `MAX_POINTS` of the points, evenly spread, the last among them."""
    count = len(one.x)
    if count <= MAX_POINTS:
        return one
    kept = [round(number * (count - 1) / (MAX_POINTS - 1)) for number in range(MAX_POINTS)]
    return Line(one.name, [one.x[at] for at in kept], [one.y[at] for at in kept])


def _ends(axis: Axis, values: Sequence[float]) -> Axis:
    """The axis with both its ends, which differ."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not axis.log)]
    low = min(finite, default=1.0) if axis.low is None else axis.low
    high = max(finite, default=1.0) if axis.high is None else axis.high
    if axis.log:
        low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
    if high <= low:
        high = low * 10 if axis.log else low + 1.0
    return axis._replace(low=low, high=high)


def _place(axis: Axis, value: float) -> float:
    """Where a value lies on an axis, from 0 to 1; beyond its ends, at them."""
    low, high = axis.low or 0.0, axis.high or 0.0
    if axis.log:
        value, low, high = (math.log10(max(one, 1e-30)) for one in (value, low, high))
    if not math.isfinite(value):
        return 0.0
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _ticks(axis: Axis) -> list[float]:
    """Round numbers between the ends of an axis, about `TICKS` of them."""
    low, high = axis.low or 0.0, axis.high or 0.0
    if axis.log:
        first, last = round(math.log10(low)), round(math.log10(high))
        every = max(1, -(-(last - first) // TICKS))
        return [10.0**power for power in range(first, last + 1, every)]
    rough = (high - low) / TICKS
    unit = 10 ** math.floor(math.log10(rough))
    step = next((unit * times for times in (1, 2, 5) if unit * times >= rough), unit * 10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _written(axis: Axis, value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    if axis.percent:
        return f"{value:.0%}"
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.3g}"


def heat(
    corner: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    words: str,
    wide: bool = False,
) -> str:
    """A heat map: a table of coloured cells, its heads in sight when it is moved.

    Args:
        corner: what the heads of rows and columns are.
        words: the whole in words, for who cannot see it.
        wide: whether cells hold words, and not numbers.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in (corner, *columns))
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(_cell(one) for one in cells)}</tr>"
        for name, cells in rows
    )
    kind = "pt-heat pt-words" if wide else "pt-heat"
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(words)}">'
        f"<table><tr>{head}</tr>{body}</table></div>"
    )


def _cell(one: Cell) -> str:
    share = min(1.0, max(0.0, one.share))
    framed = ' class="pt-first"' if one.framed else ""
    return (
        f'<td{framed} style="--pt-of:var(--pt-{one.colour});--pt-a:{share:.2f}"'
        f' data-tip="{escape(one.tip)}">{escape(one.text)}</td>'
    )


def plane(
    points: Float[Tensor, "count 2"], names: Sequence[str], axes: tuple[str, str], words: str
) -> str:
    """Points with their names on labelled axes of one scale, a colour for each first letter.

    Names stand where they hide neither points nor each other.
    """
    width, height = PLANE
    low, high = points.min(0).values, points.max(0).values
    span = float((high - low).max()) * 1.3 or 1.0
    middle = (low + high) / 2
    unit = min(width - EDGE, height - BELOW) / span
    centre = torch.tensor([EDGE + (width - EDGE) / 2, (height - BELOW) / 2], dtype=points.dtype)
    at = centre + (points - middle) * unit * torch.tensor([1.0, -1.0], dtype=points.dtype)
    letters = sorted({name[0] for name in names})
    parts = [_scale(axes, middle.tolist(), unit)]
    for (x, y), name, (right, down) in zip(at.tolist(), names, apart(at), strict=True):
        colour = _colour(letters.index(name[0]))
        if math.hypot(right, down) > NEAR:
            parts.append(
                f'<path d="M{x:.1f} {y:.1f}L{x + right:.1f} {y + down:.1f}"'
                ' stroke="var(--pt-line)"/>'
            )
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="rgb(var(--pt-{colour}))"'
            f' data-tip="{escape(name)}"/><text x="{x + right:.1f}" y="{y + down + 4:.1f}"'
            f' text-anchor="middle">{escape(name)}</text>'
        )
    return (
        f'<div class="pt-plane"><svg viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{escape(words)}">{"".join(parts)}</svg></div>'
    )


def _scale(axes: tuple[str, str], middle: list[float], unit: float) -> str:
    """The frame of a plane: round numbers along both axes, and their names."""
    width, height = PLANE
    bottom = height - BELOW
    across = Axis("", middle[0] - (width - EDGE) / 2 / unit, middle[0] + (width - EDGE) / 2 / unit)
    up = Axis("", middle[1] - bottom / 2 / unit, middle[1] + bottom / 2 / unit)
    parts = [f'<path d="M{EDGE} 4V{bottom}H{width}" fill="none" stroke="var(--pt-line)"/>']
    for at in _ticks(across):
        x = EDGE + _place(across, at) * (width - EDGE)
        parts.append(
            f'<text x="{min(x, width - 10):.1f}" y="{bottom + 15}" text-anchor="middle">'
            f"{_written(across, at)}</text>"
        )
    for at in _ticks(up):
        y = bottom - _place(up, at) * bottom
        parts.append(
            f'<text x="{EDGE - 5}" y="{max(y + 4, 11):.1f}" text-anchor="end">'
            f"{_written(up, at)}</text>"
        )
    parts.append(
        f'<text x="{(EDGE + width) / 2}" y="{bottom + 32}" text-anchor="middle">'
        f'{escape(axes[0])}</text><text transform="translate(11 {bottom / 2}) rotate(-90)"'
        f' text-anchor="middle">{escape(axes[1])}</text>'
    )
    return "".join(parts)


def apart(at: Float[Tensor, "count 2"]) -> list[tuple[float, float]]:
    """How far from its point each label stands, free of all points and of the labels before it.

    Args:
        at: where the points are drawn. A label is at most 16 wide and 10 high, a mark 8 in both.
    """
    taken: list[tuple[Tensor, float, float]] = [(point, 13.0, 10.0) for point in at]
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
        taken.append((spots[best], 18.0, 12.0))
        moved.append(ways[best])
    return moved
