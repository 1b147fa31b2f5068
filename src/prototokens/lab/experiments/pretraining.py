"""Pretraining: how much two vectors hold of a model before, during and after its training.

The climb of table 3 on every checkpoint that is named, and on random weights of the model's shape. Checkpoints are folders, or
revisions on the hub; Pythia's are the case in point: EleutherAI/pythia-160m@step0 ... @step143000. All must share a tokenizer,
so that the texts are the same ids to all of them. Where a name does not tell how many tokens a checkpoint has seen
(`tokens_seen`), `NAME=8M` does. H_LM is measured in two ways: under the checkpoint itself, as the paper does
for its models, and under the model of `--model`, the same measure for all checkpoints.
"""

from __future__ import annotations

import re

import numpy as np

from prototokens.errors import UsageError
from prototokens.frozen_lm import FrozenLM
from prototokens.lab import capacity, plots
from prototokens.lab.experiments.table3 import SMOKE_GRID
from prototokens.lab.job import Config, Job, Row, Run
from prototokens.lab.models import RANDOM
from prototokens.lab.report import Report, Table, interval

TITLE = "Capacity over pretraining"
# Tokens of an optimiser step of the Pythia suite: 1,024 sequences of 2,048 (Biderman et al., arXiv 2304.01373).
PYTHIA_STEP = 1024 * 2048
UNITS = {"": 1, "K": 1000, "M": 10**6, "B": 10**9}


def jobs(config: Config) -> list[Job]:
    lengths = config.lengths(config.pick(SMOKE_GRID, capacity.GRID))
    if not lengths:
        return []
    if config.facts_of is None:
        raise UsageError("the capacity over pretraining needs further models to be loaded, and none can be here")
    # Without a list: the two ends of any training.
    names = config.checkpoints or (RANDOM + _named(config.model.name, config.model.revision),)
    models = [config.facts_of(name.partition("=")[0]) for name in names]
    for name, facts in zip(names, models, strict=True):
        if facts.tokenizer != config.model.tokenizer:
            raise UsageError(
                f"checkpoint {name} has another tokenizer than {config.model.name}: give --model one of the same training"
            )
    if config.model.fingerprint not in [facts.fingerprint for facts in models]:
        names, models = (*names, _named(config.model.name, config.model.revision)), [*models, config.model]
    made = []
    for texts in config.texts.each():
        found = texts.passages(config.count(3, 50), max(lengths))
        nats = [[round(value, 5) for value in config.texts.lm.surprisal(list(text.ids)).tolist()] for text in found]
        for place, (name, facts) in enumerate(zip(names, models, strict=True)):
            for text, its in zip(found, nats, strict=True):
                work = texts.costs.climb(text.ids, lengths, "paper", config.recipe)
                values = {"lengths": lengths, "checkpoint": name, "place": place, "nats": its}
                made.append(Job("pretraining", facts, (text,), "paper", config.recipe, config.seed, values, work=work))
    return made


def _named(name: str, revision: str | None) -> str:
    return f"{name}@{revision}" if revision else name


def run(job: Job, lm: FrozenLM) -> Run:
    (tried,) = yield from capacity.climb(job.texts, job.values["lengths"], job)
    row = capacity.describe(lm, job.text, tried, 2 * lm.d_model)
    said = {name: job.values[name] for name in ("checkpoint", "place")}
    seen = tokens_seen(job.values["checkpoint"])
    nats = float(np.sum(job.values["nats"][: row["held"]]))
    loss = float(lm.surprisal(list(job.text.ids)).double().mean())
    return [{"source": job.text.source, **said, "tokens_seen": seen, "loss": loss, "nats_of_final": nats, **row}]


def tokens_seen(name: str) -> int | None:
    """Training tokens of a checkpoint, as its name tells them; None where it does not.

    `NAME=8M` says so; `random:...` has seen none; Pythia's `stepN`, N times 2,097,152; a last part such as `8M`, `0.5B` or
    `250000`, so many.
    """
    if name.startswith(RANDOM) and "=" not in name:
        return 0
    step = re.search(r"pythia.*@step(\d+)$", name)
    if step:
        return int(step[1]) * PYTHIA_STEP
    last = re.split(r"[/@=]", name.rstrip("/"))[-1]
    size = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", last)
    return round(float(size[1]) * UNITS[size[2]]) if size else None


def _short(rows: list[Row], places: list[int]) -> list[str]:
    """Names of checkpoints as ticks: the last part of each."""
    names = {row["place"]: row["checkpoint"] for row in rows}
    return ["random" if names[place].startswith(RANDOM) else re.split("[/@]", names[place])[-1] for place in places]


def report(rows: list[Row]) -> Report:
    sources = list(dict.fromkeys(row["source"] for row in rows))
    table, series = [], []
    known = bool(rows) and all(row["tokens_seen"] is not None for row in rows)
    for source in sources:
        mine = [row for row in rows if row["source"] == source]
        points = []
        for place in sorted({row["place"] for row in mine}):
            some = [row for row in mine if row["place"] == place]
            first = some[0]
            tokens = interval([float(row["held"]) for row in some])
            nats, final = interval([row["nats"] for row in some]), interval([row["nats_of_final"] for row in some])
            bits = float(np.mean([row["bits_per_float"] for row in some]))
            best, loss = max(row["held"] for row in some), float(np.mean([row["loss"] for row in some]))
            table.append(
                [source, first["checkpoint"], first["tokens_seen"], len(some), loss, best, *tokens, *nats, bits, *final]
            )
            points.append((first["tokens_seen"] if known else place, final))
        y, low, high = zip(*(point for _, point in points), strict=True)
        series.append(plots.Series(source if len(sources) > 1 else "", y, [place for place, _ in points], low, high))
    label = "training tokens" if known else "checkpoint, in order"
    seen = [row["tokens_seen"] for row in rows if row["tokens_seen"]]
    places = sorted({row["place"] for row in rows})
    panel = plots.Panel(
        "Information held over training",
        label,
        "H_LM under the model at hand, nats",
        log_x_from=min(seen) if known and seen else None,
        x_ticks=None if known else places,
        x_names=None if known else _short(rows, places),
    )
    notes = [
        f"{len({row['text'] for row in rows})} texts, 1 seed; {sum(row['held'] == 0 for row in rows)} of {len(rows)} climbs"
        " held no prefix at all",
        f"{sum(not row['ended'] for row in rows)} of {len(rows)} climbs ended at the longest length that was tried:"
        " lower bounds",
        "loss: nats a token of the texts under the checkpoint, which tells how far its training has come",
    ]
    columns = (
        "texts", "checkpoint", "training tokens", "count", "loss", "C_tokens", "mean held", "low", "high", "H_LM, its own",
        "low", "high", "bits a float", "H_LM, final model", "low", "high",
    )  # fmt: skip
    caption = "Means over texts with 95% intervals by bootstrap"
    figures = {"pretraining": plots.lines(panel, series)} if rows else {}
    return Report(TITLE, [Table("pretraining", columns, table, caption)], notes, figures)
