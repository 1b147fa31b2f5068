"""The tab Results: the rows of the folders that the page was given, as tables that sort, and the plots of their reports.

Reading only, and nothing but files that were found inside those folders: a name that comes from a browser is looked up among
them and never opened as it is.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import gradio as gr

from prototokens.errors import FileError, UsageError
from prototokens.explorer import show
from prototokens.explorer.work import Desk, told

TABLES, PICTURES, REPORTS = (".jsonl", ".csv"), (".png",), (".md",)
MOST_BYTES = 16 << 20
MOST_ROWS = 5000
MOST_PICTURES = 12


def tab(desk: Desk) -> None:
    """Build it."""
    folders = desk.settings.results
    if not folders:
        gr.HTML(show.note("No folder was given: start the page with --results FOLDER to read its rows and reports here."))
        return
    tables = _names(folders, TABLES)
    with gr.Row():
        chosen = gr.Dropdown(tables, value=None, label="Rows", elem_id="results-file", scale=3)
        refresh = gr.Button("Look for new files", elem_id="results-refresh", scale=1)
    said = gr.HTML(elem_id="results-said")
    about = gr.HTML(elem_id="results-about")
    rows = gr.Dataframe(
        interactive=False, elem_id="results-rows", max_height=460, show_search="filter", wrap=False, visible=False
    )
    report = gr.Markdown(elem_id="results-report")
    plots = gr.HTML(elem_id="results-plots")

    @told(said)
    def open_file(name: str | None) -> dict[Any, Any]:
        if not name:
            return {rows: gr.Dataframe(visible=False), about: "", report: "", plots: ""}
        path = _find(folders, name, TABLES)
        heads, cells, total = _read(path)
        shown = f"{total:,} rows" + (f", the first {MOST_ROWS:,} of them shown" if total > MOST_ROWS else "")
        return {
            rows: gr.Dataframe({"headers": heads, "data": cells}, datatype=_kinds(heads, cells), visible=True),
            about: show.note(f"{name}: {shown}"),
            report: _report(folders, path),
            plots: _plots(folders, path),
        }

    def again() -> dict[str, Any]:
        return gr.Dropdown(_names(folders, TABLES))  # pyright: ignore[reportReturnType]

    chosen.change(open_file, chosen, [said, rows, about, report, plots], api_visibility="private")
    refresh.click(again, None, chosen, api_visibility="private")


def _files(folders: tuple[Path, ...], suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Every such file inside the folders, by the name it is chosen with; links that lead out of them are left out."""
    found = {}
    for folder in folders:
        root = folder.resolve()
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in suffixes and path.is_file() and path.resolve().is_relative_to(root):
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
    if path.stat().st_size > MOST_BYTES:
        raise FileError(
            f"{path.name} has {path.stat().st_size / 2**20:.0f} MiB, and tables of at most {MOST_BYTES >> 20} are read"
        )
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".csv":
            lines = [line for line in csv.reader(text.splitlines()) if line]
            heads, cells = (lines[0], lines[1:]) if lines else ([], [])
            return heads, [[_number(cell) for cell in row] for row in cells[:MOST_ROWS]], len(cells)
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no object")
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise FileError(
            f"{path.name} is no table that can be read here: JSON objects, one a line, or CSV is expected"
        ) from error
    rows = [_flat(row) for row in rows]
    heads = list(dict.fromkeys(key for row in rows for key in row))
    return heads, [[row.get(head, "") for head in heads] for row in rows[:MOST_ROWS]], len(rows)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row with one value a cell: an object's members get cells of their own, a list stays as JSON."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": each for inner, each in _flat(value).items()})
        else:
            flat[key] = json.dumps(value) if isinstance(value, list) or value is None else value
    return flat


def _number(cell: str) -> Any:
    """A cell of CSV as a number where it is one, so that it sorts as one."""
    try:
        return float(cell)
    except ValueError:
        return cell


def _kinds(heads: list[str], cells: list[list[Any]]) -> list[Any]:
    """For each column, whether it holds numbers, and so sorts by them."""
    columns = zip(*cells, strict=False) if cells else [()] * len(heads)
    return ["number" if column and all(type(cell) in (int, float) for cell in column) else "str" for column in columns]


def _beside(folders: tuple[Path, ...], path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files in the folder of `path`, or in a folder below it."""
    return [found for found in _files(folders, suffixes).values() if found.is_relative_to(path.parent)]


def _report(folders: tuple[Path, ...], path: Path) -> str:
    """The report beside the rows, its pictures left out: they are shown below it."""
    for found in _beside(folders, path, REPORTS):
        if found.name in ("report.md", "README.md") and found.stat().st_size <= MOST_BYTES:
            lines = found.read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join(line for line in lines if not line.startswith("!["))
    return ""


def _plots(folders: tuple[Path, ...], path: Path) -> str:
    found = [each for each in _beside(folders, path, PICTURES) if each.stat().st_size <= MOST_BYTES][:MOST_PICTURES]
    return "".join(show.note(each.name) + show.image(each.read_bytes(), each.stem) for each in found)
