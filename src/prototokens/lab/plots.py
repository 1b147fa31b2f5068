"""Figures of reports, all in one style.

What is drawn comes from rows and is summarised before it gets here.

Colours are Okabe and Ito's (2008), told apart by people of any colour vision; beside its colour
every series has a marker, a dash or a hatch of its own, so that a figure survives a grey printer.
Figures are made without matplotlib's global state, and `lab.report` writes each as PNG and as SVG.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prototokens._util.extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6e7781", "#1f2328")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = (
    "-",
    (0, (5, 2)),
    (0, (1.2, 1.6)),
    (0, (5, 2, 1.2, 2)),
    (0, (9, 3)),
    (0, (3, 1.5)),
    "-",
    (0, (2, 2)),
)
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "+++", "ooo", "---")
INK, MUTED, FAINT = "#1f2328", "#5b646d", "#d8dee4"
SIZE = (6.4, 4.2)  # inches: a column of text, at which the letters below are read without zooming
NARROW = {
    1: 1.0,
    2: 0.78,
}  # width of a panel among so many side by side, as a share of a figure of its own
BARS = 24  # bars that a figure of usual width has room for
LETTERS = 62  # of a legend's line under a figure of full width
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


@dataclass(frozen=True)
class Series:
    """What one line, one cloud of points or one run of bars shows.

    Attributes:
        name: in the legend; "" leaves it out.
        x: places; for `bars`, the names of the groups are given apart, and this stays empty.
        y: values.
        low, high: ends of the interval about each value, drawn as a band or as whiskers; both or
            neither.
    """

    name: str
    y: Sequence[float]
    x: Sequence[float] = ()
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Panel:
    """A pair of axes with words: title, what is on each axis and in which unit, and how it is scaled.

    Attributes:
        log_x, log_y: a logarithmic axis; base 2 along x, where lengths double, unless both are, and
            10 along y.
        log_x_from: a logarithmic x axis of base 10 that has room for zero: from zero to this value
            it is straight.
        x_ticks: places that get a number, where the usual ones do not say enough; `x_names`: words
            in the numbers' place.
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
        elif found := [place for one in series for place in one.x]:
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


def draw_lines(axes: Axes, series: Sequence[Series], markers: bool = True) -> None:
    """Draw lines with bands into axes."""
    for number, one in enumerate(series):
        look: dict[str, Any] = {"color": _of(COLOURS, number), "linestyle": _of(DASHES, number)}
        if markers:
            look |= {
                "marker": _of(MARKERS, number),
                "markeredgecolor": "white",
                "markeredgewidth": 0.7,
            }
        axes.plot(one.x, one.y, label=one.name or None, zorder=3, **look)
        if one.low is not None and one.high is not None:
            axes.fill_between(
                one.x,
                one.low,
                one.high,
                color=_of(COLOURS, number),
                alpha=0.16,
                linewidth=0,
                zorder=2,
            )
    _legend(axes, series)


def draw_scatter(
    axes: Axes, series: Sequence[Series], rays: Sequence[float] = (), log: bool = False
) -> None:
    """Draw points, and lines through the origin as far as the furthest point.

    `log`: for logarithmic axes.
    """
    for number, one in enumerate(series):
        look: dict[str, Any] = {
            "color": _of(COLOURS, number),
            "marker": _of(MARKERS, number),
            "zorder": 3,
        }
        if one.low is not None and one.high is not None:
            away = [np.subtract(one.y, one.low), np.subtract(one.high, one.y)]
            axes.errorbar(
                one.x, one.y, yerr=away, fmt="none", ecolor=look["color"], alpha=0.5, linewidth=1
            )
        # Each a little smaller than the one below it, so that points on one place show all of them.
        size = max(20.0, 70 * 0.8**number)
        axes.scatter(
            one.x,
            one.y,
            s=size,
            edgecolors="white",
            linewidths=0.6,
            label=one.name or None,
            alpha=0.9,
            **look,
        )
    every_x = [place for one in series for place in one.x] or [1.0]
    end = max(every_x) * 1.05
    least = min([place for place in every_x if place > 0] or [end]) / 3 if log else 0.0
    for slope in rays:
        axes.plot(
            [least, end],
            [slope * least, slope * end],
            color=MUTED,
            linewidth=1,
            linestyle=(0, (4, 3)),
            zorder=1,
        )
        text = (
            "y = x"
            if slope == 1
            else f"y = {slope:,.3g} x"
            if slope > 1
            else f"y = x / {1 / slope:.3g}"
        )
        axes.annotate(
            text,
            (end, slope * end),
            fontsize=8,
            color=MUTED,
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
        )
    _legend(axes, series)


def draw_bars(axes: Axes, groups: Sequence[str], series: Sequence[Series]) -> None:
    """Draw groups of bars into axes."""
    width = 0.8 / max(1, len(series))
    places = np.arange(len(groups))
    for number, one in enumerate(series):
        shift = (number - (len(series) - 1) / 2) * width
        look = {
            "color": _of(COLOURS, number),
            "hatch": _of(HATCHES, number),
            "edgecolor": "white",
            "linewidth": 0.6,
        }
        axes.bar(places + shift, one.y, width * 0.94, label=one.name or None, zorder=3, **look)
        if one.low is not None and one.high is not None:
            away = [np.subtract(one.y, one.low), np.subtract(one.high, one.y)]
            axes.errorbar(
                places + shift,
                one.y,
                yerr=away,
                fmt="none",
                ecolor=INK,
                elinewidth=1,
                capsize=2.5,
                zorder=4,
            )
    axes.set_xticks(places, list(groups))
    axes.grid(False, axis="x")
    _legend(axes, series)


def draw_densities(axes: Axes, samples: Mapping[str, Sequence[float]], bins: int = 40) -> None:
    """Draw densities of samples into axes, on one grid.

    Where a sample has a single value, a line stands for it.
    """
    everything = np.concatenate(
        [np.zeros(0), *(np.asarray(values, dtype=np.float64) for values in samples.values())]
    )
    low, high = (everything.min(), everything.max()) if len(everything) else (0.0, 1.0)
    room = 0.08 * (high - low) or 0.05
    grid = np.linspace(low - room, high + room, 8 * bins)
    for number, (name, values) in enumerate(samples.items()):
        colour, sample = _of(COLOURS, number), np.asarray(values, dtype=np.float64)
        label = f"{name} (n = {len(sample)})"
        if len(sample) > 1 and sample.std() > 0:
            density = _smoothed(sample, grid)
            axes.plot(
                grid, density, color=colour, linestyle=_of(DASHES, number), label=label, zorder=3
            )
            axes.fill_between(grid, density, color=colour, alpha=0.13, linewidth=0, zorder=2)
        else:
            axes.plot([], [], color=colour, linestyle=_of(DASHES, number), label=label)
        if len(sample):
            axes.axvline(
                float(np.median(sample)), ymax=0.045, color=colour, linewidth=2.4, zorder=4
            )
    axes.set_yticks([])
    axes.set_ylim(bottom=0)
    _legend(axes, [Series(name, []) for name in samples])


def _smoothed(sample: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """A Gaussian kernel density, its width by Silverman's rule (1986, equation 3.31)."""
    quarter, three = np.percentile(sample, [25, 75])
    scale = min(sample.std(ddof=1), (three - quarter) / 1.34) or sample.std(ddof=1)
    width = 0.9 * scale * len(sample) ** -0.2
    density = np.zeros_like(grid)
    for part in np.array_split(sample, -(-len(sample) // 1000)):
        density += np.exp(-0.5 * ((grid[:, None] - part[None, :]) / width) ** 2).sum(1)
    return density / (len(sample) * width * np.sqrt(2 * np.pi))


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


def _legend(axes: Axes, series: Sequence[Series]) -> None:
    """Names under the axes, where nothing that is drawn can lie behind them."""
    if any(one.name for one in series):
        names = axes.get_legend_handles_labels()[1]
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncols=_columns(names, LETTERS),
            borderaxespad=0.6,
        )


def _one_legend(figure: Figure) -> None:
    """One legend under all panels, where they show the same series."""
    shown = [axes for axes in figure.axes if axes.get_legend()]
    told = [axes.get_legend_handles_labels() for axes in shown]
    if shown and len(shown) == len(figure.axes) and all(names == told[0][1] for _, names in told):
        for legend in [axes.get_legend() for axes in shown]:
            if legend:
                legend.remove()
        letters = round(LETTERS * figure.get_figwidth() / SIZE[0])
        figure.legend(*told[0], loc="outside lower center", ncols=_columns(told[0][1], letters))


def _columns(names: Sequence[str], letters: int) -> int:
    """How many names fit side by side."""
    return max(1, min(len(names), letters // (max(len(name) for name in names) + 6)))


def _of(cycle: Sequence[Any], number: int) -> Any:
    return cycle[number % len(cycle)]
