"""Experiments in files of their own: those of studies/ on the tiny model, and what no study is."""

import json
from pathlib import Path

import pytest
import torch

from prototokens.engine import certify, instruction_sets, matrix
from prototokens.engine.fit import fit
from prototokens.engine.inputs import OneStep, arrange
from prototokens.engine.rows import Init, Start
from prototokens.lab import experiments, models
from prototokens.lab.job import Job
from prototokens.layout import Layout
from prototokens.planning.chunks import VECTORS
from prototokens.recipe import Recipe

STUDIES = Path(__file__).parents[2] / "studies"
STUDY = """
from prototokens.lab.job import Config, Job, Row
from prototokens.lab.report import Report, Table

TITLE = "Mine"


def jobs(config):
    texts = tuple(config.texts.passages(2, 3))
    return [Job("mine", config.model, texts, values={"scale": config.scale})]


def run(job, lm):
    return [{"length": len(text.ids)} for text in job.texts]


def report(rows):
    return Report(TITLE, tables=[Table("lengths", ["tokens"], [[row["length"]] for row in rows])])
"""


@pytest.fixture
def study(run, folder, tmp_path):
    """`prototokens reproduce STUDY` on the tiny model, into a folder of its own."""

    def reproduce(path, *more):
        texts = ("--texts", "random-tokens", "--dtype", "float32")
        return run(
            "reproduce", path, "--model", folder, "--out", tmp_path / "out", *texts, *more, "--json"
        )

    return reproduce


def named(study):
    """A study's module."""
    (name,) = experiments.resolve(str(STUDIES / f"{study}.py"))
    return experiments.load(name)


def rows(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]


def test_a_file_of_ones_own_is_run_and_reported(study, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(STUDY)
    made = study(path)
    assert made.status == 0, made.err
    assert made.json["experiments"][0]["tables"] == {"lengths": [{"tokens": 3}, {"tokens": 3}]}
    assert (tmp_path / "out" / "report.md").read_text().startswith("# Mine")
    page = tmp_path / "out" / "README.md"
    page.write_text(
        "Before.\n\n<!-- lengths: made by mine.py -->\nold\n<!-- end of lengths -->\n\nBehind.\n"
    )
    (tmp_path / "out" / "report.md").unlink()
    assert study(path, "--from-rows").status == 0
    table = "| tokens |\n|---|\n| 3 |\n| 3 |"
    made = f"<!-- lengths: made by mine.py -->\n\n{table}\n\n<!-- end of lengths -->"
    assert page.read_text() == f"Before.\n\n{made}\n\nBehind.\n"
    assert not (tmp_path / "out" / "report.md").exists()


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("absent.py", None, "does not exist"),
        ("table1.py", STUDY, "cannot be called 'table1'"),
        ("lacking.py", "TITLE = 'x'", "has to define TITLE, jobs, run and report"),
    ],
)
def test_files_that_are_no_study_are_refused(study, tmp_path, name, code, sentence):
    if code is not None:
        (tmp_path / name).write_text(code)
    refused = study(tmp_path / name)
    assert refused.status == 2
    assert sentence in refused.err


def test_a_study_is_not_sent_to_other_processes(study, tmp_path):
    (tmp_path / "mine.py").write_text(STUDY)
    refused = study(tmp_path / "mine.py", "--runner", "ray")
    assert refused.status == 2
    assert "--runner" in refused.err


def test_front_goes_up_the_lengths_while_passages_are_exact(study, tmp_path):
    made = study(STUDIES / "front.py", "--count", 3, "--lengths", "2,64,100", "--steps", 60)
    assert made.status == 0, made.err
    found = rows(tmp_path)
    assert {row["layout"] for row in found} == {
        "paper",
        "mixed:4",
        *(f"keyed:{count}" for count in VECTORS),
    }
    paper = [row for row in found if row["layout"] == "paper"]
    assert all(row["exact"] for row in paper if row["length"] == 2)
    assert len([row for row in paper if row["length"] == 2]) == 3
    assert len([row for row in paper if row["length"] == 64]) == 2  # hopeless: the trial alone
    assert not [row for row in paper if row["length"] == 100]
    for row in found:
        assert row["floats"] == row["vectors"] * 32
        assert row["exact"] == (row["correct"] == row["length"])
        assert 0 < row["nats_max"] <= row["nats"]


def test_trials_of_a_recipe_are_on_the_same_passages(study, tmp_path):
    made = study(STUDIES / "recipe.py", "--count", 2, "--lengths", "3", "--steps", 300)
    assert made.status == 0, made.err
    found = rows(tmp_path)
    assert len({tuple(text["hash"] for text in row["texts"]) for row in found}) == 1
    (table,) = made.json["experiments"][0]["tables"].values()
    assert [row["trial"] for row in table][:2] == ["fast", "start N(0, 1)"]
    assert len(found) == 2 * len(table)


def test_few_bits_and_stopping_rules(study, tmp_path, monkeypatch):
    # The most different ways of decoding are enough here, and none of them is compiled.
    monkeypatch.setattr(
        certify, "cells_of", lambda lm, level, cells_of=certify.cells_of: cells_of(lm, "standard")
    )
    made = study(STUDIES / "bits.py", "--count", 2, "--lengths", "3", "--steps", 300)
    assert made.status == 0, made.err
    assert {row["bits"] for row in rows(tmp_path)} == {1, 2, 3, 4, 5, 6, 7, 8, 16}
    made = study(STUDIES / "certificate.py", "--count", 2, "--lengths", "3", "--steps", 300)
    assert made.status == 0, made.err
    found = [row for row in rows(tmp_path) if row["experiment"] == "certificate"]
    assert {row["rule"] for row in found} == {"argmax", "recipe", "standard"}
    assert all(row["solved"] for row in found)
    assert not any(row["wrong_in"] for row in found if row["rule"] == "standard")


# Importing the compiler, torch warns of itself.
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")
def test_reserve_decodes_under_other_instruction_sets(study, tmp_path, monkeypatch):
    setting = "ATEN_CPU_CAPABILITY=default"
    monkeypatch.setattr(matrix, "SETTINGS", {setting: 0})
    args = ("--layouts", "paper", "--count", 2, "--lengths", "3", "--steps", 300)
    made = study(STUDIES / "reserve.py", *args)
    assert made.status == 0, made.err
    found = rows(tmp_path)
    assert [row["solved"] for row in found] == [True, True]
    names = {f"{setting} {dtype}" for dtype in ("float32", "bfloat16")}
    names = set() if instruction_sets.why_not(setting) else names
    for row in found:
        assert not row["wrong_in"]
        assert row["margin"] > row["asked"] > row["fall"]
        assert set(row["falls"]) == set(row["moved"]) == names
        assert all(moved < row["shift"] for moved in row["moved"].values())


def test_many_chunks_in_one_process(study, tmp_path):
    made = study(STUDIES / "long_run.py", "--count", 1, "--steps", 60)
    assert made.status == 0, made.err
    (row,) = rows(tmp_path)
    assert row["chunks"] >= 40
    assert row["resident_bytes"] > 0


def test_an_edited_text_is_fitted_from_the_old_vectors(study, tmp_path):
    made = study(STUDIES / "edit.py", "--count", 2, "--lengths", "5", "--steps", 200)
    assert made.status == 0, made.err
    found = rows(tmp_path)
    edit = named("edit")
    assert len(found) == 2 * len(edit.EDITS) * (1 + len(edit.RATES))
    assert all(row["before_exact"] for row in found)
    table = made.json["experiments"][0]["tables"]["edit"]
    plain = [line for line in table if line["fitted from"] == edit.RANDOM]
    assert len(plain) == len(edit.EDITS)
    assert all(line["steps against a random start, times"] is None for line in plain)
    ids, other = (1, 2, 3, 4, 5), (6, 7, 3, 9, 1)
    edited = edit._edited(ids, other, 2, "seed")
    assert sum(a != b for a, b in zip(edited, ids, strict=True)) == 2


def test_forms_of_keys_are_compared_on_the_same_passages(study, tmp_path):
    path = STUDIES / "key_forms.py"
    made = study(path, "--count", 2, "--lengths", "3", "--steps", 40, "--layouts", "keyed:2")
    assert made.status == 0, made.err
    found = rows(tmp_path)
    forms = named("key_forms")
    assert {row["form"] for row in found} == set(forms.FORMS)
    assert {row["solver"] for row in found} == set(forms.SOLVERS)
    assert len({row["passage"] for row in found}) == 2
    for table in made.json["experiments"][0]["tables"].values():
        assert [line["form"] for line in table] == list(forms.FORMS)
        assert [line["times the steps of signs"] is None for line in table].index(True) == 0


@pytest.mark.parametrize("precondition", [True, False])
@pytest.mark.parametrize(("name", "form"), [("keyed:2", 0), ("paper", 11), ("alternating", 12)])
def test_the_plain_loop_of_the_forms_is_the_fit(tiny_llama, precondition, name, form):
    """The same vectors at the start, the same number of steps as the engine takes."""
    lm, forms = tiny_llama, named("key_forms")
    recipe = Recipe.named("fast", steps=60, stall=0, slow_below=0.0, precondition=precondition)
    values = {"form": forms.FORMS[form]}
    job = Job("key_forms", models.facts(lm), layout="keyed:2", recipe=recipe, values=values)
    targets = [(40, 50, 60), (70, 80, 90)]
    starts = [
        Start(start, None, recipe.start_scale)
        for start in forms.starts_of(lm, recipe, 2, targets, job.seed)
    ]
    fitted = fit(lm, targets, OneStep(Layout.named(name)), recipe, Init(starts=starts))
    found = forms.fit(lm, job, targets)
    assert [row["exact"] for row in found] == [solution.exact for solution in fitted]
    assert [row["steps"] for row in found] == [solution.row_steps - 1 for solution in fitted]


def test_forms_of_keys_are_what_they_say(tiny_llama):
    lm, forms = tiny_llama, named("key_forms")
    protos = torch.randn(3, 2, lm.d_model, generator=torch.Generator().manual_seed(0))
    inputs = {form: forms.inputs_of(form, lm, 2, 7)(protos) for form in forms.FORMS}
    layout = Layout.named("keyed:2")
    arranged = arrange(lm, [OneStep(layout).plan(range(7))] * 3, 2)
    assert torch.equal(inputs[forms.SIGNS], arranged.inputs(protos))
    norms = protos[:, torch.arange(7) % 2].norm(dim=2)
    for form in set(forms.FORMS) - {forms.FORMS[1], "Gaussian keys", "no keys, e then m"}:
        torch.testing.assert_close(inputs[form].norm(dim=2), norms)  # orthogonal maps
    torch.testing.assert_close(inputs["powers of a permutation"][:, 0], protos[:, 0])
    hadamard = forms.multipliers("Hadamard rows", 7, 32, torch.Generator())
    torch.testing.assert_close(hadamard @ hadamard.T, 32 * torch.eye(7))


def test_a_key_on_the_memory_vector_changes_nothing_from_the_same_start(study, tmp_path):
    made = study(STUDIES / "keyed_memory.py", "--count", 2, "--lengths", "3", "--steps", 100)
    assert made.status == 0, made.err
    found = {(row["way"], row["passage"]): row["steps"] for row in rows(tmp_path)}
    assert len(found) == 2 * 3
    for passage in {passage for _, passage in found}:
        assert found["no key", passage] == found["key, same start", passage]
