"""Read the header of a GGUF file and validate every number in it before a library sees the file.

A GGUF file is untrusted input. The libraries that read GGUF files trust their counts and lengths: a
file of a few bytes can make them loop for hours or allocate terabytes. Here each count is compared
with the size of the file, so that reading takes time and memory proportional to the header, and an
invalid file is rejected with a message of one sentence. `lm.gguf_model` loads the weights.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prototokens.errors import ModelError
from prototokens.lm.local import GGUF_MAGIC

VERSIONS = (2, 3)
STRING, ARRAY = 8, 9  # the two kinds of value whose size is not fixed
# The other kinds of value, as formats of `struct`: unsigned and signed integers of 8 to 64 bits,
# two floats, and a boolean.
NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
VOCABULARY = "tokenizer.ggml."
TOKENS = VOCABULARY + "tokens"

# These limits are far above what any model needs, and low enough that an invalid file is rejected
# quickly.
MAX_KEYS = 10_000
MAX_TENSORS = 100_000
MAX_BLOCKS = 1_000
MAX_DIMENSIONS = 4
MAX_SHORT_ARRAY = 65_536  # numbers in an array outside the vocabulary
MAX_VOCABULARY = 2_000_000  # tokens, or merges; Gemma 3 has 262,144 tokens and 514,906 merges
MAX_NAME = 65_535  # bytes of a key
MAX_TEXT = 16 << 20  # bytes of one value
MAX_TOKEN = 1_024  # bytes of a token: the time to build a tokenizer grows with its square
# Sum of the squares of the tokens' lengths; it is 2 ** 25 for the 262,144 tokens of Gemma 3.
MAX_TOKEN_SQUARES = 1 << 30


class Value(NamedTuple):
    """One entry of the metadata.

    Attributes:
        kind: the format's number for the type of the value.
        item: the kind of an array's items; None for other values.
        content: a number, a text, or a list of either; None for an array of the vocabulary.
        count: number of an array's items; 1 for other values.
    """

    kind: int
    item: int | None
    content: Any
    count: int


class Stored(NamedTuple):
    """The location and the format of one tensor in the file.

    Attributes:
        name: the format's own name, such as "blk.0.attn_q.weight".
        shape: in PyTorch's order, with the last index contiguous.
        kind: GGML's code of the number format: 0 is float32, 1 float16, 30 bfloat16, and most
            others are quantised.
        offset: position of the first byte in the file.
        size: in bytes.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int


@dataclass(frozen=True)
class Header:
    """The validated header of a GGUF file.

    Attributes:
        path: the file.
        metadata: values by key.
        tensors: in the order of the file.
    """

    path: Path
    metadata: dict[str, Value]
    tensors: tuple[Stored, ...]

    @property
    def architecture(self) -> str:
        """Name of the model family in llama.cpp, such as "llama" or "gemma3"."""
        return self.metadata["general.architecture"].content

    @property
    def vocabulary(self) -> int:
        """Number of tokens of the tokenizer."""
        return self.metadata[TOKENS].count

    @property
    def elements(self) -> int:
        """Number of elements of all tensors together."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def kinds(self) -> set[int]:
        """The number formats that the tensors have."""
        return {tensor.kind for tensor in self.tensors}


class _InvalidError(Exception):
    """The file is damaged; the text becomes part of the message for the user."""


class _UnusableError(Exception):
    """A valid file that cannot be used as a model; the text follows its name in a message."""


def read_header(path: Path, name: str, blocks: dict[int, tuple[int, int]]) -> Header:
    """Read and validate the header of a GGUF file; the weights are not read.

    Args:
        path: a file that exists.
        name: what the user called the model, for messages.
        blocks: for each number format, the numbers in a block and the bytes of a block.

    Raises:
        ModelError: the file is not a GGUF file, is cut short or damaged, or exceeds the limits of
            this module.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                raise ModelError(
                    f"{name!r} is not a GGUF file: it does not begin with the letters GGUF"
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Reader(content, blocks).header(path)
    except OSError as error:
        raise ModelError(f"{name!r} cannot be read: {error.strerror or error}") from error
    except struct.error as error:
        raise ModelError(
            f"{name!r} is cut short: its header goes on beyond the end of the file"
        ) from error
    except _InvalidError as error:
        raise ModelError(
            f"{name!r} is damaged or is no model in the GGUF format: {error}"
        ) from error
    except _UnusableError as error:
        raise ModelError(f"{name!r} {error}") from error


class _Reader:
    """Reads a file from its beginning; every method raises `_InvalidError` at an invalid value."""

    def __init__(self, content: mmap.mmap, blocks: dict[int, tuple[int, int]]) -> None:
        self.content, self.size, self.blocks = content, len(content), blocks
        self.position = len(GGUF_MAGIC)

    def header(self, path: Path) -> Header:
        (version,) = self._numbers("I")
        if version not in VERSIONS:
            raise _InvalidError(f"it states version {version}, and versions 2 and 3 can be read")
        tensors, keys = self._numbers("QQ")
        if tensors > MAX_TENSORS or keys > MAX_KEYS:
            raise _InvalidError(f"it announces {tensors} tensors and {keys} keys")
        metadata = self._metadata(keys)
        _check_metadata(metadata)
        return Header(path, metadata, self._tensors(tensors, metadata))

    def _metadata(self, keys: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(keys):
            key = self._text(MAX_NAME)
            if key in metadata:
                raise _InvalidError(f"its key {key[:80]!r} is there twice")
            (kind,) = self._numbers("I")
            metadata[key] = (
                self._array(key) if kind == ARRAY else Value(kind, None, self._single(kind), 1)
            )
        return metadata

    def _single(self, kind: int) -> Any:
        if kind == STRING:
            return self._text(MAX_TEXT)
        if kind not in NUMBERS:
            raise _InvalidError(f"a value of its metadata is of an unknown kind, {kind}")
        return self._numbers(NUMBERS[kind])[0]

    def _array(self, key: str) -> Value:
        item, count = self._numbers("IQ")
        if item != STRING and item not in NUMBERS:
            raise _InvalidError(f"the array {key[:80]!r} holds items of an unknown kind, {item}")
        if key.startswith(VOCABULARY):
            self._skip(key, item, count)
            return Value(ARRAY, item, None, count)
        if count > MAX_SHORT_ARRAY:
            raise _InvalidError(f"the array {key[:80]!r} announces {count} items")
        if item == STRING:
            return Value(ARRAY, item, [self._text(MAX_TEXT) for _ in range(count)], count)
        return Value(ARRAY, item, list(self._numbers(f"{count}{NUMBERS[item]}")), count)

    def _skip(self, key: str, item: int, count: int) -> None:
        """Skip an array of the vocabulary: transformers reads the tokenizer from the file later."""
        if count > MAX_VOCABULARY:
            raise _InvalidError(f"its vocabulary announces {count} items in {key!r}")
        if item != STRING:
            self._advance(count * struct.calcsize("<" + NUMBERS[item]))
            return
        read_length, position, squares = struct.Struct("<Q").unpack_from, self.position, 0
        for _ in range(count):
            (length,) = read_length(self.content, position)
            if length > MAX_TOKEN:
                raise _InvalidError(f"its vocabulary has an item of {length} bytes in {key!r}")
            position += 8 + length
            squares += length * length
        if squares > MAX_TOKEN_SQUARES:
            raise _InvalidError(f"the items of its vocabulary in {key!r} are too long on the whole")
        self.position = position
        self._advance(0)

    def _tensors(self, count: int, metadata: dict[str, Value]) -> tuple[Stored, ...]:
        entries = [self._entry() for _ in range(count)]
        if len({name for name, *_ in entries}) < len(entries):
            raise _InvalidError("two of its tensors have one name")
        alignment = metadata["general.alignment"].content if "general.alignment" in metadata else 32
        if (
            not isinstance(alignment, int)
            or alignment < 1
            or alignment & (alignment - 1)
            or alignment > self.size
        ):
            raise _InvalidError(
                f"it states an alignment of {str(alignment)[:20]}, which is no power of two"
            )
        begin = -(-self.position // alignment) * alignment
        tensors = tuple(
            Stored(name, shape, kind, begin + offset, self._bytes(name, shape, kind))
            for name, shape, kind, offset in entries
        )
        for tensor in tensors:
            if tensor.offset + tensor.size > self.size:
                raise _InvalidError(
                    f"it is cut short: the tensor {tensor.name[:80]!r} ends beyond the file"
                )
        if sum(tensor.size for tensor in tensors) > self.size - begin:
            raise _InvalidError("its tensors overlap")
        return tensors

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text(MAX_NAME)
        (dimensions,) = self._numbers("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise _InvalidError(f"the tensor {name[:80]!r} has {dimensions} dimensions")
        shape = self._numbers(f"{dimensions}Q")[::-1]
        kind, offset = self._numbers("IQ")
        return name, shape, kind, offset

    def _bytes(self, name: str, shape: tuple[int, ...], kind: int) -> int:
        if kind not in self.blocks:
            raise _InvalidError(f"the tensor {name[:80]!r} is in an unknown number format, {kind}")
        numbers, size = self.blocks[kind]
        if 0 in shape or shape[-1] % numbers:
            raise _InvalidError(
                f"the tensor {name[:80]!r} of shape {shape} does not fit its number format"
            )
        return math.prod(shape) // numbers * size

    def _numbers(self, form: str) -> tuple[Any, ...]:
        numbers = struct.unpack_from("<" + form, self.content, self.position)
        self.position += struct.calcsize("<" + form)
        return numbers

    def _text(self, max_length: int) -> str:
        (length,) = self._numbers("Q")
        if length > max_length:
            raise _InvalidError(
                f"it has a text of {length} bytes where at most {max_length} can be"
            )
        begin = self.position
        self._advance(length)
        try:
            return self.content[begin : self.position].decode()
        except UnicodeDecodeError as error:
            raise _InvalidError("one of its texts is not UTF-8") from error

    def _advance(self, count: int) -> None:
        self.position += count
        if self.position > self.size:
            raise _InvalidError("it is cut short: its header goes on beyond the end of the file")


def _check_metadata(metadata: dict[str, Value]) -> None:
    """Check that the metadata has what every model needs, within the limits.

    Raises:
        _InvalidError: a value is missing or out of range.
        _UnusableError: the file is one part of a model, or has no tokenizer.
    """
    architecture = metadata.get("general.architecture")
    if architecture is None or not re.fullmatch(r"[a-z0-9_.-]{1,64}", str(architecture.content)):
        raise _InvalidError("it does not state its architecture (general.architecture)")
    if (parts := _number(metadata, "split.count", 1)) > 1:
        raise _UnusableError(
            f"is one of {parts} parts of a model: join them with `llama-gguf-split --merge`"
        )
    if (blocks := _number(metadata, f"{architecture.content}.block_count", 1)) > MAX_BLOCKS:
        raise _InvalidError(f"it announces {blocks} layers")
    if (
        TOKENS not in metadata
        or not metadata[TOKENS].count
        or "tokenizer.ggml.model" not in metadata
    ):
        raise _UnusableError(
            "holds no tokenizer: convert the model again together with its tokenizer"
        )
    vocabulary = metadata[TOKENS].count
    for key in metadata:
        if (
            key.startswith(VOCABULARY)
            and key.endswith("_token_id")
            and not 0 <= _number(metadata, key, 0) < vocabulary
        ):
            raise _InvalidError(
                f"{key} is {metadata[key].content}, and there are {vocabulary} tokens"
            )


def _number(metadata: dict[str, Value], key: str, default: int) -> int:
    value = metadata[key].content if key in metadata else default
    if not isinstance(value, int):
        raise _InvalidError(f"{key} is {str(value)[:40]!r}, and a whole number is needed")
    return value
