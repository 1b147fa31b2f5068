"""`prototokens encode`: a text becomes a .ptok file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prototokens.cli import common
from prototokens.cli.click_options import options_of
from prototokens.cli.encode_plan import encode_options, output_and_text, source_of
from prototokens.cli.encode_run import encode_and_save
from prototokens.options import EncodeOptions

EXAMPLES = """\b
Examples:
  prototokens encode book.txt                          writes book.ptok
  prototokens encode --text "Call me Ishmael." -o call.ptok
  cat notes.txt | prototokens encode - -o notes.ptok --json
"""
REPAIRS = {
    "patched": "tokens patched",
    "stored": "tokens stored as they are",
    "edited": "bytes edited",
}


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
@options_of(EncodeOptions, "layout", "vectors", "chunk_length", "recipe")
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    help="Most optimiser steps for a chunk.",
    show_default="the recipe's",
)
@options_of(EncodeOptions, "start", "share", "prefix")
@click.option(
    "--context",
    type=click.Path(path_type=Path),
    help="A file whose text stands before the vectors, in place of --prefix.",
)
@options_of(EncodeOptions, "rows")
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the model for the fit: a minute or more at the start, faster steps; for long"
    " texts.",
)
@options_of(EncodeOptions, "certify", "inexact", "bits")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="Refuse longer texts: fits take time.",
)
@common.model_options
@options_of(EncodeOptions, "seed")
@common.output_options
def encode(
    source: str | None,
    text: str | None,
    output: Path | None,
    force: bool,
    steps: int | None,
    context: Path | None,
    compiled: bool,
    max_tokens: int,
    model: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    as_json: bool,
    quiet: bool,
    debug: bool,
    **values: Any,
) -> int:
    """Turn a text into vectors, exactly, and save them.

    The text is a file, - for standard input, or --text; bytes that are no text come back too. Any
    length: a long one is cut into chunks that are fitted side by side, and a chunk that does not
    become exact is halved and tried again. The result is read back from the file and decoded before
    it is called exact. Stopped with Ctrl-C, it keeps what is solved in OUTPUT.partial, and the same
    command goes on from there.
    """
    options = encode_options(values, steps, context)
    output, given = output_and_text(output, source, text, force)
    common.check_model_name(model, revision)
    from prototokens.encoding import plan_encoding

    lm = common.load_model(model, revision, device, dtype)
    if compiled:
        lm.compile()
    planned = plan_encoding(lm, source_of(lm, given, max_tokens, quiet), options)
    original = None if source in (None, "-") else Path(source)
    result = encode_and_save(planned, output, original, quiet)
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


def _summarise(result: dict[str, Any]) -> None:
    """Print what was written, and whether it is exact."""
    numbers_per_token = result["floats"] / result["tokens"]
    click.echo(
        f"{result['output']}: {result['tokens']} tokens in {result['chunks']}"
        f" chunk{'s' * (result['chunks'] > 1)}, {result['vectors']} vectors"
        f" ({numbers_per_token:.1f} numbers a token), {result['bytes']:,} bytes",
        err=True,
    )
    exact = "exact, read back from the file" if result["exact"] else "NOT exact"
    repairs = [f"{result[key]:,} {words}" for key, words in REPAIRS.items() if result[key]]
    exact += f" with {' and '.join(repairs)}" if repairs else ""
    margin = "" if result["min_margin"] is None else f", least margin {result['min_margin']:.2f}"
    if result["certified"] != "none":
        exact += f", certified ({result['certified']})"
    click.echo(
        f"{exact}; {result['steps_median']:.0f} steps (median), {result['seconds']:.1f} s{margin}",
        err=True,
    )
