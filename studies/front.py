"""Vectors against steps: what a text costs in 2, 3, 5, 9 or 17 vectors. One row a passage.

    prototokens reproduce studies/front.py --texts file:books_val.parquet --scale paper \
        --steps 1000 --out results/front
    prototokens reproduce studies/front.py --from-rows --out results/front

Every solution is decoded before it is counted. Of a length at which none of the first `TRIAL`
passages is exact, no more are run, and longer ones are not tried with these vectors. The rows are
also what `scripts/artefacts/fit_forecast.py` fits the forecast of steps to. Rows with
`tokens_seen` are of snapshots of a training run; they are drawn as a figure of their own.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from prototokens.engine.decode import decode_ids
from prototokens.lab.job import Config, Fit, Job, Row, Run
from prototokens.lab.plots import COLOURS, MARKERS, Panel, Series, lines, panels
from prototokens.lab.report import Report, Table, high_steps, median_steps, percent_interval
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.planning.chunks import VECTORS
from prototokens.solution import Solution

TITLE = "Vectors against steps"
KEYED = tuple(f"keyed:{count}" for count in VECTORS)
LAYOUTS = ("paper", "mixed:4", *KEYED)
LENGTHS = (16, 32, 64, 128, 256, 512)
TRIAL = 2
DRAWN = 4  # cells of a group, at least, that is drawn
COLUMNS = (
    "layout",
    "vectors",
    "tokens",
    "floats a token",
    "bits a float",
    "exact",
    "95% interval of the share",
    "accuracy",
    "steps, median",
    "fewest to most",
    "90th percentile",
)
CAPTION = (
    "steps are over all passages: where fewer than half (nine in ten) are exact, there is no such"
    " number"
)
Cell = tuple[str, int]  # layout, tokens


def jobs(config: Config) -> list[Job]:
    """One job for each layout, which goes up the lengths."""
    found = []
    for layout in config.layouts(LAYOUTS):
        lengths = config.lengths(config.pick(LENGTHS[:2], LENGTHS), layout)
        texts = tuple(config.texts.passages(config.count(4, 8), max(lengths)))
        work = sum(config.work(text, length, layout) for text in texts for length in lengths)
        found.append(
            Job(
                "front",
                config.model,
                texts,
                layout,
                config.recipe,
                config.seed,
                {"lengths": lengths},
                work,
            )
        )
    return found


def run(job: Job, lm: FrozenLM) -> Run:
    rows: list[Row] = []
    for length in job.values["lengths"]:
        cell: list[Row] = []
        for part in (job.texts[:TRIAL], job.texts[TRIAL:]):
            ids = [text.ids[:length] for text in part]
            fits = [
                Fit.one(one, layout=job.layout, recipe=job.recipe, seed=job.seed) for one in ids
            ]
            fitted = [solution for (solution,) in (yield fits)] if fits else []
            cell += [
                _row(lm, text.id, solution) for text, solution in zip(part, fitted, strict=True)
            ]
            if not any(row["exact"] for row in cell):
                break
        rows += cell
        if not any(row["exact"] for row in cell):
            break
    return rows


def report(rows: list[Row]) -> Report:
    groups = _grouped(rows)
    tables = [
        Table(f"front-{number}", COLUMNS, _cells(cells), name)
        for number, (name, cells) in enumerate(groups.items(), 1)
    ]
    snapshots = [row for row in rows if row.get("tokens_seen") is not None]
    figures = {"pretraining": _over_training(snapshots)} if snapshots else {}
    if len({row["layout"] for row in rows}) > 1:
        figures["front"] = _drawn(groups)
    return Report(title=TITLE, notes=[CAPTION], tables=tables, figures=figures)


def _row(lm: FrozenLM, passage: str, solution: Solution) -> Row:
    """What is measured of a passage: all that the forecast needs is in it."""
    ids = list(solution.ids)
    nats = lm.surprisal(ids).double()
    return {
        "passage": passage,
        "length": len(ids),
        "ids_sha256": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
        "exact": decode_ids(lm, [solution]).ids[0] == ids,  # what decodes, not what the fit says
        "correct": solution.correct,
        "steps": solution.row_steps - 1,  # of all attempts
        "row_steps": solution.row_steps,
        "margin": round(solution.margin, 5),
        "nats": round(float(nats.sum()), 4),
        "nats_max": round(float(nats.max()), 4),
        "nats_sd": round(float(nats.std(correction=0)), 4),
        "vectors": solution.protos.shape[0],
        "floats": solution.protos.numel(),
        "vocabulary": lm.vocab_size,
    }


def _grouped(rows: Sequence[Row]) -> dict[str, dict[Cell, list[Row]]]:
    """Heading -> (layout, tokens) -> rows; fewest vectors first."""
    out: dict[str, dict[Cell, list[Row]]] = {}
    order = sorted(
        rows,
        key=lambda row: (
            row.get("tokens_seen") or 0,
            row["model"],
            _vectors(row["layout"]),
            row["layout"],
            row["length"],
        ),
    )
    for row in order:
        seen = row.get("tokens_seen")
        model = f"{row['model']} (weights {row['fingerprint'][:8]}; {row['dtype']})"
        model += "" if seen is None else f" after {seen:,} training tokens"
        source = f", {row['source']}" if row.get("source") else ""
        recipe = f"recipe {row['recipe']['name']}, {row['recipe']['steps']:,} steps at most"
        name = f"{model}{source}, {recipe}"
        out.setdefault(name, {}).setdefault((row["layout"], row["length"]), []).append(row)
    return out


def _counted(rows: list[Row]) -> list[str]:
    """How many passages are exact, and the interval of their share."""
    exact = sum(row["exact"] for row in rows)
    return [f"{exact} of {len(rows)}", percent_interval(exact, len(rows))]


def _range(rows: list[Row]) -> str | None:
    """The fewest and the most steps of the exact passages."""
    steps = [row["steps"] for row in rows if row["exact"]]
    return f"{min(steps):,}-{max(steps):,}" if steps else None


def _vectors(layout: str) -> int:
    return Layout.named(layout).vectors


def _cells(cells: dict[Cell, list[Row]]) -> list[list]:
    """One line for each layout and length."""
    return [
        [
            layout,
            _vectors(layout),
            length,
            rows[0]["floats"] / length,
            statistics.mean(row["nats"] / math.log(2) / row["floats"] for row in rows),
            *_counted(rows),
            sum(row["correct"] for row in rows) / sum(row["length"] for row in rows),
            median_steps(rows),
            _range(rows),
            high_steps(rows),
        ]
        for (layout, length), rows in cells.items()
    ]


def _drawn(groups: dict[str, dict[Cell, list[Row]]]) -> Figure:
    """Median steps against floats a token, one line for each layout.

    Groups of few cells are in the tables alone.
    """
    groups = {name: cells for name, cells in groups.items() if len(cells) >= DRAWN} or groups
    layouts = {
        layout: _vectors(layout) for cells in groups.values() for (layout, _), rows in cells.items()
    }
    every = sorted(layouts, key=lambda layout: (layouts[layout], layout))

    def drawn(axes: Axes, cells: dict[Cell, list[Row]]) -> None:
        for number, layout in enumerate(every):
            points = [
                (rows[0]["floats"] / length, steps, all(row["exact"] for row in rows), length)
                for (own, length), rows in cells.items()
                if own == layout and (steps := median_steps(rows)) is not None
            ]
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            axes.plot(
                [point[0] for point in points], [point[1] for point in points], lw=1, color=colour
            )
            for floats, steps, whole, length in points:
                axes.plot(floats, steps, marker, ms=5, mec=colour, mfc=colour if whole else "white")
                axes.annotate(
                    f"{length}",
                    (floats, steps),
                    textcoords="offset points",
                    xytext=(4, 3),
                    fontsize=6,
                )
            axes.plot([], [], marker, color=colour, label=layout)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.legend(title="layout; hollow: not all exact", fontsize=7, title_fontsize=7)

    return panels(
        [
            (
                Panel(
                    _broken(name),
                    "floats a token (at the points: tokens)",
                    "steps to exact, median",
                    log_x=True,
                    log_y=True,
                ),
                lambda axes, cells=cells: drawn(axes, cells),
            )
            for name, cells in groups.items()
        ]
    )


def _broken(name: str) -> str:
    """A heading for a panel's title: the model, the source and the recipe on lines of their own."""
    model, *rest = name.split(", ")
    lines = [model, ", ".join(rest[:-2]), ", ".join(rest[-2:])]  # the recipe has a comma
    return "\n".join(line for line in lines if line)


def _over_training(rows: list[Row]) -> Figure:
    """Share of passages that are exact, against training tokens: a line for each length."""
    groups: dict[int, dict[int, list[bool]]] = {}
    for row in rows:
        groups.setdefault(row["length"], {}).setdefault(row["tokens_seen"], []).append(row["exact"])
    series = [
        Series(
            f"{length} tokens",
            [statistics.mean(exact) for _, exact in sorted(seen.items())],
            sorted(seen),
        )
        for length, seen in sorted(groups.items())
    ]
    first = min(row["tokens_seen"] for row in rows if row["tokens_seen"])
    title = f"Passages that two vectors reproduce, within {rows[0]['recipe']['steps']:,} steps"
    return lines(
        Panel(title, "training tokens", "share exact", log_x_from=first, y_range=(0, 1)), series
    )
