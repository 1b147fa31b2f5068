"""Few bits: in how many bits each number of the vectors has to be stored.

    prototokens reproduce studies/bits.py --texts file:books_val.parquet --scale paper \
        --steps 2000 --out results/bits
    prototokens reproduce studies/bits.py --from-rows --out results/bits

Passages are fitted once. For every width from 16 bits down to 1, each solution is rounded (is it
exact by that alone?) and then moved along its grid by a short fit (is it exact then, and after
how many steps?). A row is a passage, a layout and a width.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

from prototokens.engine.quantise import polish_recipe, rounded
from prototokens.engine.widths import GRID_BITS, WIDTHS
from prototokens.lab.job import Config, Fit, Job, Row, Run
from prototokens.lab.report import Report, Table, share
from prototokens.lm.frozen_lm import FrozenLM

TITLE = "Bits of a number in a file"
CELLS = {"paper": (16, 32), "tiled:4": (32,)}  # layout -> lengths in tokens
EVERY_WIDTH = (
    "model",
    "layout",
    "tokens",
    "bits a number",
    "bits a token",
    "exact when rounded",
    "exact after steps",
    "median steps",
    "text's bits a vector's bit",
)
MIN_BITS = (
    "model",
    "layout",
    "tokens",
    "texts",
    "bits a number",
    "bits a token",
    "the text's own bits a token",
    "text's bits a vector's bit",
)


def jobs(config: Config) -> list[Job]:
    found = []
    for layout, grid in CELLS.items():
        for length in config.lengths(grid, layout):
            texts = tuple(config.texts.passages(config.count(4, 24), length))
            work = sum(config.work(text, length, layout) for text in texts)
            found.append(
                Job("bits", config.model, texts, layout, config.recipe, config.seed, work=work)
            )
    return found


def run(job: Job, lm: FrozenLM) -> Run:
    fits = [
        Fit.one(text.ids, layout=job.layout, recipe=job.recipe, seed=job.seed) for text in job.texts
    ]
    fitted = [solution for (solution,) in (yield fits)]
    exact = [number for number, solution in enumerate(fitted) if solution.exact]
    part = [fitted[number] for number in exact]
    text_bits = {
        number: float(lm.surprisal(fitted[number].ids).sum()) / math.log(2) for number in exact
    }
    polish = polish_recipe(job.recipe)
    rows: list[Row] = []
    for width in WIDTHS[-2::-1]:
        plain = rounded(lm, part, [width] * len(part), replace(polish, steps=0))
        moved = rounded(lm, part, [width] * len(part), polish)
        for number, before, after in zip(exact, plain, moved, strict=True):
            protos = before.solution.protos
            rows.append(
                {
                    "length": len(fitted[number].ids),
                    "passage": number,
                    "bits": width,
                    "passages": len(fitted),
                    "fitted": len(exact),
                    "rounded": before.solution.exact,
                    "exact": after.solution.exact,
                    "steps": after.row_steps,
                    "fit_steps": fitted[number].steps,
                    "vector_bits": width * protos.numel() + 32 * len(protos) * (width in GRID_BITS),
                    "text_bits": round(text_bits[number], 3),
                }
            )
    return rows


def report(rows: list[Row]) -> Report:
    widths, fewest = [], []
    for group in sorted({(row["model"], row["layout"], row["length"]) for row in rows}):
        own = [row for row in rows if (row["model"], row["layout"], row["length"]) == group]
        for width in sorted({row["bits"] for row in own}, reverse=True):
            part = [row for row in own if row["bits"] == width]
            widths.append([*group, width, *_of_width(part, group[2])])
        exact = [row for row in own if row["exact"]]
        best = [
            min((row for row in exact if row["passage"] == passage), key=lambda row: row["bits"])
            for passage in sorted({row["passage"] for row in exact})
        ]
        fewest.append([*group, len(best), *_of_fewest(best, group[2])])
    return Report(
        title=TITLE,
        tables=[
            Table(
                "bits",
                EVERY_WIDTH,
                widths,
                "Every width for every text; the scales of the grids are counted.",
            ),
            Table(
                "fewest",
                MIN_BITS,
                fewest,
                "The fewest bits in which a text stays exact, the mean over texts (`--bits auto`).",
            ),
        ],
    )


def _of_width(rows: list[Row], length: int) -> list:
    """The cells of one width."""
    steps = [row["steps"] for row in rows if row["exact"]]
    counts = [share(sum(row[name] for row in rows), len(rows)) for name in ("rounded", "exact")]
    density = statistics.mean(row["text_bits"] / row["vector_bits"] for row in rows)
    return [
        f"{rows[0]['vector_bits'] / length:.0f}",
        *counts,
        statistics.median(steps) if steps else None,
        density,
    ]


def _of_fewest(rows: list[Row], length: int) -> list:
    """The cells of the texts in the fewest bits of each."""
    if not rows:
        return [math.nan] * 4
    return [
        statistics.mean(row["bits"] for row in rows),
        statistics.mean(row["vector_bits"] / length for row in rows),
        statistics.mean(row["text_bits"] / length for row in rows),
        statistics.mean(row["text_bits"] / row["vector_bits"] for row in rows),
    ]
