"""Where shards are made: in this process, or by Ray Data with an actor for each device.

Both hand the same tasks to the same `Worker` and give back the files, which the caller writes: no
disk has to be shared. With Ray Data the source is read by one task on the caller's machine, which
waits where the object store has no room for what nobody takes; a task of an actor that died runs
again on another.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from prototokens._util.extras import need
from prototokens.corpus.options import Settings
from prototokens.corpus.tasks import Task, Tasks
from prototokens.corpus.worker import Made, Worker
from prototokens.engine.progress import Progress
from prototokens.errors import MissingExtraError, PrototokensError
from prototokens.lab.cluster import Cluster
from prototokens.lab.sweep import load_checked
from prototokens.lm.frozen_lm import FrozenLM

IN_FLIGHT = 2  # tasks at an actor: the next one is there when it ends one

# The worker of a device: made there, from the settings and "cpu" or "cuda".
MakeWorker = Callable[[Settings, str], Any]


@runtime_checkable
class Runner(Protocol):
    """A runner: it makes the shards of tasks, in any order."""

    def work(
        self, settings: Settings, tasks: Tasks, progress: Callable[[Progress], None] | None
    ) -> Iterator[Made]: ...


class Local:
    """This process, with a model that is loaded already."""

    def __init__(self, lm: FrozenLM):
        self.lm = lm

    def work(
        self, settings: Settings, tasks: Tasks, progress: Callable[[Progress], None] | None
    ) -> Iterator[Made]:
        worker = Worker(self.lm, settings)
        for task in tasks:
            yield worker.make(task, progress)


def loaded_worker(settings: Settings, device: str) -> Worker:
    """The worker of an actor: it loads the model that the settings name.

    Raises:
        ModelError: its weights are others than those of the caller.
    """
    if device == "cpu":
        torch.set_num_threads(1)
    return Worker(load_checked(settings.model, device), settings)


class RayData:
    """Actors on a cluster that is there, or on one that ends with this process."""

    def __init__(self, cluster: Cluster, make_worker: MakeWorker = loaded_worker):
        """`make_worker` is called in each actor."""
        self.cluster, self.make_worker = cluster, make_worker
        try:
            self.data: Any = need("ray.data", "ray", "the runner ray")
        except ModuleNotFoundError as error:  # Ray is there, and not what its data sets need
            raise MissingExtraError(
                f"Ray Data needs {error.name}, which is not installed: pip install"
                " 'prototokens[ray]'"
            ) from error

    def work(
        self, settings: Settings, tasks: Tasks, progress: Callable[[Progress], None] | None
    ) -> Iterator[Made]:
        ray, cluster = self.cluster.ray, self.cluster
        own = not ray.is_initialized()
        if own:
            cluster.connect()
        try:
            rows = self._rows(settings, tasks)
            broken: PrototokensError | None = None
            for batch in rows.iter_batches(batch_size=1, prefetch_batches=0, batch_format="numpy"):
                made = pickle.loads(batch["made"][0])
                if isinstance(made, Made):
                    yield made
                else:
                    broken = made
            if broken is not None:  # the source, when all that came before was made
                raise broken
        except ray.exceptions.RayError as error:
            raise _own(error) or error from error
        finally:
            if own:
                ray.shutdown()

    def _rows(self, settings: Settings, tasks: Tasks) -> Any:
        """The data set of shards, which is made as it is read."""
        context = self.data.DataContext.get_current()
        context.enable_progress_bars = False
        # Each task is a block of its own: none waits until others fill one.
        context.target_max_block_size = 1
        context.target_min_block_size = 0
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        cuda = self.cluster.cuda
        source = _source(self.data, tasks)
        here = self.cluster.ray.get_runtime_context().get_node_id()
        read = self.data.read_datasource(
            source,
            override_num_blocks=1,
            num_cpus=0,
            label_selector={"ray.io/node-id": here},
        )
        return read.map_batches(
            _Actor,
            batch_size=1,
            batch_format="numpy",
            num_cpus=1,
            num_gpus=1 if cuda else 0,
            compute=self.data.ActorPoolStrategy(
                size=self.cluster.actors(), max_tasks_in_flight_per_actor=IN_FLIGHT
            ),
            fn_constructor_args=(self.make_worker, settings, "cuda" if cuda else "cpu"),
        )


class _Actor:
    """A worker, as Ray Data calls it."""

    def __init__(self, make_worker: MakeWorker, settings: Settings, device: str):
        self.worker = make_worker(settings, device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        made = [pickle.dumps(self._made(pickle.loads(task))) for task in batch["task"]]
        return {"made": np.array(made, dtype=object)}

    def _made(self, task: Task | PrototokensError) -> Made | PrototokensError:
        return self.worker.make(task) if isinstance(task, Task) else task


def _source(data: Any, tasks: Tasks) -> Any:
    """The tasks as a source of Ray Data: one stream, in the order of the texts.

    The error of a source that breaks off comes last, as a task of its own: raised where it is
    read, it would end those that are under way.
    """
    arrow = need("pyarrow", "data", "a corpus")
    blocks = need("ray.data.block", "ray", "the runner ray")

    def block(content: Task | PrototokensError) -> Any:
        return arrow.table({"task": [pickle.dumps(content)]})

    def read() -> Iterator[Any]:
        try:
            yield from map(block, tasks)
        except PrototokensError as error:
            yield block(error)

    class Source(data.Datasource):
        """Read by one task, as rows have to be numbered."""

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            about = blocks.BlockMetadata(
                num_rows=None, size_bytes=None, input_files=None, exec_stats=None
            )
            return [data.ReadTask(read, about)]

    return Source()


def _own(error: BaseException | None) -> PrototokensError | None:
    """The error of this package that is behind one of Ray's, if there is one."""
    found, seen = None, set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # Ray's own class of an error is of both kinds, and its words are a traceback.
        if isinstance(error, PrototokensError) and not hasattr(error, "traceback_str"):
            found = error
        error = getattr(error, "cause", None) or error.__cause__
    return found
