"""One module for each table or figure of the paper, all of one shape (`lab.job` says which).

To add one: write the module, and name it in `lab.catalogue` with a line of what it shows. An
experiment of your own, in a file of its own, is called a study: `prototokens reproduce FILE.py`
runs it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from prototokens.errors import UsageError
from prototokens.lab.catalogue import EXPERIMENTS, check_name
from prototokens.lab.job import Config, Job, Row, Run
from prototokens.lab.report import Report


@runtime_checkable
class Experiment(Protocol):
    """What an experiment's module has."""

    TITLE: str

    def jobs(self, config: Config) -> list[Job]: ...
    def run(self, job: Job, lm: Any) -> list[Row] | Run: ...
    def report(self, rows: list[Row]) -> Report: ...


# Those that were loaded from files, by the file's name without its suffix.
_STUDIES: dict[str, Experiment] = {}


def load_study(path: Path) -> str:
    """Run the code of a file that defines an experiment.

    Returns the name under which `named` then finds it.

    Raises:
        UsageError: there is no such file, its name is that of another experiment, or it lacks what
            an experiment has.
    """
    name = path.stem
    if name in EXPERIMENTS or not name.isidentifier():
        raise UsageError(f"a study cannot be called {name!r}: give {path} another name")
    spec = spec_from_file_location(f"prototokens_study_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    if not isinstance(module, Experiment):
        raise UsageError(f"{path} is no study: it has to define TITLE, jobs, run and report")
    _STUDIES[name] = cast(Experiment, module)
    return name


def is_study(name: str) -> bool:
    """Whether an experiment was loaded from a file."""
    return name in _STUDIES


def load(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        UsageError: no such experiment.
    """
    if name in _STUDIES:
        return _STUDIES[name]
    if name not in EXPERIMENTS:
        raise UsageError(f"there is no experiment {name!r}: choose one of {', '.join(EXPERIMENTS)}")
    return cast(Experiment, import_module(f"prototokens.lab.experiments.{EXPERIMENTS[name][0]}"))


def resolve(name: str) -> list[str]:
    """The names that `NAME|FILE.py|all` stands for, each module once.

    A file is loaded, which runs its code.

    Raises:
        UsageError: no such experiment.
    """
    check_name(name)
    if name.endswith(".py"):
        return [load_study(Path(name))]
    if name == "all":
        return [key for key, (module, _) in EXPERIMENTS.items() if key == module]
    return [EXPERIMENTS[name][0]]
