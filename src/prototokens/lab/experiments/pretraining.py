"""Pretraining: how much two vectors hold of a model before, during and after its training.

The climb of table 3 on every checkpoint that is named, and on random weights of the model's shape.
Checkpoints are folders, a folder of such folders (the snapshots of a training), or revisions on the
hub; Pythia's are the case in point: EleutherAI/pythia-160m@step0 ... @step143000. All must share a
tokenizer, so that the texts are the same ids to all of them. Where a name does not tell how many
tokens a checkpoint has seen (`tokens_seen`), `NAME=8M` does. H_LM is measured in two
ways: under the checkpoint itself, as the paper does for its models, and under the model of
    `--model`, the same measure for all
checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from prototokens.errors import UsageError
from prototokens.lab import capacity, plots
from prototokens.lab.job import Config, Job, Row, Run
from prototokens.lab.models import RANDOM
from prototokens.lab.passages import sources_of
from prototokens.lab.report import Report, Table, most_of_a_source, size_notes
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics

TITLE = "Capacity over pretraining"
CONFIG = "config.json"  # in the folder of a model
# Tokens of an optimiser step of the Pythia suite: 1,024 sequences of 2,048 (Biderman et al., arXiv
# 2304.01373).
PYTHIA_STEP = 1024 * 2048
UNITS = {"": 1, "K": 1000, "M": 10**6, "B": 10**9}


def jobs(config: Config) -> list[Job]:
    if config.facts_of is None:
        raise UsageError(
            "the capacity over pretraining needs further models to be loaded, and none can be here"
        )
    # Without a list: the two ends of any training.
    names = expanded(config.checkpoints) or [
        RANDOM + _named(config.model.name, config.model.revision)
    ]
    facts = {name: config.facts_of(name.partition("=")[0]) for name in names}
    for name, model in facts.items():
        if model.tokenizer != config.model.tokenizer:
            raise UsageError(
                f"checkpoint {name} has another tokenizer than {config.model.name}: give --model"
                " one of the same training"
            )
    if config.model.fingerprint not in [model.fingerprint for model in facts.values()]:
        facts[_named(config.model.name, config.model.revision)] = config.model
    models = [
        (model, {"checkpoint": name, "place": number})
        for number, (name, model) in enumerate(facts.items())
    ]
    made = []
    for texts in config.texts.each():
        found = capacity.jobs_of("pretraining", config, texts, models=models)
        nats = {
            job.text.id: [
                round(value, 5) for value in texts.lm.surprisal(list(job.text.ids)).tolist()
            ]
            for job in found
        }
        made += [replace(job, values={**job.values, "nats": nats[job.text.id]}) for job in found]
    return made


def expanded(names: Sequence[str]) -> list[str]:
    """The checkpoints that names stand for.

    A folder of models stands for all of them, in the order of their tokens seen.

    Raises:
        UsageError: a folder holds neither a model nor folders of models.
    """
    found = []
    for name in names:
        folder = Path(name.partition("=")[0])
        if not folder.is_dir() or (folder / CONFIG).exists():
            found.append(name)
            continue
        inside = [str(one.parent) for one in folder.glob(f"*/{CONFIG}")]
        if not inside:
            raise UsageError(
                f"checkpoint {name}: the folder holds no model, nor folders that hold one ({CONFIG}"
                " is looked for)"
            )
        found += sorted(inside, key=lambda one: (tokens_seen(one) or 0, one))
    return found


def _named(name: str, revision: str | None) -> str:
    return f"{name}@{revision}" if revision else name


def run(job: Job, lm: FrozenLM) -> Run:
    (tried,) = yield from capacity.climb(job.texts, job.values["lengths"], job)
    row = capacity.describe(lm, job.text, tried, 2 * lm.d_model)
    about = {name: job.values[name] for name in ("checkpoint", "place")}
    seen = tokens_seen(job.values["checkpoint"])
    nats = float(np.sum(job.values["nats"][: row["held"]]))
    loss = float(lm.surprisal(list(job.text.ids)).double().mean())
    return [
        {
            "source": job.text.source,
            **about,
            "tokens_seen": seen,
            "loss": loss,
            "nats_of_final": nats,
            **row,
        }
    ]


def tokens_seen(name: str) -> int | None:
    """Training tokens of a checkpoint, as its name tells them; None where it does not.

    `NAME=8M` says so; `random:...` has seen none; Pythia's `stepN`, N times 2,097,152; a last part
    such as `8M`, `0.5B` or `250000`, so many.
    """
    if name.startswith(RANDOM) and "=" not in name:
        return 0
    step = re.search(r"pythia.*@step(\d+)$", name)
    if step:
        return int(step[1]) * PYTHIA_STEP
    last = re.split(r"[/@=]", name.rstrip("/"))[-1]
    size = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", last)
    return round(float(size[1]) * UNITS[size[2]]) if size else None


def _short(rows: list[Row], numbers: list[int]) -> list[str]:
    """Names of checkpoints as ticks: the last part of each."""
    names = {row["place"]: row["checkpoint"] for row in rows}
    return [
        "random" if names[number].startswith(RANDOM) else re.split("[/@]", names[number])[-1]
        for number in numbers
    ]


def report(rows: list[Row]) -> Report:
    sources = sources_of(rows)
    table, nats, tokens = [], [], []
    known = bool(rows) and all(row["tokens_seen"] is not None for row in rows)
    for source in sources:
        mine = [row for row in rows if row["source"] == source]
        by_place = {
            number: [row for row in mine if row["place"] == number]
            for number in sorted({row["place"] for row in mine})
        }
        lines = [_line(source, some) for some in by_place.values()]
        table += lines
        at = [line[COLUMNS.index("training tokens")] for line in lines] if known else list(by_place)
        for series, column in ((nats, "H_LM, final model"), (tokens, "mean reproduced")):
            first = COLUMNS.index(column)
            y, low, high = ([line[first + step] for line in lines] for step in range(3))
            series.append(plots.Series(source if len(sources) > 1 else "", y, at, low, high))
    notes = [
        f"{len({row['text'] for row in rows})} texts, 1 seed; {capacity.lower_bounds(rows)}",
        "loss: nats a token of the texts under the checkpoint, which tells how far its training has"
        " come",
        *size_notes(most_of_a_source(rows)),
    ]
    caption = "Means over texts with 95% intervals by bootstrap"
    figures = {"pretraining": _figure(rows, known, nats, tokens)} if rows else {}
    return Report(TITLE, [Table("pretraining", COLUMNS, table, caption)], notes, figures)


COLUMNS = (
    "texts",
    "checkpoint",
    "training tokens",
    "count",
    "loss",
    "C_tokens",
    "mean reproduced",
    "low",
    "high",
    "H_LM, its own",
    "low",
    "high",
    "bits a float",
    "H_LM, final model",
    "low",
    "high",
)


def _line(source: str, rows: list[Row]) -> list:
    """A source's line of one checkpoint."""
    held, nats, final = (
        metrics.bootstrap([float(row[name]) for row in rows])
        for name in ("correct", "nats", "nats_of_final")
    )
    bits, loss = (
        float(np.mean([row[name] for row in rows])) for name in ("bits_per_float", "loss")
    )
    about = [
        rows[0]["checkpoint"],
        rows[0]["tokens_seen"],
        len(rows),
        loss,
        capacity.summary(rows).c_tokens,
    ]
    return [source, *about, *held, *nats, bits, *final]


def _figure(rows: list[Row], known: bool, nats: list[plots.Series], tokens: list[plots.Series]):
    """Tokens and nats reproduced, against the tokens that were seen in training.

    Where those are not known, against the checkpoints.
    """
    numbers = sorted({row["place"] for row in rows})
    seen = [row["tokens_seen"] for row in rows if row["tokens_seen"]]
    label = "training tokens" if known else "checkpoint, in order"

    def panel(title: str, y: str) -> plots.Panel:
        if known:
            return plots.Panel(title, label, y, log_x_from=min(seen, default=None))
        return plots.Panel(title, label, y, x_ticks=numbers, x_names=_short(rows, numbers))

    return plots.panels(
        [
            (
                panel("Tokens reproduced over training", "tokens of the longest prefix"),
                lambda axes: plots.draw_lines(axes, tokens),
            ),
            (
                panel("Information reproduced", "H_LM under the last model, nats"),
                lambda axes: plots.draw_lines(axes, nats),
            ),
        ]
    )
