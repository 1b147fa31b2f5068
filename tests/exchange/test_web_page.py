"""`export --to html`: the model as ONNX, the runtime from npm, and what the page is made of."""

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import SHAPE, VOCAB, wrap
from transformers import LlamaConfig, LlamaForCausalLM

import prototokens as pt
from prototokens.engine.decode import decode_ids
from prototokens.errors import FileError, MissingExtraError, ModelError, UsageError
from prototokens.exchange.inputs import inputs_of
from prototokens.exchange.web import assets, page
from prototokens.exchange.web.graph import onnx_model
from prototokens.exchange.web.vocabulary import token_bytes

FILES = sorted((Path(__file__).parents[1] / "format" / "files").glob("*.ptok"))
RUNTIME = {assets.SCRIPT: b"export const env = {}", assets.BINARY: b"\0asm"}


@pytest.fixture(scope="module")
def lm():
    return pt.FrozenLM.from_pretrained("builtin", dtype="float32")


@pytest.fixture(scope="module")
def small():
    """A Llama of the built-in model's kind, made in milliseconds."""
    return wrap(LlamaForCausalLM, LlamaConfig(**VOCAB, **SHAPE, tie_word_embeddings=False))


def session(model):
    pytest.importorskip("onnx", reason="needs the extra [html]")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(onnx_model(model), options, ["CPUExecutionProvider"])


def empty_cache(opened, rows=1):
    return {
        one.name: np.zeros((rows, one.shape[1], 0, one.shape[3]), np.float32)
        for one in opened.get_inputs()
        if one.name not in ("ids", "vectors")
    }


@pytest.fixture(scope="module")
def opened(lm):
    return session(lm)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_onnx_model_gives_the_tokens_of_a_golden_file(path, lm, opened):
    encoded = pt.EncodedText.load(path)
    prefix = np.array(encoded.layout.prefix, np.int64)[None]
    for chunk, ours in zip(encoded.chunks(), decode_ids(lm, encoded.chunks()).ids, strict=True):
        vectors, read = inputs_of(chunk)
        given = {"ids": prefix, "vectors": vectors[None].numpy(), **empty_cache(opened)}
        logits = opened.run(["logits"], given)[0][0, prefix.shape[1] :]
        assert logits[read.numpy()].argmax(-1).tolist() == list(ours)


def generated(opened, first, count):
    """Greedy generation with the graph's cache of keys and values."""
    names = [one.name for one in opened.get_outputs()]
    width = next(one.shape[2] for one in opened.get_inputs() if one.name == "vectors")
    ids, cache, found = np.array([[first]]), empty_cache(opened), []
    for _ in range(count):
        given = {"ids": ids, "vectors": np.zeros((1, 0, width), np.float32), **cache}
        made = dict(zip(names, opened.run(names, given), strict=True))
        ids = made.pop("logits")[:, -1:].argmax(-1)
        cache = {name.removeprefix("new."): value for name, value in made.items()}
        found.append(int(ids[0, 0]))
    return found


@pytest.mark.parametrize("name", ["lm", "small"])
def test_generation_with_its_cache_is_that_of_transformers(name, request):
    model = request.getfixturevalue(name)
    expected = [0]
    with torch.no_grad():
        for _ in range(24):
            logits = model.model(torch.tensor([expected])).logits
            expected.append(int(logits[0, -1].argmax()))
    assert generated(session(model), 0, 24) == expected[1:]


def test_rows_that_are_padded_stand_side_by_side(small):
    opened, length = session(small), 9
    vectors = torch.randn(3, length, small.d_model, generator=torch.manual_seed(0))
    with torch.no_grad():
        expected = small.model(inputs_embeds=vectors[1:2, :5]).logits[0].numpy()
    ids = np.zeros((3, 0), np.int64)
    given = {"ids": ids, "vectors": vectors.numpy(), **empty_cache(opened, 3)}
    logits = opened.run(["logits"], given)[0]
    np.testing.assert_allclose(logits[1, :5], expected, rtol=1e-3, atol=1e-3)


def test_a_model_of_another_kind_is_refused(tiny_llama, tiny_gpt2):
    for other in (tiny_llama, tiny_gpt2):
        with pytest.raises(ModelError, match="Llama model without biases and without grouped keys"):
            onnx_model(other)


def test_the_bytes_of_tokens_joined_are_the_text(lm):
    tokens = token_bytes(lm.tokenizer, lm.vocab_size, lm.name)
    text = "Zoë met Søren. 海\r\n\t<|endoftext|>"
    ids = lm.tokenize(text)
    assert b"".join(tokens[token] for token in ids).decode() == text == lm.detokenize(ids)


def blocks(made):
    """The page's blocks of data, unpacked."""
    pattern = r'<script type="application/octet-stream" id="(\w+)">([^<]*)</script>'
    found = re.findall(pattern, made.decode())
    return {name: gzip.decompress(base64.b64decode(block)) for name, block in found}


@pytest.fixture
def made(small):
    pytest.importorskip("onnx", reason="needs the extra [html]")
    return page.web_page(small, b"a file", "</script><b>.ptok", RUNTIME)


def test_a_page_holds_all_that_it_runs_and_names_nothing_to_load(made):
    held = blocks(made)
    assert held.keys() == {"model", "binary", "runtime", "vocabulary", "file"}
    assert held["file"] == b"a file"
    assert (held["runtime"], held["binary"]) == (RUNTIME[assets.SCRIPT], RUNTIME[assets.BINARY])
    text = made.decode()
    assert not re.search(r"<(link|img|script|iframe)[^>]* (src|href)=\"(?!data:)", text)
    assert "default-src 'none'" in text
    assert "fetch(" not in text
    for words in ("Copyright (c) Microsoft Corporation", "Apache License", assets.VERSION):
        assert words in text
    assert not page.MARK.search(re.sub(r">[^<]{1000,}<", "><", text))


def test_the_name_of_a_file_is_text_and_nothing_else(made):
    text = made.decode()
    settings = re.search(r'id="settings">(.*?)</script>', text)[1]
    assert json.loads(settings)["name"] == "</script><b>.ptok"
    assert "</script><b>" not in text


def test_a_page_that_is_too_large_is_refused(small, monkeypatch):
    pytest.importorskip("onnx", reason="needs the extra [html]")
    monkeypatch.setattr(page, "MAX_PAGE", 100_000)
    with pytest.raises(UsageError, match="0 are the most"):
        page.web_page(small, b"", "x", RUNTIME)


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """An npm registry of one archive, and an empty cache; gives the addresses that were opened."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in {**RUNTIME, "../evil": b"x"}.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    opened = []

    def urlopen(address, timeout):
        opened.append(address)
        return io.BytesIO(raw.getvalue())

    digest = base64.b64encode(hashlib.sha512(raw.getvalue()).digest()).decode()
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in RUNTIME.items()}
    monkeypatch.setattr(assets, "ARCHIVE_SHA512", digest)
    monkeypatch.setattr(assets, "SHA256", hashes)
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return opened


def test_the_runtime_is_fetched_once(registry):
    log = []
    assert assets.runtime_files(log=log.append) == RUNTIME
    assert assets.runtime_files(log=log.append) == RUNTIME
    assert registry == [assets.ARCHIVE]
    assert len(log) == 1
    assert {path.name for path in assets.cache_folder().iterdir()} == RUNTIME.keys()


def test_a_damaged_cache_is_filled_again(registry):
    assets.runtime_files()
    (assets.cache_folder() / assets.BINARY).write_bytes(b"cut")
    assert assets.runtime_files() == RUNTIME
    assert len(registry) == 2


def test_another_archive_is_not_taken(registry, monkeypatch):
    monkeypatch.setattr(assets, "ARCHIVE_SHA512", base64.b64encode(bytes(64)).decode())
    with pytest.raises(MissingExtraError, match="SHA-512"):
        assets.runtime_files()
    assert not assets.cache_folder().exists()


def test_without_a_network_a_sentence_names_the_way_out(registry, monkeypatch):
    def urlopen(address, timeout):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(MissingExtraError, match=r"no network.*--assets"):
        assets.runtime_files()


def test_a_folder_stands_in_for_the_registry(registry, tmp_path):
    for name, content in RUNTIME.items():
        (tmp_path / name).write_bytes(content)
    assert assets.runtime_files(tmp_path) == RUNTIME
    (tmp_path / assets.SCRIPT).write_bytes(b"another")
    with pytest.raises(FileError, match="SHA-256 is another"):
        assets.runtime_files(tmp_path)
    with pytest.raises(FileError, match="npm installs"):
        assets.runtime_files(tmp_path / "nowhere")
    assert registry == []
