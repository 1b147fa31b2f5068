"""`prototokens train-encoder`: a network that maps a text to its vectors in one pass, for one frozen model."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototokens.cli import common
from prototokens.errors import FileError, UsageError

if TYPE_CHECKING:
    from prototokens.encoder.config import Shape
    from prototokens.lm.frozen_lm import FrozenLM
    from prototokens.training.config import Training

EXAMPLES = """\b
Examples:
  prototokens train-encoder -o encoder --texts file:books.txt --steps 20000
  prototokens train-encoder -o encoder --texts file:books.txt --vectors 2 --max-length 16 --held-out file:other.txt
"""


@click.command(
    short_help="Train a network that maps a text to its vectors in one pass.", epilog=EXAMPLES
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for the finished encoder.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder for ids, checkpoints and the log.",
    show_default="OUTPUT.work",
)
@click.option(
    "--texts",
    default="sample",
    show_default=True,
    help="What to train on: a source, as reproduce takes it.",
)
@click.option(
    "--held-out",
    default="",
    help="Another source, to measure on.",
    show_default="the end of --texts, not trained on",
)
@click.option("--layout", help="The arrangement of the vectors.", show_default="mixed:4")
@click.option(
    "--vectors",
    type=click.IntRange(min=1),
    help="Vectors of a text, in place of --layout: 2 is paper.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Longest text, in tokens.",
)
@click.option(
    "--predict",
    type=click.Choice(["all", "e"]),
    default="all",
    show_default=True,
    help="All vectors of a text, or e alone: then the others are learned, the same for every text.",
)
@click.option(
    "--width",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Of the encoder's blocks.",
)
@click.option(
    "--layers", type=click.IntRange(min=1), default=4, show_default=True, help="How many blocks."
)
@click.option(
    "--heads",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Heads of attention in each.",
)
@click.option(
    "--feed-forward",
    type=click.IntRange(min=1),
    help="Width of their feed-forward part.",
    show_default="4 widths",
)
@click.option(
    "--depths",
    default="0",
    show_default=True,
    metavar="D,...",
    help="Depths of the frozen model that are read; 0 is its input embedding, and alone an encoder"
    " from scratch.",
)
@click.option(
    "--rank",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of low-rank adapters on the model as trunk.",
)
@click.option(
    "--direct",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Numbers of each token that a map of its place's own carries to the vectors; 0: none.",
)
@click.option(
    "--refinements",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How often the vectors are moved by what the model makes of them; each costs a pass of it,"
    " forward and back.",
)
@click.option(
    "--refine-layers",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Blocks of each of them.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Optimiser steps."
)
@click.option(
    "--rows", type=click.IntRange(min=1), default=64, show_default=True, help="Texts in each."
)
@click.option(
    "--rate", type=float, default=0.003, show_default=True, help="Learning rate of AdamW."
)
@click.option(
    "--matrix-rate",
    type=float,
    default=0.02,
    show_default=True,
    help="Learning rate of Muon, for the blocks.",
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Steps over which both rise.",
)
@click.option(
    "--decay",
    type=float,
    default=0.4,
    show_default=True,
    help="Share of the steps over which they fall to zero.",
)
@click.option(
    "--temperature",
    type=float,
    default=1.0,
    show_default=True,
    help="Of the decoder's cross-entropy.",
)
@click.option(
    "--noise",
    type=float,
    default=0.0,
    show_default=True,
    help="On the vectors in training, in their size.",
)
@click.option(
    "--curriculum",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Steps over which the longest text grows to --max-length.",
)
@click.option(
    "--shortest",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Shortest text, in tokens.",
)
@click.option(
    "--full",
    type=float,
    default=0.5,
    show_default=True,
    help="Share of the texts that are as long as the step allows.",
)
@click.option("--solutions", default="", help="A file of fitted solutions to learn from as well.")
@click.option(
    "--distil", type=float, default=0.0, show_default=True, help="Weight of the distance to them."
)
@click.option(
    "--pool",
    type=click.IntRange(min=1),
    default=100_000_000,
    show_default=True,
    help="Most tokens that are read.",
)
@click.option(
    "--save-every",
    type=float,
    default=120.0,
    show_default=True,
    help="Seconds between checkpoints.",
)
@click.option(
    "--measure-every",
    type=click.IntRange(min=1),
    default=250,
    show_default=True,
    help="Steps between measurements.",
)
@click.option(
    "--measured", type=click.IntRange(min=1), default=256, show_default=True, help="Held-out texts."
)
@click.option(
    "--proved",
    type=click.IntRange(min=0),
    default=64,
    show_default=True,
    help="Of them, fitted at the end from random starts and from the encoder's, at 4, 8, 16 tokens"
    " and so on; 0: none.",
)
@click.option(
    "--rows-at-a-time",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Texts of one pass.",
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the network: a minute at the start, faster steps.",
)
@click.option("--afresh", is_flag=True, help="Begin anew where --work holds another run.")
@click.option("--force", is_flag=True, help="Write over an encoder that exists.")
@common.model_options
@common.seed_option
@common.output_options
def train_encoder(
    output: Path,
    work: Path | None,
    force: bool,
    afresh: bool,
    compiled: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,
    model: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    **options: Any,
) -> int:
    """Train an encoder through the frozen model's own one-step loss.

    The model itself never changes.

    Killed at any moment, the same command goes on from its last checkpoint and ends with the same
    weights; with more --steps it goes on from before the learning rate fell. At the end the encoder
    is measured on held-out texts and written to OUTPUT.
    """
    from prototokens.training.train import Running, train

    _check(output, force)
    shape = _shape(options)
    lm = common.load_model(model, revision, device, dtype)
    training = _training(lm, options)
    with _stop_at_a_steps_end() as stop, _bar(quiet, training.steps) as told:
        running = Running(
            work=work or output.with_name(output.name + ".work"),
            save_every=options["save_every"],
            measure_every=options["measure_every"],
            texts_measured=options["measured"],
            texts_proved=options["proved"],
            prove_at=tuple(4 * 2**power for power in range(8) if 2 * 2**power < shape.max_length),
            rows_at_a_time=options["rows_at_a_time"],
            afresh=afresh,
            compile=compiled,
            told=told,
            said=None if quiet else lambda words: click.echo(words, err=True),
            stop=stop,
        )
        encoder = train(lm, shape, training, output, running)
    config = encoder.config
    if as_json:
        keys = ("shape", "trained", "held_out", "proof")
        common.print_json(
            {"output": str(output), "model": lm.name, **{key: config[key] for key in keys}}
        )
    elif not quiet:
        for row in config["held_out"]["rows"]:
            words = f"{row['length']:>5} tokens: {row['accuracy']:.1%} of the tokens right, {row['exact']:.1%} of the texts exact"
            click.echo(words, err=True)
        click.echo(f"{output}: an encoder for {lm.name!r}, layout {encoder.shape.layout}", err=True)
    return 0


def _check(output: Path, force: bool) -> None:
    """Refuse an output that would fail, or be lost, after hours of work."""
    if output.exists() and not output.is_dir():
        raise FileError(f"{output} is no folder: name another with -o")
    if output.is_dir() and any(output.iterdir()) and not force:
        raise FileError(
            f"{output} exists and is not empty: pass --force to write over it, or name another"
            " output"
        )
    if not output.parent.is_dir():
        raise FileError(
            f"the folder {output.parent} does not exist: make it first, or name another output"
        )


def _shape(options: dict[str, Any]) -> Shape:
    from prototokens.encoder.config import Shape

    if options["layout"] and options["vectors"]:
        raise UsageError("give either --layout or --vectors")
    layout, count = options["layout"] or Shape.layout, options["vectors"]
    if count:
        layout = {1: "one", 2: "paper"}.get(count, f"mixed:{count - 1}")
    try:
        depths = tuple(int(part) for part in options["depths"].split(","))
    except ValueError as error:
        raise UsageError(
            f"depths {options['depths']!r} are no numbers with commas between them, such as 0,3,6"
        ) from error
    plain = (
        "max_length",
        "predict",
        "width",
        "layers",
        "heads",
        "rank",
        "direct",
        "refinements",
        "refine_layers",
    )
    return Shape(
        layout=layout,
        feed_forward=options["feed_forward"] or 4 * options["width"],
        depths=depths,
        **{name: options[name] for name in plain},
    )


def _training(lm: FrozenLM, options: dict[str, Any]) -> Training:
    from dataclasses import fields

    from prototokens.lm.devices import bfloat16_pays
    from prototokens.training.config import Training

    given = {field.name: options[field.name] for field in fields(Training) if field.name != "dtype"}
    return Training(**given, dtype="bfloat16" if bfloat16_pays(lm.device) else "float32")


@contextmanager
def _stop_at_a_steps_end() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM end the run after the step in work.

    A second Ctrl-C ends it at once.
    """
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(quiet: bool, steps: int) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """A progress bar on a terminal, with time left; elsewhere a line for each measurement."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield lambda row: click.echo(_line(row, steps), err=True) if "held_out" in row else None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=steps)
        held = ""

        def show(row: dict[str, Any]) -> None:
            nonlocal held
            if "held_out" in row:
                held = f", held-out {row['held_out'][-1]['accuracy']:.1%}"
            words = f"{row['nats']:.3f} nats, {row['accuracy']:.1%} of the tokens right{held}"
            bar.update(task, completed=row["step"], description=words)

        yield show


def _line(row: dict[str, Any], steps: int) -> str:
    from prototokens.planning.chunks import clock

    last = row["held_out"][-1]
    left = clock(row["seconds"] / row["step"] * (steps - row["step"]))
    held = f"held-out, {last['length']} tokens: {last['accuracy']:.1%} right, {last['exact']:.1%} exact"
    return f"step {row['step']} of {steps}: {row['nats']:.3f} nats; {held}; {left} left"
