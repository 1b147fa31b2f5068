"""`prototokens trace`: at which depth a text appears, and what the model attends to.

Both as numbers and as a picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototokens.cli import common
from prototokens.errors import UsageError

if TYPE_CHECKING:
    from prototokens.lm.frozen_lm import FrozenLM
    from prototokens.measure.inside import Inside

SUFFIXES = (".png", ".svg", ".pdf")


@click.command(short_help="Look inside while a chunk is decoded.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Draw a picture there: .png, .svg or .pdf.",
)
@click.option("--force", is_flag=True, help="Write over an output that exists.")
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Which chunk of the file.",
)
@common.model_options
@common.output_options
def trace(
    file: Path,
    output: Path | None,
    force: bool,
    chunk: int,
    model: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Look inside while a chunk is decoded: attention, the logit lens, and e knocked out.

    For each depth of the model it prints how many tokens are right already, how much attention goes
    to e, and how many tokens stay right where e is hidden from the deeper blocks. With -o all of it
    is drawn, token by token.
    """
    if output is not None:
        if output.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{output} is of no known kind: name the picture .png, .svg or .pdf")
        common.check_output(output, force)
    stored = common.read_file(file, model, revision)
    from prototokens._util.files import write_atomically
    from prototokens.measure.inside import look
    from prototokens.ptok.encoded import EncodedText

    encoded = EncodedText.from_stored(stored, file)
    traced = encoded.chunk(chunk)
    lm = common.load_model_of(encoded, file, model, revision, device, dtype)
    inside = look(lm, traced)
    if output is not None:
        write_atomically(output, _draw(lm, inside, output.suffix.lower()))
    result = _figures(
        inside, [lm.detokenize([token]) for token in inside.ids.tolist()], chunk, output
    )
    if as_json:
        common.print_json(result)
    else:
        _show(result)
        if output is not None and not quiet:
            click.echo(f"{output} is drawn", err=True)
    return 0


def _draw(lm: FrozenLM, inside: Inside, suffix: str) -> bytes:
    from io import BytesIO

    from prototokens.explorer.pictures import trace as draw

    buffer = BytesIO()
    draw(inside, lambda token: lm.detokenize([token])).savefig(buffer, format=suffix[1:])
    return buffer.getvalue()


def _figures(inside: Inside, tokens: list[str], chunk: int, output: Path | None) -> dict[str, Any]:
    from prototokens.measure.inside import appears

    looking = inside.attention[:, :, 1:] if inside.attention.shape[2] > 1 else inside.attention
    kept = (inside.knockout.margin > 0).float().mean(1)
    return {
        "chunk": chunk,
        "tokens": tokens,
        "lens_right": [
            round(share, 4) for share in (inside.lens.rank == 0).float().mean(1).tolist()
        ],
        "lens_nats": [round(nats, 4) for nats in inside.lens.nats.mean(1).tolist()],
        "appears": appears(inside.lens).tolist(),
        "attention": [
            [[round(share, 4) for share in head] for head in layer]
            for layer in looking.mean(2).tolist()
        ],
        "knockout_kept": [round(share, 4) for share in kept.tolist()],
        "output": None if output is None else str(output),
    }


def _show(result: dict[str, Any]) -> None:
    count = len(result["tokens"])
    click.echo(f"chunk {result['chunk']}, {count} tokens; depth k is what the k-th block gives")
    click.echo(
        f"{'depth':>5}  {'right already':>13}  {'nats':>6}  {'attention to e':>14} "
        f" {'kept, e hidden after it':>23}"
    )
    for depth, (right, nats) in enumerate(
        zip(result["lens_right"], result["lens_nats"], strict=True)
    ):
        heads = [head[0] for head in result["attention"][depth - 1]] if depth else []
        to_e = f"{sum(heads) / len(heads):.1%}" if heads else ""
        click.echo(
            f"{depth:>5}  {right:>13.1%}  {nats:>6.2f}  {to_e:>14} "
            f" {result['knockout_kept'][depth]:>23.1%}"
        )
