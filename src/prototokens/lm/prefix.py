"""A prefix: fixed tokens that stand before the trained vectors, computed once for each model and reused by every row.

In a trained LLM the first input position is often an attention sink: whatever stands there serves
as one and can hardly emit a chosen token (docs/concepts.md). A fixed BOS token in front of the
vectors takes that part. A longer prefix is a context that the text is reconstructed in. Layers keep
the keys and values of the prefix; no backward pass goes through it.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from prototokens.errors import TextError, UsageError

T = TypeVar("T")
MAX_KEPT = 4  # prefixes whose keys and values are kept at a time
# How far the hidden states behind a cached prefix may lie from those behind one that is fed every
# time, as a share of the
# largest: two ways to the same numbers differ by rounding.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
TOLERANCE_16_BITS = 2**-4

AUTO, NONE, BOS, TEXT = "auto", "none", "bos", "text:"  # ways to name a prefix
SINK_DRAWS = 16  # input vectors at random, by which a sink is recognised
# of a position behind BOS: a first position that responds less than this is taken for a sink
SINK_RESPONSE = 0.5


class OfPrefixes(OrderedDict[tuple[int, ...], T]):
    """What was computed of the last few prefixes."""

    def of(self, prefix: tuple[int, ...], make: Callable[[], T]) -> T:
        """What is kept of a prefix, made where it is not there."""
        if prefix not in self:
            self[prefix] = make()
            if len(self) > MAX_KEPT:
                self.popitem(last=False)
        return self[prefix]


class PrefixedBody:
    """A model's body that reads rows behind a prefix.

    From the cached keys and values where that works, else by feeding it.

    Args:
        body: from input vectors to hidden states, as transformers has it.
        embed: from token ids to input vectors.
    """

    def __init__(self, body: Any, embed: Callable[[Tensor], Tensor]):
        self.body, self.embed = body, embed
        self._caches = OfPrefixes[Any]()

    def __call__(
        self, inputs: Float[Tensor, "rows seq d_model"], prefix: tuple[int, ...] = ()
    ) -> Float[Tensor, "rows seq hidden"]:
        """Hidden states at the positions of `inputs`, which stand behind the prefix."""
        if not prefix:
            return run(self.body, inputs)
        cache = self._cache(prefix, inputs)
        return (
            fed(self.body, self.embed, inputs, prefix)
            if cache is None
            else self._cached(cache, inputs)
        )

    def _cached(self, cache: Any, inputs: Tensor) -> Tensor:
        """Run behind a cache of one row, expanded to the rows at hand without a copy."""
        expanded = copy.copy(cache)
        expanded.layers = [copy.copy(layer) for layer in cache.layers]
        for layer in expanded.layers:
            layer.keys = layer.keys.expand(len(inputs), -1, -1, -1)
            layer.values = layer.values.expand(len(inputs), -1, -1, -1)
        return run(self.body, inputs, **{_cache_name(self.body): expanded}, use_cache=True)

    def _cache(self, prefix: tuple[int, ...], inputs: Tensor) -> Any:
        """The prefix's keys and values.

        None for a model that keeps something else, or gives other numbers from them.
        """
        return self._caches.of(prefix, lambda: self._made(prefix, inputs))

    @torch.no_grad()
    def _made(self, prefix: tuple[int, ...], inputs: Tensor) -> Any:
        ids = torch.tensor([prefix], device=inputs.device)
        cache = DynamicCache(config=self.body.config)
        try:
            run(self.body, self.embed(ids), **{_cache_name(self.body): cache}, use_cache=True)
            if not all(isinstance(getattr(layer, "keys", None), Tensor) for layer in cache.layers):
                return None
            trial = inputs[:2, :4].detach()
            ours, plain = self._cached(cache, trial), fed(self.body, self.embed, trial, prefix)
        except (
            RuntimeError,
            TypeError,
            ValueError,
            AttributeError,
        ):  # a state space, say, with a cache of its own
            return None
        tolerance = TOLERANCE.get(inputs.dtype, TOLERANCE_16_BITS) * plain.abs().max()
        return cache if bool((ours - plain).abs().max() <= tolerance) else None


def run(
    body: Any, inputs: Float[Tensor, "rows seq d_model"], **options: Any
) -> Float[Tensor, "rows seq hidden"]:
    """Hidden states by a transformers body, without a mask.

    Causal attention keeps what stands behind a row out of it.
    """
    return body(
        inputs_embeds=inputs, return_dict=True, **{"use_cache": False, **options}
    ).last_hidden_state


def fed(
    body: Any,
    embed: Callable[[Tensor], Tensor],
    inputs: Float[Tensor, "rows seq d_model"],
    prefix: Sequence[int],
) -> Float[Tensor, "rows seq hidden"]:
    """Hidden states at the positions of `inputs`, the prefix fed before every row."""
    if not prefix:
        return run(body, inputs)
    vectors = embed(torch.tensor([prefix], device=inputs.device)).to(inputs.dtype)
    whole = torch.cat([vectors.expand(len(inputs), -1, -1), inputs], 1)
    return run(body, whole)[:, len(prefix) :]


def _cache_name(body: Any) -> str:
    """What the body calls its cache: transformers renamed the argument from `past_key_values` to `cache`."""
    return "cache" if "cache" in inspect.signature(body.forward).parameters else "past_key_values"


@torch.no_grad()
def first_position_response(
    hidden: Callable[[Tensor, tuple[int, ...]], Tensor],
    scale: tuple[Tensor, Tensor],
    prefix: tuple[int, ...],
) -> float:
    """How strongly the first position's output responds to its input vector, as a share of that behind a prefix.

    Input vectors are drawn at random on the scale of the embeddings, and the final hidden states
    that they give compared: the root of their summed variance, without a prefix and behind it.
    Where the first position is an attention sink, nearly all vectors give the same state there, and
    the share is near zero.

    Args:
        hidden: input vectors `[rows, 1, d_model]` and a prefix, to hidden states
            `[rows, 1, hidden]`.
        scale: mean and standard deviation of the model's input embeddings, `[d_model]` each.
        prefix: token ids to compare with, BOS in general.
    """
    mean, std = scale
    drawn = torch.randn(SINK_DRAWS, 1, len(mean), generator=torch.Generator().manual_seed(0)).to(
        mean.device
    )
    inputs = mean + std * drawn
    spread = [hidden(inputs, ids)[:, 0].float().var(0).sum().sqrt().item() for ids in ((), prefix)]
    return spread[0] / max(spread[1], 1e-12)


def prefix_ids(lm: Any, prefix: str | Sequence[int] = AUTO) -> tuple[int, ...]:
    """The token ids of a prefix.

    Args:
        lm: the `FrozenLM` that reads it.
        prefix: `none`; `bos`; `auto`: BOS where the first position is found to be an attention
            sink, else none; `text:...`, any text; or token ids.

    Raises:
        UsageError: a model without BOS that is asked for one; ids outside its vocabulary; a prefix
            that leaves no position of the context; a word that is none of these.
        TextError: the tokenizer has no token for the text.
    """
    if not isinstance(prefix, str):
        return _checked(lm, tuple(int(token) for token in prefix))
    if prefix.startswith(TEXT):
        ids = tuple(lm.tokenize(prefix.removeprefix(TEXT)))
        if not ids:
            raise TextError(
                f"the prefix is empty for the tokenizer of {lm.name!r}: give a text, or the prefix"
                " 'none'"
            )
        return _checked(lm, ids)
    if prefix not in (AUTO, NONE, BOS):
        raise UsageError(
            f"a prefix is 'auto', 'none', 'bos', 'text:...' or token ids, not {prefix[:40]!r}"
        )
    if prefix == BOS and lm.bos is None:
        raise UsageError(
            f"{lm.name!r} has no beginning-of-sequence token: give the prefix 'none', or a text or"
            " token ids of your own"
        )
    if prefix == NONE or lm.bos is None or (prefix == AUTO and lm.sink_response >= SINK_RESPONSE):
        return ()
    return _checked(lm, (lm.bos,))


def _checked(lm: Any, ids: tuple[int, ...]) -> tuple[int, ...]:
    if wrong := [token for token in ids if not 0 <= token < lm.known_ids]:
        raise UsageError(
            f"token ids of {lm.name!r} run from 0 to {lm.known_ids - 1}, and the prefix has"
            f" {wrong[0]}"
        )
    if lm.max_context is not None and len(ids) >= lm.max_context:
        raise UsageError(
            f"a prefix of {len(ids)} tokens leaves no position for the text: {lm.name!r} takes"
            f" {lm.max_context} in all"
        )
    return ids
