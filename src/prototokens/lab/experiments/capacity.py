"""A model's card: how much one text leaves in a few trained vectors.

Two vectors are read in one step, one or two are read token by token.

The protocol is table 3's (`lab.capacity`), with the autoregressive baseline beside it on the
same texts, and with what real greedy decoding from its vectors gives, not only what teacher forcing
does.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from prototokens.lab import capacity, plots, published
from prototokens.lab.job import Config, Job, Row, Run
from prototokens.lab.passages import labels_of, sources_of
from prototokens.lab.report import Report, Table, layouts_of
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics

TITLE = "Capacity card"
# Lengths at the scale `smoke`: beyond what two vectors of a small model hold, so that climbs end.
SMOKE_GRID = (*capacity.SMOKE_GRID, 64, 128)
AT_LEAST = "\N{GREATER-THAN OR EQUAL TO}"  # over a bar that is a lower bound
LAYOUTS = ("paper", "memory:1", "memory:2")
SHOWN = {
    "paper": "one-step, e and m",
    "memory:1": "autoregressive, 1 vector",
    "memory:2": "autoregressive, 2 vectors",
}


def jobs(config: Config) -> list[Job]:
    return [
        job
        for texts in config.texts.each()
        for job in capacity.jobs_of(
            "capacity", config, texts, config.layouts(LAYOUTS), smoke_grid=SMOKE_GRID
        )
    ]


def run(job: Job, lm: FrozenLM) -> Run:
    (tried,) = yield from capacity.climb(job.texts, job.values["lengths"], job)
    floats = tried[0].protos.numel() if tried else lm.d_model
    return [{"source": job.text.source, **capacity.describe(lm, job.text, tried, floats)}]


def card(rows: list[Row]) -> dict[str, Any]:
    """The card as plain values: of each source and way, its figures."""
    found = []
    for source in sources_of(rows):
        for layout in layouts_of(rows, LAYOUTS):
            some = [row for row in rows if row["source"] == source and row["layout"] == layout]
            if some:
                found.append({"texts": source, "way": layout, **_figures(some)})
    first = rows[0] if rows else {}
    return {
        name: first.get(name) for name in ("model", "revision", "fingerprint", "dtype", "d_model")
    } | {"capacity": found}


def _figures(rows: list[Row]) -> dict[str, Any]:
    nats = [row["nats"] for row in rows]
    found, (mean, low, high) = capacity.summary(rows), metrics.bootstrap(nats)
    greedy = [row["greedy_exact"] for row in rows if "greedy_exact" in row]
    return {
        "count": found.texts,
        "horizon": max(row["horizon"] for row in rows),
        "c_tokens": found.c_tokens,
        "c_tokens_mean": float(np.mean([row["correct"] for row in rows])),
        "h_lm": mean,
        "h_lm_low": low,
        "h_lm_high": high,
        "h_lm_std": found.h_lm_std,
        "bits_per_float": metrics.bits_per_float(sum(nats), sum(row["floats"] for row in rows)),
        "bound": rows[0]["bound"],
        "share_of_bound": found.c_tokens / rows[0]["bound"],
        "lower_bounds": sum(not row["ended"] for row in rows),
        "greedy_exact": float(np.mean(greedy)) if greedy else None,
    }


def report(rows: list[Row]) -> Report:
    made = card(rows)
    table = [
        [
            one["texts"],
            SHOWN.get(one["way"], one["way"]),
            one["count"],
            one["horizon"],
            one["c_tokens"],
            one["h_lm"],
            one["h_lm_low"],
            one["h_lm_high"],
            one["bits_per_float"],
            one["bound"],
            one["share_of_bound"],
            one["greedy_exact"],
            one["lower_bounds"],
        ]
        for one in made["capacity"]
    ]
    columns = (
        "texts",
        "way",
        "count",
        "horizon",
        "C_tokens",
        "H_LM",
        "low",
        "high",
        "bits a float",
        "bound, tokens",
        "share of it",
        "greedy exact",
        "lower bounds",
    )
    name = made["model"] or "no rows"
    notes = [
        f"model: {name}, d_model {made['d_model']}, {made['dtype']}",
        f"{len({row['text'] for row in rows})} texts, 1 seed; {capacity.lower_bounds(rows)}",
        "horizon: longest prefix reproduced exactly; C_tokens: right tokens of the longest with at"
        " least 0.99 of its tokens right; both of the best text",
        "H_LM: nats of the longest prefix reproduced, mean over texts with 95% interval by"
        " bootstrap",
        "greedy exact: share of the autoregressive rows that real decoding gives back, and not only"
        " teacher forcing",
        "lower bounds: texts whose climb ended at the longest length that was tried",
    ]
    if name in published.CRAMMED:
        notes.append(
            f"published C_tokens of one autoregressive vector on PG-19: {published.CRAMMED[name]}"
        )
    if any(one["lower_bounds"] for one in made["capacity"]):
        notes.append(
            f"bars marked {AT_LEAST} are lower bounds: a text was still reproduced at the longest"
            " length tried; name longer ones with --lengths, or longer texts with --texts"
        )
    figures = {"card": _figure(name, made["capacity"])} if rows else {}
    return Report(TITLE, [Table("card", columns, table)], notes, figures)


def _figure(name: str, found: list[dict[str, Any]]):
    sources = list(dict.fromkeys(one["texts"] for one in found))
    tokens, nats = [], []
    for layout in dict.fromkeys(str(one["way"]) for one in found):
        mine = {one["texts"]: one for one in found if one["way"] == layout}
        values = [mine.get(source) for source in sources]
        over = [AT_LEAST if one and one["lower_bounds"] else "" for one in values]
        nats.append(
            plots.Series(
                SHOWN.get(layout, layout),
                [one["h_lm"] if one else math.nan for one in values],
                (),
                [one["h_lm_low"] if one else math.nan for one in values],
                [one["h_lm_high"] if one else math.nan for one in values],
                over,
            )
        )
        reached = [one["c_tokens"] if one else math.nan for one in values]
        tokens.append(plots.Series("", reached, over=over))
    short = list(labels_of(sources).values())
    bounds = any(one["lower_bounds"] for one in found)
    held = f"C_tokens ({AT_LEAST}: lower bound)" if bounds else "C_tokens"
    nats_held = f"H_LM, nats ({AT_LEAST}: lower bound)" if bounds else "H_LM, nats"
    return plots.panels(
        [
            (
                plots.Panel(f"{name}: information reproduced", "texts", nats_held),
                lambda axes: plots.draw_bars(axes, short, nats),
            ),
            (
                plots.Panel("Longest text reproduced", "texts", held),
                lambda axes: plots.draw_bars(axes, short, tokens),
            ),
        ]
    )
