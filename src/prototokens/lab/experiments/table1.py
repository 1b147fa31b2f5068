"""Table 1: how the vectors are arranged decides what they hold.

The paper's five arrangements, and both readings of the guided e: `paper`, where e's own output is
trained to be the first token, and `free`, where it is not; beside them keyed vectors, one alone and
two in turn. For each length, every text's first tokens are fitted in each arrangement.
"""

from __future__ import annotations

import numpy as np

from prototokens.lab import plots, published
from prototokens.lab.job import Config, Fit, Job, Row, Run, outcome
from prototokens.lab.methods import positions
from prototokens.lab.report import Report, Table, layouts_of, most_of_a_source, size_notes, spread
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics

TITLE = "Arrangements of the vectors, by length"
LAYOUTS = ("one", "halves", "alternating", "free", "paper", "keyed:1", "keyed:2")
SHOWN = {
    "one": "[e] x N",
    "halves": "[e] x N/2, [m] x N/2",
    "alternating": "[e, m] x N/2",
    "free": "[e] [m] x N",
    "paper": "[e] [m] x (N-1)",
    "keyed:1": "[e] x N, keyed",
    "keyed:2": "[e, m] x N/2, keyed",
}
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SMOKE_LENGTHS = (1, 2, 4, 8, 16)
SCATTERED = (
    "one",
    "halves",
    "alternating",
)  # arrangements that fail early, so that their fits cost whole budgets


def jobs(config: Config) -> list[Job]:
    lengths = config.lengths(config.pick(SMOKE_LENGTHS, LENGTHS), "free")
    if not lengths:
        return []
    made = []
    for text in config.texts.passages(config.count(4, 50), max(lengths)):
        for layout in config.layouts(LAYOUTS):
            for length in lengths:
                work = config.work(text, length, layout)
                if layout in SCATTERED and length > 4:
                    work = config.recipe.steps * positions(layout, length)
                made.append(
                    Job(
                        "table1",
                        config.model,
                        (text.prefix(length),),
                        layout,
                        config.recipe,
                        config.seed,
                        work=float(work),
                    )
                )
    return made


def run(job: Job, lm: FrozenLM) -> Run:
    ((solution,),) = yield [
        Fit.one(job.text.ids, layout=job.layout, recipe=job.recipe, seed=job.seed)
    ]
    return [{"text": job.text.id, **outcome(solution)}]


LONG_COLUMNS = (
    "layout",
    "length",
    "texts",
    "mean",
    "low",
    "high",
    "std",
    "exact",
    "share exact, low",
    "high",
)


def report(rows: list[Row]) -> Report:
    lengths = sorted({row["length"] for row in rows})
    layouts = layouts_of(rows, LAYOUTS)
    cells = {
        (layout, length): [
            row["accuracy"] for row in rows if row["layout"] == layout and row["length"] == length
        ]
        for layout in layouts
        for length in lengths
    }
    known = {row["model"] for row in rows} == {published.ARRANGEMENT_MODEL}
    wide, long = [], []
    for layout in layouts:
        wide.append(
            [SHOWN.get(layout, layout), *(spread(cells[layout, length]) for length in lengths)]
        )
        if known and layout in published.ARRANGEMENT:
            theirs = published.ARRANGEMENT[layout]
            published_cells = [
                f"{theirs[length].mean} ± {theirs[length].std}" if length in theirs else None
                for length in lengths
            ]
            wide.append([f"{SHOWN[layout]}, published", *published_cells])
        long += [
            [layout, length, *_figures(cells[layout, length])]
            for length in lengths
            if cells[layout, length]
        ]
    texts = len({row["text"] for row in rows})
    missed = sum(not row["exact"] for row in rows)
    return Report(
        title=TITLE,
        notes=[
            f"{texts} texts, 1 seed; {missed} of {len(rows)} fits did not become exact",
            *size_notes(most_of_a_source(rows)),
        ],
        tables=[
            Table(
                "accuracy",
                ["arrangement", *(f"N={length}" for length in lengths)],
                wide,
                "Token accuracy, mean ± std",
            ),
            Table(
                "accuracy_long",
                LONG_COLUMNS,
                long,
                "The same with 95% intervals: of the mean by bootstrap over texts, of the share"
                " that is exact by Clopper and"
                " Pearson",
            ),
        ],
        figures={"table1": _figure(lengths, cells)} if rows else {},
    )


def _figures(accuracies: list[float]) -> list[float]:
    """The cells of a layout and length: texts, mean accuracy, its spread, and the exact ones."""
    count, exact = len(accuracies), sum(value == 1 for value in accuracies)
    mean, deviation = metrics.bootstrap(accuracies), float(np.std(accuracies))
    return [count, *mean, deviation, exact, *metrics.clopper_pearson(exact, count)[1:]]


def _figure(lengths: list[int], cells: dict[tuple[str, int], list[float]]):
    series = []
    for layout in dict.fromkeys(layout for layout, _ in cells):
        at = [
            (length, metrics.bootstrap(cells[layout, length]))
            for length in lengths
            if cells[layout, length]
        ]
        series.append(
            plots.Series(
                SHOWN.get(layout, layout),
                [one.value for _, one in at],
                [length for length, _ in at],
                [one.low for _, one in at],
                [one.high for _, one in at],
            )
        )
    panel = plots.Panel(
        "Token accuracy by arrangement",
        "tokens of the text",
        "accuracy",
        log_x=True,
        x_ticks=lengths,
        y_range=(0, 1.03),
    )
    return plots.lines(panel, series)
