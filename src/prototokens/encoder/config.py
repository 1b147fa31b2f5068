"""What determines an encoder: its shape, and how it is trained. Both are plain values, and go into its folder as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np

from prototokens.errors import UsageError
from prototokens.layout import Layout
from prototokens.training.schedule import trapezoid

PREDICT = ("all", "e")
DTYPES = ("float32", "bfloat16")
Kind = TypeVar("Kind", "Shape", "Training")


@dataclass(frozen=True)
class Shape:
    """An encoder's architecture; `network.shape_for` fills in what a model decides.

    Attributes:
        layout: the arrangement that its vectors are meant for.
        max_length: longest text, in tokens.
        predict: `all` vectors of a text, or its `e` alone: then the others are learned once, the same for every text.
        width, layers, heads, feed_forward: of its bidirectional blocks.
        depths: what the blocks read: hidden states of the frozen model at these depths, side by side. 0 is the input
            embedding, so `(0,)` is an encoder from scratch, for which the model is not run at all.
        rank: of the low-rank adapters on the frozen model where it is run as trunk; 0: none.
        direct: numbers of each token that a map of its place's own carries to the vectors directly; 0: only queries write them.
        refinements: how often, in training, the vectors are moved by what the decoder makes of them (`refine`); each costs a
            pass of it forward and back. refine_layers: blocks of each.
        d_model: width of the vectors; hidden: of the decoder's last states; features: numbers that the blocks read for each
            token.
        adapted: the linear maps of the trunk that get adapters: name, inputs, outputs.
    """

    layout: str = "mixed:4"
    max_length: int = 32
    predict: str = "all"
    width: int = 256
    layers: int = 4
    heads: int = 16
    feed_forward: int = 1024
    depths: tuple[int, ...] = (0,)
    rank: int = 0
    direct: int = 0
    refinements: int = 0
    refine_layers: int = 2
    d_model: int = 0
    hidden: int = 0
    features: int = 0
    adapted: tuple[tuple[str, int, int], ...] = ()

    def __post_init__(self) -> None:
        Layout.named(self.layout)
        _check(
            "an encoder",
            {
                "max_length must be at least 1": self.max_length >= 1,
                f"predict must be one of {', '.join(PREDICT)}": self.predict in PREDICT,
                "width must be a multiple of heads": self.width > 0 and self.heads > 0 and self.width % self.heads == 0,
                "layers must be at least 1": self.layers >= 1,
                "feed_forward must be at least 1": self.feed_forward >= 1,
                "depths must name at least one depth, each once, none below 0": len(self.depths) > 0
                and min(self.depths) >= 0
                and len(set(self.depths)) == len(self.depths),
                "rank must not be negative": self.rank >= 0,
                "direct must not be negative": self.direct >= 0,
                "refinements must not be negative": self.refinements >= 0,
                "refine_layers must be at least 1": self.refine_layers >= 1,
                "adapters (rank above 0) need a trunk: a depth above 0": self.rank == 0 or max(self.depths) > 0,
            },
        )

    @property
    def vectors(self) -> int:
        """Vectors of a text."""
        return Layout.named(self.layout).vectors


@dataclass(frozen=True)
class Training:
    """How an encoder is trained: with its shape and the model, everything that determines its weights at a step.

    Attributes:
        texts: a source, as `--texts` takes it (`lab.texts`).
        held_out: another one, to measure on; "": the end of `texts`, which then is not trained on.
        steps: optimiser steps; rows: texts in each.
        matrix_rate, rate: learning rates of Muon, for the blocks' matrices, and of AdamW, for everything else.
        warmup: steps over which both rise; decay: share of the steps over which they fall to zero at the end.
        temperature: of the decoder's cross-entropy.
        noise: on the vectors in training, as a share of their root mean square.
        curriculum: steps over which the longest text of a batch grows from `shortest` to the shape's `max_length`; 0: none.
        shortest: shortest text, in tokens.
        full: share of the rows that are as long as the step allows; the lengths of the others are drawn evenly.
        solutions: a file of fitted solutions (`distil`), or ""; distil: weight of the distance to them, in the loss.
        pool: most tokens of `texts` that are read.
        dtype: of the encoder's matrix products; its weights are float32.
    """

    texts: str = "sample"
    held_out: str = ""
    steps: int = 1000
    rows: int = 64
    matrix_rate: float = 0.02
    rate: float = 0.003
    warmup: int = 50
    decay: float = 0.4
    temperature: float = 1.0
    noise: float = 0.0
    curriculum: int = 0
    shortest: int = 1
    full: float = 0.5
    solutions: str = ""
    distil: float = 0.0
    pool: int = 100_000_000
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        positive = {"steps": self.steps, "rows": self.rows, "shortest": self.shortest, "pool": self.pool}
        checks = {f"{name} must be at least 1": value >= 1 for name, value in positive.items()}
        checks |= {f"{name} must be above zero": value > 0 and math.isfinite(value) for name, value in self._rates().items()}
        checks |= {
            "warmup and curriculum must not be negative": self.warmup >= 0 and self.curriculum >= 0,
            "noise and distil must not be negative": 0 <= self.noise < math.inf and 0 <= self.distil < math.inf,
            "decay and full must lie in [0, 1]": 0 <= self.decay <= 1 and 0 <= self.full <= 1,
            "distil and solutions belong together": (self.distil > 0) == bool(self.solutions),
            f"dtype must be one of {', '.join(DTYPES)}": self.dtype in DTYPES,
        }
        _check("training", checks)

    def _rates(self) -> dict[str, float]:
        return {"matrix_rate": self.matrix_rate, "rate": self.rate, "temperature": self.temperature}

    @property
    def decay_start(self) -> int:
        return self.steps - round(self.steps * self.decay)

    def factor(self, step: int) -> float:
        """On both learning rates, at a step: warm-up, constant, linear fall to zero."""
        return trapezoid(step, warmup=self.warmup, fall=self.decay_start, end=self.steps)

    def longest(self, step: int, most: int) -> int:
        """Longest text of a step's batch."""
        if step >= self.curriculum or self.shortest >= most:
            return most
        return self.shortest + (most - self.shortest) * step // self.curriculum

    def lengths(self, step: int, most: int) -> list[int]:
        """Lengths of a step's texts, longest first."""
        longest = self.longest(step, most)
        draw = np.random.default_rng([self.seed, step, 1])
        drawn = draw.integers(min(self.shortest, longest), longest + 1, self.rows)
        drawn[: round(self.full * self.rows)] = longest
        return sorted(drawn.tolist(), reverse=True)


def as_json(values: Shape | Training) -> dict[str, Any]:
    """For JSON; `from_json` is the way back."""
    return asdict(values)


def from_json(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """From JSON, values unknown to this version left out.

    Raises:
        UsageError: a value out of range.
        TypeError: a value of another kind.
    """
    known = {field.name for field in fields(kind)}
    kept = {key: _tuples(value) for key, value in values.items() if key in known}
    return kind(**kept)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _check(what: str, rules: Mapping[str, bool]) -> None:
    for rule, kept in rules.items():
        if not kept:
            raise UsageError(f"{what} cannot be made so: {rule}")
