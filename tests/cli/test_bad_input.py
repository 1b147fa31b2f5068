"""Whatever is given: a clear sentence, the right exit status, nothing lost."""

import io
import os
import sys
import time
import tracemalloc
from pathlib import Path

import click
import pytest
from huggingface_hub import constants

from prototokens import encoding
from prototokens.cli import main
from prototokens.cli.reading import MAX_HEAD
from prototokens.errors import FileError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.patches import MAX_UNPACKED

ODD_TEXTS = {
    "one token": "a",
    "spaces": "   ",
    "NUL bytes": "a\0b\0\0",
    "emoji": "\U0001f469‍\U0001f680 ok \U0001f1e9\U0001f1ea",
    "combining": "é é ạ̈",
    "line ends": "a\r\nb\rc\n",
    "byte order mark": "﻿hi",
    "special token": "a <bos> b <eos>",
}


def refused(ran, *words, status=2):
    """One line on standard error, without a traceback, that holds the words.

    Nothing on standard output.
    """
    assert ran.status == status, ran
    assert ran.out == b""
    assert ran.err.startswith("prototokens: "), ran.err
    assert ran.err.count("\n") == 1, ran.err
    for word in words:
        assert str(word) in ran.err
    return True


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out.ptok"


@pytest.fixture
def no_fit(monkeypatch):
    """Fail where a fit is begun: what is refused must be refused before."""

    def fit(*_, **__):
        raise AssertionError("a fit was begun")

    monkeypatch.setattr(encoding, "fit", fit)


@pytest.fixture
def no_model(monkeypatch):
    """Fail where a model is loaded."""

    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(FrozenLM, "from_pretrained", load)


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_odd_texts_come_back(encode, decode, target, text):
    raw = text.encode()
    assert encode("-", "-o", target, stdin=raw).status == 0
    assert decode(target).out == raw


def test_bytes_that_are_no_text_come_back_and_are_reported(encode, decode, target, tmp_path):
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    ran = encode(tmp_path / "latin.txt")
    assert ran.status == 0
    assert "1 of 4 bytes are no UTF-8 text" in ran.err
    assert decode(tmp_path / "latin.ptok").out == b"caf\xe9"
    assert (
        encode("--text", "ab\udce9", "-o", target).status == 0
    )  # an argument that is no UTF-8, as Python hands it on
    assert decode(target).out == b"ab\xe9"
    assert encode("-", "-o", target, "--force", stdin=b"\xff\xfe").status == 0
    assert decode(target).out == b"\xff\xfe"


@pytest.mark.usefixtures("no_model")
class TestText:
    def test_empty(self, encode, target, tmp_path):
        (tmp_path / "empty.txt").touch()
        assert refused(encode("--text", "", "-o", target), "the text is empty")
        assert refused(encode(tmp_path / "empty.txt"), "the text is empty")
        assert refused(encode("-", "-o", target, stdin=b""), "the text is empty")

    def test_folder(self, encode, tmp_path):
        (tmp_path / "sub").mkdir()
        assert refused(encode(tmp_path / "sub"), "sub is a folder")
        assert refused(encode("."), "is a folder")

    def test_missing(self, encode, tmp_path):
        assert refused(encode(tmp_path / "nowhere" / "none.txt"), "none.txt does not exist")
        assert refused(encode("a\0b"), "cannot be read")

    def test_unreadable(self, encode, tmp_path, monkeypatch):
        # Not with chmod: root, as which containers run tests, may read anything.
        def denied(self, *_):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "open", denied)
        assert refused(
            encode(tmp_path / "secret.txt"), "secret.txt cannot be read (Permission denied)"
        )

    def test_none_or_two(self, encode, target):
        assert refused(encode("-o", target), "a file", "--text")
        assert refused(encode("book.txt", "--text", "hi", "-o", target), "a file", "--text")

    def test_closed_standard_input(self, encode, target, monkeypatch):
        monkeypatch.setattr(sys, "stdin", None)
        assert refused(encode("-", "-o", target), "standard input cannot be read (it is closed)")


@pytest.mark.skipif(
    os.name != "posix", reason="elsewhere no folder is removed while a process is in it"
)
def test_a_folder_that_is_gone(run, tmp_path, monkeypatch):
    """pypa/pip, issue 4255: there it was a traceback; here it would be a library's last word."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert refused(run("inspect", "x.ptok"), "does not exist any more")


class Endless(io.RawIOBase):
    """Bytes that follow one another for ever; it notes how many were taken."""

    def __init__(self, letters):
        self.letters, self.taken = letters, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        stretch = (self.letters * (len(buffer) // len(self.letters) + 1))[: len(buffer)]
        buffer[:] = stretch
        self.taken += len(buffer)
        return len(buffer)


@pytest.mark.usefixtures("no_fit")
class TestEndlessText:
    def test_a_pipe_that_never_ends(self, encode, target, monkeypatch):
        source = Endless(b"Call me Ishmael. ")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(source)))
        assert refused(
            encode("-", "-o", target, "--max-tokens", 1000),
            "more than 8,000 tokens",
            "1,000 of --max-tokens",
        )
        assert source.taken <= 2 * MAX_HEAD

    def test_what_no_token_stands_for(self, encode, target, monkeypatch):
        """Bytes that are no UTF-8 give no token, so no number of tokens ends the reading."""
        source = Endless(b"\xff")
        monkeypatch.setattr("prototokens.cli.reading.MAX_HEAD", 1000)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(source, 1000)))
        assert refused(
            encode("-", "-o", target, "--max-tokens", 10),
            "standard input holds more than",
            "10 tokens (--max-tok",
        )
        assert source.taken < MAX_UNPACKED + (1 << 16)

    def test_a_file_of_six_gigabytes(self, encode, target, tmp_path):
        with open(tmp_path / "large.txt", "wb") as file:
            file.truncate(6 << 30)  # takes no room on the disk
        tracemalloc.start()
        ran = encode(tmp_path / "large.txt", "-o", target)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert refused(ran, "about 6,442,450,944 tokens", "100,000 of --max-tokens")
        assert peak < 1 << 28

    @pytest.mark.skipif(
        not os.path.exists("/dev/zero"), reason="needs a device without an end: /dev/zero"
    )
    def test_a_device_without_an_end(self, encode, target):
        assert refused(
            encode("/dev/zero", "-o", target, "--max-tokens", 5000),
            "more than 40,000 tokens",
            "--max-tokens",
        )


@pytest.mark.usefixtures("no_model")
class TestOutput:
    def test_not_named(self, encode):
        assert refused(encode("--text", "hi"), "-o")
        assert refused(encode("-", stdin=b"hi"), "-o")
        assert refused(encode("--text", "hi", "-o", "-"), "name a file")

    def test_words_in_place_of_a_file(self, encode, target):
        for output in ([], ["-o", target]):
            assert refused(encode("hello world", *output), "does not exist", "with --text")

    def test_exists(self, encode, target):
        target.write_text("mine")
        assert refused(encode("--text", "hi", "-o", target), "out.ptok exists already", "--force")
        assert target.read_text() == "mine"

    def test_is_known_before_the_text_is_typed(self, encode, target, monkeypatch):
        target.write_text("mine")
        monkeypatch.setattr(sys, "stdin", None)  # cannot be read
        assert refused(encode("-", "-o", target), "exists already")

    def test_is_the_text(self, encode, tmp_path):
        book = tmp_path / "book.txt"
        book.write_text("mine")
        assert refused(encode(book, "-o", book, "--force"), "the text itself")
        book = book.rename(tmp_path / "book.ptok")
        assert refused(encode(book, "--force"), "suffix of an output")
        assert book.read_text() == "mine"

    def test_in_no_folder(self, encode, tmp_path):
        assert refused(
            encode("--text", "hi", "-o", tmp_path / "no" / "x.ptok"), "folder", "does not exist"
        )

    def test_is_no_file(self, encode, tmp_path):
        assert refused(encode("--text", "hi", "-o", tmp_path), "is a folder")
        assert refused(encode("--text", "hi", "-o", "/dev/null", "--force"), "no regular file")
        assert os.path.exists("/dev/null")

    def test_cannot_be_written(self, encode, tmp_path, monkeypatch):
        def denied(**_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.mkstemp", denied)
        assert refused(
            encode("--text", "hi", "-o", tmp_path / "x.ptok"),
            "x.ptok cannot be written (Permission denied)",
        )

    def test_has_an_impossible_name(self, encode, tmp_path):
        assert refused(encode("--text", "hi", "-o", tmp_path / ("x" * 300)), "cannot be written")

    def test_of_decode(self, decode, tmp_path):
        assert refused(
            decode(tmp_path / "x.ptok", "-o", tmp_path / "no" / "x.txt"), "folder", "does not exist"
        )


@pytest.mark.skipif(
    not os.path.exists("/proc/self"),
    reason="needs a folder that even root cannot write: Linux has /proc",
)
@pytest.mark.usefixtures("no_model")
def test_a_folder_that_cannot_be_written(encode):
    assert refused(encode("--text", "hi", "-o", "/proc/self/x.ptok"), "cannot be written")


@pytest.mark.usefixtures("no_fit")
class TestModel:
    def test_text_that_is_too_long_is_refused_at_once(self, encode, tmp_path):
        (tmp_path / "big.txt").write_bytes(b"Call me Ishmael. Some years ago. " * 160_000)  # 5 MB
        began = time.process_time()
        assert refused(
            encode(tmp_path / "big.txt", "--max-tokens", 5000),
            "about 5,280,000 tokens",
            "5,000",
            "--max-tokens",
        )
        assert time.process_time() - began < 5
        assert refused(
            encode("--text", "Ishmael", "-o", tmp_path / "x.ptok", "--max-tokens", 6),
            "has 7 tokens",
            "6 of",
        )

    def test_target_longer_than_the_context(self, encode, target):
        assert refused(
            encode("--text", "hi", "-o", target, "--chunk-length", 129), "129", "from 1 to 128"
        )
        # The free layout gives one position away.
        over = encode("--text", "hi", "-o", target, "--chunk-length", 128, "--layout", "free")
        assert refused(over, "128", "from 1 to 127")

    def test_no_such_folder(self, run, target):
        assert refused(
            run("encode", "--text", "hi", "-o", target, "--model", "./nowhere"),
            "no folder './nowhere'",
        )
        assert refused(run("models", "./nowhere"), "no folder './nowhere'")

    def test_folder_without_a_model(self, run, target, tmp_path):
        assert refused(
            run("encode", "--text", "hi", "-o", target, "--model", tmp_path), "config.json"
        )

    def test_no_network(self, run, target, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        ran = run("encode", "--text", "hi", "-o", target, "--model", "nobody/no-such-model")
        assert refused(
            ran, "'nobody/no-such-model'", "could not be reached", "connect to the network"
        )

    def test_no_model_of_that_name(self, run, target):
        assert refused(
            run("encode", "--text", "hi", "-o", target, "--model", "no such model"),
            "cannot be the id",
        )

    def test_revision_of_a_folder(self, encode, target):
        assert refused(
            encode("--text", "hi", "-o", target, "--revision", "main"), "no revision 'main'"
        )

    def test_device_that_is_not_there(self, encode, target):
        assert refused(encode("--text", "hi", "-o", target, "--device", "cuda:99"), "cuda:99")


@pytest.mark.usefixtures("no_model")
class TestUsage:
    def test_unknown_names(self, encode, target):
        assert refused(
            encode("--text", "hi", "-o", target, "--layout", "tiled:0"), "tiled:0", "paper"
        )
        assert refused(encode("--text", "hi", "-o", target, "--recipe", "slow"), "slow", "fast")
        assert refused(
            encode("--text", "hi", "-o", target, "--bits", "9"),
            "bits must be one of 1, 2",
            "'auto', not 9",
        )
        assert refused(encode("--text", "hi", "-o", target, "--bits", "few"), "not 'few'")
        digits = "8" * 5000  # more than Python reads as a number
        assert refused(
            encode("--text", "hi", "-o", target, "--bits", digits), "bits must be one of 1, 2"
        )
        assert refused(
            encode("--text", "hi", "-o", target, "--vectors", digits),
            "--vectors takes a number of vectors",
        )
        assert refused(encode("--text", "hi", "-o", target, "--inexact", "drop"), "--inexact")
        assert refused(
            encode("--text", "hi", "-o", target, "--start", "./nowhere"),
            "nowhere is no encoder's folder",
        )

    def test_numbers_out_of_range(self, encode, target):
        for option, value in [
            ("--chunk-length", 0),
            ("--rows", 0),
            ("--steps", -1),
            ("--max-tokens", 0),
            ("--seed", "x"),
        ]:
            assert refused(
                encode("--text", "hi", "-o", target, option, value),
                option,
                "prototokens encode --help",
            )

    def test_unknown_option_and_command(self, run):
        assert refused(run("encode", "--fast"), "--fast", "prototokens encode --help")
        assert refused(run("encde"), "encde", "prototokens --help")
        assert refused(run("decode"), "FILE", "prototokens decode --help")


def test_a_file_of_another_model_is_refused(encode, run, target, folder, tmp_path):
    encode("--text", "hi", "-o", target)
    unnamed = run("decode", target)
    assert refused(unnamed, target, repr(folder.name), "--model")
    other = run("decode", target, "--model", "builtin")
    assert refused(other, target, "fingerprint", repr(folder.name))


def test_other_weights_are_tried_with_any_model_and_judged_by_the_hash(
    encode, run, target, tmp_path, tiny_neox
):
    encode("--text", "hi there", "-o", target)
    tiny_neox.model.save_pretrained(tmp_path / "other")
    tiny_neox.tokenizer.save_pretrained(tmp_path / "other")
    assert refused(run("decode", target, "--model", tmp_path / "other"), "fingerprint")
    forced = run("decode", target, "--model", tmp_path / "other", "--any-model")
    assert forced.status == 1
    assert forced.out != b"hi there"
    assert "differs from the one that was encoded" in forced.err


def test_a_copy_of_the_model_serves_whatever_revision_the_file_names(
    encode, run, target, folder, monkeypatch
):
    """Made from a hub model at a revision, decoded with a folder, which has none."""
    monkeypatch.setattr(FrozenLM, "__init__", _as_from_the_hub(FrozenLM.__init__))
    assert encode("--text", "hi", "-o", target).status == 0
    monkeypatch.undo()
    assert run("inspect", target, "--json").json["model"]["revision"] == "abc123"
    back = run("decode", target, "--model", folder)
    assert (back.status, back.out) == (0, b"hi")


def _as_from_the_hub(init):
    def wrapped(self, *arguments, **options):
        init(self, *arguments, **{**options, "name": "someone/tiny", "revision": "abc123"})

    return wrapped


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileError):
        main(["inspect", str(tmp_path / "x.ptok"), "--debug"])


def test_a_full_disk_under_standard_output_is_reported(encode, run, target, monkeypatch):
    encode("--text", "hi", "-o", target)
    echo = click.echo

    def full(message, err=False):
        if not err:
            raise OSError(28, "No space left on device")
        echo(message, err=True)

    monkeypatch.setattr(click, "echo", full)
    assert refused(run("inspect", target), "No space left on device")
