"""How many results of each stopping rule decode alike in every way of decoding.

    prototokens reproduce studies/certificate.py --texts file:books_val.parquet --scale paper \
        --steps 2000 --out results/certificate
    prototokens reproduce studies/certificate.py --from-rows --out results/certificate

The same chunks, from the same starts, are fitted by three rules: `argmax` stops when every token
is right, as published (its margin is zero); `recipe` stops at the margin of the recipe itself;
`standard` stops at the margin that the certificate asks for. Each solution goes through a file
and is decoded in every cell of the strict matrix. A row is a chunk, a rule and a layout: steps,
least margin, and the cells in which a token came out wrong. Instruction sets of other processors
are `studies/reserve.py`'s.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from prototokens.encoding import certified_recipe
from prototokens.engine.certify import cells_of, threshold
from prototokens.engine.matrix import margins, run_cells
from prototokens.lab.job import Config, Fit, Job, Row, Run
from prototokens.lab.report import Report, Table, share
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.encoded import EncodedText
from prototokens.recipe import Recipe
from prototokens.solution import Solution

TITLE = "Stopping rules in every way of decoding"
CELLS = {"paper": 16, "tiled:4": 32}  # layout -> tokens of a chunk
RULES = ("argmax", "recipe", "standard")
AT_A_TIME = 100  # chunks of a job
WAYS = (
    "by batch or padding alone",
    "in another kernel, dtype or thread count",
    "only compiled",
)
COLUMNS = (
    "model",
    "layout",
    "tokens",
    "stops at",
    "margin",
    "solved",
    "wrong somewhere",
    *WAYS,
    "median steps",
    "least margin anywhere",
)


def jobs(config: Config) -> list[Job]:
    found = []
    for layout, length in CELLS.items():
        for tokens in config.lengths([length], layout):
            texts = config.texts.passages(config.count(8, 500), tokens)
            for rule in RULES:
                recipe = _recipe(config.texts.lm, config.recipe, rule, layout)
                for first in range(0, len(texts), AT_A_TIME):
                    part = tuple(texts[first : first + AT_A_TIME])
                    work = sum(config.work(text, tokens, layout) for text in part)
                    values = {"rule": rule, "first": first}
                    found.append(
                        Job(
                            "certificate",
                            config.model,
                            part,
                            layout,
                            recipe,
                            config.seed,
                            values,
                            work,
                        )
                    )
    return found


def run(job: Job, lm: FrozenLM) -> Run:
    fits = [
        Fit.one(text.ids, layout=job.layout, recipe=job.recipe, seed=job.seed) for text in job.texts
    ]
    fitted = [solution for (solution,) in (yield fits)]
    solved = [number for number, solution in enumerate(fitted) if solution.exact]
    saved = _through_a_file(lm, [fitted[number] for number in solved], job.recipe) if solved else []
    own = margins(lm, saved) if saved else []
    ways = [cell for cell in cells_of(lm, "strict") if not cell.setting]
    cells = run_cells(lm, saved, ways) if saved else []
    tried = [cell for cell in cells if cell.margins is not None]
    rows: list[Row] = []
    for number, solution in enumerate(fitted):
        row = {
            "chunk": job.values["first"] + number,
            "length": len(solution.ids),
            "rule": job.values["rule"],
            "asked": job.recipe.margin,
            "shift": round(threshold(lm, "standard", Layout.named(job.layout)).shift, 5),
            "probes": job.layout,
            "steps_allowed": job.recipe.steps,
            "cells": len(tried),
            "solved": solution.exact,
            "steps": solution.steps,
            "row_steps": solution.row_steps,
        }
        if solution.exact:
            index = solved.index(number)
            found = {
                cell.cell.describe(): cell.margins[index]
                for cell in tried
                if cell.margins is not None
            }
            row["margin"] = round(float(own[index].min()), 5)
            row["least_anywhere"] = round(min(float(each.min()) for each in found.values()), 5)
            row["wrong_in"] = [name for name, each in found.items() if bool((each <= 0).any())]
        rows.append(row)
    return rows


def report(rows: list[Row]) -> Report:
    cells = []
    groups = {(row["model"], row["layout"], row["length"], row["steps_allowed"]) for row in rows}
    for group in sorted(groups, key=str):
        own = [
            row
            for row in rows
            if (row["model"], row["layout"], row["length"], row["steps_allowed"]) == group
        ]
        for rule in RULES:
            part = [row for row in own if row["rule"] == rule]
            if any(row["solved"] for row in part):
                cells.append([*group[:3], rule, *_of_rule(part)])
    ways = max((row["cells"] for row in rows), default=0)
    caption = f"Each solution, read back from a file, decoded in {ways} ways."
    return Report(title=TITLE, tables=[Table("certificate", COLUMNS, cells, caption)])


def _recipe(lm: FrozenLM, recipe: Recipe, rule: str, layout: str) -> Recipe:
    """The recipe with the margin of a rule."""
    if rule == "argmax":
        return replace(recipe, margin=0.0)
    if rule == "recipe":
        return recipe
    return certified_recipe(lm, recipe, "standard", Layout.named(layout))


def _through_a_file(lm: FrozenLM, solutions: list[Solution], recipe: Recipe) -> list[Solution]:
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


def _of_rule(rows: list[Row]) -> list:
    """The cells of one rule."""
    solved = [row for row in rows if row["solved"]]
    failed = [row for row in solved if row["wrong_in"]]
    return [
        f"{statistics.median(row['asked'] for row in rows):.3f}",
        f"{len(solved)} of {len(rows)}",
        share(len(failed), len(solved)),
        *_by_way(failed),
        statistics.median(row["steps"] for row in solved),
        f"{min(row['least_anywhere'] for row in solved):.3f}",
    ]


def _by_way(failed: list[Row]) -> list[int]:
    """How many solutions went wrong in each of `WAYS`, each counted once, with the first."""
    counts = dict.fromkeys(WAYS, 0)
    for row in failed:
        cells = [cell for cell in row["wrong_in"] if cell.startswith(f"{row['dtype']}, ")]
        own = any(not cell.split(", ")[3:] for cell in cells)
        uncompiled = any(not cell.endswith("compiled") for cell in row["wrong_in"])
        counts[WAYS[0 if own else 1 if uncompiled else 2]] += 1
    return list(counts.values())
