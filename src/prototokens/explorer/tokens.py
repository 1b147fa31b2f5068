"""What vectors decode to, as the page shows it: whole characters, each with its margin.

A tokenizer cuts rare characters into tokens of single bytes, whose own text is no character. Such
tokens are shown together, as the character that they make up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from prototokens.engine.forward import HasVectors, scored_hidden
from prototokens.engine.head import argmax, score
from prototokens.engine.inputs import OneStep, arrange
from prototokens.explorer import show
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.tokenization import token_texts
from prototokens.ptok.encoded import EncodedText

PART = "\ufffd"  # what a part of a character is decoded to
MAX_PARTS = 16  # tokens that can make up one piece of whole characters


class Read(NamedTuple):
    """What vectors decode to, and by how much.

    Attributes:
        ids: of the tokens.
        margin: the lead of each target's logit over the best other one, or, without targets, of the
            decoded token.
    """

    ids: Int64[Tensor, " tokens"]
    margin: Float32[Tensor, " tokens"]


class Piece(NamedTuple):
    """A decoded token.

    Attributes:
        id: its number in the vocabulary.
        margin, right, patched: as in `show.Token`.
    """

    id: int
    margin: float | None = None
    right: bool | None = None
    patched: bool = False


@torch.no_grad()
def read(lm: FrozenLM, chunk: HasVectors, ids: tuple[int, ...] | list[int] | None = None) -> Read:
    """What a row decodes to, with margins.

    Args:
        ids: the target, where it is known.
    """
    arranged = arrange(lm, [OneStep(chunk.layout).plan(range(chunk.length))], len(chunk.protos))
    hidden = scored_hidden(lm, arranged, chunk.protos[None].to(lm.device, torch.float32), lm.hidden)
    decoded = argmax(lm, hidden)
    target = decoded if ids is None else torch.tensor(list(ids), device=lm.device)
    return Read(decoded.cpu(), score(lm, hidden, target, gradient=False).margin.cpu())


def pieces_of(
    lm: FrozenLM, chunk: HasVectors, ids: tuple[int, ...] | list[int] | None = None
) -> list[Piece]:
    """A row's tokens; right or wrong only where the target is known."""
    got = read(lm, chunk, ids)
    return [
        Piece(token, margin, None if ids is None else token == ids[position])
        for position, (token, margin) in enumerate(
            zip(got.ids.tolist(), got.margin.tolist(), strict=True)
        )
    ]


def tokens_of(
    lm: FrozenLM, chunk: HasVectors, ids: tuple[int, ...] | list[int] | None = None
) -> list[show.Token]:
    """A row's tokens as the page shows them; right or wrong only where the target is known."""
    return joined(lm, pieces_of(lm, chunk, ids), ids)


def all_tokens(
    lm: FrozenLM, encoded: EncodedText, ids: list[int] | None = None
) -> list[show.Token]:
    """The tokens of a whole text, from vectors, from patches and from stored chunks.

    Args:
        ids: of the text, where they are known.
    """
    pieces: list[Piece] = []
    for number, length in enumerate(encoded.header.chunks):
        own = None if ids is None else ids[len(pieces) : len(pieces) + length]
        stored, patch = encoded.extras.stored.get(number), encoded.extras.patches.get(number, {})
        if stored is not None:
            pieces += [Piece(token, patched=True) for token in stored]
            continue
        pieces += [
            Piece(patch[position], patched=True) if position in patch else piece
            for position, piece in enumerate(pieces_of(lm, encoded.chunk(number + 1), own))
        ]
    return joined(lm, pieces, ids)


def joined(
    lm: FrozenLM, pieces: Sequence[Piece], ids: Sequence[int] | None = None
) -> list[show.Token]:
    """Decoded tokens as the page shows them, those of one character together.

    Args:
        ids: the target, whose characters then say which tokens belong together, be they right or
            wrong. Wrong bytes that make up no character are shown as dots.
    """
    decoded = [piece.id for piece in pieces]
    tokens, first = [], 0
    for text, count in characters(lm, decoded if ids is None else ids):
        part = pieces[first : first + count]
        if ids is not None:
            text = "".join(one for one, _ in characters(lm, decoded[first : first + count]))
            text = text.replace(PART, "·")
        margins = [piece.margin for piece in part if piece.margin is not None]
        known = [piece.right for piece in part if piece.right is not None]
        tokens.append(
            show.Token(
                text,
                min(margins, default=None),
                all(known) if known else None,
                any(piece.patched for piece in part),
                count,
            )
        )
        first += count
    return tokens


def characters(lm: FrozenLM, ids: Sequence[int]) -> list[tuple[str, int]]:
    """Ids as pieces of whole characters: the text of each piece, and how many tokens it has.

    Bytes that make up no character stay tokens of their own.
    """
    texts = token_texts(lm.tokenizer, set(ids), known=lm.vocab_size)
    found: list[tuple[str, int]] = []
    first = 0
    while first < len(ids):
        text, count = texts.get(ids[first], ""), 1
        if PART in text:
            for end in range(first + 2, min(len(ids), first + MAX_PARTS) + 1):
                whole = lm.detokenize(list(ids[first:end]))
                if PART not in whole:
                    text, count = whole, end - first
                    break
        found.append((text, count))
        first += count
    return found
