"""Table 4: seconds and steps to a solution, by length.

Each text is fitted alone, as the paper's times were taken, and the clock runs over that fit and
nothing else; so these fits are made anew and not taken from saved solutions. The time of a
text among many, side by side, is what the engine is for: the last column has it, for all texts of a
length together.
"""

from __future__ import annotations

import time

import numpy as np

from prototokens.fitting import fit
from prototokens.lab import plots, published
from prototokens.lab.job import Config, Job, Row, outcome
from prototokens.lab.report import Report, Table
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics

TITLE = "Seconds and steps to a solution"
LENGTHS, SMOKE_LENGTHS = (32, 64, 128, 256, 512), (4, 8, 16)


def jobs(config: Config) -> list[Job]:
    lengths = config.lengths(config.pick(SMOKE_LENGTHS, LENGTHS))
    if not lengths:
        return []
    texts = config.texts.passages(config.count(3, 50), max(lengths))
    made = []
    for length in lengths:
        cut = tuple(text.prefix(length) for text in texts)
        work = 2 * sum(config.work(text, length) for text in texts)
        made.append(
            Job("table4", config.model, cut, "paper", config.recipe, config.seed, work=work)
        )
    return made


def run(job: Job, lm: FrozenLM) -> list[Row]:
    targets = [text.ids for text in job.texts]
    began = time.perf_counter()
    fit(lm, targets, layout=job.layout, recipe=job.recipe, seed=job.seed)
    together = (time.perf_counter() - began) / len(targets)
    rows = []
    for text in job.texts:
        began = time.perf_counter()
        (solution,) = fit(lm, [text.ids], layout=job.layout, recipe=job.recipe, seed=job.seed)
        alone = time.perf_counter() - began
        rows.append(
            {
                "text": text.id,
                "seconds_alone": alone,
                "seconds_together": together,
                **outcome(solution),
            }
        )
    return rows


def report(rows: list[Row]) -> Report:
    lengths = sorted({row["length"] for row in rows})
    table, alone = [], []
    for length in lengths:
        some = [row for row in rows if row["length"] == length]
        solved = [row for row in some if row["exact"]]
        seconds = (
            metrics.bootstrap([row["seconds_alone"] for row in solved])
            if solved
            else (None, None, None)
        )
        steps = float(np.median([row["steps"] for row in solved])) if solved else None
        together = float(np.mean([row["seconds_together"] for row in some]))
        theirs = published.seconds(some[0]["model"], length)
        table.append([length, len(some), len(solved), steps, *seconds, together, theirs])
        if solved:
            alone.append((length, seconds, steps))
    missed = sum(not row["exact"] for row in rows)
    where = "; ".join(sorted({_machine(row) for row in rows}))
    columns = [
        "length",
        "texts",
        "exact",
        "median steps",
        "seconds alone",
        "low",
        "high",
        "seconds side by side",
        "published",
    ]
    return Report(
        title=TITLE,
        notes=[
            f"{len({row['text'] for row in rows})} texts, 1 seed; {missed} of {len(rows)} fits did"
            " not become exact: they are"
            " left out of steps and seconds alone",
            f"measured on: {where}; published seconds are of A100 and H100 GPUs",
            "side by side: all texts of a length in one batch, solved or not, seconds divided by"
            " their number",
        ],
        tables=[
            Table(
                "seconds",
                columns,
                table,
                "Means over exact fits, with 95% interval by bootstrap over texts",
            )
        ],
        figures={"table4": _figure(alone)} if alone else {},
    )


def _machine(row: Row) -> str:
    machine = row["machine"]
    device = machine.get("gpu") or machine["processor"]
    return f"{device}, {machine['threads']} threads, {row['dtype']}"


def _figure(alone: list):
    lengths = [length for length, _, _ in alone]
    seconds = [found for _, found, _ in alone]
    panel = plots.Panel(
        "Seconds to a solution, one text alone",
        "tokens of the text",
        "seconds",
        log_x=True,
        log_y=True,
        x_ticks=lengths,
    )
    series = plots.Series(
        "",
        [one[0] for one in seconds],
        lengths,
        [one[1] for one in seconds],
        [one[2] for one in seconds],
    )
    return plots.lines(panel, [series])
