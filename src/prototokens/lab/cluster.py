"""Jobs on a Ray cluster, or on several cores or devices of this machine.

Actors that each hold the model once.

The driver keeps the rows, the solutions and all decisions: it hands out jobs a few at a time, so
that a fast actor gets more of them, takes each job's rows as they come, and gives the jobs of an
actor that died to another. What an actor needs of the driver's disk, solutions that are known, and
what it finds, it asks of one small actor beside the driver (`_Shelf`), so no disk has to be shared,
and what was found before an actor died is not computed again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from prototokens._util.extras import need
from prototokens.engine.progress import Progress
from prototokens.errors import PrototokensError, UsageError
from prototokens.lab import provenance
from prototokens.lab.drive import Done, drive
from prototokens.lab.job import Fit, Fitted, Job, ModelFacts, Row
from prototokens.lab.solution_store import SolutionStore
from prototokens.lab.sweep import Queue, load_checked

TRIES = 3  # times that a job may be on an actor that dies
HANDFULS = 4  # parts that each actor's share of the jobs is handed out in
MAX_AT_ONCE = 64  # jobs of one handful


class Cluster:
    """A runner: actors on a cluster that is there, or on one that ends with this process."""

    def __init__(self, address: str | None = None, actors: int | None = None, device: str = "cpu"):
        """`address` as ray.init takes it.

        `actors`: how many, by default one for each GPU, or where `device` is a CPU, core.

        Raises:
            MissingExtraError: Ray is not installed.
        """
        self.ray: Any = need("ray", "ray", "the runner ray")
        self.address, self.count, self.cuda = address, actors, device.startswith("cuda")

    def work(
        self, queue: Queue, solutions: SolutionStore, progress: Callable[[Progress], None] | None
    ) -> Iterator[tuple[Done, Row]]:
        own = not self.ray.is_initialized()
        if own:
            self.connect()
        try:
            for model in queue.models():
                yield from _Crew(self, model, solutions).work(queue)
        finally:
            if own:
                self.ray.shutdown()

    def connect(self) -> None:
        """Join the cluster, or start one here.

        Raises:
            UsageError: there is none at the address.
        """
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is None:
            options |= {"include_dashboard": False}
            if not self.cuda:
                options |= {"num_cpus": max(self.count or 1, os.cpu_count() or 1)}
        try:
            self.ray.init(address=self.address, **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise UsageError(
                f"no Ray cluster at {self.address or 'this machine'} ({error}): see 'ray status'"
            ) from error

    def actors(self) -> int:
        """How many actors to have.

        Raises:
            UsageError: the cluster has no device for any.
        """
        resources = self.ray.cluster_resources()
        count = self.count or int(resources.get("GPU" if self.cuda else "CPU", 0))
        if count < 1:
            raise UsageError(
                f"the cluster has no {'GPU' if self.cuda else 'core'} to run on: {resources}"
            )
        return count


class _Hand(NamedTuple):
    """An actor at work: what it was given, and the stream of what it returns."""

    actor: Any
    number: int
    jobs: dict[str, Job]
    stream: Any


class _Crew:
    """The actors of one model."""

    def __init__(self, cluster: Cluster, model: ModelFacts, solutions: SolutionStore):
        self.ray, self.cluster, self.model = cluster.ray, cluster, model
        self.cache = self._shelf(solutions.folder)
        self.size = cluster.actors()
        self.deaths: Counter[str] = Counter()
        self.again: list[Job] = []
        self.gone = 0  # actors that died before they had loaded the model

    def work(self, queue: Queue) -> Iterator[tuple[Done, Row]]:
        starting = {
            actor.ready.remote(): (actor, number)
            for number in range(self.size)
            for actor in [self._actor(number)]
        }
        hands: list[_Hand] = []
        idle: list[tuple[Any, int]] = []
        try:
            while True:
                while idle and (jobs := self._handful(queue)):
                    actor, number = idle.pop()
                    # Streams are distinguished by the list's order, which ray.wait keeps.
                    hands.append(
                        _Hand(actor, number, {job.key: job for job in jobs}, actor.run.remote(jobs))
                    )
                if not hands and not self.again and self.model not in queue.models():
                    return
                ready, _ = self.ray.wait(
                    [*starting, *(hand.stream for hand in hands)], num_returns=1
                )
                for one in ready:
                    if one in starting:
                        actor, number = starting.pop(one)
                        if self._is_up(one):
                            idle.append((actor, number))
                        else:
                            starting |= self._replace(number)
                        continue
                    hand = next(hand for hand in hands if hand.stream is one)
                    given = self._next(hand)
                    if isinstance(given, tuple):
                        yield given
                        continue
                    hands.remove(hand)
                    if given is None:
                        idle.append((hand.actor, hand.number))
                    else:
                        self._give_back(hand, given)
                        starting |= self._replace(hand.number)
        finally:
            for actor in [
                self.cache,
                *(actor for actor, _ in starting.values()),
                *(hand.actor for hand in hands),
            ]:
                self.ray.kill(actor)
            for actor, _ in idle:
                self.ray.kill(actor)

    def _handful(self, queue: Queue) -> list[Job]:
        """The next jobs for one actor: a part of its share.

        So the last jobs do not wait for one actor alone.
        """
        if self.again:
            jobs, self.again = self.again[:MAX_AT_ONCE], self.again[MAX_AT_ONCE:]
            return jobs
        size = max(1, min(MAX_AT_ONCE, len(queue.waiting) // (HANDFULS * self.size)))
        jobs = []
        while len(jobs) < size and (job := queue.take(self.model)):
            jobs.append(job)
        return jobs

    def _next(self, hand: _Hand) -> tuple[Done, Row] | Exception | None:
        """What the stream has next: rows; None at its end.

        The error by which the actor was lost.
        """
        try:
            key, rows, seconds, stamp = self.ray.get(next(hand.stream))
        except StopIteration:
            return None
        except self.ray.exceptions.RayTaskError as error:
            # The job itself failed, and would fail again.
            cause = error.as_instanceof_cause()
            raise (cause if isinstance(cause, PrototokensError) else error) from error
        except self.ray.exceptions.RayError as error:
            return error
        return Done(hand.jobs.pop(key), rows, seconds), stamp

    def _is_up(self, ready: Any) -> bool:
        try:
            self.ray.get(ready)
        except self.ray.exceptions.RayTaskError as error:
            cause = error.as_instanceof_cause()
            raise (cause if isinstance(cause, PrototokensError) else error) from error
        except self.ray.exceptions.RayError as error:
            self.gone += 1
            if self.gone > TRIES * self.size:
                raise UsageError(
                    f"{self.gone} actors died as they loaded {self.model.name} ({error}): is there"
                    " room?"
                ) from error
            return False
        return True

    def _give_back(self, hand: _Hand, error: Exception) -> None:
        """Put the jobs of a lost actor in front of the queue.

        One that loses actor after actor ends the sweep.
        """
        self.deaths.update(hand.jobs.keys())  # a mapping would add its values
        self.again += hand.jobs.values()
        worst = max(hand.jobs, key=lambda key: self.deaths[key], default=None)
        if worst is not None and self.deaths[worst] >= TRIES:
            raise UsageError(
                f"job {worst} was lost with its actor {TRIES} times ({type(error).__name__}): run"
                " it with --runner local"
            )

    def _replace(self, number: int) -> dict[Any, tuple[Any, int]]:
        actor = self._actor(number)
        return {actor.ready.remote(): (actor, number)}

    def _actor(self, number: int) -> Any:
        """A new actor, on a device of its own.

        With a cluster started here and no GPU, pinned to a core.
        """
        cluster = self.cluster
        share = {"num_cpus": 1, "num_gpus": 1} if cluster.cuda else {"num_cpus": 1}
        core = number if cluster.address is None and not cluster.cuda else None
        return (
            self.ray.remote(_Actor)
            .options(**share)
            .remote(self.model, cluster.cuda, core, self.cache)
        )

    def _shelf(self, folder: Path) -> Any:
        """The actor at the driver's disk."""
        strategy = need(
            "ray.util.scheduling_strategies", "ray", "the runner ray"
        ).NodeAffinitySchedulingStrategy
        here = strategy(node_id=self.ray.get_runtime_context().get_node_id(), soft=False)
        return (
            self.ray.remote(_Shelf)
            .options(num_cpus=0, scheduling_strategy=here)
            .remote(str(folder.parent.resolve()))
        )


class _Shelf:
    """Solutions on the driver's disk, for actors that may be on other machines."""

    def __init__(self, folder: str):
        self.solutions = SolutionStore(Path(folder))

    def load(self, fit: Fit, model: ModelFacts) -> bytes | None:
        path = self.solutions.path(fit.key(model))
        return path.read_bytes() if path.exists() else None

    def save(self, fit: Fit, model: ModelFacts, data: bytes) -> None:
        self.solutions.save_packed(fit.key(model), data)


class _Away:
    """The cache, seen from an actor."""

    def __init__(self, ray: Any, cache: Any):
        self.ray, self.cache = ray, cache

    def load(self, fit: Fit, model: ModelFacts) -> Fitted | None:
        from prototokens.lab.solution_store import unpacked

        data = self.ray.get(self.cache.load.remote(fit, model))
        return None if data is None else unpacked(fit, data)

    def save(self, fit: Fit, model: ModelFacts, fitted: Fitted) -> None:
        from prototokens.lab.solution_store import packed

        self.ray.get(self.cache.save.remote(fit, model, packed(fit, fitted)))


class _Actor:
    """Holds the model, and runs what it is given."""

    def __init__(self, model: ModelFacts, cuda: bool, core: int | None, cache: Any):
        cores = sorted(os.sched_getaffinity(0))
        if core is not None:
            os.sched_setaffinity(0, {cores[core % len(cores)]})
        torch.set_num_threads(1)
        self.lm = load_checked(model, "cuda" if cuda else "cpu")
        self.stamp = provenance.stamp(self.lm.device)
        self.cache = _Away(need("ray", "ray", "an actor"), cache)

    def ready(self) -> bool:
        return True

    def run(self, jobs: list[Job]) -> Iterator[tuple[str, list[Row], float, Row]]:
        waiting = list(reversed(jobs))
        for done in drive(
            self.lm, lambda: waiting.pop() if waiting else None, self.cache, len(jobs)
        ):
            yield done.job.key, done.rows, done.seconds, self.stamp
