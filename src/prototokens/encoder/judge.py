"""What the decoder reads from an encoder's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from prototokens.encoder.decoder import Decoder
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Solution

AT_A_TIME = 256  # texts that are judged in one pass


class Encoding(NamedTuple):
    """A text's vectors, float32, on the CPU.

    Attributes:
        feedback_passes: how many they took: passes of the decoder, forward and backward.
        reached: whether the text was seen to come out with the margin that was asked for.
    """

    protos: Float[Tensor, "vectors d_model"]
    feedback_passes: int
    reached: bool


def judged(
    lm: FrozenLM, layout: Layout, targets: Sequence[Sequence[int]], encodings: Sequence[Encoding]
) -> list[Solution]:
    """Encodings of targets as solutions, scored by the decoder."""
    decoder, found = Decoder(lm, layout), []
    for first in range(0, len(targets), AT_A_TIME):
        part = slice(first, first + AT_A_TIME)
        texts = [tuple(ids) for ids in targets[part]]
        judgement = decoder.judge(
            torch.stack([found.protos for found in encodings[part]]).to(lm.device), texts
        )
        found += [
            Solution(
                encoding.protos,
                layout,
                ids,
                correct=correct,
                margin=margin,
                steps=0,
                row_steps=encoding.feedback_passes,
                restarts=0,
                seed=0,
                fingerprint=lm.fingerprint,
            )
            for encoding, ids, correct, margin in zip(
                encodings[part],
                texts,
                judgement.right(len(texts)).tolist(),
                judgement.least_margins(len(texts)).tolist(),
                strict=True,
            )
        ]
    return found
