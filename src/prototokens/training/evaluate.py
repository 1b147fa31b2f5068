"""How good an encoder's zero-step vectors are.

Token accuracy and exact share by length, on texts that it was not trained on; and by kind of text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prototokens.encoder.decoder import Decoder
from prototokens.encoder.encoder import Encoder
from prototokens.encoder.refine import Encoded, Texts
from prototokens.engine.matrix import short_name
from prototokens.lab.passages import without_folders
from prototokens.lab.provenance import machine
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.training.kinds import CODE, GERMAN, texts_of

GRID = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
AT_A_TIME = 64  # texts of one pass


def lengths_of(most: int) -> list[int]:
    """The lengths that are measured, for an encoder of texts of up to `most` tokens."""
    return [*(length for length in GRID if length < most), most]


@torch.no_grad()
def measure(decoder: Decoder, encode: Callable[[Texts], Encoded], texts: Texts) -> dict[str, Any]:
    """One row: of texts of one length, encoded and decoded in one pass each.

    Args:
        encode: texts to vectors.

    Returns:
        `length` in tokens, number of `texts`, token `accuracy` and `exact` share in [0, 1], `nats`
        a token, mean number of feedback passes that a text took (`looks`).
    """
    right = exact = count = passes = 0
    nats = 0.0
    for start in range(0, len(texts), AT_A_TIME):
        part = texts[start : start + AT_A_TIME]
        encoded = encode(part)
        passes += int(encoded.feedback_passes.sum())
        judged = decoder.judge(encoded.protos, part)
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
        "looks": round(passes / len(texts), 3),
    }


def by_length(
    decoder: Decoder, encode: Callable[[Texts], Encoded], texts: Texts, lengths: Sequence[int]
) -> list[dict[str, Any]]:
    """`measure` of the beginnings of the same texts, one row for each length."""
    return [measure(decoder, encode, [ids[:length] for ids in texts]) for length in lengths]


def by_kind(
    lm: FrozenLM,
    encoder: Encoder,
    sources: Mapping[str, str],
    count: int,
    lengths: Sequence[int],
    seed: int = 0,
) -> dict[str, Any]:
    """What a config records of kinds of text, those that the encoder was not trained on among them.

    Args:
        sources: further kinds than those of `kinds`, by name, as `--texts` takes them.
        count: texts of each kind, cut to each of the lengths.

    Returns:
        `processor` and `dtype` that they were measured with; and `rows`, those of `measure` with
        the `kind`, its `source`, and how many texts the encoder itself saw come out exactly
        (`reached`).
    """
    decoder, rows = Decoder(lm, encoder.layout), []
    for kind in (*sources, CODE, GERMAN):
        texts = texts_of(kind, lm, count, max(lengths), sources, seed)
        for length in lengths:
            reached: list[Tensor] = []

            def encode(part: Texts, reached: list[Tensor] = reached) -> Encoded:
                encoded = encoder.batch(lm, part)
                reached.append(encoded.reached)
                return encoded

            row = measure(decoder, encode, [ids[:length] for ids in texts])
            row |= {"kind": kind, "reached": int(torch.cat(reached).sum())}
            rows.append({**row, "source": without_folders(sources.get(kind, kind))})
    about = machine(lm.device)
    return {"processor": about["processor"], "dtype": short_name(lm.dtype), "rows": rows}


def of_encoder(lm: FrozenLM, encoder: Encoder, texts: Texts, source: str) -> dict[str, Any]:
    """What an encoder's config records of held-out texts.

    `source`, and `by_length`'s `rows` of the weights as they are saved.
    """
    lengths = lengths_of(encoder.shape.max_length)
    rows = by_length(
        Decoder(lm, encoder.layout), lambda part: encoder.batch(lm, part), texts, lengths
    )
    return {"source": without_folders(source), "rows": rows}
