"""FrozenLM: outputs of every family, loading and hashes, text, surprisal, rejected models."""

import copy
import json
import math
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub.errors import RepositoryNotFoundError
from tokenizers import processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CohereConfig,
    CohereForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaModel,
    PhiConfig,
    PhiForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
)
from transformers.utils import logging as hf_logging

from prototokens.errors import ModelError, TextError, UsageError
from prototokens.lm import autoregressive, locate
from prototokens.lm.frozen_lm import FrozenLM

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
IDS = torch.tensor([[3, 141, 59, 26, 5, 35, 89], [79, 32, 38, 46, 26, 43, 38]])


def random_model(model_class, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return model_class(config)


def vectors(lm, rows=2, length=9, seed=0):
    """Random input vectors, twice as large as the embeddings."""
    noise = torch.randn(rows, length, lm.d_model, generator=torch.Generator().manual_seed(seed))
    return 2 * lm.embedding_weight.std() * noise


def refusal(given, **options):
    """The message with which a model is rejected; it is one line."""
    with pytest.raises(ModelError) as caught:
        FrozenLM.from_pretrained(given, **options) if not hasattr(given, "config") else FrozenLM(
            given
        )
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Embeddings, hidden states and logits


def test_logits_equal_those_of_the_model(any_lm):
    inputs = vectors(any_lm)
    with torch.no_grad():
        expected = any_lm.model(inputs_embeds=inputs, use_cache=False).logits
    logits = any_lm.logits(any_lm.hidden(inputs))
    assert logits.dtype == expected.dtype
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_embeddings_give_the_logits_of_the_ids(any_lm):
    with torch.no_grad():
        expected = any_lm.model(input_ids=IDS, use_cache=False).logits
    logits = any_lm.logits(any_lm.hidden(any_lm.embed(IDS)))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(any_lm.embedding_weight[IDS], any_lm.embed(IDS))


@pytest.mark.parametrize(
    ("model_class", "config", "expected"),
    [
        pytest.param(PhiForCausalLM, PhiConfig(vocab_size=97, **SMALL), (True, 1.0), id="bias"),
        pytest.param(
            CohereForCausalLM,
            CohereConfig(vocab_size=97, logit_scale=0.3, **SMALL),
            (False, 0.3),
            id="factor",
        ),
        pytest.param(
            GraniteForCausalLM,
            GraniteConfig(vocab_size=97, logits_scaling=7, **SMALL),
            (False, 1 / 7),
            id="divisor",
        ),
    ],
)
def test_heads_with_a_bias_or_a_scale(model_class, config, expected):
    config.pad_token_id = None
    model = random_model(model_class, config)
    if model.lm_head.bias is not None:
        torch.nn.init.normal_(model.lm_head.bias)
    lm = FrozenLM(model)
    assert (lm.head.bias is not None, lm.head.scale) == expected
    inputs = vectors(lm)
    torch.testing.assert_close(
        lm.logits(lm.hidden(inputs)), model(inputs_embeds=inputs).logits, rtol=1e-5, atol=1e-6
    )


FALCON = {
    "vocab_size": 150,
    "mamba_d_ssm": 16,
    "mamba_n_heads": 2,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
}


def test_embed_applies_a_factor_that_the_body_applies_to_ids_alone():
    """Falcon-H1 multiplies the embeddings of ids, but not `inputs_embeds`."""
    shape = {
        "num_key_value_heads": 2,
        "embedding_multiplier": 3.5,
        "mamba_chunk_size": 8,
        "pad_token_id": None,
    }
    model = random_model(FalconH1ForCausalLM, FalconH1Config(**SMALL, **FALCON, **shape))
    lm = FrozenLM(model)
    assert torch.equal(lm.embed(IDS), 3.5 * model.get_input_embeddings()(IDS))
    assert torch.equal(lm.embedding_weight[IDS], lm.embed(IDS))
    with torch.no_grad():
        expected = model(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(lm.logits(lm.hidden(lm.embed(IDS))), expected, rtol=1e-5, atol=1e-6)


PER_LAYER = {
    "vocab_size": 97,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": 97,
    "num_kv_shared_layers": 0,
    "pad_token_id": None,
}


@pytest.mark.parametrize("family", ["Gemma3n", "Gemma4"])
def test_a_second_embedding_table_is_rejected_before_any_run_on_vectors(family, monkeypatch):
    """Gemma 4's body finds the ids of vectors by comparing them with its whole embedding table.

    For a model of real size that takes gigabytes.
    """
    if not hasattr(transformers, f"{family}ForCausalLM"):
        pytest.skip(f"this version of transformers has no {family}")
    options = {
        "Gemma3n": {"laurel_rank": 2, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0]},
        "Gemma4": {},
    }
    config = getattr(transformers, f"{family}TextConfig")(
        **SMALL, **PER_LAYER, **options[family], layer_types=["full_attention"]
    )
    model = random_model(getattr(transformers, f"{family}ForCausalLM"), config)
    # A parameter that is initialised with zeros would hide the effect of what it multiplies.
    for parameter in model.parameters():
        if not parameter.abs().max():
            torch.nn.init.normal_(parameter)

    def hidden(*_):
        raise AssertionError("the model was run on vectors")

    monkeypatch.setattr(FrozenLM, "hidden", hidden)
    assert "looks ids up in a second table (model.embed_tokens_per_layer)" in refusal(model)


def test_a_body_that_accepts_only_embeddings_of_ids_is_rejected(tiny_llama, monkeypatch):
    table, hidden = tiny_llama.embedding_weight, FrozenLM.hidden

    def known_only(self, inputs):
        if not (inputs[..., None, :] == table).all(-1).any(-1).all():
            raise RuntimeError("these inputs_embeds do not match the embedding weights")
        return hidden(self, inputs)

    monkeypatch.setattr(FrozenLM, "hidden", known_only)
    assert "cannot be run on vectors in place of tokens" in refusal(tiny_llama.model)


def test_the_soft_cap_of_the_head_is_applied(tiny_gemma2):
    huge = 100 * tiny_gemma2.head.weight[:3]
    assert tiny_gemma2.head.softcap == 5.0
    assert 4.9 < tiny_gemma2.logits(huge).max() <= 5.0


def test_widths_and_maximum_context(tiny_opt, tiny_gpt2, tiny_mamba):
    assert (tiny_opt.d_model, tiny_opt.hidden_size, tiny_opt.model.config.hidden_size) == (
        24,
        24,
        32,
    )
    assert tiny_opt.hidden(vectors(tiny_opt)).shape == (2, 9, 24)
    assert (tiny_gpt2.d_model, tiny_gpt2.vocab_size, tiny_gpt2.max_context) == (24, 260, 64)
    assert tiny_mamba.max_context is None


def test_gradients_reach_the_inputs_and_no_weight(any_lm):
    before = any_lm.weights_hash()
    inputs = vectors(any_lm).requires_grad_()
    any_lm.logits(any_lm.hidden(inputs))[:, 4].logsumexp(-1).sum().backward()
    assert inputs.grad is not None
    assert (inputs.grad[:, :5].abs().amax(-1) > 0).all()
    assert (inputs.grad[:, 5:] == 0).all()
    assert not any_lm.model.training
    assert not any(
        parameter.requires_grad or parameter.grad is not None
        for parameter in any_lm.model.parameters()
    )
    assert any_lm.weights_hash() == before


def test_padding_after_a_row_does_not_change_it(any_lm):
    inputs = vectors(any_lm, rows=3)
    padded = torch.cat([inputs[:, :5], 50 * vectors(any_lm, rows=3, length=12, seed=1)], dim=1)
    expected, states = any_lm.hidden(inputs[:, :5]), any_lm.hidden(padded)[:, :5]
    torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-5)


# Loading and hashes


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


# Text


@pytest.mark.parametrize(
    "text", ["", " ", "a . b 's  ,", "<bos>x<eos>", "naïve 👩‍🚀 e\u0301\n\t", "nul \0 end "]
)
def test_detokenize_inverts_tokenize(tiny_llama, text):
    ids = tiny_llama.tokenize(text)
    assert (
        tiny_llama.detokenize(ids)
        == tiny_llama.detokenize(torch.tensor(ids, dtype=torch.int64))
        == text
    )


def test_tokenize_adds_no_special_tokens(tiny_llama, byte_tokenizer):
    byte_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<bos> $A", special_tokens=[("<bos>", 256)]
    )
    lm = FrozenLM(tiny_llama.model, byte_tokenizer)
    assert byte_tokenizer("ab")["input_ids"][0] == 256
    assert lm.tokenize("ab") == tiny_llama.tokenize("ab")


def test_the_tokenizer_hash_does_not_depend_on_padding_and_truncation(tiny_llama, byte_tokenizer):
    used = FrozenLM(tiny_llama.model, byte_tokenizer)
    byte_tokenizer.pad_token = "<eos>"
    byte_tokenizer(["a", "abc"], padding=True, truncation=True, max_length=2)
    assert (
        FrozenLM(tiny_llama.model, byte_tokenizer).tokenizer_hash
        == used.tokenizer_hash
        == tiny_llama.tokenizer_hash
    )
    byte_tokenizer.add_tokens(["another"])
    assert FrozenLM(tiny_llama.model, byte_tokenizer).tokenizer_hash != used.tokenizer_hash


def test_texts_that_cannot_be_tokenized(tiny_llama, byte_tokenizer):
    with pytest.raises(TextError, match="character 1 of the text"):
        tiny_llama.tokenize("a\ud800")
    bare = FrozenLM(tiny_llama.model)
    assert bare.tokenizer_hash == ""
    with pytest.raises(ModelError, match="has no tokenizer"):
        bare.tokenize("a")
    byte_tokenizer.add_tokens(["one", "two", "three"])
    with pytest.raises(ModelError, match="gives the id 260, and the model has 260 outputs"):
        FrozenLM(tiny_llama.model, byte_tokenizer).tokenize("three")


# Surprisal


def slow_surprisal(model, ids, bos, window):
    """Surprisal by its definition: one forward pass in float64 for every token."""
    lead = [] if bos is None else [bos]
    context_length, nats, start, stop = window - len(lead), [], 0, window - len(lead)
    for number, target in enumerate(ids):
        if not lead and number == 0:
            nats.append(math.log(model.config.vocab_size))
            continue
        if number > stop:
            start = number - context_length // 2
            stop = start + context_length
        context = torch.tensor([lead + ids[start:number]])
        assert context_length // 2 <= number - start <= context_length or start == 0
        nats.append(-model(input_ids=context).logits[0, -1].log_softmax(-1)[target].item())
    return torch.tensor(nats)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    ("family", "length"),
    [("llama", 1), ("llama", 12), ("llama", 13), ("llama", 14), ("llama", 40), ("mamba", 25)],
)
def test_surprisal_equals_its_definition(family, length, bos, request, monkeypatch):
    monkeypatch.setattr(autoregressive, "SURPRISAL_WINDOW", 12)
    monkeypatch.setattr(autoregressive, "SURPRISAL_WINDOW_UNLIMITED", 12)
    monkeypatch.setattr(autoregressive, "SURPRISAL_CHUNK", 5)
    tiny = request.getfixturevalue(f"tiny_{family}")
    lm = FrozenLM(tiny.model, tiny.tokenizer if bos else None)
    chunks, logits = [], lm.logits
    monkeypatch.setattr(lm, "logits", lambda hidden: chunks.append(len(hidden)) or logits(hidden))
    ids = torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    nats = lm.surprisal(torch.tensor(ids))
    expected = slow_surprisal(copy.deepcopy(tiny.model).double(), ids, 256 if bos else None, 12)
    torch.testing.assert_close(nats, expected, rtol=1e-4, atol=1e-4)
    assert not nats.requires_grad
    assert max(chunks, default=0) <= 5
    assert sum(chunks) == length - (not bos)


def test_surprisal_of_a_text_longer_than_the_context(tiny_gpt2):
    assert tiny_gpt2.max_context == 64
    ids = torch.arange(200) % 256
    nats = tiny_gpt2.surprisal(ids)
    assert nats.shape == (200,)
    torch.testing.assert_close(nats[:64], tiny_gpt2.surprisal(ids[:64].tolist()))


def test_surprisal_of_no_ids_and_of_invalid_ids(tiny_llama):
    assert tiny_llama.surprisal([]).shape == (0,)
    with pytest.raises(UsageError, match="from 0 to 259; got 3 to 260"):
        tiny_llama.surprisal([3, 260])


# Rejected names and models


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
    monkeypatch.setattr(locate.importlib.resources, "files", lambda package: tmp_path)
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


def test_models_that_are_not_causal_language_models(tmp_path, byte_tokenizer):
    bert = random_model(BertForMaskedLM, BertConfig(vocab_size=260, **SMALL))
    t5 = random_model(
        T5ForConditionalGeneration,
        T5Config(vocab_size=260, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2),
    )
    for name, model in (("bert", bert), ("t5", t5)):
        model.save_pretrained(tmp_path / name)
        byte_tokenizer.save_pretrained(tmp_path / name)
    ViTConfig().save_pretrained(tmp_path / "vit")
    assert "is not causal" in refusal(bert)
    assert "is not causal" in refusal(tmp_path / "bert")
    assert "is an encoder-decoder" in refusal(t5)
    assert "is an encoder-decoder" in refusal(tmp_path / "t5")
    assert "is no causal language model (vit)" in refusal(tmp_path / "vit")
    assert "has no head over its vocabulary" in refusal(bert.bert)


def spoil_head(model):
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + logits.square())


def spoil_ids(model):
    def other_ids(module, arguments, options):
        return arguments, {
            key: (value + 1) % 260 if key == "input_ids" else value
            for key, value in options.items()
        }

    model.register_forward_pre_hook(other_ids, with_kwargs=True)


def spoil_gradient(model):
    def detached(module, inputs, output):
        output.last_hidden_state = output.last_hidden_state.detach()
        return output

    model.model.register_forward_hook(detached)


def spoil_numbers(model):
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = torch.inf


def spoil_causality(model):
    """The dependence on later positions is too small to change the logits, but has a gradient."""
    model.model.norm.register_forward_hook(
        lambda module, inputs, states: states + 1e-9 * states.mean(1, keepdim=True)
    )


def spoil_inputs_embeds(model):
    def refuse(module, arguments, options):
        if "inputs_embeds" in options and options.get("input_ids") is None:
            raise NotImplementedError("only ids here\nmore")

    model.model.register_forward_pre_hook(refuse, with_kwargs=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_head, "its head does more than a linear map"),
        (spoil_ids, "does more with ids than look up embeddings"),
        (spoil_gradient, "passes no usable gradient to its input vectors"),
        (spoil_numbers, "gives numbers that are not finite in float32"),
        (spoil_causality, "is not causal"),
        (
            spoil_inputs_embeds,
            r"cannot be run on vectors in place of tokens \(inputs_embeds\): only ids here$",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_that_violates_an_assumption(tiny_llama, spoil, message):
    model = copy.deepcopy(tiny_llama.model)
    spoil(model)
    with pytest.raises(ModelError, match=message):
        FrozenLM(model)


@pytest.mark.parametrize(
    ("option", "value"), [("dtype", "int8"), ("dtype", torch.int64), ("device", "nonsense")]
)
def test_an_unavailable_dtype_or_device(tiny_folder, option, value):
    with pytest.raises(UsageError, match=f"^{option} ") as caught:
        FrozenLM.from_pretrained(tiny_folder, **{option: value})
    assert "\n" not in str(caught.value)
