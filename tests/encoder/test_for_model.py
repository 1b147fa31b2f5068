"""`Encoder.for_model(lm)(texts)`: solutions without a step, from the encoder that ships."""

import pytest

import prototokens as pt
from prototokens.encoder.starts import raw
from prototokens.errors import UsageError

TEXTS = ["The sea was calm.", "It was dark."]


@pytest.fixture(scope="module")
def builtin():
    return pt.FrozenLM.from_pretrained("builtin")


def test_texts_become_solutions_that_decode(builtin):
    encoder = pt.Encoder.for_model(builtin)
    ids = [builtin.tokenize(text) for text in TEXTS]
    solutions = encoder([TEXTS[0], ids[1]])
    assert solutions == raw(builtin, encoder, ids)
    decoded = pt.decode_ids(builtin, solutions).ids
    for solution, target, got in zip(solutions, ids, decoded, strict=True):
        assert solution.ids == tuple(target)
        assert solution.correct == sum(a == b for a, b in zip(got, target, strict=True))
        assert solution.steps == 0
        assert solution.fingerprint == builtin.fingerprint
    (one,) = encoder(TEXTS[:1])
    assert encoder(TEXTS[0]).ids == one.ids
    assert encoder([]) == []


def test_a_layout_is_found_or_refused(builtin):
    layout = pt.Encoder.for_model(builtin).layout
    assert pt.Encoder.for_model(builtin, layout.name).layout == layout
    with pytest.raises(UsageError, match="no encoder ships for 'builtin' and layout 'paper'"):
        pt.Encoder.for_model(builtin, "paper")


def test_other_models_and_targets_are_refused_in_words(builtin, tiny_llama):
    with pytest.raises(UsageError, match="no encoder ships for 'tiny-llama'"):
        pt.Encoder.for_model(tiny_llama)
    encoder = pt.Encoder.for_model(builtin)
    with pytest.raises(TypeError, match="takes as targets a text"):
        encoder(3)
    loaded = pt.Encoder.load(encoder.path)
    with pytest.raises(UsageError, match="has no model to run"):
        loaded(TEXTS)
