"""How much faster two actors of a Ray cluster are than one, each on a core of its own.

    prototokens reproduce studies/two_actors.py --texts random-tokens    # needs the extra [ray]

Both sweeps are of the same jobs, into folders of their own, with the cluster started beforehand.
The start of the actors and the loading of the model are counted, since a user waits for them too.
Every fit takes its whole budget, so both do the same work. The machine should have nothing else
to do.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from prototokens.lab import experiments
from prototokens.lab.cluster import Cluster
from prototokens.lab.job import Config, Job, Row
from prototokens.lab.records import Records
from prototokens.lab.report import Report, Table
from prototokens.lab.sweep import sweep
from prototokens.lab.texts import Texts
from prototokens.lm.frozen_lm import FrozenLM

TITLE = "Two actors against one"
LENGTH, STEPS = 16, 60  # tokens of a text, and steps of its fit


def jobs(config: Config) -> list[Job]:
    # A margin that no fit reaches: none ends before its budget does.
    recipe = replace(config.recipe, steps=STEPS, margin=1e6)
    texts = tuple(config.texts.passages(config.count(32, 256), LENGTH))
    work = 2.0 * STEPS * LENGTH * len(texts)
    return [Job("two_actors", config.model, texts, recipe=recipe, seed=config.seed, work=work)]


def run(job: Job, lm: FrozenLM) -> list[Row]:
    config = Config(
        job.model,
        Texts(lm, ["random-tokens"], job.seed),
        recipe=job.recipe,
        most_texts=len(job.texts),
        grid=(LENGTH,),
    )
    inner = experiments.load("length").jobs(config)
    cluster = Cluster(actors=2)
    cluster.connect()
    seconds = {}
    try:
        for actors in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                began = time.monotonic()
                sweep(inner, Records(Path(folder)), Cluster(actors=actors))
                seconds[actors] = time.monotonic() - began
    finally:
        cluster.ray.shutdown()
    return [
        {
            "jobs": len(inner),
            "seconds_one": seconds[1],
            "seconds_two": seconds[2],
            "load": os.getloadavg()[2],
        }
    ]


def report(rows: list[Row]) -> Report:
    cells = [
        [
            row["jobs"],
            row["seconds_one"],
            row["seconds_two"],
            row["seconds_one"] / row["seconds_two"],
        ]
        for row in rows
    ]
    return Report(
        title=TITLE,
        tables=[Table("actors", ["jobs", "one actor, s", "two actors, s", "ratio"], cells)],
    )
