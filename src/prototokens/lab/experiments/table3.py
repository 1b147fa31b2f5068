"""Table 3 and figure 1: how much two vectors store, by source of the texts.

In the paper's layout each text has an m of its own, or all texts of a source share one; beside it
stand two keyed vectors of each text.

For each text, the longest prefix on the paper's grid of lengths that is reproduced with at least
0.99 of its tokens right; C_tokens is the longest over texts, H_LM (nats under the same model) is
the mean over texts. Beside it the bits of H_LM for each trained number, the bound d_model x bits /
log2(vocabulary) for each vector, and the share of it that is used.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from prototokens.lab import capacity, plots, published
from prototokens.lab.job import Config, Job, Row, Run
from prototokens.lab.methods import method_of
from prototokens.lab.passages import labels_of, sources_of
from prototokens.lab.report import (
    Report,
    Table,
    layouts_of,
    most_of_a_source,
    size_notes,
    spread,
)
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Capacity by source of the texts"
LAYOUTS = (capacity.SHARING, "keyed:2")


def jobs(config: Config) -> list[Job]:
    return [
        job
        for texts in config.texts.each()
        for job in capacity.jobs_of("table3", config, texts, config.layouts(LAYOUTS), shared=True)
    ]


def run(job: Job, lm: FrozenLM) -> Run:
    shared = job.values["shared"] and len(job.texts) > 1
    tried = yield from capacity.climb(
        job.texts, job.values["lengths"], job, share="m" if shared else None
    )
    # A shared m is paid for once by all texts together.
    count = method_of(job.layout).layout.vectors
    floats = lm.d_model * (1 + 1 / len(job.texts) if shared else count)
    return [
        {
            "source": text.source,
            "shared": job.values["shared"],
            **capacity.describe(lm, text, fits, floats),
        }
        for text, fits in zip(job.texts, tried, strict=True)
    ]


def report(rows: list[Row]) -> Report:
    sources = sources_of(rows)
    ways = _ways(rows)
    cells = {
        (source, *way): [
            row for row in rows if (row["source"], row["layout"], row["shared"]) == (source, *way)
        ]
        for source in sources
        for way in ways
    }
    table, figure = [], {}
    for (source, layout, shared), some in cells.items():
        if some:
            table.append(_line(source, layout, shared, some))
    if rows:
        figure = {"figure1": _figure(sources, ways, cells)}
    texts = {
        source: len({row["text"] for row in rows if row["source"] == source}) for source in sources
    }
    counts = ", ".join(f"{count} of {source}" for source, count in texts.items())
    # The last two columns are the paper's; for other models they would be empty.
    known = any(line[-1] for line in table)
    columns, table = (COLUMNS, table) if known else (COLUMNS[:-2], [line[:-2] for line in table])
    return Report(
        title=TITLE,
        notes=[
            f"texts: {counts}; 1 seed; {capacity.lower_bounds(rows)}",
            "the climb ends at the first length at which less than 0.99 of the tokens are right",
            *size_notes(most_of_a_source(rows)),
        ],
        tables=[Table("capacity", columns, table, CAPTION)],
        figures=figure,
    )


CAPTION = (
    "C_tokens: right tokens of the longest prefix reproduced, the best text; H_LM: its nats, mean"
    " over texts with 95% interval by bootstrap"
)
COLUMNS = (
    "source",
    "layout",
    "m shared",
    "texts",
    "C_tokens",
    "H_LM mean",
    "low",
    "high",
    "H_LM mean ± std",
    "bits a float",
    "bound, tokens",
    "share of it",
    "published C_tokens",
    "published H_LM",
)


def _ways(rows: list[Row]) -> list[tuple[str, bool]]:
    """(layout, whether m is shared), in the order of tables and pictures."""
    found = {(row["layout"], row["shared"]) for row in rows}
    return [
        (layout, shared)
        for layout in layouts_of(rows, LAYOUTS)
        for shared in (False, True)
        if (layout, shared) in found
    ]


def _line(source: str, layout: str, shared: bool, rows: list[Row]) -> list:
    nats = [row["nats"] for row in rows]
    # The numbers trained for all texts, a shared m once.
    bits = metrics.bits_per_float(sum(nats), sum(row["floats"] for row in rows))
    tokens = capacity.summary(rows).c_tokens
    theirs = (
        published.capacity(rows[0]["model"], source, shared) if layout == capacity.SHARING else None
    )
    published_cells = [theirs.tokens, f"{theirs.nats} ± {theirs.std}"] if theirs else [None, None]
    bound = float(np.mean([row["bound"] for row in rows]))
    return [
        source,
        layout,
        shared,
        len(rows),
        tokens,
        *metrics.bootstrap(nats),
        spread(nats),
        bits,
        bound,
        tokens / bound,
        *published_cells,
    ]


def _figure(
    sources: list[str],
    ways: list[tuple[str, bool]],
    cells: dict[tuple[str, str, bool], list[Row]],
) -> Figure:
    series = []
    for layout, shared in ways:
        found = [
            metrics.bootstrap([row["nats"] for row in cells[source, layout, shared]] or [math.nan])
            for source in sources
        ]
        name = f"{layout}, m shared by the texts" if shared else layout
        series.append(
            plots.Series(
                name,
                [one.value for one in found],
                (),
                [one.low for one in found],
                [one.high for one in found],
            )
        )
    names = list(labels_of(sources).values())
    return plots.bars(
        plots.Panel("Information stored in the vectors", "texts", "H_LM, nats"), names, series
    )
