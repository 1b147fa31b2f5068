"""The tokens that a language model is pretrained on.

Texts, a tokenizer trained on them, one long array of ids.

Everything here is a function of its arguments and a seed, so that a run killed at any moment finds
the same batches again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from prototokens.lab.documents import COLUMN, documents, slices

END_OF_TEXT = "<|endoftext|>"
# Characters given to the tokenizer at a time: this bounds memory, and costs at most one merge a
# slice.
SLICE = 1 << 19


def read_texts(source: str, column: str = COLUMN) -> Iterator[str]:
    """The texts of one source, in order.

    Args:
        source: a Parquet file, a text file, a folder of either, or `hub:ID[@REVISION]`.
        column: the column that holds the text, for Parquet files and data sets of the hub.
    """
    if source.startswith("hub:"):
        name = f"{source}:{column}"
    else:
        name = f"file:{source}" if column == COLUMN else f"file:{source}:{column}"
    for document in documents(name):
        yield document.text


def train_tokenizer(
    sources: Iterable[str], column: str, vocab_size: int, every: int = 8
) -> Tokenizer:
    """A byte-level BPE tokenizer: no normaliser, so that any text comes back byte for byte.

    Args:
        every: only one slice of so many is counted; merges of a 4096 vocabulary need no more.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces = (
        piece
        for source in sources
        for text in read_texts(source, column)
        for piece in slices(text, SLICE)
    )
    tokenizer.train_from_iterator(
        (piece for i, piece in enumerate(pieces) if i % every == 0), trainer
    )
    return tokenizer


def tokenise(tokenizer: Tokenizer, sources: Iterable[str], column: str, path: Path) -> int:
    """Write the ids of all texts to `path` as uint16, each text behind an end-of-text id.

    Returns their number.
    """
    end = tokenizer.token_to_id(END_OF_TEXT)
    count = 0
    partial = path.with_suffix(".partial")
    with partial.open("wb") as out:
        for source in sources:
            for text in read_texts(source, column):
                encodings = tokenizer.encode_batch_fast(
                    list(slices(text, SLICE)), add_special_tokens=False
                )
                ids = np.concatenate(
                    [
                        np.array([end], dtype=np.uint16),
                        *(np.array(e.ids, dtype=np.uint16) for e in encodings),
                    ]
                )
                out.write(ids.tobytes())
                count += len(ids)
        out.flush()
        os.fsync(out.fileno())
    partial.rename(path)
    return count


def prepare(work: Path, sources: list[str], column: str, vocab_size: int) -> tuple[Tokenizer, Path]:
    """The tokenizer and the file of ids, made once and found again in `work`.

    They are keyed by the sources and the size of the vocabulary.
    """
    key = hashlib.sha256(json.dumps([sources, column, vocab_size]).encode()).hexdigest()[:12]
    tokenizer_path, ids_path = work / f"tokenizer-{key}.json", work / f"ids-{key}.bin"
    work.mkdir(parents=True, exist_ok=True)
    if not tokenizer_path.exists():
        train_tokenizer(sources, column, vocab_size).save(str(tokenizer_path))
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    if not ids_path.exists():
        tokenise(tokenizer, sources, column, ids_path)
    return tokenizer, ids_path


class Windows:
    """Batches of windows of ids: batch `step` is a pure function of (file, context, seed, step).

    The file is cut into windows of `context` ids (plus the one that follows); each epoch visits all
    of them once in an order drawn from (seed, epoch).
    """

    def __init__(self, path: Path, context: int, seed: int):
        self.ids = np.memmap(path, dtype=np.uint16, mode="r")
        self.context = context
        self.seed = seed
        self.count = (len(self.ids) - 1) // context
        if self.count == 0:
            raise SystemExit(
                f"{path} holds {len(self.ids)} ids, fewer than one window of {context}: give more"
                " text"
            )
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def window(self, serial: int) -> np.ndarray:
        """The window that comes `serial`-th in the whole run, `[context + 1]`."""
        epoch, index = divmod(serial, self.count)
        if epoch != self._epoch:
            self._epoch, self._order = (
                epoch,
                np.random.default_rng([self.seed, epoch]).permutation(self.count),
            )
        start = int(self._order[index]) * self.context
        return np.asarray(self.ids[start : start + self.context + 1], dtype=np.int64)

    def batch(self, first: int, rows: int) -> np.ndarray:
        """Windows `first` ... `first + rows - 1` of the run, `[rows, context + 1]`."""
        return np.stack([self.window(first + row) for row in range(rows)])
