"""The header of a `.ptok` file: its values by name, to and from JSON.

Files are untrusted input: the header is validated, or rejected with a message that names the key,
what was expected there and what was found. docs/file-format.md describes every key.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prototokens._util import strict_json
from prototokens._util.json_fields import (
    Fields,
    MismatchError,
    count,
    flag,
    list_of,
    nullable,
    number,
    object_of,
    string,
)
from prototokens.engine.widths import GRID_BITS, WIDTHS
from prototokens.errors import FileError, UsageError
from prototokens.keys import VERSION
from prototokens.layout import Layout, recorded
from prototokens.ptok.records import (
    MAX_WIDTH,
    CertificateRecord,
    ModelRecord,
    TextRecord,
    present,
)

# The newest format that is read. A file is written in the lowest that has all it needs: 2 came with
# patches, stored chunks, edits and few bits; 3 with prefixes.
FORMAT = 3
MAX_CHUNK_LENGTH = 1 << 20  # tokens


@dataclass(frozen=True)
class Header:
    """What is recorded beside the vectors; keys as in docs/file-format.md.

    Attributes:
        layout: name of the arrangement of every chunk; `arrangement` is the object.
        keys: version of the rule of the keys; 0 for a layout without keys.
        prefix: token ids that stand before the vectors of every chunk.
        chunks: length of each, in tokens.
        shared: the vector that all chunks share; None for none.
        chunks_exact: whether each came out from its vectors alone; so, for each, `steps`, `seeds`
            and `restarts`.
        recipe: its name and its values.
        certificate: None in files of earlier versions.
        versions: of this package and of its libraries.
        stored: numbers of the chunks that are stored as tokens.
        patched: tokens that patches set; edited: bytes that edits drop and insert.
        bits: of a number of each vector; None where all are float32.
        sizes: of the text in other forms, in bytes.
        tensors_sha256: hash of the tensors; None before the file is written.
        other: values that this version does not know.
    """

    format: int
    model: ModelRecord
    tokenizer: str
    layout: str
    chunks: tuple[int, ...]
    text: TextRecord
    exact: bool
    accuracy: float
    min_margin: float | None
    row_steps: float
    recipe: dict[str, Any]
    versions: dict[str, Any]
    certificate: CertificateRecord | None = None
    keys: int = 0
    prefix: tuple[int, ...] = ()
    shared: str | None = None
    chunks_exact: tuple[bool, ...] = ()
    steps: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    restarts: tuple[int, ...] = ()
    stored: tuple[int, ...] = ()
    patched: int = 0
    edited: int = 0
    bits: tuple[int, ...] | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    tensors_sha256: str | None = None
    other: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def parse(values: Any) -> Header:
        """Read and validate a header.

        Raises:
            MismatchError: a key that decoding needs is missing, or a value is of another kind.
        """
        fields = Fields(values)
        chunks = fields.take("chunks", list_of(count(1, MAX_CHUNK_LENGTH)))
        header = Header(
            format=fields.take("format", count(1, FORMAT)),
            model=fields.take("model", ModelRecord.parse),
            tokenizer=fields.take("tokenizer", string),
            layout=fields.take("layout", _layout_name),
            chunks=chunks,
            text=fields.take("text", TextRecord.parse),
            exact=fields.take("exact", flag),
            accuracy=fields.take("accuracy", number),
            min_margin=fields.take("min_margin", nullable(number)),
            row_steps=fields.take("row_steps", number),
            recipe=fields.take("recipe", _with_strings("name")),
            versions=fields.take("versions", _with_strings("prototokens", "torch")),
            certificate=fields.take("certificate", CertificateRecord.parse, None),
            keys=fields.take("keys", count(0, VERSION), 0),
            prefix=fields.take("prefix", list_of(count(0, MAX_WIDTH - 1), MAX_CHUNK_LENGTH), ()),
            shared=fields.take("shared", nullable(string), None),
            chunks_exact=fields.take("chunks_exact", list_of(flag), ()),
            steps=fields.take("steps", list_of(count()), ()),
            seeds=fields.take("seeds", list_of(_seed), ()),
            restarts=fields.take("restarts", list_of(count()), ()),
            stored=fields.take("stored", list_of(count(0, len(chunks) - 1)), ()),
            patched=fields.take("patched", count(), 0),
            edited=fields.take("edited", count(), 0),
            bits=fields.take("bits", list_of(_width), None),
            sizes=fields.take("sizes", object_of(count()), {}),
            tensors_sha256=fields.take("tensors_sha256", nullable(string), None),
            other=fields.rest,
        )
        _check_together(header, values)
        return header

    @property
    def arrangement(self) -> Layout:
        """The layout of every chunk, behind its prefix."""
        return recorded(self.layout, self.prefix)

    def vector_bits(self, vectors: int) -> int:
        """Bits of so many vectors in the file, the scales of their grids among them."""
        widths, d_model = self.bits or [32] * vectors, self.model.d_model
        return sum(width * d_model + 32 * (width in GRID_BITS) for width in widths)

    def as_json(self) -> dict[str, Any]:
        """As it is written: what a file has none of is left out."""
        helped = self.stored or self.patched or self.edited
        return {
            "format": self.format,
            "model": self.model.as_json(),
            "tokenizer": self.tokenizer,
            "layout": self.layout,
            "shared": self.shared,
            "chunks": list(self.chunks),
            "text": self.text.as_json(),
            "exact": self.exact,
            "chunks_exact": list(self.chunks_exact),
            "accuracy": self.accuracy,
            "min_margin": self.min_margin,
            "steps": list(self.steps),
            "row_steps": self.row_steps,
            "seeds": list(self.seeds),
            "restarts": list(self.restarts),
            "recipe": self.recipe,
            "versions": self.versions,
            **present(
                certificate=self.certificate and self.certificate.as_json(),
                stored=list(self.stored) if helped else None,
                patched=self.patched if helped else None,
                edited=self.edited if helped else None,
                keys=self.keys or None,
                prefix=list(self.prefix) or None,
                bits=list(self.bits) if self.bits else None,
                sizes=self.sizes or None,
                tensors_sha256=self.tensors_sha256,
            ),
            **self.other,
        }


def write_header(values: dict[str, Any]) -> dict[str, str]:
    """The metadata of a safetensors file that hold a header, with the hash of it.

    Args:
        values: as `Header.as_json` gives them.
    """
    text = json.dumps(
        values, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return {"prototokens": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def read_header(metadata: dict[str, str], path: Path) -> Header:
    """The header in the metadata of a safetensors file, as it was saved.

    Raises:
        FileError: there is none, it is damaged, or of a newer format.
    """
    text = metadata.get("prototokens")
    if text is None:
        raise FileError(
            f"{path} is a safetensors file, but not one of prototokens: it has no header of ours"
        )
    try:
        values = strict_json.loads(text, parse_float=_finite, parse_constant=_finite)
        version, keys = values["format"], values.get("keys", 0)
    except strict_json.RepeatedKeyError as error:
        raise FileError(f"{path} is damaged: its header {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(f"{path} is damaged: its header cannot be read") from error
    if type(version) is int and version > FORMAT:
        raise FileError(
            f"{path} has format {str(version)[:20]}, and this version reads up to {FORMAT}: install"
            " a newer prototokens"
        )
    if type(keys) is int and keys > VERSION:
        raise FileError(
            f"{path} has keys of version {str(keys)[:20]}, and this version knows up to {VERSION}:"
            " install a newer prototokens"
        )
    if metadata.get("sha256") != hashlib.sha256(text.encode()).hexdigest():
        raise FileError(f"{path} is damaged: its header is not the one that was saved")
    try:
        return Header.parse(values)
    except MismatchError as error:
        raise FileError(f"{path} is damaged: its header {error}") from error


def _check_together(header: Header, values: dict[str, Any]) -> None:
    """Refuse values that contradict each other.

    Raises:
        MismatchError: a sum that is another, or a value that the format or the layout excludes.
    """
    if not header.chunks:
        raise MismatchError("chunks", "a list of at least 1", [])
    if sum(header.chunks) != header.text.tokens:
        raise MismatchError("text.tokens", "the sum of 'chunks'", header.text.tokens)
    if len(set(header.stored)) < len(header.stored):
        raise MismatchError("stored", "a list of different numbers", list(header.stored))
    if header.keys != (expected := header.arrangement.key_version):
        raise MismatchError("keys", f"{expected}, for layout {header.layout!r}", header.keys)
    for key, since in {"stored": 2, "bits": 2, "patched": 2, "edited": 2, "prefix": 3}.items():
        if key in values and header.format < since:
            raise MismatchError("format", f"at least {since}, for {key!r}", header.format)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _layout_name(value: Any, path: str) -> str:
    try:
        Layout.named(string(value, path))
    except UsageError as error:
        raise MismatchError(path, "the name of a layout", value) from error
    return value


def _width(value: Any, path: str) -> int:
    if type(value) is not int or value not in WIDTHS:
        raise MismatchError(path, f"one of {', '.join(map(str, WIDTHS))}", value)
    return value


def _seed(value: Any, path: str) -> int:
    if type(value) is not int:
        raise MismatchError(path, "a whole number", value)
    return value


def _with_strings(*names: str) -> Any:
    """An object with a string under each of these names, and anything beside."""

    def check(value: Any, path: str) -> dict[str, Any]:
        fields = Fields(value, path)
        for name in names:
            fields.take(name, string)
        return value

    return check
