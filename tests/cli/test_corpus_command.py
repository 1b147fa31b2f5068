"""`prototokens corpus` makes, goes on, checks, and refuses in a line."""

import pytest

from prototokens.corpus.shards import shards_in
from small_corpora import QUICK, TEXTS, source_of


def test_the_command(run, folder, tmp_path):
    source = source_of(tmp_path / "texts.jsonl", TEXTS)
    out = tmp_path / "out"
    options = [
        word
        for name, value in QUICK.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    command = ("corpus", source, "-o", out, "--model", folder, *options)
    made = run(*command, "--json")
    assert made.status == 0, made.err
    assert made.json["rows"] == 16
    assert made.json["made"] == 4
    assert "16 rows" in made.err
    assert run(*command, "--json").json["made"] == 0
    checked = run("corpus", "-o", out, "--model", folder, "--verify", "all", "--json")
    assert (checked.status, checked.json["decoded"]) == (0, 16)
    assert "name it with --model" in run("corpus", "-o", out, "--verify", "1").err
    assert run("corpus", "-o", out, "--verify", "0", "-q").status == 0
    path = shards_in(out)[2].path
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    broken = run("corpus", "-o", out, "--verify", "0")
    assert broken.status == 1
    assert path.name in broken.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give either SOURCE"),
        (("sample", "--verify", "1"), "give either SOURCE"),
        (("--verify", "some"), "--verify takes a number of rows or all"),
        (("sample", "--actors", "2"), "--address and --actors are of --runner ray"),
        (("nothing:here",), "texts 'nothing:here' are none of"),
        (("file:none.txt",), "none.txt does not exist"),
        (("sample", "--start", "nowhere"), "nowhere is no encoder's folder"),
    ],
)
def test_what_the_command_refuses(run, folder, tmp_path, arguments, words):
    ended = run("corpus", *arguments, "-o", tmp_path / "x", "--model", folder)
    assert ended.status == 2
    assert words in ended.err
    assert ended.err.count("\n") == 1
