"""Accuracy, exactness, steps and floats a token as functions of length, and a law for the steps.

Laws are fitted to the steps of exact fits, by least squares on their logarithm: exponential, log
steps = a + b x, and a power, log steps = a + b log x, each of the tokens and of the bits of H_LM
for each trained number. Every length is left out in turn and predicted from the others; the law
with the least error there is the one that is reported.
"""

from __future__ import annotations

import math

import numpy as np

from prototokens.lab import plots
from prototokens.lab.job import Config, Fit, Job, Row, Run, outcome
from prototokens.lab.report import Report, Table, most_of_a_source, size_notes
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics

TITLE = "Accuracy and steps by length"
GRID = (4, 8, 11, 16, 22, 32, 45, 64, 90, 128, 181, 256, 362, 512, 724, 1024)
SMOKE_GRID = (4, 8, 12, 16, 24)
LAWS = {
    "exponential in tokens": lambda row: row["length"],
    "power of tokens": lambda row: math.log(row["length"]),
    "exponential in bits a float": lambda row: row["bits_per_float"],
    "power of bits a float": lambda row: math.log(row["bits_per_float"]),
}

CAPTION = (
    "95% intervals: of the share that is exact by Clopper and Pearson, of accuracy by bootstrap"
    " over texts; steps of exact fits"
)

LAWS_CAPTION = (
    "b with its 95% interval by bootstrap over texts; error: factor by which a left-out length's"
    " steps are missed, root mean"
    " square"
)


def jobs(config: Config) -> list[Job]:
    lengths = config.lengths(config.pick(SMOKE_GRID, GRID))
    if not lengths:
        return []
    made = []
    for text in config.texts.passages(config.count(4, 50), max(lengths)):
        for length in lengths:
            work = config.work(text, length)
            made.append(
                Job(
                    "length",
                    config.model,
                    (text.prefix(length),),
                    "paper",
                    config.recipe,
                    config.seed,
                    work=work,
                )
            )
    return made


def run(job: Job, lm: FrozenLM) -> Run:
    ((solution,),) = yield [
        Fit.one(job.text.ids, layout=job.layout, recipe=job.recipe, seed=job.seed)
    ]
    nats = float(lm.surprisal(list(job.text.ids)).double().sum())
    row = outcome(solution)
    return [
        {
            "text": job.text.id,
            "nats": nats,
            "bits_per_float": nats / math.log(2) / row["floats"],
            **row,
        }
    ]


def report(rows: list[Row]) -> Report:
    lengths = sorted({row["length"] for row in rows})
    by_length = {length: [row for row in rows if row["length"] == length] for length in lengths}
    table = []
    for length, some in by_length.items():
        steps = [row["steps"] for row in some if row["exact"]]
        accuracy = metrics.bootstrap([row["accuracy"] for row in some])
        middle = float(np.median(steps)) if steps else None
        bits = float(np.mean([row["bits_per_float"] for row in some]))
        exact = metrics.clopper_pearson(len(steps), len(some))[1:]
        table.append(
            [
                length,
                len(some),
                len(steps),
                *exact,
                *accuracy,
                middle,
                some[0]["floats"] / length,
                bits,
            ]
        )
    laws, best = fitted_laws(rows)
    missed = sum(not row["exact"] for row in rows)
    notes = [
        f"{len({row['text'] for row in rows})} texts, 1 seed; {missed} of {len(rows)} fits did not"
        " become exact"
    ]
    notes.append(
        _words(laws, best) if best else "too few lengths with exact fits for a law: it takes four"
    )
    notes += size_notes(most_of_a_source(rows))
    columns = [
        "length",
        "texts",
        "exact",
        "share exact, low",
        "high",
        "accuracy",
        "low",
        "high",
        "median steps",
        "floats a token",
        "bits a float",
    ]
    head = ["law of the steps", "a", "b", "low", "high", "error on lengths left out"]
    return Report(
        title=TITLE,
        notes=notes,
        tables=[
            Table("length", columns, table, CAPTION),
            *([Table("laws", head, laws, LAWS_CAPTION)] if laws else []),
        ],
        figures={"length": _figure(by_length, laws, best)} if rows else {},
    )


def fitted_laws(rows: list[Row]) -> tuple[list[list], str | None]:
    """Each law's coefficients and its error on lengths left out, and the name of the best.

    None from under four lengths.
    """
    exact = [row for row in rows if row["exact"] and row["steps"] > 0 and row["bits_per_float"] > 0]
    lengths = sorted({row["length"] for row in exact})
    if len(lengths) < 4:
        return [], None
    log_steps, texts = np.log([row["steps"] for row in exact]), [row["text"] for row in exact]
    of = np.array([row["length"] for row in exact])
    laws = []
    for name, feature in LAWS.items():
        x = np.array([feature(row) for row in exact], dtype=np.float64)
        b, a = np.polyfit(x, log_steps, 1)
        missed = []
        for length in lengths:
            out = of == length
            slope, at_zero = np.polyfit(x[~out], log_steps[~out], 1)
            missed.append(np.mean((at_zero + slope * x[out] - log_steps[out]) ** 2))
        low, high = _exponent(x, log_steps, texts)[1:]
        laws.append([name, float(a), float(b), low, high, float(np.exp(np.sqrt(np.mean(missed))))])
    return laws, min(laws, key=lambda law: law[-1])[0]


def _exponent(x: np.ndarray, log_steps: np.ndarray, texts: list[str]) -> metrics.Interval:
    """A law's b and its interval, whole texts drawn.

    Draws in which all lengths are the same say nothing of b.
    """

    def fitted(chosen: np.ndarray) -> float:
        indices = chosen.astype(int)
        drawn = x[indices]
        return (
            float(np.polyfit(drawn, log_steps[indices], 1)[0])
            if len(set(drawn.tolist())) > 1
            else float("nan")
        )

    return metrics.bootstrap(list(range(len(x))), fitted, groups=texts, resamples=500)


def _words(laws: list[list], best: str) -> str:
    name, a, b, low, high, error = next(law for law in laws if law[0] == best)
    kind, _, what = name.partition(" in " if " in " in name else " of ")
    right = f"{b:.3g} x {what}" if kind == "exponential" else f"{b:.3g} x log({what})"
    return (
        f"best law of the lengths that were tried: log(steps) = {a:.3g} + {right} (95% interval of"
        f" {b:.3g}: {low:.3g} to"
        f" {high:.3g}); it predicts a length that was left out to a factor of {error:.2f} (root"
        " mean square)"
    )


def _figure(by_length: dict[int, list[Row]], laws: list[list], best: str | None):
    found = {
        length: metrics.bootstrap([row["accuracy"] for row in some])
        for length, some in by_length.items()
    }
    lengths = list(found)
    means, low, high = zip(*found.values(), strict=True)
    share = [float(np.mean([row["exact"] for row in some])) for some in by_length.values()]
    solved = {
        length: [row["steps"] for row in some if row["exact"]] for length, some in by_length.items()
    }
    at = [length for length in lengths if solved[length]]
    steps = [
        plots.Series(
            "median of exact fits", [float(np.median(solved[length])) for length in at], at
        )
    ]
    if best:
        _, a, b, *_ = next(law for law in laws if law[0] == best)
        steps_by_law = [
            float(np.exp(a + b * np.mean([LAWS[best](row) for row in by_length[length]])))
            for length in lengths
        ]
        steps.append(plots.Series(f"law: {best}", steps_by_law, lengths))
    accuracy = [
        plots.Series("accuracy", means, lengths, low, high),
        plots.Series("share exact", share, lengths),
    ]
    return plots.panels(
        [
            (
                plots.Panel(
                    "Accuracy",
                    "tokens of the text",
                    "share",
                    log_x=True,
                    x_ticks=lengths,
                    y_range=(0, 1.03),
                ),
                lambda axes: plots.draw_lines(axes, accuracy),
            ),
            (
                plots.Panel(
                    "Steps to a solution",
                    "tokens of the text",
                    "steps",
                    log_x=True,
                    log_y=bool(at),
                    x_ticks=lengths,
                ),
                lambda axes: plots.draw_lines(axes, steps),
            ),
        ]
    )
