"""The tab Results: rows as tables that sort, and the plots of their reports.

They come from the folders that the page was given.

Reading only, and nothing but files that were found inside those folders: a name that comes from a
browser is looked up among them and never opened as it is.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from prototokens.errors import FileError, UsageError
from prototokens.explorer import show
from prototokens.explorer.work import Desk, show_errors_in

TABLES, PICTURES, REPORTS = (".jsonl", ".csv"), (".png",), (".md",)
MAX_BYTES = 16 << 20
MAX_ROWS = 5000
MAX_PICTURES = 12
MAX_LETTERS = 20  # of a cell; a touch shows the whole
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


def tab(desk: Desk) -> None:
    """Build it."""
    folders = desk.settings.results
    if not folders:
        gr.HTML(
            show.note(
                "No folder was given: start the page with --results FOLDER to read its rows and"
                " reports here."
            )
        )
        return
    tables = _names(folders, TABLES)
    with gr.Row():
        chosen = gr.Dropdown(tables, value=None, label="Rows", elem_id="results-file", scale=3)
        refresh = gr.Button("Look for new files", elem_id="results-refresh", scale=1)
    message = gr.HTML(elem_id="results-message")
    about = gr.HTML(elem_id="results-about")
    rows = gr.Dataframe(
        interactive=False,
        elem_id="results-rows",
        max_height=460,
        show_search="filter",
        wrap=False,
        visible=False,
        max_chars=MAX_LETTERS,
    )
    report = gr.Markdown(elem_id="results-report")
    plots = gr.HTML(elem_id="results-plots")

    @show_errors_in(message)
    def open_file(name: str | None) -> dict[Any, Any]:
        if not name:
            return {rows: gr.Dataframe(visible=False), about: "", report: "", plots: ""}
        path = _find(folders, name, TABLES)
        table = _arranged(*_read(path))
        return {
            rows: gr.Dataframe(
                {"headers": table.heads, "data": table.cells},
                datatype=_kinds(table.heads, table.cells),
                column_widths=_widths(table),
                visible=True,
            ),
            about: _about(name, table),
            report: _report(folders, path),
            plots: _plots(folders, path),
        }

    def again() -> dict[str, Any]:
        return gr.Dropdown(_names(folders, TABLES))  # pyright: ignore[reportReturnType]

    chosen.change(
        open_file, chosen, [message, rows, about, report, plots], api_visibility="private"
    )
    refresh.click(again, None, chosen, api_visibility="private")


def _files(folders: tuple[Path, ...], suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Every such file inside the folders, by the name it is chosen with.

    Links that lead out of them are left out.
    """
    found = {}
    for folder in folders:
        root = folder.resolve()
        for path in sorted(root.rglob("*")):
            if (
                path.suffix.lower() in suffixes
                and path.is_file()
                and path.resolve().is_relative_to(root)
            ):
                found[f"{folder.name or root.name}/{path.relative_to(root).as_posix()}"] = path
    return found


def _names(folders: tuple[Path, ...], suffixes: tuple[str, ...]) -> list[str]:
    return list(_files(folders, suffixes))


def _find(folders: tuple[Path, ...], name: str, suffixes: tuple[str, ...]) -> Path:
    """The file of that name.

    Raises:
        UsageError: there is none in the folders.
    """
    path = _files(folders, suffixes).get(name)
    if path is None:
        raise UsageError(f"{name!r} is not among the files of the folders that this page was given")
    return path


def _read(path: Path) -> tuple[list[str], list[list[Any]], int]:
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


def _arranged(heads: list[str], cells: list[list[Any]], total: int) -> Table:
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
        head: _shortened(str(columns[head][0]))
        for head in heads
        if head in same and columns[head][0] != ""
    }
    kept = sorted(
        (head for head in heads if head not in same), key=lambda head: _rank(head, columns[head])
    )
    shown = [
        [None if (cell := columns[head][row]) == "" else cell for head in kept]
        for row in range(len(cells))
    ]
    return Table(kept, shown, alike, total)


def _widths(table: Table) -> list[str | int]:
    """As wide as the longest cell, or as the name with the three dots that stand beside it."""
    letters = [len(head) + 3 for head in table.heads]
    for row in table.cells[:100]:
        letters = [
            max(most, min(MAX_LETTERS + 3, len(str(cell))))
            for most, cell in zip(letters, row, strict=True)
        ]
    return [f"{9 * most + 20}px" for most in letters]


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


def _about(name: str, table: Table) -> str:
    """What stands above a table: its size, how it is sorted, and what all its rows have alike."""
    shown = f", the first {MAX_ROWS:,} of them shown" if table.total > MAX_ROWS else ""
    note = show.note(
        f"{name}: {table.total:,} rows{shown}. The three dots in a column's head sort and filter by"
        " it;"
        " a touch shows the whole of a cell that was cut."
    )
    if not table.alike:
        return note
    return note + show.note(
        "All rows alike: " + "; ".join(f"{head} {value}" for head, value in table.alike.items())
    )


def _kinds(heads: list[str], cells: list[list[Any]]) -> list[Any]:
    """For each column, whether it holds numbers, and so sorts by them.

    What a row lacks makes them no text.
    """
    kinds = []
    for number in range(len(heads)):
        there = [row[number] for row in cells if row[number] is not None]
        kinds.append(
            "number" if there and all(type(cell) in (int, float) for cell in there) else "str"
        )
    return kinds


def _beside(folders: tuple[Path, ...], path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files in the folder of `path`, or in a folder below it."""
    return [
        found for found in _files(folders, suffixes).values() if found.is_relative_to(path.parent)
    ]


def _report(folders: tuple[Path, ...], path: Path) -> str:
    """The reports of the rows, their pictures left out: they are shown below.

    They are those in the rows' folder and below it, each with its path where there are several;
    where there is none, those of the nearest folder above that has one.
    """
    every = [
        found
        for found in _files(folders, REPORTS).values()
        if found.name in ("report.md", "README.md")
    ]
    every = [found for found in every if found.stat().st_size <= MAX_BYTES]
    reports = [found for found in every if found.is_relative_to(path.parent)]
    for above in path.parent.parents:
        reports = reports or [found for found in every if found.parent == above]
    if len(reports) == 1:
        return _words(reports[0])
    return "\n\n".join(f"`{_place(found, path)}`\n\n{_words(found)}" for found in reports)


def _place(report: Path, rows: Path) -> str:
    """Where a report lies, as seen from the rows."""
    inside = report.is_relative_to(rows.parent)
    return report.relative_to(rows.parent).as_posix() if inside else report.name


def _words(report: Path) -> str:
    lines = report.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(line for line in lines if not line.startswith("!["))


def _plots(folders: tuple[Path, ...], path: Path) -> str:
    """The pictures beside the rows; a note says where there are more."""
    found = [each for each in _beside(folders, path, PICTURES) if each.stat().st_size <= MAX_BYTES]
    left = (
        f"{MAX_PICTURES} of {len(found)} pictures are shown." if len(found) > MAX_PICTURES else ""
    )
    shown = "".join(
        show.note(each.name) + show.image(each.read_bytes(), each.stem)
        for each in found[:MAX_PICTURES]
    )
    return (show.note(left) if left else "") + shown
