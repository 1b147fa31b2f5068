"""Drawing into a pair of axes: lines, points, bars and densities, distinguishable without colour.

Colours are Okabe and Ito's (2008), distinguishable to people of any colour vision. Every series
also has a marker, a dash or a hatch of its own, so that a figure survives a grey printer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
LETTERS = 62  # of a legend's line under a figure of full width
INK, MUTED, FAINT = "#1f2328", "#5b646d", "#d8dee4"


@dataclass(frozen=True)
class Series:
    """What one line, one cloud of points or one run of bars shows.

    Attributes:
        name: in the legend; "" leaves it out.
        x: positions; for `bars`, the names of the groups are given apart, and this stays empty.
        y: values.
        low, high: ends of the interval about each value, drawn as a band or as whiskers; both or
            neither.
        over: words over each bar.
    """

    name: str
    y: Sequence[float]
    x: Sequence[float] = ()
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    over: Sequence[str] = ()


def draw_lines(axes: Axes, series: Sequence[Series], markers: bool = True) -> None:
    """Draw lines with bands into axes."""
    for number, one in enumerate(series):
        style: dict[str, Any] = {"color": _of(COLOURS, number), "linestyle": _of(DASHES, number)}
        if markers:
            style |= {
                "marker": _of(MARKERS, number),
                "markeredgecolor": "white",
                "markeredgewidth": 0.7,
            }
        axes.plot(one.x, one.y, label=one.name or None, zorder=3, **style)
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
        style: dict[str, Any] = {
            "color": _of(COLOURS, number),
            "marker": _of(MARKERS, number),
            "zorder": 3,
        }
        if one.low is not None and one.high is not None:
            away = [np.subtract(one.y, one.low), np.subtract(one.high, one.y)]
            axes.errorbar(
                one.x, one.y, yerr=away, fmt="none", ecolor=style["color"], alpha=0.5, linewidth=1
            )
        # Each a little smaller than the one below it, so that all points at one position show.
        size = max(20.0, 70 * 0.8**number)
        axes.scatter(
            one.x,
            one.y,
            s=size,
            edgecolors="white",
            linewidths=0.6,
            label=one.name or None,
            alpha=0.9,
            **style,
        )
    every_x = [x for one in series for x in one.x] or [1.0]
    end = max(every_x) * 1.05
    least = min([x for x in every_x if x > 0] or [end]) / 3 if log else 0.0
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
    centres = np.arange(len(groups))
    for number, one in enumerate(series):
        shift = (number - (len(series) - 1) / 2) * width
        style = {
            "color": _of(COLOURS, number),
            "hatch": _of(HATCHES, number),
            "edgecolor": "white",
            "linewidth": 0.6,
        }
        axes.bar(centres + shift, one.y, width * 0.94, label=one.name or None, zorder=3, **style)
        if one.low is not None and one.high is not None:
            away = [np.subtract(one.y, one.low), np.subtract(one.high, one.y)]
            axes.errorbar(
                centres + shift,
                one.y,
                yerr=away,
                fmt="none",
                ecolor=INK,
                elinewidth=1,
                capsize=2.5,
                zorder=4,
            )
        for centre, top, words in zip(centres, one.high or one.y, one.over, strict=False):
            if words and np.isfinite(top):
                axes.annotate(
                    words,
                    (centre + shift, top),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    zorder=5,
                )
    axes.set_xticks(centres, list(groups))
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
    margin = 0.08 * (high - low) or 0.05
    grid = np.linspace(low - margin, high + margin, 8 * bins)
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


def _legend(axes: Axes, series: Sequence[Series]) -> None:
    """Names under the axes, where nothing that is drawn can lie behind them."""
    if any(one.name for one in series):
        names = axes.get_legend_handles_labels()[1]
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncols=columns_of(names, LETTERS),
            borderaxespad=0.6,
        )


def columns_of(names: Sequence[str], letters: int) -> int:
    """How many names fit side by side."""
    return max(1, min(len(names), letters // (max(len(name) for name in names) + 6)))


def _of(cycle: Sequence[Any], number: int) -> Any:
    return cycle[number % len(cycle)]
