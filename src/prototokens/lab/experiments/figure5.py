"""Figure 5: how far solutions lie from each other: of one text, of texts from one context, of texts from different ones.

Of each context several continuations are sampled from the model. All but the last are fitted from one seed, the last from
several. Distances are cosine distances between e's, between m's, and between both taken as one vector. In the paper m is shared
by all texts; here each solution has its own, so that solutions do not depend on each other's company.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import torch

from prototokens.frozen_lm import FrozenLM
from prototokens.lab import plots
from prototokens.lab.job import Config, Fit, Fitted, Job, Row, Run
from prototokens.lab.report import Report, Table
from prototokens.measure import metrics
from prototokens.measure.geometry import cosine_distances
from prototokens.solution import Solution

TITLE = "Distances between solutions"
KINDS = {"same_text": "same text, other seed", "same_context": "same context", "other_context": "other context"}
PARTS = ("e", "m", "e and m")


def jobs(config: Config) -> list[Job]:
    return plan(config, "figure5")


def plan(config: Config, experiment: str, **values) -> list[Job]:
    """One job for all contexts, as distances between them are asked for too; also figure 6's."""
    tokens, context = config.pick(12, 128), config.pick(32, 128)
    tokens = config.grid[0] if config.grid else tokens
    if not config.lengths([tokens]) or (config.model.max_context or tokens + context) < tokens + context:
        return []
    contexts, each, seeds = config.count(5, 50), config.pick(4, 10), config.seeds(config.pick(4, 10))
    texts = [text for some in config.texts.continuations(contexts, each, tokens, context) for text in some]
    work = sum(
        config.work(text, tokens) * (len(seeds) if number % each == each - 1 else 1) for number, text in enumerate(texts)
    )
    shape = {"each": each, "seeds": seeds, **values}
    return [Job(experiment, config.model, tuple(texts), "paper", config.recipe, config.seed, shape, work=work)]


def wanted(job: Job) -> list[Fit]:
    """For each context in turn: a fit of each continuation, and of the last one a fit from each seed."""
    each, seeds = job.values["each"], job.values["seeds"]
    fits = []
    for number, text in enumerate(job.texts):
        some = seeds if number % each == each - 1 else seeds[:1]
        fits += [Fit.one(text.ids, layout=job.layout, recipe=job.recipe, seed=seed) for seed in some]
    return fits


def by_context(job: Job, fitted: list[Fitted]) -> list[tuple[list[Solution | None], list[Solution]]]:
    """For each context: a solution of each continuation, None where it is not exact; and the exact ones of the last."""
    each, several = job.values["each"], len(job.values["seeds"])
    solutions = [solution for (solution,) in fitted]
    size = each - 1 + several
    found = []
    for start in range(0, len(solutions), size):
        some = solutions[start : start + size]
        found.append(([one if one.exact else None for one in some[:each]], [one for one in some[each - 1 :] if one.exact]))
    return found


def other_pairs(counts: list[int], each: int, seed: int) -> Iterator[list[tuple[int, int, int]]]:
    """For each context, so many pairs with others: (continuation of this one, another context, continuation of it)."""
    for place, count in enumerate(counts):
        draw = random.Random(f"{seed} {place}")
        others = [other for other in range(len(counts)) if other != place]
        yield [(draw.randrange(each), draw.choice(others), draw.randrange(each)) for _ in range(count if others else 0)]


def distances(one: Solution, other: Solution) -> list[float]:
    """Of e, of m, of both as one vector."""
    pairs = [(one.protos[part], other.protos[part]) for part in (0, 1)] + [(one.protos.flatten(), other.protos.flatten())]
    return [float(cosine_distances(torch.stack(pair))[0, 1]) for pair in pairs]


def run(job: Job, lm: FrozenLM) -> Run:
    fitted = yield wanted(job)
    contexts, each = by_context(job, fitted), job.values["each"]
    counts = [each * (each - 1) // 2] * len(contexts)
    made = []
    for place, pairs in enumerate(other_pairs(counts, each, job.seed)):
        mine, seeds = contexts[place]
        made.append(
            {
                "context": place,
                "same_text": [distances(one, other) for one, other in combinations(seeds, 2)],
                "same_context": [distances(one, other) for one, other in combinations([one for one in mine if one], 2)],
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
    table, samples = [], {}
    for number, part in enumerate(PARTS):
        samples[part] = {
            name: ([pair[number] for row in rows for pair in row[kind]], [row["context"] for row in rows for _ in row[kind]])
            for kind, name in KINDS.items()
        }
        for name, (values, contexts) in samples[part].items():
            if values:
                found = metrics.bootstrap(values, groups=contexts)
                table.append([part, name, len(values), *found, float(np.std(values))])
    each = [
        (
            plots.Panel(f"Between {part}'s" if part != "e and m" else "Between e and m as one", "cosine distance", "density"),
            lambda axes, part=part: plots.draw_densities(axes, {name: values for name, (values, _) in samples[part].items()}),
        )
        for part in PARTS
    ]
    fits, exact = sum(row["solutions"] for row in rows), sum(row["exact"] for row in rows)
    notes = [
        f"{len(rows)} contexts; {fits} fits, of which {fits - exact} did not become exact and are left out",
        f"texts: continuations of {rows[0]['length']} tokens, sampled from the model" if rows else "no rows",
        "each solution has an m of its own; in the paper m is shared",
    ]
    return Report(
        title=TITLE,
        notes=notes,
        tables=[
            Table(
                "figure5",
                ("vectors", "pairs of", "count", "mean", "low", "high", "std"),
                table,
                "Cosine distance; 95% intervals by bootstrap over contexts",
            )
        ],
        figures={"figure5": plots.panels(each, columns=3)} if table else {},
    )
