"""Checkpoints that are not a complete model are rejected, with a message that says what to do."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from prototokens.errors import ModelError
from prototokens.lm.frozen_lm import FrozenLM

DESCRIPTION = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 4,
    "base_model_name_or_path": "someone/base",
}


def change_weights(folder, change):
    """Replace the weights in a folder by `change` of them, both as tensors by name."""
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


def refusal(folder):
    with pytest.raises(ModelError) as caught:
        FrozenLM.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_adapter_in_the_folder_of_a_model(tiny_folder):
    """transformers would apply it if peft is installed, and ignore it otherwise."""
    (tiny_folder / "adapter_config.json").write_text(json.dumps(DESCRIPTION))
    assert "holds an adapter (adapter_config.json) beside a model" in refusal(tiny_folder)


@pytest.mark.parametrize(
    "content",
    [json.dumps(DESCRIPTION), "{}", "no JSON", '{"base_model_name_or_path": 5}', "[" * 10**5],
)
def test_an_adapter_without_a_model(tmp_path, content):
    (tmp_path / "adapter_config.json").write_text(content)
    message = refusal(tmp_path)
    assert "holds an adapter" in message
    assert "and no model: load both with peft" in message
    assert ("someone/base" in message) == ("someone/base" in content)


def test_a_vocabulary_of_another_size(tiny_folder):
    change_weights(
        tiny_folder,
        lambda weights: {name: _longer(name, weight) for name, weight in weights.items()},
    )
    message = refusal(tiny_folder)
    assert "embed_tokens.weight has shape [268, 32], and [260, 32] is asked for" in message
    assert "does not fit its config.json" in message


def _longer(name, weight):
    return (
        torch.cat([weight, weight[:8]]) if "embed_tokens" in name or "lm_head" in name else weight
    )


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.module."])
def test_names_with_the_prefix_of_a_wrapper(tiny_folder, prefix):
    change_weights(
        tiny_folder, lambda weights: {prefix + name: weight for name, weight in weights.items()}
    )
    message = refusal(tiny_folder)
    assert f"begin with '{prefix}', as a wrapper leaves them" in message


def test_a_missing_layer_is_reported_as_incomplete(tiny_folder):
    change_weights(
        tiny_folder,
        lambda weights: {name: weights[name] for name in weights if ".layers.1." not in name},
    )
    assert "is incomplete: it lacks 9 weights of a causal LM" in refusal(tiny_folder)


def test_files_do_not_contain_the_path_of_the_model(tiny_folder, tmp_path, monkeypatch):
    """Fits of one model in several folders give equal files, the model card included."""
    import prototokens as pt

    other = tmp_path / "elsewhere" / "deeper" / tiny_folder.name
    shutil.copytree(tiny_folder, other)
    monkeypatch.chdir(tmp_path)
    written = []
    for number, path in enumerate(
        [str(tiny_folder), str(other), f"./{tiny_folder.name}", f"elsewhere/deeper/{other.name}/"]
    ):
        lm = FrozenLM.from_pretrained(path)
        assert (lm.name, lm.recorded_name) == (path, tiny_folder.name)
        encoded = pt.encode(lm, "hi", certify="none")
        encoded.save_pretrained(tmp_path / str(number))
        files = {file.name: file.read_bytes() for file in (tmp_path / str(number)).iterdir()}
        assert not any(str(tmp_path).encode() in content for content in files.values())
        written.append(files)
    assert all(files == written[0] for files in written)
