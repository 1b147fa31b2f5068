"""The input of each chunk, as any engine takes it: float vectors, and positions to read.

An engine that feeds float vectors at every position and gives logits at every position decodes a
text in one step. What it needs of this package is the rule of layouts and keys, and nothing else;
here both have been applied already. docs/how-to/elsewhere.md shows how to decode such a file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from prototokens._util.tensor_files import write_tensors
from prototokens.engine.forward import HasVectors
from prototokens.errors import UsageError
from prototokens.ptok.encoded import EncodedText

FORMAT = 1  # of the files that `write_inputs` writes
METADATA = "prototokens.inputs"


class ChunkInputs(NamedTuple):
    """One chunk for an engine.

    Attributes:
        vectors: the input behind the prefix, keys applied.
        read: the positions, among those of `vectors`, whose argmax is a token, in order.
    """

    vectors: Float32[Tensor, "positions d_model"]
    read: Int64[Tensor, "tokens"]


def inputs_of(chunk: HasVectors) -> ChunkInputs:
    """The input of a chunk or of a solution."""
    layout, length = chunk.layout, chunk.length
    vectors = chunk.protos[layout.index(length)]
    keys = layout.keys(length, vectors.shape[1])
    return ChunkInputs(vectors if keys is None else vectors * keys, layout.scored(length))


def write_inputs(encoded: EncodedText, path: Path) -> int:
    """Write the input of every chunk as a safetensors file.

    Its tensors, with c the number of a chunk from 0: `c.vectors` `[positions, d_model]` (float32)
    and `c.read` (int32) of a chunk in vectors, and where there are any `c.patches` `[patches, 2]`
    (int32: position among the chunk's tokens, token); `c.tokens` (int32) of a chunk that is stored
    as tokens; and `prefix` (int32), the token ids to feed before the vectors, where there are any.
    The metadata has one JSON object: `format`, `chunks` (their number), `model`, `d_model`,
    `vocab_size` and `sha256` (of the text in UTF-8).

    Returns:
        The number of chunks.

    Raises:
        UsageError: the text needs edits of its bytes, which no engine's tokenizer gives.
        FileError: the path cannot be written.
    """
    if encoded.extras.edits:
        raise UsageError(
            "this text has bytes that its tokenizer does not give, and an export holds tokens"
            " alone: decode the .ptok file itself"
        )
    header = encoded.header
    tensors: dict[str, Tensor] = {}
    if header.prefix:
        tensors["prefix"] = _int32(header.prefix)
    for number in range(len(header.chunks)):
        if number in encoded.extras.stored:
            tensors[f"{number}.tokens"] = _int32(encoded.extras.stored[number])
            continue
        vectors, read = inputs_of(encoded.chunk(number + 1))
        tensors[f"{number}.vectors"], tensors[f"{number}.read"] = vectors.contiguous(), read.int()
        if patch := encoded.extras.patches.get(number):
            tensors[f"{number}.patches"] = _int32(sorted(patch.items()))
    values = {
        "format": FORMAT,
        "chunks": len(header.chunks),
        "model": header.model.name,
        "d_model": header.model.d_model,
        "vocab_size": header.model.vocab_size,
        "sha256": header.text.sha256,
    }
    write_tensors(path, tensors, {METADATA: json.dumps(values, sort_keys=True)})
    return len(header.chunks)


def _int32(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)
