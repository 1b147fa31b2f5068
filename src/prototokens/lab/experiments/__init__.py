"""One module for each table or figure of the paper, all of one shape (`lab.job` says which).

To add one: write the module, and name it in `lab.catalogue` with a line of what it shows.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast, runtime_checkable

from prototokens.errors import UsageError
from prototokens.lab.catalogue import EXPERIMENTS
from prototokens.lab.job import Config, Job, Row, Run
from prototokens.lab.report import Report


@runtime_checkable
class Experiment(Protocol):
    """What an experiment's module has."""

    TITLE: str

    def jobs(self, config: Config) -> list[Job]: ...
    def run(self, job: Job, lm: Any) -> list[Row] | Run: ...
    def report(self, rows: list[Row]) -> Report: ...


def named(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        UsageError: no such experiment.
    """
    if name not in EXPERIMENTS:
        raise UsageError(f"there is no experiment {name!r}: choose one of {', '.join(EXPERIMENTS)}")
    return cast(Experiment, import_module(f"prototokens.lab.experiments.{EXPERIMENTS[name][0]}"))


def resolve(name: str) -> list[str]:
    """The names that `NAME|all` stands for, each module once.

    Raises:
        UsageError: no such experiment.
    """
    if name == "all":
        return [key for key, (module, _) in EXPERIMENTS.items() if key == module]
    if name not in EXPERIMENTS:
        raise UsageError(f"there is no experiment {name!r}: choose one of {', '.join(EXPERIMENTS)}, or all")
    return [EXPERIMENTS[name][0]]
