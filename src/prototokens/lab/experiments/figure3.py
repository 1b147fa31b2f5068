"""Figure 3: information stored in vectors, in one step against token by token.

Both have the same number of trained vectors.

One vector: e with an m that all texts share, and one keyed vector, against one memory vector. Two:
e and m of a text's own, in the paper's layout and keyed, against two memory vectors. The climbs are
table 3's, on the same texts, so what was fitted for it is not fitted again. Of the memory vectors
both are reported: accuracy under teacher forcing, by which the paper counts, and what real greedy
decoding reproduces; and what they add to the model without them, which knows something of the text
itself when it is fed in: token gain and information gain.
"""

from __future__ import annotations

import numpy as np
import torch

from prototokens.engine.forward import scored_hidden
from prototokens.engine.head import argmax, score
from prototokens.engine.inputs import Cramming, arrange
from prototokens.lab import capacity, plots
from prototokens.lab.job import Config, Job, Row, Run
from prototokens.lab.methods import method_of
from prototokens.lab.passages import labels_of, sources_of
from prototokens.lab.report import (
    Report,
    Table,
    layouts_of,
    most_of_a_source,
    share,
    size_notes,
)
from prototokens.layout import MEMORY
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics
from prototokens.solution import Solution

TITLE = "Information reproduced: one-step against autoregressive"
LAYOUTS = (capacity.SHARING, "keyed:1", "keyed:2")
RAYS = (1.0, 1 / 2, 1 / 5)


def jobs(config: Config) -> list[Job]:
    layouts = config.layouts(LAYOUTS)
    counts = {method_of(layout).layout.vectors for layout in layouts}
    if capacity.SHARING in layouts:
        counts.add(1)  # a text's own vector beside the shared one
    ways = (*layouts, *(f"{MEMORY}{count}" for count in sorted(counts)))
    return [
        job
        for texts in config.texts.each()
        for job in capacity.jobs_of("figure3", config, texts, ways, shared=True)
    ]


def run(job: Job, lm: FrozenLM) -> Run:
    shared, count = job.values["shared"], len(job.texts)
    # A single text shares its m with nobody: then one step has two vectors of its own, and the
    # comparison is not made.
    if shared and count == 1:
        return []
    tried = yield from capacity.climb(
        job.texts, job.values["lengths"], job, share="m" if shared else None
    )
    made = []
    for text, fits in zip(job.texts, tried, strict=True):
        floats = lm.d_model * (1 + 1 / count) if shared else fits[0].protos.numel()
        vectors = 1 if shared else fits[0].protos.shape[0]
        way = "autoregressive" if job.layout.startswith(MEMORY) else "one-step"
        row = capacity.describe(lm, text, fits, floats)
        best = capacity.longest_reproduced(fits)
        gained = gains(lm, best) if best and way == "autoregressive" else {}
        about = {"source": text.source, "vectors": vectors, "shared": shared, "way": way}
        made.append({**about, **row, **gained})
    return made


@torch.no_grad()
def gains(lm: FrozenLM, solution: Solution) -> Row:
    """Token gain and information gain of memory vectors.

    The text is fed in behind the vectors, and by itself.
    """
    ids, vectors = torch.tensor(solution.ids, device=lm.device), solution.protos.shape[0]
    arranged = arrange(lm, [Cramming(vectors, solution.layout.prefix).plan(solution.ids)], vectors)
    hidden = scored_hidden(lm, arranged, solution.protos[None].to(lm.device), lm.hidden)
    given = score(lm, hidden, ids, gradient=False).loss
    bos = None if lm.tokenizer is None else lm.tokenizer.bos_token_id
    # The first token is guessed from the beginning of a sequence; where the model has none, not at
    # all.
    lead = ids.new_tensor([] if bos is None else [bos])
    alone = argmax(lm, lm.hidden(lm.embed(torch.cat([lead, ids]))[None])[0])[
        : len(ids) - 1 + len(lead)
    ]
    without = torch.cat([ids.new_full((1 - len(lead),), -1), alone])
    return {
        "token_gain": metrics.token_gain(argmax(lm, hidden), without, ids),
        "information_gain": metrics.information_gain(lm.surprisal(ids), given),
    }


def report(rows: list[Row]) -> Report:
    sources = sources_of(rows)
    table, clouds = [], []
    for vectors, layout, shared in _ways(rows):
        for source in sources:
            pairs = _pairs(rows, source, vectors, layout, shared)
            if not pairs:
                continue
            one, other = ([pair[side]["nats"] for pair in pairs] for side in (0, 1))
            shown = f"{layout}, m shared" if shared else layout
            table.append(_line(source, shown, vectors, pairs))
            name = shown + (f", {labels_of(sources)[source]}" if len(sources) > 1 else "")
            clouds.append(plots.Series(name, one, other))
    panel = plots.Panel(TITLE, "H_LM token by token, nats", "H_LM in one step, nats")
    memory = [row for row in rows if row["way"] == "autoregressive" and row["held"]]
    greedy = sum(row["greedy_exact"] for row in memory)
    return Report(
        title=TITLE,
        notes=[
            f"{len({row['text'] for row in rows})} texts, 1 seed; {capacity.lower_bounds(rows)}",
            f"texts that memory vectors reproduce under teacher forcing: {len(memory)}; exactly by"
            " greedy decoding:"
            f" {share(greedy, len(memory))}",
            "token gain and information gain: of the autoregressive rows, on the longest prefix"
            " reproduced, in tokens and nats",
            "published for six models: about equal for random words; for natural text about half,"
            " at worst a fifth",
            "the recipe `fast` was searched for one-step fits and never for the autoregressive"
            " baseline: a ratio of `fast`"
            " fits compares two recipes as well as two ways of decoding",
            *size_notes(most_of_a_source(rows)),
        ],
        tables=[
            Table(
                "figure3",
                COLUMNS,
                table,
                "H_LM in nats, mean over texts, with 95% intervals by bootstrap over texts",
            )
        ],
        figures={"figure3": plots.scatter(panel, clouds, RAYS)} if clouds else {},
    )


COLUMNS = (
    "texts",
    "layout",
    "trained vectors",
    "count",
    "one-step",
    "low",
    "high",
    "autoregressive",
    "low",
    "high",
    "ratio",
    "ratio low",
    "ratio high",
    "C_tokens one-step",
    "C_tokens autoregressive",
    "greedy accuracy",
    "token gain",
    "information gain",
)


def _ways(rows: list[Row]) -> list[tuple[int, str, bool]]:
    """(trained vectors of a text, layout, whether m is shared) of the one-step rows, in order."""
    one_step = [row for row in rows if row["way"] == "one-step"]
    order = layouts_of(one_step, LAYOUTS)
    found = {(row["vectors"], order.index(row["layout"]), _shared(row)) for row in one_step}
    return [(vectors, order[number], shared) for vectors, number, shared in sorted(found)]


def _shared(row: Row) -> bool:
    """Whether a one-step row shares its m; rows of before keyed layouts say so by their vectors."""
    return row.get("shared", row["layout"] == capacity.SHARING and row["vectors"] == 1)


def _pairs(
    rows: list[Row], source: str, vectors: int, layout: str, shared: bool
) -> list[tuple[Row, Row]]:
    """(one-step, autoregressive) of each text that has both."""
    mine = [row for row in rows if row["source"] == source and row["vectors"] == vectors]
    other = {row["text"]: row for row in mine if row["way"] == "autoregressive"}
    return [
        (row, other[row["text"]])
        for row in mine
        if row["way"] == "one-step"
        and (row["layout"], _shared(row)) == (layout, shared)
        and row["text"] in other
    ]


def _line(source: str, layout: str, vectors: int, pairs: list[tuple[Row, Row]]) -> list:
    one, other = (np.array([pair[side]["nats"] for pair in pairs]) for side in (0, 1))
    ratio = metrics.bootstrap(
        list(range(len(pairs))),
        lambda chosen: _ratio(one[chosen.astype(int)], other[chosen.astype(int)]),
    )
    tokens = [capacity.summary([pair[side] for pair in pairs]).c_tokens for side in (0, 1)]
    columns = [
        [pair[1][name] for pair in pairs if name in pair[1]]
        for name in ("greedy_accuracy", "token_gain", "information_gain")
    ]
    means = [*metrics.bootstrap(one.tolist()), *metrics.bootstrap(other.tolist())]
    return [
        source,
        layout,
        vectors,
        len(pairs),
        *means,
        *ratio,
        *tokens,
        *(float(np.mean(some)) if some else None for some in columns),
    ]


def _ratio(one: np.ndarray, other: np.ndarray) -> float:
    """Of the means; not a number where no prefix was reproduced token by token."""
    return float(one.mean() / other.mean()) if other.mean() else float("nan")
