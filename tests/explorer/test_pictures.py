"""The figures of the page.

The meaning of colours and axes is written on them, and names on a map do not overlap.
"""

import pytest
import torch

import prototokens as pt
from prototokens.measure.inside import look

pytest.importorskip(
    "matplotlib", reason="matplotlib is not installed: pip install 'prototokens[plots]'"
)

from prototokens.explorer import pictures


@pytest.fixture
def inside(tiny_llama):
    return look(tiny_llama, pt.fit(tiny_llama, "Call me.", recipe=pt.Recipe.named("fast", steps=3)))


def labels(figure):
    return [axes.get_ylabel() for axes in figure.axes]


def test_every_bar_of_colours_says_its_unit(inside):
    assert {"share", "nats", "logits"} <= set(labels(pictures.trace(inside, str)))
    assert "value" in labels(pictures.vectors(torch.randn(2, 64), ["e", "m"]))


@pytest.mark.parametrize(("layer", "rows"), [(None, "layer"), (0, "head")])
def test_the_closer_figure_says_what_its_rows_are(inside, layer, rows):
    assert labels(pictures.closer(inside, str, 0, layer))[:2] == [rows, "share"]


def test_names_on_a_map_stand_apart_where_points_almost_coincide():
    points = torch.tensor(
        [[-7.5, 6.1], [-6.7, -9.0], [0.0, 5.9], [5.1, -1.4], [4.0, -0.6], [5.1, -1.0]]
    )
    figure = pictures.plane(points, ["A1", "A2", "A3", "B1", "B2", "B3"])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 6
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
    drawn = figure.axes[0].transData.transform(points.tolist())
    assert not any(box.contains(*point) for box in boxes for point in drawn)
