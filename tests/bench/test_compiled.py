"""A compiled body has met every shape of a comparison before its clocks run."""

import pytest

import prototokens as pt
from prototokens.bench.compare import meet_shapes


class Watched:
    """In place of a compiled body: the body itself, with a note of the shapes it is given."""

    def __init__(self, body):
        self.body, self.shapes = body, []

    def __call__(self, *, inputs_embeds, **options):
        self.shapes.append(tuple(inputs_embeds.shape))
        return self.body(inputs_embeds=inputs_embeds, **options)


@pytest.mark.parametrize(("count", "length"), [(1, 3), (9, 3), (40, 5)])
def test_no_shape_is_new_to_the_fits_that_are_timed(tiny_llama, monkeypatch, count, length):
    monkeypatch.setattr("prototokens.engine.memory.USEFUL_POSITIONS", {"cpu": 256})
    targets = [[(3 * row + position) % 40 for position in range(length)] for row in range(count)]
    watched = Watched(tiny_llama._body)
    monkeypatch.setattr(tiny_llama, "_compiled", watched)
    assert meet_shapes(tiny_llama, targets) > 0
    met = set(watched.shapes)
    watched.shapes.clear()
    pt.fit(tiny_llama, targets, recipe=pt.Recipe.named("fast", steps=40), seed=list(range(count)))
    assert set(watched.shapes) <= met
