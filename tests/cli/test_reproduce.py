"""reproduce and capacity as a user types them."""

import json
import subprocess
import sys

import pytest

from prototokens.cli.keys import KEYS
from prototokens.lab.catalogue import EXPERIMENTS

FEW = (
    "--texts",
    "random-tokens",
    "--count",
    1,
    "--lengths",
    "2,1",
    "--steps",
    8,
    "--dtype",
    "float32",
)


@pytest.fixture
def reproduce(run, folder, tmp_path):
    """`prototokens reproduce NAME` on the tiny model, with few texts and steps."""
    return lambda name, *more: run(
        "reproduce", name, "--model", folder, "--out", tmp_path / "out", *FEW, *more
    )


def test_without_a_name_it_lists_all_with_a_line_and_a_time(run):
    listed = run("reproduce")
    assert listed.status == 0
    lines = listed.out.decode().splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert all("  about " in line or "  under a second " in line for line in lines)
    starts = {
        line.index(shows) for line, (_, shows) in zip(lines, EXPERIMENTS.values(), strict=True)
    }
    assert len(starts) == 1  # a column
    assert all(shows in line for line, (_, shows) in zip(lines, EXPERIMENTS.values(), strict=True))
    assert "--plan" in listed.err
    quiet = run("reproduce", "--quiet", "--json")
    assert (quiet.status, quiet.err) == (0, "")
    assert set(quiet.json) <= set(KEYS["reproduce"])
    assert [one["name"] for one in quiet.json["experiments"]] == list(EXPERIMENTS)
    assert all(one["smoke_seconds"] > 0 for one in quiet.json["experiments"])


def test_the_list_and_the_help_are_there_at_once():
    """Nothing heavy is imported for them: not the model's library, and not what draws."""
    program = (
        "import sys; from prototokens.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'numpy', 'ray'} & set(sys.modules); assert"
        " not heavy, heavy"
    )
    for words in (["reproduce"], ["reproduce", "--help"], ["capacity", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_a_table_is_run_printed_written_and_not_run_again(reproduce, tmp_path):
    first = reproduce("table1", "--json")
    assert first.status == 0
    assert set(first.json) <= set(KEYS["reproduce"])
    (made,) = first.json["experiments"]
    assert (made["name"], made["jobs"], made["rows"]) == ("table1", 14, 14)
    assert {"accuracy", "accuracy_long"} == set(made["tables"])
    names = {"report.md", "accuracy.csv", "accuracy_long.csv", "table1.png", "table1.svg"}
    assert {path.name for path in (tmp_path / "out" / "table1").iterdir()} == names
    rows = (tmp_path / "out" / "rows.jsonl").read_bytes()
    again = reproduce("table1")
    assert again.status == 0
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == rows
    assert again.out.decode().startswith("# Arrangements of the vectors")
    assert "14 rows" in again.err
    assert reproduce("table1", "--quiet").err == ""


def test_reports_are_drawn_again_from_rows_alone(reproduce, run, tmp_path):
    assert reproduce("table4").status == 0
    out = tmp_path / "out" / "table4"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for path in out.iterdir():
        path.unlink()
    rows = (tmp_path / "out" / "rows.jsonl").read_bytes()
    # Neither the model nor the texts of the run are named.
    drawn = run("reproduce", "all", "--from-rows", "--out", tmp_path / "out", "--json")
    assert [(one["name"], one["rows"]) for one in drawn.json["experiments"]] == [("table4", 2)]
    assert set(drawn.json) <= set(KEYS["reproduce"])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # A second model's rows in one folder are no table.
    other = (
        rows.splitlines(keepends=True)[0]
        .replace(b'"fingerprint":"', b'"fingerprint":"f')
        .replace(b'"key":"', b'"key":"f')
    )
    (tmp_path / "out" / "rows.jsonl").write_bytes(rows + other)
    mixed = run("reproduce", "table4", "--from-rows", "--out", tmp_path / "out")
    assert (mixed.status, mixed.out) == (2, b"")
    assert "several models" in mixed.err
    for out in ("out", "nowhere"):
        none = run("reproduce", "table2", "--from-rows", "--out", tmp_path / out)
        assert (none.status, none.out) == (2, b"")
        assert "no rows of table2" in none.err
    assert not (tmp_path / "nowhere").exists()


def test_figure1_is_the_picture_of_table3(reproduce, tmp_path):
    made = reproduce("figure1", "--json")
    assert [one["name"] for one in made.json["experiments"]] == ["table3"]
    assert (tmp_path / "out" / "table3" / "figure1.png").read_bytes().startswith(b"\x89PNG")


def test_a_plan_runs_nothing_and_knows_what_is_done(reproduce, tmp_path):
    planned = reproduce("table4", "--plan", "--json")
    assert planned.status == 0
    assert set(planned.json) <= set(KEYS["reproduce"])
    (plan,) = planned.json["plan"]
    assert (plan["name"], plan["jobs"], plan["done"], len(plan["keys"])) == ("table4", 2, 0, 2)
    assert 0 < plan["seconds"] == planned.json["seconds"]
    assert not (tmp_path / "out").exists()
    assert reproduce("table4").status == 0
    after = reproduce("table4", "--plan")
    assert after.out.count(b" done ") == len(after.out.splitlines()) == 2
    assert "2 jobs, 2 done" in after.err
    assert reproduce("table4", "--plan", "--json").json["plan"][0]["keys"] == []


def test_layouts_of_the_user_are_compared_in_place_of_the_own(reproduce):
    made = reproduce("table1", "--layouts", "keyed:3,paper", "--json")
    assert made.status == 0, made.err
    (table1,) = made.json["experiments"]
    assert [line["layout"] for line in table1["tables"]["accuracy_long"]] == ["paper"] * 2 + [
        "keyed:3"
    ] * 2
    assert reproduce("capacity", "--layouts", "keyed:2").status == 0


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    [
        ("table9", [], "there is no experiment 'table9': choose one of table1"),
        ("table1", ["--texts", "books"], "are none of sample"),
        ("table1", ["--lengths", "4,x"], "no list of whole numbers"),
        ("table1", ["--lengths", "0"], "no list of whole numbers"),
        ("table1", ["--layouts", "paper,twisted"], "layout"),
        ("table4", ["--layouts", "paper"], "table4 does not"),
        ("table1", ["--actors", "2"], "of --runner ray"),
        ("table1", ["--texts", "file:nowhere.txt"], "does not exist"),
        ("table1", ["--scale", "huge"], "--scale"),
    ],
)
def test_refused_runs_have_a_reason_of_one_line(run, folder, tmp_path, name, more, sentence):
    options = [*FEW[2:], "--model", folder, "--out", tmp_path / "out", *more]
    failed = run("reproduce", name, *(options if "--texts" in more else [*FEW[:2], *options]))
    assert (failed.status, failed.out) == (2, b"")
    assert sentence in failed.err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made(run, folder, tmp_path):
    (tmp_path / "file").write_text("")
    failed = run("reproduce", "table4", "--model", folder, "--out", tmp_path / "file" / "out", *FEW)
    assert (failed.status, failed.out) == (2, b"")
    assert "--out" in failed.err


def test_a_card_as_text_json_and_a_picture(run, folder, tmp_path):
    words = ("capacity", "--model", folder, "--out", tmp_path / "out", *FEW)
    made = run(*words, "--json", "--quiet")
    assert (made.status, made.err) == (0, "")
    assert set(made.json) == set(KEYS["capacity"])
    assert [one["way"] for one in made.json["capacity"]] == ["paper", "memory:1", "memory:2"]
    out = tmp_path / "out" / "capacity"
    assert json.loads((out / "card.json").read_text())["capacity"] == made.json["capacity"]
    assert (out / "card.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in out.iterdir()} == {
        "report.md",
        "card.csv",
        "card.png",
        "card.svg",
        "card.json",
    }
    printed = run(*words)
    assert printed.out.decode() == (out / "report.md").read_text()
    assert "card.json" in printed.err


def test_commands_share_their_rows(reproduce, run, folder, tmp_path):
    """The climbs of the card are those of reproduce: the same jobs, the same rows."""
    assert reproduce("capacity").status == 0
    before = (tmp_path / "out" / "rows.jsonl").read_bytes()
    assert run("capacity", "--model", folder, "--out", tmp_path / "out", *FEW).status == 0
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == before
