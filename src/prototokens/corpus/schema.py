"""The columns of a shard: Parquet that other libraries read, vectors in the type that is stored.

A row's vectors are one list of fixed size, `vectors * d_model` numbers, the first vector first. As
int8, number c of a vector with scale s stands for (2 c + 1) s: a grid of 256 levels
(`engine.grid`), without a level at zero.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from prototokens._util.extras import need
from prototokens.engine.grid import Grid, levels_of, values_of
from prototokens.errors import FileError, UsageError

VERSION = 1  # of the folder's form: columns, names of files, meta.json
METADATA = b"prototokens"  # the key of a shard's own facts in its schema
LEVELS = 256  # of the grid of int8
PLAIN = ("source", "document", "certificate")  # columns of few different values


class Shape(NamedTuple):
    """Of a row's vectors: their number, their width, and the type they are stored in."""

    vectors: int
    d_model: int
    values: str


class Rows(NamedTuple):
    """Rows that are ready to be stored, column by column.

    Attributes:
        columns: plain values by the name of their column.
        vectors: of each row, `[vectors, d_model]`, as they were scored.
        grids: of each row, that its vectors lie on; empty but for int8.
    """

    columns: dict[str, list[Any]]
    vectors: list[Float32[Tensor, "vectors d_model"]]
    grids: list[Grid]


def arrow() -> Any:
    """The library pyarrow.

    Raises:
        MissingExtraError: it is not installed.
    """
    return need("pyarrow", "data", "a corpus")


def parquet() -> Any:
    """Its module for Parquet.

    Raises:
        MissingExtraError: it is not installed.
    """
    arrow()
    return need("pyarrow.parquet", "data", "a corpus")


def schema_of(shape: Shape) -> Any:
    """The Arrow schema of a shard."""
    pa = arrow()
    stored = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8()}[shape.values]
    fields = [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("document", pa.string()),
        ("part", pa.int32()),
        ("parts", pa.int32()),
        ("verbatim", pa.bool_()),
        ("text", pa.string()),
        ("ids", pa.list_(pa.int32())),
        ("vectors", pa.list_(stored, shape.vectors * shape.d_model)),
    ]
    if shape.values == "int8":
        fields.append(("scales", pa.list_(pa.float32(), shape.vectors)))
    fields += [
        ("correct", pa.int32()),
        ("margin", pa.float32()),
        ("steps", pa.int32()),
        ("row_steps", pa.int32()),
        ("exact", pa.bool_()),
        ("certificate", pa.string()),
    ]
    return pa.schema(fields)


def to_parquet(shape: Shape, rows: Rows, facts: Mapping[str, Any]) -> bytes:
    """A shard's file.

    Args:
        facts: of the shard, kept in its schema as JSON.
    """
    pa = arrow()
    schema = schema_of(shape).with_metadata({METADATA: json.dumps(facts).encode()})
    columns = dict(rows.columns)
    numbers = torch.stack(rows.vectors)
    if shape.values == "int8":
        codes = [
            levels_of(one, *grid).sub_(LEVELS // 2)
            for one, grid in zip(rows.vectors, rows.grids, strict=True)
        ]
        columns["scales"] = _fixed(torch.stack([grid.scale for grid in rows.grids]).numpy())
        columns["vectors"] = _fixed(torch.stack(codes).flatten(1).numpy().astype(np.int8))
    else:
        columns["vectors"] = _fixed(numbers.flatten(1).numpy().astype(shape.values))
    arrays = [
        columns[field.name]
        if not isinstance(columns[field.name], list)
        else pa.array(columns[field.name], field.type)
        for field in schema
    ]
    sink = io.BytesIO()
    parquet().write_table(
        pa.Table.from_arrays(arrays, schema=schema),
        sink,
        compression="zstd",
        use_dictionary=list(PLAIN),
        write_page_checksum=True,
    )
    return sink.getvalue()


def _fixed(numbers: np.ndarray) -> Any:
    """A column of lists of one size."""
    pa = arrow()
    flat = np.ascontiguousarray(numbers).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), numbers.shape[1])


def vectors_of(table: Any, shape: Shape) -> Float32[Tensor, "rows vectors d_model"]:
    """The vectors of rows that were read, as they were scored."""
    stored = _numbers(table.column("vectors"), shape.values)
    form = (table.num_rows, shape.vectors, shape.d_model)
    numbers = torch.from_numpy(stored.astype(np.float32)).view(form)
    if shape.values != "int8":
        return numbers
    scales = torch.from_numpy(_numbers(table.column("scales"), "float32").copy())
    codes = numbers.flatten(0, 1).add_(LEVELS // 2)
    levels = torch.full((len(codes),), float(LEVELS))
    return values_of(codes, scales, levels).view(form)


def _numbers(column: Any, dtype: str) -> np.ndarray:
    """All numbers of a column of lists."""
    flat = column.combine_chunks().flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False)).astype(dtype, copy=False)


def read_facts(path: Any) -> dict[str, Any]:
    """What a shard says of itself, from its footer alone.

    Raises:
        FileError: it is no shard.
    """
    pa = arrow()
    try:
        metadata = parquet().read_schema(path).metadata or {}
        return json.loads(metadata[METADATA])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise damaged(path, error) from error


def read_table(path: Any, shape: Shape, columns: list[str] | None = None) -> Any:
    """The rows of a shard, or some of their columns.

    Raises:
        FileError: it is damaged, or has other columns than a shard.
    """
    pa = arrow()
    try:
        with parquet().ParquetFile(path, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(schema_of(shape)):
                raise FileError(
                    f"{path} has other columns than its folder's meta.json says: it is of another"
                    " run; delete it, and the command that made the folder makes it again"
                )
            return file.read(columns)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: Any, error: Any) -> FileError:
    """The error of a shard that cannot be read."""
    words = " ".join(str(error).split())[:200]
    return FileError(
        f"{path} is damaged ({words}): delete it, and the command that made the folder makes it"
        " again"
    )


def check_version(version: int, where: Any) -> None:
    """Refuse a folder of another form.

    Raises:
        UsageError: it is newer than this version of the package knows.
    """
    if version != VERSION:
        raise UsageError(
            f"{where} has form {version} of a corpus, and this version of prototokens reads form"
            f" {VERSION}: upgrade prototokens to the version that made it, or a later one"
        )
