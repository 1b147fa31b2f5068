"""`prototokens corpus`: many texts become a data set of vectors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototokens._util.numerals import whole_number
from prototokens._util.words import counted
from prototokens.cli import common, sweeping
from prototokens.cli.click_options import GroupedCommand, options_of
from prototokens.corpus.options import CorpusOptions
from prototokens.encoder.start_option import check_start
from prototokens.errors import FileError, Interrupted, UsageError

if TYPE_CHECKING:
    from prototokens.corpus.run import CorpusProgress, Summary
    from prototokens.lm.frozen_lm import FrozenLM

EXAMPLES = """\b
Examples:
  prototokens corpus file:books.jsonl:text -o vectors --length 64
  prototokens corpus hub:emozilla/pg19:text -o vectors --limit 1000000 --runner ray --address auto
  prototokens corpus -o vectors --verify 1000
"""
GROUPS = {
    "Output": ("output", "limit", "length", "values", "shard_rows", "verify"),
    "Vectors": ("layout", "start", "prefix"),
    "Fit": ("recipe", "steps", "seed", "certify"),
    "Where it runs": ("runner", "address", "actors"),
    "Model and machine": ("model", "revision", "device", "dtype"),
    "Messages": ("as_json", "quiet", "debug"),
}


@click.command(
    cls=GroupedCommand,
    groups=GROUPS,
    short_help="Turn many texts into a data set of vectors.",
    epilog=EXAMPLES,
)
@click.argument("source", required=False, metavar="[SOURCE]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the data set."
)
@click.option(
    "--verify",
    metavar="N|all",
    help="Make nothing: compare every file of the folder with its hash, and decode N rows at"
    " random, or all.",
)
@options_of(CorpusOptions, "limit", "length", "values", "shard_rows", "layout", "start", "prefix")
@options_of(CorpusOptions, "recipe", "steps", "certify")
@sweeping.runner_options
@common.seed_option
@common.model_options
@common.output_options
def corpus(
    source: str | None,
    output: Path,
    verify: str | None,
    as_json: bool,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> int:
    """Turn many texts into a data set of vectors: Parquet files that other libraries read.

    SOURCE is sample, file:PATH[:COLUMN], hub:ID[@REVISION]:COLUMN[:SPLIT], random-words:WORDLIST,
    random-tokens, or generated[:SOURCE], the model's own samples. Each row is a text, or a part of
    one that is longer than --length, with its vectors and whether they decode to it.

    Stopped or killed at any moment, the same command goes on from the files that are finished: no
    row is lost, and none is there twice.
    """
    if (source is None) == (verify is None):
        raise UsageError("give either SOURCE, to make a corpus, or --verify, to check one")
    sweeping.check_runner(options)
    name = (options["model"] or "builtin").removeprefix("random:")
    if "@" not in name:
        common.check_model_name(name, options["revision"])
    if verify is not None:
        return _verify(output, verify, options, as_json, quiet)
    check_start(options["start"])
    from prototokens.corpus.run import make

    lm = _load(options)
    chosen = {name: options[name] for name in CorpusOptions.__dataclass_fields__}
    try:
        with sweeping.display(quiet, _words) as show:
            runner = _runner(lm, options)
            summary = make(lm, str(source), output, CorpusOptions(**chosen), runner, show)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"stopped: files that are finished stay in {output}, and the same command goes on from"
            " there"
        ) from stop
    if as_json:
        common.print_json(_as_json(summary, lm, output))
    if not quiet:
        click.echo(_summary(summary, output), err=True)
    return 0


def _load(options: dict[str, Any]) -> FrozenLM:
    """The model of the options."""
    from prototokens.lab import models

    name = options["model"] or "builtin"
    return models.load(name, options["revision"], options["dtype"], options["device"])


def _runner(lm: FrozenLM, options: dict[str, Any]) -> Any:
    """Where shards are made."""
    from prototokens.corpus.runners import Local, RayData

    if options["runner"] == "local":
        return Local(lm)
    from prototokens.lab.cluster import Cluster

    return RayData(Cluster(options["address"], options["actors"], str(lm.device)))


def _words(now: CorpusProgress) -> str:
    """Rows, rates, share exact and time left, short enough to stand beside a bar."""
    from prototokens.planning.chunks import clock

    made, rates = now.made, now.rates()
    total = "" if now.total is None else f"/{now.total:,}"
    words = [f"{now.done:,}{total} rows"]
    if now.exact is not None:
        words.append(f"{now.exact:.1%} exact")
    if made.rows:
        words.append(
            f"{rates['rows_per_second']:.3g} rows/s, {rates['tokens_per_second']:.3g} tokens/s,"
            f" {rates['position_steps_per_second']:,.0f} position-steps/s"
        )
    elif now.fits:
        rate = now.fits.row_steps / max(now.fits.seconds, 1e-9)
        words.append(f"{now.fits.done}/{now.fits.total} of a file, {rate:,.0f} steps/s")
    if rates["seconds_left"] is not None:
        words.append(f"{clock(rates['seconds_left'])} left")
    return ", ".join(words)


def _as_json(summary: Summary, lm: FrozenLM, output: Path) -> dict[str, Any]:
    """The keys and values of `--json`."""
    return {
        "output": str(output),
        "model": lm.name,
        "fingerprint": lm.fingerprint,
        **asdict(summary.totals),
        "shards": summary.shards,
        "made": summary.made,
        "ended_early": summary.ended_early,
        **{key: value for key, value in summary.rates.items() if key != "seconds_left"},
    }


def _summary(summary: Summary, output: Path) -> str:
    """What the folder holds, in a line."""
    totals = summary.totals
    words = [
        f"{output}: {counted(totals.rows, 'row')} of {counted(totals.tokens, 'token')} in"
        f" {counted(summary.shards, 'file')}, {counted(summary.made, 'file')} made now",
        f"{totals.exact:,} exact",
    ]
    if totals.certified:
        words.append(f"{totals.certified:,} certified")
    if totals.duplicates:
        words.append(f"{counted(totals.duplicates, 'row')} with the ids of another")
    if totals.empty:
        words.append(f"{counted(totals.empty, 'text')} without a token left out")
    if summary.ended_early:
        words.append("the source ended before the limit")
    return "; ".join(words)


def _verify(
    folder: Path, how_many: str, options: dict[str, Any], as_json: bool, quiet: bool
) -> int:
    """Compare files with their hashes and decode rows; 1 where anything is wrong."""
    count = None if how_many == "all" else whole_number(how_many)
    if count is None and how_many != "all":
        raise UsageError(f"--verify takes a number of rows or all, not {how_many!r}")
    from prototokens.corpus.reader import Corpus

    opened = Corpus.open(folder)
    made_for = opened.meta.settings["model"]["name"]
    decoding = count != 0
    if decoding and options["model"] is None and made_for != "builtin":
        raise FileError(
            f"{folder} was made for the model {made_for!r}: name it with --model, or compare the"
            " files alone with --verify 0"
        )
    lm = _load(options) if decoding else None
    found = opened.verify(lm, count, options["seed"])
    if as_json:
        common.print_json(
            {"output": str(folder), "passed": found.passed, "complete": opened.complete}
            | {**found._asdict(), "rows": len(opened)}
        )
    for line in found.damaged:
        click.echo(f"prototokens: {line}", err=True)
    if found.wrong:
        click.echo(
            f"prototokens: {counted(len(found.wrong), 'row')} not right any more:"
            f" {', '.join(map(str, found.wrong[:10]))}{'...' * (len(found.wrong) > 10)}",
            err=True,
        )
    if found.passed and not quiet:
        whole = "" if opened.complete else " (not complete yet)"
        click.echo(
            f"{folder}: {counted(len(opened), 'row')} in {counted(found.shards, 'file')}{whole},"
            f" every file as it was written; {counted(found.decoded, 'row')} decoded, as right as"
            " when they were stored",
            err=True,
        )
    return 0 if found.passed else 1
