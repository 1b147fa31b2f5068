"""What an experiment reports: tables, figures and what a reader must know of them.

And how that is written to a folder.

Reports are made from rows alone, and compute nothing but summaries: means, intervals, counts.
"""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prototokens.measure.metrics import clopper_pearson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_TEXTS = 20  # of a source, below which a report gives no ground for a verdict


@dataclass(frozen=True)
class Table:
    """A table: Markdown for people, CSV for programs.

    Attributes:
        name: of the CSV file, without its suffix.
        columns: heads.
        rows: cells: text as it is; numbers whole in the CSV, to three digits in Markdown; None is a
            dash.
        caption: one line above it, or "".
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    def markdown(self) -> str:
        lines = [self.caption, ""] if self.caption else []
        lines += ["| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        lines += ["| " + " | ".join(_shown(cell) for cell in row) + " |" for row in self.rows]
        return "\n".join(lines)

    def csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return out.getvalue()


@dataclass(frozen=True)
class Report:
    """An experiment's outcome.

    Attributes:
        title: the experiment's.
        notes: lines a reader must know: numbers of texts and seeds, misses, what was left out.
        tables: at least one, where there are rows.
        figures: name -> matplotlib figure; each becomes NAME.png and NAME.svg.
    """

    title: str
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)

    def markdown(self) -> str:
        parts = [f"# {self.title}", *(f"- {note}" for note in self.notes)]
        head = parts[0] + "\n\n" + "\n".join(parts[1:])
        pictures = [f"![{name}]({name}.svg)" for name in self.figures]
        return (
            "\n\n".join([head.rstrip(), *(table.markdown() for table in self.tables), *pictures])
            + "\n"
        )

    def save(self, folder: Path) -> list[Path]:
        """Write report.md, NAME.csv for each table, NAME.png and NAME.svg for each figure.

        Returns the files.

        Where the folder has a README.md with marks for the tables (`fill`), they go there, and no
        report.md is written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = {f"{table.name}.csv": table.csv() for table in self.tables}
        if not fill(folder / "README.md", self.tables):
            files = {"report.md": self.markdown(), **files}
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name, figure in self.figures.items():
            for suffix in ("png", "svg"):
                save_figure(figure, folder / f"{name}.{suffix}")
        pictures = [f"{name}.{suffix}" for name in self.figures for suffix in ("png", "svg")]
        return [folder / name for name in [*files, *pictures]]


def fill(page: Path, tables: Sequence[Table]) -> bool:
    """Write tables into a page of prose, each between its marks.

    Returns whether the page has any such marks.

    Between `<!-- NAME: made by ... -->` and `<!-- end of NAME -->` goes the table of that name, or
    those named NAME-1, NAME-2, with an empty line between two: without it, Markdown takes a caption
    for one more row of the table before it.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    found = False
    for name in dict.fromkeys(re.sub(r"-\d+$", "", table.name) for table in tables):
        made = [
            table.markdown()
            for table in tables
            if re.fullmatch(rf"{re.escape(name)}(-\d+)?", table.name)
        ]
        marks = re.compile(
            rf"(<!-- {re.escape(name)}: made by [^>]* -->\n).*?(<!-- end of {re.escape(name)} -->)",
            re.DOTALL,
        )
        text, count = marks.subn(
            lambda mark, made=made: "\n\n".join([mark[1].rstrip(), *made, mark[2]]), text
        )
        found = found or count > 0
    if found:
        page.write_text(text, encoding="utf-8")
    return found


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure so that the same rows give the same file.

    No date in it, and ids that do not depend on chance.
    """
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, as the paper prints them."""
    return (
        f"{_shown(float(np.mean(values)))} ± {_shown(float(np.std(values)))}"
        if len(values)
        else "-"
    )


def share(successes: int, trials: int) -> str:
    """A share as reports print it: its count, and its exact 95% interval in per cent.

    The interval is that of Clopper and Pearson (1934).
    """
    return f"{successes} of {trials} {percent_interval(successes, trials)}" if trials else "0 of 0"


def percent_interval(successes: int, trials: int) -> str:
    """The exact 95% interval of a share, in per cent: `[86.3, 99.5]%`."""
    _, low, high = clopper_pearson(successes, trials)
    return f"[{100 * low:.1f}, {100 * high:.1f}]%"


def size_notes(count: int, of: str = "texts") -> list[str]:
    """The note that a report of few texts (or contexts) needs: its verdicts are open.

    Nothing where there are enough.
    """
    if count >= MIN_TEXTS:
        return []
    return [
        f"{count} {of} of a source at most: a verdict needs at least {MIN_TEXTS}, so these rows"
        " leave it open"
    ]


def most_of_a_source(rows: Sequence[dict[str, Any]]) -> int:
    """The number of texts of the source that has most of them."""
    texts: dict[Any, set[str]] = {}
    for row in rows:
        texts.setdefault(row.get("source"), set()).add(row["text"])
    return max((len(some) for some in texts.values()), default=0)


def layouts_of(rows: Sequence[Mapping[str, Any]], own: Sequence[str]) -> list[str]:
    """The layouts that rows have, the experiment's own in its order before the user's."""
    found = dict.fromkeys(row["layout"] for row in rows)
    return [layout for layout in own if layout in found] + [
        layout for layout in found if layout not in own
    ]


def median_steps(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The median over all rows, one that is not exact counting as infinite.

    None where that is the median.
    """
    median = statistics.median(row["steps"] if row["exact"] else math.inf for row in rows)
    return median if math.isfinite(median) else None


def high_steps(rows: Sequence[Mapping[str, Any]], rank: float = 0.9) -> int | None:
    """The steps (nearest rank) after which that share of all rows is exact.

    None where fewer ever are.
    """
    steps = sorted(row["steps"] for row in rows if row["exact"])
    index = math.ceil(rank * len(rows)) - 1
    return steps[index] if index < len(steps) else None


def _shown(cell: Any) -> str:
    """A cell for people."""
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return "-"
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return str(cell).replace("|", "\\|")
