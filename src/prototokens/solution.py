"""What a fit returns for one target."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Float32
from torch import Tensor

from prototokens._util.json_fields import (
    Fields,
    MismatchError,
    count,
    list_of,
    nullable,
    number,
    string,
)
from prototokens._util.strict_json import loads
from prototokens._util.tensor_files import read_tensors, write_tensors
from prototokens._util.token_html import tokens_html
from prototokens.errors import FileError, UsageError
from prototokens.layout import Layout, recorded

FORMAT = 1  # of the files that `Solution.save` writes
METADATA = "prototokens.solution"
SMALLEST = count(-(2**63))  # any whole number that a seed can be


class Chunk(NamedTuple):
    """Vectors, and what decoding needs of the text that they stand for.

    Attributes:
        protos: the vectors, e first.
        layout: the arrangement they are meant for.
        length: tokens of the text.
        ids: of the text, where they are known; else empty.
    """

    protos: Float32[Tensor, "vectors d_model"]
    layout: Layout
    length: int
    ids: tuple[int, ...] = ()

    @staticmethod
    def of(protos: Tensor, layout: Layout, ids: Sequence[int]) -> Chunk:
        """A chunk of a text that is known."""
        return Chunk(protos, layout, len(ids), tuple(ids))


class ScoreOf(NamedTuple):
    """What the score of a solution belongs to.

    Attributes:
        digest: of vectors, layout and target.
        correct, margin, margins: the score.
    """

    digest: bytes
    correct: int | None
    margin: float
    margins: tuple[float, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """The proto-tokens of one target, as they were scored (not as they were after a further step).

    Two solutions are equal if everything but `tokens` is, vectors bit by bit. Solutions can be
    pickled and copied.

    `dataclasses.replace(solution, protos=...)` carries no score over to vectors that were not
    scored: where vectors, layout or target change, `correct` becomes None, `margin` NaN and
    `margins` empty, unless a new value is given; `exact` is then false. `prototokens.score` scores
    any vectors. A new value that equals the old one cannot be told from one that was carried over:
    give `scored=None` with it.

    Attributes:
        protos: `[vectors, d_model]`, float32, on the CPU; e first.
        layout: the arrangement they are meant for.
        ids: the target.
        correct: number of scored positions whose argmax is the target's token; None where these
            vectors were not scored.
        margin: least, over the scored positions, of the true logit minus the best other one, in
            logits; negative where one is wrong; NaN where these vectors were not scored.
        steps: optimiser steps of the attempt that gave these vectors, before they were scored.
        row_steps: forward and backward passes spent on this row in all, over every attempt.
        restarts: attempts before the one that gave these vectors.
        seed: of the start.
        failure: why the row ended, where it did not end by being solved or by its budget (a loss
            that was not finite).
        excluded: positions that were not scored, as no vectors can give their tokens the margin
            that was asked for (`lm.untrained`), or as `mask` left them out. They count as wrong.
        fingerprint: of the weights of the model that the vectors were fitted to; empty where it is
            not known, as in results of earlier versions.
        margins: of each scored position, in order (logits); empty where they are not known.
        tokens: the text of each token of the target, for display; empty where it is not known.
        scored: what the score belongs to; filled in by itself.
    """

    protos: Float32[Tensor, "vectors d_model"]
    layout: Layout
    ids: tuple[int, ...]
    correct: int | None
    margin: float
    steps: int
    row_steps: int
    restarts: int
    seed: int
    failure: str | None = None
    excluded: tuple[int, ...] = ()
    fingerprint: str = ""
    margins: tuple[float, ...] = ()
    tokens: tuple[str, ...] = ()
    scored: ScoreOf | None = None

    def __post_init__(self) -> None:
        digest, old = self._digest(), self.scored
        score = ScoreOf(digest, self.correct, self.margin, self.margins)
        if old is not None and old.digest != digest:
            # What equals the old score was carried over by `dataclasses.replace`.
            if self.correct == old.correct:
                score = ScoreOf(digest, None, math.nan, ())
            else:
                margin = math.nan if self.margin == old.margin else self.margin
                margins = () if self.margins == old.margins else self.margins
                score = ScoreOf(digest, self.correct, margin, margins)
        for name in ("correct", "margin", "margins"):
            object.__setattr__(self, name, getattr(score, name))
        object.__setattr__(self, "scored", score)

    def _digest(self) -> bytes:
        """Hash of vectors, layout and target."""
        layout = self.layout
        made_of = (
            layout.name,
            layout.key_version,
            layout.prefix,
            self.ids,
            self.excluded,
            str(self.protos.dtype),
            tuple(self.protos.shape),
        )
        raw = self.protos.detach().cpu().contiguous().flatten().view(torch.uint8)
        return hashlib.sha256(repr(made_of).encode() + raw.numpy().tobytes()).digest()

    def _key(self) -> tuple[Any, ...]:
        """What equality compares: the vectors by their digest, NaN equal to itself."""
        names = [one.name for one in fields(self) if one.name not in ("protos", "tokens", "scored")]
        values = [getattr(self, name) for name in names]
        return self._digest(), *(repr(one) if isinstance(one, float) else one for one in values)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Solution) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Solution({self._summary()})"

    def _repr_html_(self) -> str:
        """Tokens, coloured by margin where margins are known; ids where the text is not known."""
        tokens = self.tokens or tuple(f"{token} " for token in self.ids)
        margins: list[float | None] = [None] * self.length
        if self.margins:
            rest = iter(self.margins)
            margins = [
                None if position in self.excluded else next(rest, None)
                for position in range(self.length)
            ]
        return tokens_html(repr(self), tokens, margins)

    def _summary(self) -> str:
        count, width = self.protos.shape
        right = "not scored" if self.correct is None else f"{self.correct} of {self.length} right"
        margin = "" if math.isnan(self.margin) else f", margin {self.margin:.3g}"
        failed = f", failure {self.failure!r}" if self.failure else ""
        return (
            f"{self.length} tokens in {count} x {width} {self.layout.name!r}, {right}{margin},"
            f" {self.steps} steps{failed}"
        )

    @property
    def length(self) -> int:
        """Number of tokens of the target."""
        return len(self.ids)

    @property
    def right_tokens(self) -> int:
        """The number of right tokens.

        Raises:
            UsageError: these vectors were not scored.
        """
        if self.correct is None:
            raise UsageError(
                "the vectors of this solution were replaced after they were scored: score them with"
                " prototokens.score"
            )
        return self.correct

    @property
    def accuracy(self) -> float:
        """Share of positions that are right, in [0, 1]; NaN where the vectors were not scored."""
        return math.nan if self.correct is None else self.correct / self.length

    @property
    def exact(self) -> bool:
        """Every token right; false where the vectors were not scored."""
        return self.correct == self.length

    @property
    def exact_where_scored(self) -> bool:
        """Every token right but those that were not scored."""
        return self.correct == self.length - len(self.excluded)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file: the vectors as a tensor, the rest as JSON in the metadata.

        Args:
            path: of the file; it is replaced in one step.

        Raises:
            UsageError: the layout is not one that has a name of its own.
            FileError: the path cannot be written.
        """
        if not self.layout.recordable:
            raise UsageError(
                f"a file cannot store layout {self.layout.name!r}: it records layouts by name, and"
                " Layout.named does not find this one"
            )
        finite = all(map(math.isfinite, self.margins))
        values = {name: getattr(self, name) for name in _PLAIN} | {
            "format": FORMAT,
            "layout": self.layout.name,
            "prefix": self.layout.prefix,
            "margin": self.margin if math.isfinite(self.margin) else None,
            "margins": self.margins if finite else (),
        }
        content = json.dumps(values, ensure_ascii=False, allow_nan=False, sort_keys=True)
        tensors = {"protos": self.protos.detach().cpu().to(torch.float32)}
        write_tensors(path, tensors, {METADATA: content})

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Solution:
        """Read a file that `save` wrote. Files are untrusted input: every value is checked.

        Raises:
            FileError: missing, damaged, not such a file, or of a newer format.
        """
        tensors, metadata = read_tensors(path)
        if METADATA not in metadata or list(tensors) != ["protos"]:
            raise FileError(f"{path} is not the file of a solution (Solution.save writes them)")
        try:
            return _checked(loads(metadata[METADATA]), tensors["protos"])
        except UsageError as error:
            raise FileError(f"{path} cannot be used: {error}") from error
        except (ValueError, RecursionError) as error:
            raise FileError(f"{path} is damaged, or newer than this version: it {error}") from error


_CHECKS = {
    "ids": list_of(count()),
    "correct": nullable(count()),
    "steps": count(),
    "row_steps": count(),
    "restarts": count(),
    "seed": SMALLEST,
    "failure": nullable(string),
    "excluded": list_of(count()),
    "fingerprint": string,
    "tokens": list_of(string),
}
_PLAIN = tuple(_CHECKS)


def _checked(values: Any, protos: Tensor) -> Solution:
    """The solution that a file holds.

    Raises:
        MismatchError: a value is missing, or of another kind than `save` writes.
        UsageError: no such layout.
    """
    given = Fields(values)
    given.take("format", count(FORMAT, FORMAT))
    layout = recorded(given.take("layout", string), given.take("prefix", list_of(count())))
    plain = {name: given.take(name, check) for name, check in _CHECKS.items()}
    margin = given.take("margin", nullable(number))
    margins = given.take("margins", list_of(number))
    if margin is None:
        margin = math.nan if plain["correct"] is None else -math.inf
    if protos.dtype != torch.float32 or protos.ndim != 2 or len(protos) != layout.vectors:
        raise MismatchError(
            "protos", f"a float32 tensor of {layout.vectors} vectors", str(tuple(protos.shape))
        )
    if not protos.isfinite().all():
        raise MismatchError("protos", "finite numbers", "others")
    length = len(plain["ids"])
    scored = length - len(plain["excluded"])
    if not length or (plain["correct"] or 0) > scored or len(margins) not in (0, scored):
        raise MismatchError("ids", "as many tokens as the score counts", length)
    if len(plain["tokens"]) not in (0, length) or max(plain["excluded"], default=0) >= length:
        raise MismatchError("ids", "as many tokens as have texts", length)
    return Solution(protos=protos, layout=layout, margin=margin, margins=margins, **plain)
