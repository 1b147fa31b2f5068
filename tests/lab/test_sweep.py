"""Rows and sweeps: nothing is run twice or lost, whatever is killed, torn, or runs beside."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from experiment_runs import settings

from prototokens.errors import FileError, ModelError, UsageError
from prototokens.fitting import fit
from prototokens.lab import drive as driving
from prototokens.lab import experiments, models
from prototokens.lab.job import Fit, Job
from prototokens.lab.passages import Passage
from prototokens.lab.records import Records
from prototokens.lab.solution_store import SolutionStore
from prototokens.lab.sweep import Local, sweep
from prototokens.recipe import Recipe

VOLATILE = ("seconds", "when", "machine", "versions", "git")
HERE = Path(__file__).parent
KILLS = int(os.environ.get("PROTOTOKENS_KILLS", "20"))


def steady(rows):
    """Rows without what differs from run to run."""
    return [{name: value for name, value in row.items() if name not in VOLATILE} for row in rows]


@pytest.fixture
def table1(tiny_llama):
    config = settings(tiny_llama, steps=4, sources=("random-tokens",), most_texts=2, grid=(1, 2))
    return experiments.load("table1").jobs(config)


def test_a_row_has_everything_needed_to_make_it_again(tiny_llama, table1, tmp_path):
    rows = sweep(table1, Records(tmp_path), Local(tiny_llama))
    assert len(rows) == len(table1) == 28
    for row in rows:
        assert row["fingerprint"] == tiny_llama.fingerprint
        assert {
            "key",
            "recipe",
            "layout",
            "seed",
            "texts",
            "dtype",
            "seconds",
            "machine",
            "versions",
            "git",
            "steps",
            "margin",
        } <= set(row)
        assert row["texts"][0]["hash"]
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines].__len__() == 28


def test_a_second_run_fits_nothing(tiny_llama, table1, tmp_path, monkeypatch):
    first = sweep(table1, Records(tmp_path), Local(tiny_llama))
    monkeypatch.setattr(driving, "fit", None)
    assert sweep(table1, Records(tmp_path), Local(tiny_llama)) == first
    # Without its rows, a sweep makes them again from the solutions that it kept.
    (tmp_path / "rows.jsonl").unlink()
    assert steady(sweep(table1, Records(tmp_path), Local(tiny_llama))) == steady(first)


def test_side_by_side_gives_what_one_at_a_time_gives(tiny_llama, table1, tmp_path):
    # Steps of AdamW: preconditioned ones, in the first of which hardly any direction is known,
    # amplify a sum's last bits.
    table1 = [replace(job, recipe=Recipe.named("paper", steps=4)) for job in table1]
    alone = sweep(table1, Records(tmp_path / "alone"), Local(tiny_llama, most=1))
    together = sweep(table1, Records(tmp_path / "together"), Local(tiny_llama))
    for one, other in zip(alone, together, strict=True):
        assert {**one, "margin": 0, "seconds": 0, "when": 0} == {
            **other,
            "margin": 0,
            "seconds": 0,
            "when": 0,
        }
        assert one["margin"] == pytest.approx(other["margin"], abs=1e-4)


def test_a_torn_last_line_is_reported_and_its_job_is_run_again(tiny_llama, table1, tmp_path):
    whole = sweep(table1, Records(tmp_path), Local(tiny_llama))
    path = tmp_path / "rows.jsonl"
    data = path.read_bytes()
    for cut in (1, 40, len(data.splitlines()[-1]) - 1):
        path.write_bytes(data[:-cut])
        lines = []
        records = Records(tmp_path, lines.append)
        # Only the newline gone: the row is whole.
        assert len(lines) == (cut > 1)
        rows = sweep(table1, records, Local(tiny_llama))
        assert steady(rows) == steady(whole)
        for line in path.read_bytes().splitlines()[-1:]:
            json.loads(line)
        records.close()


def test_a_foreign_line_is_skipped(tmp_path):
    (tmp_path / "rows.jsonl").write_text('[1]\nnull\n{"a": 1}\n\nxyz\n')
    lines = []
    assert Records(tmp_path, lines.append).rows() == []
    assert [line.split(", ")[1].split(" is")[0] for line in lines] == [
        "line 1",
        "line 2",
        "line 3",
        "line 5",
    ]


def job(tiny_llama, number=0):
    text = Passage(f"text {number}", (1, 2, number))
    return Job("table1", models.facts(tiny_llama), (text,))


def test_numbers_that_json_does_not_know_become_null(tiny_llama, tmp_path):
    records = Records(tmp_path)
    records.append(job(tiny_llama), [{"a": float("nan"), "b": [float("inf"), 1.5]}], {}, 0.0)
    (row,) = records.rows()
    assert (row["a"], row["b"]) == (None, [None, 1.5])


def test_of_a_job_of_which_a_part_is_lost_only_that_part_is_written(tiny_llama, tmp_path):
    records, one = Records(tmp_path), job(tiny_llama)
    records.append(one, [{"n": 0}, {"n": 1}, {"n": 2}], {}, 0.0)
    lines = (tmp_path / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_bytes(lines[0] + lines[2])
    again = Records(tmp_path)
    assert not again.done(one.key)
    assert again.rows() == []
    again.append(one, [{"n": 0}, {"n": 1}, {"n": 2}], {}, 0.0)
    assert [row["n"] for row in again.rows()] == [0, 1, 2]
    assert len((tmp_path / "rows.jsonl").read_bytes().splitlines()) == 3


def test_a_key_changes_with_all_that_determines_a_row(tiny_llama):
    base = job(tiny_llama)
    facts = base.model
    text = base.text
    others = [
        Job("table2", facts, base.texts),
        Job("table1", facts, (Passage("text 0", (1, 2, 1)),)),
        Job("table1", facts, (Passage("other", text.ids),)),
        Job("table1", facts, (Passage(text.id, text.ids, (9,)),)),
        Job("table1", facts, base.texts, "free"),
        Job("table1", facts, base.texts, recipe=Recipe.named("paper")),
        Job("table1", facts, base.texts, seed=1),
        Job("table1", facts, base.texts, values={"a": 1}),
        Job("table1", facts, base.texts, version=2),
        Job("table1", type(facts)(**{**vars(facts), "fingerprint": "f"}), base.texts),
        Job("table1", type(facts)(**{**vars(facts), "dtype": "bfloat16"}), base.texts),
    ]
    assert len({one.key for one in [base, *others]}) == 12
    assert Job("table1", facts, base.texts, work=5.0).key == base.key


def test_solutions_are_kept_to_the_bit_and_a_damaged_file_is_found_again(tiny_llama, tmp_path):
    kept, model = SolutionStore(tmp_path), models.facts(tiny_llama)
    wish = Fit(((1, 2, 3), (4, 5)), "paper", Recipe.named("fast", steps=2), 0, "m")
    fitted = tuple(
        fit(tiny_llama, list(wish.targets), layout="paper", recipe=wish.recipe, share="m")
    )
    assert kept.load(wish, model) is None
    kept.save(wish, model, fitted)
    loaded = kept.load(wish, model)
    assert loaded is not None
    for one, other in zip(fitted, loaded, strict=True):
        assert one == other
    path = kept.path(wish.key(model))
    data = path.read_bytes()
    for damaged in (data[:20], data[:-5], b"", b"\xff" * 40):
        path.write_bytes(damaged)
        assert kept.load(wish, model) is None


def test_a_claim_is_of_one_process_and_goes_with_it(tiny_llama, tmp_path):
    mine, one, two = Records(tmp_path), job(tiny_llama, 1), job(tiny_llama, 2)
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        theirs = Records(tmp_path)
        os.write(go, bytes([theirs.claim(one)]))
        time.sleep(60)
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"\x01"
        assert not mine.claim(one)
        assert mine.claim(two)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert mine.claim(one)
    mine.append(one, [{}], {}, 0.0)
    mine.release(one)
    assert not mine.claim(one)


def test_a_model_that_has_changed_is_refused(tiny_llama, tiny_folder, tmp_path):
    config = settings(
        models.load(str(tiny_folder), dtype="float32"),
        steps=1,
        sources=("random-tokens",),
        most_texts=1,
        grid=(1,),
    )
    jobs = experiments.load("table1").jobs(config)
    changed = [replace(one, model=replace(one.model, fingerprint="0" * 64)) for one in jobs]
    with pytest.raises(ModelError, match="other weights"):
        sweep(changed, Records(tmp_path), Local())


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="--out"):
        Records(tmp_path / "file" / "rows")


def test_no_such_experiment():
    with pytest.raises(UsageError, match="choose one of table1"):
        experiments.load("table9")
    with pytest.raises(UsageError, match="or all"):
        experiments.resolve("table9")
    assert experiments.resolve("figure1") == ["table3"]


def test_killed_again_and_again_a_sweep_ends_with_the_rows_of_an_undisturbed_one(
    tiny_folder, tmp_path
):
    sys.path.insert(0, str(HERE))
    try:
        from killed_sweep import jobs_of
    finally:
        sys.path.remove(str(HERE))
    command = [
        sys.executable,
        HERE / "killed_sweep.py",
        tiny_folder,
        tmp_path / "killed",
        str(KILLS),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    # Most runs have to have been killed at work, or the test would show nothing.
    assert json.loads(done.stdout)["killed"] >= 0.75 * KILLS
    lm, jobs = jobs_of(str(tiny_folder), KILLS)
    lines = []
    ended = sweep(jobs, Records(tmp_path / "killed", lines.append), Local(lm))
    undisturbed = sweep(jobs, Records(tmp_path / "whole"), Local(lm))
    assert [row["key"] for row in ended] == [row["key"] for row in undisturbed]
    assert len(ended) == len(jobs)
    for one, other in zip(steady(ended), steady(undisturbed), strict=True):
        assert {**one, "margin": 0} == {**other, "margin": 0}
    keys = [
        json.loads(line)["key"]
        for line in (tmp_path / "killed" / "rows.jsonl").read_text().splitlines()
        if line.endswith("}")
    ]
    assert len(keys) == len(set(keys))
