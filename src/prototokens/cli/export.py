"""`prototokens export`: vectors as files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prototokens._util.words import counted
from prototokens.cli import common
from prototokens.errors import UsageError


@click.command(short_help="Write vectors for llama.cpp or PEFT.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "target",
    type=click.Choice(["gguf-inputs", "peft", "solution"]),
    required=True,
    help="gguf-inputs: the inputs of every chunk of a .ptok file, for llama.cpp; peft: memory"
    " vectors (a file of Solution.save) as a prompt-tuning adapter; solution: such an adapter's"
    " folder as a file of Solution.load.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The file to write; for peft a folder.",
)
@click.option("--force", is_flag=True, help="Write over an output that exists.")
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    help="With --to solution: how many tokens the adapter generates.",
)
@common.model_options
@common.output_options
def export(
    file: Path,
    target: str,
    output: Path,
    force: bool,
    tokens: int | None,
    model: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Write vectors in a form that other programs read.

    One-step vectors go to an engine that takes float vectors at every position, as llama.cpp does.
    Memory vectors of the autoregressive baseline are what PEFT calls prompt tuning. Docs:
    how-to/elsewhere.md.
    """
    if (target == "solution") != (tokens is not None):
        raise UsageError("--tokens belongs to --to solution: it says how long the text is")
    loading = (model, revision, device, dtype)
    if target == "gguf-inputs":
        result = _inputs(file, output, force)
    elif target == "peft":
        result = _adapter(file, output, force, *loading)
    else:
        result = _solution(file, output, force, tokens or 1, *loading)
    if as_json:
        common.print_json(result)
    elif not quiet:
        click.echo(f"{output}: {result['summary']}", err=True)
    return 0


def _inputs(file: Path, output: Path, force: bool) -> dict[str, Any]:
    common.check_output(output, force)
    from prototokens.exchange.inputs import write_inputs
    from prototokens.ptok.encoded import EncodedText

    chunks = write_inputs(EncodedText.load(file), output)
    return {"output": str(output), "chunks": chunks, "summary": counted(chunks, "chunk")}


def _adapter(file: Path, output: Path, force: bool, *loading: Any) -> dict[str, Any]:
    """A folder with an adapter."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if output.is_dir():
            common.check_output(output / name, force)
    common.check_model_name(*loading[:2])
    from prototokens.exchange.adapter import write_adapter
    from prototokens.solution import Solution

    solution = Solution.load(file)
    files = write_adapter(common.load_model(*loading), solution, output)
    vectors = len(solution.protos) + len(solution.layout.prefix)
    return {
        "output": str(output),
        "files": [str(one) for one in files],
        "vectors": vectors,
        "summary": f"an adapter of {counted(vectors, 'vector')}",
    }


def _solution(file: Path, output: Path, force: bool, tokens: int, *loading: Any) -> dict[str, Any]:
    common.check_output(output, force)
    common.check_model_name(*loading[:2])
    from prototokens.exchange.adapter import read_adapter

    lm = common.load_model(*loading)
    solution = read_adapter(lm, file, tokens)
    solution.save(output)
    text = lm.detokenize(solution.ids)
    return {
        "output": str(output),
        "vectors": len(solution.protos),
        "text": text,
        "summary": f"{counted(len(solution.protos), 'vector')}, which generate {text[:60]!r}",
    }
