"""Fit vectors to texts: names of layouts, recipes and starts are resolved here, and the engine gets what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from prototokens.encoder.encoder import Encoder
from prototokens.encoder.starts import begin
from prototokens.engine.fit import fit as fit_resolved
from prototokens.engine.inputs import Method, OneStep
from prototokens.engine.progress import Progress
from prototokens.engine.rows import Start
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution

Target = str | Sequence[int]
PUBLISHED = "paper"  # the recipe that is kept to the letter


@overload
def fit(
    lm: FrozenLM,
    targets: str,
    *,
    layout: str | Layout = ...,
    recipe: str | Recipe = ...,
    seed: int | Sequence[int] = ...,
    share: str | None = ...,
    prefix: str | Sequence[int] = ...,
    method: Method | None = ...,
    start: str | Encoder | Sequence[Start | None] = ...,
    rows: int | None = ...,
    progress: Callable[[Progress], None] | None = ...,
    finished: Callable[[int, Solution], None] | None = ...,
) -> Solution: ...
@overload
def fit(
    lm: FrozenLM,
    targets: Sequence[Target],
    *,
    layout: str | Layout = ...,
    recipe: str | Recipe = ...,
    seed: int | Sequence[int] = ...,
    share: str | None = ...,
    prefix: str | Sequence[int] = ...,
    method: Method | None = ...,
    start: str | Encoder | Sequence[Start | None] = ...,
    rows: int | None = ...,
    progress: Callable[[Progress], None] | None = ...,
    finished: Callable[[int, Solution], None] | None = ...,
) -> list[Solution]: ...


def fit(
    lm: FrozenLM,
    targets: str | Sequence[Target],
    *,
    layout: str | Layout = "keyed:2",
    recipe: str | Recipe = "fast",
    seed: int | Sequence[int] = 0,
    share: str | None = None,
    prefix: str | Sequence[int] = "auto",
    method: Method | None = None,
    start: str | Encoder | Sequence[Start | None] = "random",
    rows: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    finished: Callable[[int, Solution], None] | None = None,
) -> Solution | list[Solution]:
    """Fit proto-tokens to targets.

    Args:
        lm: the frozen model.
        targets: a text, or a list of texts and lists of token ids.
        layout: an arrangement or its name (`Layout.named`): by default two keyed vectors, which
            reproduce the same text in a third of the steps of the paper's layout, `paper`.
        recipe: a recipe or its name (`Recipe.named`).
        seed: of the starts; a list gives each target its own.
        share: one e (or one m) for all targets; then they are solved together or not at all.
        prefix: token ids that stand before the vectors (`FrozenLM.prefix_ids`): `none`, `bos`,
            `text:...`, ids, or `auto`: BOS where the model's first position is an attention sink.
            With the recipe `paper`, which is the published one to the letter, `auto` is none. A
            prefix that the layout brings is kept.
        method: how vectors and model are joined, if not by `layout` in one step:
            `engine.inputs.Cramming(K)`, the autoregressive counterpart; then `layout` is not looked
            at.
        start: where the vectors begin: `random`; `encoder`, the one that ships for this model and
            layout; `auto`, that one where it has proved to save time; an encoder
            (`encoder.starts`); or for each target vectors of its own (None: at random), of which
            those with a grid stay on it.
        rows: most rows side by side; by default as many as fill the machine.
        progress: called after every step (on a GPU, every tenth).
        finished: called with the order and the solution of each target as it ends.

    Returns:
        A Solution for a text, or a list of them in the order of the targets.

    Raises:
        TextError: a target is empty or longer than the model's context.
        UsageError: an option that cannot be meant.
        DeviceMemoryError: memory does not hold a single row.
    """
    recipe = Recipe.named(recipe)
    method = method or OneStep(prefixed(lm, Layout.named(layout), prefix, recipe))
    single = isinstance(targets, str)
    ids = [
        lm.tokenize(target) if isinstance(target, str) else target
        for target in ([targets] if single else targets)
    ]
    starts = (
        begin(lm, ids, method.layout, start, recipe.margin).starts
        if isinstance(start, Encoder | str)
        else start
    )
    solutions = fit_resolved(
        lm,
        ids,
        method,
        recipe,
        seed=seed,
        share=share,
        starts=starts,
        rows=rows,
        progress=progress,
        finished=finished,
    )
    return solutions[0] if single else solutions


def prefixed(lm: FrozenLM, layout: Layout, prefix: str | Sequence[int], recipe: Recipe) -> Layout:
    """A layout behind the prefix that is asked for; its own is kept where `auto` would choose."""
    return (
        layout
        if layout.prefix and prefix == "auto"
        else layout.with_prefix(prefix_of(lm, prefix, recipe))
    )


def prefix_of(lm: FrozenLM, prefix: str | Sequence[int], recipe: Recipe) -> tuple[int, ...]:
    """The token ids of a prefix; the published recipe has none unless one is named."""
    return () if prefix == "auto" and recipe.name == PUBLISHED else lm.prefix_ids(prefix)
