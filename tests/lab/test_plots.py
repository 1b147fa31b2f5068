"""Figures show the given values, in series that differ by more than colour, without warnings."""

import math
import statistics

import numpy as np
import pytest

from prototokens.lab import plots
from prototokens.lab.plots import Panel, Series
from prototokens.lab.report import save_figure


def test_lines_show_their_values_and_bands():
    figure = plots.lines(
        Panel("title", "tokens", "accuracy", log_x=True, x_ticks=(4, 8), y_range=(0, 1)),
        [
            Series("one", [0.5, 0.25], [4, 8], [0.4, 0.2], [0.6, 0.3]),
            Series("two", [0.1, 0.2], [4, 8]),
        ],
    )
    (axes,) = figure.axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0.5, 0.25], [0.1, 0.2]]
    assert len(axes.collections) == 1  # one band
    assert axes.get_ylim() == (0, 1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "8"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]


def test_series_differ_by_more_than_colour():
    names = [str(number) for number in range(8)]
    figure = plots.lines(Panel(), [Series(name, [1.0, 2.0], [0, 1]) for name in names])
    looks = [(line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines]
    assert len({marker for marker, _ in looks}) == len(names)
    bars = plots.bars(Panel(), ["a"], [Series(name, [1.0]) for name in names])
    assert len({patch.get_hatch() for patch in bars.axes[0].patches}) == len(names)


def brightness(colour):
    """Relative luminance of a colour (WCAG 2.1)."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_no_colour_drowns_on_white():
    for colour in plots.COLOURS:
        assert 1.05 / (brightness(colour) + 0.05) > 1.9, colour


def test_bars_stand_side_by_side_and_a_gap_stays_one():
    figure = plots.bars(
        Panel(),
        ["a", "b"],
        [Series("x", [1.0, math.nan], (), [0.5, math.nan], [1.5, math.nan]), Series("y", [2, 3])],
    )
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert heights[0] == 1
    assert math.isnan(heights[1])
    assert heights[2:] == [2, 3]


def test_rays_are_named_by_their_slope():
    figure = plots.scatter(Panel(), [Series("", [1, 2], [10, 20])], rays=(1, 0.5, 0.2, 10))
    named = {text.get_text(): text.xy for text in figure.axes[0].texts}
    assert set(named) == {"y = x", "y = x / 2", "y = x / 5", "y = 10 x"}
    for name, slope in (("y = x", 1), ("y = x / 5", 0.2), ("y = 10 x", 10)):
        x, y = named[name]
        assert y == pytest.approx(slope * x)


def test_density_integrates_to_one_and_marks_the_median():
    sample = np.random.default_rng(0).normal(0.5, 0.1, 400).tolist()
    figure = plots.densities(Panel(), {"a": sample, "none": [], "one": [0.4]})
    curve = figure.axes[0].lines[0]
    x, y = curve.get_xdata(), curve.get_ydata()
    assert float(np.trapezoid(y, x)) == pytest.approx(1, abs=0.02)
    # Kernel by kernel, at one point in ten; the width by Silverman's rule.
    quarter, three = np.percentile(sample, [25, 75])
    width = 0.9 * min(statistics.stdev(sample), (three - quarter) / 1.34) * len(sample) ** -0.2
    for index in range(0, len(x), 10):
        slow = sum(math.exp(-0.5 * ((x[index] - value) / width) ** 2) for value in sample)
        assert y[index] == pytest.approx(
            slow / (len(sample) * width * math.sqrt(2 * math.pi)), abs=1e-9
        )
    medians = [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert float(np.median(sample)) in medians


def test_a_logarithmic_axis_can_begin_at_zero():
    figure = plots.lines(Panel(log_x_from=1e6), [Series("", [1.0, 2.0, 3.0], [0, 1e6, 6e7])])
    (axes,) = figure.axes
    pixels = axes.transData.transform([(x, 1.0) for x in (0, 1e6, 6e7)])[:, 0]
    assert pixels[0] < pixels[1] < pixels[2]
    assert axes.xaxis.get_major_formatter()(2e7) == "20M"


def test_panels_of_like_series_have_one_legend(tmp_path):
    def draw(names):
        return lambda axes: plots.draw_lines(axes, [Series(name, [1, 2], [1, 2]) for name in names])

    alike = plots.panels([(Panel("a"), draw("xy")), (Panel("b"), draw("xy"))])
    assert len(alike.legends) == 1
    assert not any(axes.get_legend() for axes in alike.axes)
    unlike = plots.panels(
        [(Panel("a"), draw("xy")), (Panel("b"), draw("xz")), (Panel("c"), draw("x"))]
    )
    assert not unlike.legends
    assert all(axes.get_legend() for axes in unlike.axes)
    for suffix in ("png", "svg"):
        for number in (1, 2):  # the same figure gives the same file
            save_figure(alike, tmp_path / f"{number}.{suffix}")
        if suffix == "png":
            assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_the_style_stays_with_the_figures():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.lines(Panel(), [Series("a", [1.0], [1.0])])
    assert dict(matplotlib.rcParams) == before
