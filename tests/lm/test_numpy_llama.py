"""The Llama body in NumPy: the tokens of the frozen model, and None for what it does not know."""

import json

import numpy as np
import pytest
import torch

import prototokens as pt
from prototokens.keys import sign_array, signs
from prototokens.lm.numpy_llama import NumpyLlama, tokenizer_hash


@pytest.fixture
def pair(tiny_folder):
    return NumpyLlama.read(tiny_folder), pt.FrozenLM.from_pretrained(str(tiny_folder))


def test_it_gives_the_tokens_of_the_frozen_model(pair):
    small, lm = pair
    vectors = torch.randn(3, 20, lm.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = lm.logits(lm.hidden(vectors))
    rows, positions = [0] * 20 + [2, 1], [*range(20), 3, 7]
    expected = logits.argmax(-1)[rows, positions].tolist()
    assert small.argmax(vectors.numpy(), rows, positions).tolist() == expected
    np.testing.assert_allclose(small.embed([1, 5]), lm.embed(torch.tensor([1, 5])).numpy())


def test_its_hashes_are_those_of_the_frozen_model(pair):
    small, lm = pair
    assert small.fingerprint == lm.fingerprint
    assert tokenizer_hash(lm.tokenizer.backend_tokenizer.to_str()) == lm.tokenizer_hash
    assert (small.width, small.vocab_size) == (lm.d_model, lm.vocab_size)


def test_it_reads_half_precision_and_untied_heads(tiny_folder, tmp_path):
    lm = pt.FrozenLM.from_pretrained(str(tiny_folder))
    lm.model.config.tie_word_embeddings = False
    lm.model.lm_head.weight = torch.nn.Parameter(lm.model.lm_head.weight.detach().clone().mul(-1))
    for dtype in (torch.bfloat16, torch.float16):
        folder = tmp_path / str(dtype)
        lm.model.to(dtype).save_pretrained(folder)
        lm.tokenizer.save_pretrained(folder)
        small = NumpyLlama.read(folder)
        loaded = pt.FrozenLM.from_pretrained(str(folder), dtype="float32")
        assert small.fingerprint == loaded.fingerprint
        vectors = torch.randn(1, 9, lm.d_model, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            logits = loaded.logits(loaded.hidden(vectors))
        assert (
            small.argmax(vectors.numpy(), [0] * 9, range(9)).tolist()
            == logits[0].argmax(-1).tolist()
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "gemma"},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0}},
        {"rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 3},
        {"quantization_config": {"bits": 4}},
        {"num_attention_heads": "four"},
    ],
)
def test_a_checkpoint_with_a_part_it_does_not_know_is_left_to_others(tiny_folder, changes):
    path = tiny_folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert NumpyLlama.read(tiny_folder) is None


def test_a_damaged_or_missing_checkpoint_is_left_to_others(tiny_folder, tmp_path):
    assert NumpyLlama.read(tmp_path / "nowhere") is None
    weights = tiny_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert NumpyLlama.read(tiny_folder) is None


def test_keys_are_the_same_in_numpy_and_in_pytorch():
    assert (sign_array(40, 17) == signs(40, 17).numpy()).all()
    assert sign_array(3, 4).dtype == np.float32
