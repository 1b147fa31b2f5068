"""Tiny GGUF files for tests, written with the `gguf` library as llama.cpp's converter does it."""

from pathlib import Path

import gguf
import torch
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

SHAPE = {
    "vocab_size": 260,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": None,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
    "tie_word_embeddings": True,
}
MAPS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def tiny_model(**changes):
    """A random Llama whose every width is a multiple of 32, as blocks of numbers need."""
    config = LlamaConfig(**(SHAPE | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config)


def gguf_weights(model):
    """Its weights under the format's names, rows of queries and keys in the format's order."""
    config = model.config
    weights = {
        "token_embd.weight": model.model.embed_tokens.weight,
        "output_norm.weight": model.model.norm.weight,
    }
    for number, block in enumerate(model.model.layers):
        for ours, theirs in MAPS.items():
            weight = block.get_submodule(ours).weight
            heads = {
                "attn_q": config.num_attention_heads,
                "attn_k": config.num_key_value_heads,
            }.get(theirs)
            if heads is not None:
                weight = weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
            weights[f"blk.{number}.{theirs}.weight"] = weight
    return {name: weight.detach().numpy() for name, weight in weights.items()}


def write_gguf(
    path: Path,
    model=None,
    kind="F32",
    *,
    architecture="llama",
    tokenizer=True,
    keys=None,
    raw_keys=None,
    leave_out=(),
    extra=(),
) -> Path:
    """Write a model with a tokenizer of bytes.

    Args:
        path: of the file to write.
        model: a Llama; None for `tiny_model()`.
        kind: of number: "F32", "F16", "BF16", "Q8_0", "Q4_0", ...; norms are F32 throughout.
        architecture: as the file states it.
        tokenizer: whether it holds one.
        keys: arguments of methods of `gguf.GGUFWriter`, in place of those below or added to them.
        raw_keys: by key, a value and its type.
        leave_out: names of tensors that are not written.
        extra: pairs of a name and an array.
    """
    model = tiny_model() if model is None else model
    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    stated = {
        "add_context_length": config.max_position_embeddings,
        "add_embedding_length": config.hidden_size,
        "add_block_count": config.num_hidden_layers,
        "add_feed_forward_length": config.intermediate_size,
        "add_head_count": config.num_attention_heads,
        "add_head_count_kv": config.num_key_value_heads,
        "add_rope_dimension_count": config.head_dim,
        "add_rope_freq_base": config.rope_parameters["rope_theta"],
        "add_layer_norm_rms_eps": config.rms_norm_eps,
        "add_vocab_size": config.vocab_size,
    }
    stated |= tokenizer_keys(config.vocab_size) if tokenizer else {}
    for method, argument in (stated | (keys or {})).items():
        getattr(writer, method)(argument)
    for key, (value, kind_of_value) in (raw_keys or {}).items():
        writer.add_key_value(key, value, kind_of_value)
    for name, weight in gguf_weights(model).items():
        if name in leave_out:
            continue
        numbers = (
            gguf.GGMLQuantizationType.F32 if weight.ndim == 1 else gguf.GGMLQuantizationType[kind]
        )
        writer.add_tensor(name, gguf.quantize(weight, numbers), raw_dtype=numbers)
    for name, array in extra:
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tokenizer_keys(size):
    """One token for each byte, one merge, two special tokens, and unused ones up to the size."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<bos>", "<eos>", "th"]
    tokens += [f"<unused{number}>" for number in range(size - len(tokens))]
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL]
    return {
        "add_tokenizer_model": "gpt2",
        "add_tokenizer_pre": "gpt-2",
        "add_token_list": tokens,
        "add_token_types": kinds + [gguf.TokenType.UNUSED] * (size - len(kinds)),
        "add_token_merges": ["t h"],
        "add_bos_token_id": 256,
        "add_eos_token_id": 257,
    }
