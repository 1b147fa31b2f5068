"""Vectors against steps: what a text costs in 2, 3, 5, 9 or 17 vectors, by length and arrangement. One row a passage.

    python scripts/map_front.py --texts file:books_val.parquet --rows results/front/rows.jsonl
    python scripts/map_front.py --report results/front/*.jsonl

The second command writes the tables of results/front/README.md and its picture, from the rows alone. Rows are appended as they
are solved, and what is there already is not run again, so a killed run goes on where it was. Each solution is decoded before it
is counted. Of a length at which none of the first `TRIAL` passages is exact no more are run, and longer ones with these vectors
are not tried. `--estimate` tells what the whole map costs by the forecast, and does nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import prototokens as pt
from fit_rows import about, fit_rows
from pages import put_between
from prototokens.lab.report import percent_interval
from prototokens.lab.texts import Texts
from prototokens.planning.forecast import Forecaster
from row_files import Row, RowFile, read_rows

KEY = ("fingerprint", "dtype", "layout", "recipe", "seed", "source", "length", "ids_sha256")
TRIAL = 2
LAYOUTS = ["paper", "mixed:2", "mixed:4", "mixed:8", "mixed:16"]
FORECAST = Path(__file__).parents[1] / "src/prototokens/planning/forecast.json"
MARKS = {  # between which the page's tables are written
    "front": ("<!-- the front: made by scripts/map_front.py -->", "<!-- end of the front -->"),
    "forecast": ("<!-- the forecast: made by scripts/map_front.py -->", "<!-- end of the forecast -->"),
}


def jobs(lm: pt.FrozenLM, texts: Texts, args: argparse.Namespace, layout: str, length: int) -> list[tuple[list[int], Row]]:
    """The passages of one cell, each with what is known of its row before the fit."""
    recipe, source = pt.Recipe.named(args.recipe, steps=args.steps), texts.source.split("/")[-1]
    return [
        (ids := list(one.ids), about(lm, ids, layout, recipe, args.seed, source=source, passage=one.id))
        for one in texts.passages(args.passages, length)
    ]


def run(lm: pt.FrozenLM, args: argparse.Namespace) -> None:
    """Every cell that is not done, shortest first for each layout."""
    texts, rows = Texts(lm, [args.texts], args.seed), RowFile(args.rows, KEY)
    estimate = {"cells": 0, "row_steps": 0.0, "position_steps": 0.0}
    for layout in [pt.Layout.named(name).name for name in args.layouts]:
        for length in args.lengths:
            if lm.max_context is not None and length > lm.max_context:
                continue
            began = time.monotonic()
            cell = jobs(lm, texts, args, layout, length)
            if args.estimate:
                if not _estimate(lm, cell, estimate):
                    break
                continue
            for part in (cell[:TRIAL], cell):
                fit_rows(lm, part, rows)
                if not exact_of(cell, rows):
                    break
            exact = exact_of(cell, rows)
            words = f"{lm.name}, {layout}, {length} tokens: {exact} exact ({time.monotonic() - began:.0f} s)"
            print(words, file=sys.stderr, flush=True)
            if not exact:
                break
    if args.estimate:
        print(json.dumps({"model": lm.name, **{name: round(value) for name, value in estimate.items()}}))


def _estimate(lm: pt.FrozenLM, cell: list[tuple[list[int], Row]], total: dict[str, float]) -> bool:
    """Add what the forecast expects of a cell, finished or not; returns whether longer ones are worth a trial."""
    recipe = pt.Recipe.from_dict(cell[0][1]["recipe"])
    expect = Forecaster.of(lm, recipe)
    told = [expect(lm.surprisal(ids).double() / math.log(2), pt.Layout.named(row["layout"])) for ids, row in cell]
    hopeful = sum(one.exact for one in told) >= 0.5
    spent = sum(one.row_steps for one in (told if hopeful else told[:TRIAL]))
    total["cells"] += 1
    total["row_steps"] += spent
    total["position_steps"] += spent * cell[0][1]["length"]
    return hopeful


def exact_of(cell: list[tuple[list[int], Row]], rows: RowFile) -> int:
    """How many passages of a cell have an exact row."""
    wanted = {rows.key_of(row) for _, row in cell}
    return sum(row["exact"] for row in rows.rows if rows.key_of(row) in wanted)


Cell = tuple[str, int]


def grouped(rows: Iterable[dict]) -> dict[str, dict[Cell, list[dict]]]:
    """Heading -> (layout, tokens) -> rows; fewest vectors first."""
    out: dict[str, dict[Cell, list[dict]]] = {}
    for row in sorted(rows, key=lambda row: (row["vectors"], row["layout"], row["length"])):
        recipe = f"`{row['recipe']['name']}`, {row['recipe']['steps']:,} steps at most"
        model = f"{row['model']} (weights {row['fingerprint'][:8]}; {row['dtype']})"
        name = f"{model}, {row['source']}, {recipe}"
        out.setdefault(name, {}).setdefault((row["layout"], row["length"]), []).append(row)
    return out


def median_steps(rows: list[dict]) -> float | None:
    """The median over all rows, where those that are not exact take for ever; None where that is the median."""
    median = statistics.median(row["steps"] if row["exact"] else math.inf for row in rows)
    return median if math.isfinite(median) else None


def highest_steps(rows: list[dict], rank: float = 0.9) -> int | None:
    """The step count (nearest rank) at which that share of all rows is exact; None where fewer are."""
    steps = sorted(row["steps"] for row in rows if row["exact"])
    place = math.ceil(rank * len(rows)) - 1
    return steps[place] if place < len(steps) else None


def table(cells: dict[Cell, list[dict]]) -> list[str]:
    """One line a cell. Steps are over all passages: where fewer than half (nine in ten) are exact, there is no such number."""
    titles = ("layout", "vectors", "tokens", "floats a token", "bits a float", "exact", "95% interval of the share")
    titles += ("steps, median", "fewest to most", "90th percentile", "seconds a text")
    lines = ["| " + " | ".join(titles) + " |"]
    lines.append("|---|" + "---:|" * (len(titles) - 1))
    for (layout, length), rows in cells.items():
        solved = [row["steps"] for row in rows if row["exact"]]
        steps = [shown(median_steps(rows)), f"{min(solved):,}-{max(solved):,}" if solved else "-", shown(highest_steps(rows))]
        bits = statistics.mean(row["nats"] / math.log(2) / row["floats"] for row in rows)
        line = [
            f"`{layout}`",
            rows[0]["vectors"],
            length,
            f"{rows[0]['floats'] / length:.1f}",
            f"{bits:.2f}",
            f"{len(solved)} of {len(rows)}",
            percent_interval(len(solved), len(rows)),
            *steps,
            f"{statistics.median(row['seconds'] for row in rows):.1f}",
        ]
        lines.append("| " + " | ".join(map(str, line)) + " |")
    return lines


def shown(steps: float | None) -> str:
    """A number of steps, or a dash."""
    return "-" if steps is None else f"{steps:,g}" if steps < 1e5 else f"{steps:,.0f}"


def draw(groups: dict[str, dict[Cell, list[dict]]], path: Path) -> None:
    """Median steps against floats a token, one line for each layout; hollow where some are not exact."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "front"
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    vectors_of = {layout: rows[0]["vectors"] for cells in groups.values() for (layout, _), rows in cells.items()}
    every = sorted(vectors_of, key=lambda layout: (vectors_of[layout], layout))
    numbers = sorted(set(vectors_of.values()))
    shades = matplotlib.colormaps["viridis"]
    columns = min(2, len(groups))
    down = math.ceil(len(groups) / columns)
    figure, grid = pyplot.subplots(down, columns, figsize=(4.8 * columns, 3.8 * down), squeeze=False, layout="constrained")
    axes = grid.flatten()
    for spare in axes[len(groups) :]:
        spare.set_axis_off()
    for axis, (name, cells) in zip(axes, groups.items(), strict=False):
        for number, layout in enumerate(every):
            points = [
                (rows[0]["floats"] / length, steps, all(row["exact"] for row in rows), length)
                for (its_layout, length), rows in cells.items()
                if its_layout == layout and (steps := median_steps(rows)) is not None
            ]
            colour = shades(0.9 * numbers.index(vectors_of[layout]) / max(1, len(numbers) - 1))
            marker, style = "osD^vP*X"[number % 8], "--" if layout.startswith("tiled") else "-"
            if points:
                axis.plot([p[0] for p in points], [p[1] for p in points], marker, ls=style, lw=1, ms=0, color=colour)
            for floats, steps, whole, length in points:
                axis.plot(floats, steps, marker, ms=5, mec=colour, mfc=colour if whole else "white")
                axis.annotate(f"{length}", (floats, steps), textcoords="offset points", xytext=(4, 3), fontsize=6)
            axis.plot([], [], marker, ls=style, lw=1, color=colour, label=layout)
        axis.set(xscale="log", yscale="log", xlabel="floats a token (at the points: tokens)", ylabel="steps to exact, median")
        for one in (axis.xaxis, axis.yaxis):
            one.set_major_locator(LogLocator(subs=(1, 2, 5)))
            one.set_minor_locator(NullLocator())
            one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_title(name.replace("`", "").replace(", ", "\n", 1), fontsize=7)
        axis.grid(alpha=0.25, lw=0.5)
    axes[0].legend(title="layout", fontsize=7, title_fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def judged(recipes: dict[str, dict]) -> list[str]:
    """How good the shipped forecast is, as `fit_forecast.py` found on rows that were held out."""
    lines = ["| recipe | rows judged | rows in all | rank correlation | within a cell | steps off by, median |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    for recipe, values in recipes.items():
        parts = {"passages held out": values["held_out"]}
        parts |= {f"all of {name}, none of it seen": found for name, found in values["unseen_models"].items()}
        for name, found in parts.items():
            cells = [found["rank_correlation"], found["within"], found["steps_off_by_median"]]
            told = ["-" if cell is None else f"{cell:.2f}" for cell in cells]
            lines.append(f"| `{recipe}` | {name} | {found['rows']} | {told[0]} | {told[1]} | {told[2]}x |")
    return lines


def report(rows: list[dict], page: Path, picture: Path) -> None:
    """The tables into the page, between their marks, and the picture beside it."""
    groups = grouped(rows)
    front = [line for name, cells in groups.items() for line in ("", f"**{name}**", "", *table(cells))]
    forecast = ["", *judged(json.loads(FORECAST.read_text())["recipes"])]
    put_between(page, {MARKS["front"]: "\n".join(front[1:]), MARKS["forecast"]: "\n".join(forecast[1:])})
    draw(groups, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin", help="'builtin', a folder or a hub id")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device")
    parser.add_argument("--texts", default="sample", help="as the experiments take them: file:PATH, generated:SOURCE, ...")
    parser.add_argument("--layouts", nargs="+", default=LAYOUTS, help="arrangements of the vectors")
    parser.add_argument("--lengths", nargs="+", type=int, default=[16, 32, 64, 128, 256, 512], help="tokens, rising")
    parser.add_argument("--passages", type=int, default=8)
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, default=Path("results/front/rows.jsonl"))
    parser.add_argument("--estimate", action="store_true", help="what it would cost by the forecast; nothing is run")
    parser.add_argument(
        "--report", nargs="+", type=Path, help="write page and picture from these files of rows; nothing is run"
    )
    parser.add_argument("--page", type=Path, default=Path("results/front/README.md"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/front.svg"))
    args = parser.parse_args()
    if args.report:
        report([row for path in args.report for row in read_rows(path)], args.page, args.picture)
        return
    lm = pt.FrozenLM.from_pretrained(args.model, dtype=args.dtype, device=args.device)
    lm.name = Path(args.model).name
    run(lm, args)


if __name__ == "__main__":
    main()
