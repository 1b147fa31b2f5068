"""Write a Llama model with a byte-level tokenizer as a GGUF file, in float32 or float16.

    python docs/examples/to_gguf.py -o builtin.gguf

The built-in model by default. It needs the extra [gguf]; llama.cpp's own tools make other
precisions of the file.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BUILTIN = Path(__file__).parents[2] / "src" / "prototokens" / "builtin"
NAMES = {
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=BUILTIN, type=Path, help="folder of the model")
    parser.add_argument("-o", "--output", required=True, type=Path)
    given = parser.parse_args()
    write(given.model, given.output)


def write(folder: Path, output: Path) -> None:
    """Write the file in float32, tokenizer included."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(output, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, folder, config.vocab_size)
    for name, weight in _weights(model).items():
        writer.add_tensor(name, weight.detach().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, size: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    form = json.loads(tokenizer.backend_tokenizer.to_str())
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([tokenizer.convert_ids_to_tokens(token) for token in range(size)])
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([kinds[token in special] for token in range(size)])
    merges = form["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)


def _weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights under the format's names, rows of queries and keys in the format's order."""
    config = model.config
    weights = {
        "token_embd.weight": model.model.embed_tokens.weight,
        "output_norm.weight": model.model.norm.weight,
    }
    if not config.tie_word_embeddings:
        weights["output.weight"] = model.lm_head.weight
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for number, block in enumerate(model.model.layers):
        for ours, theirs in NAMES.items():
            weight = block.get_submodule(ours).weight
            if theirs in heads:
                weight = weight.unflatten(0, (heads[theirs], 2, -1)).transpose(1, 2).flatten(0, 2)
            weights[f"blk.{number}.{theirs}.weight"] = weight
    return weights


if __name__ == "__main__":
    main()
