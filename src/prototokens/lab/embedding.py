"""Sentence embeddings by a model of the sentence-transformers library.

The model is named, or is a folder (extra `[metrics]`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from prototokens._util.extras import need
from prototokens.errors import ModelError
from prototokens.lm.locate import quiet

# The paper's, for the distances of figure 6.
PAPER = "sentence-transformers/all-MiniLM-L6-v2"

Embed = Callable[[Sequence[str]], Float[Tensor, "texts width"]]


@lru_cache(maxsize=2)
def embedder(name: str, device: str = "cpu") -> Embed:
    """What turns texts into embeddings, by the model of that name.

    Args:
        name: a folder, or a hub id such as sentence-transformers/all-MiniLM-L6-v2.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        ModelError: there is no such model, or it cannot be reached.
    """
    library = need("sentence_transformers", "metrics", "semantic similarity")
    with quiet():
        try:
            model = library.SentenceTransformer(name, device=device)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the sentence-embedding model {name!r} cannot be loaded"
                f" ({str(error).splitlines()[0]}):"
                f" give a folder that holds one, or a hub id such as {PAPER}"
            ) from error

    def embed(texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        with torch.no_grad(), quiet():
            return (
                model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
                .float()
                .cpu()
            )

    return embed
