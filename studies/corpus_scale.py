"""What the driver of a corpus costs on 100,000 texts, and what a second actor gains.

    prototokens reproduce studies/corpus_scale.py --scale paper --out results/corpus-scale

Needs the extras [ray] and [data]. The driver is measured with workers that fit nothing: each sleeps
a hundredth of a second for each text, and gives back a file of the size that a real one has. So
the driver has as much to do as beside GPUs of that speed, and the machine can show it. Its cost is
the processor time of its process: taking files, writing them, Ray Data's scheduling, the log.
Reading and tokenizing, which a task on the same machine does, is timed by itself.

Actors are compared on fits that take their whole budget, in one cluster that is started beforehand.
"""

from __future__ import annotations

import json
import os
import random
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from prototokens import samples
from prototokens.corpus.options import CorpusOptions, Settings
from prototokens.corpus.run import CorpusProgress, make
from prototokens.corpus.runners import RayData
from prototokens.corpus.tasks import Tasks
from prototokens.lab.cluster import Cluster
from prototokens.lab.job import Config, Job, Row
from prototokens.lab.report import Report, Table
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.tokenization import TokenizerOnly

TITLE = "A corpus at scale"
SECONDS_A_TEXT = 0.01
STUBS = 4  # actors that sleep
WORDS = 40  # of a text of the driver's part
LENGTH, STEPS, SHARD = 16, 60, 16  # tokens, steps and rows of a file, where actors are compared


def jobs(config: Config) -> list[Job]:
    common = {"recipe": config.recipe, "seed": config.seed}
    driver = {"part": "driver", "texts": config.count(2_000, 100_000), "actors": STUBS}
    actors = {"part": "actors", "texts": config.count(32, 128)}
    return [
        Job("corpus_scale", config.model, (), values=values, **common)
        for values in (driver, actors)
    ]


def run(job: Job, lm: FrozenLM) -> list[Row]:
    values = job.values
    with tempfile.TemporaryDirectory() as folder:
        if values["part"] == "driver":
            return [_driver(lm, Path(folder), values["texts"], values["actors"], job.seed)]
        return [_actors(lm, Path(folder), values["texts"], job)]


def _driver(lm: FrozenLM, folder: Path, texts: int, actors: int, seed: int) -> Row:
    """A corpus of texts that are not fitted."""
    source = _source(folder / "texts.jsonl", texts, seed)
    options = CorpusOptions(shard_rows=1000, start="random")
    memory: list[tuple[int, float]] = []

    def note(now: CorpusProgress) -> None:
        memory.append((now.made.rows, _resident()))

    runner = RayData(Cluster(actors=actors), _stubs(SECONDS_A_TEXT))
    began, before = time.monotonic(), time.process_time()
    summary = make(lm, source, folder / "out", options, runner, note)
    cpu, seconds = time.process_time() - before, time.monotonic() - began
    lines = (folder / "out" / "log.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    tenth = next(size for rows, size in memory if rows >= summary.totals.rows / 10)
    return {
        "rows": summary.totals.rows,
        "tokens": summary.totals.tokens,
        "shards": summary.shards,
        "seconds": seconds,
        "seconds_working": last["seconds_of_run"] - first["seconds_of_run"],
        "actor_seconds": summary.totals.seconds,
        "driver_seconds": cpu,
        "reader_seconds": _reading(lm, source, options),
        "memory_at_a_tenth": tenth,
        "memory_at_the_end": memory[-1][1],
        "memory_most": max(size for rows, size in memory if rows),
        "load": os.getloadavg()[2],
    }


def _source(path: Path, count: int, seed: int) -> str:
    """Texts of words of the package's stories."""
    words = re.findall(r"\w+", " ".join(samples.stories().values()))
    chance = random.Random(seed)
    with path.open("w", encoding="utf-8") as out:
        for _ in range(count):
            out.write(json.dumps({"text": " ".join(chance.choices(words, k=WORDS))}) + "\n")
    return f"file:{path}"


def _stubs(seconds: float) -> Callable[[Settings, str], Any]:
    """What makes the workers of the driver's part; they sleep.

    All of it is defined here, so that it can be sent to actors that do not know this file.
    """

    def make_worker(settings: Settings, device: str) -> Any:
        import torch

        from prototokens.corpus.runners import loaded_worker
        from prototokens.corpus.worker import FittedRow
        from prototokens.engine.quantise import Quantised
        from prototokens.solution import Solution

        worker = loaded_worker(settings, device)
        protos = torch.randn(settings.layout.vectors, settings.model.d_model)

        def fit_rows(ids: list[tuple[int, ...]], progress: Any) -> list[FittedRow]:
            time.sleep(seconds * len(ids))
            made = []
            for one in ids:
                about = {"correct": len(one), "margin": 1.0, "steps": 100, "row_steps": 101}
                solution = Solution(
                    torch.randn_like(protos), settings.layout, one, restarts=0, seed=0, **about
                )
                made.append(FittedRow(Quantised(solution, 32), True, "none"))
            return made

        worker.fit_rows = fit_rows
        return worker

    return make_worker


def _reading(lm: FrozenLM, source: str, options: CorpusOptions) -> float:
    """Processor time of reading, tokenizing and cutting all texts."""
    vocabulary = TokenizerOnly(lm.name, lm.tokenizer, lm.vocab_size)
    before = time.process_time()
    tasks = Tasks(source, vocabulary, options.length, None, options.shard_rows or 1, 0, {})
    rows = sum(len(task.pieces) for task in tasks)
    assert rows
    return time.process_time() - before


def _resident() -> float:
    """Memory of this process that is in use, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _actors(lm: FrozenLM, folder: Path, texts: int, job: Job) -> Row:
    """The same corpus with one actor and with two."""
    # A margin that no fit reaches: none ends before its budget does.
    recipe = replace(job.recipe, steps=STEPS, margin=1e6, restarts=0, stall=0)
    options = CorpusOptions(
        recipe=recipe, start="random", length=LENGTH, limit=texts, shard_rows=SHARD, seed=job.seed
    )
    cluster = Cluster(actors=2)
    cluster.connect()
    row: Row = {"rows": texts, "load": os.getloadavg()[2]}
    try:
        for actors, name in ((1, "one"), (2, "two")):
            out = folder / name
            began = time.monotonic()
            make(lm, "random-tokens", out, options, RayData(Cluster(actors=actors)))
            row[f"seconds_{name}"] = time.monotonic() - began
            lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
            # Behind the first files of all actors, so without their start.
            rest = lines[actors:]
            seconds = rest[-1]["seconds_of_run"] - lines[actors - 1]["seconds_of_run"]
            row[f"rate_{name}"] = sum(line["rows"] for line in rest) / seconds
    finally:
        cluster.ray.shutdown()
    return row


def report(rows: list[Row]) -> Report:
    driver = [row for row in rows if row["values"]["part"] == "driver"]
    actors = [row for row in rows if row["values"]["part"] == "actors"]
    tables = [
        Table("driver", list(DRIVER), [[cell(row) for cell in DRIVER.values()] for row in driver]),
        Table("actors", list(ACTORS), [[cell(row) for cell in ACTORS.values()] for row in actors]),
    ]
    return Report(title=TITLE, tables=[table for table in tables if table.rows])


DRIVER: dict[str, Callable[[Row], Any]] = {
    "rows": lambda row: row["rows"],
    "tokens": lambda row: row["tokens"],
    "files": lambda row: row["shards"],
    "actors": lambda row: row["values"]["actors"],
    "seconds": lambda row: row["seconds"],
    "seconds that actors took": lambda row: row["actor_seconds"],
    "driver, processor seconds": lambda row: row["driver_seconds"],
    "of the actors' seconds, %": lambda row: 100 * row["driver_seconds"] / row["actor_seconds"],
    "reading, processor seconds": lambda row: row["reader_seconds"],
    "of them, %": lambda row: 100 * row["reader_seconds"] / row["actor_seconds"],
    "memory at a tenth, MB": lambda row: row["memory_at_a_tenth"],
    "at the end, MB": lambda row: row["memory_at_the_end"],
    "load of the machine": lambda row: row["load"],
}
ACTORS: dict[str, Callable[[Row], Any]] = {
    "rows": lambda row: row["rows"],
    "one actor, s": lambda row: row["seconds_one"],
    "two actors, s": lambda row: row["seconds_two"],
    "ratio": lambda row: row["seconds_one"] / row["seconds_two"],
    "one actor, rows/s behind the start": lambda row: row["rate_one"],
    "two actors": lambda row: row["rate_two"],
    "ratio behind the start": lambda row: row["rate_two"] / row["rate_one"],
    "load of the machine": lambda row: row["load"],
}
