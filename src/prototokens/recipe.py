"""How a fit moves: start, optimiser, schedule, loss temperature, when it is done."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from prototokens.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """Everything about a fit but the model, the target and the seed.

    Attributes:
        name: what files and rows record.
        start: `normal` draws from N(0, 1); `embeddings` from N(mean, std) of the model's input
            embeddings, per dimension.
        start_scale: factor on the standard deviation of a start from `embeddings`, and on the rate
            of the attempt that begins there: vectors with larger norms than the embeddings' are
            disturbed less by a step of the same relative size.
        lr: AdamW's learning rate, in units of `lr_unit`.
        lr_unit: `absolute`, or `embeddings`: times the root mean square of the model's input
            embeddings, so that one recipe serves models whose embeddings differ in scale.
        betas: AdamW's decay rates.
        weight_decay: AdamW's, decoupled.
        schedule: `constant`; `cosine`: half a cosine from `lr` to zero over `steps`; or `inverse`:
            `lr / (1 + step / half_life)`, which does not depend on the budget.
        half_life: steps after which the rate of `inverse` has halved.
        temperature: of the cross-entropy; logits are divided by it (the argmax does not change).
            Below 1 it spends the gradient on positions that are still wrong.
        margin: a row is solved once every true logit leads the next best by more than this.
        precondition: whether steps are multiplied by a power of the second-moment matrix of a
            vector's gradients (`engine.optimizer`), or are AdamW's own.
        precondition_rate: factor on the learning rate for preconditioned steps, whose root mean
            square is always 1.
        precondition_power: of the matrix, with a minus; 0.5 is full-matrix Adagrad's.
        slow_below: nats a token, at the loss temperature: below them the rate falls as the loss
            does, to a tenth at most; 0: it does not. Nor does it where a fit begins at vectors that
            were given.
        token_weight_growth: by how much the weight of a token grows with each step at which its
            margin is not above `margin`; 0: all tokens weigh the same
            (`engine.optimizer.token_weights`).
        token_weight_max: of a token's weight.
        token_weight_decay: of what a token's weight has above 1, with each step at which its margin
            is above `margin`.
        stall: steps without a gain in the loss after which an attempt with fewer than three in four
            tokens right is given up for another random start, within the same budget of steps; 0:
            never.
        full_head_every: steps between two in which a row is scored against the whole vocabulary,
            where that is large; in the others only candidate tokens count (`engine.candidates`).
            1: always.
        untrained_slack: tokens whose lead over another token cannot exceed this many margins
            (`lm.untrained`) are left out of the loss, and of what it takes for a row to be solved;
            0: none are.
        steps: most optimiser steps in one attempt.
        restarts: further attempts from other starts, for a row that is not solved.
    """

    name: str = "fast"
    start: str = "embeddings"
    start_scale: float = 3.0
    lr: float = 0.3
    lr_unit: str = "embeddings"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    schedule: str = "inverse"
    half_life: float = 300.0
    temperature: float = 0.3
    margin: float = 0.05
    precondition: bool = True
    precondition_rate: float = 0.3
    precondition_power: float = 0.45
    slow_below: float = 1.0
    token_weight_growth: float = 0.1
    token_weight_max: float = 30.0
    token_weight_decay: float = 0.9
    stall: int = 100
    full_head_every: int = 4
    untrained_slack: float = 2.0
    steps: int = 2000
    restarts: int = 0

    def __post_init__(self) -> None:
        checks = {
            "lr must be above zero": self.lr > 0 and math.isfinite(self.lr),
            "start_scale must be above zero": self.start_scale > 0
            and math.isfinite(self.start_scale),
            "temperature must be above zero": self.temperature > 0
            and math.isfinite(self.temperature),
            "margin must not be negative": self.margin >= 0 and math.isfinite(self.margin),
            "precondition_rate must be above zero": self.precondition_rate > 0
            and math.isfinite(self.precondition_rate),
            "precondition_power must lie between 0 and 1": 0 <= self.precondition_power <= 1,
            "slow_below must not be negative": self.slow_below >= 0
            and math.isfinite(self.slow_below),
            "token_weight_growth must not be negative": _not_negative(self.token_weight_growth),
            "token_weight_max must be at least 1": self.token_weight_max >= 1
            and math.isfinite(self.token_weight_max),
            "token_weight_decay must lie between 0 and 1": 0 <= self.token_weight_decay <= 1,
            "stall must not be negative": self.stall >= 0,
            "full_head_every must be at least 1": self.full_head_every >= 1,
            "untrained_slack must not be negative": _not_negative(self.untrained_slack),
            "steps must not be negative": self.steps >= 0,
            "restarts must not be negative": self.restarts >= 0,
            "betas must lie in [0, 1)": all(0 <= beta < 1 for beta in self.betas),
            "weight_decay must not be negative": self.weight_decay >= 0,
            "start must be 'normal' or 'embeddings'": self.start in ("normal", "embeddings"),
            "lr_unit must be 'absolute' or 'embeddings'": self.lr_unit
            in ("absolute", "embeddings"),
            "schedule must be 'constant', 'cosine' or 'inverse'": self.schedule
            in ("constant", "cosine", "inverse"),
            "half_life must be above zero": self.half_life > 0 and math.isfinite(self.half_life),
        }
        for rule, holds in checks.items():
            if not holds:
                raise UsageError(f"recipe {self.name!r}: {rule}")

    @staticmethod
    def named(recipe: str | Recipe, **changes: Any) -> Recipe:
        """The recipe of that name, with single values changed.

        Raises:
            UsageError: no such recipe, or a value out of range.
        """
        if isinstance(recipe, str):
            if recipe not in NAMED:
                raise UsageError(f"there is no recipe {recipe!r}: choose one of {', '.join(NAMED)}")
            recipe = NAMED[recipe]
        return replace(recipe, **changes) if changes else recipe

    @property
    def least_lead(self) -> float:
        """The loss leaves out tokens whose lead over another cannot exceed this, in logits."""
        return self.untrained_slack * self.margin

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` is the inverse."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Recipe:
        """From JSON; unknown values are left out, missing ones are those of earlier versions."""
        values = BEFORE | {FORMER_NAMES.get(key, key): value for key, value in values.items()}
        known = {field.name for field in fields(Recipe)}
        kept: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
            if key in known
        }
        return Recipe(**kept)


# Names of values in files and rows of before.
FORMER_NAMES = {
    "whiten": "precondition",
    "whiten_rate": "precondition_rate",
    "whiten_power": "precondition_power",
}
# What files and rows mean that were written when recipes had no such values.
BEFORE = {
    "precondition_power": 0.5,
    "slow_below": 0.0,
    "token_weight_growth": 0.0,
    "stall": 0,
    "full_head_every": 1,
    "untrained_slack": 0.0,
    "start_scale": 1.0,
}


def _not_negative(value: float) -> bool:
    return value >= 0 and math.isfinite(value)


FAST = Recipe()
# Published settings (arXiv 2505.21189, section 4): nothing of ours in it.
PAPER = Recipe(
    name="paper",
    start="normal",
    start_scale=1.0,
    lr=0.01,
    lr_unit="absolute",
    betas=(0.9, 0.9),
    weight_decay=0.01,
    schedule="constant",
    temperature=1.0,
    margin=0.0,
    precondition=False,
    slow_below=0.0,
    token_weight_growth=0.0,
    stall=0,
    full_head_every=1,
    untrained_slack=0.0,
    steps=5000,
)
NAMED = {recipe.name: recipe for recipe in (PAPER, FAST)}
