"""One-step text reconstruction.

A frozen language model emits a whole text in one forward pass from a few trained vectors.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prototokens._version import __version__

if TYPE_CHECKING:
    from prototokens import errors, measure
    from prototokens.corpus.reader import Corpus
    from prototokens.decoding import decode
    from prototokens.encoder.encoder import Encoder
    from prototokens.encoding import encode
    from prototokens.engine.decode import decode_ids
    from prototokens.engine.progress import Progress as Progress
    from prototokens.fitting import fit
    from prototokens.layout import Layout
    from prototokens.lm.frozen_lm import FrozenLM
    from prototokens.planning.chunks import plan_chunks
    from prototokens.ptok.encoded import EncodedText
    from prototokens.recipe import Recipe
    from prototokens.scoring import VectorScore as VectorScore
    from prototokens.scoring import score
    from prototokens.solution import Solution

__all__ = [
    "Corpus",
    "EncodedText",
    "Encoder",
    "FrozenLM",
    "Layout",
    "Recipe",
    "Solution",
    "__version__",
    "decode",
    "decode_ids",
    "encode",
    "errors",
    "fit",
    "measure",
    "plan_chunks",
    "score",
]

# Where each public name lives, and those of what `fit` and `score` hand over. They are imported at
# first use: a command that only prints its help must not wait for PyTorch.
_HOMES = {
    "Corpus": "prototokens.corpus.reader",
    "EncodedText": "prototokens.ptok.encoded",
    "Encoder": "prototokens.encoder.encoder",
    "FrozenLM": "prototokens.lm.frozen_lm",
    "Layout": "prototokens.layout",
    "Progress": "prototokens.engine.progress",
    "Recipe": "prototokens.recipe",
    "Solution": "prototokens.solution",
    "VectorScore": "prototokens.scoring",
    "decode": "prototokens.decoding",
    "decode_ids": "prototokens.engine.decode",
    "encode": "prototokens.encoding",
    "fit": "prototokens.fitting",
    "plan_chunks": "prototokens.planning.chunks",
    "score": "prototokens.scoring",
}


def __getattr__(name: str) -> Any:
    if name in ("errors", "measure"):
        return import_module(f"prototokens.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'prototokens' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
