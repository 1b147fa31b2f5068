"""The script that maps vectors against steps: killed and started again it does what is left, and reports from rows alone."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import map_front
import row_files

PAGE = f"Before.\n\n{map_front.MARKS['front'][0]}\nold\n{map_front.MARKS['front'][1]}\n\nBetween.\n\n" + "\n".join(
    [*map_front.MARKS["forecast"], "", "After.", ""]
)


@pytest.fixture
def mapped(tiny_folder, tmp_path, monkeypatch):
    """Runs the script on the tiny model, with random tokens; returns its rows."""
    path = tmp_path / "rows.jsonl"

    def run(*more, lengths=(2, 4), passages=3, steps=300):
        arguments = ["--model", tiny_folder, "--texts", "random-tokens", "--layouts", "paper", "tiled:3", "--lengths", *lengths]
        arguments += ["--passages", passages, "--steps", steps, "--rows", path, "--dtype", "float32", *more]
        monkeypatch.setattr(sys, "argv", ["map_front.py", *map(str, arguments)])
        map_front.main()
        return row_files.read_rows(path)

    run.path = path
    return run


def test_a_row_for_every_passage_with_all_that_the_forecast_needs(mapped):
    rows = mapped()
    assert len(rows) == 2 * 2 * 3
    assert {(row["layout"], row["length"]) for row in rows} == {(layout, n) for layout in ("paper", "tiled:3") for n in (2, 4)}
    for row in rows:
        assert row["floats"] == row["vectors"] * 32 == {"paper": 64, "tiled:3": 128}[row["layout"]]
        assert row["exact"] == (row["correct"] == row["length"])
        assert row["row_steps"] >= row["steps"] >= 0
        assert 0 < row["nats_max"] <= row["nats"]
        assert row["seconds"] >= 0
    assert any(row["exact"] for row in rows)


def test_killed_and_started_again_it_does_what_is_left(mapped, capsys):
    whole = mapped()
    lines = mapped.path.read_text().splitlines(keepends=True)
    mapped.path.write_text("".join(lines[:5]) + lines[5][:40])  # killed while it wrote
    again = mapped()
    assert "is torn and left out" in capsys.readouterr().err
    assert [row["ids_sha256"] for row in again[:5]] == [row["ids_sha256"] for row in whole[:5]]
    timeless = [{key: value for key, value in row.items() if key != "seconds"} for row in (*whole, *again)]
    by_key = [sorted(json.dumps([row[name] for name in map_front.KEY]) for row in rows) for rows in (whole, again)]
    assert by_key[0] == by_key[1]
    assert sorted(map(json.dumps, timeless[: len(whole)])) == sorted(map(json.dumps, timeless[len(whole) :]))
    before = mapped.path.read_bytes()
    mapped()
    assert mapped.path.read_bytes() == before


def test_a_hopeless_length_ends_after_its_trial(mapped):
    rows = mapped(lengths=(2, 64, 100), passages=4, steps=12)
    hopeless = [row for row in rows if row["length"] == 64]
    assert not any(row["exact"] for row in hopeless)
    assert len(hopeless) <= 2 * map_front.TRIAL
    assert not any(row["length"] == 100 for row in rows)


def test_an_estimate_runs_nothing(mapped, capsys):
    assert mapped("--estimate") == []
    told = json.loads(capsys.readouterr().out)
    assert told["cells"] >= 2
    assert told["position_steps"] >= 2 * told["row_steps"] > 0


def test_the_page_is_made_from_the_rows_alone(mapped, tmp_path, monkeypatch):
    rows = mapped()
    page, picture = tmp_path / "page.md", tmp_path / "front.svg"
    page.write_text(PAGE)
    arguments = ["--report", mapped.path, "--page", page, "--picture", picture]
    monkeypatch.setattr(sys, "argv", ["map_front.py", *map(str, arguments)])
    map_front.main()
    text, drawn = page.read_text(), picture.read_bytes()
    assert "old" not in text
    assert [word in text for word in ("Before.", "Between.", "After.")] == [True] * 3
    exact = sum(row["exact"] for row in rows if (row["layout"], row["length"]) == ("paper", 2))
    assert "| 2 | 2 | 32.0 | " in text
    assert f" | {exact} of 3 | [" in text
    map_front.main()
    assert page.read_text() == text
    assert picture.read_bytes() == drawn


def test_a_median_counts_those_that_were_never_exact():
    rows = [{"exact": exact, "steps": steps} for exact, steps in [(True, 10), (False, 99), (True, 30), (False, 99), (True, 20)]]
    assert map_front.median_steps(rows) == 30
    assert map_front.median_steps(rows[:4]) is None  # half way between 30 and never
    assert map_front.median_steps(rows[2:]) == 30
    assert map_front.median_steps([rows[0], rows[2]]) == 20
    assert map_front.highest_steps(rows) is None
    assert map_front.highest_steps(rows, 0.6) == 30
