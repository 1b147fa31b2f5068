"""A `.ptok` file as it is stored: read whole and checked, without a model and without PyTorch.

Files are untrusted input. Everything that can be checked without the model is checked here, and
`EncodedText.load` makes tensors of what comes out.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32
from safetensors import SafetensorError
from safetensors.numpy import load

from prototokens.errors import FileError
from prototokens.ptok.contents import (
    arrays_hash,
    check_declared,
    read_safetensors_header,
    unpack_codes,
)
from prototokens.ptok.header import Header, read_header
from prototokens.ptok.patches import Extras, pack, unpack

SUFFIX = ".ptok"


class StoredText(NamedTuple):
    """The content of a file; as `EncodedText`, in numpy arrays.

    Attributes:
        vectors: the distinct vectors of all chunks.
        slots: for each chunk, the rows of `vectors` that are its proto-tokens.
        header: what is recorded beside them.
        extras: patches, stored chunks and edits.
        scale: of each vector's grid; None where all are float32.
    """

    vectors: Float32[np.ndarray, "distinct d_model"]
    slots: Int32[np.ndarray, "chunks vectors"]
    header: Header
    extras: Extras
    scale: Float32[np.ndarray, "distinct"] | None

    @property
    def bits(self) -> int:
        """Bits of all vectors in the file, the scales of their grids among them."""
        return self.header.vector_bits(len(self.vectors))

    @property
    def patch_bytes(self) -> int:
        """Bytes of patches, stored chunks and edits in the file."""
        return len(pack(self.extras, len(self.header.chunks))) if self.extras else 0


def read_stored(path: Path) -> StoredText:
    """Read a file and check all that can be checked without the model.

    Raises:
        FileError: missing, not such a file, damaged, not finite, or of a newer format.
    """
    header, arrays = _read(path)
    if header.tensors_sha256 != arrays_hash(arrays):
        raise FileError(f"{path} is damaged: its vectors are not the ones that were saved")
    scale = arrays.get("scale")
    if scale is None or header.bits is None:
        vectors = arrays["vectors"]
    else:
        vectors = unpack_codes(arrays["codes"], scale, header.bits, header.model.d_model)
    if not np.isfinite(vectors).all():
        raise FileError(f"{path} holds numbers that are not finite: no text can be decoded from it")
    slots, extras = arrays["slots"], _extras(header, arrays, path)
    used = slots[[number not in extras.stored for number in range(len(slots))]]
    if used.size and (int(used.min()) < 0 or int(used.max()) >= vectors.shape[0]):
        raise FileError(f"{path} is damaged: a chunk names a vector that is not there")
    return StoredText(vectors, slots, header, extras, scale)


def _read(path: Path) -> tuple[Header, dict[str, np.ndarray]]:
    """The header, and the arrays that it needs.

    The file is read here and not opened by its name, as safetensors takes only names that are
    UTF-8.

    Raises:
        FileError: missing, no such file, or damaged.
    """
    try:
        if not path.is_file():
            raise FileError(_no_file(path))
        with path.open("rb") as handle:
            contents = read_safetensors_header(handle)
            header = read_header(contents.metadata, path)
            check_declared(contents.declared, header, path)
            handle.seek(0)
            return header, load(handle.read(contents.size))
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error})") from error
    except (SafetensorError, ValueError, MemoryError) as error:
        raise FileError(
            f"{path} is not a whole {SUFFIX} file ({_first_line(error)}): it is truncated,"
            " altered or not one"
        ) from error


def _extras(header: Header, arrays: dict[str, np.ndarray], path: Path) -> Extras:
    """Patches, stored chunks and edits of a file.

    Raises:
        FileError: they are damaged.
    """
    stored = header.stored
    if "patches" not in arrays:
        if stored:
            raise FileError(f"{path} is damaged: chunks are stored as tokens, and there are none")
        return Extras()
    try:
        return unpack(arrays["patches"].tobytes(), header.chunks, stored, header.text.bytes)
    except ValueError as error:
        raise FileError(f"{path} is damaged: {error}") from error


def _no_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder, and a {SUFFIX} file was expected"
    return (
        f"{path} is no regular file: a {SUFFIX} file was expected"
        if path.exists()
        else f"{path} does not exist"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
