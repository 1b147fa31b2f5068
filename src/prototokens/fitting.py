"""Fit vectors to texts: names of layouts, recipes and starts are resolved here, for the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Unpack, overload

from prototokens._util.option_fields import from_keywords
from prototokens.encoder.encoder import Encoder
from prototokens.encoder.fit_inputs import (
    check_options,
    layout_of_starts,
    read_mask,
    read_starts,
    read_weights,
)
from prototokens.encoder.shipped import chosen
from prototokens.encoder.starts import begin
from prototokens.engine.fit import fit as fit_resolved
from prototokens.engine.inputs import Method, OneStep
from prototokens.engine.progress import Progress, progress_bar
from prototokens.engine.rows import Init
from prototokens.errors import UsageError
from prototokens.layout import DEFAULT_VECTORS, Layout, keyed
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.release import check_usable
from prototokens.lm.targets import Ids, Target, Targets, read_targets
from prototokens.lm.tokenization import token_texts
from prototokens.options import FitKeywords, FitOptions
from prototokens.recipe import Recipe
from prototokens.solution import Solution

OnProgress = Callable[[Progress], None] | bool | None
OnFinished = Callable[[int, Solution], None] | None
PUBLISHED = "paper"  # the recipe that is kept to the letter


@overload
def fit(
    lm: FrozenLM,
    targets: str,
    *,
    method: Method | None = ...,
    progress: OnProgress = ...,
    finished: OnFinished = ...,
    **options: Unpack[FitKeywords],
) -> Solution: ...
@overload
def fit(
    lm: FrozenLM,
    targets: Sequence[Target],
    *,
    method: Method | None = ...,
    progress: OnProgress = ...,
    finished: OnFinished = ...,
    **options: Unpack[FitKeywords],
) -> list[Solution]: ...
@overload
def fit(
    lm: FrozenLM,
    targets: Ids,
    *,
    method: Method | None = ...,
    progress: OnProgress = ...,
    finished: OnFinished = ...,
    **options: Unpack[FitKeywords],
) -> Solution: ...


def fit(
    lm: Any,
    targets: Any,
    *,
    method: Any = None,
    progress: Any = None,
    finished: Any = None,
    **options: Any,
) -> Solution | list[Solution]:
    """Fit proto-tokens to targets.

    Args:
        lm: the frozen model.
        targets: a text, or token ids as a list, a tensor or an array `[tokens]`; or a list of
            these, of any lengths, which are fitted side by side.
        method: how vectors and model are joined, if not by `layout` in one step:
            `engine.inputs.Cramming(K)`, the autoregressive baseline; then `layout` and `vectors`
            are not looked at.
        progress: called after every step (on a GPU, every tenth) with a `Progress`; `True` shows a
            bar on standard error.
        finished: called with the order and the solution of each target as it ends.
        options: `layout`, `vectors`, `recipe`, `steps`, `seed`, `share`, `prefix`, `start`, `mask`,
            `weights`, `rows`: see `FitOptions`.

    Returns:
        A Solution for one target, or a list of them in the order of the targets.

    Raises:
        TextError: a target is empty or longer than the model's context.
        UsageError: an option with an impossible value, or a model that was released.
        TypeError: an option that does not exist, or an argument of a type that is not taken.
        DeviceMemoryError: memory does not hold a single row.
    """
    check_usable(lm, "fit")
    _check_callbacks(method, progress, finished)
    check_options(options)
    given = from_keywords(FitOptions, "fit", options)
    recipe = given.resolve_recipe()
    wanted = read_targets(lm, targets)
    method = method or OneStep(_prefixed(lm, given, recipe))
    init = _init(lm, given, wanted, method.layout, recipe)
    shown = _with_texts(lm, wanted)
    bar = progress_bar() if progress is True else nullcontext(progress or None)
    with bar as on_progress:
        solutions = fit_resolved(
            lm,
            wanted.ids,
            method,
            recipe,
            init,
            rows=given.rows,
            progress=on_progress,
            finished=finished and (lambda order, one: finished(order, shown(one))),
        )
    solutions = [shown(one) for one in solutions]
    return solutions[0] if wanted.single else solutions


def _init(lm: FrozenLM, given: FitOptions, wanted: Targets, layout: Layout, recipe: Recipe) -> Init:
    """Where the vectors of the targets begin, and which of their tokens are scored."""
    if isinstance(given.start, Encoder | str):
        fits = recipe.steps > 0
        starts = begin(lm, wanted.ids, layout, given.start, recipe.margin, fits).starts
    else:
        starts = read_starts(given.start, wanted)
    excluded, weights = read_mask(given.mask, wanted), read_weights(given.weights, wanted)
    return Init(given.seed, given.share, starts, excluded, weights)


def _with_texts(lm: FrozenLM, wanted: Targets) -> Callable[[Solution], Solution]:
    """A function that gives solutions the text of their tokens, for display."""
    tokens = {token for ids in wanted.ids for token in ids}
    texts = token_texts(lm.tokenizer, tokens, known=lm.vocab_size)

    def shown(solution: Solution) -> Solution:
        return replace(solution, tokens=tuple(texts[token] for token in solution.ids if texts))

    return shown


def _check_callbacks(method: Any, progress: Any, finished: Any) -> None:
    """Refuse arguments of `fit` of a type that is not taken."""
    if method is not None and not isinstance(method, Method):
        raise TypeError(f"fit() takes as method Cramming(K) or OneStep(layout), not {method!r:.60}")
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(f"fit() takes as progress True or a function, not {progress!r:.60}")
    if not (finished is None or callable(finished)):
        raise TypeError(f"fit() takes as finished a function, not {finished!r:.60}")


def _prefixed(lm: FrozenLM, given: FitOptions, recipe: Recipe) -> Layout:
    """The layout behind the prefix that is asked for; its own is kept where `auto` would choose."""
    if given.layout == "auto":
        raise UsageError("layout 'auto' is for encode, which cuts a text: name the layout of a fit")
    layout = given.resolve_layout()
    if layout is None and given.vectors is None:
        encoder = chosen(lm, given.start) if isinstance(given.start, str | Encoder) else None
        found = encoder.layout if encoder else layout_of_starts(given.start)
        if found is not None:  # vectors that were made behind a prefix, or behind none
            return found if given.prefix == "auto" else _behind(lm, found, given, recipe)
    if layout is None:
        layout = keyed(given.vectors or DEFAULT_VECTORS)
    return _behind(lm, layout, given, recipe)


def _behind(lm: FrozenLM, layout: Layout, given: FitOptions, recipe: Recipe) -> Layout:
    """The layout behind the prefix of the options."""
    if layout.prefix and given.prefix == "auto":
        return layout
    return layout.with_prefix(prefix_of(lm, given.prefix, recipe))


def prefix_of(lm: FrozenLM, prefix: str | Sequence[int], recipe: Recipe) -> tuple[int, ...]:
    """The token ids of a prefix; the published recipe has none unless one is named."""
    return () if prefix == "auto" and recipe.name == PUBLISHED else lm.prefix_ids(prefix)
