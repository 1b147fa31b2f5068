"""The figure of `prototokens trace`: every token and every vector, on scales that show them."""

from itertools import pairwise

import pytest
import torch

import prototokens as pt
from prototokens.measure.inside import look

pytest.importorskip(
    "matplotlib", reason="matplotlib is not installed: pip install 'prototokens[plots]'"
)

from prototokens.explorer import pictures

LONG = "He had never seen the sea, and now it was everywhere. " * 2


def drawn(lm, text, layout="keyed:2"):
    solution = pt.fit(lm, text, layout=layout, recipe=pt.Recipe.named("fast", steps=3))
    inside = look(lm, solution)
    return inside, pictures.trace(inside, lambda token: lm.detokenize([token]))


def titled(figure, words):
    return [axes for axes in figure.axes if words in axes.get_title(loc="left")]


def test_every_bar_of_colours_says_its_unit(tiny_llama):
    _, figure = drawn(tiny_llama, "Call me.")
    assert {"share", "nats", "logits"} <= {axes.get_ylabel() for axes in figure.axes}


def test_every_token_of_a_long_chunk_stands_beside_its_row_and_none_covers_another(tiny_llama):
    inside, figure = drawn(tiny_llama, LONG)
    (axes,) = [axes for axes in titled(figure, "attention") if axes.get_xlabel() == "to vector"]
    labels = [each.get_text() for each in axes.get_yticklabels()]
    assert len(labels) == len(inside.ids) > 64
    # What comes out of three steps is hardly the text, and may be half of a character.
    read = [tiny_llama.detokenize([token]) for token in inside.ids.tolist()]
    assert [label for label, token in zip(labels, read, strict=True) if token == " "] == [
        "␣" for token in read if token == " "
    ]
    figure.draw_without_rendering()
    boxes = [each.get_window_extent() for each in axes.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    assert all(box.x0 >= 0 for box in boxes)
    (words,) = titled(figure, "logit lens")
    assert len(words.texts) == inside.lens.ids.numel()


def test_every_vector_has_its_map_of_heads_and_its_column(tiny_llama):
    _, figure = drawn(tiny_llama, "Call me Ishmael.", "tiled:7")
    names = ["e", *(f"m_{number}" for number in range(1, 8))]
    assert [axes.get_title(loc="left") for axes in titled(figure, "attention to")] == [
        f"attention to {name}" for name in names
    ]
    (axes,) = [axes for axes in titled(figure, "attention") if axes.get_xlabel() == "to vector"]
    assert [each.get_text() for each in axes.get_xticklabels()] == names


def test_scales_reach_as_far_as_the_values_do(tiny_llama):
    """A share of a tenth is not drawn on a scale to 1, nor are margins as the largest few are."""
    inside, figure = drawn(tiny_llama, "Call me Ishmael.", "tiled:7")
    most = float(inside.attention[:, :, 1:].mean(2).max())
    for axes in titled(figure, "attention to"):
        assert axes.images[0].get_clim() == pytest.approx((0, most))
    margin = inside.knockout.margin.clone()
    margin[0, 0] = 1000.0
    changed = inside._replace(knockout=inside.knockout._replace(margin=margin))
    (axes,) = titled(pictures.trace(changed, str), "e hidden")
    assert axes.images[0].get_clim()[1] < 100


def test_where_e_gives_no_token_rows_are_those_of_the_tokens(tiny_llama):
    inside, figure = drawn(tiny_llama, "Call me.", "free")
    (axes,) = [axes for axes in titled(figure, "attention") if axes.get_xlabel() == "to vector"]
    expected = inside.attention.mean((0, 1))[1:]
    torch.testing.assert_close(torch.tensor(axes.images[0].get_array().data), expected)
    assert len(axes.get_yticklabels()) == len(expected) == 8
