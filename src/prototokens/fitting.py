"""Fit vectors to texts: names of layouts, recipes and starts are resolved here, for the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack, overload

from prototokens._util.option_fields import from_keywords
from prototokens.encoder.encoder import Encoder
from prototokens.encoder.starts import begin
from prototokens.engine.fit import fit as fit_resolved
from prototokens.engine.inputs import Method, OneStep
from prototokens.engine.progress import Progress
from prototokens.engine.rows import Init
from prototokens.errors import UsageError
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.options import FitKeywords, FitOptions
from prototokens.recipe import Recipe
from prototokens.solution import Solution

Target = str | Sequence[int]
PUBLISHED = "paper"  # the recipe that is kept to the letter


@overload
def fit(
    lm: FrozenLM,
    targets: str,
    *,
    method: Method | None = ...,
    progress: Callable[[Progress], None] | None = ...,
    finished: Callable[[int, Solution], None] | None = ...,
    **options: Unpack[FitKeywords],
) -> Solution: ...
@overload
def fit(
    lm: FrozenLM,
    targets: Sequence[Target],
    *,
    method: Method | None = ...,
    progress: Callable[[Progress], None] | None = ...,
    finished: Callable[[int, Solution], None] | None = ...,
    **options: Unpack[FitKeywords],
) -> list[Solution]: ...


def fit(
    lm: FrozenLM,
    targets: str | Sequence[Target],
    *,
    method: Method | None = None,
    progress: Callable[[Progress], None] | None = None,
    finished: Callable[[int, Solution], None] | None = None,
    **options: Unpack[FitKeywords],
) -> Solution | list[Solution]:
    """Fit proto-tokens to targets.

    Args:
        lm: the frozen model.
        targets: a text, or a list of texts and lists of token ids.
        method: how vectors and model are joined, if not by `layout` in one step:
            `engine.inputs.Cramming(K)`, the autoregressive baseline; then `layout` is not looked
            at.
        progress: called after every step (on a GPU, every tenth).
        finished: called with the order and the solution of each target as it ends.
        options: `layout`, `recipe`, `seed`, `share`, `prefix`, `start`, `rows`: see `FitOptions`.

    Returns:
        A Solution for a text, or a list of them in the order of the targets.

    Raises:
        TextError: a target is empty or longer than the model's context.
        UsageError: an option with an impossible value.
        TypeError: an option that does not exist.
        DeviceMemoryError: memory does not hold a single row.
    """
    given = from_keywords(FitOptions, "fit", options)
    recipe = given.resolve_recipe()
    method = method or OneStep(_prefixed(lm, given, recipe))
    single = isinstance(targets, str)
    ids = [
        lm.tokenize(target) if isinstance(target, str) else target
        for target in ([targets] if single else targets)
    ]
    starts = (
        begin(lm, ids, method.layout, given.start, recipe.margin).starts
        if isinstance(given.start, Encoder | str)
        else given.start
    )
    solutions = fit_resolved(
        lm,
        ids,
        method,
        recipe,
        Init(given.seed, given.share, starts),
        rows=given.rows,
        progress=progress,
        finished=finished,
    )
    return solutions[0] if single else solutions


def _prefixed(lm: FrozenLM, given: FitOptions, recipe: Recipe) -> Layout:
    """The layout behind the prefix that is asked for; its own is kept where `auto` would choose."""
    layout = given.resolve_layout()
    if layout is None:
        raise UsageError("layout 'auto' is for encode, which cuts a text: name the layout of a fit")
    if layout.prefix and given.prefix == "auto":
        return layout
    return layout.with_prefix(prefix_of(lm, given.prefix, recipe))


def prefix_of(lm: FrozenLM, prefix: str | Sequence[int], recipe: Recipe) -> tuple[int, ...]:
    """The token ids of a prefix; the published recipe has none unless one is named."""
    return () if prefix == "auto" and recipe.name == PUBLISHED else lm.prefix_ids(prefix)
