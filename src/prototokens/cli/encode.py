"""`prototokens encode`: a text becomes a .ptok file."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from prototokens._util.numerals import whole_number
from prototokens.cli import common
from prototokens.cli.reading import Given, open_text
from prototokens.errors import FileError, Interrupted, TextError, UsageError

if TYPE_CHECKING:
    from prototokens.encoder.encoder import Encoder
    from prototokens.engine.progress import Progress
    from prototokens.lm.frozen_lm import FrozenLM
    from prototokens.planning.chunks import ChunkPlan
    from prototokens.ptok.encoded import EncodedText
    from prototokens.ptok.source import Source
    from prototokens.ptok.spans import Solved
    from prototokens.recipe import Recipe

SAVE_EVERY = (
    30.0  # seconds between saves of what is solved, so that even a killed run is taken up again
)
EXAMPLES = """\b
Examples:
  prototokens encode book.txt                          writes book.ptok
  prototokens encode --text "Call me Ishmael." -o call.ptok
  cat notes.txt | prototokens encode - -o notes.ptok --json
"""
HELPED = {
    "patched": "tokens patched",
    "stored": "tokens stored as they are",
    "edited": "bytes edited",
}
# More than a usual text has: a stretch of so many for each allowed token tells that a text is too
# long.
CHARACTERS_A_TOKEN = 8


@click.command(short_help="Turn a text into vectors, exactly.", epilog=EXAMPLES)
@click.argument("source", required=False, metavar="[FILE|-]")
@click.option("--text", help="The text itself, in place of a file.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write.",
    show_default="FILE, its suffix .ptok",
)
@click.option("--force", is_flag=True, help="Write over an output that exists.")
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    help="How a chunk's vectors are arranged: keyed:K (K vectors), paper (two), tiled:K and mixed:K"
    " (1 + K of them), one,"
    " halves, alternating, free; auto takes keyed:2 for a short text and keyed:5 for others.",
)
@click.option(
    "--vectors",
    metavar="N|auto",
    help="Vectors a chunk, in place of a layout: N is keyed:N; auto chooses their number, and the"
    " length"
    " of the chunks, so that numbers times steps come out least.",
    show_default="as --layout has it",
)
@click.option(
    "--chunk-length",
    type=click.IntRange(min=1),
    help="Tokens a chunk.",
    show_default="as many as are held with ease",
)
@click.option(
    "--recipe",
    default="fast",
    show_default=True,
    help="How vectors are fitted: fast, or paper (as published).",
)
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    help="Most optimiser steps for a chunk.",
    show_default="the recipe's",
)
@click.option(
    "--start",
    default="auto",
    show_default=True,
    metavar="auto|random|encoder|FOLDER",
    help="Where vectors begin: at random; at what the model's encoder gives for the text; auto:"
    " that, where it has proved to"
    " save time; or an encoder's folder (train-encoder). With --steps 0 they stay there, and auto"
    " is the encoder.",
)
@click.option(
    "--share",
    type=click.Choice(["e", "m"]),
    help="One vector for all chunks, in layouts of two: e with --layout free, m with --layout paper"
    " or free.",
)
@click.option(
    "--prefix",
    default="auto",
    show_default=True,
    metavar="auto|none|bos|text:...",
    help="Fixed tokens before the vectors of every chunk, which cost no trained number: none, the"
    " model's BOS token, or a text;"
    " auto: BOS where the model's first position is an attention sink.",
)
@click.option(
    "--context",
    type=click.Path(path_type=Path),
    help="A file whose text stands before the vectors, in place of --prefix.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    help="Chunks fitted side by side.",
    show_default="as many as fill the machine",
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the model for the fit: a minute or more at the start, faster steps; for long"
    " texts.",
)
@click.option(
    "--certify",
    type=click.Choice(["none", "standard", "strict"]),
    default="standard",
    show_default=True,
    help="Fit until other batch shapes, kernels and dtypes decode the same, and try them: the most"
    " different ones, or all.",
)
@click.option(
    "--inexact",
    type=click.Choice(["halve", "patch", "keep"]),
    show_default="halve; patch with --steps 0",
    help="A chunk that is not exact within its steps is cut in two and tried again, its wrong"
    " tokens are put into the file, or"
    " it stays as it is. What halves do not hold in the end is patched.",
)
@click.option(
    "--bits",
    metavar="1-8|16|32|auto",
    default="32",
    show_default=True,
    help="Bits of each number of the vectors in the file; auto finds the fewest that stay exact,"
    " for each chunk.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="Refuse longer texts: fits take time.",
)
@common.model_options
@common.seed_option
@common.output_options
def encode(
    source: str | None,
    text: str | None,
    output: Path | None,
    force: bool,
    max_tokens: int,
    bits: str,
    start: str,
    compiled: bool,
    prefix: str,
    context: Path | None,
    layout: str,
    vectors: str | None,
    chunk_length: int | None,
    recipe: str,
    steps: int | None,
    model: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    as_json: bool,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> int:
    """Turn a text into vectors, exactly, and save them.

    The text is a file, - for standard input, or --text; bytes that are no text come back too. Any
    length: a long one is cut into chunks that are fitted side by side, and a chunk that does not
    become exact is halved and tried again. The result is read back from the file and decoded before
    it is called exact. Stopped with Ctrl-C, it keeps what is solved in OUTPUT.partial, and the same
    command goes on from there.
    """
    options |= {
        "bits": _bits(bits),
        "start": _start("random" if options["share"] and start == "auto" else start),
    }
    count = _vectors(vectors)
    output, given = _output_and_text(output, source, text, force)
    if not given.head:
        raise TextError("the text is empty: there is nothing to encode")
    prefix = _prefix(prefix, context)
    from prototokens.encoder.plan import plan_from
    from prototokens.encoder.shipped import without_steps
    from prototokens.encoding import certified_recipe
    from prototokens.fitting import prefix_of
    from prototokens.layout import Layout
    from prototokens.recipe import Recipe

    chosen = Recipe.named(recipe, **({} if steps is None else {"steps": steps}))
    arrangement = layout if layout == "auto" else Layout.named(layout)
    lm = common.load_model(model, revision, device, dtype)
    if compiled:
        lm.compile()
    what = _source(lm, given, max_tokens, quiet)
    options["start"] = without_steps(lm, options["start"], arrangement, count, chosen)
    before = prefix_of(lm, prefix, chosen)
    plan = plan_from(
        lm, what.ids, options["start"], arrangement, chunk_length, count, chosen, before
    )
    chosen = certified_recipe(lm, chosen, options["certify"], plan.layout)
    like = None if source in (None, "-") else Path(source)
    result = _encode(lm, what, plan, chosen, output, quiet, like, **options)
    if as_json:
        common.print_json(result)
    elif not quiet:
        _summarise(result)
    if not result["exact"]:
        click.echo(
            f"prototokens: not exact: {result['accuracy']:.2%} of the tokens are right; more"
            " --steps may help",
            err=True,
        )
    return 0 if result["exact"] else 1


def _prefix(given: str, context: Path | None) -> str:
    """What stands before the vectors: as it is named, or the text of a file.

    Raises:
        UsageError: both are given.
        TextError: the file cannot be read, or is not UTF-8.
    """
    if context is None:
        return given
    if given != "auto":
        raise UsageError("give either --prefix or --context: both stand before the vectors")
    return "text:" + common.read_text(str(context), None)


def _vectors(given: str | None) -> int | Literal["auto"] | None:
    """The number of vectors, or auto.

    Raises:
        UsageError: neither.
    """
    if given is None or given == "auto":
        return given
    count = whole_number(given)
    if count is None:
        raise UsageError(f"--vectors takes a number of vectors or auto, not {given!r}")
    return count


def _start(given: str) -> str | Encoder:
    """The start's name, or the encoder in the folder that is given.

    Raises:
        FileError: no such name, and no encoder there.
    """
    from prototokens.encoder.encoder import Encoder
    from prototokens.encoder.shipped import NAMES

    return given if given in NAMES else Encoder.load(Path(given))


def _bits(given: str) -> int | Literal["auto"]:
    """The number of bits, or auto.

    Raises:
        UsageError: no such number.
    """
    from prototokens.engine.quantise import check_bits

    number = whole_number(given)
    return check_bits(given if number is None else number)


def _output_and_text(
    output: Path | None, source: str | None, text: str | None, force: bool
) -> tuple[Path, Given]:
    """Where to write, found writable, and what to encode."""
    if output is not None:
        # Before the text: nobody should type one to be told that there is no place for it.
        common.check_output(output, force)
        given = open_text(source, text)
        if source not in (None, "-") and output.exists() and os.path.samefile(source, output):
            raise UsageError(
                f"{output} is the text itself, which the vectors would replace: name another output"
            )
        return output, given
    given = open_text(source, text)
    if source in (None, "-"):
        raise UsageError("name the file to write with -o: there is no input file to name it after")
    output = Path(source).with_suffix(".ptok")
    if output == Path(source):
        raise UsageError(
            f"{source} has the suffix of an output already: decode it, or name the file to write"
            " with -o"
        )
    common.check_output(output, force)
    return output, given


def _source(lm: FrozenLM, given: Given, most: int, quiet: bool) -> Source:
    """The text and its ids, unless they are too many.

    Of a text far too long, only the first part is looked at.

    Raises:
        TextError: more tokens than allowed, or not one.
    """
    from prototokens.ptok.patches import MAX_UNPACKED
    from prototokens.ptok.source import read_source

    head = given.head[: CHARACTERS_A_TOKEN * most]
    if len(head) < len(given.head):
        _check_count(len(lm.tokenize(head.decode("utf-8", "ignore"))), most, len(head), given)
    # What so many tokens can stand for at the most, and what a file may hold of bytes that no token
    # stands for.
    limit = most * lm.longest_token + MAX_UNPACKED
    content = given.read(limit)
    if content is None:
        raise TextError(
            f"{given.name} holds more than {limit:,} bytes, and {most:,} tokens (--max-tokens)"
            " stand for fewer: give a"
            " shorter text"
        )
    source = read_source(lm, content)
    _check_count(len(source.ids), most, len(content), given)
    if source.edited and not quiet:
        why = "are no UTF-8 text, or are changed by the tokenizer,"
        click.echo(
            f"{source.edited:,} of {len(content):,} bytes {why} and are stored as they are",
            err=True,
        )
    return source


def _check_count(count: int, most: int, read: int, given: Given) -> None:
    """Refuse a text of which so many bytes, read from its beginning, have more tokens than are allowed.

    Raises:
        TextError: they have.
    """
    if count <= most:
        return
    size = given.size or len(given.head)
    if given.rest is not None and given.size is None:
        counted = f"more than {count:,}"
    else:
        counted = f"{count:,}" if read == size else f"about {count * size // read:,}"
    raise TextError(
        f"the text has {counted} tokens, more than the {most:,} of --max-tokens: a fit of that size"
        " takes hours on a CPU;"
        " pass a larger --max-tokens to insist, or a shorter text"
    )


def _encode(
    lm: FrozenLM,
    source: Source,
    plan: ChunkPlan,
    recipe: Recipe,
    output: Path,
    quiet: bool,
    like: Path | None,
    **options: Any,
) -> dict[str, Any]:
    """Encode, save, read back and decode; returns what --json prints.

    Args:
        like: the file of the text, if it has one: who may not read that may not read what is made
            of it.
    """
    from prototokens.decoding import decode_text
    from prototokens.planning.throughput import measured_pace
    from prototokens.ptok.encoded import EncodedText

    # A vector that all chunks share ties their fits together, and of that the forecast knows
    # nothing.
    told = None if options["share"] else plan.forecast
    pace = (
        None
        if told is None or quiet
        else measured_pace(lm, source.ids, plan, recipe, options["rows"])
    )
    began = time.monotonic()
    encoded = _fit_and_save(
        lm, source, plan._replace(forecast=told), recipe, output, quiet, pace, like, **options
    )
    seconds = time.monotonic() - began
    # What counts is the file, as a user will read it.
    decoded = decode_text(lm, EncodedText.load(output))
    header = encoded.header
    return {
        "output": str(output),
        "model": lm.name,
        "layout": header.layout,
        "prefix": len(header.prefix),
        "tokens": header.text.tokens,
        "chunks": len(header.chunks),
        "vectors": encoded.vectors.shape[0],
        "floats": encoded.vectors.numel(),
        "bytes": output.stat().st_size,
        "bits": encoded.bits / encoded.vectors.numel() if encoded.vectors.numel() else 32.0,
        "patched": header.patched,
        "stored": sum(header.chunks[number] for number in header.stored),
        "edited": header.edited,
        "exact": encoded.exact and decoded.matches,
        "accuracy": header.accuracy,
        "steps_median": _median(header.steps),
        "row_steps": header.row_steps,
        "seconds": round(seconds, 3),
        "min_margin": header.min_margin,
        "certified": header.certificate.level
        if header.certificate and encoded.certified
        else "none",
        "noise_radius": header.certificate.noise_radius if header.certificate else None,
        "worst_radius": header.certificate.worst_radius if header.certificate else None,
        "forecast_exact": None if told is None else round(told.exact, 4),
        "forecast_steps": None if told is None else round(told.steps, 1),
        "forecast_row_steps": None if told is None else round(told.row_steps, 1),
        "forecast_seconds": None
        if told is None or pace is None
        else round(told.row_steps / pace, 1),
    }


def _fit_and_save(
    lm: FrozenLM,
    source: Source,
    plan: ChunkPlan,
    recipe: Recipe,
    output: Path,
    quiet: bool,
    pace: float | None,
    like: Path | None,
    **options: Any,
) -> EncodedText:
    """Encode and save; what is solved is kept beside the output until it is whole, and taken up from there.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the message says what is kept.
    """
    from prototokens.encoding import encode as encode_text
    from prototokens.ptok.resume import load_partial, partial_key, partial_path, save_partial

    ids = source.ids
    start = options["start"] if isinstance(options["start"], str) else str(options["start"].path)
    beside, key = (
        partial_path(output),
        partial_key(lm, ids, plan.layout, recipe, options["seed"], start),
    )
    # Chunks that share a vector are solved together or not at all: there is nothing to keep of
    # them.
    kept = {} if options["share"] else load_partial(beside, key, plan.layout, ids)
    if not quiet:
        click.echo(plan.describe(), err=True)
        if plan.forecast:
            rest = 1 - _tokens(kept) / len(ids)
            click.echo(
                plan.forecast._replace(row_steps=rest * plan.forecast.row_steps).describe(pace),
                err=True,
            )
        if kept:
            click.echo(f"taking up {_tokens(kept)} of {len(ids)} tokens from {beside}", err=True)
    saved = time.monotonic()

    def keep(show: Callable[[Progress], None] | None, now: Progress) -> None:
        nonlocal saved
        if show:
            show(now)
        if kept and time.monotonic() - saved > SAVE_EVERY:
            try:
                save_partial(beside, key, kept, like)
            except (
                FileError
            ) as error:  # a disk that is full now may have room when the output is written
                click.echo(
                    f"prototokens: warning: what is solved could not be kept on the way: {error}",
                    err=True,
                )
            saved = time.monotonic()

    try:
        forecast = None if plan.forecast is None else plan.forecast.row_steps / len(plan.lengths)
        with _sigterm_as_ctrl_c(), common.fit_progress(quiet, forecast) as show:
            encoded = encode_text(
                lm,
                source,
                plan=plan,
                recipe=recipe,
                kept=kept,
                progress=partial(keep, show),
                said=None if quiet else partial(click.echo, err=True),
                **options,
            )
            encoded.save(output, like)
    except KeyboardInterrupt:
        if not kept:
            raise Interrupted("stopped before any chunk was solved: nothing is kept") from None
        save_partial(beside, key, kept, like)
        raise Interrupted(
            f"stopped: {_tokens(kept)} of {len(ids)} tokens are solved and kept in {beside};"
            " the same command goes on from there"
        ) from None
    beside.unlink(missing_ok=True)
    return encoded


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM stop the work as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tokens(kept: Solved) -> int:
    return sum(span.end - span.start for span in kept)


def _median(values: Sequence[int]) -> float:
    from statistics import median

    return float(median(values))


def _summarise(result: dict[str, Any]) -> None:
    per_token = result["floats"] / result["tokens"]
    click.echo(
        f"{result['output']}: {result['tokens']} tokens in {result['chunks']}"
        f" chunk{'s' * (result['chunks'] > 1)},"
        f" {result['vectors']} vectors ({per_token:.1f} numbers a token), {result['bytes']:,}"
        " bytes",
        err=True,
    )
    exact = "exact, read back from the file" if result["exact"] else "NOT exact"
    helped = [f"{result[what]:,} {words}" for what, words in HELPED.items() if result[what]]
    exact += f" with {' and '.join(helped)}" if helped else ""
    margin = "" if result["min_margin"] is None else f", least margin {result['min_margin']:.2f}"
    if result["certified"] != "none":
        exact += f", certified ({result['certified']})"
    click.echo(
        f"{exact}; {result['steps_median']:.0f} steps (median), {result['seconds']:.1f} s{margin}",
        err=True,
    )
