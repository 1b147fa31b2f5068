"""Texts of a source, cut into rows and handed out a shard at a time.

A shard is a function of source and settings alone, whatever was made before: so a run that goes on
makes the shards that are missing, and no row twice. Texts of shards that are there are counted and
not tokenized. Memory holds one text and one shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from prototokens.errors import FileError
from prototokens.lab.documents import documents
from prototokens.lab.texts import DEFAULT, origin_of
from prototokens.lm.tokenization import Vocabulary

SPLIT = "\ufffd"  # what a part of a character is decoded to
MAX_SPLIT = 3  # tokens by which a row is shortened so that no character is split


class Piece(NamedTuple):
    """A row before it is fitted: a text, or a part of one.

    Attributes:
        document: the name of the text.
        part: its number among the `parts` of the text, from 0.
        verbatim: whether the ids of all parts together give the source's text unchanged.
        ids: its tokens; of the model's own samples, those that the sample continues.
    """

    document: str
    part: int
    parts: int
    verbatim: bool
    ids: tuple[int, ...]


class Place(NamedTuple):
    """A place in a source.

    Attributes:
        text: number of the text, those without tokens counted.
        part: of the text.
    """

    text: int
    part: int


class Extent(NamedTuple):
    """What of the source a shard holds.

    Attributes:
        rows: their number.
        start, end: places of the first row, and behind the last one.
        first_text: SHA-256 of the text that the first row is of.
    """

    rows: int
    start: Place
    end: Place
    first_text: str


class Task(NamedTuple):
    """The rows of a shard to be made.

    Attributes:
        shard: its number; first_row: the number of its first row.
        pieces: the rows.
        extent: what of the source they are.
        empty: texts without a token that were left out before or between them.
        generate: whether the rows are the model's own continuations of the pieces.
    """

    shard: int
    first_row: int
    pieces: tuple[Piece, ...]
    extent: Extent
    empty: int
    generate: bool


@dataclass(frozen=True)
class Tasks:
    """The shards of a source that are missing; can be sent to another process.

    Attributes:
        source: as `lab.texts` names it.
        vocabulary: the model's tokenizer.
        length: most tokens of a row; limit: most rows; shard_rows: of a shard.
        seed: of sources that draw.
        finished: the shards that are there.
    """

    source: str
    vocabulary: Vocabulary
    length: int
    limit: int | None
    shard_rows: int
    seed: int
    finished: Mapping[int, Extent]

    def __iter__(self) -> Iterator[Task]:
        """The tasks, in the order of the source.

        Raises:
            UsageError, TextError: as `lab.texts.Texts`.
            FileError: a shard that is there holds rows of another source.
        """
        cursor = _Cursor(self)
        generate = self.source.partition(":")[0] == "generated"
        shard = row = 0
        while self.limit is None or row < self.limit:
            most = self.shard_rows
            if self.limit is not None:
                most = min(most, self.limit - row)
            extent = self.finished.get(shard)
            if extent is not None:
                cursor.skip(shard, extent)
            else:
                empty = cursor.empty
                pieces, extent = cursor.take(most)
                if extent is None:
                    return
                skipped = cursor.empty - empty
                yield Task(shard, row, tuple(pieces), extent, skipped, generate)
            row += extent.rows
            shard += 1
            if extent.rows < most:
                return

    def texts(self) -> Iterator[tuple[str, str | tuple[int, ...]]]:
        """Names and contents of the source's texts; content that is drawn comes as ids."""
        kind, _, rest = self.source.partition(":")
        if kind in ("sample", "file", "hub"):
            yield from documents(self.source)
            return
        # What the model continues has as many tokens as the continuation.
        generated = kind == "generated"
        name = (rest or DEFAULT) if generated else self.source
        for passage in origin_of(name, self.vocabulary, self.seed).passages(self.length, 0):
            yield passage.id + "~" * generated, passage.ids


class _Cursor:
    """Where in the source the next row comes from."""

    def __init__(self, tasks: Tasks):
        self.tasks = tasks
        self.texts = tasks.texts()
        self.number = -1  # of the current text
        self.name = ""
        self.content: str | tuple[int, ...] = ""
        self.pieces: list[Piece] = []  # of the current text, what is left of it
        self.empty = 0

    def take(self, count: int) -> tuple[list[Piece], Extent | None]:
        """The next rows, at most so many; None where there is none left."""
        taken: list[Piece] = []
        start, first_text, last = Place(0, 0), "", 0
        while len(taken) < count:
            if not self.pieces:
                if not self._advance(1):
                    break
                self.pieces = self._cut()
                self.empty += not self.pieces
                continue
            if not taken:
                start, first_text = Place(self.number, self.pieces[0].part), self._hash()
            some = self.pieces[: count - len(taken)]
            self.pieces = self.pieces[len(some) :]
            taken += some
            last = self.number
        if not taken:
            return [], None
        end = Place(last, taken[-1].part + 1)
        return taken, Extent(len(taken), start, end, first_text)

    def skip(self, shard: int, extent: Extent) -> None:
        """Go behind the rows of a shard.

        Raises:
            FileError: the source is not the one that they were made from.
        """
        there = self._advance(extent.start.text - self.number)
        if not there or self._hash() != extent.first_text:
            raise FileError(
                f"shard {shard} of the folder holds rows of another text than {self.tasks.source}"
                f" has as number {extent.start.text + 1}: the source has changed since; make the"
                " corpus in another folder"
            )
        ends_here = extent.end.text == self.number
        if not ends_here and not self._advance(extent.end.text - self.number):
            raise FileError(
                f"{self.tasks.source} ends before the last row of shard {shard} of the folder: the"
                " source has changed since; make the corpus in another folder"
            )
        self.pieces = self._cut()[extent.end.part :]

    def _advance(self, count: int) -> bool:
        """Go on by so many texts; False where the source ends before."""
        if count <= 0:
            return count == 0
        found = next(islice(self.texts, count - 1, None), None)
        if found is None:
            return False
        self.number += count
        self.name, self.content = found
        self.pieces = []
        return True

    def _hash(self) -> str:
        content = self.content
        words = content if isinstance(content, str) else " ".join(map(str, content))
        return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()

    def _cut(self) -> list[Piece]:
        """The rows of the current text."""
        vocabulary, content = self.tasks.vocabulary, self.content
        if not isinstance(content, str):
            return [Piece(self.name, 0, 1, True, tuple(content))]
        ids = vocabulary.tokenize(content.encode("utf-8", "replace").decode())
        verbatim = bool(ids) and vocabulary.detokenize(ids) == content
        parts = cut(vocabulary, ids, self.tasks.length)
        return [Piece(self.name, part, len(parts), verbatim, own) for part, own in enumerate(parts)]


def cut(vocabulary: Vocabulary, ids: list[int], length: int) -> list[tuple[int, ...]]:
    """Ids in parts of at most `length`, no character split between two where that is possible."""
    parts = []
    start = 0
    while start < len(ids):
        end = min(start + length, len(ids))
        if end < len(ids):
            shorter = range(end, max(start, end - 1 - MAX_SPLIT), -1)
            whole = (
                one for one in shorter if not vocabulary.detokenize(ids[start:one]).endswith(SPLIT)
            )
            end = next(whole, end)
        parts.append(tuple(ids[start:end]))
        start = end
    return parts
