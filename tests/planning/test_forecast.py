"""The forecast: right about made-up rows whose law is known, wider on unknown models."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prototokens as pt
from prototokens.cli import common
from prototokens.lab import forecasting
from prototokens.layout import mixed, tiled
from prototokens.planning.forecast import Curve, Forecaster, _stored, features
from prototokens.planning.throughput import STEPS, measured_pace
from prototokens.recipe import Recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "artefacts"))

import fit_forecast

WEIGHTS = {"constant": 2.0, "density": 1.2, "variety": -0.4, "crowding": 0.8}
SPREAD, OFFSET = 0.2, 0.4
CURVE = Curve(WEIGHTS, SPREAD, 0.5, {"known": OFFSET})


def forecaster(fingerprint="known", d_model=64, **recipe):
    return Forecaster(CURVE, Recipe(**recipe), d_model, fingerprint)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def draw_steps(expect, bits, tokens, vectors, count=200_000):
    """Steps of many rows of one kind, drawn from the law itself."""
    mu = 2.0 + (1.2 + 0.8 * bits / (vectors * expect.d_model)) * math.log(tokens / vectors) + OFFSET
    uniform = np.random.default_rng(0).uniform(size=count)
    return np.exp(mu + SPREAD * np.log(uniform / (1 - uniform)))


@pytest.mark.parametrize(
    ("bits", "tokens", "vectors"), [(30.0, 12, 2), (60.0, 24, 2), (90.0, 40, 5), (128.0, 33, 2)]
)
@pytest.mark.parametrize("steps", [30, 200, 2000])
def test_forecasts_are_those_of_the_law(bits, tokens, vectors, steps):
    """Against draws: share within the budget, median of those, mean of what is spent."""
    expect = forecaster(steps=steps)
    forecast = expect.rows(doubles(bits), doubles(tokens), tiled(vectors - 1))
    drawn = draw_steps(expect, bits, tokens, vectors)
    ended = drawn[drawn <= steps]
    assert float(forecast.exact) == pytest.approx(len(ended) / len(drawn), abs=0.005)
    if len(ended) > 1000:
        assert float(forecast.steps) == pytest.approx(np.median(ended), rel=0.02)
    assert float(forecast.row_steps) == pytest.approx(np.minimum(drawn, steps).mean() + 1, rel=0.02)


@settings(max_examples=100, deadline=None)
@given(
    bits=st.floats(0, 1e5),
    tokens=st.integers(1, 4096),
    vectors=st.integers(2, 1025),
    steps=st.integers(0, 5000),
    restarts=st.integers(0, 3),
    fingerprint=st.sampled_from(["known", "new"]),
)
def test_forecasts_are_numbers_that_can_be(bits, tokens, vectors, steps, restarts, fingerprint):
    expect = forecaster(fingerprint, steps=steps, restarts=restarts)
    forecast = expect.rows(doubles(bits), doubles(tokens), tiled(vectors - 1))
    assert 0 <= float(forecast.exact) <= 1
    assert 0 <= float(forecast.steps) <= steps
    assert 1 <= float(forecast.row_steps) <= (restarts + 1) * (steps + 1) * (1 + 1e-9)


def test_more_bits_and_more_tokens_cost_more_and_more_vectors_less():
    expect = forecaster(steps=2000)
    bits, tokens = doubles(40, 80, 160), doubles(16, 32, 64)
    for rows in (
        expect.rows(bits, doubles(32, 32, 32), tiled(1)),
        expect.rows(doubles(80, 80, 80), tokens, tiled(1)),
        expect.rows(bits, tokens, tiled(4)),
    ):
        assert rows.row_steps.diff().gt(0).all()
        assert rows.exact.diff().lt(0).all()
    few, many = expect.rows(bits, tokens, tiled(2)), expect.rows(bits, tokens, tiled(8))
    assert many.row_steps.lt(few.row_steps).all()


def test_neighbours_that_change_cost_less_and_only_where_they_do():
    alike, changing = (
        forecaster(steps=2000).rows(doubles(9, 90), doubles(3, 40), kind(4))
        for kind in (tiled, mixed)
    )
    assert float(changing.steps[0]) == pytest.approx(
        float(alike.steps[0])
    )  # three tokens: both are e m_1 m_2
    assert float(changing.steps[1]) < 0.8 * float(alike.steps[1])
    assert tiled(4).windows(40) == 5
    assert mixed(4).windows(40) > 30


def test_a_restart_is_another_chance():
    once, twice = (
        forecaster(steps=330, restarts=restarts).rows(doubles(60), doubles(20), tiled(1))
        for restarts in (0, 1)
    )
    assert 0.1 < float(once.exact) < 0.9
    assert float(twice.exact) == pytest.approx(1 - (1 - float(once.exact)) ** 2)
    assert float(twice.row_steps) == pytest.approx(float(once.row_steps) * (2 - float(once.exact)))


def test_a_model_that_was_never_measured_is_forecast_with_less_confidence():
    rows = doubles(36, 140), doubles(12, 46)
    known, new = (forecaster(name, steps=400).rows(*rows, tiled(1)) for name in ("known", "new"))
    assert forecaster("known").measured
    assert not forecaster("new").measured
    assert CURVE.spread_of("new") > CURVE.spread_of("known") == SPREAD
    for forecast in (known, new):
        assert forecast.exact[0] > 0.5 > forecast.exact[1]
    assert new.exact[0] < known.exact[0]
    assert new.exact[1] > known.exact[1]


def test_a_single_row_is_forecast_from_its_tokens(tiny_llama):
    bits = tiny_llama.surprisal([1, 2, 3, 4]).double() / math.log(2)
    expect = Forecaster.of(tiny_llama)
    for form in (bits, bits.tolist(), bits.float()):
        forecast = expect(form, tiled(4))
        rows = expect.rows(bits.sum()[None], doubles(4), tiled(4))
        assert tuple(forecast) == pytest.approx([float(values) for values in rows], rel=1e-5)


def test_the_shipped_forecast_names_its_origin():
    for name in ("fast", "paper"):
        values = _stored()["recipes"][name]
        assert set(values["weights"]) == set(features(doubles(1), doubles(1), tiled(1), 8))
        assert (
            values["rows"]["count"] == sum(model["rows"] for model in values["models"].values()) > 0
        )
        assert all(recipe["name"] == name for recipe in values["rows"]["recipes"])
        assert values["spread"] > 0 < values["between"]
    assert _stored()["recipes"]["fast"]["held_out"]["rank_correlation"] > 0.6


def test_a_recipe_of_ones_own_is_forecast_as_fast():
    assert Curve.of(Recipe(name="mine")) == Curve.of(Recipe.named("fast"))
    assert Curve.of(Recipe.named("paper")) != Curve.of(Recipe.named("fast"))


# The script that fits the coefficients.


def made_rows(count, seed=0, offsets=(("a", 0.3), ("b", -0.3)), recipe="fast", budget=1000):
    """Rows as `studies/front.py` writes them, their steps drawn from a known law."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        name, offset = offsets[number % len(offsets)]
        length, repeated = int(draw.choice([8, 16, 32, 64])), int(draw.choice([1, 2, 4]))
        nats, floats = length * draw.uniform(2, 6), 64 * (repeated + 1)
        density = math.log(length / (repeated + 1))
        layout = mixed(repeated) if draw.random() < 0.5 else tiled(repeated)
        index = layout.index(length).tolist()
        variety = math.log(
            max(1.0, len({tuple(index[at : at + 3]) for at in range(length - 2)}) / (repeated + 1))
        )
        mu = (
            2.0
            + 1.2 * density
            - 0.4 * variety
            + 0.8 * density * nats / math.log(2) / floats
            + offset
        )
        steps = math.exp(mu + SPREAD * draw.logistic())
        rows.append(
            {
                "model": name,
                "fingerprint": name,
                "dtype": "float32",
                "source": "made",
                "passage": number // 2,
                "seed": 0,
                "layout": layout.name,
                "length": length,
                "ids_sha256": str(number),
                "recipe": {"name": recipe, "steps": budget},
                "exact": steps <= budget,
                "steps": round(min(steps, budget)),
                "nats": nats,
                "floats": floats,
            }
        )
    return rows


def test_known_coefficients_are_found_again_also_where_many_rows_ran_out_of_steps():
    rows = forecasting.tensors(made_rows(6000, budget=90))
    assert 0.3 < float(rows.exact.double().mean()) < 0.8
    found = forecasting.solve(rows)
    assert dict(zip(rows.found, found.weights.tolist(), strict=True)) == pytest.approx(
        WEIGHTS, abs=0.12
    )
    assert found.spread == pytest.approx(SPREAD, rel=0.1)
    assert float(found.offsets[0] - found.offsets[1]) == pytest.approx(0.6, abs=0.05)


def test_rank_correlation_against_a_plain_one():
    draw = np.random.default_rng(0)
    a, b = draw.integers(0, 9, 60), draw.integers(0, 9, 60)

    def rank(values):
        return [
            sum(other < value for other in values)
            + (sum(other == value for other in values) - 1) / 2
            for value in values
        ]

    expected = np.corrcoef(rank(a), rank(b))[0, 1]
    assert forecasting.spearman(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected)
    assert forecasting.spearman(torch.ones(5), torch.arange(5)) is None
    assert forecasting.spearman(
        torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5.0, math.inf, math.inf])
    ) == pytest.approx(0.866, abs=1e-3)


def test_held_out_rows_are_judged_by_the_others_and_chance_is_seen_to_be_chance():
    rows = made_rows(400)
    good = forecasting.held_out(forecasting.tensors(rows))
    assert good["rank_correlation"] > 0.9
    draw = np.random.default_rng(1)
    for row in rows:  # what happened has nothing to do with the row any more
        row["steps"], row["exact"] = int(draw.integers(1, 1000)), True
    bad = forecasting.held_out(forecasting.tensors(rows))
    assert abs(bad["rank_correlation"]) < 0.2
    assert bad["log_likelihood"] < good["log_likelihood"]
    assert set(forecasting.unseen_models(forecasting.tensors(rows))) == {"a (a)", "b (b)"}


def test_a_passage_is_on_one_side_only():
    rows = forecasting.tensors(made_rows(200, offsets=(("a", 0.0),)))
    assert rows.fold.view(-1, 2).diff(dim=1).abs().sum() == 0
    assert len(rows.fold.unique()) == forecasting.FOLDS


def test_the_script_writes_what_the_package_reads(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in made_rows(200) + made_rows(100, recipe="paper") + made_rows(50)
        )
    )
    out = tmp_path / "forecast.json"
    monkeypatch.setattr(sys, "argv", ["fit_forecast.py", "--rows", str(path), "--out", str(out)])
    fit_forecast.main()
    made = json.loads(out.read_text())["recipes"]
    assert made["fast"]["rows"]["count"] == 200  # those that are there twice count once
    assert made["paper"]["rows"]["count"] == 100
    monkeypatch.setattr(
        "prototokens.planning.forecast._stored", lambda: json.loads(out.read_text())
    )
    curve = Curve.of(Recipe())
    assert set(curve.offsets) == {"a", "b"}
    assert curve.weights["density"] == pytest.approx(1.2, abs=0.3)

    path.write_text("".join(json.dumps(row) + "\n" for row in made_rows(80)))
    fit_forecast.main()
    again = json.loads(out.read_text())["recipes"]
    assert again["fast"]["rows"]["count"] == 80
    assert again["paper"] == made["paper"]  # of which there was nothing new


# From a forecast to a time.


class Now:
    def __init__(self, done, total, row_steps, seconds):
        self.done, self.total, self.row_steps, self.seconds = done, total, row_steps, seconds


@pytest.mark.parametrize(
    ("now", "left"),
    [
        (Now(0, 10, 100, 10.0), "1:30"),  # 1000 are forecast, 100 took ten seconds
        (Now(5, 10, 500, 50.0), "0:50"),  # as was forecast
        (
            Now(5, 10, 1000, 100.0),
            "0:50",
        ),  # slower: half of the forecast's word, half of what was seen, 1500 in all
        (Now(0, 10, 5000, 500.0), "0:50"),  # long over it, with none done
        (Now(10, 10, 900, 90.0), "0:00"),
    ],
)
def test_time_left_moves_from_the_forecast_to_what_is_seen(now, left):
    assert common.time_left(now, 100.0) == left


def test_a_pace_is_measured_on_the_plans_own_chunks(tiny_llama, monkeypatch):
    ids = [1, 2, 3, 4] * 8
    plan = pt.plan_chunks(tiny_llama, ids, "paper", length=8)
    seen = []

    def fit(lm, targets, method, recipe, **options):
        seen.append((targets, recipe))
        return pt.fit(lm, targets, method=method, recipe=recipe, **options)

    monkeypatch.setattr("prototokens.planning.throughput.fit", fit)
    assert measured_pace(tiny_llama, ids, plan, Recipe(), rows=3) > 0
    ((targets, recipe),) = seen
    assert targets == [ids[:8], ids[8:16], ids[16:24]]
    assert recipe.steps == STEPS
