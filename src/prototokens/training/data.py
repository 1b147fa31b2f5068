"""Training targets: the ids of a source on disk, read once, and stretches of them drawn by number.

Of running text any stretch may be a target: texts are cut at any token when they are encoded. Of
other sources (words or ids at random, the model's own samples) there are passages, and a target is
the beginning of one. A batch is a function of the settings and the step alone, so a run that was
killed finds the same batches again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prototokens.errors import TextError
from prototokens.lab.documents import documents, slices
from prototokens.lab.texts import Running, Texts
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.training.config import Training

SLICE = 1 << 16  # characters that are turned into ids at a time
MIN_STRETCHES = 16  # stretches without which there is nothing to learn from
HELD_OUT = 50  # where no other source is given, one part in so many, at the end, is not trained on
PASSAGES = 1 << 16  # most passages that are kept of a source without an end


class Pool:
    """Ids on disk, and where a target may begin.

    Attributes:
        ids: all of them.
        stride: tokens between two positions at which a target may begin.
        most: longest target.
        count: stretches for training; behind them lie those for measuring, where no other source
            is given.
        total: stretches in all.
    """

    def __init__(self, path: Path, stride: int, most: int, held_out: bool):
        self.ids = np.load(path, mmap_mode="r")
        self.stride, self.most = stride, most
        self.total = max(0, (len(self.ids) - most) // stride + 1)
        least = most if stride == 1 else 1
        self.count = self.total - (max(self.total // HELD_OUT, least) if held_out else 0)

    def batch(self, training: Training, step: int) -> list[tuple[int, ...]]:
        """A step's targets, longest first."""
        starts = (
            np.random.default_rng([training.seed, step, 0])
            .integers(self.count, size=training.rows)
            .tolist()
        )
        return [
            self._cut(start, length)
            for start, length in zip(starts, training.lengths(step, self.most), strict=True)
        ]

    def held_out(self, count: int) -> list[tuple[int, ...]]:
        """Targets of full length that training never sees, spread over the pool's end."""
        return [self._cut(index, self.most) for index in self.held_out_indices(count)]

    def held_out_indices(self, count: int) -> list[int]:
        """Where they begin: no token of theirs is in any training target."""
        first = min(self.count + (self.most if self.stride == 1 else 0), self.total - 1)
        return np.unique(np.linspace(first, self.total - 1, count).round().astype(int)).tolist()

    def _cut(self, index: int, length: int) -> tuple[int, ...]:
        start = index * self.stride
        return tuple(self.ids[start : start + length].tolist())


def open_pool(lm: FrozenLM, training: Training, most: int, folder: Path) -> Pool:
    """The pool of a training, made at the first call and found again in `folder`.

    Raises:
        TextError: the source cannot be read, or holds too little.
    """
    origin = Texts(lm, [training.texts], training.seed).origin
    running = isinstance(origin, Running)
    key = [training.texts, lm.tokenizer_hash, lm.vocab_size, training.pool]
    key += [] if running else [lm.fingerprint, most, training.seed]
    path = folder / f"ids-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]}.npy"
    if not path.exists():
        if running:
            pieces = _document_ids(lm, training.texts)
        else:
            passages = min(PASSAGES, max(MIN_STRETCHES, training.pool // most))
            pieces = (
                list(passage.ids)
                for _, passage in zip(range(passages), origin.passages(most, 0), strict=False)
            )
        _write(path, pieces, training.pool, lm.vocab_size)
    pool = Pool(path, 1 if running else most, most, held_out=not training.held_out)
    if pool.count < MIN_STRETCHES:
        raise TextError(
            f"{training.texts} holds {len(pool.ids)} tokens, too few to train on texts of up to"
            f" {most} tokens:"
            " name a larger source with --texts"
        )
    return pool


def _document_ids(lm: FrozenLM, source: str) -> Iterator[list[int]]:
    """Ids of every document, in slices that end at a space."""
    for document in documents(source):
        for piece in slices(document.text, SLICE):
            yield lm.tokenize(piece)


def _write(path: Path, pieces: Iterator[list[int]], most: int, vocabulary: int) -> None:
    """Save ids as one array, under another name first: a kill leaves none or a whole one."""
    kind = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    parts, count = [], 0
    for piece in pieces:
        parts.append(np.asarray(piece[: most - count], dtype=kind))
        count += len(parts[-1])
        if count >= most:
            break
    beside = path.with_suffix(".partial")
    with beside.open("wb") as out:
        np.save(out, np.concatenate([np.zeros(0, dtype=kind), *parts]))
        out.flush()
        os.fsync(out.fileno())
    beside.rename(path)
