"""`prototokens decode`: a .ptok file becomes its text."""

from __future__ import annotations

from pathlib import Path

import click

from prototokens.cli import common


@click.command(short_help="Print the text that a file holds.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the text there instead of standard output.",
)
@click.option("--force", is_flag=True, help="Write over an output that exists.")
@common.any_model_option
@common.model_options
@common.output_options
def decode(
    file: Path,
    output: Path | None,
    force: bool,
    any_model: bool,
    model: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Print the text that a file holds: every chunk from one forward pass.

    A file made with another model than the built-in one needs --model. The text is compared with
    the hash in the file; one that differs is printed with a warning, and the exit status is 1.
    """
    if output is not None:
        common.check_output(output, force)
    stored = common.read_file(file, model, revision)
    from prototokens._util.files import write_atomically
    from prototokens.decoding import decode_text
    from prototokens.ptok.encoded import EncodedText

    encoded = EncodedText.from_stored(stored, file)
    lm = common.load_model_of(encoded, file, model, revision, device, dtype, any_model)
    decoded = decode_text(lm, encoded, any_model)
    if output is not None:
        write_atomically(output, decoded.content, like=file)
    if as_json:
        rate = round(decoded.tokens / max(decoded.seconds, 1e-9), 1)
        seconds = round(decoded.seconds, 4)
        common.print_json(
            {
                "text": decoded.text,
                "tokens": decoded.tokens,
                "forward_passes": decoded.forward_passes,
                "seconds": seconds,
                "tokens_per_second": rate,
                "matches": decoded.matches,
            }
        )
    elif output is None:
        click.echo(decoded.content, nl=False)
    if not decoded.matches:
        click.echo(
            f"prototokens: warning: the text of {file} differs from the one that was encoded",
            err=True,
        )
    return 0 if decoded.matches else 1
