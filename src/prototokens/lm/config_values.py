"""Numbers that configurations of transformers state under several names, family by family."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

MAX_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len")
# Factors and soft caps that a head may apply after its linear map. `checks.probe` finds out which
# of them the model really uses.
SOFTCAP_NAMES = ("final_logit_softcapping", "output_logit_soft_cap", "logits_soft_cap")
SCALE_NAMES = ("logit_scale", "logits_scaling", "lm_head_multiplier")
# Factors that some bodies apply to the embeddings of ids, and not to `inputs_embeds`.
EMBED_SCALE_NAMES = (
    "embedding_multiplier",
    "embedding_scale",
    "scale_emb",
    "embed_scale",
    "input_scale",
)


def max_context(config: object) -> int | None:
    """The largest number of positions, or None where the configuration states no limit."""
    stated = (getattr(config, name, None) for name in MAX_CONTEXT_NAMES)
    return next((value for value in stated if isinstance(value, int) and value > 0), None)


def head_candidates(config: object) -> Iterator[tuple[float, float | None]]:
    """Pairs of scale and soft cap that the head may apply after its linear map.

    Those that the configuration names come first. A number called `logits_scaling` is a divisor in
    one family and a factor in another, so each scale is offered both ways.
    """
    named = [_number(config, name) for name in SCALE_NAMES]
    scales = [scale for value in named if value for scale in (value, 1 / value)]
    softcaps = [value for value in (_number(config, name) for name in SOFTCAP_NAMES) if value]
    return product([*scales, 1.0], [*softcaps, None])


def embed_scales(config: object) -> list[float]:
    """Factors on the rows of the embedding table that a body may apply to ids alone.

    The factor 1, which most models use, comes first.
    """
    named = [value for name in EMBED_SCALE_NAMES if (value := _number(config, name))]
    width = _number(config, "hidden_size")
    return list(dict.fromkeys([1.0, *named, *([width**0.5] if width else [])]))


def _number(config: object, name: str) -> float | None:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
