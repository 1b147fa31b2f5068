"""A text goes through encode, inspect and decode; only data goes to standard output."""

import io
import os
import re
import subprocess
import sys

import pytest

from prototokens.cli import common
from prototokens.cli.keys import KEYS
from prototokens.engine.progress import Progress
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.encoded import EncodedText

TEXT = "Call me Ishmael. Some years ago"
ENCODE_KEYS = {
    "output",
    "model",
    "layout",
    "prefix",
    "tokens",
    "chunks",
    "vectors",
    "floats",
    "bytes",
    "exact",
    "accuracy",
    "steps_median",
    "row_steps",
    "seconds",
    "starts",
    "min_margin",
    "certified",
    "noise_radius",
    "worst_radius",
    "forecast_exact",
    "forecast_steps",
    "forecast_row_steps",
    "forecast_seconds",
    "bits",
    "patched",
    "stored",
    "edited",
}
DECODE_KEYS = {"text", "tokens", "forward_passes", "seconds", "tokens_per_second", "matches"}


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(TEXT)
    return path


def test_a_file_becomes_a_file_beside_it_and_comes_back(encode, decode, book, tmp_path):
    made = encode(book)
    assert (made.status, made.out) == (0, b"")
    plan, result = made.err.splitlines()
    assert plan.startswith("5 chunks of ")
    assert "; forecast" in plan
    assert "book.ptok: 31 tokens in 5 chunks, 25 vectors" in result
    assert "exact, read back from the file" in made.err
    back = decode(tmp_path / "book.ptok")
    assert (back.status, back.out, back.err) == (0, TEXT.encode(), "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book.ptok", "book.txt"]


def test_standard_input_and_an_output_for_the_text(encode, decode, tmp_path):
    text = b"line one\r\nline two\n\n"
    assert encode("-", "-o", tmp_path / "x.ptok", stdin=text).status == 0
    back = decode(tmp_path / "x.ptok", "-o", tmp_path / "x.txt")
    assert (back.status, back.out, back.err) == (0, b"", "")
    assert (tmp_path / "x.txt").read_bytes() == text
    assert decode(tmp_path / "x.ptok", "-o", tmp_path / "x.txt").status == 2
    assert decode(tmp_path / "x.ptok", "-o", tmp_path / "x.txt", "--force").status == 0


def test_json_of_encode_has_its_keys_and_true_figures(encode, folder, tmp_path):
    path = tmp_path / "x.ptok"
    made = encode("--text", TEXT, "-o", path, "--json")
    assert made.status == 0
    assert set(made.json) == ENCODE_KEYS == set(KEYS["encode"])
    assert made.out.count(b"\n") == 1
    assert "read back" not in made.err  # the summary is for people
    found, file = made.json, EncodedText.load(path)
    assert (found["output"], found["model"]) == (str(path), str(folder))
    assert (found["exact"], found["accuracy"], found["tokens"]) == (True, 1.0, len(TEXT))
    assert found["bytes"] == path.stat().st_size
    assert found["chunks"] == len(file.header.chunks)
    assert found["floats"] == file.vectors.numel() == 32 * found["vectors"]
    assert found["layout"] == file.header.layout == "keyed:5"
    assert found["row_steps"] >= found["chunks"]
    assert found["steps_median"] > 0
    assert found["min_margin"] > file.header.certificate.threshold > 0
    assert found["certified"] == "standard"
    assert found["noise_radius"] == file.header.certificate.noise_radius > 0
    assert found["worst_radius"] is None  # of the strict certificate alone
    assert 0 < found["seconds"] < 600


def test_json_of_decode_has_its_keys(encode, decode, tmp_path):
    encode("--text", TEXT, "-o", tmp_path / "x.ptok")
    back = decode(tmp_path / "x.ptok", "--json")
    assert set(back.json) == DECODE_KEYS == set(KEYS["decode"])
    assert (back.json["text"], back.json["tokens"], back.json["matches"]) == (TEXT, len(TEXT), True)
    assert back.json["forward_passes"] == 1
    assert back.json["tokens_per_second"] == pytest.approx(
        back.json["tokens"] / back.json["seconds"], rel=0.2
    )


def test_inspect_shows_the_header_without_a_model(encode, run, tmp_path, monkeypatch):
    path = tmp_path / "x.ptok"
    encode("--text", TEXT, "-o", path, "--seed", 7)
    monkeypatch.setattr(common, "load_model", None)
    shown = run("inspect", path, "--json")
    header = EncodedText.load(path).header.as_json()
    assert shown.status == 0
    assert set(shown.json) == set(KEYS["inspect"])
    assert {key: value for key, value in shown.json.items() if key in header} == header
    assert shown.json["floats_per_token"] == shown.json["floats"] / len(TEXT)
    assert shown.json["bits_per_token"] == 32 * shown.json["floats_per_token"]
    assert shown.json["file_bytes"] == path.stat().st_size
    assert set(shown.json["seeds"]) <= set(range(7, 16))
    for_people = run("inspect", path)
    assert for_people.status == 0
    assert "31 characters, 31 bytes, 31 tokens" in for_people.out.decode()
    assert "exact  yes, accuracy 1.0000" in for_people.out.decode()


def test_a_file_name_cannot_steer_the_terminal(encode, run, tmp_path):
    path = tmp_path / "\x1b[31mred.ptok"
    assert encode("--text", "hi", "-o", path).status == 0
    shown = run("inspect", path)
    assert shown.status == 0
    assert b"\x1b" not in shown.out
    assert b"?[31mred.ptok" in shown.out


def test_a_file_name_that_is_not_utf8(encode, decode, run, tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.txt")
    path.write_text(TEXT)
    made = encode(path)
    assert (made.status, made.out) == (0, b"")
    assert (tmp_path / os.fsdecode(b"\xff.ptok")).is_file()
    assert decode(tmp_path / os.fsdecode(b"\xff.ptok")).out == TEXT.encode()
    assert (
        decode(
            tmp_path / os.fsdecode(b"\xff.ptok"), "-o", tmp_path / os.fsdecode(b"\xfe.txt")
        ).status
        == 0
    )
    assert (tmp_path / os.fsdecode(b"\xfe.txt")).read_text() == TEXT
    assert run("inspect", tmp_path / os.fsdecode(b"\xff.ptok"), "--json").status == 0


@pytest.mark.skipif(
    sys.platform != "linux", reason="needs the C locale without UTF-8 mode, as Linux has it"
)
def test_file_names_under_a_locale_without_utf8(folder, tmp_path):
    """The bytes of the name are the name, whatever Python takes them for."""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    options = {"env": {**os.environ, **locale}, "cwd": tmp_path, "capture_output": True}
    command = [sys.executable, "-m", "prototokens"]
    name = "n\u00e4me.ptok".encode()
    made = subprocess.run(
        [*command, "encode", "--text", "hi", "-o", name, "--model", folder], **options
    )
    assert made.returncode == 0, made.stderr
    back = subprocess.run([*command, "decode", name, "--model", folder], **options)
    assert (back.returncode, back.stdout) == (0, b"hi"), back.stderr
    assert os.path.exists(tmp_path / "n\u00e4me.ptok")


def test_quiet_leaves_errors_alone(encode, decode, book, tmp_path):
    made = encode(book, "--quiet")
    assert (made.status, made.out, made.err) == (0, b"", "")
    again = encode(book, "--quiet")
    assert again.status == 2
    assert "exists already" in again.err
    assert decode(tmp_path / "book.ptok", "-q").out == TEXT.encode()


def test_an_output_that_exists_is_replaced_only_by_force(encode, decode, book, tmp_path):
    encode(book)
    before = (tmp_path / "book.ptok").read_bytes()
    refused = encode("--text", "other", "-o", tmp_path / "book.ptok")
    assert refused.status == 2
    assert "--force" in refused.err
    assert (tmp_path / "book.ptok").read_bytes() == before
    assert encode("--text", "other", "-o", tmp_path / "book.ptok", "--force").status == 0
    assert decode(tmp_path / "book.ptok").out == b"other"


def test_options_reach_the_fit(encode, run, tmp_path):
    path = tmp_path / "x.ptok"
    options = [
        "--layout",
        "tiled:6",
        "--chunk-length",
        5,
        "--recipe",
        "paper",
        "--steps",
        900,
        "--seed",
        3,
        "--rows",
        2,
    ]
    assert encode("--text", TEXT, "-o", path, *options).status == 0
    header = run("inspect", path, "--json").json
    assert (header["layout"], header["recipe"]["name"], header["recipe"]["steps"]) == (
        "tiled:6",
        "paper",
        900,
    )
    assert max(header["chunks"]) <= 5
    assert header["seeds"][0] == 3


def test_a_shared_vector_is_stored_once(encode, decode, run, tmp_path):
    path = tmp_path / "x.ptok"
    made = encode(
        "--text",
        "abcd",
        "-o",
        path,
        "--layout",
        "paper",
        "--chunk-length",
        2,
        "--share",
        "m",
        "--json",
    )
    assert made.status == 0
    assert (made.json["chunks"], made.json["vectors"]) == (2, 3)
    assert run("inspect", path, "--json").json["shared"] == "m_1"
    assert decode(path).out == b"abcd"
    refused = encode(
        "--text", "abcd", "-o", tmp_path / "y.ptok", "--share", "m", "--layout", "tiled:4"
    )
    assert refused.status == 2
    assert "layout of two vectors" in refused.err


def test_inexact_vectors_are_saved_and_reported(encode, decode, run, tmp_path):
    path = tmp_path / "x.ptok"
    made = encode("--text", TEXT, "-o", path, "--steps", 0, "--inexact", "keep", "--json")
    assert made.status == 1
    assert made.json["exact"] is False
    assert made.json["accuracy"] < 1
    assert "not exact" in made.err
    back = decode(path)
    assert back.status == 1
    assert back.out
    assert back.out != TEXT.encode()
    assert "warning" in back.err
    assert str(path) in back.err
    result = decode(path, "--json")
    assert (result.status, result.json["matches"]) == (1, False)
    assert "exact  no" in run("inspect", path).out.decode()
    assert "warning" in decode(path, "--quiet").err


def test_tokens_that_vectors_cannot_reproduce_are_stored_and_reported(
    encode, decode, run, tmp_path
):
    path = tmp_path / "x.ptok"
    made = encode("--text", TEXT, "-o", path, "--steps", 0, "--json")
    assert made.status == 0
    assert (made.json["exact"], made.json["accuracy"] < 1) == (True, True)
    assert made.json["stored"] + made.json["patched"] >= round(
        (1 - made.json["accuracy"]) * len(TEXT)
    )
    assert made.json["steps_median"] == 0
    assert (decode(path).status, decode(path).out) == (0, TEXT.encode())
    shown = run("inspect", path, "--json").json
    assert shown["patch_bytes"] > 0
    assert shown["beside_bits_per_character"]["plain"] == 8
    for_people = run("inspect", path).out.decode()
    assert re.search("stored as (its|their) ", for_people)
    assert "xz -9" in for_people
    errors = encode("--text", TEXT, "-o", path, "--steps", 0, "--force").err
    assert "tokens stored as they are" in errors


def test_a_warning_where_nothing_came_out_of_the_vectors(encode, tmp_path):
    path = tmp_path / "x.ptok"
    told = encode("--text", TEXT, "-o", path, "--steps", 0)
    assert told.status == 0
    assert "31 tokens stored as they are" in told.err
    assert "warning: nothing came out of the vectors" in told.err
    told = encode("--text", TEXT, "-o", path, "--force")
    assert "prototokens: warning" not in told.err


def test_few_bits_make_a_smaller_file_with_the_same_text(encode, decode, run, tmp_path):
    few, all_of_them = tmp_path / "few.ptok", tmp_path / "all.ptok"
    made = encode("--text", TEXT, "-o", few, "--bits", "auto", "--json").json
    whole = encode("--text", TEXT, "-o", all_of_them, "--json").json
    assert (made["exact"], whole["exact"], whole["bits"]) == (True, True, 32)
    assert made["bits"] < 9
    assert made["bytes"] < whole["bytes"]
    assert decode(few).out == TEXT.encode()
    shown = run("inspect", few, "--json").json
    # No compressor: the coder that knows the model takes a small part of it.
    assert shown["bits_per_character"] > 5 * shown["beside_bits_per_character"]["arithmetic"] > 0


def test_compile_reaches_the_model(encode, decode, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(FrozenLM, "compile", lambda self: called.append(self.name))
    assert encode("--text", TEXT, "-o", tmp_path / "x.ptok", "--compile").status == 0
    assert len(called) == 1
    assert decode(tmp_path / "x.ptok").out == TEXT.encode()


class Terminal(io.StringIO):
    """Standard error as a terminal that keeps what it was sent."""

    def isatty(self):
        return True


def test_progress_on_a_terminal(encode, folder, tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    assert encode("--text", TEXT, "-o", tmp_path / "x.ptok").status == 0
    shown = terminal.getvalue()
    assert "/5 chunks, " in shown
    assert "% right" in shown
    assert "steps/s" in shown
    terminal.truncate(0)
    assert encode("--text", TEXT, "-o", tmp_path / "y.ptok", "--quiet").status == 0
    assert "steps/s" not in terminal.getvalue()


@pytest.mark.parametrize("columns", [80, 100])
def test_progress_fits_into_the_terminal(monkeypatch, columns):
    """The count and the time left are whole, beside a bar that one can read."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    now = Progress(990, 987, 1000, 0.999, 0.1, 9_000_000, 900.0, lambda _: None)
    with common.fit_progress(False, 9500.0) as show:
        show(now)
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    line = next(line for line in re.split(r"[\r\n]", drawn) if "chunks" in line)
    assert "990/1000 chunks, 3 not exact, 100% right, 10,000 steps/s, 0:09 left" in line
    assert line.count("990") == 1
    assert len(line) <= columns
    assert sum(letter in "━╸╺" for letter in line) >= 8


def test_time_left_is_a_share_of_the_time_so_far():
    class Now:
        done, total, seconds = 30, 90, 61.0

    assert common.time_left(Now) == "2:02"


def test_the_built_in_model_needs_no_name(run, tmp_path):
    text = "The keeper had two clocks."
    made = run("encode", "--text", text, "-o", tmp_path / "x.ptok", "--json")
    assert made.status == 0
    assert (made.json["model"], made.json["layout"], made.json["chunks"]) == (
        "builtin",
        "keyed:2",
        1,
    )
    assert made.json["vectors"] == 2
    assert run("decode", tmp_path / "x.ptok").out == text.encode()


class TestVerify:
    """A saved file decoded in other ways."""

    def verify(self, run, folder, *arguments):
        return run("verify", *arguments, "--model", folder)

    def test_a_certified_file_passes(self, encode, run, folder, tmp_path):
        path = tmp_path / "x.ptok"
        encode("--text", TEXT, "-o", path)
        found = self.verify(run, folder, path, "--quick", "--json")
        assert found.status == 0
        assert set(found.json) == set(KEYS["verify"])
        assert (found.json["passed"], found.json["matches"], found.json["level"]) == (
            True,
            True,
            "standard",
        )
        assert len(found.json["tried"]) + len(found.json["absent"]) >= 4
        shown = self.verify(run, folder, path, "--quick")
        assert b"0 wrong" in shown.out
        assert b"x.ptok: passed" in shown.out
        assert self.verify(run, folder, path, "--quick", "--quiet").out == b""

    def test_another_text_does_not(self, encode, run, folder, tmp_path):
        path = tmp_path / "x.ptok"
        encode("--text", TEXT, "-o", path, "--steps", 0, "--inexact", "keep", "--certify", "none")
        found = self.verify(run, folder, path, "--quick", "--json")
        assert (found.status, found.json["passed"], found.json["matches"]) == (1, False, False)
        assert "not verified: the text differs" in found.err

    def test_without_a_certificate_the_recipes_own_margin_is_all(self, encode, run, tmp_path):
        path = tmp_path / "x.ptok"
        made = encode("--text", TEXT, "-o", path, "--certify", "none", "--json")
        assert (made.status, made.json["certified"]) == (0, "none")
        header = run("inspect", path, "--json").json
        assert header["certificate"]["tried"] == []
        assert "certified  no" in run("inspect", path).out.decode()
