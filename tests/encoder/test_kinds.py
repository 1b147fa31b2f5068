"""Rates by kind of text: the texts, the rows, and the card that ships."""

import json
from pathlib import Path

import pytest

import prototokens as pt
from prototokens.encoder.encoder import SHIPPED, Encoder
from prototokens.training.card import write_card
from prototokens.training.evaluate import by_kind
from prototokens.training.kinds import CODE, GERMAN, texts_of

SOURCES = {"uniform ids": "random-tokens"}


@pytest.mark.parametrize("kind", [CODE, GERMAN, "uniform ids"])
def test_texts_of_a_kind_are_the_same_again_and_differ_from_one_another(kind, tiny_llama):
    texts = texts_of(kind, tiny_llama, 12, 16, SOURCES)
    assert texts == texts_of(kind, tiny_llama, 12, 16, SOURCES)
    assert {len(ids) for ids in texts} == {16}
    assert len(set(texts)) > 6
    assert texts != texts_of(kind, tiny_llama, 12, 16, SOURCES, seed=1)


def test_german_is_german_and_code_is_code(tiny_llama):
    first = {"Der", "Die", "Das", "Ein", "Unser", "Kein", "Meine"}
    for ids in texts_of(GERMAN, tiny_llama, 20, 90, {}):
        assert tiny_llama.detokenize(ids).split()[0] in first
    code = "".join(tiny_llama.detokenize(ids) for ids in texts_of(CODE, tiny_llama, 40, 90, {}))
    assert "self" in code
    assert "return" in code


def test_rows_count_what_comes_out_and_what_the_encoder_knows_of_it(untrained, tiny_llama):
    found = by_kind(tiny_llama, untrained, SOURCES, 5, [3, 6])
    assert [(row["kind"], row["length"]) for row in found["rows"]] == [
        (kind, length) for kind in ("uniform ids", CODE, GERMAN) for length in (3, 6)
    ]
    assert found["dtype"] == "float32"
    for row in found["rows"]:
        assert row["texts"] == 5
        assert 0 <= row["exact"] <= row["accuracy"] <= 1
        assert row["reached"] == 0, "without refinements it never looks"


@pytest.mark.parametrize("name", ["mixed-4", "tiled-8"])
def test_the_cards_that_ship_are_made_from_their_rows(name):
    encoder = Encoder.load(SHIPPED / name)
    assert (SHIPPED / name / "README.md").read_text(encoding="utf-8") == write_card(encoder)
    rows = json.loads(Path(SHIPPED / name / "config.json").read_text())["kinds"]["rows"]
    assert {row["kind"] for row in rows} >= {CODE, GERMAN, "random words", "uniform ids"}
    assert min(row["texts"] for row in rows) >= 100
    if encoder.shape.refinements:
        assert all(row["reached"] == round(row["exact"] * row["texts"]) for row in rows)


def test_the_encoders_that_ship_know_the_response_of_the_model():
    lm = pt.FrozenLM.from_pretrained("builtin")
    for name in ("mixed-4", "tiled-8"):
        encoder = Encoder.load(SHIPPED / name)
        assert encoder.config["model"]["response"]
        encoder.check(lm)
