"""What `reproduce` can run, and about how long each takes.

Known without a model, and without importing what runs it.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from prototokens.errors import UsageError

# name -> (module of lab.experiments, what it shows). figure1 is the picture of table3's rows.
EXPERIMENTS = {
    "table1": ("table1", "five arrangements of the vectors, by length: accuracy"),
    "table2": (
        "table2",
        "one vector shared by groups of texts, e or m: accuracy, best and mean over seeds",
    ),
    "table3": (
        "table3",
        "capacity by source of texts, m shared or not: tokens, nats, bits a float",
    ),
    "table4": ("table4", "seconds and steps to a solution, by length"),
    "figure1": ("table3", "table3 as a picture: the same rows"),
    "figure3": ("figure3", "information reproduced by one-step and autoregressive decoding"),
    "figure4": ("figure4", "decoding throughput, one-step against autoregressive"),
    "figure5": ("figure5", "distances between solutions: same text, same context, other context"),
    "figure6": ("figure6", "the same at equal distance between the texts"),
    "figure7": ("figure7", "accuracy along lines and curves between two solutions"),
    "probe": ("probe", "generation started from the vectors: what the model makes of them"),
    "capacity": (
        "capacity",
        "a model's card: horizon, tokens and nats held, one-step and autoregressive",
    ),
    "length": ("length", "accuracy, steps and floats a token by length, with a fitted law"),
    "quality": ("quality", "what imperfect reconstructions are worth, and where they fail"),
    "context": ("context", "what a context before the vectors adds to what they hold"),
    "untrained": (
        "untrained",
        "tokens that the model cannot tell from others: no vectors emit them",
    ),
    "pretraining": ("pretraining", "capacity against the tokens that the model has seen"),
}


def check_name(name: str) -> None:
    """Refuse a name that is no experiment's, neither `all` nor the file of a study.

    Raises:
        UsageError: it is not.
    """
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UsageError(f"{name} does not exist: name an experiment, or the file of a study")
    elif name != "all" and name not in EXPERIMENTS:
        raise UsageError(
            f"there is no experiment {name!r}: choose one of {', '.join(EXPERIMENTS)}, or all"
        )


def stored_forecast() -> dict[str, Any]:
    """What `scripts/artefacts/forecast_experiments.py` left.

    Returns:
        smoke: of each experiment, the position-steps that it is forecast to take at that scale on
            the built-in model, whose
        weights have the `fingerprint`; smoke_all: of all together, fits that several ask for
        counted once;
        position_steps_per_second: of the `machine` that it ran on, in `dtype`.
    """
    return json.loads(
        files("prototokens.lab").joinpath("catalogue.json").read_text(encoding="utf-8")
    )


def describe_seconds(seconds: float) -> str:
    """A duration for people, rounded as such a guess deserves."""
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.0f} seconds" if seconds >= 1 else "under a second"
