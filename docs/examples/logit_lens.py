"""Trace an export with nnsight or TransformerLens: `logit_lens.py INPUTS MODEL_FOLDER LIBRARY`.

INPUTS comes from `prototokens export FILE.ptok --to gguf-inputs`. For each depth, the tokens that
the model's head reads there are printed.
"""

import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def with_nnsight(folder: str, vectors: torch.Tensor) -> list[torch.Tensor]:
    from nnsight import NNsight

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    traced = NNsight(model)
    with traced.trace(inputs_embeds=vectors):
        states = list().save()  # noqa: C408  # save is nnsight's
        for layer in traced.model.layers:
            states.append(layer.output)
    return [model.lm_head(model.model.norm(state)) for state in states]


def with_transformer_lens(folder: str, vectors: torch.Tensor) -> list[torch.Tensor]:
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_transformers(folder, dtype=torch.float32, device="cpu")
    _, cache = model.run_with_cache(vectors)
    states = [cache[f"blocks.{depth}.hook_out"] for depth in range(model.cfg.n_layers)]
    return [model.unembed(model.ln_final(state)) for state in states]


LIBRARIES = {"nnsight": with_nnsight, "transformer_lens": with_transformer_lens}

if __name__ == "__main__":
    inputs, folder, library = sys.argv[1:]
    tensors, tokenizer = load_file(inputs), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = LIBRARIES[library](folder, tensors["0.vectors"][None])
    for depth, found in enumerate(logits, 1):
        print(depth, repr(tokenizer.decode(found[0, tensors["0.read"].long()].argmax(-1))))
