"""`encode --vectors`, and the forecast that it prints before the first step."""

import re

import pytest

from prototokens.planning.chunks import VECTORS
from prototokens.ptok.encoded import EncodedText

TEXT = "Call me Ishmael."


@pytest.mark.parametrize(
    ("vectors", "layout"), [("1", "keyed:1"), ("2", "keyed:2"), ("4", "keyed:4")]
)
def test_a_number_of_vectors(encode, decode, tmp_path, vectors, layout):
    path = tmp_path / "x.ptok"
    made = encode("--text", TEXT, "-o", path, "--json", "--vectors", vectors)
    assert made.status == 0, made.err
    assert made.json["layout"] == layout
    assert made.json["vectors"] == made.json["chunks"] * int(vectors)
    assert decode(path).out == TEXT.encode()


def test_auto_is_exact_and_its_forecast_is_printed_before_the_fit(encode, decode, tmp_path):
    path = tmp_path / "x.ptok"
    made = encode("--text", TEXT, "-o", path, "--json", "--vectors", "auto")
    assert made.status == 0, made.err
    assert made.json["layout"] in [f"keyed:{count}" for count in VECTORS]
    assert decode(path).out == TEXT.encode()
    result = made.json
    assert 0 <= result["forecast_exact"] <= 1
    assert 0 < result["forecast_steps"] <= 2000
    assert result["forecast_row_steps"] >= result["chunks"]
    assert result["forecast_seconds"] > 0
    line = r"forecast from other models: [\d,]+ steps a chunk, \d+% of them exact, \d+:\d\d here\n"
    assert re.search(line, made.err)


def test_the_forecast_is_for_the_budget_that_is_given(encode, tmp_path):
    made = encode(
        "--text", TEXT, "-o", tmp_path / "x.ptok", "--json", "--chunk-length", 16, "--steps", 3
    )
    assert made.json["forecast_exact"] < 0.5
    assert made.json["forecast_steps"] <= 3


def test_quiet_runs_make_no_trial_steps(encode, tmp_path):
    made = encode("--text", TEXT, "-o", tmp_path / "x.ptok", "--json", "--quiet")
    assert made.status == 0
    assert made.json["forecast_seconds"] is None
    assert made.json["forecast_row_steps"] > 0
    assert made.err == ""


def test_nothing_is_forecast_of_chunks_that_share_a_vector(encode, tmp_path):
    made = encode(
        "--text",
        "abab",
        "-o",
        tmp_path / "x.ptok",
        "--json",
        "--share",
        "m",
        "--layout",
        "paper",
        "--chunk-length",
        2,
    )
    assert "forecast" not in made.err
    assert [
        made.json[f"forecast_{name}"] for name in ("exact", "steps", "row_steps", "seconds")
    ] == [None] * 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--vectors", "many"], "--vectors takes a number of vectors or auto, not 'many'"),
        (["--vectors", "-3"], "--vectors takes a number of vectors or auto, not '-3'"),
        (
            ["--vectors", "1025"],
            "vectors of a chunk are 'auto' or a number from 1 to 1024, not 1025",
        ),
        (
            ["--vectors", "auto", "--layout", "paper"],
            "layout 'paper' has 2 vectors a chunk, and auto are asked for",
        ),
        (
            ["--vectors", "3", "--layout", "paper"],
            "layout 'paper' has 2 vectors a chunk, and 3 are asked for",
        ),
    ],
)
def test_vectors_that_cannot_be_meant(encode, tmp_path, options, words):
    refused = encode("--text", TEXT, "-o", tmp_path / "x.ptok", *options)
    assert refused.status == 2
    assert words in refused.err
    assert refused.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_file_has_the_vectors_that_were_planned(encode, tmp_path):
    path = tmp_path / "x.ptok"
    made = encode("--text", TEXT, "-o", path, "--vectors", "3")
    assert made.status == 0
    assert "3 vectors each, layout keyed:3" in made.err
    assert EncodedText.load(path).layout.name == "keyed:3"


def test_a_context_stands_before_the_vectors(encode, decode, tmp_path):
    context, path = tmp_path / "before.txt", tmp_path / "x.ptok"
    context.write_text("Before.", encoding="utf-8")
    made = encode("--text", TEXT, "-o", path, "--json", "--context", context)
    assert made.status == 0, made.err
    assert made.json["prefix"] == len("Before.")
    file = EncodedText.load(path)
    assert (file.header.format, len(file.layout.prefix)) == (3, len("Before."))
    assert decode(path).out == TEXT.encode()
    both = encode(
        "--text", TEXT, "-o", tmp_path / "y.ptok", "--context", context, "--prefix", "bos"
    )
    assert (both.status, "either --prefix or --context" in both.err) == (2, True)
