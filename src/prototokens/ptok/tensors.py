"""The tensors of a `.ptok` file as bytes.

Vectors of few bits packed, shapes found sound before anything is read.

What they mean is `encoded`'s; docs/file-format.md describes them byte by byte.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from safetensors.torch import load
from torch import Tensor

from prototokens._util import strict_json
from prototokens.engine.grid import GRID_BITS, levels_of, values_of
from prototokens.errors import FileError, UsageError
from prototokens.ptok.header import Header

MAX_HEADER = (
    1 << 24
)  # bytes: of a few million tokens; as Python's objects they take forty times that at most


def row_bytes(bits: int, d_model: int) -> int:
    """Bytes of one vector."""
    return -(-bits * d_model // 8)


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


def unpack_codes(
    codes: UInt8[Tensor, "bytes"],
    scale: Float32[Tensor, "distinct"],
    bits: Sequence[int],
    d_model: int,
) -> Float32[Tensor, "distinct d_model"]:
    """The vectors that `pack_codes` packed."""
    raw, vectors, at = codes.numpy(), torch.empty(len(bits), d_model), 0
    for number, width in enumerate(bits):
        part = raw[at : at + row_bytes(width, d_model)]
        at += len(part)
        if width in GRID_BITS:
            flags = np.unpackbits(part, count=width * d_model, bitorder="little").reshape(
                d_model, width
            )
            levels = np.packbits(flags, axis=1, bitorder="little")[:, 0]
            one = values_of(
                torch.from_numpy(levels.astype(np.int64))[None],
                scale[number, None],
                torch.tensor([2.0**width]),
            )
            vectors[number] = one[0]
        else:
            vectors[number] = torch.from_numpy(
                part.view("<f2" if width == 16 else "<f4").astype(np.float32)
            )
    return vectors


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, kinds, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


class Declared(NamedTuple):
    """One tensor as the header of a safetensors file declares it.

    Its dtype, as safetensors calls it, and its shape.
    """

    kind: str
    shape: list[int]


class Contents(NamedTuple):
    """The header of a safetensors file, read before its tensors are.

    Attributes:
        metadata: the words that the file carries.
        declared: its tensors.
        size: bytes of the whole file, as the header has it and as the file is.
    """

    metadata: dict[str, str]
    declared: dict[str, Declared]
    size: int


def read_contents(handle: BinaryIO) -> Contents:
    """The header of an open safetensors file; no tensor is read, whatever its declared size.

    Raises:
        ValueError: it is no such file, its header names a key twice, or its length is not what the
            header needs.
        OSError: it cannot be read.
    """
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    stated = int.from_bytes(handle.read(8), "little")
    if stated > MAX_HEADER and stated > size:
        # The first letters of a renamed text, read as a number, would be of no use in a message.
        raise ValueError("it does not begin as such a file does, with the length of a header")
    if stated > MAX_HEADER:
        raise ValueError(
            f"its header is said to have {stated:,} bytes, and {MAX_HEADER:,} are the most"
        )
    raw = handle.read(stated)
    if len(raw) < stated or not stated:
        raise ValueError("it ends within its header")
    try:
        header = strict_json.loads(raw)
    except strict_json.RepeatedKeyError as error:
        raise ValueError(f"its header {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("its header is not JSON") from error
    try:
        metadata = dict(header.pop("__metadata__", {}))
        declared = {
            name: Declared(one["dtype"], list(one["shape"])) for name, one in header.items()
        }
        end = 8 + stated + max((one["data_offsets"][1] for one in header.values()), default=0)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError("its header does not describe tensors") from error
    if end != size:
        raise ValueError(f"it has {size:,} bytes, and its header needs {str(end)[:30]}")
    return Contents(metadata, declared, size)


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


def check_declared(declared: dict[str, Declared], header: Header, path: Path) -> None:
    """Check names, dtypes and shapes of the tensors, before any is read.

    Raises:
        FileError: they are not what the header needs.
    """
    d_model, bits = header.model.d_model, header.bits
    shapes: dict[str, tuple[str, list[int] | None]] = {
        "slots": ("I32", [len(header.chunks), header.arrangement.vectors])
    }
    if bits is None:
        shapes["vectors"] = ("F32", None)
    else:
        shapes["codes"] = ("U8", [sum(row_bytes(width, d_model) for width in bits)])
        shapes["scale"] = ("F32", [len(bits)])
    if "patches" in declared and header.format >= 2:
        shapes["patches"] = ("U8", None)
    if sorted(declared) != sorted(shapes):
        raise FileError(
            f"{path} is damaged: it should hold the tensors"
            f" {' and '.join(map(repr, sorted(shapes, reverse=True)))}, and holds"
            f" {_short(sorted(declared))}"
        )
    for name, (kind, expected) in shapes.items():
        (stated, shape), words = (
            declared[name],
            {"F32": "float32", "I32": "int32", "U8": "bytes"}[kind],
        )
        if stated != kind:
            raise FileError(
                f"{path} is damaged: its tensor {name!r} is of another kind than {words}"
            )
        if name == "vectors":
            least = 0 if header.stored else 1
            if len(shape) != 2 or shape[0] < least or shape[1] != d_model:
                raise FileError(
                    f"{path} is damaged: its vectors have shape {_short(shape)}, not [any,"
                    f" {d_model}]"
                )
        elif name == "patches":
            if len(shape) != 1:
                raise FileError(
                    f"{path} is damaged: its patches have shape {_short(shape)}, not [any]"
                )
        elif shape != expected:
            raise FileError(
                f"{path} is damaged: its {name} {'have' if name[-1] == 's' else 'has'} shape"
                f" {_short(shape)}, not {expected}"
            )


def _short(values: list[Any]) -> str:
    """A list in an error message, cut to a bounded length."""
    text = str(values)
    return text if len(text) <= 200 else f"{text[:200]}..."


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
