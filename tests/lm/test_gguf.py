"""Models from GGUF files: loaded weights equal those written, invalid files are rejected."""

import resource
import struct
import time

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import prototokens as pt
from gguf_files import gguf_weights, tiny_model, write_gguf
from prototokens._util import extras
from prototokens.errors import FileError, MissingExtraError, ModelError, UsageError
from prototokens.lm import gguf_model
from prototokens.lm.frozen_lm import FrozenLM

MAX_SECONDS = 10.0  # seconds, on a busy machine
IDS = torch.tensor([[3, 141, 59, 26, 5, 35, 89, 79]])
Q4, Q8 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0


@pytest.fixture
def file(tmp_path):
    return write_gguf(tmp_path / "tiny.gguf")


def refusal(path):
    """The message with which a file is rejected: one line, after a short time."""
    began = time.monotonic()
    with pytest.raises(ModelError) as caught:
        FrozenLM.from_pretrained(path)
    assert time.monotonic() - began < MAX_SECONDS
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


# Loaded models


def test_an_unquantised_file_gives_the_model_that_was_written(file, capfd):
    lm, model = FrozenLM.from_pretrained(file), tiny_model()
    assert capfd.readouterr() == ("", "")
    assert lm.fingerprint == FrozenLM(model).fingerprint
    assert (lm.dtype, lm.max_context, lm.recorded_name) == (torch.float32, 128, "tiny.gguf")
    with torch.no_grad():
        assert torch.equal(lm.logits(lm.hidden(lm.embed(IDS))), model(input_ids=IDS).logits)


def test_the_tokenizer_comes_from_the_file(file):
    lm = FrozenLM.from_pretrained(file)
    text = "the cat\n\n  sat: Ünïcödé 🙂"
    ids = lm.tokenize(text)
    assert ids[0] == 258  # the only merge of the tokenizer
    assert lm.detokenize(ids) == text
    tokenizer = lm.tokenizer
    assert tokenizer is not None
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (256, 257)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_weights_are_dequantised_by_the_library_and_rounded_to_16_bits(tmp_path, kind):
    lm = FrozenLM.from_pretrained(write_gguf(tmp_path / "tiny.gguf", kind=kind), dtype="float32")
    stored = torch.float16 if kind == "F16" else torch.bfloat16
    numbers = gguf.GGMLQuantizationType[kind]
    for name, module in [
        ("token_embd", "embed_tokens"),
        ("blk.1.ffn_down", "layers.1.mlp.down_proj"),
    ]:
        packed = gguf.quantize(gguf_weights(tiny_model())[f"{name}.weight"], numbers)
        expected = torch.from_numpy(gguf.dequantize(packed, numbers)).to(stored).float()
        assert torch.equal(lm.model.model.get_submodule(module).weight, expected)


def test_quantised_weights_count_as_16_bits(tmp_path, monkeypatch):
    file = write_gguf(tmp_path / "tiny.gguf", kind="Q8_0")
    whole, half = (FrozenLM.from_pretrained(file, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert (whole.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert whole.fingerprint == half.fingerprint == half.weights_hash()
    for pays, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("prototokens.lm.loading.bfloat16_pays", lambda device, pays=pays: pays)
        assert FrozenLM.from_pretrained(file).dtype == dtype


def test_dequantisation_in_longer_rows_is_bit_identical():
    weights = np.random.default_rng(0).normal(size=(6 * 97, 4096)).astype(np.float32)
    packed, calls = gguf.quantize(weights, Q4), []
    dequantize = gguf_model._in_longer_rows(
        lambda data, kind: calls.append(data.shape) or gguf.dequantize(data, kind)
    )
    assert np.array_equal(dequantize(packed, Q4), gguf.dequantize(packed, Q4))
    assert calls == [(97, 6 * packed.shape[1])]


def test_loading_restores_the_functions_of_the_library(file):
    before = gguf.GGUFReader, gguf.dequantize, gguf.get_tensor_name_map
    FrozenLM.from_pretrained(file)
    assert (gguf.GGUFReader, gguf.dequantize, gguf.get_tensor_name_map) == before


def test_other_files_of_the_folder_are_not_read(file):
    for name in ("config", "tokenizer", "tokenizer_config", "adapter_config", "generation_config"):
        (file.parent / f"{name}.json").write_text("{ no JSON")
    assert FrozenLM.from_pretrained(file).fingerprint == FrozenLM(tiny_model()).fingerprint


def test_a_loaded_model_can_be_saved_as_an_ordinary_folder(tmp_path):
    # bfloat16 is the checkpoint's own dtype; "auto" would cast the weights on some machines.
    path = write_gguf(tmp_path / "tiny.gguf", kind="Q8_0")
    lm = FrozenLM.from_pretrained(path, dtype="bfloat16")
    lm.model.save_pretrained(tmp_path / "folder")
    assert lm.tokenizer is not None
    lm.tokenizer.save_pretrained(tmp_path / "folder")
    again = FrozenLM.from_pretrained(tmp_path / "folder")
    assert (again.fingerprint, again.tokenizer_hash) == (lm.fingerprint, lm.tokenizer_hash)


def test_the_factors_of_rotary_frequencies_are_applied(tmp_path):
    """The reference is transformers' own model with the scaling of Llama 3."""
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    plain = tiny_model()
    scaled = LlamaForCausalLM(
        LlamaConfig(**(plain.config.to_dict() | {"rope_parameters": scaling}))
    )
    scaled.load_state_dict(plain.state_dict())
    factors = plain.model.rotary_emb.inv_freq / scaled.model.rotary_emb.inv_freq
    assert factors.max() == 8.0
    lm = FrozenLM.from_pretrained(
        write_gguf(tmp_path / "a.gguf", extra=[("rope_freqs.weight", factors.numpy())])
    )
    with torch.no_grad():
        expected, unscaled = scaled.eval()(input_ids=IDS).logits, plain(input_ids=IDS).logits
    torch.testing.assert_close(lm.logits(lm.hidden(lm.embed(IDS))), expected, rtol=1e-5, atol=1e-5)
    assert (unscaled - expected).abs().max() > 1e-3


# Encoding with it


def test_decoding_with_another_quantisation_is_rejected(tmp_path):
    made_with, other = (
        FrozenLM.from_pretrained(write_gguf(tmp_path / f"tiny.{kind}.gguf", kind=kind))
        for kind in ("Q8_0", "Q4_0")
    )
    assert made_with.fingerprint != other.fingerprint
    encoded = pt.encode(made_with, "the cat sat")
    with pytest.raises(
        FileError, match=r"tiny\.Q8_0\.gguf.*the quantisation of the two GGUF files may differ"
    ):
        pt.decode(other, encoded)


# Rejected files


def test_a_missing_file_another_file_and_a_revision(tmp_path, file):
    assert "there is no file" in refusal(tmp_path / "missing.gguf")
    with pytest.raises(ModelError, match=r"there is no file 'models/missing\.gguf'"):
        FrozenLM.from_pretrained("models/missing.gguf")
    (tmp_path / "notes.txt").write_text("GG, no model")
    assert "is a file that holds no model: give a .gguf file" in refusal(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="has no revision 'main'"):
        FrozenLM.from_pretrained(file, revision="main")


def test_a_gguf_file_is_recognised_by_its_first_bytes(file):
    assert FrozenLM.from_pretrained(file.rename(file.with_suffix(".bin"))).d_model == 32


@pytest.mark.parametrize("module", ["gguf", "accelerate"])
def test_a_missing_extra_is_named(file, monkeypatch, module):
    def missing(name):
        if name == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name)

    real = extras.import_module
    monkeypatch.setattr(extras, "import_module", missing)
    with pytest.raises(
        MissingExtraError, match=rf"needs {module}, .* pip install 'prototokens\[gguf\]'"
    ):
        FrozenLM.from_pretrained(file)


def test_a_file_with_the_suffix_and_other_content(tmp_path):
    for content in (b"", b"GG", b"PK\x03\x04" + bytes(100), b"ggjt" + bytes(100)):
        (tmp_path / "other.gguf").write_bytes(content)
        assert "is not a GGUF file: it does not begin with the letters GGUF" in refusal(
            tmp_path / "other.gguf"
        )


def test_truncated_files(file, tmp_path):
    content, cut = file.read_bytes(), tmp_path / "cut.gguf"
    for end in [
        4,
        7,
        8,
        23,
        24,
        30,
        40,
        300,
        1000,
        4000,
        5000,
        6000,
        7000,
        8000,
        len(content) // 2,
        len(content) - 33,
    ]:
        cut.write_bytes(content[:end])
        assert "cut short" in refusal(cut), end


def head(version=3, tensors=0, keys=0, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


def string(text):
    return struct.pack("<Q", len(text)) + text


def number(key, value=1):
    return string(key) + struct.pack("<II", 4, value)


def array(key, item, count, rest=b""):
    return string(key) + struct.pack("<IIQ", 9, item, count) + rest


TOKENS = b"tokenizer.ggml.tokens"
BAD_HEADERS = {
    "old": (head(version=1), "states version 1"),
    "big-endian": (head(version=3 << 24), "states version"),
    "tensors": (head(tensors=2**63), "announces 9223372036854775808 tensors"),
    "keys": (head(keys=2**40), "announces 0 tensors and 1099511627776 keys"),
    "key length": (
        head(keys=1, rest=struct.pack("<Q", 2**62)),
        "has a text of 4611686018427387904 bytes",
    ),
    "text length": (
        head(keys=1, rest=string(b"a") + struct.pack("<IQ", 8, 2**40)),
        "has a text of",
    ),
    "text beyond": (head(keys=1, rest=string(b"a") + struct.pack("<IQ", 8, 1000)), "cut short"),
    "kind": (head(keys=1, rest=string(b"a") + struct.pack("<IQ", 77, 1)), "of an unknown kind, 77"),
    "array in array": (head(keys=1, rest=array(b"a", 9, 1)), "items of an unknown kind, 9"),
    "array": (head(keys=1, rest=array(b"a", 4, 2**50)), "announces 1125899906842624 items"),
    "vocabulary": (head(keys=1, rest=array(TOKENS, 8, 2**50)), "vocabulary announces"),
    "scores": (head(keys=1, rest=array(b"tokenizer.ggml.scores", 6, 1_900_000)), "cut short"),
    "tokens beyond": (head(keys=1, rest=array(TOKENS, 8, 1_900_000, string(b"a"))), "cut short"),
    "token": (head(keys=1, rest=array(TOKENS, 8, 1, struct.pack("<Q", 2**40))), "an item of"),
    "long tokens": (
        head(keys=1, rest=array(TOKENS, 8, 2000, string(b"a" * 1000) * 2000)),
        "too long on the whole",
    ),
    "no UTF-8": (
        head(keys=1, rest=string(b"a") + struct.pack("<I", 8) + string(b"\xff")),
        "is not UTF-8",
    ),
    "twice": (head(keys=2, rest=number(b"a") * 2), "'a' is there twice"),
    "no architecture": (head(), "does not state its architecture"),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_invalid_headers(tmp_path, name):
    content, message = BAD_HEADERS[name]
    (tmp_path / "bad.gguf").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert message in refusal(tmp_path / "bad.gguf")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_a_file_without_a_tokenizer(tmp_path):
    assert "holds no tokenizer" in refusal(write_gguf(tmp_path / "bare.gguf", tokenizer=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"architecture": "quipu"},
            "architecture 'quipu', which transformers does not read",
            id="unknown",
        ),
        pytest.param({"architecture": "../llama"}, "does not state its architecture", id="no name"),
        pytest.param(
            {"keys": {"add_bos_token_id": 260}},
            "bos_token_id is 260, and there are 260 tokens",
            id="bos",
        ),
        pytest.param(
            {"keys": {"add_block_count": 2**31}}, "announces 2147483648 layers", id="layers"
        ),
        pytest.param(
            {"keys": {"add_block_count": 3}}, "is incomplete: it announces", id="one layer too many"
        ),
        pytest.param(
            {"keys": {"add_vocab_size": 2**31}}, "is incomplete: it announces", id="vocabulary"
        ),
        pytest.param(
            {"keys": {"add_embedding_length": 2**30}}, "is incomplete: it announces", id="width"
        ),
        pytest.param(
            {"keys": {"add_head_count": 0}}, "does not read from this file", id="no heads"
        ),
        pytest.param(
            {"keys": {"add_feed_forward_length": 32}}, "could not be loaded", id="other shapes"
        ),
        pytest.param(
            {"leave_out": ["blk.1.ffn_up.weight"]},
            "is incomplete: it announces",
            id="a weight too few",
        ),
        pytest.param(
            {"keys": {"add_rope_scaling_type": gguf.RopeScalingType.YARN}},
            "'yarn'",
            id="scaled positions",
        ),
        pytest.param(
            {"extra": [("rope_freqs.weight", np.ones(7, np.float32))]},
            "not known here",
            id="factors",
        ),
        pytest.param(
            {"keys": {"add_tokenizer_model": "bert"}}, "the tokenizer in", id="kind of tokenizer"
        ),
    ],
)
def test_valid_files_without_a_usable_model(tmp_path, options, message):
    assert message in refusal(write_gguf(tmp_path / "bad.gguf", **options))


def test_one_part_of_several(tmp_path):
    count = {"split.count": (3, gguf.GGUFValueType.UINT16)}
    assert "is one of 3 parts of a model" in refusal(
        write_gguf(tmp_path / "part.gguf", raw_keys=count)
    )


def test_tensors_that_overlap(tmp_path):
    content = bytearray(
        write_gguf(tmp_path / "overlap.gguf", extra=[("one", np.ones(64, np.float32))]).read_bytes()
    )
    # Behind the name are the number of dimensions, the size, the kind and the offset.
    entry = content.rindex(struct.pack("<Q", 3) + b"one") + 11
    struct.pack_into("<QIQ", content, entry + 4, 260 * 32, 0, 0)
    (tmp_path / "overlap.gguf").write_bytes(content)
    assert "its tensors overlap" in refusal(tmp_path / "overlap.gguf")


def test_random_damage_to_the_header_never_raises_another_error(file):
    content, generator, rejected = file.read_bytes(), np.random.default_rng(0), 0
    for _ in range(40):
        damaged = bytearray(content)
        for position in generator.integers(4, 900, 3):
            damaged[position] = generator.integers(256)
        file.write_bytes(damaged)
        try:
            FrozenLM.from_pretrained(file)
        except ModelError as error:
            rejected += "\n" not in str(error)
    assert rejected > 10
