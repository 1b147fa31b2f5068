"""Many jobs of one model at a time: what they ask for is fitted side by side, in one engine.

Jobs are advanced as far as the solutions at hand allow. Then all fits that are wanted and alike in
layout and recipe are fitted in one go, whichever jobs want them; each solution is saved the moment
it is found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from prototokens.engine.progress import Progress
from prototokens.fitting import fit
from prototokens.lab import experiments
from prototokens.lab.job import Fit, Fitted, Job, ModelFacts, Row, Run
from prototokens.lab.methods import method_of
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Solution

# Jobs that are under way at a time: enough to fill the engine, few enough to leave some to another
# process.
WIDTH = {"cpu": 128, "cuda": 512}


@runtime_checkable
class SolutionCache(Protocol):
    """Where solutions are stored: a folder (`lab.solution_store`), here or on another machine."""

    def load(self, fit: Fit, model: ModelFacts) -> Fitted | None: ...
    def save(self, fit: Fit, model: ModelFacts, fitted: Fitted) -> None: ...


class Done(NamedTuple):
    """A job's rows, and the seconds that it took.

    Its own, and its share by row-steps of fits made side by side.
    """

    job: Job
    rows: list[Row]
    seconds: float


@dataclass
class _Running:
    """A job under way: the fits that it waits for, and the solutions that have come."""

    job: Job
    run: Run
    wanted: list[Fit]
    seconds: float = 0.0
    got: dict[str, Fitted] = field(default_factory=dict)


def width(lm: FrozenLM) -> int:
    """How many jobs to have under way on the model's device."""
    return WIDTH.get(lm.device.type, WIDTH["cpu"])


def drive(
    lm: FrozenLM,
    take: Callable[[], Job | None],
    cache: SolutionCache,
    most: int,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[Done]:
    """Run jobs of one model until there are no more, and give each one's rows as it ends.

    Args:
        take: the next job, or None where there is none at present; asked again when fewer jobs are
            under way.
        most: jobs under way at a time.
        progress: of the fits.
    """
    active: list[_Running] = []
    while True:
        while len(active) < most and (job := take()):
            started = _start(job, lm)
            if isinstance(started, Done):
                yield started
            else:
                active.append(started)
        still = []
        for one in active:
            ended = _advance(one, cache)
            if ended is None:
                still.append(one)
            else:
                yield ended
        moved, active = len(still) < len(active), still
        if moved:
            continue
        if not active:
            return
        _fit_some(lm, active, cache, progress)


def _start(job: Job, lm: FrozenLM) -> _Running | Done:
    """Call `run`: its rows, or the generator at its first request."""
    began = time.perf_counter()
    run = experiments.load(job.experiment).run(job, lm)
    if isinstance(run, list):
        return Done(job, run, time.perf_counter() - began)
    return _next(_Running(job, run, []), began, first=True)


def _next(one: _Running, began: float, first: bool = False) -> _Running | Done:
    """Send a generator what it wanted, up to its next request or its end."""
    model = one.job.model
    try:
        if first:
            one.wanted = next(one.run)
        else:
            one.wanted = one.run.send([one.got[request.key(model)] for request in one.wanted])
    except StopIteration as end:
        return Done(one.job, end.value, one.seconds + time.perf_counter() - began)
    one.seconds += time.perf_counter() - began
    return one


def _advance(one: _Running, cache: SolutionCache) -> Done | None:
    """Advance a job as far as the stored solutions allow."""
    model = one.job.model
    while True:
        for request in one.wanted:
            key = request.key(model)
            if key not in one.got and (fitted := cache.load(request, model)):
                one.got[key] = fitted
        if any(request.key(model) not in one.got for request in one.wanted):
            return None
        moved = _next(one, time.perf_counter())
        if isinstance(moved, Done):
            return moved


def _fit_some(
    lm: FrozenLM,
    active: list[_Running],
    cache: SolutionCache,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Make the fits that most jobs wait for and that go side by side.

    Alike in layout, recipe and what they share.
    """
    alike: dict[tuple, dict[str, Fit]] = {}
    wanted_by: dict[str, list[_Running]] = {}
    for one in active:
        for request in one.wanted:
            key = request.key(one.job.model)
            if key not in one.got:
                # Rows that share a vector are a group of their own, and the engine takes one group
                # of that kind at a time.
                group = key if request.share else None
                kind = (request.layout, request.recipe, request.prefix, group)
                alike.setdefault(kind, {})[key] = request
                if one not in wanted_by.setdefault(key, []):
                    wanted_by[key].append(one)
    fits = max(alike.values(), key=len)
    model = active[0].job.model
    began = time.perf_counter()
    found: dict[str, Fitted] = {}
    order = [(key, request) for key, request in fits.items() for _ in request.targets]
    parts: dict[str, dict[int, Solution]] = {key: {} for key in fits}

    def finished(number: int, solution: Solution) -> None:
        key, request = order[number]
        parts[key][number] = solution
        if len(parts[key]) == len(request.targets):
            found[key] = tuple(parts[key][part] for part in sorted(parts[key]))
            cache.save(request, model, found[key])

    first = next(iter(fits.values()))
    fit(
        lm,
        [target for request in fits.values() for target in request.targets],
        method=method_of(first.layout, model.prefix if first.prefix is None else first.prefix),
        recipe=first.recipe,
        seed=[
            seed
            for request in fits.values()
            for seed in request.seeds or [request.seed] * len(request.targets)
        ],
        share=first.share,
        progress=progress,
        finished=finished,
    )
    seconds = time.perf_counter() - began
    total = sum(solution.row_steps for fitted in found.values() for solution in fitted)
    for key, fitted in found.items():
        share = seconds * sum(solution.row_steps for solution in fitted) / total
        for one in wanted_by[key]:
            one.got[key] = fitted
            one.seconds += share / len(wanted_by[key])
