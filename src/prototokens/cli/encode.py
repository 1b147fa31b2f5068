"""`prototokens encode`: a text becomes a .ptok file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prototokens._util.words import counted
from prototokens.cli import common
from prototokens.cli.click_options import GroupedCommand, options_of
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
    "patched": ("token", "patched"),
    "stored": ("token", "stored as they are"),
    "edited": ("byte", "edited"),
}
GROUPS = {
    "Text": ("text", "output", "force", "max_tokens"),
    "Vectors": ("layout", "vectors", "chunk_length", "start", "share", "prefix", "context", "bits"),
    "Fit": ("recipe", "steps", "rows", "compiled", "seed"),
    "Result": ("certify", "inexact"),
    "Model and machine": ("model", "revision", "device", "dtype"),
    "Messages": ("as_json", "quiet", "debug"),
}


@click.command(
    cls=GroupedCommand,
    groups=GROUPS,
    short_help="Turn a text into vectors, exactly.",
    epilog=EXAMPLES,
)
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
@options_of(EncodeOptions, "layout", "vectors", "chunk_length", "recipe", "steps")
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
    options = encode_options(values, context)
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
    if result["stored"] == result["tokens"]:
        click.echo(
            "prototokens: warning: nothing came out of the vectors: every chunk is stored as its"
            " tokens; more --steps, more --vectors or a shorter --chunk-length may help",
            err=True,
        )
    return 0 if result["exact"] else 1


def _summarise(result: dict[str, Any]) -> None:
    """Print what was written, and whether it is exact, in a line."""
    written = (
        f"{result['output']}: {counted(result['tokens'], 'token')} in"
        f" {counted(result['chunks'], 'chunk')}, {counted(result['vectors'], 'vector')}"
        f" ({result['floats'] / result['tokens']:.1f} numbers a token), {result['bytes']:,} bytes"
    )
    exact = "exact, read back from the file" if result["exact"] else "NOT exact"
    repairs = [
        f"{counted(result[key], noun)} {words}"
        for key, (noun, words) in REPAIRS.items()
        if result[key]
    ]
    exact += f" with {' and '.join(repairs)}" if repairs else ""
    if result["certified"] != "none":
        exact += f", certified ({result['certified']})"
    margin = "" if result["min_margin"] is None else f", least margin {result['min_margin']:.2f}"
    steps = "1 step" if result["steps_median"] == 1 else f"{result['steps_median']:.0f} steps"
    # Of the starts what they are, not why: that is in the JSON.
    starts = f"{result['starts'].partition(':')[0]}, " if result["starts"] else ""
    fit = f"{starts}{steps} (median), {result['seconds']:.1f} s{margin}"
    click.echo(f"{written}; {exact}; {fit}", err=True)
