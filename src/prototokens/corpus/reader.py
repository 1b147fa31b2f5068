"""A corpus that was made: its rows in batches for PyTorch, decoded in one pass, and verified."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prototokens.corpus.meta import FILE, Meta
from prototokens.corpus.schema import read_facts, read_table, vectors_of
from prototokens.corpus.shards import Shard, shards_in
from prototokens.engine.decode import POSITIONS, decode_ids
from prototokens.errors import FileError, PrototokensError, UsageError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.release import check_usable
from prototokens.solution import Chunk

CACHED = 2  # shards that are kept in memory
PADDING = -100  # in the ids of a batch: what losses of PyTorch leave out by default
VERIFIED = 1024  # rows that are decoded at a time


class Row(NamedTuple):
    """A row.

    Attributes:
        row: its number in the corpus; id: its text and part.
        text: what it stands for; ids: its tokens.
        vectors: as they were scored.
        exact: whether they decoded to the ids when they were stored.
        margin: least lead of a right logit, in logits.
    """

    row: int
    id: str
    text: str
    ids: tuple[int, ...]
    vectors: Float32[Tensor, "vectors d_model"]
    exact: bool
    margin: float


class Batch(NamedTuple):
    """Rows side by side.

    Attributes:
        vectors: of each row.
        ids: right padded with `PADDING`; lengths: tokens of each row.
        rows: their numbers in the corpus; texts: what they stand for.
        exact: whether each row's vectors decoded to its ids.
    """

    vectors: Float32[Tensor, "rows vectors d_model"]
    ids: Int64[Tensor, "rows longest"]
    lengths: Int64[Tensor, "rows"]
    rows: Int64[Tensor, "rows"]
    texts: list[str]
    exact: list[bool]


class DecodedRows(NamedTuple):
    """Rows read back from their vectors.

    Attributes:
        ids, texts: of each row.
        right: whether the ids are those that are stored.
        forward_passes: through the model; every row took part in exactly one.
    """

    ids: list[list[int]]
    texts: list[str]
    right: list[bool]
    forward_passes: int


class VerifiedCorpus(NamedTuple):
    """What a verification found.

    Attributes:
        shards: files whose hash was compared; damaged: what is wrong with some, in a sentence each.
        decoded: rows that were decoded; wrong: numbers of those that were exact when they were
            stored and are not now.
    """

    shards: int
    damaged: list[str]
    decoded: int
    wrong: list[int]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damaged and not self.wrong


class Corpus(Dataset[Row]):
    """The rows of a folder that `prototokens corpus` made, by position.

    Positions count the rows that are there: in a folder that is complete, a row's position is its
    number.

    Attributes:
        folder: where it is; meta: what it was made from and with.
        layout: of every row, with its prefix.
        complete: whether the run that made it came to its end.
    """

    def __init__(self, folder: Path, meta: Meta, shards: list[Shard]):
        self.folder, self.meta, self.layout = folder, meta, meta.layout
        self.complete = meta.complete is not None
        self._shards, self._starts = shards, [0]
        rows = meta.settings["shard_rows"]
        for shard in shards:
            last = shard is shards[-1]  # the only one that may have fewer
            count = read_facts(shard.path)["extent"]["rows"] if last else rows
            self._starts.append(self._starts[-1] + count)
        self._cache: OrderedDict[int, _Columns] = OrderedDict()

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """Open a folder, whole or not complete yet.

        Raises:
            FileError: there is none, or it is damaged.
            UsageError: it was made by a newer version.
            MissingExtraError: pyarrow is not installed.
        """
        path = Path(folder)
        meta = Meta.load(path)
        if meta is None:
            raise FileError(f"{path} is no corpus: it has no {FILE} (prototokens corpus makes one)")
        return cls(path, meta, shards_in(path))

    def __len__(self) -> int:
        return self._starts[-1]

    def __repr__(self) -> str:
        whole = "" if self.complete else ", not complete yet"
        return (
            f"Corpus({str(self.folder)!r}, {len(self):,} rows of {self.layout.vectors} vectors,"
            f" {self.meta.settings['values']}, layout {self.layout.name!r}{whole})"
        )

    @overload
    def __getitem__(self, position: int) -> Row: ...
    @overload
    def __getitem__(self, position: slice) -> list[Row]: ...
    def __getitem__(self, position: int | slice) -> Row | list[Row]:
        """A row, or those of a slice."""
        if isinstance(position, slice):
            return self.__getitems__(range(*position.indices(len(self))))
        if not -len(self) <= position < len(self):
            raise IndexError(f"position {position} of a corpus of {len(self)} rows")
        return self.__getitems__([position % len(self)])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Row]:
        """Rows at positions, as PyTorch's loaders ask for them."""
        found = []
        for position in positions:
            number = bisect_right(self._starts, position) - 1
            found.append(self._columns(number).row(position - self._starts[number]))
        return found

    def loader(
        self, rows: int = 64, *, shuffle: bool = False, seed: int = 0, workers: int = 0
    ) -> DataLoader[Row]:
        """Batches for PyTorch.

        Args:
            rows: of a batch.
            shuffle: shards in a random order, and the rows of each: every shard is read once.
            seed: of that order.
            workers: processes that read.
        """
        order = ShardOrder(self._starts, rows, seed if shuffle else None)
        return DataLoader(self, batch_sampler=order, collate_fn=collate, num_workers=workers)

    def decode(
        self, lm: FrozenLM, which: slice | Sequence[int], positions: int = POSITIONS
    ) -> DecodedRows:
        """Rows read back from their vectors alone, each in exactly one forward pass.

        Args:
            lm: the model that they were made for.
            which: a slice, or positions.
            positions: most input positions of one pass.

        Raises:
            UsageError: another model.
        """
        self.check_model(lm)
        chosen = range(*which.indices(len(self))) if isinstance(which, slice) else which
        rows = self.__getitems__(chosen)
        chunks = [Chunk(row.vectors, self.layout, len(row.ids)) for row in rows]
        ids, passes = decode_ids(lm, chunks, positions)
        right = [tuple(got) == row.ids for got, row in zip(ids, rows, strict=True)]
        return DecodedRows(ids, [lm.detokenize(one) for one in ids], right, passes)

    def verify(
        self, lm: FrozenLM | None = None, sample: int | None = None, seed: int = 0
    ) -> VerifiedCorpus:
        """Compare every file with its hash, and decode rows.

        Args:
            lm: the model; without it nothing is decoded.
            sample: rows at random that are decoded; by default all.
            seed: of that choice.

        Raises:
            UsageError: another model.
        """
        damaged = [*self._missing(), *(one for one in map(self._broken, self._shards) if one)]
        if lm is None or damaged:
            return VerifiedCorpus(len(self._shards), damaged, 0, [])
        every = range(len(self))
        chosen = (
            every
            if sample is None
            else sorted(random.Random(seed).sample(every, min(sample, len(every))))
        )
        wrong = []
        for start in range(0, len(chosen), VERIFIED):
            part = chosen[start : start + VERIFIED]
            rows = self.__getitems__(part)
            right = self.decode(lm, part).right
            wrong += [
                row.row for row, same in zip(rows, right, strict=True) if row.exact and not same
            ]
        return VerifiedCorpus(len(self._shards), [], len(chosen), wrong)

    def check_model(self, lm: FrozenLM) -> None:
        """Refuse a model that the vectors were not fitted to.

        Raises:
            UsageError: its weights are others.
        """
        check_usable(lm, "decode")
        made_for = self.meta.settings["model"]
        if made_for["fingerprint"] != lm.fingerprint:
            raise UsageError(
                f"{self.folder} was made for the model {made_for['name']!r} (fingerprint"
                f" {made_for['fingerprint'][:12]!r}), and {lm.name!r} has fingerprint"
                f" {lm.fingerprint[:12]!r}: vectors mean nothing to other weights"
            )

    def _broken(self, shard: Shard) -> str | None:
        """What is wrong with a shard, in a sentence."""
        try:
            if shard.intact():
                read_table(shard.path, self.meta.shape)
                return None
        except PrototokensError as error:
            return str(error)
        return (
            f"{shard.name} is damaged (its content does not have the hash in its name): delete it,"
            " and the command that made the folder makes it again"
        )

    def _missing(self) -> list[str]:
        """Shards that a complete folder lacks."""
        complete = self.meta.complete
        there = {shard.number for shard in self._shards}
        count = complete["shards"] if complete else max(there, default=-1) + 1
        gone = [number for number in range(count) if number not in there]
        if not complete or not gone:
            return []
        return [
            f"shard {number} of {count} is missing: the command that made the folder makes it again"
            for number in gone
        ]

    def _columns(self, number: int) -> _Columns:
        """A shard's rows, from memory or from its file."""
        if number not in self._cache:
            self._cache[number] = _Columns.read(self._shards[number], self.meta)
            if len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        self._cache.move_to_end(number)
        return self._cache[number]


class _Columns(NamedTuple):
    """The rows of a shard in memory."""

    table: Any
    vectors: Tensor

    @staticmethod
    def read(shard: Shard, meta: Meta) -> _Columns:
        table = read_table(shard.path, meta.shape)
        return _Columns(table, vectors_of(table, meta.shape))

    def row(self, index: int) -> Row:
        """One row."""
        names = ("row", "id", "text", "ids", "exact", "margin")
        values = {name: self.table.column(name)[index].as_py() for name in names}
        values["ids"] = tuple(values["ids"])
        return Row(**values, vectors=self.vectors[index])


class ShardOrder:
    """Positions in batches, shard after shard, so that each is read once.

    The shards, and the rows of each, may be shuffled.
    """

    def __init__(self, starts: Sequence[int], rows: int, seed: int | None):
        """`starts` are the positions at which shards begin, and the end; None: in order."""
        if rows < 1:
            raise UsageError(f"a batch has at least one row, not {rows}")
        self.starts, self.rows, self.seed = list(starts), rows, seed

    def __len__(self) -> int:
        return -(-self.starts[-1] // self.rows)

    def __iter__(self) -> Iterator[list[int]]:
        chance = None if self.seed is None else random.Random(self.seed)
        shards = [range(*ends) for ends in zip(self.starts, self.starts[1:], strict=False)]
        if chance:
            chance.shuffle(shards)
        batch: list[int] = []
        for shard in shards:
            positions = list(shard)
            if chance:
                chance.shuffle(positions)
            for position in positions:
                batch.append(position)
                if len(batch) == self.rows:
                    yield batch
                    batch = []
        if batch:
            yield batch


def collate(rows: Sequence[Row]) -> Batch:
    """Rows as a batch."""
    ids = [torch.tensor(row.ids) for row in rows]
    return Batch(
        vectors=torch.stack([row.vectors for row in rows]),
        ids=torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PADDING),
        lengths=torch.tensor([len(row.ids) for row in rows]),
        rows=torch.tensor([row.row for row in rows]),
        texts=[row.text for row in rows],
        exact=[row.exact for row in rows],
    )
