"""Rows on disk: one folder of append-only JSON lines.

They are safe against kills, torn lines and other processes.

    FOLDER/rows.jsonl
        rows, each with the key of its job; `part` of `parts` where a job gave several
    FOLDER/solutions/ab/abcd....safetensors
        solutions, one file a fit, named by the fit's key (`lab.solution_store`)
    FOLDER/claims
        empty; processes lock bytes of it to claim jobs

All rows of a job go out in one write, under a lock, at the end of the file. A process that is
killed in the middle of it leaves a torn line: it is skipped, reported, and closed off by whoever
writes next, and the job, of which rows are missing, is run again. Locks are the operating system's,
so those of a killed process are free at once.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prototokens.errors import FileError
from prototokens.lab.job import Job, Row

ROWS = "rows.jsonl"
CLAIMS = "claims"


def _not_here(folder: Path, error: OSError) -> FileError:
    return FileError(
        f"rows cannot be kept in {folder} ({error.strerror}): name another folder with --out"
    )


def _published(name: str) -> str:
    """A model's name for rows that are published.

    Of a folder or a file its own name, and nothing of where it lies on this machine.
    """
    prefix, colon, plain = name.rpartition(":")
    folder, at, revision = plain.partition("@")
    return prefix + colon + (Path(folder).name if Path(folder).exists() else folder) + at + revision


def describe(job: Job) -> Row:
    """What every row says of its job."""
    model = job.model
    return {
        "experiment": job.experiment,
        "model": _published(model.name),
        "revision": model.revision,
        "fingerprint": model.fingerprint,
        "dtype": model.dtype,
        "d_model": model.d_model,
        "vocab_size": model.vocab_size,
        "texts": [{"id": text.id, "hash": text.ids_hash} for text in job.texts],
        "source": job.texts[0].source if job.texts else None,
        "layout": job.layout,
        "prefix": list(model.prefix),
        "recipe": asdict(job.recipe),
        "seed": job.seed,
        "values": dict(job.values),
    }


class Records:
    """The rows of a folder. Several processes may have one open."""

    def __init__(self, folder: Path, log: Callable[[str], None] | None = None):
        """Open a folder, made if it is not there; `log` is called with a sentence about torn lines.

        Raises:
            FileError: the folder cannot be made or its rows cannot be read.
        """
        self.folder, self._log = folder, log or (lambda line: None)
        self._read_to, self._line = 0, 0
        self._rows: dict[tuple[str, int], Row] = {}
        self._parts: dict[str, int] = {}
        self._torn: set[int] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_here(folder, error) from error
        self._claims: int | None = (
            None  # opened with the first claim: who only reads leaves nothing behind
        )
        self._claimed: set[str] = set()
        self.refresh()

    def close(self) -> None:
        """Release all claims."""
        if self._claims is not None:
            os.close(self._claims)

    @property
    def path(self) -> Path:
        """The file of the rows."""
        return self.folder / ROWS

    def rows(self, experiment: str | None = None, keys: set[str] | None = None) -> list[Row]:
        """Rows of whole jobs, sorted by their keys and parts.

        So the order of the work does not show.
        """
        whole = ((key, part) for key, part in sorted(self._rows) if self.done(key))
        found = [self._rows[which] for which in whole if keys is None or which[0] in keys]
        return [row for row in found if experiment is None or row["experiment"] == experiment]

    def done(self, key: str) -> bool:
        """Whether all rows of a job are there."""
        return all((key, part) in self._rows for part in range(self._parts.get(key, 1)))

    def claim(self, job: Job) -> bool:
        """Claim a job; False where it is done, or another process works on it."""
        if not self._lock(job.key, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
        self._claimed.add(job.key)
        self.refresh()
        if self.done(job.key):
            self.release(job)
            return False
        return True

    def release(self, job: Job) -> None:
        """Release a claimed job."""
        if job.key in self._claimed:
            self._claimed.discard(job.key)
            self._lock(job.key, fcntl.LOCK_UN)

    def append(self, job: Job, rows: list[Row], stamp: Row, seconds: float) -> None:
        """Write the rows of a job, those of its parts that are not there yet.

        Args:
            rows: what the experiment measured; their values go before those of the job.
            stamp: machine, versions, git.

        Raises:
            FileError: they could not be written.
        """
        about = {
            **describe(job),
            "seconds": round(seconds, 3),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            **stamp,
        }
        key = {"key": job.key, "parts": len(rows)}
        missing = [part for part in range(len(rows)) if (job.key, part) not in self._rows]
        reserved = {"key", "part", "parts"}
        if clashes := {name for row in rows for name in row if name in reserved}:
            raise ValueError(f"rows of {job.experiment} use names of their own: {clashes}")
        lines = [_line({**key, "part": part, **about, **rows[part]}) for part in missing]
        with self._open(fcntl.LOCK_EX) as file:
            size = os.fstat(file).st_size
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
            data = memoryview(("\n" * torn + "".join(lines)).encode())
            try:
                while data:
                    data = data[os.write(file, data) :]
                os.fsync(file)
            except OSError as error:
                raise FileError(
                    f"{self.path} could not be written ({error.strerror}): make room, and start"
                    " again"
                ) from error
        self.refresh()

    def refresh(self) -> None:
        """Read what was appended since, by whomever."""
        if not self.path.exists():
            return
        with self._open(fcntl.LOCK_SH) as file:
            os.lseek(file, self._read_to, os.SEEK_SET)
            chunks = []
            while chunk := os.read(file, 1 << 20):
                chunks.append(chunk)
        lines = b"".join(chunks).split(b"\n")
        tail = lines.pop()
        for line in lines:
            self._take(line)
            self._read_to += len(line) + 1
            self._line += 1
        if tail:
            self._take(tail)

    def _take(self, line: bytes) -> None:
        """A line as a row; what is no row is reported, once."""
        if not line.strip():
            return
        try:
            row = json.loads(line)
            key, part, parts = row["key"], row["part"], row["parts"]
        except (ValueError, KeyError, TypeError):
            if self._line not in self._torn:
                self._torn.add(self._line)
                self._log(
                    f"{self.path}, line {self._line + 1}, is torn (a run was killed as it wrote"
                    " it): skipped"
                )
            return
        self._rows.setdefault((key, part), row)
        self._parts[key] = parts

    def _lock(self, key: str, how: int) -> bool:
        """Lock or free the byte of the claims file that stands for a key."""
        if self._claims is None:
            try:
                self._claims = os.open(self.folder / CLAIMS, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise _not_here(self.folder, error) from error
        try:
            fcntl.lockf(self._claims, how, 1, int(key[:15], 16), os.SEEK_SET)
        except (BlockingIOError, PermissionError):
            return False
        return True

    @contextmanager
    def _open(self, lock: int) -> Iterator[int]:
        try:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise FileError(f"{self.path} cannot be opened ({error.strerror})") from error
        try:
            fcntl.flock(file, lock)
            yield file
        finally:
            os.close(file)


def _line(row: Row) -> str:
    return (
        json.dumps(_finite(row), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
    )


def _finite(value: Any) -> Any:
    """The value with None for every number that JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value
