"""trace: the numbers and the picture of what happens inside."""

import pytest

from prototokens.cli.keys import KEYS
from prototokens.measure.inside import look

TEXT = "Call me Ishmael."


@pytest.fixture
def file(encode, tmp_path):
    assert encode("--text", TEXT, "-o", tmp_path / "x.ptok", "--chunk-length", 8).status == 0
    return tmp_path / "x.ptok"


def test_the_numbers_are_those_of_the_library(run, folder, file, tiny_llama):
    from prototokens.ptok.encoded import EncodedText

    traced = run("trace", file, "--chunk", 2, "--model", folder, "--dtype", "float32", "--json")
    assert (traced.status, traced.err) == (0, "")
    assert set(traced.json) == set(KEYS["trace"])
    assert "".join(traced.json["tokens"]) == TEXT[8:16]
    inside = look(tiny_llama, EncodedText.load(file).chunks()[1])
    assert traced.json["lens_right"] == [
        round(float(share), 4) for share in (inside.lens.rank == 0).float().mean(1)
    ]
    assert traced.json["lens_right"][-1] == traced.json["knockout_kept"][-1] == 1
    shares = traced.json["attention"]
    assert [len(shares), len(shares[0]), len(shares[0][0])] == [
        2,
        4,
        5,
    ]  # layers, heads, vectors of tiled:4
    assert all(sum(head) == pytest.approx(1, abs=1e-3) for layer in shares for head in layer)


def test_a_table_for_people_and_a_picture(run, folder, file, tmp_path):
    for name, start in (("x.png", b"\x89PNG"), ("x.svg", b"<?xml"), ("x.PDF", b"%PDF")):
        drawn = run("trace", file, "-o", tmp_path / name, "--model", folder)
        assert drawn.status == 0
        assert (tmp_path / name).read_bytes().startswith(start)
        assert f"{name} is drawn" in drawn.err
    lines = drawn.out.decode().splitlines()
    assert lines[0].startswith("chunk 1, 8 tokens")
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "2"]
    assert "100.0%" in lines[-1]


def test_a_token_of_any_script_can_be_drawn(run, folder, encode, tmp_path):
    """Half characters, dollar signs (no formulas), line ends: nothing of it warns."""
    assert encode("--text", "海$x$\n☃", "-o", tmp_path / "x.ptok").status == 0
    assert (
        run("trace", tmp_path / "x.ptok", "-o", tmp_path / "x.png", "--model", folder).status == 0
    )


def test_one_token_alone(run, folder, encode, tmp_path):
    assert encode("--text", "A", "-o", tmp_path / "x.ptok").status == 0
    assert (
        run("trace", tmp_path / "x.ptok", "-o", tmp_path / "x.png", "--model", folder).status == 0
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "x.jpeg"], "x.jpeg is of no known kind: name the picture .png, .svg or .pdf"),
        (["--chunk", "3"], "there is no chunk 3: the chunks of this text are numbered from 1 to 2"),
        (["-o", "nowhere/x.png"], "does not exist"),
        (["--model", "builtin"], "was made for the model"),
        ([], "was made for the model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_chunks_that_cannot_be_traced_are_refused(run, folder, file, arguments, sentence):
    named = (
        arguments if "builtin" in arguments or not arguments else [*arguments, "--model", folder]
    )
    ran = run("trace", file, *named)
    assert ran.status == 2
    assert sentence in ran.err
    assert ran.err.count("\n") == 1


def test_without_matplotlib_the_extra_is_named(run, folder, file, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.delitem(__import__("sys").modules, "matplotlib.figure", raising=False)
    ran = run("trace", file, "-o", tmp_path / "x.png", "--model", folder)
    assert ran.status == 2
    assert "pip install 'prototokens[plots]'" in ran.err
    assert run("trace", file, "--model", folder).status == 0
