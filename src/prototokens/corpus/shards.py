"""The files of a corpus folder: shards named by number and content, and one writer at a time.

    FOLDER/data/00000007-3f2a....parquet    rows; the name ends with the file's own hash
    FOLDER/meta.json                        settings of the run, and totals once it is complete
    FOLDER/README.md                        the data set card
    FOLDER/log.jsonl                        a line for each shard that was made, with rates
    FOLDER/.lock                            empty; the writer locks it

A shard appears by a rename, whole or not at all, and its number says which rows it holds. So no row
is there twice, and what is missing can be seen from the names.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from prototokens._util.files import write_atomically
from prototokens.errors import FileError

DATA = "data"
LOCK = ".lock"
NAME = re.compile(r"(\d{8})-([0-9a-f]{16})\.parquet")
READ = 1 << 20  # bytes at a time


class Shard(NamedTuple):
    """A file of rows.

    Attributes:
        number: its place among the shards.
        digest: first 16 digits of the SHA-256 of its content, from its name.
        path: where it is.
    """

    number: int
    digest: str
    path: Path

    @property
    def name(self) -> str:
        """Its name in the folder, for messages."""
        return f"{DATA}/{self.path.name}"

    def intact(self) -> bool:
        """Whether its content is what its name says.

        Raises:
            FileError: it cannot be read.
        """
        hashed = hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                while part := file.read(READ):
                    hashed.update(part)
        except OSError as error:
            raise FileError(f"{self.path} cannot be read ({error.strerror or error})") from error
        return hashed.hexdigest()[:16] == self.digest


def shards_in(folder: Path) -> list[Shard]:
    """The shards of a folder, in order; other files are not looked at.

    Raises:
        FileError: there are two of one number.
    """
    found = [
        Shard(int(match[1]), match[2], path)
        for path in sorted((folder / DATA).glob("*.parquet"))
        if (match := NAME.fullmatch(path.name))
    ]
    for one, other in pairwise(found):
        if one.number == other.number:
            raise FileError(
                f"{folder} has shard {one.number} twice, {one.name} and {other.name}: delete one of"
                " them"
            )
    return found


def write_shard(folder: Path, number: int, content: bytes) -> Shard:
    """Write a shard in one step.

    Raises:
        FileError: it cannot be written; nothing is left of it.
    """
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = folder / DATA / f"{number:08d}-{digest}.parquet"
    write_atomically(path, content)
    return Shard(number, digest, path)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make the folder, and hold it against other writers inside a `with` block.

    What a killed run left of files that it was writing is removed.

    Raises:
        FileError: another process writes there, or the folder cannot be made.
    """
    try:
        (folder / DATA).mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise FileError(
            f"a corpus cannot be written to {folder} ({error.strerror or error}): name another"
            " folder with -o"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FileError(
                f"another process writes to {folder}: wait for it, or name another folder with -o"
            ) from error
        for left in (folder / DATA).glob(".*.parquet.*"):
            left.unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)
