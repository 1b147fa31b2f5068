"""Values of the recipe tried side by side on the same passages.

    prototokens reproduce studies/recipe.py --texts file:books_val.parquet --scale paper \
        --lengths 32,48 --steps 2000 --out results/recipe
    prototokens reproduce studies/recipe.py --from-rows --out results/recipe

Trials are judged by steps, and by row-steps where a step is of more than one row. The rows in
results/recipe also hold trials of other losses and solvers (a margin term, a falling temperature,
a race of starts, an L-BFGS or Gauss-Newton finish), which did not pay; their code is in the
history of the repository.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prototokens.engine.decode import decode_ids
from prototokens.lab.job import Config, Fit, Job, Row, Run
from prototokens.lab.report import Report, Table, high_steps, median_steps, percent_interval
from prototokens.lm.frozen_lm import FrozenLM

TITLE = "Values of the recipe"
TRIALS: dict[str, dict[str, Any]] = {
    "fast": {},
    "start N(0, 1)": {"start": "normal"},
    "rate 0.2": {"lr": 0.2},
    "rate 0.5": {"lr": 0.5},
    "first beta 0.95": {"betas": (0.95, 0.99)},
    "second beta 0.98": {"betas": (0.9, 0.98)},
    "constant rate": {"schedule": "constant"},
    "temperature 0.3": {"temperature": 0.3},
    "temperature 1": {"temperature": 1.0},
    "weight decay 0.01": {"weight_decay": 0.01},
    "not preconditioned": {"precondition": False},
}
COLUMNS = (
    "trial",
    "exact",
    "95% interval of the share",
    "steps, median",
    "90th percentile",
    "row-steps, median",
    "row-steps, 90th percentile",
)
CAPTION = "percentiles are over all passages, one that is not exact counting as never"


def jobs(config: Config) -> list[Job]:
    found = []
    for length in config.lengths(config.pick((8,), (32, 48))):
        texts = tuple(config.texts.passages(config.count(2, 12), length))
        work = sum(config.work(text, length) for text in texts)
        for name, changes in TRIALS.items():
            recipe = replace(config.recipe, **changes)
            found.append(
                Job(
                    "recipe",
                    config.model,
                    texts,
                    "paper",
                    recipe,
                    config.seed,
                    {"trial": name},
                    work,
                )
            )
    return found


def run(job: Job, lm: FrozenLM) -> Run:
    fitted = yield [
        Fit.one(text.ids, layout=job.layout, recipe=job.recipe, seed=job.seed) for text in job.texts
    ]
    return [
        {
            "trial": job.values["trial"],
            "length": len(text.ids),
            # What reached the margin and decodes.
            "exact": solution.margin > job.recipe.margin
            and decode_ids(lm, [solution]).ids[0] == list(text.ids),
            "correct": solution.correct,
            "steps": solution.steps,
            "row_steps": solution.row_steps,
            "margin": round(solution.margin, 5),
            "floats": solution.protos.numel(),
        }
        for text, (solution,) in zip(job.texts, fitted, strict=True)
    ]


def report(rows: list[Row]) -> Report:
    """A table for each model, source, length and budget."""
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in sorted(rows, key=lambda row: (row["model"], row["source"], row["length"])):
        model = f"{row['model']} (weights {row['fingerprint'][:8]}; {row['dtype']})"
        cell = f"{row['length']} tokens, {row['recipe']['steps']:,} steps at most"
        heading = f"{model}, {row['source']}: {cell}"
        groups.setdefault(heading, {}).setdefault(row["trial"], []).append(row)
    tables = []
    for number, (heading, trials) in enumerate(groups.items(), 1):
        names = [name for name in TRIALS if name in trials] + sorted(set(trials) - set(TRIALS))
        tables.append(
            Table(
                f"recipe-{number}",
                COLUMNS,
                [[name, *_of_trial(trials[name])] for name in names],
                heading,
            )
        )
    return Report(title=TITLE, notes=[CAPTION], tables=tables)


def _of_trial(rows: list[Row]) -> list:
    """The cells of one trial."""
    spent = [{**row, "steps": row["row_steps"]} for row in rows]
    exact = sum(row["exact"] for row in rows)
    counted = [f"{exact} of {len(rows)}", percent_interval(exact, len(rows))]
    return [*counted, *(of(some) for some in (rows, spent) for of in (median_steps, high_steps))]
