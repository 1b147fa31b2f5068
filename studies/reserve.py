"""How far margins of certified solutions fall when decoded otherwise, as by other instruction sets.

    prototokens reproduce studies/reserve.py --texts file:books_val.parquet --dtype float32 \
        --scale paper --steps 2000 --out results/reserve
    prototokens reproduce studies/reserve.py --from-rows --out results/reserve
    python scripts/artefacts/fit_reserve.py        # the constant of the package, from these rows

Texts are fitted until the margin that the standard certificate asks for, go through a file, and are
decoded in every cell of the strict matrix. A row is a text: the movement that was measured on
vectors at random (`shift`), the least margin as the model itself decodes, and how far that fell in
the ways of this process (`fall`) and under each setting of the instruction set (`falls`). `moved`
is the largest movement of any position between a setting and this process, all else alike: what the
instruction set alone does.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from prototokens.encoding import certified_recipe
from prototokens.engine.certify import cells_of, threshold
from prototokens.engine.matrix import Tried, margins, run_cells
from prototokens.lab.job import Config, Fit, Job, Row, Run
from prototokens.lab.report import Report, Table, share
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure.quantiles import quantile_interval
from prototokens.ptok.encoded import EncodedText
from prototokens.solution import Solution

TITLE = "How far margins fall in other ways of decoding"
LAYOUTS = {  # layout -> tokens, texts
    "keyed:2": (32, 150),
    "paper": (16, 150),
    "mixed:4": (32, 100),
    "tiled:4": (32, 100),
    "keyed:5": (96, 40),
}
SHARES = (0.5, 0.9, 0.99)
FALLS = (
    "model",
    "dtype",
    "layout",
    "tokens",
    "solved",
    "wrong somewhere",
    "movement at random",
    *(f"{share:.0%} fall by at most" for share in SHARES),
    "most",
)
SETTINGS = ("setting", "decoded in", "texts", "wrong", "most moved", "as a share of the movement")


def jobs(config: Config) -> list[Job]:
    found = []
    for layout in config.layouts(list(LAYOUTS)):
        length, count = LAYOUTS.get(layout, (32, 100))
        recipe = certified_recipe(config.texts.lm, config.recipe, "standard", Layout.named(layout))
        for tokens in config.lengths([length], layout):
            texts = tuple(config.texts.passages(config.count(4, count), tokens))
            work = sum(config.work(text, tokens, layout) for text in texts)
            found.append(Job("reserve", config.model, texts, layout, recipe, config.seed, {}, work))
    return found


def run(job: Job, lm: FrozenLM) -> Run:
    fits = [
        Fit.one(text.ids, layout=job.layout, recipe=job.recipe, seed=job.seed) for text in job.texts
    ]
    fitted = [solution for (solution,) in (yield fits)]
    solved = [number for number, solution in enumerate(fitted) if solution.exact]
    saved = _through_a_file(lm, [fitted[number] for number in solved], job.recipe) if solved else []
    own = margins(lm, saved) if saved else []
    cells = run_cells(lm, saved, cells_of(lm, "strict")) if saved else []
    tried = [cell for cell in cells if cell.margins is not None]
    layout = fitted[0].layout
    rows: list[Row] = []
    for number, solution in enumerate(fitted):
        row = {
            "text": number,
            "length": len(solution.ids),
            "asked": job.recipe.margin,
            "shift": round(threshold(lm, "standard", layout).shift, 5),
            "steps_allowed": job.recipe.steps,
            "cells": len(tried),
            "solved": solution.exact,
            "steps": solution.steps,
        }
        if solution.exact:
            row |= _of_solution(solved.index(number), own, tried)
        rows.append(row)
    return rows


def report(rows: list[Row]) -> Report:
    groups = defaultdict(list)
    for row in rows:
        groups[row["model"], row["dtype"], row["layout"], row["length"]].append(row)
    falls = [[*group, *_falls(part)] for group, part in sorted(groups.items(), key=str)]
    caption = (
        "How far a text's least margin fell, as a share of the movement that was measured on"
        " vectors at random in the same layout; quantiles over texts with 95% intervals of order"
        " statistics."
    )
    settings = [
        cells
        for setting in sorted({name for row in rows for name in row.get("moved", {})})
        for cells in [
            _of_setting(setting, [row for row in rows if setting in row.get("moved", {})])
        ]
    ]
    words = "Decoded in a child process for each setting, against the same in this process."
    return Report(
        title=TITLE,
        tables=[
            Table("falls", FALLS, falls, caption),
            Table("settings", SETTINGS, settings, words),
        ],
    )


def _of_solution(which: int, own: list[Tensor], tried: list[Tried]) -> Row:
    """What the ways of decoding did to the margins of a solution."""
    least = float(own[which].min())
    here = {one.cell: one.margins[which] for one in tried if not one.cell.setting and one.margins}
    there = {one.cell: one.margins[which] for one in tried if one.cell.setting and one.margins}
    row = {
        "margin": round(least, 5),
        "fall": round(least - min(float(each.min()) for each in here.values()), 5),
        "wrong_in": [
            cell.describe() for cell, each in {**here, **there}.items() if bool((each <= 0).any())
        ],
        "falls": {},
        "moved": {},
    }
    for cell, each in there.items():
        name = f"{cell.setting} {cell.dtype}"
        alike = here[replace(cell, setting="")]
        row["falls"][name] = round(least - float(each.min()), 5)
        row["moved"][name] = round(float((each - alike).abs().max()), 7)
    return row


def _through_a_file(lm: FrozenLM, solutions: list[Solution], recipe) -> list[Solution]:
    """Solutions as a file returns them."""
    text = lm.detokenize([token for solution in solutions for token in solution.ids])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chunks.ptok"
        EncodedText.of(lm, text, solutions, recipe=recipe).save(path)
        chunks = EncodedText.load(path).chunks()
    return [
        replace(solution, protos=chunk.protos)
        for solution, chunk in zip(solutions, chunks, strict=True)
    ]


def _falls(rows: list[Row]) -> list:
    """The cells of one layout."""
    solved = [row for row in rows if row["solved"]]
    ratios = [row["fall"] / row["shift"] for row in solved]
    quantiles = [quantile_interval(ratios, share) for share in SHARES] if ratios else []
    return [
        f"{len(solved)} of {len(rows)}",
        share(sum(bool(row["wrong_in"]) for row in solved), len(solved)),
        f"{rows[0]['shift']:.3f}",
        *(str(one) for one in quantiles or [""] * len(SHARES)),
        f"{max(ratios):.2f}" if ratios else "",
    ]


def _of_setting(setting: str, rows: list[Row]) -> list:
    """The cells of one setting and number format."""
    name, _, dtype = setting.rpartition(" ")
    wrong = sum(
        any(way.endswith(name) and way.startswith(dtype) for way in row["wrong_in"]) for row in rows
    )
    most = max(row["moved"][setting] for row in rows)
    ratio = max(row["moved"][setting] / row["shift"] for row in rows)
    return [name, dtype, len(rows), share(wrong, len(rows)), f"{most:.2g}", f"{ratio:.2g}"]
