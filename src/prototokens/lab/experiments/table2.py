"""Table 2: one vector, e or m, shared by a group of texts.

Each text keeps the other vector for itself.

Every group is fitted with several seeds. "Mean" is over texts and seeds. "Best" takes, for each
group, the seed at which most of the group's tokens are right, since a shared vector has to serve
all its texts at once; then the mean over texts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from prototokens.lab import plots, published
from prototokens.lab.job import Config, Fit, Job, Row, Run, outcome
from prototokens.lab.report import Report, Table, most_of_a_source, size_notes, spread
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics

TITLE = "One vector shared by groups of texts"
GROUPS = (1, 4, 16, 64, 256)
SMOKE_GROUPS = (1, 2, 4)
LENGTH, SMOKE_LENGTH = 256, 8
SHARED = ("e", "m")


def jobs(config: Config) -> list[Job]:
    (length,) = config.lengths([config.pick(SMOKE_LENGTH, LENGTH)])[:1] or [0]
    if not length:
        return []
    count = config.count(4, 256)
    texts = config.texts.passages(count, length)
    made = []
    for size in [one for one in config.pick(SMOKE_GROUPS, GROUPS) if one <= count]:
        # A group of one shares with no one: the same fit whichever vector it would be.
        for share in SHARED if size > 1 else (None,):
            for start in range(0, count - size + 1, size):
                group = tuple(texts[start : start + size])
                work = sum(config.work(text, length) for text in group)
                for seed in config.seeds(config.pick(2, 10)):
                    values = {"share": share, "group": size, "number": start // size}
                    made.append(
                        Job(
                            "table2",
                            config.model,
                            group,
                            "paper",
                            config.recipe,
                            seed,
                            values,
                            work=work,
                        )
                    )
    return made


def run(job: Job, lm: FrozenLM) -> Run:
    targets = tuple(text.ids for text in job.texts)
    (fitted,) = yield [Fit(targets, job.layout, job.recipe, job.seed, job.values["share"])]
    return [
        {"text": text.id, **job.values, "seed": job.seed, **outcome(solution)}
        for text, solution in zip(job.texts, fitted, strict=True)
    ]


def report(rows: list[Row]) -> Report:
    sizes = sorted({row["group"] for row in rows})
    known = {row["model"] for row in rows} == {published.SHARING_MODEL}
    wide, long, series = [], [], []
    for share in SHARED:
        for way in ("best", "mean"):
            cells = {size: _accuracies(rows, share, size, best=way == "best") for size in sizes}
            wide.append([share, way, *(spread(cells[size]) for size in sizes)])
            if known:
                theirs = published.SHARING[share, way]
                published_cells = [
                    f"{theirs[size].mean} ± {theirs[size].std}" if size in theirs else None
                    for size in sizes
                ]
                wide.append([share, f"{way}, published", *published_cells])
            at = {size: metrics.bootstrap(cells[size]) for size in sizes if cells[size]}
            long += [
                [share, way, size, len(cells[size]), *one, float(np.std(cells[size]))]
                for size, one in at.items()
            ]
            series.append(_series(f"{share} shared, {way}", at))
    texts, seeds = len({row["text"] for row in rows}), len({row["seed"] for row in rows})
    missed, length = (
        sum(not row["exact"] for row in rows),
        max((row["length"] for row in rows), default=0),
    )
    panel = plots.Panel(
        "Accuracy with a shared vector",
        "texts in a group",
        "accuracy",
        log_x=True,
        x_ticks=sizes,
        y_range=(0, 1.03),
    )
    return Report(
        title=TITLE,
        notes=[
            f"{texts} texts of {length} tokens, {seeds} seeds; {missed} of {len(rows)} texts and"
            " seeds did not become exact",
            "best: of each group, the seed at which most of its tokens are right",
            *size_notes(most_of_a_source(rows)),
        ],
        tables=[
            Table(
                "sharing",
                ["shared", "over the seeds", *(f"group {size}" for size in sizes)],
                wide,
                "Token accuracy, mean ± std",
            ),
            Table(
                "sharing_long",
                ["shared", "over the seeds", "group", "texts", "mean", "low", "high", "std"],
                long,
                "The same with 95% intervals (bootstrap over texts)",
            ),
        ],
        figures={"table2": plots.lines(panel, series)} if rows else {},
    )


def _series(name: str, at: dict[int, metrics.Interval]) -> plots.Series:
    """A line through the mean accuracies by group size, with their intervals."""
    y, low, high = ([one[end] for one in at.values()] for end in range(3))
    return plots.Series(name, y, list(at), low, high)


def _accuracies(rows: list[Row], share: str, size: int, best: bool) -> list[float]:
    """One accuracy a text: at the best seed of its group, or the mean over seeds."""
    mine = [row for row in rows if row["group"] == size and row["share"] in (share, None)]
    values = []
    for number in sorted({row["number"] for row in mine}):
        group = [row for row in mine if row["number"] == number]
        if best:
            top = max(
                sorted({row["seed"] for row in group}),
                key=lambda seed: sum(_of(group, "correct", seed=seed)),
            )
            values += _of(group, "accuracy", seed=top)
        else:
            values += [
                float(np.mean(list(_of(group, "accuracy", text=text))))
                for text in dict.fromkeys(_of(group, "text"))
            ]
    return values


def _of(rows: list[Row], name: str, **where: object) -> Iterable:
    """That value of the rows that agree with `where`."""
    return [row[name] for row in rows if all(row[key] == value for key, value in where.items())]
