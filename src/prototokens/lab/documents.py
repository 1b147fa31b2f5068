"""Documents of a text source, one after the other.

Files, columns of tables, data sets on the hub, the package's stories.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from prototokens import samples
from prototokens.errors import MissingExtraError, TextError, UsageError

ROWS_READ = 16  # of a Parquet file at a time: a book each, perhaps
COLUMN = "text"  # where none is named


class Document(NamedTuple):
    """A text, and what passages of it are called by: the same wherever the source lies."""

    name: str
    text: str


def documents(source: str) -> Iterator[Document]:
    """The documents of a source, read as they are needed.

    A source is `sample`, `file:PATH[:COLUMN]` or `hub:ID[@REVISION]:COLUMN[:SPLIT]`.

    Raises:
        UsageError: a source that says too little.
        TextError: what it names is not there, or cannot be read.
        MissingExtraError: reading it takes a library that is not installed.
    """
    kind, _, rest = source.partition(":")
    if kind == "hub":
        return _hub(source, rest)
    if kind == "file":
        return _files(source, rest)
    return iter([Document(f"sample:{name}", text) for name, text in samples.stories().items()])


def slices(text: str, most: int) -> Iterator[str]:
    """A text cut at spaces into pieces of at most `most` characters."""
    start = 0
    while start < len(text):
        end = min(start + most, len(text))
        space = text.rfind(" ", start, end) if end < len(text) else -1
        end = space if space > start else end
        yield text[start:end]
        start = end


def _files(source: str, rest: str) -> Iterator[Document]:
    path, column = Path(rest), None
    if not path.exists() and ":" in rest:
        location, _, column = rest.rpartition(":")
        path = Path(location)
    if not rest or not path.exists():
        raise TextError(
            f"texts {source!r}: {path if rest else 'no file'} does not exist; file:PATH or"
            " file:PATH:COLUMN is expected"
        )
    paths = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    known = [one for one in paths if one.suffix in (".txt", ".md", ".parquet", ".jsonl")]
    paths = known if path.is_dir() else paths
    if not paths:
        raise TextError(f"texts {source!r}: the folder holds no .txt, .md, .parquet or .jsonl file")
    return chain.from_iterable(_file(one, column) for one in paths)


def _file(path: Path, column: str | None) -> Iterator[Document]:
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path, column or COLUMN)
        elif path.suffix in (".jsonl", ".json"):
            yield from _json_lines(path, column or COLUMN)
        elif column is not None:
            raise UsageError(
                f"{path} is plain text and has no column {column!r}: columns are of .parquet and"
                " .jsonl files"
            )
        else:
            yield Document(path.name, path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(
            f"{path} cannot be read as text ({getattr(error, 'strerror', None) or error})"
        ) from error


def _parquet(path: Path, column: str) -> Iterator[Document]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: reading Parquet takes pyarrow: pip install 'prototokens[data]'"
        ) from error
    try:
        table = pyarrow.parquet.ParquetFile(path)
        if column not in table.schema_arrow.names:
            raise TextError(
                f"{path} has no column {column!r}: it has {', '.join(table.schema_arrow.names)};"
                " name one: file:PATH:COLUMN"
            )
        number = 0
        for batch in table.iter_batches(batch_size=ROWS_READ, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield from _text(f"{path.name}#{number}", value)
                number += 1
    except pyarrow.ArrowException as error:
        raise TextError(f"{path} is no readable Parquet file ({error})") from error


def _json_lines(path: Path, column: str) -> Iterator[Document]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                raise TextError(f"{path}, line {number + 1}, is no JSON ({error})") from error
            if not isinstance(value, dict) or column not in value:
                has = f"has {', '.join(value)}" if isinstance(value, dict) else "is no object"
                raise TextError(
                    f"{path}, line {number + 1}, has no {column!r}: it {has}; name a key:"
                    " file:PATH:COLUMN"
                )
            yield from _text(f"{path.name}#{number}", value[column])


def _hub(source: str, rest: str) -> Iterator[Document]:
    parts = rest.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(
            f"texts {source!r}: hub:ID[@REVISION]:COLUMN[:SPLIT] is expected,"
            " hub:emozilla/pg19:text for example"
        )
    location, column, split = parts[0], parts[1], parts[2] if len(parts) == 3 else "train"
    name, _, revision = location.partition("@")
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise MissingExtraError(
            f"texts {source!r}: the library datasets is needed: pip install 'prototokens[data]'"
        ) from error
    try:
        rows: Iterable[Any] = datasets.load_dataset(
            name, revision=revision or None, split=split, streaming=True
        )
    except Exception as error:
        raise TextError(
            f"texts {source!r}: the data set could not be opened ({_line(error)})"
        ) from error
    return _hub_rows(source, f"{location}:{split}", column, rows)


def _hub_rows(source: str, name: str, column: str, rows: Iterable[Any]) -> Iterator[Document]:
    try:
        for number, row in enumerate(rows):
            if column not in row:
                raise TextError(
                    f"texts {source!r}: there is no column {column!r}, there are {', '.join(row)}"
                )
            yield from _text(f"{name}#{number}", row[column])
    except TextError:
        raise
    except Exception as error:
        raise TextError(f"texts {source!r}: reading stopped ({_line(error)})") from error


def _text(name: str, value: Any) -> Iterator[Document]:
    """A cell's text; an empty cell has none."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TextError(f"{name} is {type(value).__name__}, not text: name a column of texts")
    yield Document(name, value)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
