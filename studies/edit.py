"""Edit a text that is in vectors: fit again from the old vectors, or from a random start?

    prototokens reproduce studies/edit.py --texts file:books_val.parquet --scale paper \
        --dtype float32 --lengths 32 --out results/edit
    prototokens reproduce studies/edit.py --from-rows --out results/edit

A passage is fitted; then some of its tokens, at places drawn at random, are replaced by tokens of
another passage, and the edited passage is fitted from a random start and from the old vectors with
several learning rates. Every way is judged on the same edited passages.
"""

from __future__ import annotations

import random
import statistics
from itertools import pairwise

import numpy as np

from prototokens.engine.fit import fit
from prototokens.engine.inputs import OneStep
from prototokens.engine.rows import Init, Start
from prototokens.lab.job import Config, Job, Row
from prototokens.lab.report import Report, Table, high_steps, median_steps, percent_interval
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics

TITLE = "An edited text, fitted from the old vectors"
RANDOM = "random start"
RATES = (1.0, 0.3, 0.1)  # factors on the recipe's learning rate, from the old vectors
EDITS = (1, 2, 4)  # tokens that are replaced
COLUMNS = (
    "model",
    "layout",
    "tokens",
    "replaced",
    "fitted from",
    "exact",
    "95% interval of the share",
    "steps, median",
    "90th percentile",
    "steps against a random start, times",
    "low",
    "high",
)
CAPTION = (
    "steps against a random start: geometric mean over the passages that are exact both ways, 95%"
    " interval by bootstrap over passages"
)


def jobs(config: Config) -> list[Job]:
    """One for each layout and length: all passages run side by side."""
    made = []
    for layout in config.layouts(("keyed:2",)):
        for length in config.lengths(config.pick((16,), (32, 64)), layout):
            texts = tuple(config.texts.passages(config.count(3, 20) + 1, length))
            ways = 1 + len(EDITS) * (1 + len(RATES))
            work = ways * sum(config.work(text, length, layout) for text in texts)
            made.append(
                Job(
                    "edit",
                    config.model,
                    texts,
                    layout,
                    config.recipe,
                    config.seed,
                    {"edits": [count for count in EDITS if count < length]},
                    work,
                )
            )
    return made


def run(job: Job, lm: FrozenLM) -> list[Row]:
    method = OneStep(Layout.named(job.layout).with_prefix(job.model.prefix))
    texts = job.texts[:-1]
    before = fit(lm, [text.ids for text in texts], method, job.recipe, Init(job.seed))
    rows: list[Row] = []
    for count in job.values["edits"]:
        edited = [
            _edited(text.ids, other.ids, count, f"{job.seed} {text.id}")
            for text, other in pairwise(job.texts)
        ]
        ways: dict[str, Init] = {RANDOM: Init(job.seed + 1)}
        for rate in RATES:
            starts = [Start(solution.protos, None, rate) for solution in before]
            ways[f"old vectors, {rate:g} of the rate"] = Init(job.seed + 1, None, starts)
        for way, init in ways.items():
            fitted = fit(lm, edited, method, job.recipe, init)
            rows += [
                {
                    "passage": text.id,
                    "length": len(text.ids),
                    "replaced": count,
                    "way": way,
                    "before_exact": old.exact,
                    "exact": solution.exact,
                    "steps": solution.row_steps - 1,
                }
                for text, old, solution in zip(texts, before, fitted, strict=True)
            ]
    return rows


def _edited(ids: tuple[int, ...], other: tuple[int, ...], count: int, seed: str) -> list[int]:
    """The ids with some of them replaced by those of another passage, never by themselves."""
    chance, out = random.Random(f"{seed} {count}"), list(ids)
    for place in chance.sample(range(len(ids)), count):
        out[place] = chance.choice([token for token in other if token != ids[place]])
    return out


def report(rows: list[Row]) -> Report:
    groups: dict[tuple, dict[str, dict[str, Row]]] = {}
    for row in rows:
        name = f"{row['model']} ({row['fingerprint'][:8]})"
        cell = (name, row["layout"], row["length"], row["replaced"])
        groups.setdefault(cell, {}).setdefault(row["way"], {})[row["passage"]] = row
    table = []
    for cell, ways in sorted(groups.items()):
        for way in sorted(ways, key=lambda one: (one != RANDOM, one)):
            some = list(ways[way].values())
            exact = sum(row["exact"] for row in some)
            table.append(
                [
                    *cell,
                    way,
                    f"{exact} of {len(some)}",
                    percent_interval(exact, len(some)),
                    median_steps(some),
                    high_steps(some),
                    *_against(ways[way], ways[RANDOM]),
                ]
            )
    shares = [row["before_exact"] for row in rows]
    note = (
        f"{statistics.mean(shares):.0%} of the passages were exact before the edit" if rows else ""
    )
    return Report(
        title=TITLE, notes=[note] * bool(rows), tables=[Table("edit", COLUMNS, table, CAPTION)]
    )


def _against(own: dict[str, Row], others: dict[str, Row]) -> tuple[float | None, ...]:
    """The steps against those from a random start, passage by passage."""
    logs = [
        float(np.log((row["steps"] + 1) / (others[name]["steps"] + 1)))
        for name, row in own.items()
        if row["exact"] and others[name]["exact"]
    ]
    if own is others or not logs:
        return None, None, None
    return tuple(metrics.bootstrap(logs, lambda drawn: float(np.exp(drawn.mean()))))
