"""Decoding without PyTorch: the same text, or None, and then PyTorch decodes."""

import subprocess
import sys
from dataclasses import replace

import pytest

import prototokens as pt
from prototokens.ptok import light
from prototokens.ptok.stored import read_stored

TEXT = "Snow fell on the harbor all night, and no boat went out."


@pytest.fixture(scope="module", params=["paper", "keyed:2", "mixed:3"])
def stored(request, folder, tmp_path_factory):
    lm = pt.FrozenLM.from_pretrained(str(folder))
    path = tmp_path_factory.mktemp("files") / "text.ptok"
    encoded = pt.encode(lm, TEXT, layout=request.param, chunk_length=12, steps=400, certify="none")
    encoded.save(path)
    return path


def test_it_gives_the_text_in_one_pass(stored, folder):
    content = read_stored(stored)
    decoded = light.decode_light(content, str(folder))
    assert decoded.text == TEXT
    assert decoded.matches
    assert decoded.tokens == content.header.text.tokens
    assert decoded.forward_passes == 1


def test_many_chunks_take_several_passes(stored, folder, monkeypatch):
    content = read_stored(stored)
    monkeypatch.setattr(light, "MAX_POSITIONS", 13)
    decoded = light.decode_light(content, str(folder))
    assert decoded.text == TEXT
    assert decoded.forward_passes == len(content.header.chunks) - len(content.extras.stored)


def test_another_model_and_other_vectors_are_left_to_pytorch(stored, folder, monkeypatch):
    content = read_stored(stored)
    assert light.decode_light(content, "builtin") is None
    assert light.decode_light(content._replace(vectors=-content.vectors), str(folder)) is None
    other = replace(content.header, tokenizer="0" * 64)
    assert light.decode_light(content._replace(header=other), str(folder)) is None
    monkeypatch.setattr(light, "MAX_WORK", 1)
    assert light.decode_light(content, str(folder)) is None


def test_the_command_takes_it_and_imports_no_pytorch(stored, folder):
    code = (
        "import sys; from prototokens.cli import main\n"
        f"try: main(['decode', {str(stored)!r}, '--model', {str(folder)!r}])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, TEXT), done.stderr
