"""Numbers out of tensors: nothing here reads a file or loads a model.

Every function can be called from here (`prototokens.measure.h_lm`) or from its module.

- `metrics`: `h_lm`, `longest_prefix`, `capacity`, `token_gain`, `information_gain`,
  `bits_per_float`, `bound`, `share_of_bound`, `bootstrap`, `clopper_pearson`.
- `quality`: `scores`, `character_error_rate`, `chrf`, `bleu`, `rouge_l`, `perplexity`,
  `semantic_similarity`, `frequencies`, `error_bins`.
- `geometry`: `cosine_distances`, `line`, `bezier`, `length`, `length_ratio`, `fit_control`,
  `noise_radius`.
- `inside`: `look`, `attention`, `attention_weights`, `hidden_states`, `read_out`, `logit_lens`,
  `appears`, `knockout`, `blocks`.
- `quantiles`: `quantile_interval`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prototokens.measure import geometry, inside, metrics, quality, quantiles
    from prototokens.measure.geometry import (
        bezier,
        cosine_distances,
        fit_control,
        length,
        length_ratio,
        line,
        noise_radius,
    )
    from prototokens.measure.inside import (
        appears,
        attention,
        attention_weights,
        blocks,
        hidden_states,
        knockout,
        logit_lens,
        look,
        read_out,
    )
    from prototokens.measure.metrics import (
        bits_per_float,
        bootstrap,
        bound,
        capacity,
        clopper_pearson,
        h_lm,
        information_gain,
        longest_prefix,
        share_of_bound,
        token_gain,
    )
    from prototokens.measure.quality import (
        bleu,
        character_error_rate,
        chrf,
        error_bins,
        frequencies,
        perplexity,
        rouge_l,
        scores,
        semantic_similarity,
    )
    from prototokens.measure.quantiles import quantile_interval

__all__ = [
    "appears",
    "attention",
    "attention_weights",
    "bezier",
    "bits_per_float",
    "bleu",
    "blocks",
    "bootstrap",
    "bound",
    "capacity",
    "character_error_rate",
    "chrf",
    "clopper_pearson",
    "cosine_distances",
    "error_bins",
    "fit_control",
    "frequencies",
    "geometry",
    "h_lm",
    "hidden_states",
    "information_gain",
    "inside",
    "knockout",
    "length",
    "length_ratio",
    "line",
    "logit_lens",
    "longest_prefix",
    "look",
    "metrics",
    "noise_radius",
    "perplexity",
    "quality",
    "quantile_interval",
    "quantiles",
    "read_out",
    "rouge_l",
    "scores",
    "semantic_similarity",
    "share_of_bound",
    "token_gain",
]

_MODULES = ("metrics", "quality", "geometry", "inside", "quantiles")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"prototokens.measure.{name}")
    if name in __all__:
        for module in _MODULES:
            found = vars(import_module(f"prototokens.measure.{module}"))
            # A module may import a name that another one defines.
            if getattr(found.get(name), "__module__", "") == f"prototokens.measure.{module}":
                return found[name]
    raise AttributeError(f"module 'prototokens.measure' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
