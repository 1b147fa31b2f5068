"""Figure 4: tokens a second of decoding, in one step and token by token.

Throughput of a way is the longest prefix that it holds without a loss, divided by the time that
decoding takes, as in the
paper: one forward pass for e and m, greedy generation with a cache for one memory vector. One text
    at a time. What is decoded
is compared with the text every time; what does not come back is not timed. Times are of the machine
as it was, alone or not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from prototokens.engine.decode import decode_ids, generate_from
from prototokens.lab import capacity, plots, published
from prototokens.lab.job import Config, Job, Row, Run
from prototokens.lab.passages import labels_of, sources_of
from prototokens.lab.report import Report, Table
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics
from prototokens.solution import Solution

TITLE = "Decoding throughput: one-step against autoregressive"
WAYS = {"paper": "one-step", "memory:1": "autoregressive"}
REPEATS = 7
RAYS = (1.0, 10.0, 100.0)
COLUMNS = (
    "texts",
    "count",
    "one-step tokens/s",
    "low",
    "high",
    "autoregressive tokens/s",
    "low",
    "high",
    "ratio, mean over texts",
    "low",
    "high",
    "longest one-step",
    "longest autoregressive",
    "ratio of the longest",
)


def jobs(config: Config) -> list[Job]:
    return [
        job
        for texts in config.texts.each()
        for job in capacity.jobs_of("figure4", config, texts, tuple(WAYS), repeats=REPEATS)
    ]


def run(job: Job, lm: FrozenLM) -> Run:
    (tried,) = yield from capacity.climb(job.texts, job.values["lengths"], job)
    decode = _one_step if job.layout == "paper" else generate_from
    timed = None
    # From the longest down: what teacher forcing holds may be lost in real generation.
    for solution in sorted((one for one in tried if one.exact), key=lambda one: -one.length):
        timed = _timed(lm, solution, decode, job.values["repeats"])
        if timed:
            break
    about = {"source": job.text.source, "text": job.text.id, "way": WAYS[job.layout]}
    return [
        {**about, **(timed or {"tokens": 0, "seconds_to_decode": None, "tokens_per_second": None})}
    ]


def _one_step(lm: FrozenLM, solutions: list[Solution]) -> list[list[int]]:
    return decode_ids(lm, solutions).ids


def _timed(
    lm: FrozenLM,
    solution: Solution,
    decode: Callable[[FrozenLM, list[Solution]], list[list[int]]],
    repeats: int,
) -> Row | None:
    """Median time of decoding; None where it does not give the text.

    The first pass warms up and is not counted.
    """
    seconds = []
    for _ in range(repeats + 1):
        _wait(lm)
        began = time.perf_counter()
        (ids,) = decode(lm, [solution])
        _wait(lm)
        seconds.append(time.perf_counter() - began)
        if tuple(ids) != solution.ids:
            return None
    middle = statistics.median(seconds[1:])
    return {
        "tokens": solution.length,
        "seconds_to_decode": middle,
        "tokens_per_second": solution.length / middle,
    }


def _wait(lm: FrozenLM) -> None:
    """Wait until the device has finished."""
    if lm.device.type == "cuda":
        torch.cuda.synchronize(lm.device)


def report(rows: list[Row]) -> Report:
    sources = sources_of(rows)
    table, clouds = [], []
    for source in sources:
        mine = {
            way: {row["text"]: row for row in rows if row["source"] == source and row["way"] == way}
            for way in WAYS.values()
        }
        one, other = mine.values()
        pairs = [
            (one[text], other[text])
            for text in one
            if text in other and one[text]["tokens"] and other[text]["tokens"]
        ]
        if not pairs:
            continue
        speeds = [[pair[way]["tokens_per_second"] for pair in pairs] for way in (0, 1)]
        table.append([source, len(pairs), *_figures(pairs, speeds)])
        clouds.append(
            plots.Series(
                labels_of(sources)[source] if len(sources) > 1 else "", speeds[0], speeds[1]
            )
        )
    lost = sum(not row["tokens"] for row in rows)
    same = bool(rows) and rows[0]["model"] in published.MODELS
    panel = plots.Panel(
        TITLE,
        "token by token, with a cache: tokens/s",
        "in one forward pass: tokens/s",
        log_x=True,
        log_y=True,
    )
    return Report(
        title=TITLE,
        notes=[
            f"{len({row['text'] for row in rows})} texts, 1 seed, one text at a time, median of"
            f" {REPEATS} runs;"
            f" {lost} of {len(rows)} reproduced no prefix that decodes without a loss",
            f"published: {published.DECODING_RATIO} times on average over models and sources, on"
            " A100 and H100" + ("" if same else "; of other models than this one"),
        ],
        tables=[
            Table("figure4", COLUMNS, table, "Means over texts with 95% intervals by bootstrap")
        ],
        figures={"figure4": plots.scatter(panel, clouds, RAYS)} if clouds else {},
    )


def _figures(pairs: list[tuple[Row, Row]], speeds: list[list[float]]) -> list[float]:
    """The cells of a source: tokens a second of both ways, their ratio, and the longest texts.

    Args:
        pairs: rows of one text, in one step and token by token.
        speeds: tokens a second of each way, in the order of `pairs`.
    """
    ratio = metrics.bootstrap([one / other for one, other in zip(*speeds, strict=True)])
    # The paper's throughput: the longest text reproduced, divided by its time.
    longest = [max((pair[way] for pair in pairs), key=lambda row: row["tokens"]) for way in (0, 1)]
    best = longest[0]["tokens_per_second"] / longest[1]["tokens_per_second"]
    lengths = [row["tokens"] for row in longest]
    return [*metrics.bootstrap(speeds[0]), *metrics.bootstrap(speeds[1]), *ratio, *lengths, best]
