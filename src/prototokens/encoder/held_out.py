"""How good an encoder's raw vectors are: token accuracy and exact share by length, on texts that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from prototokens.encoder.through import Decoder

GRID = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
AT_A_TIME = 64  # texts of one pass
Texts = Sequence[Sequence[int]]


def lengths_of(most: int) -> list[int]:
    """The lengths that are measured, for an encoder of texts of up to `most` tokens."""
    return [*(length for length in GRID if length < most), most]


@torch.no_grad()
def measure(decoder: Decoder, encode: Callable[[Texts], Float[Tensor, "rows vectors d_model"]], texts: Texts) -> dict[str, Any]:
    """One row: of texts of one length, encoded and decoded in one pass each.

    Args:
        encode: texts to vectors.

    Returns:
        `length` in tokens, number of `texts`, token `accuracy` and `exact` share in [0, 1], `nats` a token.
    """
    right = exact = count = 0
    nats = 0.0
    for start in range(0, len(texts), AT_A_TIME):
        part = texts[start : start + AT_A_TIME]
        judged = decoder.judge(encode(part), part)
        right += int(judged.scores.right.sum())
        exact += int(judged.exact(len(part)).sum())
        nats += float(judged.scores.loss.double().sum())
        count += len(judged.scores.right)
    return {
        "length": len(texts[0]),
        "texts": len(texts),
        "accuracy": round(right / count, 5),
        "exact": round(exact / len(texts), 5),
        "nats": round(nats / count, 5),
    }


def by_length(
    decoder: Decoder, encode: Callable[[Texts], Float[Tensor, "rows vectors d_model"]], texts: Texts, lengths: Sequence[int]
) -> list[dict[str, Any]]:
    """`measure` of the beginnings of the same texts, one row for each length."""
    return [measure(decoder, encode, [ids[:length] for ids in texts]) for length in lengths]
