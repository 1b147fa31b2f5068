"""The golden files, decoded by llama.cpp from GGUF files of the built-in model."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import prototokens as pt
from prototokens.cli import main
from prototokens.errors import ModelError, UsageError
from prototokens.exchange.inputs import inputs_of, write_inputs

pytest.importorskip("llama_cpp", reason="llama-cpp-python, the extra [llama-cpp], is not installed")
from prototokens.exchange.llama_cpp import PRECISIONS, LlamaCpp, decode_text, quantise

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "format" / "files").glob("*.ptok"))


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "builtin.gguf"
    script = runpy.run_path(str(ROOT / "docs" / "examples" / "to_gguf.py"))
    script["write"](script["BUILTIN"], path)
    return path


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_llama_cpp_decodes_a_golden_file(path, gguf_file):
    decoded = decode_text(pt.EncodedText.load(path), gguf_file, 1)
    assert decoded.matches
    assert decoded.content == path.with_suffix(".txt").read_bytes()


def test_its_logits_are_those_of_the_model(gguf_file):
    chunk = pt.EncodedText.load(FILES[0]).chunk(1)
    lm = pt.FrozenLM.from_pretrained("builtin", dtype="float32")
    inputs = inputs_of(chunk)
    expected = lm.model(inputs_embeds=inputs.vectors[None]).logits[0][inputs.read]
    with LlamaCpp(gguf_file, 64, 1) as engine:
        assert (engine.logits(inputs) - expected).abs().max() < 1e-2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_model_in_fewer_bits_is_another_file_of_the_same_model(precision, gguf_file, tmp_path):
    quantise(gguf_file, tmp_path / "small.gguf", precision)
    smaller = (tmp_path / "small.gguf").stat().st_size < gguf_file.stat().st_size
    assert smaller == (precision != "F32")
    with LlamaCpp(tmp_path / "small.gguf", 64, 1) as engine:
        assert (engine.d_model, engine.vocab_size) == (256, 4096)


def test_greedy_generation_is_that_of_the_model(gguf_file):
    lm = pt.FrozenLM.from_pretrained("builtin", dtype="float32")
    ids = lm.tokenize("He had never seen")
    with LlamaCpp(gguf_file, 64, 1) as engine:
        assert engine.generate(8, ids) == lm.generate(torch.tensor([ids]), 8)[0].tolist()


def test_the_command_prints_the_text(gguf_file, capfdbinary):
    with pytest.raises(SystemExit) as leaving:
        main(["decode", str(FILES[0]), "--engine", "llama.cpp", "--model", str(gguf_file)])
    assert leaving.value.code == 0
    assert capfdbinary.readouterr().out == FILES[0].with_suffix(".txt").read_bytes()


def test_what_is_no_model_or_another_one_is_refused(gguf_file, tiny_llama, tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(ModelError, match="cannot load"):
        decode_text(pt.EncodedText.load(FILES[0]), tmp_path / "bad.gguf")
    encoded = pt.encode(tiny_llama, "Call me", recipe=pt.Recipe.named("fast", steps=60))
    with pytest.raises(UsageError, match="has width 256"):
        decode_text(encoded, gguf_file)


@pytest.mark.parametrize("name", ["keyed-1-prefix-patches", "keyed-2-bits-4", "free-shared-e"])
def test_the_example_decodes_an_export_in_forty_lines(name, gguf_file, tmp_path):
    script = ROOT / "docs" / "examples" / "decode_inputs.py"
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 40
    assert "prototokens" not in {
        line.split()[1] for line in script.read_text().splitlines() if line.startswith("import")
    }
    golden = ROOT / "tests" / "format" / "files" / f"{name}.ptok"
    write_inputs(pt.EncodedText.load(golden), tmp_path / "x.safetensors")
    command = [sys.executable, script, tmp_path / "x.safetensors", gguf_file]
    made = subprocess.run(command, capture_output=True, check=True)
    assert made.stdout == golden.with_suffix(".txt").read_bytes()


def test_a_portable_file_decodes_in_every_precision(gguf_file, tmp_path):
    lm = pt.FrozenLM.from_pretrained("builtin", dtype="float32")
    text = "He had never seen the sea before that day, and it was a grey and quiet morning."
    encoded = pt.encode(lm, text, layout="keyed:2", chunk_length=16, certify="portable")
    assert encoded.certified
    for precision in PRECISIONS:
        quantise(gguf_file, tmp_path / "x.gguf", precision)
        assert decode_text(encoded, tmp_path / "x.gguf", 1).matches, precision
