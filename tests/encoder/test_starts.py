"""Where fits begin: at random, at an encoder's vectors, or by what has been proved."""

import itertools
import json

import pytest
import torch

import prototokens as pt
from prototokens.encoder import encoder as encoder_module
from prototokens.encoder.config import Shape
from prototokens.encoder.encoder import Encoder
from prototokens.encoder.network import make_network
from prototokens.encoder.plan import chunk_lengths, plan_with_encoder
from prototokens.encoder.shipped import shipped, without_steps
from prototokens.encoder.starts import begin, proved, raw, saves
from prototokens.errors import FileError, TextError, UsageError
from prototokens.recipe import FAST, PAPER
from prototokens.training.proof import RATES, prove, tune

TEXTS = [[5, 6, 7, 8], [3], [1, 2, 3, 4, 5, 6]]
TILED = pt.Layout.named("tiled:2")


def proof(length, encoder_seconds, encoder_exact=8):
    sides = {
        "random": {"seconds": 2.0, "exact": 8},
        "encoder": {"seconds": encoder_seconds, "exact": encoder_exact},
    }
    return {"length": length, "texts": 8, **sides}


@pytest.fixture
def at_hand(untrained, tmp_path, monkeypatch):
    """The encoder, in the place where those are that ship."""
    monkeypatch.setattr(encoder_module, "SHIPPED", tmp_path / "shipped")
    untrained.config["proof"] = [proof(2, 1.0), proof(4, 1.0), proof(5, 3.0)]
    untrained.save(tmp_path / "shipped" / "one")
    return untrained


def test_a_fit_begins_where_the_encoder_says(untrained, tiny_llama):
    """Without a step, it gives back the vectors that it began from."""
    recipe = pt.Recipe.named("fast", steps=0)
    solutions = pt.fit(tiny_llama, TEXTS, layout="tiled:2", recipe=recipe, start=untrained)
    for solution, vectors, by_itself in zip(
        solutions,
        untrained.vectors(tiny_llama, TEXTS),
        raw(tiny_llama, untrained, TEXTS),
        strict=True,
    ):
        torch.testing.assert_close(solution.protos, vectors)
        assert (solution.correct, solution.steps) == (by_itself.correct, 0)
        assert solution.margin == pytest.approx(by_itself.margin, abs=1e-4)


def test_a_fit_from_a_poor_encoder_is_exact_all_the_same(untrained, tiny_llama):
    before = tiny_llama.weights_hash()
    solutions = pt.fit(tiny_llama, TEXTS, layout="tiled:2", start=untrained)
    assert all(solution.exact for solution in solutions)
    assert pt.decode_ids(tiny_llama, solutions).ids == TEXTS
    assert tiny_llama.weights_hash() == before


def test_a_text_is_taken_as_well_as_its_ids(untrained, tiny_llama):
    recipe = pt.Recipe.named("fast", steps=0)
    by_text = pt.fit(tiny_llama, "abc", layout="tiled:2", recipe=recipe, start=untrained)
    (by_ids,) = pt.fit(
        tiny_llama, [tiny_llama.tokenize("abc")], layout="tiled:2", recipe=recipe, start=untrained
    )
    assert torch.equal(by_text.protos, by_ids.protos)
    assert torch.equal(by_text.protos, untrained.vectors(tiny_llama, [by_text.ids])[0])


def test_the_one_that_ships_is_found_by_model_and_layout(at_hand, tiny_llama, tiny_neox):
    found = shipped(tiny_llama)
    assert found is not None
    assert found.config["model"] == at_hand.config["model"]
    assert shipped(tiny_llama, pt.Layout.named("paper")) is None
    assert shipped(tiny_neox) is None
    assert all(start is not None for start in begin(tiny_llama, TEXTS, TILED, "encoder").starts)


def test_auto_takes_it_where_it_has_proved_to_save_time(at_hand, tiny_llama):
    """Up to 4 tokens here; at 5 it was slower, and beyond that nothing was tried."""
    begun = begin(tiny_llama, TEXTS, TILED, "auto")
    assert [start is not None for start in begun.starts] == [True, True, False]
    assert "2 of 3 chunks start from the encoder" in begun.words
    everything = begin(tiny_llama, [[1, 2, 3, 4, 5]], TILED, "auto")
    assert everything.starts == [None]


def test_auto_is_random_where_there_is_none(at_hand, tiny_llama, tiny_neox):
    for lm, layout in ((tiny_llama, "paper"), (tiny_neox, "tiled:2")):
        begun = begin(lm, TEXTS, pt.Layout.named(layout), "auto")
        assert begun.starts == [None] * 3
        assert "no encoder" in begun.words
    assert all(
        solution.exact for solution in pt.fit(tiny_llama, TEXTS, layout="paper", start="auto")
    )


def test_auto_is_random_for_texts_longer_than_it_was_trained_for(at_hand, tiny_llama):
    at_hand.config["proof"] = [proof(100, 1.0)]
    at_hand.save(encoder_module.SHIPPED / "one")
    assert begin(tiny_llama, [list(range(7)), [1]], TILED).starts[0] is None
    assert begin(tiny_llama, [list(range(7)), [1]], TILED).starts[1] is not None


def test_a_start_that_loses_texts_does_not_count_as_saving(untrained):
    untrained.config["proof"] = [proof(4, 1.0, encoder_exact=7)]
    assert not saves(untrained.config["proof"][0])
    assert not proved(untrained, 4)
    untrained.config["proof"] = []
    assert not proved(untrained, 4)


def test_a_proof_fits_every_text_both_ways(untrained, tiny_llama):
    texts = [ids[:1] * 3 for ids in TEXTS]
    row = prove(tiny_llama, untrained, texts, log=(lines := []).append)
    assert row["random"]["exact"] == row["encoder"]["exact"] == row["texts"] == 3
    assert min(row[way]["row_steps"] for way in ("random", "encoder")) >= 3
    assert lines[-1].startswith("3 tokens: 3 of 3")


def test_a_rate_is_chosen_among_those_that_lose_no_text(untrained, tiny_llama):
    row = tune(tiny_llama, untrained, [ids[:1] * 3 for ids in TEXTS], log=(lines := []).append)
    assert [one["rate"] for one in row["tried"]] == list(RATES)
    assert len(lines) == len(RATES)
    most = max(one["exact"] for one in row["tried"])
    cheapest = min(
        (one for one in row["tried"] if one["exact"] == most), key=lambda one: one["row_steps"]
    )
    assert (row["rate"], row["length"], row["texts"]) == (cheapest["rate"], 3, 3)


def test_fits_go_on_from_an_encoder_at_the_rate_that_was_found(at_hand, tiny_llama):
    at_hand.config["rates"] = [{"length": 2, "rate": 0.5}, {"length": 4, "rate": 0.1}]
    assert [at_hand.rate(length) for length in (1, 2, 3, 4, 5)] == [0.5, 0.5, 0.1, 0.1, 1.0]
    assert [
        start.lr_scale for start in begin(tiny_llama, [[1, 2], [3]], TILED, at_hand).starts
    ] == [
        0.5,
        0.5,
    ]
    at_hand.save(encoder_module.SHIPPED / "one")
    assert [start.lr_scale for start in begin(tiny_llama, [[1, 2], [3, 4, 5]], TILED).starts] == [
        0.5,
        0.1,
    ]


def test_starts_that_cannot_be_are_refused_in_words(at_hand, untrained, tiny_llama, tiny_neox):
    with pytest.raises(UsageError, match="none of random, encoder, auto"):
        pt.fit(tiny_llama, TEXTS, start="best")
    with pytest.raises(UsageError, match="no encoder"):
        pt.fit(tiny_llama, TEXTS, layout="paper", start="encoder")
    with pytest.raises(UsageError, match="layout"):
        pt.fit(tiny_llama, TEXTS, layout="paper", start=untrained)
    with pytest.raises(FileError, match="fingerprint"):
        pt.fit(tiny_neox, TEXTS, layout="tiled:2", start=untrained)
    with pytest.raises(TextError, match="chunks"):
        pt.fit(tiny_llama, [list(range(7))], layout="tiled:2", start="encoder")
    with pytest.raises(TextError, match="0 tokens"):
        pt.fit(tiny_llama, [[]], layout="tiled:2", start=untrained)


@pytest.mark.parametrize("tokens", [1, 5, 6, 7, 12, 13, 100])
def test_long_texts_are_cut_into_few_chunks_of_like_length(tokens, untrained, tiny_llama):
    lengths = chunk_lengths(untrained, tokens)
    assert sum(lengths) == tokens
    assert 1 <= min(lengths) <= max(lengths) <= untrained.shape.max_length
    assert max(lengths) - min(lengths) <= 1
    assert len(lengths) == -(-tokens // 6)


def test_zero_step_chunks_use_the_encoders_reliable_length(untrained, tiny_llama):
    ids = list(range(24))
    untrained.config["held_out"] = {"rows": [held_out(2, 1.0), held_out(4, 0.96), held_out(6, 0.5)]}
    assert (
        plan_with_encoder(tiny_llama, ids, untrained, recipe=pt.Recipe(steps=0)).lengths == [4] * 6
    )
    assert plan_with_encoder(tiny_llama, ids, untrained).lengths == [6] * 4
    untrained.config["held_out"] = {"rows": [held_out(2, 0.9)]}  # nowhere: as long as it takes
    assert (
        plan_with_encoder(tiny_llama, ids, untrained, recipe=pt.Recipe(steps=0)).lengths == [6] * 4
    )


def test_with_an_encoder_the_forecast_is_its_proof(untrained, tiny_llama):
    ids = list(range(13))
    for row, row_steps, steps in ((proof(4, 1.0), 16, 2), (proof(6, 1.0, encoder_exact=6), 80, 9)):
        row["encoder"] |= {"row_steps": row_steps, "steps_median": steps}
        untrained.config["proof"].append(row)
    forecast = plan_with_encoder(tiny_llama, ids, untrained).forecast  # of 5, 5 and 3 tokens
    assert (forecast.exact, forecast.steps, forecast.chunks, forecast.row_steps) == (
        pytest.approx((0.75 * 2 + 1) / 3),
        9,
        3,
        10 + 10 + 2,
    )
    assert forecast.position_steps == 5 * 10 + 5 * 10 + 3 * 2
    assert plan_with_encoder(tiny_llama, ids, untrained, recipe=pt.Recipe(steps=0)).forecast is None
    untrained.config["proof"] = []
    assert plan_with_encoder(tiny_llama, ids, untrained).forecast is None


def test_auto_weighs_the_encoder_against_random_starts(at_hand, tiny_llama):
    ids = list(range(13))
    plain = plan_with_encoder(tiny_llama, ids, "random", vectors="auto")
    for row_steps, chosen_there in ((8, True), (8000, False)):
        at_hand.config["proof"] = [proof(6, 1.0)]
        at_hand.config["proof"][0]["encoder"] |= {"row_steps": row_steps, "steps_median": 1}
        at_hand.save(encoder_module.SHIPPED / "one")
        plan = plan_with_encoder(tiny_llama, ids, vectors="auto")
        assert (plan == plain) is not chosen_there
        if chosen_there:
            assert (plan.layout.name, plan.lengths, plan.forecast.row_steps) == (
                "tiled:2",
                [5, 4, 4],
                3.0,
            )
        for others in (
            {"vectors": None},
            {"vectors": "auto", "length": 4},
            {"vectors": "auto", "recipe": PAPER},
        ):
            alone = {**others, "start": "random"}
            assert plan_with_encoder(tiny_llama, ids, **others) == plan_with_encoder(
                tiny_llama, ids, **alone
            )


def test_auto_tries_the_encoder_on_the_text_before_it_cuts_all_of_it_for_it(at_hand, tiny_llama):
    """What it does not get right counts as fitted from a random start too, and that costs more."""
    ids = list(range(13))
    at_hand.config["proof"] = [proof(6, 1.0)]
    at_hand.config["proof"][0]["encoder"] |= {"row_steps": 8, "steps_median": 1}
    for random, chosen_there in ((8, True), (80_000, False)):
        at_hand.config["proof"][0]["random"]["row_steps"] = random
        at_hand.save(encoder_module.SHIPPED / "one")
        plan = plan_with_encoder(tiny_llama, ids, vectors="auto")
        assert (plan.layout.name == "tiled:2") is chosen_there
        assert plan.lengths == [5, 4, 4] or not chosen_there


def test_the_most_accurate_of_several_encoders_is_taken(at_hand, tiny_llama):
    for name, layout, accuracy in (("two", "tiled:3", 0.7), ("zero", "tiled:4", 0.4)):
        network = make_network(
            tiny_llama,
            Shape(layout=layout, max_length=6, width=16, layers=1, heads=2, feed_forward=32),
            0,
        )
        rows = {"rows": [held_out(2, 1.0), held_out(6, accuracy)]}
        Encoder.of(tiny_llama, network, held_out=rows).save(encoder_module.SHIPPED / name)
    assert [
        shipped(tiny_llama, layout).layout.name for layout in (None, pt.Layout.named("tiled:4"))
    ] == ["tiled:3", "tiled:4"]
    # One that is right on longer texts is better, however wrong it is on the longest.
    folder = encoder_module.SHIPPED / "zero"
    config = json.loads((folder / "config.json").read_text())
    config["held_out"]["rows"].insert(1, held_out(4, 0.96))
    (folder / "config.json").write_text(json.dumps(config))
    assert shipped(tiny_llama).layout.name == "tiled:4"


def held_out(length, accuracy):
    return {"length": length, "accuracy": accuracy, "exact": 0.0, "nats": 1.0, "texts": 8}


def test_a_damaged_shipped_encoder_is_reported(at_hand, tiny_llama):
    (encoder_module.SHIPPED / "one" / "encoder.safetensors").write_bytes(b"")
    with pytest.raises(FileError, match="damaged"):
        begin(tiny_llama, TEXTS, TILED, "auto")


class TestEncode:
    """Texts of any length: cut for the encoder, begun there, and exact whatever it gives."""

    TEXT = "Call me Ishmael."

    def test_a_required_encoder_determines_the_chunks(self, at_hand, tiny_llama):
        lines = []
        encoded = pt.encode(tiny_llama, self.TEXT, start="encoder", log=lines.append)
        assert encoded.exact
        assert encoded.header.layout == "tiled:2"
        assert max(encoded.header.chunks) <= 6
        assert pt.decode(tiny_llama, encoded) == self.TEXT
        assert len(lines) == 1
        assert str(encoder_module.SHIPPED) in lines[0]

    def test_zero_step_encoding_is_the_encoders_vectors_and_patches(self, at_hand, tiny_llama):
        encoded = pt.encode(tiny_llama, self.TEXT, start=at_hand, recipe=pt.Recipe(steps=0))
        assert set(encoded.header.steps) == {0}
        assert encoded.header.chunks == (6, 6, 4)
        assert encoded.header.patched + sum(len(ids) for ids in encoded.extras.stored.values()) > 0
        assert pt.decode(tiny_llama, encoded) == self.TEXT
        rough = pt.encode(
            tiny_llama,
            self.TEXT,
            start=at_hand,
            recipe=pt.Recipe(steps=0),
            inexact="keep",
        )
        assert not rough.exact
        vectors = torch.cat(
            at_hand.vectors(tiny_llama, _cut(tiny_llama.tokenize(self.TEXT), rough.header.chunks))
        )
        torch.testing.assert_close(rough.vectors, vectors)

    def test_without_a_step_auto_is_the_encoder(self, at_hand, tiny_llama):
        lines, recipe = [], pt.Recipe.named("fast", steps=0)
        encoded = pt.encode(tiny_llama, self.TEXT, recipe=recipe, log=lines.append)
        assert (encoded.header.layout, encoded.header.chunks) == ("tiled:2", (6, 6, 4))
        assert "starts from" in lines[0]
        assert (
            pt.encode(tiny_llama, self.TEXT, layout="paper", recipe=recipe).header.layout == "paper"
        )
        assert without_steps(tiny_llama, "auto", None, None, FAST) == "auto"
        assert without_steps(tiny_llama, "auto", None, 2, recipe) == "auto"
        assert without_steps(tiny_llama, "random", None, None, recipe) == "random"

    def test_auto_leaves_the_plan_alone(self, at_hand, tiny_llama):
        lines = []
        encoded = pt.encode(
            tiny_llama, self.TEXT, layout="tiled:2", chunk_length=4, log=lines.append
        )
        assert encoded.exact
        assert "4 of 4 chunks start from the encoder" in lines[0]
        pt.encode(tiny_llama, self.TEXT, layout="tiled:2", chunk_length=5, log=lines.append)
        assert "1 of 4 chunks start from the encoder" in lines[1]

    def test_what_cannot_be_is_refused(self, at_hand, tiny_llama, tiny_neox):
        with pytest.raises(UsageError, match="and layout 'paper': train one"):
            pt.encode(tiny_llama, self.TEXT, start="encoder", layout="paper")
        with pytest.raises(UsageError, match="there is no encoder for 'tiny-gpt_neox'"):
            pt.encode(tiny_neox, self.TEXT, start="encoder")
        with pytest.raises(FileError, match="fingerprint"):
            pt.encode(tiny_neox, self.TEXT, start=at_hand)
        with pytest.raises(TextError, match="trained for 1 to 6"):
            pt.encode(tiny_llama, self.TEXT, start=at_hand, chunk_length=7)


def _cut(ids, lengths):
    ends = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
    return [ids[start:end] for start, end in itertools.pairwise(ends)]
