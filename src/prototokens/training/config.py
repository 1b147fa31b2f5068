"""How an encoder is trained: plain values, which go into its folder as JSON, and how a run goes.

Importing this module is cheap: the command line reads the fields for its help.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prototokens._util.option_fields import described
from prototokens._util.settings import require
from prototokens.training.schedule import trapezoid

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Training:
    """How an encoder is trained.

    With its shape and the model, this determines its weights at a step.

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
        unrolled: most refinements before those that the loss is taken of; 0: none. Every second
            step draws a number of them, so that the network learns to move vectors that are far
            refined already. They are not differentiated (truncated backpropagation).
        init: folder of an encoder of the same shape whose weights the run begins with; "": random
            ones.
        solutions: a file of fitted solutions (`distil`), or ""; distil: weight of the distance to
            them, in the loss.
        pool: most tokens of `texts` that are read.
        dtype: of the encoder's matrix products; its weights are float32.
    """

    texts: str = field(
        default="sample", metadata=described("What to train on: a source, as reproduce takes it.")
    )
    held_out: str = field(
        default="",
        metadata=described(
            "Another source, to measure on.", default_text="the end of --texts, not trained on"
        ),
    )
    steps: int = field(default=1000, metadata=described("Optimiser steps.", minimum=1))
    rows: int = field(default=64, metadata=described("Texts in each.", minimum=1))
    matrix_rate: float = field(
        default=0.02, metadata=described("Learning rate of Muon, for the blocks.")
    )
    rate: float = field(default=0.003, metadata=described("Learning rate of AdamW."))
    warmup: int = field(default=50, metadata=described("Steps over which both rise.", minimum=0))
    decay: float = field(
        default=0.4, metadata=described("Share of the steps over which they fall to zero.")
    )
    temperature: float = field(default=1.0, metadata=described("Of the decoder's cross-entropy."))
    noise: float = field(
        default=0.0, metadata=described("On the vectors in training, in their size.")
    )
    curriculum: int = field(
        default=0,
        metadata=described("Steps over which the longest text grows to --max-length.", minimum=0),
    )
    shortest: int = field(default=1, metadata=described("Shortest text, in tokens.", minimum=1))
    full: float = field(
        default=0.5, metadata=described("Share of the texts that are as long as the step allows.")
    )
    unrolled: int = field(
        default=0,
        metadata=described(
            "Most refinements before those that the loss is taken of, in every second step.",
            minimum=0,
        ),
    )
    init: str = field(
        default="", metadata=described("An encoder's folder, to begin with its weights.")
    )
    solutions: str = field(
        default="", metadata=described("A file of fitted solutions to learn from as well.")
    )
    distil: float = field(default=0.0, metadata=described("Weight of the distance to them."))
    pool: int = field(
        default=100_000_000, metadata=described("Most tokens that are read.", minimum=1)
    )
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
            "unrolled must not be negative": self.unrolled >= 0,
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

    def unrolled_at(self, step: int) -> int:
        """Refinements before those that a step's loss is taken of."""
        import numpy as np

        if self.unrolled == 0 or step % 2 == 0:
            return 0
        return int(np.random.default_rng([self.seed, step, 3]).integers(1, self.unrolled + 1))

    def longest(self, step: int, max_length: int) -> int:
        """Longest text of a step's batch."""
        if step >= self.curriculum or self.shortest >= max_length:
            return max_length
        return self.shortest + (max_length - self.shortest) * step // self.curriculum

    def lengths(self, step: int, max_length: int) -> list[int]:
        """Lengths of a step's texts, longest first."""
        import numpy as np

        longest = self.longest(step, max_length)
        draw = np.random.default_rng([self.seed, step, 1])
        drawn = draw.integers(min(self.shortest, longest), longest + 1, self.rows)
        drawn[: round(self.full * self.rows)] = longest
        return sorted(drawn.tolist(), reverse=True)


@dataclass(frozen=True)
class Running:
    """How a run goes: values that do not change what comes out of it.

    Attributes:
        work: folder for the ids, checkpoints and the log.
        save_every: seconds between checkpoints; measure_every: steps between measurements on
            held-out texts.
        measured: how many held-out texts; proved: at each of `prove_at`, fitted both ways at the
            end; 0: none.
        rows_at_a_time: texts of one pass: it changes the memory, and the last bits of the result.
        prove_at: lengths in tokens.
        afresh: begin anew where there are checkpoints of another run; compile: the network (a
            minute at the start).
        on_progress: called after every step with the row that is logged.
        log: called with a line of what goes on at the end.
        stop: asked after every step; once true, the run saves its checkpoint and ends.
    """

    work: Path
    save_every: float = field(default=120.0, metadata=described("Seconds between checkpoints."))
    measure_every: int = field(
        default=250, metadata=described("Steps between measurements.", minimum=1)
    )
    measured: int = field(default=256, metadata=described("Held-out texts.", minimum=1))
    proved: int = field(
        default=64,
        metadata=described(
            "Of them, fitted at the end from random starts and from the encoder's, at 4, 8, 16"
            " tokens and so on; 0: none.",
            minimum=0,
        ),
    )
    rows_at_a_time: int = field(default=64, metadata=described("Texts of one pass.", minimum=1))
    prove_at: tuple[int, ...] = ()
    afresh: bool = False
    compile: bool = False
    on_progress: Callable[[dict[str, Any]], None] | None = None
    log: Callable[[str], None] | None = None
    stop: Callable[[], bool] | None = None
