"""Loading models from folders and the hub: fingerprints, and what is rejected."""

import copy
import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from transformers import LlamaModel
from transformers.utils import logging as hf_logging

from prototokens.errors import UsageError
from prototokens.lm import locate
from prototokens.lm.frozen_lm import FrozenLM
from small_models import random_model, refusal


def vectors(lm, rows=2, length=9, seed=0):
    """Random input vectors, twice as large as the embeddings."""
    noise = torch.randn(rows, length, lm.d_model, generator=torch.Generator().manual_seed(seed))
    return 2 * lm.embedding_weight.std() * noise


def test_a_saved_model_loads_from_its_folder(tiny_llama, tiny_folder, capfd):
    random_state = torch.get_rng_state()
    lm = FrozenLM.from_pretrained(tiny_folder)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert capfd.readouterr() == ("", "")
    assert (lm.name, lm.revision, lm.dtype) == (str(tiny_folder), None, torch.float32)
    assert lm.fingerprint == lm.weights_hash() == tiny_llama.fingerprint
    assert lm.tokenizer_hash == tiny_llama.tokenizer_hash
    assert torch.equal(lm.hidden(vectors(lm)), tiny_llama.hidden(vectors(lm)))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_the_fingerprint_does_not_depend_on_the_requested_dtype(tiny_llama, tiny_folder, stored):
    model = copy.deepcopy(tiny_llama.model).to(stored)
    model.save_pretrained(tiny_folder)
    whole, half = (
        FrozenLM.from_pretrained(tiny_folder, dtype=dtype) for dtype in ("float32", torch.bfloat16)
    )
    assert (whole.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert whole.fingerprint == half.fingerprint
    assert whole.weights_hash() != half.weights_hash()
    assert (whole if stored == torch.float32 else half).weights_hash() == whole.fingerprint
    # The rotary frequencies are not weights, and must not be rounded.
    rotary = half.model.model.rotary_emb.inv_freq
    assert torch.equal(rotary, tiny_llama.model.model.rotary_emb.inv_freq)
    assert half.hidden(torch.randn(1, 2, 32)).dtype == torch.bfloat16


def test_the_fingerprint_changes_with_one_bit(tiny_neox):
    model = copy.deepcopy(tiny_neox.model)
    lm = FrozenLM(model)
    assert lm.fingerprint == tiny_neox.fingerprint
    model.gpt_neox.layers[1].mlp.dense_h_to_4h.weight.data.view(torch.int32)[0, 0] ^= 1
    assert lm.weights_hash() != lm.fingerprint
    assert FrozenLM(model).fingerprint == lm.weights_hash()


def test_the_fingerprint_changes_when_two_weights_are_swapped(tiny_neox):
    model = copy.deepcopy(tiny_neox.model)
    first, second = (layer.attention.dense.weight.data for layer in model.gpt_neox.layers)
    copied = first.clone()
    first.copy_(second)
    second.copy_(copied)
    assert FrozenLM(model).fingerprint != tiny_neox.fingerprint


def test_the_fingerprint_does_not_depend_on_tying(tiny_llama):
    model = copy.deepcopy(tiny_llama.model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    assert FrozenLM(model).fingerprint == tiny_llama.fingerprint


def test_a_model_from_the_offline_cache_has_its_commit_as_revision(
    tiny_llama, tiny_folder, tmp_path, monkeypatch
):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    lm = FrozenLM.from_pretrained("someone/tiny")
    assert (lm.name, lm.revision, lm.fingerprint) == (
        "someone/tiny",
        commit,
        tiny_llama.fingerprint,
    )
    assert FrozenLM.from_pretrained("someone/tiny", revision=commit).revision == commit
    assert "'someone/tiny'" in refusal("someone/tiny", revision="another")


def test_quiet_restores_the_verbosity_of_transformers(tiny_folder):
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    try:
        hf_logging.set_verbosity_info()
        hf_logging.enable_progress_bar()
        with locate.quiet():
            assert not hf_logging.is_progress_bar_enabled()
            assert not huggingface_hub.utils.are_progress_bars_disabled()
        assert hf_logging.get_verbosity() == hf_logging.INFO
        assert hf_logging.is_progress_bar_enabled()
    finally:
        hf_logging.set_verbosity(verbosity)
        if not bars:
            hf_logging.disable_progress_bar()


@pytest.mark.parametrize(
    "given", ["./models/mine", "/nowhere/at/all", "~/no-such-model", "runs/today/model", "nowhere/"]
)
def test_a_missing_path(given):
    assert refusal(given).startswith(f"there is no folder {given!r}: check the path")


def test_an_unknown_hub_id_without_a_network(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refusal("someone/no-such-model")
    assert message.startswith(
        "'someone/no-such-model' is neither 'builtin' nor a folder here, and the hub could not be"
        " reached"
    )
    assert message.endswith("check the name, give a folder, or connect to the network")


def test_an_unknown_hub_id(monkeypatch):
    def model_info(*_, **__):
        raise RepositoryNotFoundError(
            "401 Client Error\n\nlong", response=SimpleNamespace(headers={}, request=None)
        )

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    assert "the hub shows no model of that name" in refusal("someone/no-such-model")
    monkeypatch.undo()
    assert "cannot be the id of a model" in refusal("two words")


def test_a_folder_without_a_model(tmp_path, tiny_folder, monkeypatch):
    assert "holds no config.json" in refusal(tmp_path)
    assert "is a file" in refusal(tiny_folder / "config.json")
    with pytest.raises(UsageError, match="only models on the hub have revisions"):
        FrozenLM.from_pretrained(tiny_folder, revision="main")
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    assert "train it with scripts/builtin/train.py" in refusal("builtin")


def test_a_folder_without_a_tokenizer(tiny_folder, tiny_gpt2, tmp_path):
    # For this family transformers replaces missing files by an empty tokenizer.
    tiny_gpt2.model.save_pretrained(tmp_path / "gpt2")
    for file in tiny_folder.glob("tokenizer*"):
        file.unlink()
    for folder in (tmp_path / "gpt2", tiny_folder):
        message = refusal(folder)
        assert message.startswith(f"{str(folder)!r} comes without a tokenizer")
        assert message.endswith(
            "put its tokenizer.json and tokenizer_config.json beside the weights"
        )


def test_a_damaged_or_incomplete_checkpoint(tiny_llama, tiny_folder, tmp_path):
    weights = tiny_folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "could not be loaded" in refusal(tiny_folder)
    weights.unlink()
    assert "could not be loaded" in refusal(tiny_folder)
    (tiny_folder / "config.json").write_text("{")
    assert "could not be loaded" in refusal(tiny_folder)
    # For a model without a head, transformers would initialise one at random.
    config = copy.deepcopy(tiny_llama.model.config)
    config.tie_word_embeddings = False
    random_model(LlamaModel, config).save_pretrained(tmp_path / "headless")
    assert "lacks 1 weights of a causal LM, lm_head.weight" in refusal(tmp_path / "headless")


def test_a_quantised_checkpoint(tiny_folder):
    config = json.loads((tiny_folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tiny_folder / "config.json").write_text(json.dumps(config))
    assert "is a quantised checkpoint" in refusal(tiny_folder)


@pytest.mark.parametrize(
    ("option", "value"), [("dtype", "int8"), ("dtype", torch.int64), ("device", "nonsense")]
)
def test_an_unavailable_dtype_or_device(tiny_folder, option, value):
    with pytest.raises(UsageError, match=f"^{option} ") as caught:
        FrozenLM.from_pretrained(tiny_folder, **{option: value})
    assert "\n" not in str(caught.value)
