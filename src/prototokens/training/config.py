"""How an encoder is trained: plain values, which go into its folder as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from prototokens._util.settings import require
from prototokens.training.schedule import trapezoid

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Training:
    """How an encoder is trained: with its shape and the model, everything that determines its weights at a step.

    Attributes:
        texts: a source, as `--texts` takes it (`lab.texts`).
        held_out: another one, to measure on; "": the end of `texts`, which then is not trained on.
        steps: optimiser steps; rows: texts in each.
        matrix_rate, rate: learning rates of Muon, for the blocks' matrices, and of AdamW, for
            everything else.
        warmup: steps over which both rise; decay: share of the steps over which they fall to zero
            at the end.
        temperature: of the decoder's cross-entropy.
        noise: on the vectors in training, as a share of their root mean square.
        curriculum: steps over which the longest text of a batch grows from `shortest` to the
            shape's `max_length`; 0: none.
        shortest: shortest text, in tokens.
        full: share of the rows that are as long as the step allows; the lengths of the others are
            drawn evenly.
        solutions: a file of fitted solutions (`distil`), or ""; distil: weight of the distance to
            them, in the loss.
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
        positive = {
            "steps": self.steps,
            "rows": self.rows,
            "shortest": self.shortest,
            "pool": self.pool,
        }
        checks = {f"{name} must be at least 1": value >= 1 for name, value in positive.items()}
        checks |= {
            f"{name} must be above zero": value > 0 and math.isfinite(value)
            for name, value in self._rates().items()
        }
        checks |= {
            "warmup and curriculum must not be negative": self.warmup >= 0 and self.curriculum >= 0,
            "noise and distil must not be negative": 0 <= self.noise < math.inf
            and 0 <= self.distil < math.inf,
            "decay and full must lie in [0, 1]": 0 <= self.decay <= 1 and 0 <= self.full <= 1,
            "distil and solutions belong together": (self.distil > 0) == bool(self.solutions),
            f"dtype must be one of {', '.join(DTYPES)}": self.dtype in DTYPES,
        }
        require("training", checks)

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
