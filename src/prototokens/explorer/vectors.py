"""Vectors as numbers that can be read: their norms, and the tokens that lie nearest to them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from prototokens.explorer import show
from prototokens.explorer.tokens import PART
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.tokenization import token_texts

NEAREST = 5  # tokens that are named for each vector


class Portrait(NamedTuple):
    """What is shown of a vector.

    Attributes:
        norm: its Euclidean norm.
        times: how many times as long as the median embedding of a token it is.
        nearest: tokens whose embeddings have the largest cosine with it, with these.
    """

    norm: float
    times: float
    nearest: list[tuple[int, float]]


@torch.no_grad()
def portraits(lm: FrozenLM, protos: Float[Tensor, "vectors d_model"]) -> list[Portrait]:
    """Norm and nearest tokens of each vector."""
    table = lm.embedding_weight[: lm.known_ids].float().cpu()
    norms = table.norm(dim=1)
    usual = float(norms.median())
    own = protos.float().norm(dim=1)
    cosines = (protos.float() @ table.T) / (own[:, None] * norms).clamp_min(1e-12)
    best = cosines.topk(min(NEAREST, len(table)), dim=1)
    return [
        Portrait(float(norm), float(norm) / (usual or 1.0), list(zip(ids, values, strict=True)))
        for norm, ids, values in zip(own, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def described(
    lm: FrozenLM, protos: Float[Tensor, "vectors d_model"], names: list[str], keyed: bool
) -> str:
    """A table of the vectors, and what it says.

    Args:
        keyed: whether positions are fed the vectors times their own signs.
    """
    found = portraits(lm, protos)
    texts = token_texts(
        lm.tokenizer, {token for one in found for token, _ in one.nearest}, known=lm.vocab_size
    )
    rows = [
        [
            name,
            f"{one.norm:.2f}",
            f"{one.times:.1f}",
            " · ".join(f"{_name(texts, token)} {cosine:.2f}" for token, cosine in one.nearest),
        ]
        for name, one in zip(names, found, strict=True)
    ]
    closest = max((cosine for one in found for _, cosine in one.nearest), default=0.0)
    words = (
        f"The vectors are no tokens: the largest cosine with the embedding of any token is"
        f" {closest:.2f}."
    )
    if keyed:
        words += " Each position is fed its vector times fixed signs of its own."
    heads = ["vector", "norm", "times a token's", f"{NEAREST} nearest tokens, with their cosines"]
    return (
        show.head("The vectors of the first chunk")
        + show.note(words)
        + show.table(heads, rows, of_words=True)
    )


def _name(texts: dict[int, str], token: int) -> str:
    """A token as a label; one of part of a character by its number."""
    text = texts.get(token, "")
    if not text.strip() or PART in text:
        return f"#{token}"
    return text.replace(" ", "␣").replace("\n", "¶")


def names_of(vectors: int) -> list[str]:
    """What the vectors of a layout are called."""
    return [name_of(number, vectors) for number in range(vectors)]


def name_of(vector: int, vectors: int) -> str:
    """What a vector is called: e, m, or m_k where there are several."""
    if vector == 0:
        return "e"
    return "m" if vectors == 2 else f"m_{vector}"
