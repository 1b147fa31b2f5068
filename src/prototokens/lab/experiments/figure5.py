"""Figure 5: how far solutions lie from each other.

Of one text, of texts from one context, of texts from different ones.

Of each context several continuations are sampled from the model. All but the last are fitted from
one seed, the last from several. That is done in two ways: with an m for each solution, so that none
depends on the others, and with one m that all texts and seeds share, as in the paper.
Distances are cosine distances between e's; where each has its own m, also between m's, and between
both taken as one vector.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import torch

from prototokens.lab import plots
from prototokens.lab.job import Config, Fit, Fitted, Job, Row, Run
from prototokens.lab.passages import content_hash
from prototokens.lab.report import Report, Table, size_notes
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics
from prototokens.measure.geometry import cosine_distances
from prototokens.solution import Solution

TITLE = "Distances between solutions"
KINDS = {
    "same_text": "same text, other seed",
    "same_context": "same context",
    "other_context": "other context",
}
PARTS = ("e", "m", "e and m")
# What is compared, and whether m is shared.
COMPARED = (("e", False), ("m", False), ("e and m", False), ("e", True))
OWN, ALL = "m of its own", "m shared by all"


def jobs(config: Config) -> list[Job]:
    return plan(config, "figure5")


def plan(config: Config, experiment: str, **values) -> list[Job]:
    """One job for all contexts, and one with a shared m; also those of figure 6.

    Distances between contexts are asked for too, so contexts are not jobs of their own.
    """
    tokens, context = config.pick(12, 128), config.pick(32, 128)
    tokens = config.grid[0] if config.grid else tokens
    if (
        not config.lengths([tokens])
        or (config.model.max_context or tokens + context) < tokens + context
    ):
        return []
    contexts, each, seeds = (
        config.count(4, 50),
        config.pick(4, 10),
        config.seeds(config.pick(4, 10)),
    )
    texts = [
        text
        for some in config.texts.continuations(contexts, each, tokens, context)
        for text in some
    ]
    work = sum(
        config.work(text, tokens) * (len(seeds) if number % each == each - 1 else 1)
        for number, text in enumerate(texts)
    )
    made = []
    for shared in (False, True):
        shape = {"each": each, "seeds": seeds, "shared": shared, **values}
        job = Job(
            experiment,
            config.model,
            tuple(texts),
            "paper",
            config.recipe,
            config.seed,
            shape,
            work=work,
        )
        made.append(replace(job, same=content_hash([fit.key(job.model) for fit in wanted(job)])))
    return made


def wanted(job: Job) -> list[Fit]:
    """For each context in turn, a fit of each continuation.

    Of the last one there is a fit from each seed. With a shared m all are one fit.
    """
    each, seeds = job.values["each"], job.values["seeds"]
    rows = [
        (text.ids, seed)
        for number, text in enumerate(job.texts)
        for seed in (seeds if number % each == each - 1 else seeds[:1])
    ]
    if job.values["shared"]:
        targets, seeds = zip(*rows, strict=True)
        return [Fit(targets, job.layout, job.recipe, share="m", seeds=seeds)]
    return [Fit.one(ids, layout=job.layout, recipe=job.recipe, seed=seed) for ids, seed in rows]


def by_context(
    job: Job, fitted: list[Fitted]
) -> list[tuple[list[Solution | None], list[Solution]]]:
    """For each context: a solution of each continuation, None where it is not exact.

    And the exact ones of the last.
    """
    each, several = job.values["each"], len(job.values["seeds"])
    solutions = [solution for some in fitted for solution in some]
    size = each - 1 + several
    found = []
    for start in range(0, len(solutions), size):
        some = solutions[start : start + size]
        found.append(
            (
                [one if one.exact else None for one in some[:each]],
                [one for one in some[each - 1 :] if one.exact],
            )
        )
    return found


def other_pairs(counts: list[int], each: int, seed: int) -> Iterator[list[tuple[int, int, int]]]:
    """For each context, so many pairs with others.

    (continuation of this one, another context, continuation of it).
    """
    for number, count in enumerate(counts):
        draw = random.Random(f"{seed} {number}")
        others = [other for other in range(len(counts)) if other != number]
        yield [
            (draw.randrange(each), draw.choice(others), draw.randrange(each))
            for _ in range(count if others else 0)
        ]


def distances(one: Solution, other: Solution) -> list[float]:
    """Of e, of m, of both as one vector."""
    pairs = [(one.protos[part], other.protos[part]) for part in (0, 1)] + [
        (one.protos.flatten(), other.protos.flatten())
    ]
    return [float(cosine_distances(torch.stack(pair))[0, 1]) for pair in pairs]


def run(job: Job, lm: FrozenLM) -> Run:
    fitted = yield wanted(job)
    contexts, each = by_context(job, fitted), job.values["each"]
    counts = [each * (each - 1) // 2] * len(contexts)
    made = []
    for number, pairs in enumerate(other_pairs(counts, each, job.seed)):
        mine, seeds = contexts[number]
        made.append(
            {
                "context": number,
                "shared": job.values["shared"],
                "same_text": [distances(one, other) for one, other in combinations(seeds, 2)],
                "same_context": [
                    distances(one, other)
                    for one, other in combinations([one for one in mine if one], 2)
                ],
                "other_context": [
                    distances(one, other)
                    for number, there, its in pairs
                    if (one := mine[number]) and (other := contexts[there][0][its])
                ],
                "length": len(job.texts[0].ids),
                "solutions": each - 1 + len(job.values["seeds"]),
                "exact": sum(one is not None for one in mine[:-1]) + len(seeds),
            }
        )
    return made


def report(rows: list[Row]) -> Report:
    table, differences, each = [], [], []
    for part, shared in COMPARED:
        some = [row for row in rows if row["shared"] is shared]
        drawn = {}
        for kind, name in KINDS.items():
            values = [pair[PARTS.index(part)] for row in some for pair in row[kind]]
            if values:
                drawn[name] = values
                groups = [row["context"] for row in some for _ in row[kind]]
                found = metrics.bootstrap(values, groups=groups)
                table.append(
                    [part, ALL if shared else OWN, name, len(values), *found, float(np.std(values))]
                )
        differences += [
            [part, ALL if shared else OWN, *line] for line in _paired(some, PARTS.index(part))
        ]
        if drawn:
            title = f"Between {part}'s" if part != "e and m" else "Between e and m as one"
            panel = plots.Panel(
                title + (", m shared" if shared else ""), "cosine distance", "density"
            )
            each.append((panel, lambda axes, drawn=drawn: plots.draw_densities(axes, drawn)))
    fits, exact = sum(row["solutions"] for row in rows), sum(row["exact"] for row in rows)
    notes = [
        f"{len({row['context'] for row in rows})} contexts; {fits} fits, of which {fits - exact}"
        " did not become exact and are"
        " left out",
        f"texts: continuations of {rows[0]['length']} tokens, sampled from the model"
        if rows
        else "no rows",
        f"{OWN}: no solution depends on the others; {ALL}: texts and seeds, as in the paper",
        *size_notes(len({row["context"] for row in rows}), "contexts"),
    ]
    return Report(
        title=TITLE,
        notes=notes,
        tables=[
            Table(
                "figure5",
                ("vectors", "m", "pairs of", "count", "mean", "low", "high", "std"),
                table,
                "Cosine distance; 95% intervals by bootstrap over contexts",
            ),
            Table(
                "figure5_differences",
                ("vectors", "m", "further apart", "than", "contexts", "difference", "low", "high"),
                differences,
                "Differences of mean cosine distance, paired by context; 95% intervals by bootstrap"
                " over contexts",
            ),
        ],
        figures={"figure5": plots.panels(each)} if table else {},
    )


def _paired(rows: list[Row], part: int) -> list[list]:
    """Mean distance of one kind of pairs minus that of the next nearer kind, in each context.

    Mean over contexts.
    """
    lines = []
    for nearer, further in pairwise(KINDS):
        both = [row for row in rows if row[nearer] and row[further]]
        apart = [
            float(
                np.mean([pair[part] for pair in row[further]])
                - np.mean([pair[part] for pair in row[nearer]])
            )
            for row in both
        ]
        if apart:
            lines.append([KINDS[further], KINDS[nearer], len(apart), *metrics.bootstrap(apart)])
    return lines
