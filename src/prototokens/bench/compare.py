"""Five ways over the same passages.

Serial and engine, each with both recipes, and the engine with more vectors.

The vectors are the paper's two, but in the last way: there they are as many as `encode` takes for a
chunk of a long text. Published code runs in float32, so the serial ways do; the engine runs in
whatever dtype it takes by itself. Each passage begins at the same vectors in all ways of a recipe.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch

from prototokens.bench.peak import PeakMemory
from prototokens.bench.serial import fit_serial
from prototokens.engine.decode import decode_ids
from prototokens.engine.inputs import OneStep
from prototokens.engine.memory import max_positions
from prototokens.engine.rows import Init, Starts, groups_of
from prototokens.engine.scheduler import compiled_heights, compiled_width
from prototokens.fitting import fit
from prototokens.layout import Layout, tiled
from prototokens.lm.devices import matrix_product_rate, wait
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.planning.chunks import DEFAULT_LAYOUT, SHORT_LAYOUT
from prototokens.recipe import PAPER, Recipe
from prototokens.solution import Solution

SERIAL_PAPER = "serial, paper"  # the published way, which the others are compared with
PUBLISHED = tiled(1)  # its layout


class Outcome(NamedTuple):
    """Passages that were ended, how many became exact, and their row-steps per row."""

    tried: int
    solved: int
    row_steps: int


@dataclass
class Tally:
    """The progress of one way.

    Attributes:
        tried: passages ended; `solved`: those of them that became exact; `row_steps`: forward and
            backward passes, per row.
        seconds: wall clock of this way alone; `memory`: most bytes that the process used meanwhile,
            0 where that is unknown.
    """

    name: str
    tried: int = 0
    solved: int = 0
    row_steps: int = 0
    seconds: float = 0.0
    memory: int = 0

    def add(self, outcome: Outcome) -> None:
        self.tried += outcome.tried
        self.solved += outcome.solved
        self.row_steps += outcome.row_steps

    def figures(self, length: int, flops: float, peak: float) -> dict[str, Any]:
        """For the report: rates, and shares of the measured rate of matrix products."""
        seconds = max(self.seconds, 1e-9)
        rate = self.row_steps / seconds
        return {
            **asdict(self),
            "solved_per_minute": 60 * self.solved / seconds,
            "row_steps_per_second": rate,
            "gflops": rate * length * flops / 1e9,
            "share_of_peak": rate * length * flops / peak,
        }


def compare(
    lm: FrozenLM,
    serial_lm: FrozenLM,
    targets: list[list[int]],
    steps: int,
    seconds: float,
    on_progress: Callable[[Tally], None] | None = None,
) -> dict[str, Any]:
    """Run the ways until each has ended all passages or spent its seconds.

    The engine's when the serial ones are half through.

    Args:
        lm: for the engine, compiled or not; `serial_lm`: the same model in float32.
        targets: passages of one length, in tokens.
        steps: budget of optimiser steps for each.
        seconds: after which a serial way starts no further passage; the engine's ways fit all
            passages at once and end.

    Returns:
        What `prototokens bench --json` prints.
    """
    length = len(targets[0])
    paper, fast = replace(PAPER, steps=steps), Recipe(steps=steps)
    compiling = meet_shapes(lm, targets) if lm.compiled else None
    tallies = _in_turn(
        {
            SERIAL_PAPER: _serial(serial_lm, targets, paper, seconds),
            "serial, fast": _serial(serial_lm, targets, fast, seconds),
        },
        {
            "engine, paper": _engine(lm, targets, paper),
            **{
                f"engine, fast, {layout}": _engine(lm, targets, fast, layout)
                for layout in (SHORT_LAYOUT, DEFAULT_LAYOUT)
            },
        },
        len(targets),
        seconds,
        on_progress,
    )
    peak, flops = matrix_product_rate(lm.device, lm.dtype), lm.flops_per_position()
    return {
        "model": lm.name,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "device": str(lm.device),
        "threads": torch.get_num_threads(),
        "compile_seconds": compiling,
        "length": length,
        "passages": len(targets),
        "steps": steps,
        "peak_gflops": peak / 1e9,
        "ways": _beside_the_published([tally.figures(length, flops, peak) for tally in tallies]),
        "decoding": decoding_rates(lm, targets, fast),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024),
    }


def meet_shapes(lm: FrozenLM, targets: list[list[int]]) -> float:
    """Run a compiled body once on every shape that a fit of these targets meets.

    Returns the seconds.

    A full batch, a quarter of it, and so on down to one row, as the engine lays them out.
    """
    began, width = time.perf_counter(), compiled_width(lm, len(targets[0]))
    for rows in compiled_heights(max(1, min(len(targets), max_positions(lm, width) // width))):
        fit(lm, targets[:rows], recipe=Recipe(steps=1))
    return time.perf_counter() - began


def _in_turn(
    serial: dict[str, Iterator[Outcome]],
    at_once: dict[str, Iterator[Outcome]],
    passages: int,
    seconds: float,
    on_progress: Callable[[Tally], None] | None,
) -> list[Tally]:
    """One passage of each way after another, so that a machine that slows down slows them all.

    What takes all passages at once does so when the first of the others has spent half of its
    seconds or ended half of its
    passages: of a machine that gets slower, or faster, it meets what the others meet in the mean.
    """
    tallies = {name: Tally(name) for name in (*serial, *at_once)}
    running, first = dict(serial), tallies[next(iter(serial))]
    while running or at_once:
        if at_once and (first.seconds > seconds / 2 or first.tried >= passages / 2):
            running, at_once = {**running, **at_once}, {}
        for name, way in list(running.items()):
            tally, began = tallies[name], time.perf_counter()
            with PeakMemory(torch.device("cpu")) as memory:
                outcome = next(way, None)
            tally.seconds += time.perf_counter() - began
            tally.memory = max(tally.memory, memory.peak or 0)
            if outcome is None:
                del running[name]
                continue
            tally.add(outcome)
            if on_progress:
                on_progress(tally)
    return list(tallies.values())


def _beside_the_published(ways: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of each way, with how many times those of the published way they are."""
    (base,) = (way for way in ways if way["name"] == SERIAL_PAPER)
    # A way that solved nothing at all has no rate to compare with; then one solved passage in its
    # time is taken instead.
    floor = base["solved_per_minute"] or 60 / max(base["seconds"], 1e-9)
    return [
        {
            **way,
            "times_serial_paper": way["solved_per_minute"] / floor,
            "row_steps_times_serial_paper": way["row_steps_per_second"]
            / base["row_steps_per_second"],
        }
        for way in ways
    ]


def _serial(
    lm: FrozenLM, targets: list[list[int]], recipe: Recipe, seconds: float
) -> Iterator[Outcome]:
    """Fit one passage at a time, from the initial vectors that the engine gives it."""
    starts, spent = Starts(lm, recipe, 2), 0.0
    seeds = list(range(len(targets)))
    for group in groups_of(lm, targets, OneStep(PUBLISHED), Init(seeds)):
        began = time.perf_counter()
        (row,) = group.rows
        result = fit_serial(lm, list(row.ids), recipe, starts.draw(row, group))
        spent += time.perf_counter() - began
        yield Outcome(1, int(result.exact), result.steps + 1)
        if spent > seconds:
            return


def _engine(
    lm: FrozenLM, targets: list[list[int]], recipe: Recipe, layout: Layout = PUBLISHED
) -> Iterator[Outcome]:
    """Fit all passages in one batch; yields once."""
    solutions = fit(lm, targets, layout=layout, recipe=recipe, seed=list(range(len(targets))))
    exact, row_steps = (
        (solution.exact for solution in solutions),
        (solution.row_steps for solution in solutions),
    )
    yield Outcome(len(solutions), sum(exact), sum(row_steps))


def decoding_rates(lm: FrozenLM, targets: list[list[int]], recipe: Recipe) -> dict[str, float]:
    """Tokens a second, as medians of five.

    In one step for one row and for all rows, and by greedy generation with a cache for one row.
    """
    length = len(targets[0])
    # Speed does not depend on what the vectors hold, so unfitted ones serve.
    rows = fit(lm, targets, recipe=replace(recipe, steps=0))

    def rate(work: Callable[[], object], tokens: int) -> float:
        times = []
        for _ in range(6):
            wait(lm.device)
            began = time.perf_counter()
            work()
            wait(lm.device)
            times.append(time.perf_counter() - began)
        return tokens / sorted(times[1:])[2]

    start = torch.tensor([targets[0][:1]], device=lm.device)
    alone: list[Solution] = rows[:1]
    single, many = (
        rate(lambda: decode_ids(lm, alone), length),
        rate(lambda: decode_ids(lm, rows), length * len(rows)),
    )
    greedy = rate(lambda: lm.generate(start, length), length)
    return {
        "one_step_single": single,
        "one_step_batch": many,
        "autoregressive_single": greedy,
        "ratio_single": single / greedy,
    }
