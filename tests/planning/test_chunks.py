"""Where a text is cut: nothing lost, nothing too long, and no scrap at the end."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prototokens.errors import TextError, UsageError
from prototokens.layout import Layout, tiled
from prototokens.planning import chunks
from prototokens.planning.chunks import (
    LOADS,
    MAX_LENGTH,
    VECTORS,
    ChunkPlan,
    CostForecast,
    _cut,
    clock,
    plan_chunks,
    price,
)
from prototokens.planning.forecast import Curve, Forecaster
from prototokens.recipe import FAST, PAPER, Recipe

BITS = st.floats(0, 40, allow_subnormal=False)


def pieces_of(information, lengths):
    ends = torch.tensor(lengths).cumsum(0).tolist()
    return [information[end - length : end] for end, length in zip(ends, lengths, strict=True)]


@settings(max_examples=200, deadline=None)
@given(
    information=st.lists(BITS, min_size=1, max_size=200),
    budget=st.floats(0.5, 300),
    longest=st.integers(1, 64),
)
def test_pieces_hold_the_whole_text_within_both_limits(information, budget, longest):
    lengths = _cut(information, budget, longest)
    assert sum(lengths) == len(information)
    assert all(1 <= length <= longest for length in lengths)
    assert all(
        sum(piece) <= budget * (1 + 1e-9) or len(piece) == 1
        for piece in pieces_of(information, lengths)
    )


@settings(max_examples=200, deadline=None)
@given(information=st.lists(BITS, min_size=1, max_size=200), budget=st.floats(80, 300))
def test_there_are_hardly_more_pieces_than_needed(information, budget):
    """A token is half a piece at most, so each piece but the last can be half full at least."""
    lengths = _cut(information, budget, 1000)
    assert len(lengths) <= max(1, math.ceil(2 * sum(information) / budget))


@pytest.mark.parametrize("tokens", range(1, 200, 7))
@pytest.mark.parametrize("bits", [0.7, 1.0, 3.3])
def test_an_even_text_is_cut_evenly(tokens, bits):
    lengths = _cut([bits] * tokens, 13.0, 64)
    most = int(13.0 / bits)
    assert max(lengths) - min(lengths) <= 1 or min(lengths) >= most // 2
    assert len(lengths) == math.ceil(tokens / most)


def test_a_text_without_information_is_cut_by_length():
    assert _cut([0.0] * 10, 5.0, 64) == [10]
    assert _cut([0.0] * 130, 5.0, 64) == [44, 43, 43]
    assert _cut([1e-9] * 130, 5.0, 64) == [44, 43, 43]


def test_information_that_is_all_at_one_end_leaves_no_scraps():
    lengths = _cut([10.0] * 20 + [0.0] * 1000, 50.0, 256)
    assert all(length >= 4 for length in lengths)
    assert max(lengths) <= 256


@pytest.mark.parametrize("position", [0, 57, 99])
def test_a_token_of_more_information_than_a_piece_may_hold(position):
    information = [1.0] * 100
    information[position] = 1000.0
    lengths = _cut(information, 10.0, 64)
    assert sum(lengths) == 100
    alone = [piece for piece in pieces_of(information, lengths) if 1000.0 in piece]
    assert alone == [[1000.0]]
    assert all(sum(piece) <= 10 for piece in pieces_of(information, lengths) if piece != [1000.0])
    assert len(lengths) <= 2 + 100 / 5


@pytest.fixture
def curve(monkeypatch):
    """A curve of round numbers, whatever the package ships.

    Steps = 10 (tokens a vector) ** (1 + 2 bits a number).
    """
    curve = Curve({"constant": math.log(10), "density": 1.0, "crowding": 2.0}, 0.1, 0.5, {})
    monkeypatch.setattr(Curve, "of", staticmethod(lambda recipe: curve))
    return curve


def ids_of(lm, count):
    return torch.randint(0, 256, (count,), generator=torch.Generator().manual_seed(0)).tolist()


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 300),
    options=st.sampled_from(
        [
            {},
            {"layout": "paper"},
            {"layout": "free"},
            {"layout": "tiled:9"},
            {"vectors": "auto"},
            {"vectors": 3},
            {"recipe": PAPER},
        ]
    ),
)
def test_a_plan_for_a_model(tiny_llama, count, options):
    ids = ids_of(tiny_llama, count)
    plan = plan_chunks(tiny_llama, ids, **options)
    assert sum(plan.lengths) == count
    assert max(plan.lengths) <= min(MAX_LENGTH, tiny_llama.longest_target(plan.layout))
    information = (tiny_llama.surprisal(ids).double() / math.log(2)).tolist()
    assert plan.bits == pytest.approx(sum(information))
    most = max(LOADS) * plan.layout.vectors * tiny_llama.d_model
    assert all(
        sum(piece) <= most + 1e-6 or len(piece) == 1
        for piece in pieces_of(information, plan.lengths)
    )
    assert 0 <= plan.forecast.exact <= 1
    assert plan.forecast.steps <= options.get("recipe", FAST).steps
    assert plan.forecast.row_steps >= len(plan.lengths)
    assert plan.forecast.position_steps >= count


def price_of(lm, plan):
    return price(plan.forecast, plan.layout.vectors * lm.d_model)


def even(lm, monkeypatch, bits):
    """Every token of so many bits, whatever stands before it."""
    monkeypatch.setattr(lm, "surprisal", lambda ids: torch.full(ids.shape, bits * math.log(2)))


@pytest.mark.parametrize(
    ("count", "bits"), [(3, 5.0), (12, 0.3), (40, 1.0), (120, 2.0), (128, 8.0)]
)
def test_auto_is_never_dearer_than_a_number_that_it_chooses_from(
    tiny_llama, monkeypatch, curve, count, bits
):
    even(tiny_llama, monkeypatch, bits)
    ids = ids_of(tiny_llama, count)
    chosen = plan_chunks(tiny_llama, ids, vectors="auto")
    others = [plan_chunks(tiny_llama, ids, vectors=count) for count in VECTORS]
    assert [other.layout.vectors for other in others] == list(VECTORS)
    assert price_of(tiny_llama, chosen) == pytest.approx(
        min(price_of(tiny_llama, other) for other in others)
    )


@pytest.mark.parametrize("length", [1, 5, 16, 40, 80])
def test_the_cut_is_no_dearer_than_a_hand_written_one(tiny_llama, monkeypatch, curve, length):
    """Chunks by hand fall between the loads that are tried: a tenth is granted to them."""
    even(tiny_llama, monkeypatch, 2.0)
    ids = ids_of(tiny_llama, 80)
    by_hand = plan_chunks(tiny_llama, ids, vectors=5, length=length)
    assert (
        price_of(tiny_llama, plan_chunks(tiny_llama, ids, vectors=5))
        <= price_of(tiny_llama, by_hand) * 1.1
    )


def test_a_text_of_more_information_is_cut_shorter(tiny_llama, monkeypatch, curve):
    lengths = []
    for bits in (1.0, 4.0, 16.0):
        even(tiny_llama, monkeypatch, bits)
        lengths.append(max(plan_chunks(tiny_llama, ids_of(tiny_llama, 300), "tiled:4").lengths))
    assert lengths[0] > lengths[1] > lengths[2]


def test_a_short_budget_of_steps_makes_short_chunks(tiny_llama, monkeypatch, curve):
    even(tiny_llama, monkeypatch, 2.0)
    ids = ids_of(tiny_llama, 100)
    long, short = (
        plan_chunks(tiny_llama, ids, "tiled:4", recipe=Recipe(steps=steps)) for steps in (2000, 20)
    )
    assert max(short.lengths) < max(long.lengths)
    assert short.forecast.exact > 0.5


def test_a_plans_forecast_is_that_of_its_chunks(tiny_llama, curve):
    """A text that is one chunk: nothing stands before it, so its bits are those of the text."""
    ids = ids_of(tiny_llama, 20)
    plan = plan_chunks(tiny_llama, ids, "tiled:4", length=20)
    forecast = Forecaster.of(tiny_llama)(tiny_llama.surprisal(ids).double() / math.log(2), tiled(4))
    assert plan.forecast.steps == pytest.approx(forecast.steps)
    assert plan.forecast.exact == pytest.approx(forecast.exact)
    # It may have to be halved, which is counted.
    assert plan.forecast.row_steps >= forecast.row_steps * (1 - 1e-9)


def test_halves_and_their_halves_are_counted(tiny_llama, monkeypatch):
    """A model that holds a token a vector and no more.

    Eight tokens in two vectors end as four pieces, after three tries.
    """
    wall = Curve(
        {"constant": 0.0, "density": 40.0, "crowding": 0.0}, 0.1, 0.5, {tiny_llama.fingerprint: 0.0}
    )
    monkeypatch.setattr(Curve, "of", staticmethod(lambda recipe: wall))
    even(tiny_llama, monkeypatch, 1.0)
    forecast = plan_chunks(
        tiny_llama, ids_of(tiny_llama, 8), "paper", length=8, recipe=Recipe(steps=50)
    ).forecast
    assert forecast.exact == pytest.approx(0.0)
    assert forecast.chunks == pytest.approx(4.0)
    assert forecast.row_steps == pytest.approx(51 + 2 * 51 + 4 * 2, rel=0.02)
    assert forecast.position_steps == pytest.approx(8 * 51 + 8 * 51 + 8 * 2, rel=0.02)


def test_chunks_are_charged_for_having_nothing_before_them(tiny_llama, monkeypatch, curve):
    """Tokens that tell little behind others, and a bit more at the head of a stretch.

    The more chunks, the more bits.
    """

    def surprisal(ids):
        bits = torch.ones(ids.shape)
        bits[:2] = 11.0
        return bits * math.log(2)

    ids = ids_of(tiny_llama, 120)
    monkeypatch.setattr(tiny_llama, "surprisal", surprisal)
    charged = plan_chunks(tiny_llama, ids, "tiled:4", length=40)
    monkeypatch.setattr(
        tiny_llama,
        "surprisal",
        lambda ids: surprisal(ids) if len(ids) == 120 else torch.ones(ids.shape) * math.log(2),
    )
    free = plan_chunks(tiny_llama, ids, "tiled:4", length=40)
    assert charged.bits == free.bits
    expected = Forecaster.of(tiny_llama).rows(
        torch.tensor([60.0, 60.0, 60.0], dtype=torch.float64),
        torch.full((3,), 40.0, dtype=torch.float64),
        Layout.named("tiled:4"),
    )
    assert charged.forecast.steps == pytest.approx(float(expected.steps.median()))
    assert free.forecast.steps < charged.forecast.steps


def test_the_default_takes_two_vectors_for_a_short_text(tiny_llama, monkeypatch, curve):
    for bits, name in [(0.1, "keyed:2"), (2.0, "keyed:5")]:
        even(tiny_llama, monkeypatch, bits)
        plan = plan_chunks(tiny_llama, ids_of(tiny_llama, 10))
        assert (plan.layout.name, plan.lengths) == (name, [10])
    assert plan_chunks(tiny_llama, ids_of(tiny_llama, 10), length=10).layout.name == "keyed:5"


def test_an_empty_text_is_refused(tiny_llama):
    with pytest.raises(TextError, match="the text is empty"):
        plan_chunks(tiny_llama, [])


def test_vectors_that_cannot_be_meant(tiny_llama):
    for vectors in (0, -1, 1025):
        with pytest.raises(
            UsageError, match="vectors of a chunk are 'auto' or a number from 1 to 1024"
        ):
            plan_chunks(tiny_llama, [1] * 4, vectors=vectors)
    for vectors in (2, "auto"):
        with pytest.raises(UsageError, match="layout 'tiled:4' has 5 vectors a chunk"):
            plan_chunks(tiny_llama, [1] * 4, "tiled:4", vectors=vectors)
    assert plan_chunks(tiny_llama, [1] * 4, "tiled:4", vectors=5).layout.name == "tiled:4"
    assert plan_chunks(tiny_llama, [1] * 4, vectors=2).layout.name == "keyed:2"


def test_a_very_predictable_text_still_keeps_to_the_context(tiny_llama, monkeypatch):
    monkeypatch.setattr(tiny_llama, "surprisal", lambda ids: torch.zeros(ids.shape))
    plan = plan_chunks(tiny_llama, ids_of(tiny_llama, 300))
    assert plan.lengths == [100, 100, 100]
    assert plan_chunks(tiny_llama, ids_of(tiny_llama, 128), "free").lengths == [64, 64]


def test_lengths_that_are_given(tiny_llama, tiny_mamba):
    layout, lengths, *_ = plan_chunks(tiny_llama, [1] * 20, length=8)
    assert (layout.name, lengths) == ("keyed:5", [8, 8, 4])
    assert plan_chunks(tiny_llama, [1] * 20, length=8, vectors="auto").lengths == [8, 8, 4]
    assert plan_chunks(tiny_llama, [1] * 16, "paper", length=8).lengths == [8, 8]
    assert plan_chunks(tiny_llama, [1], length=128).lengths == [1]
    assert plan_chunks(tiny_mamba, [1] * 3000, length=3000).lengths == [3000]  # no limit is stated
    for length, layout in [(0, "paper"), (129, "paper"), (128, "free")]:
        with pytest.raises(UsageError, match=f"chunks of {length} tokens asked for"):
            plan_chunks(tiny_llama, [1] * 200, layout, length=length)


def test_a_plan_in_words():
    layout = Layout.named("tiled:4")
    assert (
        ChunkPlan(layout, [5], None).describe()
        == "1 chunk of 5 tokens, 5 vectors each, layout tiled:4"
    )
    words = ChunkPlan(layout, [5, 3], 16.0).describe()
    assert ChunkPlan(layout, [5, 3], 16.0).forecast is None
    assert words == "2 chunks of 3-5 tokens, 5 vectors each, layout tiled:4 (2.0 bits a token)"


def test_a_cost_forecast_in_words():
    forecast = CostForecast(
        exact=0.987, steps=106.4, chunks=9.0, row_steps=1234.0, position_steps=9999.0, measured=True
    )
    assert forecast.describe() == "forecast: 106 steps a chunk, 99% of them exact"
    assert forecast.describe(10.0).endswith(", 2:03 here")
    assert (
        forecast._replace(measured=False)
        .describe()
        .startswith("forecast from other models: 106 steps")
    )
    assert [clock(seconds) for seconds in (0.4, 59.6, 3599.4, 3600, 7325)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
        "2:02:05",
    ]


@pytest.mark.parametrize(("share", "factor"), [(0, 1.0), (20, 1.4), (10, 1.8), (4, 1.8)])
def test_tokens_left_to_patches_make_the_others_harder(
    tiny_llama, monkeypatch, curve, share, factor
):
    """One token in `share` was never learned: the rest take up to 1.8 times their steps."""
    even(tiny_llama, monkeypatch, 2.0)
    ids = ids_of(tiny_llama, 40)
    excluded = [at for at in range(40) if share and at % share == 0]
    monkeypatch.setattr(chunks, "untrained_positions", lambda lm, ids, lead: excluded)
    found = plan_chunks(tiny_llama, ids, Layout.named("keyed:4"), 40).forecast
    scored = 40 - len(excluded)
    monkeypatch.setattr(chunks, "untrained_positions", lambda lm, ids, lead: [])
    plain = plan_chunks(tiny_llama, ids[:scored], Layout.named("keyed:4"), scored).forecast
    assert found.row_steps == pytest.approx(factor * plain.row_steps, rel=0.02)
    assert found.steps == pytest.approx(factor * plain.steps, rel=0.02)
