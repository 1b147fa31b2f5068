"""One module for each table or figure of the paper, all of one shape (`lab.job` says which).

To add one: write the module, and name it here with a line of what it shows.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast, runtime_checkable

from prototokens.errors import UsageError
from prototokens.lab.job import Config, Job, Row, Run
from prototokens.lab.report import Report


@runtime_checkable
class Experiment(Protocol):
    """What an experiment's module has."""

    TITLE: str

    def jobs(self, config: Config) -> list[Job]: ...
    def run(self, job: Job, lm: Any) -> list[Row] | Run: ...
    def report(self, rows: list[Row]) -> Report: ...


# name -> (module, what it shows). figure1 is the picture of table3's rows.
EXPERIMENTS = {
    "table1": ("table1", "five arrangements of the vectors, by length: accuracy"),
    "table2": ("table2", "one vector shared by groups of texts, e or m: accuracy, best and mean over seeds"),
    "table3": ("table3", "capacity by source of texts, m shared or not: tokens, nats, bits a float"),
    "table4": ("table4", "seconds and steps to a solution, by length"),
    "figure1": ("table3", "table3 as a picture: the same rows"),
    "figure3": ("figure3", "information held one-step against autoregressive, one vector and two"),
    "figure4": ("figure4", "decoding throughput, one-step against autoregressive"),
    "figure5": ("figure5", "distances between solutions: same text, same context, other context"),
    "figure6": ("figure6", "the same at equal distance between the texts"),
    "figure7": ("figure7", "accuracy along lines and curves between two solutions"),
    "probe": ("probe", "generation started from the vectors: what the model makes of them"),
    "capacity": ("capacity", "a model's card: horizon, tokens and nats held, one-step and autoregressive"),
    "length": ("length", "accuracy, steps and floats a token by length, with a fitted law"),
    "quality": ("quality", "what imperfect reconstructions are worth, and where they fail"),
    "pretraining": ("pretraining", "capacity against the tokens that the model has seen"),
}


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
