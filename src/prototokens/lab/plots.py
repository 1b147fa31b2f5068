"""Figures of reports, all in one style.

What is drawn comes from rows and is summarised before it gets here.

Figures are made without matplotlib's global state, and `lab.report` writes each as PNG and as SVG.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prototokens._util.extras import need
from prototokens.lab.drawing import (
    COLOURS,
    FAINT,
    INK,
    LETTERS,
    MARKERS,
    MUTED,
    Series,
    columns_of,
    draw_bars,
    draw_densities,
    draw_lines,
    draw_scatter,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (6.4, 4.2)  # inches: a column of text, at which the letters below are read without zooming
NARROW = {
    1: 1.0,
    2: 0.78,
}  # width of a panel among so many side by side, as a share of a figure of its own
BARS = 24  # bars that a figure of usual width has room for
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "text.color": INK,
    "text.parse_math": False,
    "svg.fonttype": "path",
}


__all__ = [
    "COLOURS",
    "MARKERS",
    "Panel",
    "Series",
    "bars",
    "densities",
    "draw_bars",
    "draw_densities",
    "draw_lines",
    "draw_scatter",
    "lines",
    "panels",
    "scatter",
]


@dataclass(frozen=True)
class Panel:
    """A pair of axes: its title, what is on each axis and in which unit, and its scales.

    Attributes:
        log_x, log_y: a logarithmic axis; base 2 along x, where lengths double, unless both are, and
            10 along y.
        log_x_from: a logarithmic x axis of base 10 that has room for zero: from zero to this value
            it is straight.
        x_ticks: positions that get a number, where the usual ones do not say enough; `x_names`:
            words in place of the numbers.
        y_range: lowest and highest value, where they are known beforehand.
    """

    title: str = ""
    x: str = ""
    y: str = ""
    log_x: bool = False
    log_y: bool = False
    log_x_from: float | None = None
    x_ticks: Sequence[float] | None = None
    x_names: Sequence[str] | None = None
    y_range: tuple[float, float] | None = None


def lines(panel: Panel, series: Sequence[Series], *, markers: bool = True) -> Figure:
    """Lines, each with a band between `low` and `high` where it has them."""
    return _one(panel, lambda axes: draw_lines(axes, series, markers))


def scatter(panel: Panel, series: Sequence[Series], rays: Sequence[float] = ()) -> Figure:
    """Points, and straight lines through the origin, each named beside its end.

    Args:
        rays: slopes of the lines. With them, axes begin at zero; logarithmic ones span a decade at
            least.
    """

    def draw(axes: Axes) -> None:
        draw_scatter(axes, series, rays, log=panel.log_x)
        if not rays:
            return
        if not panel.log_x:
            axes.set(xlim=(0, None), ylim=(0, None))
        elif found := [x for one in series for x in one.x]:
            axes.set_xlim(min(found) / 3, max(found) * 3)

    return _one(panel, draw)


def bars(panel: Panel, groups: Sequence[str], series: Sequence[Series]) -> Figure:
    """For each group, a bar of every series side by side, with whiskers from `low` to `high`.

    Nan leaves a gap.
    """
    crowd = len(groups) * len(series) / BARS
    return _one(
        panel, lambda axes: draw_bars(axes, groups, series), wider=min(2.5, max(1.0, crowd))
    )


def densities(panel: Panel, samples: Mapping[str, Sequence[float]], bins: int = 40) -> Figure:
    """Smoothed densities of several samples, each with its median as a tick on the axis."""
    return _one(panel, lambda axes: draw_densities(axes, samples, bins))


def panels(each: Sequence[tuple[Panel, Callable[[Axes], None]]], columns: int = 2) -> Figure:
    """Several pairs of axes in one figure.

    What draws into each is one of the `draw_` functions with its data.
    """
    columns = min(columns, len(each))
    rows = -(-len(each) // columns)
    width, height = SIZE

    def make() -> Figure:
        figure = _figure(
            width * NARROW.get(columns, 0.62) * columns,
            height * (0.9 if columns < 3 else 0.8) * rows,
        )
        for number, (panel, draw) in enumerate(each):
            axes = figure.add_subplot(rows, columns, number + 1)
            draw(axes)
            _dress(axes, panel)
        _one_legend(figure)
        return figure

    return _styled(make)


def _one(panel: Panel, draw: Callable[[Axes], None], wider: float = 1.0) -> Figure:
    def make() -> Figure:
        figure = _figure(SIZE[0] * wider, SIZE[1])
        axes = figure.add_subplot()
        draw(axes)
        _dress(axes, panel)
        _one_legend(figure)
        return figure

    return _styled(make)


def _styled(make: Callable[[], Figure]) -> Figure:
    matplotlib = need("matplotlib", "plots", "a figure")
    with matplotlib.rc_context(STYLE):
        return make()


def _figure(width: float, height: float) -> Figure:
    return need("matplotlib.figure", "plots", "a figure").Figure(
        figsize=(width, height), layout="constrained"
    )


def _dress(axes: Axes, panel: Panel) -> None:
    """Words and scales; after the drawing, so that ticks are set for what is there."""
    axes.set_title(panel.title, pad=10)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    if panel.log_x:
        axes.set_xscale("log", base=10 if panel.log_y else 2)
        if panel.log_y:
            axes.xaxis.set_major_locator(
                need("matplotlib.ticker", "plots", "a figure").LogLocator(subs=(1, 2, 5))
            )
        axes.xaxis.set_major_formatter(_plain)
        axes.xaxis.set_minor_formatter("")
    if panel.log_x_from is not None:
        axes.set_xscale("symlog", linthresh=panel.log_x_from, linscale=0.6)
        axes.xaxis.set_major_formatter(_amount)
    if panel.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_plain)
    if panel.x_ticks is not None:
        axes.set_xticks(
            list(panel.x_ticks), panel.x_names or [_plain(tick) for tick in panel.x_ticks]
        )
        axes.set_xticks([], minor=True)
    if panel.y_range is not None:
        axes.set_ylim(*panel.y_range)


def _plain(value: float, _: float | None = None) -> str:
    """A tick as a plain number: 1,000 and not ten to the third."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.3g}"


def _amount(value: float, _: float | None = None) -> str:
    """A tick as a short amount: 20M and not 20,000,000."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _one_legend(figure: Figure) -> None:
    """One legend under all panels, where they show the same series."""
    shown = [axes for axes in figure.axes if axes.get_legend()]
    legends = [axes.get_legend_handles_labels() for axes in shown]
    if (
        shown
        and len(shown) == len(figure.axes)
        and all(names == legends[0][1] for _, names in legends)
    ):
        for legend in [axes.get_legend() for axes in shown]:
            if legend:
                legend.remove()
        letters = round(LETTERS * figure.get_figwidth() / SIZE[0])
        figure.legend(
            *legends[0], loc="outside lower center", ncols=columns_of(legends[0][1], letters)
        )
