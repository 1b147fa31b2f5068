"""`prototokens decode`: a .ptok file becomes its text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from prototokens.cli import common
from prototokens.errors import ModelError, UsageError

if TYPE_CHECKING:
    from prototokens.ptok.decoded import DecodedText
    from prototokens.ptok.stored import StoredText


@click.command(short_help="Print the text that a file holds.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the text there instead of standard output.",
)
@click.option("--force", is_flag=True, help="Write over an output that exists.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "torch", "llama.cpp"]),
    default="auto",
    show_default=True,
    help="What runs the model. auto: short texts of small Llama checkpoints in NumPy, which starts"
    " sooner, all others in PyTorch. llama.cpp takes --model FILE.gguf, in any precision, and needs"
    " the extra [llama-cpp].",
)
@common.any_model_option
@common.model_options
@common.output_options
def decode(
    file: Path,
    output: Path | None,
    force: bool,
    engine: str,
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
    With --engine llama.cpp this hash alone decides, as a GGUF file has other weights.
    """
    if output is not None:
        common.check_output(output, force)
    if engine == "llama.cpp":
        decoded = _with_llama_cpp(file, model)
    else:
        stored = common.read_file(file, model, revision)
        plain = engine == "auto" and not any_model
        plain = plain and device is None and dtype == "auto" and revision is None
        decoded = _light(stored, model) if plain else None
        if decoded is None:
            from prototokens.decoding import decode_text
            from prototokens.ptok.encoded import EncodedText

            encoded = EncodedText.from_stored(stored, file)
            lm = common.load_model_of(encoded, file, model, revision, device, dtype, any_model)
            decoded = decode_text(lm, encoded, any_model)
    from prototokens._util.files import write_atomically

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


def _light(stored: StoredText, model: str | None) -> DecodedText | None:
    """Decode without PyTorch, where that gives the text."""
    from prototokens.ptok.light import decode_light

    return decode_light(stored, model or "builtin")


def _with_llama_cpp(file: Path, model: str | None) -> DecodedText:
    """Decode a file by a GGUF file of its model.

    Raises:
        UsageError: no GGUF file is named.
    """
    if model is None or not model.lower().endswith(".gguf"):
        raise UsageError("--engine llama.cpp needs the model as a GGUF file: --model FILE.gguf")
    if not Path(model).is_file():
        raise ModelError(f"{model} does not exist, or is no file")
    from prototokens.exchange.llama_cpp import decode_text
    from prototokens.ptok.encoded import EncodedText

    return decode_text(EncodedText.load(file), Path(model))
