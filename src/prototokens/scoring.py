"""What a frozen model says of any vectors: loss, margins and accuracy, in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from prototokens._util.token_html import tokens_html
from prototokens.engine.forward import check_rows, scored_hidden
from prototokens.engine.head import score as score_hidden
from prototokens.engine.inputs import OneStep, arrange
from prototokens.errors import TextError, UsageError
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.release import check_usable
from prototokens.lm.targets import Target, read_targets
from prototokens.lm.tokenization import token_texts
from prototokens.solution import Chunk, Solution


@dataclass(frozen=True, eq=False, repr=False)
class VectorScore:
    """How well vectors reproduce a text.

    Attributes:
        losses: cross-entropy of each token at temperature 1, in nats, on the CPU.
        margins: of each token, the true logit minus the best other one, on the CPU.
        tokens: the text of each token, for display; empty without a tokenizer.
    """

    losses: Float32[Tensor, " tokens"]
    margins: Float32[Tensor, " tokens"]
    tokens: tuple[str, ...] = ()

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats a token."""
        return float(self.losses.double().mean())

    @property
    def margin(self) -> float:
        """Least margin; negative where a token is wrong."""
        return float(self.margins.min())

    @property
    def correct(self) -> int:
        """Number of tokens whose margin is above zero."""
        return int((self.margins > 0).sum())

    @property
    def accuracy(self) -> float:
        """Share of tokens that are right, in [0, 1]."""
        return self.correct / len(self.margins)

    @property
    def exact(self) -> bool:
        """Every token right."""
        return self.correct == len(self.margins)

    def __repr__(self) -> str:
        return (
            f"VectorScore({self.correct} of {len(self.margins)} right, loss {self.loss:.3g} nats a"
            f" token, margin {self.margin:.3g})"
        )

    def _repr_html_(self) -> str:
        """Tokens, coloured by margin."""
        tokens = self.tokens or tuple(f"{number} " for number in range(len(self.margins)))
        return tokens_html(repr(self), tokens, self.margins.tolist())


@overload
def score(
    lm: FrozenLM, target: Target, vectors: Solution, *, any_model: bool = ...
) -> VectorScore: ...
@overload
def score(
    lm: FrozenLM,
    target: Target,
    vectors: Solution | Tensor | np.ndarray,
    layout: str | Layout,
    *,
    prefix: str | Sequence[int] = ...,
    any_model: bool = ...,
) -> VectorScore: ...


@torch.no_grad()
def score(
    lm: Any,
    target: Any,
    vectors: Any,
    layout: Any = None,
    *,
    prefix: Any = "auto",
    any_model: bool = False,
) -> VectorScore:
    """Score vectors against a text, in one forward pass without gradient.

    Args:
        lm: the frozen model.
        target: a text, or token ids `[tokens]`.
        vectors: `[vectors, d_model]`, e first; or a solution.
        layout: how they are arranged, or its name; by default that of the solution.
        prefix: of a layout that has none of its own, as `fit` takes it.
        any_model: score a solution that was fitted to other weights all the same.

    Returns:
        Loss, margins and accuracy.

    Raises:
        UsageError: vectors of another shape than the layout has, or of another model.
        TextError: a text without tokens, or longer than the model's context.
        TypeError: an argument of a type that is not taken.
    """
    check_usable(lm, "score")
    targets = read_targets(lm, target, "score")
    if not targets.single:
        raise TypeError("score() takes one target, a text or token ids: call it for each of a list")
    (ids,) = targets.ids
    layout = _layout(lm, vectors, layout, prefix)
    _check_target(lm, ids, layout)
    row = _row(vectors, layout, ids)
    check_rows(lm, [vectors if isinstance(vectors, Solution) else row], any_model)
    arranged = arrange(lm, [OneStep(layout).plan(ids)], layout.vectors)
    hidden = scored_hidden(lm, arranged, row.protos[None].to(lm.device))
    wanted = torch.tensor(ids, dtype=torch.int64, device=lm.device)
    scores = score_hidden(lm, hidden, wanted, gradient=False)
    texts = token_texts(lm.tokenizer, set(ids), known=lm.vocab_size)
    tokens = tuple(texts[token] for token in ids if texts)
    return VectorScore(scores.loss.cpu(), scores.margin.cpu(), tokens)


def _layout(lm: FrozenLM, vectors: Any, layout: Any, prefix: Any) -> Layout:
    """The layout of the vectors, with its prefix."""
    if layout is None:
        if not isinstance(vectors, Solution):
            raise TypeError("score() needs the layout of the vectors, as fit takes it")
        return vectors.layout
    if not isinstance(layout, str | Layout):
        raise TypeError(f"score() takes as layout a layout or its name, not {layout!r:.60}")
    named = Layout.named(layout)
    return named if named.prefix and prefix == "auto" else named.with_prefix(lm.prefix_ids(prefix))


def _row(vectors: Any, layout: Layout, ids: list[int]) -> Chunk:
    """The vectors as a row of this layout."""
    given = vectors.protos if isinstance(vectors, Solution) else vectors
    if not isinstance(given, Tensor | np.ndarray):
        raise TypeError(
            "score() takes as vectors a tensor [vectors, d_model] or a Solution, not"
            f" {type(vectors).__name__}"
        )
    protos = torch.as_tensor(given).detach().to(torch.float32)
    if protos.ndim != 2 or len(protos) != layout.vectors:
        raise UsageError(
            f"layout {layout.name!r} has {layout.vectors} vectors, and a tensor of shape"
            f" {tuple(protos.shape)} was given"
        )
    return Chunk.of(protos, layout, ids)


def _check_target(lm: FrozenLM, ids: list[int], layout: Layout) -> None:
    """Refuse a target that no vectors of this layout can stand for."""
    if not ids:
        raise TextError("the target is empty: there is nothing to score")
    if not all(0 <= token < lm.vocab_size for token in ids):
        raise TextError(f"the target has ids outside the vocabulary of {lm.vocab_size}")
    if len(ids) > lm.longest_target(layout):
        raise TextError(
            f"the target has {len(ids)} tokens, and {lm.name} holds at most"
            f" {lm.longest_target(layout)} with layout {layout.name!r}"
        )
