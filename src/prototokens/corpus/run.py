"""A corpus from beginning to end: what is there is kept, what is missing is made."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from prototokens._util.files import write_atomically
from prototokens._util.json_fields import Fields, MismatchError, an_object, count, list_of, string
from prototokens.corpus.card import card
from prototokens.corpus.meta import FILE, Meta, Totals
from prototokens.corpus.options import CorpusOptions, Settings, settle
from prototokens.corpus.runners import Runner
from prototokens.corpus.schema import VERSION, parquet, read_facts
from prototokens.corpus.shards import only_writer, shards_in, write_shard
from prototokens.corpus.tasks import Extent, Place, Tasks
from prototokens.engine.progress import Progress
from prototokens.errors import FileError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.tokenization import TokenizerOnly
from prototokens.ptok.hub import CARD

LOG = "log.jsonl"
CLOCK = 1e-9  # seconds: the least that is divided by


@dataclass(frozen=True)
class CorpusProgress:
    """The progress of a corpus.

    Attributes:
        done: rows that are on disk, those of earlier runs among them; total: all of them, None
            where the source alone knows.
        made: sums over what this run has made; seconds: since its start.
        kept: sums over what was there before.
        fits: of the engine just now; None where it is not running here.
    """

    done: int
    total: int | None
    made: Totals
    kept: Totals
    seconds: float
    fits: Progress | None = None

    @property
    def exact(self) -> float | None:
        """Share of the rows on disk that are exact; None without a row."""
        return (self.made.exact + self.kept.exact) / self.done if self.done else None

    def rates(self) -> dict[str, Any]:
        """Rows, tokens and position-steps a second of this run, and seconds that are left."""
        seconds = max(self.seconds, CLOCK)
        rows = self.made.rows / seconds
        left = None if self.total is None or not rows else (self.total - self.done) / rows
        return {
            "rows_per_second": rows,
            "tokens_per_second": self.made.tokens / seconds,
            "position_steps_per_second": self.made.position_steps / seconds,
            "seconds_left": left,
        }


@dataclass(frozen=True)
class Summary:
    """What a folder holds at the end of a run.

    Attributes:
        totals: over all rows.
        shards: their number; made: those of this run.
        ended_early: whether the source had fewer rows than the limit.
        rates: of this run.
    """

    totals: Totals
    shards: int
    made: int
    ended_early: bool
    rates: dict[str, Any]


@dataclass
class _Run:
    """A run under way."""

    folder: Path
    settings: Settings
    on_progress: Callable[[CorpusProgress], None] | None
    extents: dict[int, Extent] = field(default_factory=dict)
    kept: Totals = field(default_factory=Totals)
    made: Totals = field(default_factory=Totals)
    began: float = field(default_factory=time.monotonic)

    def progress(self, fits: Progress | None = None) -> CorpusProgress:
        """The progress by now."""
        done = self.kept.rows + self.made.rows
        seconds = time.monotonic() - self.began
        return CorpusProgress(done, self.settings.limit, self.made, self.kept, seconds, fits)

    def show(self, fits: Progress | None = None) -> None:
        """Report it."""
        if self.on_progress:
            self.on_progress(self.progress(fits))


def make(
    lm: FrozenLM,
    source: str,
    folder: Path,
    options: CorpusOptions,
    runner: Runner,
    on_progress: Callable[[CorpusProgress], None] | None = None,
) -> Summary:
    """Make a corpus, or go on with one.

    Args:
        lm: the frozen model.
        source: the texts, as `lab.texts` names them.
        folder: the output; one of another run is refused.
        runner: where the shards are made.
        on_progress: called after every shard, and by a local runner after every step.

    Raises:
        UsageError: an option with an impossible value, or a source that is none.
        TextError: the source cannot be read, or not to its end; what was made stays.
        FileError: the folder is of another run, another process writes there, or a shard cannot be
            written or read.
        MissingExtraError: pyarrow is not installed.
    """
    parquet()
    before = Meta.load(folder)
    settings = settle(lm, source, options, before and before.settings["shard_rows"])
    _check_folder(folder, before, settings)
    with only_writer(folder):
        before = Meta.load(folder)  # another process may have begun and ended meanwhile
        if before:
            before.check_same(settings.as_json(), folder)
        meta = before or Meta.of(settings.as_json())
        run = _Run(folder, settings, on_progress)
        shards = _take_up(run)
        if meta.complete and meta.complete["shards"] == len(shards):
            return _summary(run, len(shards), 0)
        meta = replace(meta, complete=None)
        _describe(folder, meta)
        made = _make_missing(run, runner, _tasks(lm, run))
        run.show()
        numbers = [one.number for one in shards_in(folder)]
        if numbers != list(range(len(numbers))):
            raise FileError(f"shards of {folder} were removed while others were made: start again")
        summary = _summary(run, len(numbers), made)
        totals = {"shards": len(numbers), **asdict(summary.totals)}
        _describe(folder, replace(meta, complete=totals))
        return summary


def _check_folder(folder: Path, before: Meta | None, settings: Settings) -> None:
    """Refuse a folder of another run, or of other files.

    Raises:
        FileError: it is.
    """
    if before is not None:
        before.check_same(settings.as_json(), folder)
    elif folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is no folder: name another with -o")
    elif folder.is_dir() and any(not _ours(one) for one in folder.iterdir()):
        raise FileError(
            f"{folder} holds other files and no {FILE}: name an empty or a new folder with -o"
        )


def _ours(path: Path) -> bool:
    """Whether a run that was killed before it wrote `meta.json` may have left this."""
    return path.name.startswith(".") or (path.name == "data" and not any(path.iterdir()))


def _describe(folder: Path, meta: Meta) -> None:
    """Write `meta.json` and the card."""
    meta.save(folder)
    write_atomically(folder / CARD, card(meta).encode())


def _take_up(run: _Run) -> list[int]:
    """Read what the shards that are there hold.

    Returns:
        Their numbers.

    Raises:
        FileError: one cannot be read.
    """
    for shard in shards_in(run.folder):
        extent, totals = facts_from(read_facts(shard.path), shard.path)
        run.extents[shard.number] = extent
        run.kept = run.kept.plus(totals)
    return list(run.extents)


def facts_from(facts: dict[str, Any], path: Path) -> tuple[Extent, Totals]:
    """Extent and totals of a shard, checked.

    Raises:
        FileError: a value is missing, or of another kind.
    """
    try:
        given = Fields(facts)
        given.take("schema", count(VERSION, VERSION))
        extent = Fields(given.take("extent", an_object), "extent")
        place = list_of(count(), most=2)
        return (
            Extent(
                extent.take("rows", count(1)),
                Place(*extent.take("start", place)),
                Place(*extent.take("end", place)),
                extent.take("first_text", string),
            ),
            Totals.from_json(given.take("totals", an_object)),
        )
    except (MismatchError, TypeError) as error:
        raise FileError(f"{path} is damaged: it {error}") from error


def _tasks(lm: FrozenLM, run: _Run) -> Tasks:
    """What is missing."""
    settings = run.settings
    vocabulary = TokenizerOnly(lm.name, lm.tokenizer, lm.vocab_size)
    return Tasks(
        source=settings.source,
        vocabulary=vocabulary,
        length=settings.length,
        limit=settings.limit,
        shard_rows=settings.shard_rows,
        seed=settings.seed,
        finished=dict(run.extents),
    )


def _make_missing(run: _Run, runner: Runner, tasks: Tasks) -> int:
    """Make shards and write each as it comes; returns their number."""
    made: set[int] = set()
    for shard in runner.work(run.settings, tasks, run.show):
        if shard.shard in made:
            continue  # a task that a runner repeated though its result had come
        made.add(shard.shard)
        write_shard(run.folder, shard.shard, shard.content)
        run.made = run.made.plus(shard.totals)
        _log(run, shard.shard, shard.totals)
        run.show()
    return len(made)


def _log(run: _Run, shard: int, totals: Totals) -> None:
    """Append a line to the log.

    Raises:
        FileError: it cannot be written.
    """
    now = run.progress()
    line = {
        "shard": shard,
        "done": now.done,
        "total": now.total,
        **asdict(totals),
        "seconds_of_run": round(now.seconds, 3),
        **now.rates(),
        "share_exact": now.exact,
    }
    path = run.folder / LOG
    try:
        with path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
    except OSError as error:
        raise FileError(
            f"{path} could not be written ({error.strerror or error}): make room, and start again"
        ) from error


def _summary(run: _Run, shards: int, made: int) -> Summary:
    """The summary of a run that has come to its end."""
    now = run.progress()
    limit = run.settings.limit
    return Summary(
        totals=run.kept.plus(run.made),
        shards=shards,
        made=made,
        ended_early=limit is not None and now.done < limit,
        rates=now.rates(),
    )
