"""Which chunks survive decoding by llama.cpp with the weights in fewer bits, by margin.

    python docs/examples/to_gguf.py -o builtin.gguf
    prototokens reproduce studies/precisions.py --model builtin.gguf --dtype float32 \
        --texts file:books_val.parquet:text --scale paper --steps 2000 --out results/precisions
    prototokens reproduce studies/precisions.py --from-rows --out results/precisions

The model is a GGUF file. Each passage is fitted to several margins with its weights as they are, by
PyTorch. llama.cpp's own quantiser then writes the file in each precision, and llama.cpp decodes
each chunk with each. A row is a passage, a margin that was asked for, and a precision: the
positions that come out wrong, the chunk's least margin in PyTorch and in llama.cpp, and the
furthest that the margin of any position fell. It needs the extra [llama-cpp].
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from prototokens.encoding import certified_recipe
from prototokens.exchange.inputs import inputs_of
from prototokens.exchange.llama_cpp import LlamaCpp, quantise
from prototokens.lab import plots
from prototokens.lab.job import Config, Fit, Job, Row, Run
from prototokens.lab.report import Report, Table, share
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Solution

TITLE = "Fewer bits of the weights, in llama.cpp"
LAYOUT, LENGTH = "keyed:2", 16
MARGINS = (None, 2.0, 4.0)  # logits; None: the margin that the certificate asks for
PRECISIONS = ("F32", "F16", "Q8_0", "Q6_K", "Q5_K", "Q4_K")
COLUMNS = (
    "model",
    "margin asked",
    "precision",
    "chunks",
    "exact",
    "median least margin",
    "largest fall of a margin",
)


def jobs(config: Config) -> list[Job]:
    found = []
    for layout in config.layouts((LAYOUT,)):
        (length,) = config.lengths([LENGTH], layout)
        texts = tuple(config.texts.passages(config.count(4, 24), length))
        for margin in MARGINS:
            recipe = _recipe(config.texts.lm, config.recipe, layout, margin)
            work = sum(config.work(text, length, layout) for text in texts)
            values = {"asked": recipe.margin, "certified": margin is None}
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
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            path = Path(lm.name)
            if precision != "F32":
                path = Path(folder) / f"{precision}.gguf"
                quantise(Path(lm.name), path, precision)
            with LlamaCpp(path, max(len(text.ids) for text in job.texts) + 1, 1) as engine:
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
                    }
                    for text, solution in zip(job.texts, solutions, strict=True)
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
            f"{asked:.3g}{' (certificate)' if cells[key][0]['certified'] else ''}",
            precision,
            len(cells[key]),
            share(sum(row["wrong"] == 0 for row in cells[key]), len(cells[key])),
            f"{statistics.median(row['margin'] for row in cells[key]):.3g}",
            f"{max(row['fall'] for row in cells[key]):.3g}",
        ]
        for key in ordered
        for model, asked, precision in [key]
    ]
    unsolved = {(row["passage"], row["asked"]) for row in rows if not row["exact"]}
    notes = [
        "exact: chunks whose every token comes out of llama.cpp, of those that the fit solved;"
        f" {len(unsolved)} were not solved within their steps",
        "largest fall: over all positions of these chunks, from the margin in PyTorch to that in"
        " llama.cpp, in logits",
        "F32 is the GGUF file itself; llama.cpp stores rows that are no multiple of 256 numbers in"
        " another format of about as many bits",
    ]
    figures = {"survival": _figure(cells)} if cells else {}
    return Report(TITLE, [Table("precisions", COLUMNS, lines, TITLE)], notes, figures)


def _recipe(lm: FrozenLM, recipe, layout: str, margin: float | None):
    if margin is not None:
        return replace(recipe, margin=margin)
    return certified_recipe(lm, recipe, "standard", Layout.named(layout))


def _decoded(engine: LlamaCpp, solution: Solution) -> Row:
    """What llama.cpp makes of a solution."""
    logits = engine.logits(inputs_of(solution), solution.layout.prefix)
    target = torch.tensor(solution.ids)[:, None]
    true = logits.gather(1, target)[:, 0]
    margins = true - logits.scatter(1, target, -torch.inf).amax(1)
    before = torch.tensor(solution.margins)
    fall = float((before - margins).max()) if len(before) == len(margins) else float("nan")
    return {
        "wrong": int((margins <= 0).sum()),
        "least": float(margins.min()),
        "fall": fall,
    }


def _figure(cells: dict[tuple, list[Row]]):
    """Share of exact chunks by the margin that was asked for, one line a precision."""
    series = []
    for precision in PRECISIONS:
        points = sorted(key for key in cells if key[2] == precision)
        shares = [sum(row["wrong"] == 0 for row in cells[key]) / len(cells[key]) for key in points]
        series.append(plots.Series(precision, shares, [key[1] for key in points]))
    return plots.lines(plots.Panel("Exact chunks", "margin asked, logits", "share"), series)
