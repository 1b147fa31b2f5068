"""The tensors of a `.ptok` file as bytes; vectors of few bits packed.

What they mean is `encoded`'s; `contents` reads them without PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from safetensors.torch import load
from torch import Tensor

from prototokens.engine.grid import levels_of
from prototokens.engine.widths import GRID_BITS
from prototokens.errors import UsageError
from prototokens.ptok.contents import MAX_HEADER, Contents, arrays_hash


def pack_codes(
    vectors: Float32[Tensor, "distinct d_model"],
    scale: Float32[Tensor, "distinct"],
    bits: Sequence[int],
) -> UInt8[Tensor, "bytes"]:
    """Vectors one after another, each in its own number of bits and filled up to a whole byte.

    Args:
        scale: of each vector's grid; ignored for vectors of 16 and 32 bits.
    """
    packed = []
    for vector, width, one in zip(vectors, bits, scale, strict=True):
        if width in GRID_BITS:
            codes = (
                levels_of(vector[None], one[None], torch.tensor([2.0**width]))[0]
                .numpy()
                .astype(np.uint8)
            )
            packed.append(
                np.packbits(
                    np.unpackbits(codes[:, None], axis=1, bitorder="little")[:, :width],
                    bitorder="little",
                )
            )
        else:
            packed.append(vector.numpy().astype("<f2" if width == 16 else "<f4").view(np.uint8))
    return torch.from_numpy(np.concatenate(packed)) if packed else torch.empty(0, dtype=torch.uint8)


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, kinds, shapes and bytes."""
    return arrays_hash({name: tensor.contiguous().numpy() for name, tensor in tensors.items()})


def read_tensors(handle: BinaryIO, contents: Contents) -> dict[str, Tensor]:
    """The tensors of an open safetensors file whose header was found sound.

    The file is read here and not opened by its name, as safetensors takes only names that are
    UTF-8.

    Raises:
        SafetensorError: the header does not fit the bytes behind it.
        OSError: it cannot be read.
    """
    handle.seek(0)
    return load(handle.read(contents.size))


def in_order(content: bytes) -> bytes:
    """A safetensors file with the keys of its header in order: the same fit gives the same file.

    Raises:
        UsageError: a header longer than a reader takes.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(
        json.loads(content[8:start]), sort_keys=True, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of eight
    if len(header) > MAX_HEADER:
        raise UsageError(
            f"the file's header takes {len(header):,} bytes, and {MAX_HEADER:,} are the most:"
            " encode in parts"
        )
    return len(header).to_bytes(8, "little") + header + content[start:]
