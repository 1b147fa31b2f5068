"""The script that tries recipes: taken up again it does what is left, and the page is made from rows alone."""

import json
import sys
from pathlib import Path

import pytest
import torch

import prototokens as pt

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import recipe_search
from recipe_search import MARKS, TRIALS, Trial, fit_trial
from row_files import read_rows

TRIED = ["fast", "margin term 1, late", "race of 3 starts", "L-BFGS finish", "Gauss-Newton finish"]
TARGETS = [[3, 1, 4], [9, 2, 6], [5, 3]]


@pytest.fixture
def searched(tiny_folder, tmp_path, monkeypatch):
    """Runs the script on the tiny model, with random tokens; returns its rows."""
    path = tmp_path / "rows.jsonl"

    def run(*more, trials=TRIED):
        arguments = ["--model", tiny_folder, "--texts", "random-tokens", "--lengths", 3, "--passages", 2, "--steps", 300]
        arguments += ["--rows", path, "--dtype", "float32", *more, *(["--trials", *trials] if trials else [])]
        monkeypatch.setattr(sys, "argv", ["recipe_search.py", *map(str, arguments)])
        recipe_search.main()
        return read_rows(path)

    run.path = path
    return run


def test_what_is_there_is_not_run_again_and_the_page_is_made_from_rows(searched, tmp_path):
    rows = searched(trials=TRIED[:2])
    assert [row["trial"] for row in rows] == ["fast", "fast", "margin term 1, late", "margin term 1, late"]
    text = searched.path.read_text()
    searched.path.write_text(text + '{"model": "torn')
    rows = searched()
    assert searched.path.read_text().startswith(text)
    assert len(rows) == 2 * len(TRIED)
    assert {row["trial"] for row in rows if row["exact"]} == set(TRIED)
    assert all(row["steps"] <= row["row_steps"] for row in rows)

    page = tmp_path / "page.md"
    page.write_text(f"Before.\n{MARKS[0]}\nold\n{MARKS[1]}\nBehind.\n")
    searched("--report", searched.path, "--page", page, trials=None)
    made = page.read_text()
    assert "old" not in made
    assert made.startswith("Before.\n")
    assert made.endswith("Behind.\n")
    lines = [line.split("|")[1].strip() for line in made.splitlines() if " of 2 |" in line]
    assert lines == TRIED


def test_a_trial_that_changes_nothing_is_the_fit_itself(tiny_llama):
    recipe = pt.Recipe.named("fast", steps=200)
    outcomes = {}
    fit_trial(tiny_llama, TARGETS, Trial(), recipe, 0, outcomes.__setitem__)
    for number, solution in enumerate(pt.fit(tiny_llama, TARGETS, recipe=recipe)):
        assert (outcomes[number].steps, outcomes[number].row_steps) == (solution.steps, solution.row_steps)
        assert torch.equal(outcomes[number].solution.protos, solution.protos)


def test_in_a_race_the_starts_are_those_of_single_fits_and_all_of_them_count(tiny_llama, monkeypatch):
    monkeypatch.setattr(recipe_search, "RACE", 5)
    recipe = pt.Recipe.named("fast", steps=30, margin=1e3)  # never solved
    outcomes = {}
    fit_trial(tiny_llama, TARGETS, Trial(starts=3), recipe, 0, outcomes.__setitem__)
    assert [outcomes[number].row_steps for number in range(3)] == [5 * 3 + 26] * 3
    singles = [pt.fit(tiny_llama, TARGETS, recipe=recipe, seed=seed) for seed in range(3)]
    for number, outcome in outcomes.items():
        same = singles[outcome.solution.seed][number]
        assert outcome.solution.correct == same.correct
        torch.testing.assert_close(outcome.solution.protos, same.protos, rtol=1e-3, atol=1e-3)


def test_the_margin_terms_gradient_is_that_of_its_definition(tiny_llama):
    generator = torch.Generator().manual_seed(0)
    read, targets = torch.randn(9, tiny_llama.hidden_size, generator=generator), torch.arange(9)
    gradient = recipe_search._hinge_gradient(tiny_llama, read, targets)
    logits = tiny_llama.logits(read)
    for place, target in enumerate(targets.tolist()):
        other = logits[place].clone()
        other[target] = -torch.inf
        rival = other.argmax()
        lacks = bool(logits[place, target] - logits[place, rival] < recipe_search.HINGE)
        expected = (tiny_llama.head.weight[rival] - tiny_llama.head.weight[target]) * lacks
        torch.testing.assert_close(gradient[place], expected, rtol=1e-4, atol=1e-5)


def test_every_trial_is_a_recipe():
    for name, trial in TRIALS.items():
        recipe = pt.Recipe.named("fast", **trial.changes)
        assert json.loads(json.dumps(recipe.as_dict())), name
