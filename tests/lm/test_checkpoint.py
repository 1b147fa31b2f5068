"""Checkpoints that are not quite a model.

Each is refused in a sentence that says what it is and what to do.
"""

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


def changed(folder, change):
    """Another set of weights in a folder: `change` gets the tensors by name."""
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


def refusal(folder):
    with pytest.raises(ModelError) as caught:
        FrozenLM.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_adapter_beside_a_model(tiny_folder):
    """transformers applies it where peft is installed, and leaves it where not."""
    (tiny_folder / "adapter_config.json").write_text(json.dumps(DESCRIPTION))
    assert "holds an adapter (adapter_config.json) beside a model" in refusal(tiny_folder)


@pytest.mark.parametrize(
    "said",
    [json.dumps(DESCRIPTION), "{}", "no JSON", '{"base_model_name_or_path": 5}', "[" * 10**5],
)
def test_an_adapter_alone(tmp_path, said):
    (tmp_path / "adapter_config.json").write_text(said)
    words = refusal(tmp_path)
    assert "holds an adapter" in words
    assert "and no model: load both with peft" in words
    assert ("someone/base" in words) == ("someone/base" in said)


def test_a_vocabulary_of_another_size(tiny_folder):
    changed(tiny_folder, lambda all_of: {name: _longer(name, one) for name, one in all_of.items()})
    words = refusal(tiny_folder)
    assert "embed_tokens.weight has shape [268, 32], and [260, 32] is asked for" in words
    assert "does not fit its config.json" in words


def _longer(name, weight):
    return (
        torch.cat([weight, weight[:8]]) if "embed_tokens" in name or "lm_head" in name else weight
    )


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.module."])
def test_names_with_the_prefix_of_a_wrapper(tiny_folder, prefix):
    changed(tiny_folder, lambda all_of: {prefix + name: one for name, one in all_of.items()})
    words = refusal(tiny_folder)
    assert f"begin with '{prefix}', as a wrapper leaves them" in words


def test_a_layer_that_is_missing_is_no_prefix(tiny_folder):
    changed(
        tiny_folder,
        lambda all_of: {name: one for name, one in all_of.items() if ".layers.1." not in name},
    )
    assert "is incomplete: it lacks 9 weights of a causal LM" in refusal(tiny_folder)


def test_files_do_not_say_where_a_model_lies(tiny_folder, tmp_path, monkeypatch):
    """Equal fits with equal models from two places give equal files, card and all."""
    import prototokens as pt

    other = tmp_path / "elsewhere" / "deeper" / tiny_folder.name
    shutil.copytree(tiny_folder, other)
    monkeypatch.chdir(tmp_path)
    made = []
    for number, place in enumerate(
        [str(tiny_folder), str(other), f"./{tiny_folder.name}", f"elsewhere/deeper/{other.name}/"]
    ):
        lm = FrozenLM.from_pretrained(place)
        assert (lm.name, lm.recorded_name) == (place, tiny_folder.name)
        encoded = pt.encode(lm, "hi", certify="none")
        encoded.save_pretrained(tmp_path / str(number))
        made.append({path.name: path.read_bytes() for path in (tmp_path / str(number)).iterdir()})
        assert not any(str(tmp_path).encode() in content for content in made[-1].values())
    assert all(one == made[0] for one in made)
