"""Models that cannot be used are rejected, with a message that says why."""

import copy

import pytest
import torch
import transformers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
)

from prototokens.errors import ModelError
from prototokens.lm.frozen_lm import FrozenLM
from small_models import SMALL, random_model, refusal

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
