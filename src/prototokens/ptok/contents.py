"""What a `.ptok` file holds, read and checked as numpy arrays, without PyTorch.

Shapes are found sound before anything is read. docs/file-format.md describes the file byte by
byte; `ptok.stored` reads one whole, and `ptok.tensors` makes the tensors that are written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from prototokens._util import strict_json
from prototokens.engine.widths import GRID_BITS
from prototokens.errors import FileError
from prototokens.ptok.header import Header

# Bytes: of a few million tokens; as Python's objects they take forty times that at most.
MAX_HEADER = 1 << 24


def row_bytes(bits: int, d_model: int) -> int:
    """Bytes of one vector."""
    return -(-bits * d_model // 8)


def unpack_codes(
    codes: UInt8[np.ndarray, "bytes"],
    scale: Float32[np.ndarray, "distinct"],
    bits: Sequence[int],
    d_model: int,
) -> Float32[np.ndarray, "distinct d_model"]:
    """The vectors that `tensors.pack_codes` packed; on a grid, as `engine.grid.values_of`."""
    vectors, at = np.empty((len(bits), d_model), np.float32), 0
    for number, width in enumerate(bits):
        part = codes[at : at + row_bytes(width, d_model)]
        at += len(part)
        if width in GRID_BITS:
            flags = np.unpackbits(part, count=width * d_model, bitorder="little").reshape(
                d_model, width
            )
            levels = np.packbits(flags, axis=1, bitorder="little")[:, 0].astype(np.float32)
            with np.errstate(over="ignore"):  # a damaged scale; what is not finite is refused later
                vectors[number] = (2 * levels + 1 - np.float32(2**width)) * scale[number]
        else:
            vectors[number] = part.view("<f2" if width == 16 else "<f4").astype(np.float32)
    return vectors


def arrays_hash(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, kinds, shapes and bytes; kinds as PyTorch calls them."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} torch.{array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.tobytes())
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


def read_safetensors_header(handle: BinaryIO) -> Contents:
    """The header of an open safetensors file; no tensor is read, however large it is said to be.

    Raises:
        ValueError: it is no such file, its header names a key twice, or its length is not what the
            header needs.
        OSError: it cannot be read.
    """
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    stated = int.from_bytes(handle.read(8), "little")
    if stated > MAX_HEADER and stated > size:
        # Of a text that was renamed, the first letters read as a number would say nothing to
        # anybody.
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
