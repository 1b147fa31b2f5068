"""How long a user waits: what needs no model imports no PyTorch, and refuses before it is imported.

Times of a busy machine say little, so each command runs in a process of its own that reports which
heavy libraries it has imported.
"""

import io
import subprocess
import sys

import pytest

from prototokens.encoding import encode

HEAVY = ("torch", "transformers", "huggingface_hub", "matplotlib", "rich", "ray", "gradio")
CODE = f"""
import sys
from prototokens.cli import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write("\\nheavy: " + " ".join(name for name in {HEAVY} if name in sys.modules))
"""


@pytest.fixture
def child(tmp_path):
    """A command in a process of its own: its status, standard error, and heavy libraries."""

    def run(*arguments):
        words = [sys.executable, "-c", CODE, *map(str, arguments)]
        ran = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
        said, _, heavy = ran.stderr.rpartition("\nheavy:")
        return ran.returncode, said, heavy.split()

    return run


@pytest.mark.parametrize("bits", [32, 4])
def test_inspect_imports_neither_torch_nor_transformers(child, tiny_llama, tmp_path, bits):
    path = tmp_path / "x.ptok"
    encode(tiny_llama, "abcabc", bits=bits, certify="none").save(path)
    for words in ((path,), (path, "--json")):
        status, said, heavy = child("inspect", *words)
        assert (status, said, heavy) == (0, "", [])


class Terminal(io.StringIO):
    """Standard error as a terminal that keeps what it was sent."""

    def isatty(self):
        return True


def test_verify_shows_that_it_works_on_a_terminal(run, tiny_llama, folder, tmp_path, monkeypatch):
    path = tmp_path / "x.ptok"
    encode(tiny_llama, "abcabc", certify="none").save(path)
    words = ("verify", path, "--quick", "--model", folder, "--any-model")
    plain = run(*words)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    shown = run(*words)
    assert "decoding" in terminal.getvalue()
    # Standard output has the same lines with it and without.
    assert (shown.status, shown.out) == (plain.status, plain.out)
    assert b"least margin" in shown.out
    terminal.truncate(0)
    run(*words, "--quiet")
    assert "decoding" not in terminal.getvalue()


USAGE_ERRORS = {
    "an option that does not exist": ["encode", "--lenght", "3"],
    "a value of another kind": ["encode", "--text", "hi", "-o", "x.ptok", "--steps", "many"],
    "no layout": ["encode", "--text", "hi", "-o", "x.ptok", "--layout", "tiled:0"],
    "no recipe": ["encode", "--text", "hi", "-o", "x.ptok", "--recipe", "slow"],
    "no bits": ["encode", "--text", "hi", "-o", "x.ptok", "--bits", "99"],
    "no start": ["encode", "--text", "hi", "-o", "x.ptok", "--start", "nowhere"],
    "no vectors": ["encode", "--text", "hi", "-o", "x.ptok", "--vectors", "few"],
    "no text file": ["encode", "nowhere.txt"],
    "no context": ["encode", "--text", "hi", "-o", "x.ptok", "--context", "nowhere.txt"],
    "an output that exists": ["encode", "--text", "hi", "-o", "here.txt"],
    "no model": ["encode", "--text", "hi", "-o", "x.ptok", "--model", "./nowhere"],
    "no file to decode": ["decode", "nowhere.ptok"],
    "no file of ours to decode": ["decode", "here.txt"],
    "a decoded output that exists": ["decode", "nowhere.ptok", "-o", "here.txt"],
    "no file to inspect": ["inspect", "nowhere.ptok"],
    "no file to verify": ["verify", "nowhere.ptok"],
    "no file to trace": ["trace", "nowhere.ptok"],
    "no model to describe": ["models", "./nowhere"],
    "no model for the demo": ["demo", "--model", "./nowhere"],
    "no text to bench": ["bench", "nowhere.txt"],
    "no model to bench": ["bench", "--what", "heads", "--model", "./nowhere"],
    "no experiment": ["reproduce", "table9"],
    "no study": ["reproduce", "nowhere.py"],
    "no layouts": ["reproduce", "table1", "--layouts", "paper,twisted"],
    "no lengths": ["reproduce", "table1", "--lengths", "4,x"],
    "no lengths of a card": ["capacity", "--lengths", "0"],
    "no model of a card": ["capacity", "--model", "./nowhere"],
    "an output that is no folder": ["train-encoder", "-o", "here.txt"],
    "no model to train for": ["train-encoder", "-o", "new", "--model", "./nowhere"],
}


@pytest.mark.parametrize("arguments", USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_wrong_usage_is_refused_before_anything_heavy_is_imported(child, tmp_path, arguments):
    (tmp_path / "here.txt").write_text("not a file of ours")
    status, said, heavy = child(*arguments)
    assert (status, said.count("\n")) == (2, 1), said
    assert said.startswith("prototokens: ")
    assert heavy == []
