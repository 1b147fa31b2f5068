"""Which chunks survive decoding by llama.cpp with the weights in fewer bits, by margin.

    python docs/examples/to_gguf.py -o builtin.gguf
    prototokens reproduce studies/precisions.py --model builtin.gguf --dtype float32 \
        --texts file:books_val.parquet:text --scale paper --steps 2000 --out results/precisions
    prototokens reproduce studies/precisions.py --from-rows --out results/precisions

The model is a GGUF file. Each passage is fitted to several margins with its weights as they are, by
PyTorch. llama.cpp's own quantiser then writes the file in each precision, and llama.cpp decodes
each chunk with each; PyTorch does, too, with its weights rounded as that file holds them
(`lm.ggml_rounding`), as the certificate `portable` tries them. A row is a passage, a margin that
was asked for, and a precision: the positions that come out wrong, the chunk's least margin in
PyTorch and in llama.cpp, and the furthest that the margin of any position fell. It needs the extra
[llama-cpp].

A GGUF file in fewer bits becomes one in float32 by
`prototokens.exchange.llama_cpp.quantise(Path("smollm2.gguf"), Path("smollm2-f32.gguf"), "F32")`.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from prototokens.encoding import certified_recipe
from prototokens.engine.certify import probes
from prototokens.engine.matrix import Cell, cell_margins, margins
from prototokens.exchange.inputs import inputs_of
from prototokens.exchange.llama_cpp import LlamaCpp, quantise
from prototokens.lab import plots
from prototokens.lab.job import Config, Fit, Job, Row, Run
from prototokens.lab.report import Report, Table, share
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution

TITLE = "Fewer bits of the weights, in llama.cpp"
LAYOUT, LENGTH = "keyed:2", 16
# logits, or the level of a certificate: the margin that it asks for
MARGINS = ("standard", 1.0, 2.0, "portable", 4.0)
PRECISIONS = ("F32", "F16", "Q8_0", "Q6_K", "Q5_K", "Q4_K")
COLUMNS = (
    "model",
    "margin asked",
    "precision",
    "chunks",
    "exact",
    "exact in PyTorch, rounded",
    "chunks judged otherwise",
    "median least margin",
    "largest fall of a margin",
    "steps",
)


def jobs(config: Config) -> list[Job]:
    found = []
    for layout in config.layouts((LAYOUT,)):
        (length,) = config.lengths([LENGTH], layout)
        texts = tuple(config.texts.passages(config.count(4, 50), length))
        for margin in MARGINS:
            arranged = Layout.named(layout).with_prefix(config.model.prefix)
            recipe = _recipe(config.texts.lm, config.recipe, arranged, margin)
            work = sum(config.work(text, length, layout) for text in texts)
            values = {"asked": recipe.margin, "certified": margin == "standard"}
            values |= {"level": margin} if margin == "portable" else {}
            found.append(
                Job("precisions", config.model, texts, layout, recipe, config.seed, values, work)
            )
    return found


def run(job: Job, lm: FrozenLM) -> Run:
    fits = [
        Fit.one(text.ids, layout=job.layout, recipe=job.recipe, seed=job.seed) for text in job.texts
    ]
    solutions = [solution for (solution,) in (yield fits)]
    rows: list[Row] = []
    longest = max(len(text.ids) for text in job.texts) + len(job.model.prefix) + 1
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            path = Path(lm.name)
            if precision != "F32":
                path = Path(folder) / f"{precision}.gguf"
                quantise(Path(lm.name), path, precision)
            rounded = _rounded(lm, solutions, precision)
            with LlamaCpp(path, longest, 1) as engine:
                rows += [
                    {
                        "passage": text.id,
                        "precision": precision,
                        **job.values,
                        "length": len(text.ids),
                        "margin": solution.margin,
                        "steps": solution.steps,
                        "exact": solution.exact,
                        **_decoded(engine, solution),
                        **here,
                    }
                    for text, solution, here in zip(job.texts, solutions, rounded, strict=True)
                ]
    return rows


def report(rows: list[Row]) -> Report:
    cells: dict[tuple, list[Row]] = {}
    for row in rows:
        if row["exact"]:
            cells.setdefault((row["model"], row["asked"], row["precision"]), []).append(row)
    ordered = sorted(cells, key=lambda key: (key[0], key[1], PRECISIONS.index(key[2])))
    lines = [
        [
            model,
            f"{asked:.3g}{_level(cells[key][0])}",
            precision,
            len(cells[key]),
            share(sum(row["wrong"] == 0 for row in cells[key]), len(cells[key])),
            *_in_pytorch(cells[key]),
            f"{statistics.median(row['margin'] for row in cells[key]):.3g}",
            f"{max(row['fall'] for row in cells[key]):.3g}",
            f"{statistics.median(row['steps'] for row in cells[key]):.0f}",
        ]
        for key in ordered
        for model, asked, precision in [key]
    ]
    unsolved = {(row["passage"], row["asked"]) for row in rows if not row["exact"]}
    notes = [
        "exact: chunks whose every token comes out of llama.cpp, of those that the fit solved;"
        f" {len(unsolved)} were not solved within their steps",
        "in PyTorch, rounded: by the check of the certificate `portable`; judged otherwise: chunks"
        " that are exact in one of the two and not in the other",
        "steps: of the fit, median",
        "largest fall: over all positions of these chunks, from the margin in PyTorch to that in"
        " llama.cpp, in logits",
        "F32 is the GGUF file itself; llama.cpp stores rows that are no multiple of 256 numbers in"
        " another format of about as many bits",
    ]
    models = sorted({key[0] for key in cells})
    figures = {f"survival-{Path(model).stem}": _figure(cells, model) for model in models}
    return Report(TITLE, [Table("precisions", COLUMNS, lines, TITLE)], notes, figures)


def _level(row: Row) -> str:
    """Which certificate asks for the margin of a row, if one does."""
    level = row.get("level", "standard" if row["certified"] else "")
    return f" ({level})" if level else ""


def _in_pytorch(rows: list[Row]) -> list[Any]:
    """How many chunks are exact with rounded weights, and how many llama.cpp judges otherwise."""
    if "rounded_wrong" not in rows[0]:
        return ["", ""]
    right = [row["rounded_wrong"] == 0 for row in rows]
    other = [row["wrong"] == 0 for row in rows]
    return [share(sum(right), len(rows)), sum(a != b for a, b in zip(right, other, strict=True))]


def _recipe(lm: FrozenLM, recipe: Recipe, layout: Layout, margin: float | str) -> Recipe:
    if isinstance(margin, str):
        return certified_recipe(lm, recipe, margin, layout)
    return replace(recipe, margin=margin)


def _decoded(engine: LlamaCpp, solution: Solution) -> Row:
    """What llama.cpp makes of a solution."""
    logits = engine.logits(inputs_of(solution), solution.layout.prefix)
    target = torch.tensor(solution.ids)[:, None]
    true = logits.gather(1, target)[:, 0]
    found = true - logits.scatter(1, target, -torch.inf).amax(1)
    before = torch.tensor(solution.margins)
    fall = float((before - found).max()) if len(before) == len(found) else float("nan")
    return {
        "wrong": int((found <= 0).sum()),
        "least": float(found.min()),
        "fall": fall,
    }


def _rounded(lm: FrozenLM, solutions: list[Solution], precision: str) -> list[Row]:
    """What PyTorch makes of solutions with rounded weights, and how far they move at random."""
    if precision == "F32":
        return [{} for _ in solutions]
    cell, at_random = Cell(7, 0, "float32", weights=precision), probes(lm, solutions[0].layout)
    found = cell_margins(lm, [*at_random, *solutions], cell)
    own = torch.cat(margins(lm, at_random))
    shift = float((torch.cat(found[: len(at_random)]) - own).abs().max())
    return [
        {
            "rounded_wrong": int((here <= 0).sum()),
            "rounded_least": float(here.min()),
            "rounded_fall": float((torch.tensor(solution.margins) - here).max()),
            "shift": shift,
        }
        for solution, here in zip(solutions, found[len(at_random) :], strict=True)
    ]


def _figure(cells: dict[tuple, list[Row]], model: str):
    """Share of a model's exact chunks by the margin that was asked for, one line a precision."""
    series = []
    for precision in PRECISIONS:
        points = sorted(key for key in cells if key[0] == model and key[2] == precision)
        shares = [sum(row["wrong"] == 0 for row in cells[key]) / len(cells[key]) for key in points]
        series.append(plots.Series(precision, shares, [key[1] for key in points]))
    return plots.lines(
        plots.Panel(f"Exact chunks, {model}", "margin asked, logits", "share"), series
    )
