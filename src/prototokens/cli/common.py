"""What the commands share: options, texts, outputs, models, and a progress bar."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototokens.cli.reading import open_text, read_all
from prototokens.errors import FileError, TextError, UsageError

if TYPE_CHECKING:
    from prototokens.engine.progress import Progress
    from prototokens.lm.frozen_lm import FrozenLM
    from prototokens.ptok.encoded import EncodedText
    from prototokens.ptok.stored import StoredText

DTYPES = ["auto", "float32", "bfloat16", "float16"]


def output_options(command: Callable) -> Callable:
    """--json, --quiet and --debug: every command has them."""
    for option in (
        click.option("--debug", is_flag=True, help="Show the traceback of an error, for a report."),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            help="No progress and no summary: warnings and errors alone.",
        ),
        click.option(
            "--json",
            "as_json",
            is_flag=True,
            help="One JSON object on standard output (keys: docs/command-line.md).",
        ),
    ):
        command = option(command)
    return command


def model_options(command: Callable) -> Callable:
    """--model, --revision, --device and --dtype: of every command that loads a model."""
    for option in (
        click.option(
            "--dtype",
            type=click.Choice(DTYPES),
            default="auto",
            show_default=True,
            help="What the model computes in.",
        ),
        click.option(
            "--device", help="cpu, cuda, cuda:1, mps; by default a GPU where there is one."
        ),
        click.option("--revision", help="Branch, tag or commit of a hub model."),
        click.option(
            "--model",
            help="'builtin', a folder, a GGUF file, or the id of a model on the Hugging Face hub.",
            show_default="builtin",
        ),
    ):
        command = option(command)
    return command


def any_model_option(command: Callable) -> Callable:
    words = (
        "Decode with a model of other weights than the file was made for: its hash still tells"
        " whether the text comes out."
    )
    return click.option("--any-model", is_flag=True, help=words)(command)


def seed_option(command: Callable) -> Callable:
    words = "Of the random starts: the same seed gives the same vectors."
    return click.option("--seed", type=int, default=0, show_default=True, help=words)(command)


def load_model(model: str | None, revision: str | None, device: str | None, dtype: str) -> FrozenLM:
    """The model of the options."""
    check_model_name(model, revision)
    from prototokens.lm.frozen_lm import FrozenLM

    return FrozenLM.from_pretrained(
        model or "builtin", revision=revision, device=device, dtype=dtype
    )


def check_model_name(model: str | None, revision: str | None) -> None:
    """Refuse a folder or file that is no model, before the seconds that PyTorch's import takes.

    Raises:
        ModelError: there is none, or no model in it.
        UsageError: a revision is given for a model that is not on the hub.
    """
    from prototokens.lm.local import find_local

    find_local(model or "builtin", revision)


def read_file(file: Path, model: str | None, revision: str | None) -> StoredText:
    """A `.ptok` file, and with it the model that is named: both checked without PyTorch.

    Raises:
        FileError: it is missing or damaged, or made with another model than the built-in one, and
            none is named.
        ModelError, UsageError: as `check_model_name`.
    """
    from prototokens.ptok.stored import read_stored

    stored = read_stored(file)
    made_for = stored.header.model
    if model is None and made_for.name != "builtin":
        raise FileError(f"{file} was made for the model {made_for.name!r}: name it with --model")
    check_model_name(model, revision)
    return stored


def load_model_of(
    encoded: EncodedText,
    file: Path,
    model: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    any_model: bool = False,
) -> FrozenLM:
    """The model that a file was made with: what the user names, or the built-in.

    A file's word is not enough to open a path or the network. Its dtype is taken, and its revision
    where the model is named as in the file; a folder, or a copy under another name, has none or its
    own.

    Args:
        any_model: let a model of other weights pass.

    Raises:
        FileError: it was made with another model than the built-in one, and none is named, or the
            wrong one.
    """
    made_for = encoded.header.model
    if model is None and made_for.name != "builtin":
        raise FileError(f"{file} was made for the model {made_for.name!r}: name it with --model")
    name = model or "builtin"
    if dtype == "auto" and made_for.dtype in DTYPES:
        dtype = made_for.dtype
    lm = load_model(
        name,
        revision or (made_for.revision if name == made_for.name else None),
        device,
        dtype,
    )
    encoded.check_model(lm, any_model)
    return lm


def read_text(source: str | None, text: str | None) -> str:
    """The text in a file argument, in `-` (standard input) or in --text.

    Raises:
        UsageError: none of them, or two.
        TextError: the file is not there, cannot be read, or is not UTF-8.
    """
    given = open_text(source, text)
    raw = read_all(given)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{given.name} is not UTF-8 text: byte 0x{raw[error.start]:02x} at offset"
            f" {error.start};"
            " convert it first (for example with iconv)"
        ) from error


def check_output(path: Path, force: bool) -> None:
    """Refuse an output that would fail later, before any work.

    Raises:
        FileError: it exists and --force was not given, it is no regular file, or its folder cannot
            be written.
    """
    if str(path) == "-":
        raise UsageError("- cannot be an output: name a file")
    try:
        if path.is_dir():
            raise FileError(f"{path} is a folder: name a file")
        if path.exists() and not path.is_file():
            raise FileError(
                f"{path} is no regular file, and would be replaced by one: name another"
            )
        if path.exists() and not force:
            raise FileError(
                f"{path} exists already: pass --force to write over it, or name another output"
            )
        place = Path(os.path.realpath(path))
        os.fsencode(place)  # a name that the file system can hold
        if not place.parent.is_dir():
            raise FileError(
                f"the folder {place.parent} does not exist: make it first, or name another output"
            )
        with suppress(FileNotFoundError):
            os.lstat(place)  # of a name that is too long, the file system says so
        descriptor, trial = tempfile.mkstemp(dir=place.parent, prefix=".prototokens.")
        os.close(descriptor)
        os.unlink(trial)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(
            f"{path} cannot be written ({reason}): choose another place with -o"
        ) from error


def print_json(values: dict[str, Any]) -> None:
    """One JSON object on standard output, in UTF-8 whatever the terminal's encoding.

    Half characters of file names are escaped.
    """
    click.echo(json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace"))


@contextmanager
def fit_progress(
    quiet: bool, row_steps: float | None = None
) -> Iterator[Callable[[Progress], None] | None]:
    """A progress bar for fits, on standard error, that fits into 80 columns.

    Chunks done, accuracy, row-steps a second, time left.

    Args:
        row_steps: what the forecast expects of a target, the mean; without it, time left is known
            once a target is done.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from prototokens.engine.progress import progress_bar

    def left(now: Progress) -> str:
        known = now.done or (row_steps and now.row_steps)
        return f"{time_left(now, row_steps)} left" if known else ""

    with progress_bar(left, "chunk") as show:
        yield show


def time_left(now: Progress, row_steps: float | None = None) -> str:
    """A guess, as minutes and seconds.

    From the texts done so far, and while they are few, from the forecast of row-steps.
    """
    from prototokens.planning.chunks import clock

    if row_steps is None or not now.row_steps:
        return clock(now.seconds / now.done * (now.total - now.done))
    share = now.done / now.total
    seen = now.row_steps / now.done * now.total if now.done else 0.0
    whole = (1 - share) * row_steps * now.total + share * seen
    # Where it takes more than was forecast: what is not done needs a tenth of its share still.
    left = max(whole - now.row_steps, 0.1 * (1 - share) * max(whole, now.row_steps))
    return clock(left * now.seconds / now.row_steps)
