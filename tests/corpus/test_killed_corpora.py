"""A corpus is whole, each row there once, whatever was killed while it was made."""

import json
import os
from pathlib import Path

import pytest

from programs import run_program
from small_corpora import rows_of

HERE = Path(__file__).parent
KILLS = int(os.environ.get("PROTOTOKENS_KILLS", "20"))


def test_killed_runs_lose_no_row_and_repeat_none(tiny_folder, tmp_path):
    out = run_program(HERE / "killed_corpus.py", tiny_folder, tmp_path / "out", KILLS)
    found = json.loads(out.splitlines()[-1])
    assert found["killed"] >= KILLS * 0.7
    rows = rows_of(tmp_path / "out")
    assert [row["row"] for row in rows] == list(range(found["rows"]))
    assert rows == rows_of(tmp_path / "undisturbed")
    assert not list((tmp_path / "out" / "data").glob(".*"))


def test_a_killed_actor_loses_nothing(tiny_folder, tmp_path):
    pytest.importorskip("ray.data", reason="needs the extra [ray]")
    assert "one actor killed" in run_program(
        HERE / "killed_worker.py", tiny_folder, tmp_path / "out"
    )
    rows = rows_of(tmp_path / "out")
    assert [row["row"] for row in rows] == list(range(60))
    volatile = ("vectors", "margin")  # another batch, another last bit
    whole = rows_of(tmp_path / "undisturbed")
    for one, other in zip(rows, whole, strict=True):
        assert {k: v for k, v in one.items() if k not in volatile} == {
            k: v for k, v in other.items() if k not in volatile
        }


def test_a_source_that_breaks_off_leaves_what_was_made(tiny_folder, tmp_path):
    pytest.importorskip("ray.data", reason="needs the extra [ray]")
    lines = [json.dumps({"text": f"text {number}"}) for number in range(6)]
    (tmp_path / "texts.jsonl").write_text("\n".join([*lines, "{broken"]))
    source = f"file:{tmp_path / 'texts.jsonl'}"
    out = run_program(HERE / "failing_worker.py", tiny_folder, source, tmp_path / "out")
    assert out.splitlines()[-1].startswith(f"TextError: {tmp_path / 'texts.jsonl'}, line 7, is no")
    assert [row["row"] for row in rows_of(tmp_path / "out")] == list(range(6))
