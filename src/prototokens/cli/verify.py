"""`prototokens verify`: a saved file, decoded again in every way that there is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototokens.cli import common

if TYPE_CHECKING:
    from prototokens.engine.matrix import Tried


@click.command(short_help="Decode a file in every way that there is.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--quick",
    is_flag=True,
    help="The few ways that differ most, as encode tries them, in place of all.",
)
@click.option(
    "--portable",
    is_flag=True,
    help="Also with the weights rounded to the precisions of GGUF files, from F16 to Q4_K; without"
    " being asked where encode --certify portable made the file.",
)
@common.any_model_option
@common.model_options
@common.output_options
def verify(
    file: Path,
    quick: bool,
    portable: bool,
    any_model: bool,
    model: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Decode a file again under other batch sizes, paddings, dtypes, attention kernels and threads.

    Then compiled, and as processors with other instruction sets would, each in its own process.

    Each way is a line: the positions that come out wrong in it, and the least margin. A way
    that does not exist on this machine is named. The exit status is 1 where anything is wrong. The
    whole matrix takes a minute or more: compiling is the most of it, and each process loads the
    model.
    """
    stored = common.read_file(file, model, revision)
    from prototokens.decoding import verify_text
    from prototokens.ptok.encoded import EncodedText

    encoded = EncodedText.from_stored(stored, file)
    lm = common.load_model_of(encoded, file, model, revision, device, dtype, any_model)
    with _waiting(as_json or quiet, quick) as show:
        level = "standard" if quick else "strict"
        found = verify_text(lm, encoded, level, show, any_model, portable)
    certificate = found.certificate.as_dict()
    if as_json:
        common.print_json(
            {"file": str(file), "passed": found.passed, "matches": found.matches, **certificate}
        )
    elif not quiet:
        click.echo(_withstood(certificate))
        name = "".join(letter if letter.isprintable() else "?" for letter in str(file))
        click.echo(f"{name}: {'passed' if found.passed else 'NOT passed'}")
    if not found.passed:
        why = (
            "some ways give other tokens"
            if found.matches
            else "the text differs from the one that was encoded"
        )
        click.echo(f"prototokens: {file} is not verified: {why}", err=True)
    return 0 if found.passed else 1


@contextmanager
def _waiting(silent: bool, quick: bool) -> Iterator[Callable[[Tried], None] | None]:
    """Print each way once it is tried; on a terminal, show in between that work goes on.

    Args:
        quick: whether nothing is compiled.
    """
    if silent or not sys.stderr.isatty():
        yield None if silent else _show
        return
    from rich.console import Console

    words = "decoding" if quick else "decoding, then compiling: a minute or more"
    # Stopped while a line is printed: that goes to standard output, which may be elsewhere.
    with Console(stderr=True).status(words) as spinner:

        def show(tried: Tried) -> None:
            spinner.stop()
            _show(tried)
            spinner.start()

        yield show


def _withstood(certificate: dict[str, Any]) -> str:
    """How much the vectors withstand, in a line."""
    least, radius, worst = (
        certificate[name] for name in ("least_margin", "noise_radius", "worst_radius")
    )
    if radius is None:
        return "no chunk is stored in vectors: there is nothing to vary"
    parts = [f"noise of {radius:.1%} of the vectors' size is withstood"]
    if worst is not None:
        parts.append(
            f"in the worst direction {worst:.2%} would do to change a token (to first order)"
        )
    if least is not None:
        parts.append(
            f"least margin {least:.3f}, and {certificate['threshold']:.3f} is asked of a fit"
        )
    return "; ".join(parts)


def _show(tried: Tried) -> None:
    if tried.margins is None:
        click.echo(f"{'not here':>12}  {tried.cell.describe()}: {tried.reason}")
        return
    wrong = sum(int((margin <= 0).sum()) for margin in tried.margins)
    least = min(float(margin.min()) for margin in tried.margins)
    click.echo(f"{f'{wrong} wrong':>12}  least margin {least:7.3f}  {tried.cell.describe()}")
