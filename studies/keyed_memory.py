"""Keys in the autoregressive baseline: one memory vector, as it is and multiplied by a key.

    prototokens reproduce studies/keyed_memory.py --texts file:books_val.parquet --scale paper \
        --dtype float32 --lengths 8 --steps 400 --out results/keyed-memory
    prototokens reproduce studies/keyed_memory.py --from-rows --out results/keyed-memory

Each passage is fitted three times. "key, same start" begins at the vector whose product with the
key is the start without a key, so that the first inputs are the same. "key, own start" begins at
the same numbers as without a key, so that the first inputs differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from prototokens.engine.fit import fit
from prototokens.engine.inputs import Cramming, InputPlan
from prototokens.engine.rows import Init, Start
from prototokens.keys import signs
from prototokens.lab.job import Config, Job, Row
from prototokens.lab.report import Report, Table, high_steps, median_steps, percent_interval
from prototokens.lm.frozen_lm import FrozenLM

TITLE = "A key on the memory vector of the autoregressive baseline"
WAYS = ("no key", "key, same start", "key, own start")
COLUMNS = (
    "model",
    "memory vector",
    "tokens",
    "exact",
    "95% interval of the share",
    "steps, median",
    "90th percentile",
    "passages with the steps of no key",
    "largest difference in steps",
)


class KeyedCramming(Cramming):
    """`memory:1` with its vector multiplied by the key of its position."""

    def plan(self, ids: Sequence[int]) -> InputPlan:
        return super().plan(ids)._replace(keyed=True)


def jobs(config: Config) -> list[Job]:
    """One for each length."""
    lengths = config.lengths(config.pick((3,), (8, 16)), "memory:1")
    return [
        Job(
            "keyed_memory",
            config.model,
            tuple(config.texts.passages(config.count(2, 10), length)),
            "memory:1",
            config.recipe,
            config.seed,
        )
        for length in lengths
    ]


def run(job: Job, lm: FrozenLM) -> list[Row]:
    mean, std, _ = lm.embedding_scale
    key, targets, starts = signs(1, lm.d_model), [text.ids for text in job.texts], []
    for number in range(len(targets)):
        generator = torch.Generator().manual_seed(job.seed + number)
        noise = torch.randn(1, lm.d_model, generator=generator)
        starts.append(mean.cpu() + job.recipe.start_scale * std.cpu() * noise)
    plain, keyed = Cramming(1, job.model.prefix), KeyedCramming(1, job.model.prefix)
    rows: list[Row] = []
    for way, method, begins in (
        (WAYS[0], plain, starts),
        (WAYS[1], keyed, [start * key for start in starts]),
        (WAYS[2], keyed, starts),
    ):
        given = [Start(start, None, job.recipe.start_scale) for start in begins]
        fitted = fit(lm, targets, method, job.recipe, Init(starts=given))
        rows += [
            {
                "way": way,
                "passage": text.id,
                "length": len(text.ids),
                "exact": solution.exact,
                "steps": solution.row_steps - 1,
            }
            for text, solution in zip(job.texts, fitted, strict=True)
        ]
    return rows


def report(rows: list[Row]) -> Report:
    cells: dict[tuple, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["model"], row["length"], WAYS.index(row["way"]))):
        cells.setdefault((row["model"], row["length"], row["way"]), []).append(row)
    lines = []
    for (model, length, way), cell in cells.items():
        beside = {row["passage"]: row["steps"] for row in cells[model, length, WAYS[0]]}
        apart = [abs(row["steps"] - beside[row["passage"]]) for row in cell]
        exact = sum(row["exact"] for row in cell)
        lines.append(
            [
                model,
                way,
                length,
                f"{exact} of {len(cell)}",
                percent_interval(exact, len(cell)),
                median_steps(cell),
                high_steps(cell),
                f"{apart.count(0)} of {len(cell)}",
                max(apart),
            ]
        )
    budgets = sorted({row["recipe"]["steps"] for row in rows})
    note = f"within {', '.join(f'{steps:,}' for steps in budgets)} steps, recipe fast"
    return Report(title=TITLE, notes=[note], tables=[Table("keyed-memory", COLUMNS, lines, TITLE)])
