"""A prefix: fixed tokens in front of the trained vectors, whose keys and values all rows share.

In a trained LLM the first input position is often an attention sink: whatever vector stands there
serves as the sink, and its output can hardly be made to predict a chosen token (docs/concepts.md).
With a fixed BOS token in front of the vectors, that token is the sink. A longer prefix is a context
in which the text is reconstructed. The keys and values of a prefix are computed once for each
model; no gradient flows through them.
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
# Largest difference between the hidden states behind a cached prefix and those behind a recomputed
# one, as a share of the largest hidden state: the two differ by rounding.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
TOLERANCE_16_BITS = 2**-4

AUTO, NONE, BOS, TEXT = "auto", "none", "bos", "text:"  # ways to name a prefix
SINK_DRAWS = 16  # random input vectors with which a model is tested for an attention sink
# A first position whose response, as a share of that of a position behind BOS, is lower than this
# counts as an attention sink.
SINK_RESPONSE = 0.5


class RecentPrefixes(OrderedDict[tuple[int, ...], T]):
    """Values computed from the last few prefixes, by the token ids of the prefix."""

    def get_or_make(self, prefix: tuple[int, ...], make: Callable[[], T]) -> T:
        """The value for a prefix; `make` computes it if it is not kept."""
        if prefix not in self:
            self[prefix] = make()
            if len(self) > MAX_KEPT:
                self.popitem(last=False)
        return self[prefix]


class PrefixedBody:
    """A model's body, run on rows behind a prefix.

    It uses cached keys and values of the prefix where the model supports that, and otherwise feeds
    the prefix in front of every row.

    Args:
        body: the body of a transformers model, from input vectors to hidden states.
        embed: from token ids to input vectors.
    """

    def __init__(self, body: Any, embed: Callable[[Tensor], Tensor]):
        self.body, self.embed = body, embed
        self._caches = RecentPrefixes[Any]()

    def __call__(
        self, inputs: Float[Tensor, "rows seq d_model"], prefix: tuple[int, ...] = ()
    ) -> Float[Tensor, "rows seq hidden"]:
        """Hidden states at the positions of `inputs`, which stand behind the prefix."""
        if not prefix:
            return run_body(self.body, inputs)
        cache = self._caches.get_or_make(prefix, lambda: self._build_cache(prefix, inputs))
        if cache is None:
            return run_with_prefix(self.body, self.embed, inputs, prefix)
        return self._run_cached(cache, inputs)

    def _run_cached(self, cache: Any, inputs: Tensor) -> Tensor:
        """Run behind a cache of one row, which is expanded to all rows without a copy."""
        expanded = copy.copy(cache)
        expanded.layers = [copy.copy(layer) for layer in cache.layers]
        for layer in expanded.layers:
            layer.keys = layer.keys.expand(len(inputs), -1, -1, -1)
            layer.values = layer.values.expand(len(inputs), -1, -1, -1)
        return run_body(self.body, inputs, **{_cache_name(self.body): expanded}, use_cache=True)

    @torch.no_grad()
    def _build_cache(self, prefix: tuple[int, ...], inputs: Tensor) -> Any:
        """The keys and values of a prefix, tried on the first few positions of `inputs`.

        None for a model that caches something else, or whose hidden states behind the cache differ
        from those behind the prefix itself.
        """
        ids = torch.tensor([prefix], device=inputs.device)
        cache = DynamicCache(config=self.body.config)
        try:
            run_body(self.body, self.embed(ids), **{_cache_name(self.body): cache}, use_cache=True)
            if not all(isinstance(getattr(layer, "keys", None), Tensor) for layer in cache.layers):
                return None
            trial = inputs[:2, :4].detach()
            cached = self._run_cached(cache, trial)
            expected = run_with_prefix(self.body, self.embed, trial, prefix)
        # A state-space model, for example, has a cache of another kind.
        except (RuntimeError, TypeError, ValueError, AttributeError):
            return None
        tolerance = TOLERANCE.get(inputs.dtype, TOLERANCE_16_BITS) * expected.abs().max()
        return cache if bool((cached - expected).abs().max() <= tolerance) else None


def run_body(
    body: Any, inputs: Float[Tensor, "rows seq d_model"], **options: Any
) -> Float[Tensor, "rows seq hidden"]:
    """Hidden states by a transformers body, without an attention mask.

    Under causal attention, padding after the end of a row cannot change the row.
    """
    return body(
        inputs_embeds=inputs, return_dict=True, **{"use_cache": False, **options}
    ).last_hidden_state


def run_with_prefix(
    body: Any,
    embed: Callable[[Tensor], Tensor],
    inputs: Float[Tensor, "rows seq d_model"],
    prefix: Sequence[int],
) -> Float[Tensor, "rows seq hidden"]:
    """Hidden states at the positions of `inputs`, with the prefix fed in front of every row."""
    if not prefix:
        return run_body(body, inputs)
    vectors = embed(torch.tensor([prefix], device=inputs.device)).to(inputs.dtype)
    whole = torch.cat([vectors.expand(len(inputs), -1, -1), inputs], 1)
    return run_body(body, whole)[:, len(prefix) :]


def _cache_name(body: Any) -> str:
    """The body's name for its cache argument: transformers renamed `past_key_values` to `cache`."""
    return "cache" if "cache" in inspect.signature(body.forward).parameters else "past_key_values"


@torch.no_grad()
def first_position_response(
    hidden: Callable[[Tensor, tuple[int, ...]], Tensor],
    scale: tuple[Tensor, Tensor],
    prefix: tuple[int, ...],
) -> float:
    """How strongly the first position's output responds to its input, relative to behind a prefix.

    The model runs on random input vectors on the scale of its embeddings, at the first position and
    at the position behind the prefix. The response is the root of the summed variance of the final
    hidden states, and the result is the ratio of the two responses. Where the first position is an
    attention sink, nearly all vectors give the same hidden state there, and the ratio is near zero.

    Args:
        hidden: input vectors `[rows, 1, d_model]` and a prefix, to hidden states
            `[rows, 1, hidden]`.
        scale: mean and standard deviation of the model's input embeddings, `[d_model]` each.
        prefix: token ids to compare with, BOS in general.
    """
    mean, std = scale
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(SINK_DRAWS, 1, len(mean), generator=generator).to(mean.device)
    inputs = mean + std * random
    spread = [hidden(inputs, ids)[:, 0].float().var(0).sum().sqrt().item() for ids in ((), prefix)]
    return spread[0] / max(spread[1], 1e-12)


def prefix_ids(lm: Any, prefix: str | Sequence[int] = AUTO) -> tuple[int, ...]:
    """The token ids of a prefix.

    Args:
        lm: the `FrozenLM` that the prefix is for.
        prefix: `none`; `bos`; `auto`, which is BOS where the first position turns out to be an
            attention sink and else none; `text:...` with any text; or token ids.

    Raises:
        UsageError: BOS is requested of a model without one; an id is outside the vocabulary; the
            prefix fills the whole context; or the prefix is none of these forms.
        TextError: the text has no tokens.
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
