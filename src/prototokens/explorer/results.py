"""The tab Results: rows as tables that sort, and the plots of their reports.

They come from the folders that the page was given; the package has some of its own.

Reading only, and nothing but files that were found inside those folders: a name that comes from a
browser is looked up among them and never opened as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from prototokens._util.words import counted
from prototokens.errors import UsageError
from prototokens.explorer import show
from prototokens.explorer.tables import (
    DIGITS,
    MAX_BYTES,
    MAX_LETTERS,
    MAX_ROWS,
    Table,
    arranged,
    kinds,
    read,
    shipped,
    widths,
)
from prototokens.explorer.work import Desk, show_errors_in

TABLES, PICTURES, REPORTS = (".jsonl", ".csv"), (".png",), (".md",)
MAX_PICTURES = 12
SHOWS = "Measured rows as tables, with the report and the pictures that were made from them."
MATTERS = (
    "Every figure of a report can be traced to the runs behind it: sort, filter, and see what"
    " varied and what was alike."
)


def tab(desk: Desk) -> ResultsTab:
    """Build it."""
    made = ResultsTab(desk)
    made.connect()
    return made


class ResultsTab:
    """The elements of the tab, and what its list and its button do."""

    def __init__(self, desk: Desk) -> None:
        self.folders = desk.settings.results
        gr.HTML(show.lead(SHOWS, MATTERS))
        if not self.folders:
            gr.HTML(
                show.note(
                    "These are the package's own. Start the page with --results FOLDER to read the"
                    " rows and reports of a folder here."
                )
            )
        with gr.Row():
            self.chosen = gr.Dropdown(
                self.names(), value=None, label="Rows", elem_id="results-file", scale=3
            )
            self.refresh = gr.Button("Look for new files", elem_id="results-refresh", scale=1)
        self.message = gr.HTML(elem_id="results-message")
        self.about = gr.HTML(elem_id="results-about")
        self.rows = gr.Dataframe(
            interactive=False,
            elem_id="results-rows",
            max_height=460,
            show_search="filter",
            wrap=False,
            visible=False,
            max_chars=MAX_LETTERS,
            pinned_columns=1,
        )
        self.report = gr.Markdown(elem_id="results-report")
        self.plots = gr.HTML(elem_id="results-plots")
        self.outputs = [self.message, self.rows, self.about, self.report, self.plots]

    def connect(self) -> None:
        """Let the list and the button call the handlers."""
        self.chosen.change(
            show_errors_in(self.message)(self.open_file),
            self.chosen,
            self.outputs,
            api_visibility="private",
        )
        self.refresh.click(self.again, None, self.chosen, api_visibility="private")

    def names(self) -> list[str]:
        """What can be chosen: the files of the folders, then the tables of the package."""
        return [*_files(self.folders, TABLES), *shipped()]

    def open(self, chosen: str | None) -> str | None:
        """What is chosen where nothing is: a table of a report, else the first."""
        names = self.names()
        if chosen in names:
            return chosen
        return next((name for name in names if name.endswith(".csv")), next(iter(names), None))

    def open_file(self, name: str | None) -> dict[Any, Any]:
        """Show a table, with the report and the pictures beside it."""
        if not name:
            hidden = gr.Dataframe(visible=False)
            return {self.rows: hidden, self.about: "", self.report: "", self.plots: ""}
        own = shipped()
        path = None if name in own else _find(self.folders, name, TABLES)
        table = arranged(*(own[name] if path is None else read(path)))
        return {
            self.rows: gr.Dataframe(
                {"headers": table.heads, "data": table.cells},
                datatype=kinds(table.heads, table.cells),
                column_widths=widths(table),
                visible=True,
            ),
            self.about: _about(name, table),
            self.report: "" if path is None else _report(self.folders, path),
            self.plots: "" if path is None else _plots(self.folders, path),
        }

    def again(self) -> Any:
        """The list of files, read again."""
        return gr.Dropdown(self.names())


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


def _find(folders: tuple[Path, ...], name: str, suffixes: tuple[str, ...]) -> Path:
    """The file of that name.

    Raises:
        UsageError: there is none in the folders.
    """
    path = _files(folders, suffixes).get(name)
    if path is None:
        raise UsageError(f"{name!r} is not among the files of the folders that this page was given")
    return path


def _about(name: str, table: Table) -> str:
    """What stands above a table: its size, how it is sorted, and what all its rows have alike."""
    shown = f", the first {MAX_ROWS:,} of them shown" if table.total > MAX_ROWS else ""
    note = show.note(
        f"{name}: {counted(table.total, 'row')}{shown}. Numbers are rounded to {DIGITS} digits."
        " The three dots in a column's head sort and filter by it; a touch shows the whole of a"
        " cell that was cut."
    )
    if not table.alike:
        return note
    return note + show.note(
        "All rows alike: " + "; ".join(f"{head} {value}" for head, value in table.alike.items())
    )


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
