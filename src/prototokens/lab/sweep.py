"""Jobs to rows.

Finished jobs are skipped, jobs that another process works on are left to it, and every row is on
disk as soon as it is known.

A runner decides where jobs are worked on: `Local` in this process; `lab.cluster.Cluster` on a Ray
cluster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from prototokens.engine.progress import Progress
from prototokens.errors import ModelError
from prototokens.lab import models, provenance
from prototokens.lab.drive import Done, drive, width
from prototokens.lab.job import Job, ModelFacts, Row
from prototokens.lab.records import Records
from prototokens.lab.solution_store import SolutionStore
from prototokens.lm.frozen_lm import FrozenLM

WAIT = 1.0  # seconds between two checks of what another process has done


@dataclass(frozen=True)
class SweepProgress:
    """The progress of a sweep.

    Attributes:
        done: jobs that are done, those of earlier runs among them; `total`: all of them.
        work_done: position-steps that the jobs done in this run were expected to take; `work`: that
            of all to be done in it.
        seconds: since the start of this run.
        fits: of the engine just now; None where it is not running here.
        experiment: of the job that ended last, or "".
    """

    done: int
    total: int
    work_done: float
    work: float
    seconds: float
    fits: Progress | None
    experiment: str


class Queue:
    """Jobs still to do, claimed one by one."""

    def __init__(self, jobs: list[Job], records: Records):
        self.records, self.waiting, self.elsewhere = records, list(jobs), []

    def models(self) -> list[ModelFacts]:
        """Of the jobs that wait, in order."""
        return list(dict.fromkeys(job.model for job in self.waiting))

    def take(self, model: ModelFacts | None = None) -> Job | None:
        """The next job (of that model) that no other process is at; None where there is none."""
        number = 0
        while number < len(self.waiting):
            job = self.waiting[number]
            if model is not None and job.model != model:
                number += 1
                continue
            del self.waiting[number]
            if self.records.claim(job):
                return job
            if not self.records.done(job.key):
                self.elsewhere.append(job)
        return None


@runtime_checkable
class Runner(Protocol):
    """A runner: it works on jobs."""

    def work(
        self, queue: Queue, solutions: SolutionStore, progress: Callable[[Progress], None] | None
    ) -> Iterator[tuple[Done, Row]]:
        """Work on all that the queue gives.

        Each job's rows as they are known, with the stamp of the machine.
        """
        ...


class Local:
    """This process: one model after the other, each one's jobs side by side."""

    def __init__(self, lm: FrozenLM | None = None, most: int | None = None):
        """`lm` is used for jobs that name it, instead of loading it once more.

        `most` jobs are under way at a time.
        """
        self.lm, self.most = lm, most

    def work(
        self, queue: Queue, solutions: SolutionStore, progress: Callable[[Progress], None] | None
    ) -> Iterator[tuple[Done, Row]]:
        for model in queue.models():
            lm = self._model(model)
            stamp = provenance.stamp(lm.device)
            for done in drive(
                lm,
                lambda model=model: queue.take(model),
                solutions,
                self.most or width(lm),
                progress,
            ):
                yield done, stamp

    def _model(self, model: ModelFacts) -> FrozenLM:
        own = self.lm
        if own is not None and models.facts(own, model.prefix) == model:
            return own
        return load_checked(model, None if own is None else str(own.device))


def load_checked(model: ModelFacts, device: str | None) -> FrozenLM:
    """The model that jobs name.

    Raises:
        ModelError: its weights are not those that the jobs were made for.
    """
    lm = models.load(model.name, model.revision, dtype=model.dtype, device=device)
    if lm.fingerprint != model.fingerprint:
        raise ModelError(
            f"{model.name} has other weights than when the jobs were planned"
            f" ({lm.fingerprint[:12]}, planned"
            f" {model.fingerprint[:12]}): plan again, and do not change the model in between"
        )
    return lm


def sweep(
    jobs: list[Job],
    records: Records,
    runner: Runner,
    progress: Callable[[SweepProgress], None] | None = None,
    tracker: Callable[[Job, list[Row]], None] | None = None,
) -> list[Row]:
    """Do all jobs that are not done, and return the rows of all of them.

    Args:
        progress: called after every step of a fit and every job.
        tracker: called with every job's rows (`lab.tracking`).
    """
    unique = {job.key: job for job in jobs}
    todo = [job for key, job in unique.items() if not records.done(key)]
    total, before, began = len(unique), len(unique) - len(todo), time.monotonic()
    state = {"done": 0, "work": 0.0, "name": ""}
    work = sum(job.work for job in todo)

    def tell(fits: Progress | None = None) -> None:
        if progress:
            seconds = time.monotonic() - began
            progress(
                SweepProgress(
                    before + state["done"], total, state["work"], work, seconds, fits, state["name"]
                )
            )

    solutions = SolutionStore(records.folder)
    while todo:
        queue = Queue(todo, records)
        for done, stamp in runner.work(queue, solutions, tell):
            records.append(done.job, done.rows, stamp, done.seconds)
            records.release(done.job)
            state.update(
                done=state["done"] + 1, work=state["work"] + done.job.work, name=done.job.experiment
            )
            if tracker:
                tracker(done.job, done.rows)
            tell()
        todo = [job for job in queue.elsewhere if not records.done(job.key)]
        if todo:
            time.sleep(WAIT)
            records.refresh()
            state["done"] = total - before - sum(not records.done(job.key) for job in todo)
    return records.rows(keys=set(unique))
