"""Decoding by llama.cpp: one pass over vectors, against greedy generation of as many tokens.

    python docs/examples/to_gguf.py -o builtin.gguf
    prototokens reproduce studies/llama_cpp_speed.py --model builtin.gguf --texts random-tokens \
        --scale paper --out results/llama-cpp-speed
    prototokens reproduce studies/llama_cpp_speed.py --from-rows --out results/llama-cpp-speed

Both run in one thread of llama.cpp from the same file, in turn, round after round, so that other
work on the machine slows both alike: the ratio is what the rows are for. One pass reads the argmax
at each of n positions; generation starts from the model's prefix, or from one token, and makes n
tokens. The vectors are drawn at random, as no time depends on what they decode to. It needs the
extra [llama-cpp].
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from prototokens.exchange.inputs import ChunkInputs
from prototokens.exchange.llama_cpp import LlamaCpp, quantise
from prototokens.lab.job import Config, Job, Row
from prototokens.lab.report import Report, Table
from prototokens.lm.frozen_lm import FrozenLM

TITLE = "One step against token by token, in llama.cpp"
LENGTHS = (32, 64, 128)
PRECISIONS = ("F16", "Q4_K")
ROUNDS = (2, 7)  # smoke, paper
THREADS = 1
COLUMNS = (
    "model",
    "precision",
    "tokens",
    "rounds",
    "one step, ms",
    "token by token, ms",
    "times",
    "least and most",
    "processor",
)


def jobs(config: Config) -> list[Job]:
    return [
        Job(
            "llama_cpp_speed",
            config.model,
            seed=config.seed,
            values={
                "precision": precision,
                "lengths": config.lengths(LENGTHS, "keyed:2"),
                "rounds": config.pick(*ROUNDS),
            },
        )
        for precision in PRECISIONS
    ]


def run(job: Job, lm: FrozenLM) -> list[Row]:
    precision, lengths = job.values["precision"], job.values["lengths"]
    before = list(job.model.prefix) or [0]
    rows: list[Row] = []
    generator = torch.Generator().manual_seed(job.seed)
    vectors = lm.embedding_scale.std * torch.randn(max(lengths), lm.d_model, generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        quantise(Path(lm.name), path, precision)
        with LlamaCpp(path, max(lengths) + len(before) + 1, THREADS) as engine:
            for number in range(-1, job.values["rounds"]):  # the first round warms up
                for length in lengths:
                    inputs = ChunkInputs(vectors[:length], torch.arange(length))
                    began = time.perf_counter()
                    engine.logits(inputs, job.model.prefix).argmax(-1)
                    middle = time.perf_counter()
                    engine.generate(length, before)
                    ended = time.perf_counter()
                    if number >= 0:
                        rows.append(
                            {
                                "precision": precision,
                                "length": length,
                                "round": number,
                                "one_step_seconds": middle - began,
                                "generation_seconds": ended - middle,
                                "llama_threads": THREADS,
                            }
                        )
    return rows


def report(rows: list[Row]) -> Report:
    cells: dict[tuple, list[Row]] = {}
    for row in rows:
        cells.setdefault((row["model"], row["precision"], row["length"]), []).append(row)
    lines = []
    for (model, precision, length), found in sorted(cells.items()):
        ratios = [row["generation_seconds"] / row["one_step_seconds"] for row in found]
        lines.append(
            [
                model,
                precision,
                length,
                len(found),
                _milliseconds(found, "one_step_seconds"),
                _milliseconds(found, "generation_seconds"),
                f"{statistics.median(ratios):.1f}",
                f"{min(ratios):.1f} to {max(ratios):.1f}",
                found[0]["machine"]["processor"],
            ]
        )
    notes = [
        "times: generation's seconds over those of one step, in the median round; each round runs"
        " both, one after the other, in one thread",
        "the milliseconds are medians of rounds beside other work on the machine",
    ]
    return Report(TITLE, [Table("llama_cpp_speed", COLUMNS, lines, TITLE)], notes)


def _milliseconds(rows: list[Row], name: str) -> str:
    return f"{1000 * statistics.median(row[name] for row in rows):,.0f}"
