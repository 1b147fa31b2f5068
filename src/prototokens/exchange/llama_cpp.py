"""Decode a `.ptok` file with llama.cpp, by the low-level bindings of llama-cpp-python.

llama.cpp takes float vectors at every position of a batch and gives logits at every position, which
is all that one-step decoding needs. Keys and values are kept in float32: llama.cpp's default of
float16 would move the logits for no gain. Flash attention is off for the same reason. The weights
are those of the GGUF file, in whatever precision; whether the text comes out is for its hash to
say.
"""

from __future__ import annotations

import ctypes
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from prototokens._util.extras import need
from prototokens.errors import ModelError, UsageError
from prototokens.exchange.inputs import ChunkInputs, inputs_of
from prototokens.ptok.decoded import DecodedText
from prototokens.ptok.encoded import EncodedText
from prototokens.ptok.patches import apply_edits, apply_patches

FLOAT32 = 0  # GGML's number of the type
EXTRA = "llama-cpp"
PRECISIONS = {  # llama.cpp's numbers of file types; K formats in their small mixture
    "F32": 0,
    "F16": 1,
    "Q8_0": 7,
    "Q6_K": 18,
    "Q5_K": 16,
    "Q4_K": 14,
}
MAX_PIECE = 16  # bytes of a token's text, at first; more are asked for where they do not suffice


class LlamaCpp:
    """A model in llama.cpp, for `with`: it holds memory that Python does not free.

    Args:
        path: a GGUF file.
        positions: the longest input, with its prefix.
        threads: None: as many as llama.cpp takes.

    Raises:
        MissingExtraError: llama-cpp-python is not installed.
        ModelError: llama.cpp cannot load the file.
    """

    def __init__(self, path: Path, positions: int, threads: int | None = None) -> None:
        self._api: Any = need("llama_cpp.llama_cpp", EXTRA, "decoding with llama.cpp")
        api, self.path = self._api, path
        # The callback is kept, as llama.cpp calls it as long as it runs.
        self._silent = api.llama_log_callback(lambda level, text, data: None)
        api.llama_log_set(self._silent, None)
        api.llama_backend_init()
        options = api.llama_model_default_params()
        options.n_gpu_layers = 0
        self._model = api.llama_model_load_from_file(str(path).encode(), options)
        if not self._model:
            raise ModelError(f"llama.cpp cannot load {path}: a GGUF file of a model was expected")
        context = api.llama_context_default_params()
        context.n_ctx = context.n_batch = context.n_ubatch = positions
        context.n_outputs_max = positions
        context.type_k = context.type_v = FLOAT32
        context.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if threads is not None:
            context.n_threads = context.n_threads_batch = threads
        self._context = api.llama_init_from_model(self._model, context)
        if not self._context:
            api.llama_model_free(self._model)
            raise ModelError(f"llama.cpp cannot run {path} with inputs of {positions} positions")
        self._vocab = api.llama_model_get_vocab(self._model)
        self.d_model: int = api.llama_model_n_embd(self._model)
        self.vocab_size: int = api.llama_vocab_n_tokens(self._vocab)

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._api.llama_free(self._context)
        self._api.llama_model_free(self._model)

    def logits(
        self, inputs: ChunkInputs, prefix: Sequence[int] = ()
    ) -> Float32[Tensor, "tokens vocab"]:
        """The logits at the positions that are read, from one pass over vectors behind a prefix.

        Raises:
            ModelError: llama.cpp fails.
        """
        api = self._api
        api.llama_memory_clear(api.llama_get_memory(self._context), True)
        if prefix:
            self._run_tokens(prefix)
        vectors = np.ascontiguousarray(inputs.vectors.numpy(), dtype=np.float32)
        batch = api.llama_batch_init(len(vectors), self.d_model, 1)
        try:
            ctypes.memmove(batch.embd, vectors.ctypes.data, vectors.nbytes)
            self._place(batch, len(vectors), len(prefix), True)
            self._decode(batch)
        finally:
            api.llama_batch_free(batch)
        rows = [
            np.ctypeslib.as_array(
                api.llama_get_logits_ith(self._context, position), shape=(self.vocab_size,)
            ).copy()
            for position in inputs.read.tolist()
        ]
        return torch.from_numpy(np.stack(rows))

    def generate(self, count: int, tokens: Sequence[int]) -> list[int]:
        """The ids that greedy decoding appends to some ids: one pass for each."""
        api = self._api
        api.llama_memory_clear(api.llama_get_memory(self._context), True)
        self._run_tokens(tokens)
        made: list[int] = []
        for position in range(len(tokens), len(tokens) + count):
            last = api.llama_get_logits_ith(self._context, -1)
            made.append(int(np.ctypeslib.as_array(last, shape=(self.vocab_size,)).argmax()))
            if len(made) < count:
                self._run_tokens(made[-1:], position)
        return made

    def detokenize(self, ids: Sequence[int]) -> bytes:
        """The bytes of ids by the GGUF file's own tokenizer, special tokens spelled out."""
        return b"".join(map(self._piece, ids))

    def _piece(self, token: int) -> bytes:
        size = MAX_PIECE
        while True:
            buffer = ctypes.create_string_buffer(size)
            written = self._api.llama_token_to_piece(self._vocab, token, buffer, size, 0, True)
            if written >= 0:
                return buffer.raw[:written]
            size = -written

    def _run_tokens(self, tokens: Sequence[int], start: int = 0) -> None:
        batch = self._api.llama_batch_init(len(tokens), 0, 1)
        try:
            for index, token in enumerate(tokens):
                batch.token[index] = token
            self._place(batch, len(tokens), start, False)
            batch.logits[len(tokens) - 1] = 1
            self._decode(batch)
        finally:
            self._api.llama_batch_free(batch)

    @staticmethod
    def _place(batch: Any, count: int, start: int, read: bool) -> None:
        """Number the positions of a batch, which is one sequence."""
        batch.n_tokens = count
        for index in range(count):
            batch.pos[index], batch.n_seq_id[index] = start + index, 1
            batch.seq_id[index][0], batch.logits[index] = 0, read

    def _decode(self, batch: Any) -> None:
        if status := self._api.llama_decode(self._context, batch):
            raise ModelError(f"llama.cpp could not run {self.path}: llama_decode gave {status}")


def decode_text(encoded: EncodedText, path: Path, threads: int | None = None) -> DecodedText:
    """Decode a file's content with llama.cpp, and compare it with the hash of the text.

    Args:
        path: a GGUF file of the model, in any precision.
        threads: None: as many as llama.cpp takes.

    Raises:
        MissingExtraError: llama-cpp-python is not installed.
        ModelError: llama.cpp cannot load or run the file.
        UsageError: the model is of another width or vocabulary.
    """
    inputs = [inputs_of(chunk) for chunk in encoded.chunks()]
    prefix, header = encoded.layout.prefix, encoded.header
    longest = len(prefix) + max((len(one.vectors) for one in inputs), default=1)
    with LlamaCpp(path, longest, threads) as engine:
        expected = header.model.vocab_size or engine.vocab_size
        if (engine.d_model, engine.vocab_size) != (header.model.d_model, expected):
            raise UsageError(
                f"{path} has width {engine.d_model} and {engine.vocab_size} tokens, and the vectors"
                f" are for width {header.model.d_model} and {expected} tokens: name the model"
                f" {header.model.name!r} as a GGUF file"
            )
        began = time.perf_counter()
        decoded = [engine.logits(one, prefix).argmax(-1).tolist() for one in inputs]
        flat = [token for chunk in apply_patches(decoded, encoded.extras) for token in chunk]
        content, matches = engine.detokenize(flat), True
        try:
            content = apply_edits(content, encoded.extras.edits)
        except ValueError:  # the vectors gave a shorter text than the edits are for
            matches = False
        seconds = time.perf_counter() - began
    matches = matches and hashlib.sha256(content).hexdigest() == header.text.sha256
    return DecodedText(content, len(flat), len(inputs), seconds, matches)


def quantise(source: Path, target: Path, precision: str) -> None:
    """Write a GGUF file in another precision, by llama.cpp's own quantiser.

    Args:
        precision: one of `PRECISIONS`; weights that are quantised already are unpacked first.

    Raises:
        MissingExtraError: llama-cpp-python is not installed.
        ModelError: llama.cpp cannot read or write the files.
    """
    api: Any = need("llama_cpp.llama_cpp", EXTRA, "quantising with llama.cpp")
    silent = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(silent, None)
    options = api.llama_model_quantize_default_params()
    options.ftype, options.allow_requantize, options.nthread = PRECISIONS[precision], True, 1
    status = api.llama_model_quantize(str(source).encode(), str(target).encode(), options)
    api.llama_log_set(api.llama_log_callback(), None)
    if status:
        raise ModelError(f"llama.cpp could not write {source} as {precision}")
