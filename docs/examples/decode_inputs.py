"""Decode a file of `prototokens export --to gguf-inputs` with llama.cpp alone."""

import argparse
import ctypes
import sys

import numpy as np
from safetensors.numpy import load_file

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("inputs", help="the exported file")
parser.add_argument("model", help="a GGUF file of the model")
given = parser.parse_args()

import llama_cpp.llama_cpp as api  # noqa: E402

tensors, nothing = load_file(given.inputs), np.zeros(0, np.int32)
model = api.llama_model_load_from_file(given.model.encode(), api.llama_model_default_params())
vocab, prefix = api.llama_model_get_vocab(model), tensors.get("prefix", nothing)
longest = len(prefix) + max([len(t) for n, t in tensors.items() if n.endswith("vectors")] or [1])
options = api.llama_context_default_params()
options.n_ctx = options.n_batch = options.n_ubatch = options.n_outputs_max = longest
options.type_k = options.type_v = 0  # float32
context = api.llama_init_from_model(model, options)


def run(values, width, start):
    batch = api.llama_batch_init(len(values), width, 1)
    ctypes.memmove(batch.embd if width else batch.token, values.ctypes.data, values.nbytes)
    batch.n_tokens = len(values)
    for i in range(len(values)):
        batch.pos[i], batch.n_seq_id[i], batch.logits[i] = start + i, 1, 1
        batch.seq_id[i][0] = 0
    assert api.llama_decode(context, batch) == 0
    api.llama_batch_free(batch)


def argmax(position):
    logits = api.llama_get_logits_ith(context, int(position))
    return int(np.ctypeslib.as_array(logits, shape=(api.llama_vocab_n_tokens(vocab),)).argmax())


for chunk in range(len({name.split(".")[0] for name in tensors} - {"prefix"})):
    ids = tensors.get(f"{chunk}.tokens", nothing).tolist()
    if not ids:
        api.llama_memory_clear(api.llama_get_memory(context), True)
        if len(prefix):
            run(prefix, 0, 0)
        run(tensors[f"{chunk}.vectors"], tensors[f"{chunk}.vectors"].shape[1], len(prefix))
        ids = [argmax(position) for position in tensors[f"{chunk}.read"]]
    for position, token in tensors.get(f"{chunk}.patches", []):
        ids[position] = int(token)
    for token in ids:
        piece = ctypes.create_string_buffer(256)
        size = api.llama_token_to_piece(vocab, token, piece, 256, 0, True)
        sys.stdout.buffer.write(piece.raw[:size])
