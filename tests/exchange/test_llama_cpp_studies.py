"""Reports of the two studies of llama.cpp, from rows; they run where its bindings are installed."""

import json
from pathlib import Path

import pytest

from prototokens.lab import experiments

ROOT = Path(__file__).parents[2]


def study(name):
    (found,) = experiments.resolve(str(ROOT / "studies" / f"{name}.py"))
    return experiments.load(found)


def rows_of(folder):
    lines = (ROOT / "results" / folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_survival_is_counted_by_model_margin_and_precision():
    rows = [
        {
            "model": model,
            "passage": f"text {number}",
            "asked": 1.0,
            "certified": False,
            "precision": precision,
            "exact": number < 3,
            "wrong": int(precision == "Q4_K" and number == 0),
            "margin": 1.0 + number,
            "fall": 0.5,
            "steps": 10,
            **({} if precision == "F32" else {"rounded_wrong": int(number == 1)}),
        }
        for model in ("a.gguf", "b.gguf")
        for precision in ("F32", "Q4_K")
        for number in range(4)
    ]
    report = study("precisions").report(rows)
    lines = report.tables[0].rows
    assert [line[:4] for line in lines] == [
        [model, "1", precision, 3]
        for model in ("a.gguf", "b.gguf")
        for precision in ("F32", "Q4_K")
    ]
    assert [line[4].split(" [")[0] for line in lines] == ["3 of 3", "2 of 3"] * 2
    assert [line[5].split(" [")[0] for line in lines] == ["", "2 of 3"] * 2
    assert [line[6] for line in lines] == ["", 2] * 2
    assert report.figures.keys() == {"survival-a", "survival-b"}
    assert "1 were not solved" in report.notes[0]


def test_the_speed_is_a_ratio_of_each_round():
    rows = [
        {
            "model": "a.gguf",
            "precision": "F16",
            "length": 32,
            "one_step_seconds": seconds,
            "generation_seconds": 4 * seconds + extra,
            "machine": {"processor": "P"},
        }
        for seconds, extra in ((0.1, 0.0), (0.2, 0.2), (0.5, 1.5))
    ]
    (line,) = study("llama_cpp_speed").report(rows).tables[0].rows
    assert line == ["a.gguf", "F16", 32, 3, "200", "1,000", "5.0", "4.0 to 7.0", "P"]


@pytest.mark.parametrize(
    ("name", "folder"), [("precisions", "precisions"), ("llama_cpp_speed", "llama-cpp-speed")]
)
def test_committed_rows_give_the_committed_table(name, folder):
    made = study(name).report(rows_of(folder)).tables[0]
    page = (ROOT / "results" / folder / "README.md").read_text(encoding="utf-8")
    for line in made.rows:
        assert "| " + " | ".join(map(str, line)) + " |" in page
