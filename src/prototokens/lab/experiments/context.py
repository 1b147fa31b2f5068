"""Conditional reconstruction: what a context before the vectors adds to what they hold.

The same passages are fitted behind different prefixes: nothing, the beginning-of-sequence token,
the tokens that precede the passage in its document, and as many tokens that precede another
passage. Behind a related context the passage carries less information, H_LM given the context. If
the vectors store what the context leaves open, a related context lets them hold more tokens, and
the information that they store, counted given the context, stays what it is without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from prototokens.lab import capacity, plots
from prototokens.lab.job import Config, Job, Row, Run
from prototokens.lab.passages import Passage
from prototokens.lab.report import Report, Table, layouts_of, most_of_a_source, size_notes
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Capacity given a context"
LAYOUTS = ("keyed:2",)
SIZES = (16, 64, 256)  # tokens of a context
SMOKE_SIZES = (8, 32)
SMOKE_GRID = (16, 32, 64)
NONE, BOS, PRECEDING, UNRELATED = "none", "BOS", "preceding", "unrelated"
ORDER = (NONE, BOS, PRECEDING, UNRELATED)
BITS = 1 / math.log(2)  # in a nat
CAPTION = (
    "means over texts, tokens with 95% intervals by bootstrap over texts; H_LM: of the longest"
    " prefix reproduced, by the model alone and given the context; removed: the share of the whole"
    " passage's H_LM that the context takes off"
)
COMPARED = (
    "each text against itself without a context, 95% intervals by bootstrap over texts; steps: the"
    " geometric mean over the fits that are exact both ways, below 1 where the context helps"
)
Groups = dict[tuple[str, int], dict[str, Row]]  # (context, its tokens) -> text -> row


def jobs(config: Config) -> list[Job]:
    """One job for each layout, passage and prefix."""
    grid = config.lengths(config.pick(SMOKE_GRID, metrics.GRID))
    longest = config.model.max_context
    sizes = [
        size
        for size in config.pick(SMOKE_SIZES, SIZES)
        if longest is None or not grid or 1 + size + 2 * min(grid) <= longest
    ]
    if not grid or not sizes:
        return []
    passages = config.texts.passages(config.count(3, 20) + 1, max(grid), max(sizes))
    made = []
    for layout in config.layouts(LAYOUTS):
        for text, other in pairwise(passages):
            for name, size, prefix in prefixes(config.model.prefix, text, other, sizes):
                lengths = [
                    length
                    for length in config.lengths(grid, layout)
                    if longest is None or len(prefix) + 2 + length <= longest
                ]
                values = {
                    "lengths": lengths,
                    "context": name,
                    "context_tokens": size,
                    "prefix": list(prefix),
                }
                work = config.texts.costs.climb(text.ids, lengths, layout, config.recipe)
                made.append(
                    Job(
                        "context",
                        config.model,
                        (replace(text, context=()),),
                        layout,
                        config.recipe,
                        config.seed,
                        values,
                        work=work,
                    )
                )
    return made


def prefixes(
    lead: tuple[int, ...], text: Passage, other: Passage, sizes: Sequence[int]
) -> list[tuple[str, int, tuple[int, ...]]]:
    """Name, number of tokens and token ids of every context that a passage is fitted behind.

    Args:
        lead: the model's own prefix: BOS where its first position is an attention sink. It stands
            before a context too, whose first token would be the sink otherwise.
        other: the passage whose context is the unrelated one.
    """
    found: list[tuple[str, int, tuple[int, ...]]] = [(NONE, 0, ())]
    if lead:
        found.append((BOS, 0, lead))
    for size in sizes:
        found.append((PRECEDING, size, lead + text.context[-size:]))
        found.append((UNRELATED, size, lead + other.context[-size:]))
    return found


def run(job: Job, lm: FrozenLM) -> Run:
    prefix, text = tuple(job.values["prefix"]), job.text
    (tried,) = yield from capacity.climb([text], job.values["lengths"], job, prefix=prefix)
    floats = tried[0].protos.numel()
    row = capacity.describe(lm, text, tried, floats)
    alone = lm.surprisal(list(text.ids)).double().cpu()
    # `surprisal` puts BOS first by itself.
    before = prefix[1:] if prefix[:1] == (lm.bos,) else prefix
    given = lm.surprisal([*before, *text.ids])[len(before) :].double().cpu()
    nats_given = float(given[: row["held"]].sum())
    return [
        {
            "context": job.values["context"],
            "context_tokens": job.values["context_tokens"],
            **row,
            "nats_given": nats_given,
            "bits_per_float_given": metrics.bits_per_float(nats_given, floats),
            "passage_nats": float(alone.sum()),
            "passage_nats_given": float(given.sum()),
        }
    ]


def report(rows: list[Row]) -> Report:
    tables, figures = [], {}
    for number, layout in enumerate(layouts_of(rows, LAYOUTS), 1):
        groups = _grouped([row for row in rows if row["layout"] == layout])
        tables += [
            _capacities(f"context-{number}", layout, groups),
            _gains(f"gains-{number}", layout, groups),
        ]
        figures[f"context-{number}"] = _figure(groups)
    notes = [capacity.lower_bounds(rows), *size_notes(most_of_a_source(rows))] if rows else []
    return Report(title=TITLE, notes=notes, tables=tables, figures=figures)


def _grouped(rows: Sequence[Row]) -> Groups:
    """Rows without a context first, then by its length."""
    out: Groups = {}
    for row in sorted(rows, key=lambda row: (row["context_tokens"], ORDER.index(row["context"]))):
        out.setdefault((row["context"], row["context_tokens"]), {})[row["text"]] = row
    return out


def _baseline(groups: Groups) -> dict[str, Row]:
    """The rows that contexts are compared with: BOS alone where the model gets it, else none."""
    return groups.get((BOS, 0)) or groups.get((NONE, 0)) or {}


def _capacities(name: str, layout: str, groups: Groups) -> Table:
    columns = [
        "context",
        "tokens of it",
        "texts",
        "tokens reproduced, mean",
        "low",
        "high",
        "H_LM, bits",
        "H_LM given the context, bits",
        "bits a float",
        "bits a float given the context",
        "removed",
    ]
    table = []
    for (context, size), by_text in groups.items():
        rows = list(by_text.values())

        def mean(key: str, rows: list[Row] = rows) -> float:
            return float(np.mean([row[key] for row in rows]))

        table.append(
            [
                context,
                size,
                len(rows),
                *metrics.bootstrap([row["held"] for row in rows]),
                mean("nats") * BITS,
                mean("nats_given") * BITS,
                mean("bits_per_float"),
                mean("bits_per_float_given"),
                1 - mean("passage_nats_given") / mean("passage_nats"),
            ]
        )
    return Table(name, columns, table, f"Layout {layout}; {CAPTION}")


def _gains(name: str, layout: str, groups: Groups) -> Table:
    """Each context against no context, text by text."""
    plain = _baseline(groups)
    columns = [
        "context",
        "tokens of it",
        "texts",
        "tokens reproduced, times",
        "low",
        "high",
        "bits stored given the context, times",
        "low",
        "high",
        "steps, times",
        "low",
        "high",
    ]
    table = []
    for (context, size), by_text in groups.items():
        pairs = [(by_text[text], plain[text]) for text in by_text if text in plain]
        if pairs and by_text is not plain:
            ratios = [*_ratio(pairs, "held"), *_ratio(pairs, "nats_given"), *_steps(pairs)]
            table.append([context, size, len(pairs), *ratios])
    return Table(name, columns, table, f"Layout {layout}; {COMPARED}")


def _ratio(pairs: Sequence[tuple[Row, Row]], key: str) -> metrics.Interval:
    """The sum with the context over the sum without it."""
    values = np.array([[one[key], other[key]] for one, other in pairs], dtype=np.float64)

    def ratio(chosen: np.ndarray) -> float:
        inside, without = values[chosen.astype(int)].sum(0)
        return float(inside / without) if without else float("nan")

    return metrics.bootstrap(list(range(len(pairs))), ratio)


def _steps(pairs: Sequence[tuple[Row, Row]]) -> Sequence[float | None]:
    """Steps with the context over steps without it, at lengths that are exact both ways."""
    logs, texts = [], []
    for one, other in pairs:
        without = {length: steps for length, accuracy, steps in other["tried"] if accuracy == 1}
        for length, accuracy, steps in one["tried"]:
            if accuracy == 1 and steps and without.get(length):
                logs.append(math.log(steps / without[length]))
                texts.append(one["text"])
    if not logs:
        return None, None, None
    return metrics.bootstrap(logs, lambda drawn: float(np.exp(drawn.mean())), groups=texts)


def _figure(groups: Groups) -> Figure:
    """Capacity length and its information given the context, by the context's length."""
    sizes = sorted({size for _, size in groups})
    drawn = (
        ("Tokens reproduced", "tokens", "held", 1.0),
        ("Information stored, given the context", "bits", "nats_given", BITS),
    )
    return plots.panels(
        [
            (
                plots.Panel(title, "tokens of the context", unit, x_ticks=sizes),
                partial(plots.draw_lines, series=_series(groups, key, scale)),
            )
            for title, unit, key, scale in drawn
        ]
    )


def _series(groups: Groups, key: str, scale: float) -> list[plots.Series]:
    """A line for each kind of context, which begins at the rows without one."""
    made = []
    for name in (PRECEDING, UNRELATED):
        sizes = [size for context, size in groups if context == name]
        points = {0: _baseline(groups), **{size: groups[name, size] for size in sizes}}
        found = {
            size: metrics.bootstrap([row[key] * scale for row in rows.values()])
            for size, rows in points.items()
            if rows
        }
        if sizes and found:
            means, low, high = zip(*found.values(), strict=True)
            made.append(plots.Series(name, means, list(found), low, high))
    return made
