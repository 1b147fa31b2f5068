"""Charts of the page: axes, labels, values under the pointer, and nothing that is markup."""

import re
from html import unescape

import pytest
import torch

import prototokens as pt
from prototokens.explorer import charts, depths, style
from prototokens.explorer.charts import Axis, Cell, Line
from prototokens.explorer.vectors import portraits
from prototokens.measure.inside import look


def words(html):
    return unescape(re.sub("<[^>]+>", " ", html))


def test_lines_have_labelled_axes_ticks_and_a_legend():
    chart = charts.lines(
        "Loss",
        Axis("step", 0),
        Axis("nats", 0, 1),
        [Line("one", [0, 50, 100], [1.0, 0.5, 0.25]), Line("other", [0, 100], [0.0, 1.0])],
    )
    assert chart.count("<polyline") == 2
    assert 'points="0.00,0.00 50.00,50.00 100.00,75.00"' in chart
    assert re.findall(r'<i style="bottom:([\d.]+)%">([\d.]+)</i>', chart)[:2] == [
        ("0.0", "0"),
        ("20.0", "0.2"),
    ]
    assert re.findall(r'<i style="left:([\d.]+)%">([\d.]+)</i>', chart)[-1] == ("100.0", "100")
    for label in ("step", "nats", "one", "other"):
        assert label in words(chart)
    assert charts.lines("Loss", Axis("step"), Axis("nats"), [Line("one", [0], [1.0])]) == ""


def test_the_pointer_is_told_the_value_of_every_line():
    chart = charts.lines(
        "A", Axis("t"), Axis("share", 0, 1, percent=True), [Line("a", [0, 1, 2], [0, 0.5, 1])]
    )
    assert re.findall('data-tip="([^"]*)"', chart) == [
        "t: 0&#10;a 0%",
        "t: 1&#10;a 50%",
        "t: 2&#10;a 100%",
    ]
    assert "[data-tip]" in style.HEAD


def test_a_logarithmic_axis_has_powers_of_ten_and_takes_zero():
    chart = charts.lines(
        "Loss", Axis("step"), Axis("nats", log=True), [Line("a", [0, 1, 2], [20.0, 0.5, 0.0])]
    )
    assert re.findall(r'<i style="bottom:[\d.]+%">([\d.]+)</i>', chart) == ["0.1", "1", "10", "100"]
    assert 'points="0.00,23.30 50.00,76.70 100.00,100.00"' in chart


def test_a_long_line_has_few_points_and_keeps_its_ends():
    many = list(range(1000))
    chart = charts.lines("A", Axis("x"), Axis("y"), [Line("a", many, many)])
    points = re.search('points="([^"]*)"', chart)[1].split()
    assert len(points) == charts.MAX_POINTS
    assert (points[0], points[-1]) == ("0.00,100.00", "100.00,0.00")


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0, float("nan"), float("inf")])
def test_a_line_that_is_flat_or_not_finite_can_be_drawn(value):
    for log in (False, True):
        chart = charts.lines("A", Axis("x"), Axis("y", log=log), [Line("a", [0, 1], [value] * 2)])
        assert "polyline" in chart
        assert "nan," not in chart
        assert ",nan" not in chart


def test_a_heat_map_has_heads_values_and_depths_of_colour():
    heat = charts.heat("from / to", ["B"], [("A", [Cell("0.5", "A to B: 0.50", 0.5)])], "distances")
    assert re.sub(" +", " ", words(heat)).split() == ["from", "/", "to", "B", "A", "0.5"]
    assert "--pt-a:0.50" in heat
    assert 'data-tip="A to B: 0.50"' in heat
    assert 'aria-label="distances"' in heat


def test_names_on_a_plane_stand_apart_and_axes_are_labelled():
    points = torch.tensor([[-7.5, 6.1], [-6.7, -9], [0, 5.9], [5.1, -1.4], [4, -0.6], [5.1, -1.0]])
    names = ["A1", "A2", "A3", "B1", "B2", "B3"]
    plane = charts.plane(points, names, ("across", "up"), "a map")
    for name in (*names, "across", "up"):
        assert f">{name}</text>" in plane
    marks = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', plane)
    assert len(marks) == 6
    at = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="middle">[AB]\d<', plane)
    labels = [(float(x), float(y) - 4) for x, y in at]
    for number, (x, y) in enumerate(labels):
        for other in labels[:number]:
            assert abs(x - other[0]) >= 16 or abs(y - other[1]) >= 10
        for cx, cy in marks:
            assert abs(x - float(cx)) >= 10 or abs(y - float(cy)) >= 8


def test_nothing_of_a_chart_is_markup():
    nasty = '<img src=x onerror="alert(1)">'
    made = [
        charts.lines(nasty, Axis(nasty), Axis(nasty), [Line(nasty, [0, 1], [0, 1])] * 2),
        charts.heat(nasty, [nasty], [(nasty, [Cell(nasty, nasty, 1)])], nasty),
        charts.plane(torch.zeros(1, 2), [nasty], (nasty, nasty), nasty),
    ]
    for html in made:
        assert "<img" not in html
        assert '="alert' not in html


@pytest.fixture
def inside(tiny_llama):
    return look(tiny_llama, pt.fit(tiny_llama, "Call me.", recipe=pt.Recipe.named("fast", steps=3)))


def test_every_token_depth_and_head_has_its_cell_with_its_value(inside, tiny_llama):
    tokens = [tiny_llama.detokenize([token]) for token in inside.ids.tolist()]
    texts = {token: tiny_llama.detokenize([token]) for token in range(tiny_llama.known_ids)}
    seen, heads = len(inside.knockout.margin), inside.attention.shape[1]
    for html, columns in (
        (depths.lens(inside, tokens, texts), len(inside.lens.ids)),
        (depths.knocked_out(inside, tokens), seen),
        (depths.positions(inside, tokens, 1, None), len(inside.attention)),
        (depths.positions(inside, tokens, 1, 0), heads),
    ):
        assert html.count("data-tip") == html.count("<td") == len(tokens) * columns
        assert "<img" not in html
    assert depths.heads(inside).count("<td") == inside.attention[:, :, 0].numel()
    margin = float(inside.knockout.margin[0, 2])
    assert f"no block sees e: margin {margin:.2f}" in unescape(depths.knocked_out(inside, tokens))
    share = float(inside.attention[1, :, 3, 1].mean())
    assert f"layer 2: {share:.1%}" in depths.positions(inside, tokens, 1, None)


def test_portraits_are_norms_and_cosines(tiny_llama):
    table = tiny_llama.embedding_weight[: tiny_llama.known_ids].float()
    protos = torch.stack([3 * table[17], -table[4]])
    first, second = portraits(tiny_llama, protos)
    assert first.nearest[0] == (17, pytest.approx(1.0, abs=1e-5))
    assert first.norm == pytest.approx(3 * float(table[17].norm()), rel=1e-5)
    assert first.times == pytest.approx(first.norm / float(table.norm(dim=1).median()), rel=1e-5)
    cosines = torch.nn.functional.cosine_similarity(-table[4][None], table)
    assert [token for token, _ in second.nearest] == cosines.topk(5).indices.tolist()
