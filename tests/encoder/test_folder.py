"""An encoder's folder: written, read back, and refused where it is damaged, foreign or newer."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from prototokens.encoder.encoder import Encoder
from prototokens.errors import FileError, TextError, UsageError
from prototokens.layout import Layout

TEXTS = [(5, 6, 7, 8), (3,), (1, 2, 3, 4, 5, 6)]


@pytest.fixture
def folder(untrained, tmp_path):
    untrained.save(tmp_path / "encoder", "a card")
    return tmp_path / "encoder"


def rewrite(folder, change):
    """Change the config as somebody might who wants to be believed."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def replace_tensors(folder, change):
    """Change the weights, and make the config vouch for them."""
    tensors = load_file(folder / "encoder.safetensors")
    change(tensors)
    save_file(tensors, folder / "encoder.safetensors")
    digest = hashlib.sha256((folder / "encoder.safetensors").read_bytes()).hexdigest()
    rewrite(folder, lambda config: config.update(weights_sha256=digest))


def test_a_loaded_encoder_gives_the_same_vectors(untrained, folder, tiny_llama):
    ours, theirs = (
        untrained.vectors(tiny_llama, TEXTS),
        Encoder.load(folder).vectors(tiny_llama, TEXTS),
    )
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert ours[0].shape == (3, tiny_llama.d_model)
    assert all(
        tensor.dtype == torch.bfloat16
        for tensor in load_file(folder / "encoder.safetensors").values()
    )
    assert (folder / "README.md").read_text() == "a card"


def test_vectors_come_in_the_order_of_the_texts(untrained, tiny_llama):
    for number, vectors in enumerate(untrained.vectors(tiny_llama, TEXTS)):
        torch.testing.assert_close(
            vectors, untrained.vectors(tiny_llama, [TEXTS[number]])[0], rtol=1e-2, atol=1e-2
        )


def test_no_texts_have_no_vectors(untrained, tiny_llama):
    assert untrained.vectors(tiny_llama, []) == []


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(folder, cut):
    content = (folder / "encoder.safetensors").read_bytes()
    (folder / "encoder.safetensors").write_bytes(content[:cut])
    with pytest.raises(FileError, match="damaged"):
        Encoder.load(folder)


def test_an_altered_file_is_refused(folder):
    content = bytearray((folder / "encoder.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "encoder.safetensors").write_bytes(content)
    with pytest.raises(FileError, match="damaged"):
        Encoder.load(folder)


def test_a_file_of_no_tensors_is_refused_even_with_a_matching_config(folder):
    (folder / "encoder.safetensors").write_bytes(b"no tensors")
    digest = hashlib.sha256(b"no tensors").hexdigest()
    rewrite(folder, lambda config: config.update(weights_sha256=digest))
    with pytest.raises(FileError, match="safetensors"):
        Encoder.load(folder)


@pytest.mark.parametrize("name", ["read.weight", "mean", "base"])
def test_numbers_that_are_not_finite_are_refused(folder, name):
    replace_tensors(folder, lambda tensors: tensors[name].flatten()[:1].fill_(float("nan")))
    with pytest.raises(FileError, match="not finite"):
        Encoder.load(folder)


def test_tensors_of_another_shape_are_refused(folder):
    replace_tensors(folder, lambda tensors: tensors.pop("norm.weight"))
    with pytest.raises(FileError, match="not those of the shape"):
        Encoder.load(folder)


@pytest.mark.parametrize("missing", ["model", "shape", "weights_sha256", "held_out", "proof"])
def test_a_config_that_lacks_something_is_refused(folder, missing):
    rewrite(folder, lambda config: config.pop(missing))
    with pytest.raises(FileError, match=f"damaged.*{missing}"):
        Encoder.load(folder)


@pytest.mark.parametrize(
    "rates", [3, [1], [{"length": 4}], [{"length": 4, "rate": 0}], [{"length": "4", "rate": 0.1}]]
)
def test_rates_that_cannot_be_are_refused(folder, rates):
    rewrite(folder, lambda config: config.update(rates=rates))
    with pytest.raises(FileError, match="damaged: its rates"):
        Encoder.load(folder)


@pytest.mark.parametrize(
    "rows", [3, [1], [{"length": 4}], [{"length": 4, "accuracy": 1.5}], [{"accuracy": 0.1}]]
)
def test_accuracies_that_cannot_be_are_refused(folder, rows):
    rewrite(folder, lambda config: config["held_out"].update(rows=rows))
    with pytest.raises(FileError, match="damaged: its held_out"):
        Encoder.load(folder)


def test_an_older_folder_without_rates_takes_the_recipes(folder):
    rewrite(folder, lambda config: config.pop("rates", None))
    assert Encoder.load(folder).rate(3) == 1.0


def test_a_config_that_does_not_say_what_for_is_refused(folder):
    rewrite(folder, lambda config: config["model"].pop("fingerprint"))
    with pytest.raises(FileError, match=r"lacks 'model\.fingerprint'"):
        Encoder.load(folder)


def test_a_newer_format_is_refused(folder):
    rewrite(folder, lambda config: config.update(format=99))
    with pytest.raises(FileError, match="update prototokens"):
        Encoder.load(folder)


@pytest.mark.parametrize(
    "shape",
    [
        {"width": "wide"},
        {"width": 17},
        {"width": 1 << 20, "heads": 1},
        {"layers": 1 << 30},
        {"max_length": 1 << 40},
        {"d_model": 0},
        {"d_model": -4},
        {"layout": "spiral"},
        {"layout": ["tiled:2"]},
        {"depths": 7},
        {"refinements": 1},
        {"refinements": -1},
        {"refinements": "many"},
        {"refinements": 1, "hidden": 0},
        {"refinements": 1, "hidden": -5},
        {"refinements": 1, "hidden": 1 << 40},
        {"refinements": 1, "refine_layers": 1 << 40},
        {"refinements": 1, "refine_layers": 0},
    ],
    ids=str,
)
def test_a_shape_that_cannot_be_is_refused(folder, shape):
    rewrite(folder, lambda config: config["shape"].update(shape))
    with pytest.raises(FileError, match="damaged"):
        Encoder.load(folder)


@pytest.mark.parametrize("content", ["", "[]", "7", "{"])
def test_a_config_that_is_no_config_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(FileError, match="damaged"):
        Encoder.load(folder)


@pytest.mark.parametrize("missing", ["config.json", "encoder.safetensors"])
def test_a_missing_file_is_named(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(FileError, match=missing):
        Encoder.load(folder)


def test_another_model_is_refused(untrained, tiny_neox):
    with pytest.raises(FileError, match="fingerprint"):
        untrained.vectors(tiny_neox, TEXTS)


def test_code_that_takes_input_vectors_otherwise_is_refused(untrained, tiny_llama):
    """The same weights, as under a version of transformers that scales the embeddings elsewhere."""
    made_for = untrained.config["model"]
    assert made_for["response"] == tiny_llama.response
    untrained.check(tiny_llama)
    made_for["response"] = [-number for number in made_for["response"]]
    with pytest.raises(FileError, match="took input vectors otherwise"):
        untrained.check(tiny_llama)
    del made_for["response"]  # an earlier version wrote none
    untrained.check(tiny_llama)


@pytest.mark.parametrize("response", ["x", [True], [None], [1.0] * 300, {}])
def test_a_response_that_cannot_be_is_refused(folder, response):
    rewrite(folder, lambda config: config["model"].update(response=response))
    with pytest.raises(FileError, match="response is no list of numbers"):
        Encoder.load(folder)


def test_another_layout_is_refused(untrained, tiny_llama):
    with pytest.raises(UsageError, match="paper"):
        untrained.check(tiny_llama, Layout.named("paper"))


@pytest.mark.parametrize(
    ("ids", "words"), [((), "has 0 tokens"), (tuple(range(7)), "chunks"), ((260,), "vocabulary")]
)
def test_texts_that_it_cannot_take_are_refused_in_words(untrained, tiny_llama, ids, words):
    with pytest.raises(TextError, match=words):
        untrained.vectors(tiny_llama, [(1, 2), ids])
