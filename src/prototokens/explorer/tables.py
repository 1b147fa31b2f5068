"""Tables of results: rows read from files, columns in an order, numbers rounded."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from prototokens.encoder.encoder import SHIPPED
from prototokens.errors import FileError

MAX_BYTES = 16 << 20
MAX_ROWS = 5000
MAX_LETTERS = 20  # of a cell; a touch shows the whole
LETTER = 8  # pixels of one
DIGITS = 4  # that a number is rounded to: what counts in a measurement
# What identifies a row, in this order: it stands before the rest.
FIRST = (
    "what",
    "variant",
    "trial",
    "name",
    "recipe.name",
    "length",
    "tokens",
    "tokens_seen",
    "exact",
    "solved",
    "accuracy",
    "steps",
    "correct",
    "margin",
    "layout",
    "bits",
    "rule",
    "text",
    "passage",
    "chunk",
    "row_steps",
    "seconds",
)
HASH = re.compile("[0-9a-f]{32,}")
LONG_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


class Table(NamedTuple):
    """Rows as the page shows them.

    Attributes:
        heads: of the columns.
        cells: of each row; None where a row has nothing.
        alike: what all rows have alike, by its name.
        total: how many rows there are, shown or not.
    """

    heads: list[str]
    cells: list[list[Any]]
    alike: dict[str, str]
    total: int


def read(path: Path) -> tuple[list[str], list[list[Any]], int]:
    """(heads, cells, number of rows): of JSON lines or of CSV.

    Raises:
        FileError: too large, unreadable, or no such rows.
    """
    if path.stat().st_size > MAX_BYTES:
        raise FileError(
            f"{path.name} has {path.stat().st_size / 2**20:.0f} MiB, and tables of at most"
            f" {MAX_BYTES >> 20} are read"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line]
            heads, cells = (lines[0], lines[1:]) if lines else ([], [])
            return heads, [[_number(cell) for cell in row] for row in cells[:MAX_ROWS]], len(cells)
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no object")
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise FileError(
            f"{path.name} is no table that can be read here: JSON objects, one a line, or CSV is"
            " expected"
        ) from error
    return _columns(rows)


def shipped() -> dict[str, tuple[list[str], list[list[Any]], int]]:
    """Tables that every installation has: how the encoders of the package do on held-out texts."""
    found = {}
    for path in sorted(SHIPPED.glob("*/config.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))["held_out"]["rows"]
        found[f"prototokens: encoder {path.parent.name}, held-out texts"] = _columns(rows)
    return found


def _columns(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]], int]:
    rows = [_flat(row) for row in rows]
    heads = list(dict.fromkeys(key for row in rows for key in row))
    return heads, [[row.get(head, "") for head in heads] for row in rows[:MAX_ROWS]], len(rows)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row with one value a cell.

    An object's members get cells of their own, a list stays as JSON, null leaves it empty.
    """
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": each for inner, each in _flat(value).items()})
        else:
            flat[key] = (
                json.dumps(value) if isinstance(value, list) else "" if value is None else value
            )
    return flat


def _number(cell: str) -> Any:
    """A cell of CSV as a number where it is one, so that it sorts as one."""
    try:
        return float(cell)
    except ValueError:
        return cell


def rounded(cell: Any) -> Any:
    """A number with `DIGITS` digits, and a whole one without a point; a list of them too."""
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return str(cell)
        if cell == round(cell) and abs(cell) < 10**15:
            return int(cell)
        return float(f"{cell:.{DIGITS}g}") if abs(cell) < 10**DIGITS else round(cell)
    if isinstance(cell, str) and cell.startswith("["):
        return LONG_NUMBER.sub(lambda found: f"{float(found[0]):.{DIGITS}g}", cell)
    return cell


def arranged(heads: list[str], cells: list[list[Any]], total: int) -> Table:
    """What tells rows apart first, hashes last, and what all have alike in no column at all.

    One row has nothing alike.
    """
    columns = {
        head: [row[number] if number < len(row) else "" for row in cells]
        for number, head in enumerate(heads)
    }
    same = {
        head
        for head, column in columns.items()
        if len(column) > 1 and len({*map(repr, column)}) == 1
    }
    alike = {
        head: _shortened(str(rounded(columns[head][0])))
        for head in heads
        if head in same and columns[head][0] != ""
    }
    kept = sorted(
        (head for head in heads if head not in same), key=lambda head: _rank(head, columns[head])
    )
    shown = [
        [None if (cell := columns[head][row]) == "" else rounded(cell) for head in kept]
        for row in range(len(cells))
    ]
    return Table(kept, shown, alike, total)


def _rank(head: str, column: list[Any]) -> int:
    """Where a column stands: those of `FIRST`, by their whole name or as what is measured.

    Then the rest; then hashes.
    """
    if any(isinstance(cell, str) and HASH.fullmatch(cell) for cell in column):
        return len(FIRST) + 1
    of_a_recipe, own = head.startswith("recipe."), head.rpartition(".")[2]
    name = head if head in FIRST or of_a_recipe else own
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _shortened(value: str) -> str:
    """A hash by its beginning, anything else as it is."""
    return f"{value[:12]}…" if HASH.fullmatch(value) else value


def kinds(heads: list[str], cells: list[list[Any]]) -> list[Any]:
    """For each column, whether it holds numbers, and so sorts by them.

    What a row lacks makes them no text.
    """
    found = []
    for number in range(len(heads)):
        there = [row[number] for row in cells if row[number] is not None]
        found.append(
            "number" if there and all(type(cell) in (int, float) for cell in there) else "str"
        )
    return found


def widths(table: Table) -> list[str | int]:
    """As wide as the longest cell, or as the longest word of the name and its three dots."""
    found = []
    for number, head in enumerate(table.heads):
        word = max(map(len, re.split("[ _.]", head)), default=0)
        cells = (table.cells[row][number] for row in range(min(len(table.cells), 100)))
        cell = max((len(str(cell)) for cell in cells if cell is not None), default=0)
        found.append(f"{max(LETTER * word + 50, LETTER * min(cell, MAX_LETTERS + 3) + 22)}px")
    return found
