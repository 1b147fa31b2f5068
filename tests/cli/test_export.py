"""`export`, and the forms of `capacity` that other programs read."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file
from tests.ptok.test_file_format_page import write

from prototokens.engine.decode import generate_from
from prototokens.engine.inputs import Cramming
from prototokens.exchange.web import assets, page
from prototokens.fitting import fit
from prototokens.ptok.encoded import EncodedText
from prototokens.solution import Solution

GOLDEN = Path(__file__).parents[1] / "format" / "files" / "keyed-1-prefix-patches.ptok"


def test_inputs_for_llama_cpp_have_every_position_of_every_chunk(run, tmp_path):
    out = tmp_path / "inputs.safetensors"
    ran = run("export", GOLDEN, "--to", "gguf-inputs", "-o", out, "--json")
    assert ran.status == 0, ran.err
    header = EncodedText.load(GOLDEN).header
    assert ran.json["chunks"] == len(header.chunks)
    tensors = load_file(out)
    shapes = [value.shape for name, value in tensors.items() if name.endswith("vectors")]
    assert sum(shape[0] for shape in shapes) == sum(header.chunks)
    assert all(shape[1] == header.model.d_model for shape in shapes)
    assert tensors["prefix"].tolist() == list(header.prefix)


def test_an_export_never_writes_over_a_file_unasked(run, tmp_path):
    out = tmp_path / "inputs.safetensors"
    out.write_bytes(b"mine")
    ran = run("export", GOLDEN, "--to", "gguf-inputs", "-o", out)
    assert ran.status != 0
    assert "--force" in ran.err
    assert out.read_bytes() == b"mine"
    assert run("export", GOLDEN, "--to", "gguf-inputs", "-o", out, "--force").status == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "peft", "--tokens", "3"], "--to solution"),
        (["--to", "solution"], "--tokens"),
        (["--to", "peft"], "Solution"),
    ],
    ids=["tokens of an adapter", "an adapter without a length", "a .ptok file as a solution"],
)
def test_what_cannot_be_exported_is_refused_in_a_sentence(run, tmp_path, arguments, words):
    ran = run("export", GOLDEN, *arguments, "-o", tmp_path / "out", "--model", "builtin")
    assert ran.status != 0
    assert words in ran.err
    assert "Traceback" not in ran.err


@pytest.fixture
def runtime(monkeypatch):
    """No network and little packing: a page with a stand-in for onnxruntime-web."""
    pytest.importorskip("onnx", reason="needs the extra [html]")
    stand_in = {assets.SCRIPT: b"", assets.BINARY: b""}
    monkeypatch.setattr(assets, "runtime_files", lambda folder, log: stand_in)
    monkeypatch.setattr(page, "LEVEL", 0)


def test_a_web_page_of_a_file(run, runtime, tmp_path):
    out = tmp_path / "page.html"
    ran = run("export", GOLDEN, "--to", "html", "-o", out, "--json")
    assert ran.status == 0, ran.err
    assert ran.json["exact"] is True
    assert ran.json["bytes"] == out.stat().st_size < 40e6
    assert out.read_bytes().startswith(b"<!doctype html>")


def test_a_text_that_a_page_cannot_give_is_said(run, runtime, tmp_path):
    raw = GOLDEN.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["prototokens"])
    header["text"]["sha256"] = "0" * 64
    arrays = load_file(GOLDEN)
    (tmp_path / "wrong.ptok").write_bytes(write(header, arrays, sorted(arrays)))
    ran = run("export", tmp_path / "wrong.ptok", "--to", "html", "-o", tmp_path / "page.html")
    assert ran.status == 1
    assert "does not decode to its text in float32" in ran.err
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dtype", "bfloat16"], "float32 on a CPU"),
        (["--device", "cuda"], "float32 on a CPU"),
        (["--to", "gguf-inputs", "--assets", "."], "--assets belongs to --to html"),
        (["--assets", "."], "npm installs"),
        (["--model", "TINY"], "name the model they were made for"),
    ],
    ids=["bfloat16", "a GPU", "assets of another export", "no assets there", "another model"],
)
def test_what_no_page_can_be_made_of_is_refused(run, folder, tmp_path, arguments, words):
    pytest.importorskip("onnx", reason="needs the extra [html]")
    arguments = [folder if word == "TINY" else word for word in arguments]
    target = [] if "--to" in arguments else ["--to", "html"]
    ran = run("export", GOLDEN, *target, *arguments, "-o", tmp_path / "page.html")
    assert ran.status == 2
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "page.html").exists()


def test_a_capacity_card_in_the_forms_of_evaluators(run, folder, tmp_path):
    size = ["--texts", "random-tokens", "--count", "1", "--lengths", "1", "--steps", "2", "-q"]
    given = ["capacity", "--model", folder, "--out", tmp_path / "card", *size]
    ran = run(*given, "--format", "lm-eval")
    assert ran.status == 0, ran.err
    assert {"results", "configs", "versions"} <= json.loads(ran.out).keys()
    ran = run(*given, "--format", "hub", "--benchmark", "someone/texts")
    assert ran.status == 0, ran.err
    assert b'"id": "someone/texts"' in ran.out


def test_a_benchmark_belongs_to_the_hub(run, folder):
    ran = run("capacity", "--model", folder, "--format", "lm-eval", "--benchmark", "a/b")
    assert ran.status != 0
    assert "--format hub" in ran.err


def test_memory_vectors_become_an_adapter_and_come_back(run, tiny_llama, folder, tmp_path):
    solution = fit(tiny_llama, [[5, 6, 7]], method=Cramming(2), steps=300)[0]
    solution.save(tmp_path / "memory.safetensors")
    adapter, back = tmp_path / "adapter", tmp_path / "back.safetensors"
    ran = run(
        "export", tmp_path / "memory.safetensors", "--to", "peft", "-o", adapter, "--model", folder
    )
    assert ran.status == 0, ran.err
    assert {path.name for path in adapter.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    ran = run(
        "export",
        *(adapter, "--to", "solution", "--tokens", "3", "-o", back, "--model", folder),
    )
    assert ran.status == 0, ran.err
    again = Solution.load(back)
    assert torch.equal(again.protos, solution.protos)
    assert [list(again.ids)] == generate_from(tiny_llama, [solution])
