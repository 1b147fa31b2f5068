"""`prototokens train-encoder`: train a network that maps a text to its vectors in one pass."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from prototokens.cli import common
from prototokens.cli.click_options import options_of
from prototokens.cli.train_encoder_options import (
    check_output_folder,
    shape_of,
    training_of,
    values_of,
)
from prototokens.encoder.config import Shape
from prototokens.options import EncodeOptions
from prototokens.training.config import Running, Training

EXAMPLES = """\b
Examples:
  prototokens train-encoder -o encoder --texts file:books.txt --steps 20000
  prototokens train-encoder -o encoder --texts file:books.txt --vectors 2 --max-length 16 \
--held-out file:other.txt
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
@options_of(Training, "texts", "held_out")
@options_of(Shape, "layout")
@click.option(
    "--vectors",
    type=click.IntRange(min=1),
    help="Vectors of a text, in place of --layout: N is keyed:N.",
)
@options_of(Shape, "max_length", "predict", "width", "layers", "heads", "feed_forward", "depths")
@options_of(Shape, "rank", "direct", "refinements", "refine_layers")
@options_of(EncodeOptions, "prefix")
@click.option(
    "--bound/--unbound",
    default=None,
    help="Whether tokens write and read vectors through the keys of their positions.",
    show_default="in keyed layouts whose vectors are all predicted",
)
@options_of(Training, "steps", "rows", "rate", "matrix_rate", "warmup", "decay", "temperature")
@options_of(Training, "noise", "curriculum", "shortest", "full", "unrolled", "init")
@options_of(Training, "solutions", "distil", "pool")
@options_of(Running, "save_every", "measure_every", "measured", "proved", "rows_at_a_time")
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
    prefix: str,
    as_json: bool,
    quiet: bool,
    debug: bool,
    model: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    **values: Any,
) -> int:
    """Train an encoder through the frozen model's own one-step loss.

    The model itself never changes.

    Killed at any moment, the same command goes on from its last checkpoint and ends with the same
    weights; with more --steps it goes on from before the learning rate fell. At the end the encoder
    is measured on held-out texts and written to OUTPUT.
    """
    check_output_folder(output, force)
    shape = shape_of(values)
    common.check_model_name(model, revision)
    from prototokens.training.train import train

    lm = common.load_model(model, revision, device, dtype)
    shape = replace(shape, prefix=lm.prefix_ids(prefix))
    training = training_of(lm, values)
    with _stop_after_step() as stop, _bar(quiet, training.steps) as on_progress:
        running = Running(
            work=work or output.with_name(output.name + ".work"),
            **values_of(Running, values),
            prove_at=tuple(4 * 2**power for power in range(8) if 2 * 2**power < shape.max_length),
            afresh=afresh,
            compile=compiled,
            on_progress=on_progress,
            log=None if quiet else lambda words: click.echo(words, err=True),
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
            click.echo(
                f"{row['length']:>5} tokens: {row['accuracy']:.1%} of the tokens right,"
                f" {row['exact']:.1%} of the texts exact",
                err=True,
            )
        click.echo(f"{output}: an encoder for {lm.name!r}, layout {encoder.shape.layout}", err=True)
    return 0


@contextmanager
def _stop_after_step() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM end the run after the current step.

    A second Ctrl-C ends it at once.
    """
    requested = False

    def request(number: int, frame: Any) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt
        requested = True

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: requested
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
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task("", total=steps)
        held_out = ""

        def show(row: dict[str, Any]) -> None:
            nonlocal held_out
            if "held_out" in row:
                held_out = f", held-out {row['held_out'][-1]['accuracy']:.1%}"
            words = f"{row['nats']:.3f} nats, {row['accuracy']:.1%} right{held_out}"
            bar.update(task, completed=row["step"], description=words)

        yield show


def _line(row: dict[str, Any], steps: int) -> str:
    from prototokens.planning.chunks import clock

    last = row["held_out"][-1]
    left = clock(row["seconds"] / row["step"] * (steps - row["step"]))
    return (
        f"step {row['step']} of {steps}: {row['nats']:.3f} nats; held-out, {last['length']} tokens:"
        f" {last['accuracy']:.1%} right, {last['exact']:.1%} exact; {left} left"
    )
