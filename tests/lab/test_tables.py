"""table1 to table4, length and capacity, end to end on a tiny model.

Their rows, and what the reports say of them.
"""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from experiment_runs import carried_out, cells, settings

from prototokens.lab import experiments, published
from prototokens.lab.experiments import capacity as card_module
from prototokens.lab.experiments import length as length_module
from prototokens.lab.experiments import table1, table2
from prototokens.lab.plan import total_work
from prototokens.measure import metrics


def test_table1_has_every_text_length_and_arrangement(tiny_llama, tmp_path):
    config = settings(tiny_llama, steps=12, most_texts=2, grid=(1, 3))
    jobs, rows, report = carried_out("table1", tiny_llama, config, tmp_path)
    texts = {row["text"] for row in rows}
    assert {(row["text"], row["layout"], row["length"]) for row in rows} == {
        (text, layout, length) for text in texts for layout in table1.LAYOUTS for length in (1, 3)
    }
    assert (len(texts), len(jobs)) == (2, 4 * len(table1.LAYOUTS))
    assert all(row["accuracy"] == row["correct"] / row["length"] for row in rows)
    for line in cells(report, "accuracy_long"):
        values = [
            row["accuracy"]
            for row in rows
            if (row["layout"], row["length"]) == (line["layout"], line["length"])
        ]
        assert line["mean"] == pytest.approx(np.mean(values))
        assert line["low"] <= line["mean"] <= line["high"]
        assert (line["texts"], line["exact"]) == (2, sum(value == 1 for value in values))
    assert [line["arrangement"] for line in cells(report, "accuracy")] == [
        table1.SHOWN[name] for name in table1.LAYOUTS
    ]
    missed = sum(not row["exact"] for row in rows)
    assert report.notes[0] == f"2 texts, 1 seed; {missed} of {len(jobs)} fits did not become exact"
    assert report.notes[1].startswith("2 texts of a source at most: a verdict needs at least 20")


def test_published_figures_stand_beside_those_of_the_same_model(tiny_llama, tmp_path):
    config = settings(tiny_llama, steps=1, most_texts=1, grid=(1, 2))
    _, rows, report = carried_out("table1", tiny_llama, config, tmp_path)
    assert not any("published" in line["arrangement"] for line in cells(report, "accuracy"))
    theirs = [{**row, "model": published.ARRANGEMENT_MODEL} for row in rows]
    lines = cells(experiments.load("table1").report(theirs), "accuracy")
    assert [line["N=2"] for line in lines if line["arrangement"] == "[e] x N, published"] == [
        "0.45 ± 0.31"
    ]


def test_table2_shares_a_vector_within_groups(tiny_llama, tmp_path):
    config = settings(tiny_llama, steps=6, most_texts=4, grid=(2,), most_seeds=2)
    jobs, rows, report = carried_out("table2", tiny_llama, config, tmp_path)
    # Alone 4 groups; of two, 2 groups for each of e and m; of four, one for each: with two seeds.
    assert len(jobs) == 2 * (4 + 2 * 2 + 2 * 1)
    assert {len(job.texts) for job in jobs} == {1, 2, 4}
    assert {row["share"] for row in rows if row["group"] == 1} == {None}
    assert len(rows) == 2 * 4 * (1 + 2 + 2)
    assert {row["seed"] for row in rows} == {0, 1}
    long = {
        (line["shared"], line["over the seeds"], line["group"]): line
        for line in cells(report, "sharing_long")
    }
    for size in (1, 2, 4):
        for share in ("e", "m"):
            some = [row for row in rows if row["group"] == size and row["share"] in (share, None)]
            assert long[share, "mean", size]["mean"] == pytest.approx(
                np.mean([row["accuracy"] for row in some])
            )
            assert long[share, "best", size]["mean"] >= long[share, "mean", size]["mean"] - 1e-9


def test_the_best_seed_is_of_a_group_and_not_of_each_text():
    rows = [
        {
            "group": 2,
            "share": "e",
            "number": 0,
            "text": text,
            "seed": seed,
            "correct": right,
            "accuracy": right / 4,
        }
        for text, seed, right in (("a", 0, 4), ("b", 0, 0), ("a", 1, 2), ("b", 1, 3))
    ]
    assert table2._accuracies(rows, "e", 2, best=True) == [0.5, 0.75]
    assert table2._accuracies(rows, "e", 2, best=False) == [0.75, 0.375]


def test_table3_climbs_each_source_with_m_its_own_and_shared(tiny_llama, tmp_path):
    config = settings(
        tiny_llama, sources=("sample", "random-tokens"), steps=30, most_texts=2, grid=(1, 2)
    )
    jobs, rows, report = carried_out("table3", tiny_llama, config, tmp_path)
    assert len(jobs) == 2 * (2 * 2 + 1)
    ways = [("paper", False), ("paper", True), ("keyed:2", False)]
    assert {(row["source"], row["layout"], row["shared"]) for row in rows} == {
        (source, *way) for source in ("sample", "random-tokens") for way in ways
    }
    for row in rows:
        assert row["floats"] == tiny_llama.d_model * (1.5 if row["shared"] else 2)
        assert row["bound"] == pytest.approx(row["floats"] * 32 / math.log2(260))
        assert row["share_of_bound"] == pytest.approx(row["held"] / row["bound"])
        good = [length for length, accuracy, _ in row["tried"] if accuracy >= 0.99]
        assert row["held"] == max(good, default=0)
        assert row["bits_per_float"] == pytest.approx(row["nats"] / math.log(2) / row["floats"])
    line = next(
        one
        for one in cells(report, "capacity")
        if (one["source"], one["layout"], one["m shared"]) == ("sample", "keyed:2", False)
    )
    mine = [row for row in rows if (row["source"], row["layout"]) == ("sample", "keyed:2")]
    assert line["C_tokens"] == max(row["held"] for row in mine)
    assert line["H_LM mean"] == pytest.approx(np.mean([row["nats"] for row in mine]))
    assert "published C_tokens" not in line
    assert set(report.figures) == {"figure1"}


def test_a_climb_ends_where_no_prefix_is_reproduced(tiny_llama, tmp_path):
    """With no steps to take, the shortest length is tried and no other."""
    config = settings(tiny_llama, sources=("random-tokens",), most_texts=2, grid=(8, 16, 32))
    config = replace(config, recipe=replace(config.recipe, steps=1))
    _, rows, report = carried_out("table3", tiny_llama, config, tmp_path)
    assert all(
        len(row["tried"]) == 1 and row["ended"] and row["held"] == 0 and row["nats"] == 0
        for row in rows
    )
    assert "6 of 6 climbs reproduced no prefix at all" in report.notes[0]
    assert "; 0 reproduced the longest prefix" in report.notes[0]


def test_capacity_tokens_are_the_right_ones_of_the_longest_prefix(tiny_llama, tmp_path):
    """C_tokens and H_LM by the definitions, of rows in which a token of a hundred is wrong."""
    config = settings(tiny_llama, sources=("random-tokens",), steps=1, most_texts=2, grid=(8,))
    _, rows, _ = carried_out("table3", tiny_llama, config, tmp_path)
    some = [row for row in rows if row["layout"] == "paper" and not row["shared"]]
    made = [
        {**some[0], "held": 128, "correct": 127, "nats": 60.0},
        {**some[1], "held": 90, "correct": 90, "nats": 80.0},
    ]
    (line,) = cells(experiments.load("table3").report(made), "capacity")
    assert (line["C_tokens"], line["H_LM mean"]) == (127, 70)
    assert line["share of it"] == pytest.approx(127 / some[0]["bound"])


def test_climbs_of_several_experiments_are_the_same_fits(tiny_llama):
    config = settings(tiny_llama, most_texts=2, grid=(1, 2))
    jobs = {
        name: experiments.load(name).jobs(config)
        for name in ("table3", "figure3", "figure4", "capacity")
    }
    names = {name: {job.same for job in some} for name, some in jobs.items()}
    assert names["table3"] < names["figure3"] > names["capacity"] > names["figure4"]
    alone = {name: total_work(some) for name, some in jobs.items()}
    assert total_work([job for some in jobs.values() for job in some]) == pytest.approx(
        alone["figure3"]
    )
    assert alone["figure3"] > alone["table3"]
    # Jobs without a name for their fits stand for themselves.
    others = experiments.load("table1").jobs(config)
    assert (
        total_work(others * 2)
        == total_work(others)
        == pytest.approx(sum(job.work for job in others))
    )


def test_table4_times_fits_alone_and_side_by_side(tiny_llama, tmp_path):
    config = settings(tiny_llama, most_texts=2, grid=(1, 2))
    jobs, rows, report = carried_out("table4", tiny_llama, config, tmp_path)
    assert (len(jobs), len(rows)) == (2, 4)
    assert all(row["seconds_alone"] > 0 and row["seconds_together"] > 0 for row in rows)
    for line in cells(report, "seconds"):
        solved = [row for row in rows if row["length"] == line["length"] and row["exact"]]
        assert line["exact"] == len(solved) > 0
        assert line["seconds alone"] == pytest.approx(
            np.mean([row["seconds_alone"] for row in solved])
        )
        assert line["median steps"] == np.median([row["steps"] for row in solved])
    assert "measured on" in report.notes[1]


def test_length_tells_steps_of_lengths_that_were_left_out(tiny_llama, tmp_path):
    config = settings(tiny_llama, steps=20, most_texts=1, grid=(1, 2, 3, 4, 6))
    _, rows, report = carried_out("length", tiny_llama, config, tmp_path)
    table = cells(report, "length")
    assert [line["length"] for line in table] == [1, 2, 3, 4, 6]
    assert [line["floats a token"] for line in table] == [64 / length for length in (1, 2, 3, 4, 6)]
    for row in rows:
        assert row["bits_per_float"] == pytest.approx(row["nats"] / math.log(2) / 64)


def test_a_law_is_found_where_there_is_one():
    """Rows made by a power law of the tokens.

    It wins, its coefficients are found, its error is none.
    """
    rows = [
        {
            "exact": True,
            "steps": 5.0 * length**1.5,
            "length": length,
            "text": text,
            "bits_per_float": 0.01 * length + 0.003 * (length % 3),
        }
        for length in (4, 8, 16, 32, 64)
        for text in "abc"
    ]
    laws, best = length_module.fitted_laws(rows)
    assert best == "power of tokens"
    _, a, b, low, high, error = next(law for law in laws if law[0] == best)
    assert (math.exp(a), b, error) == (pytest.approx(5.0), pytest.approx(1.5), pytest.approx(1.0))
    assert (low, high) == (pytest.approx(1.5), pytest.approx(1.5))  # all texts agree
    assert length_module.fitted_laws(rows[:9]) == ([], None)


def test_a_capacity_card_has_one_step_and_autoregressive_rows(tiny_llama, tmp_path):
    config = settings(
        tiny_llama, sources=("sample", "random-tokens"), steps=30, most_texts=2, grid=(1, 2)
    )
    _, rows, report = carried_out("capacity", tiny_llama, config, tmp_path)
    card = json.loads(json.dumps(card_module.card(rows), allow_nan=False))
    assert (card["model"], card["d_model"]) == (tiny_llama.name, 32)
    assert {(one["texts"], one["way"]) for one in card["capacity"]} == {
        (source, way)
        for source in ("sample", "random-tokens")
        for way in ("paper", "memory:1", "memory:2")
    }
    for one in card["capacity"]:
        mine = [
            row for row in rows if row["source"] == one["texts"] and row["layout"] == one["way"]
        ]
        assert one["c_tokens"] == max(row["held"] for row in mine)
        assert one["horizon"] <= one["c_tokens"]
        assert one["h_lm"] == pytest.approx(np.mean([row["nats"] for row in mine]))
        vectors = 1 if one["way"] == "memory:1" else 2
        assert one["bound"] == pytest.approx(vectors * 32 * 32 / math.log2(260))
        assert (one["greedy_exact"] is None) == (
            one["way"] == "paper" or all(row["held"] == 0 for row in mine)
        )
    assert len(cells(report, "card")) == 6
    assert set(report.figures) == {"card"}


def test_lengths_beyond_the_context_are_left_out(tiny_llama):
    config = settings(tiny_llama, most_texts=1, grid=(4, 120, 4096))
    assert config.lengths((), "paper") == [4, 120]
    for name in ("table1", "table2", "table3", "table4", "length", "capacity"):
        assert experiments.load(name).jobs(replace(config, grid=(4096,))) == []
    assert replace(config, grid=None).lengths(metrics.GRID)[-1] == 128
