"""Figure 6: distances between solutions at equal distance between their texts.

Is anything of the context left in the vectors?

Pairs of texts from one context and from different ones, solved as for figure 5 (the same fits). The
distance between two texts is taken in two ways: in tokens, as the cosine distance of their TF-IDF
vectors over token ids, and in meaning, as that of their sentence embeddings, where an embedding
model was given. Pairs are binned by that distance and compared within each bin; once for solutions
with an m of their own, and once for those that share one, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise, product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prototokens._util.extras import need
from prototokens.lab import plots
from prototokens.lab.embedding import embedder
from prototokens.lab.experiments import figure5
from prototokens.lab.job import Config, Job, Row, Run
from prototokens.lab.passages import Passage
from prototokens.lab.report import Report, Table, size_notes
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics
from prototokens.measure.geometry import cosine_distances

TITLE = "Distances between solutions at equal distance between the texts"
MEASURES = {
    "token": "TF-IDF distance of the texts",
    "semantic": "distance of the texts' embeddings",
}
BINS = 6
# Pairs with other contexts, for each of one context: near texts are rare among them, and the bins
# have to be filled.
OTHERS = 6
COLUMNS = (
    "distance",
    "m",
    "pairs of",
    "from",
    "to",
    "pairs",
    "mean between texts",
    "mean between e's",
    "low",
    "high",
)


class Pair(NamedTuple):
    """One pair of solutions.

    Whose context it is, whether it is of both, the distance of the texts and that of the e's.
    """

    context: int
    same: bool
    apart: float
    distance: float


def jobs(config: Config) -> list[Job]:
    return figure5.plan(config, "figure6", embedder=config.embedder)


def run(job: Job, lm: FrozenLM) -> Run:
    fitted = yield figure5.wanted(job)
    contexts, each = figure5.by_context(job, fitted), job.values["each"]
    apart = {"token": tf_idf_distances(job.texts)}
    if job.values["embedder"]:
        texts = [lm.detokenize(text.ids) for text in job.texts]
        apart["semantic"] = cosine_distances(embedder(job.values["embedder"])(texts))
    counts = [OTHERS * each * (each - 1) // 2] * len(contexts)
    made = []
    for context, pairs in enumerate(figure5.other_pairs(counts, each, job.seed)):
        within = [(one, context, other) for one, other in combinations(range(each), 2)]
        row: Row = {
            "context": context,
            "shared": job.values["shared"],
            "length": len(job.texts[0].ids),
        }
        for kind, some in (("same", within), ("other", sorted(set(pairs)))):
            found = []
            for number, there, its in some:
                one, other = contexts[context][0][number], contexts[there][0][its]
                if one and other:
                    at = (context * each + number, there * each + its)
                    measured = [
                        float(apart[name][at]) if name in apart else None for name in MEASURES
                    ]
                    found.append([*measured, figure5.distances(one, other)[0]])
            row[kind] = found
        row["exact"] = sum(one is not None for one in contexts[context][0])
        made.append(row | {"texts_of_context": each})
    return made


def tf_idf_distances(texts: Sequence[Passage]) -> Float[Tensor, "texts texts"]:
    """Cosine distances of the texts' TF-IDF vectors, a token id being a term."""
    library = need("sklearn.feature_extraction.text", "metrics", "figure6")
    words = library.TfidfVectorizer(analyzer=lambda ids: ids)
    return cosine_distances(
        torch.from_numpy(words.fit_transform([list(text.ids) for text in texts]).toarray())
    )


def pairs_of(rows: list[Row], measure: str) -> list[Pair]:
    """All pairs that have that distance between their texts."""
    column = list(MEASURES).index(measure)
    return [
        Pair(row["context"], kind == "same", measured[column], measured[-1])
        for row in rows
        for kind in ("same", "other")
        for measured in row[kind]
        if measured[column] is not None
    ]


def edges_of(pairs: list[Pair]) -> np.ndarray:
    """Edges of bins that hold about as many pairs of one context each.

    What lies outside has nothing to be compared with.
    """
    apart = [pair.apart for pair in pairs if pair.same]
    return np.unique(np.quantile(apart, np.linspace(0, 1, BINS + 1))) if apart else np.zeros(0)


def adjusted(pairs: list[Pair], edges: np.ndarray) -> metrics.Interval:
    """Mean distance within contexts minus that across them.

    It is taken bin by bin, weighted by the pairs within contexts.

    Negative: at equal distance between the texts, solutions from one context lie closer.
    """
    bins = np.clip(
        np.searchsorted(edges, [pair.apart for pair in pairs], side="right") - 1, 0, len(edges) - 2
    )
    inside = np.array([edges[0] <= pair.apart <= edges[-1] for pair in pairs])
    same = np.array([pair.same for pair in pairs])
    value = np.array([pair.distance for pair in pairs])

    def difference(chosen: np.ndarray) -> float:
        indices = chosen.astype(int)
        total, weight = 0.0, 0
        for number in range(len(edges) - 1):
            here = indices[inside[indices] & (bins[indices] == number)]
            own, others = value[here[same[here]]], value[here[~same[here]]]
            if len(own) and len(others):
                total, weight = total + len(own) * (own.mean() - others.mean()), weight + len(own)
        return total / weight if weight else 0.0

    groups = [pair.context for pair in pairs]
    return metrics.bootstrap(list(range(len(pairs))), difference, groups=groups, resamples=500)


def report(rows: list[Row]) -> Report:
    table, each, notes = [], [], []
    for shared, measure in product((False, True), MEASURES):
        its, name = figure5.ALL if shared else figure5.OWN, MEASURES[measure]
        pairs = pairs_of([row for row in rows if row["shared"] is shared], measure)
        edges = edges_of(pairs)
        if len(edges) < 2:
            missing = (
                " (give an embedding model: --embedder)"
                if measure == "semantic" and not pairs
                else ""
            )
            notes.append(
                f"{name}, {its}:"
                f" {'all texts are equally far apart' if pairs else 'not measured'}{missing}"
            )
            continue
        series = []
        for same in (True, False):
            lines = _binned([pair for pair in pairs if pair.same is same], edges)
            kind = "same context" if same else "other context"
            table += [[measure, its, kind, *line] for line in lines]
            # A bin's position is the mean distance of the texts in it.
            x, y, low, high = ([line[column] for line in lines] for column in range(3, 7))
            series.append(plots.Series(kind, y, x, low, high))
        panel = plots.Panel(f"By {measure} distance, {its}", name, "cosine distance of the e's")
        each.append((panel, lambda axes, series=series: plots.draw_lines(axes, series)))
        value, low, high = adjusted(pairs, edges)
        notes.append(
            f"{name}, {its}: at equal distance, e's from one context are {abs(value):.4f}"
            f" {'closer' if value < 0 else 'further apart'} than from two (difference {value:+.4f},"
            f" 95% interval {low:+.4f} to"
            f" {high:+.4f}, by bootstrap over contexts)"
        )
    texts, exact = sum(row["texts_of_context"] for row in rows), sum(row["exact"] for row in rows)
    contexts = len({row["context"] for row in rows})
    return Report(
        title=TITLE,
        notes=[
            f"{contexts} contexts, 1 seed; {texts} fits, of which {texts - exact} did not become"
            " exact and are left out",
            *notes,
            "each interval is for one comparison: none is corrected for the number of comparisons",
            *size_notes(contexts, "contexts"),
        ],
        tables=[
            Table(
                "figure6",
                COLUMNS,
                table,
                "Cosine distance between e's, with 95% intervals by bootstrap over contexts",
            )
        ],
        figures={"figure6": plots.panels(each)} if each else {},
    )


def _binned(pairs: list[Pair], edges: np.ndarray) -> list[list]:
    """For each bin that has pairs, its line of the table.

    From, to, how many, mean distance of the texts, mean of the e's and its interval.
    """
    found = []
    for number, (low, high) in enumerate(pairwise(edges)):
        last = number == len(edges) - 2
        here = [pair for pair in pairs if low <= pair.apart < high or (last and pair.apart == high)]
        if here:
            apart = float(np.mean([pair.apart for pair in here]))
            mean = metrics.bootstrap(
                [pair.distance for pair in here], groups=[pair.context for pair in here]
            )
            found.append([float(low), float(high), len(here), apart, *mean])
    return found
