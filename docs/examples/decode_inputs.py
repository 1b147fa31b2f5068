"""Decode a file of `export --to gguf-inputs`: `decode_inputs.py INPUTS MODEL.gguf`."""

import ctypes
import sys

import llama_cpp.llama_cpp as api
import numpy as np
from safetensors.numpy import load_file

tensors = load_file(sys.argv[1])
prefix = tensors.pop("prefix", np.zeros(0, np.int32))
model = api.llama_model_load_from_file(sys.argv[2].encode(), api.llama_model_default_params())
vocab = api.llama_model_get_vocab(model)
size = api.llama_vocab_n_tokens(vocab)
options = api.llama_context_default_params()
longest = len(prefix) + max(map(len, tensors.values()))
options.n_ctx = options.n_batch = options.n_ubatch = options.n_outputs_max = longest
options.type_k = options.type_v = 0  # keys and values in float32
context = api.llama_init_from_model(model, options)

for chunk in range(len({name.split(".")[0] for name in tensors})):
    ids = list(tensors.get(f"{chunk}.tokens", []))
    if not ids:
        api.llama_memory_clear(api.llama_get_memory(context), True)
        if len(prefix):
            batch = api.llama_batch_get_one(np.ctypeslib.as_ctypes(prefix), len(prefix))
            assert api.llama_decode(context, batch) == 0
        vectors = np.ctypeslib.as_ctypes(tensors[f"{chunk}.vectors"].ravel())
        count = len(tensors[f"{chunk}.vectors"])
        every = (ctypes.c_int8 * count)(*[1] * count)  # logits at every position
        batch = api.llama_batch(n_tokens=count, embd=vectors, logits=every)
        assert api.llama_decode(context, batch) == 0
        rows = [api.llama_get_logits_ith(context, int(at)) for at in tensors[f"{chunk}.read"]]
        ids = [np.ctypeslib.as_array(row, (size,)).argmax() for row in rows]
    for position, token in tensors.get(f"{chunk}.patches", []):
        ids[position] = token
    for token in map(int, ids):
        piece = ctypes.create_string_buffer(256)
        written = api.llama_token_to_piece(vocab, token, piece, 256, 0, True)
        sys.stdout.buffer.write(piece[:written])
