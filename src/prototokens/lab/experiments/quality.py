"""Quality: what inexact reconstructions are worth as texts, and which tokens are wrong.

Texts are fitted with budgets of steps that are too small for them, and at lengths that are too
long, so that all degrees of accuracy occur. Each reconstruction is scored against its text; each of
its tokens is recorded with its surprisal and position, and whether it is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import torch

from prototokens.engine.decode import decode_ids
from prototokens.lab import plots
from prototokens.lab.embedding import embedder
from prototokens.lab.job import Config, Fit, Job, Row, Run, outcome
from prototokens.lab.methods import positions
from prototokens.lab.report import Report, Table, most_of_a_source, size_notes
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics, quality

TITLE = "What imperfect reconstructions are worth"
ACCURACIES = (
    0.0,
    0.25,
    0.5,
    0.75,
    0.9,
    0.99,
    1.0,
)  # edges of the table's bins; what is exact has a line of its own
MEASURES = {
    "cer": "character error rate",
    "chrf": "chrF",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
    "perplexity_ratio": "perplexity, times the text's",
    "semantic": "semantic similarity",
}
PROPERTIES = {
    "frequency": "occurrences of the token in the texts",
    "surprisal": "surprisal, nats",
    "later surprisal": "surprisal behind the text's first fifth, nats",
    "position": "position, share of the text",
}
OPEN = 1e9  # the edge of a bin without an end
WHERE = "Where the wrong tokens are, with 95% intervals by bootstrap over texts"
EDGES = {
    "frequency": (1.0, 2.0, 4.0, 8.0, 16.0, 64.0, OPEN),
    "surprisal": (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, OPEN),
    # A text's first tokens are both the most surprising and the best reproduced. They are left out
    # here, so that surprisal is not confounded with position.
    "later surprisal": (0.0, 1.0, 4.0, 8.0, OPEN),
    "position": tuple(number / 5 for number in range(6)),
}


def jobs(config: Config) -> list[Job]:
    lengths = config.lengths(config.pick((16, 32), (64, 128, 256, 512)))
    if not lengths:
        return []
    budgets = config.pick((60, 120, 240), (100, 300, 1000, 3000))
    made = []
    for text in config.texts.passages(config.count(4, 50), max(lengths)):
        for length in lengths:
            for steps in budgets:
                recipe = replace(config.recipe, steps=steps)
                values = {"embedder": config.embedder}
                work = float(steps * positions("paper", length))
                made.append(
                    Job(
                        "quality",
                        config.model,
                        (text.prefix(length),),
                        "paper",
                        recipe,
                        config.seed,
                        values,
                        work=work,
                    )
                )
    return made


def run(job: Job, lm: FrozenLM) -> Run:
    ids = list(job.text.ids)
    ((solution,),) = yield [Fit.one(ids, layout=job.layout, recipe=job.recipe, seed=job.seed)]
    (decoded,) = decode_ids(lm, [solution]).ids
    reference, text = lm.detokenize(ids), lm.detokenize(decoded)
    nats = lm.surprisal(ids)
    own = quality.perplexity(nats)
    row = {
        "text": job.text.id,
        "budget": job.recipe.steps,
        **outcome(solution),
        "reference": reference,
        "reconstruction": text,
        **quality.scores(reference, text)._asdict(),
        "perplexity": quality.perplexity(lm.surprisal(decoded)),
        "perplexity_of_text": own,
        "ids": ids,
        "right": [int(one == other) for one, other in zip(decoded, ids, strict=True)],
        "surprisal": [round(value, 4) for value in nats.tolist()],
    }
    row["perplexity_ratio"] = row["perplexity"] / own
    if job.values["embedder"]:
        one, other = embedder(job.values["embedder"])([reference, text])
        row["semantic"] = quality.semantic_similarity(one, other)
    return [row]


def report(rows: list[Row]) -> Report:
    measures = {name: shown for name, shown in MEASURES.items() if any(name in row for row in rows)}
    bins = {name: some for name, some in _by_accuracy(rows).items() if some}
    table = [[name, *_means(some, measures)] for name, some in bins.items()]
    columns = [
        "token accuracy",
        "fits",
        "texts",
        *(f"{shown}{end}" for shown in measures.values() for end in ("", " low", " high")),
    ]
    errors = [
        [name, one.low, None if one.high >= OPEN else one.high, one.tokens, one.wrong, *share]
        for name in PROPERTIES
        for one, share in _errors(rows, name)
    ]
    samples = [
        [f"{row['accuracy']:.2f}", _line(row["reference"]), _line(row["reconstruction"])]
        for some in bins.values()
        for row in some[:1]
    ]
    exact = sum(row["exact"] for row in rows)
    missing = (
        []
        if "semantic" in measures
        else ["semantic similarity: not measured (give an embedding model: --embedder)"]
    )
    notes = [
        f"{len({row['text'] for row in rows})} texts, 1 seed, {len(rows)} fits, {len(rows) - exact}"
        " of them not exact",
        "perplexity: of the reconstruction under the same model, divided by that of the text",
        "wrong tokens are counted over all fits that are not exact",
        *size_notes(most_of_a_source(rows)),
        *missing,
    ]
    return Report(
        title=TITLE,
        notes=notes,
        tables=[
            Table(
                "quality",
                columns,
                table,
                "Means of the fits of each bin, with 95% intervals by bootstrap over texts",
            ),
            Table(
                "errors",
                ("property", "from", "to", "tokens", "wrong", "share wrong", "low", "high"),
                errors,
                WHERE,
            ),
            Table("samples", ("accuracy", "text", "reconstruction"), samples, "One of each bin"),
        ],
        figures={"quality": _figure(rows, measures), "errors": _errors_figure(rows)}
        if rows
        else {},
    )


def _means(rows: list[Row], measures: Iterable[str]) -> list[float]:
    """The cells of a bin: its fits, its texts, and the mean of each measure with its interval."""
    texts = [row["text"] for row in rows]
    means = [
        metrics.bootstrap([row[measure] for row in rows], groups=texts) for measure in measures
    ]
    return [len(rows), len(set(texts)), *(number for one in means for number in one)]


def _by_accuracy(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows in the bins of the table."""
    found = {}
    for low, high in pairwise(ACCURACIES):
        found[f"{low:g} to {high:g}"] = [row for row in rows if low <= row["accuracy"] < high]
    found["exact"] = [row for row in rows if row["accuracy"] == 1]
    return found


def _errors(rows: list[Row], name: str) -> list[tuple[quality.Bin, metrics.Interval]]:
    """Wrong tokens by a property, over the fits that are not exact.

    Bins that have any, and the share that is wrong.
    """
    inexact = [row for row in rows if not row["exact"]]
    longest: dict[str, list[int]] = {}
    for row in rows:
        longest[row["text"]] = max(longest.get(row["text"], []), row["ids"], key=len)
    property_of = {
        "frequency": lambda row: quality.frequencies(row["ids"], list(longest.values())),
        "surprisal": lambda row: row["surprisal"],
        "position": _positions,
        "later surprisal": lambda row: [
            nats if position >= EDGES["position"][1] else -1.0
            for nats, position in zip(row["surprisal"], _positions(row), strict=True)
        ],
    }[name]
    values = [float(value) for row in inexact for value in property_of(row)]
    wrong = [not right for row in inexact for right in row["right"]]
    texts = [row["text"] for row in inexact for _ in row["right"]]
    found = []
    for one in quality.error_bins(values, torch.tensor(wrong, dtype=torch.bool), EDGES[name]):
        here = [index for index, value in enumerate(values) if one.low <= value < one.high]
        if here:
            groups = [texts[index] for index in here]
            share = metrics.bootstrap(
                [float(wrong[index]) for index in here], groups=groups, resamples=500
            )
            found.append((one, share))
    return found


def _positions(row: Row) -> list[float]:
    """Each token's position, as a share of its text."""
    return [index / len(row["ids"]) for index in range(len(row["ids"]))]


def _figure(rows: list[Row], measures: dict[str, str]):
    """Every measure against accuracy, a point a fit."""
    each = []
    for measure, shown in measures.items():
        x, y = [row["accuracy"] for row in rows], [row[measure] for row in rows]
        panel = plots.Panel(shown, "token accuracy", "", log_y=measure == "perplexity_ratio")
        each.append(
            (panel, lambda axes, x=x, y=y: plots.draw_scatter(axes, [plots.Series("", y, x)]))
        )
    return plots.panels(each, columns=3)


def _errors_figure(rows: list[Row]):
    each = []
    for name, shown in PROPERTIES.items():
        bins = _errors(rows, name)
        groups = [
            f"{one.low:g}+" if one.high >= OPEN else f"{one.low:g}-{one.high:g}" for one, _ in bins
        ]
        y, low, high = zip(*(share for _, share in bins), strict=True) if bins else ((), (), ())
        series = plots.Series("", y, (), low, high)
        panel = plots.Panel(f"Wrong tokens by {name}", shown, "share wrong")
        each.append(
            (
                panel,
                lambda axes, groups=groups, series=series: plots.draw_bars(axes, groups, [series]),
            )
        )
    return plots.panels(each, columns=2)


def _line(text: str) -> str:
    """A text on one line, cut to the width of a table."""
    line = " ".join(text.split())
    return line if len(line) <= 100 else line[:99] + "\u2026"
