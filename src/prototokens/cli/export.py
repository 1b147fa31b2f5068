"""`prototokens export`: vectors as files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prototokens._util.words import counted
from prototokens.cli import common
from prototokens.errors import UsageError


@click.command(short_help="Write vectors as a web page, for llama.cpp, or for PEFT.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "target",
    type=click.Choice(["html", "gguf-inputs", "peft", "solution"]),
    required=True,
    help="html: a web page that decodes a .ptok file, and others of its model, without a server;"
    " gguf-inputs: the inputs of every chunk of a .ptok file, for llama.cpp; peft: memory"
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
@click.option(
    "--assets",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --to html: the folder `dist` of the npm package onnxruntime-web, where it is not to"
    " be fetched from the npm registry.",
)
@common.model_options
@common.output_options
def export(
    file: Path,
    target: str,
    output: Path,
    force: bool,
    tokens: int | None,
    assets: Path | None,
    model: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Write vectors in a form that other programs read.

    A web page holds the model, its runtime and the file, and works from a disk or any static host.
    One-step vectors go to an engine that takes float vectors at every position, as llama.cpp does.
    Memory vectors of the autoregressive baseline are what PEFT calls prompt tuning. Docs:
    how-to/elsewhere.md.
    """
    if (target == "solution") != (tokens is not None):
        raise UsageError("--tokens belongs to --to solution: it says how long the text is")
    if assets is not None and target != "html":
        raise UsageError("--assets belongs to --to html: it says where the page's runtime lies")
    loading = (model, revision, device, dtype)
    if target == "html":
        result = _page(file, output, force, assets, quiet, *loading)
    elif target == "gguf-inputs":
        result = _inputs(file, output, force)
    elif target == "peft":
        result = _adapter(file, output, force, *loading)
    else:
        result = _solution(file, output, force, tokens or 1, *loading)
    if as_json:
        common.print_json(result)
    elif not quiet:
        click.echo(f"{output}: {result['summary']}", err=True)
    return 0 if result.get("exact", True) else 1


def _page(
    file: Path, output: Path, force: bool, assets: Path | None, quiet: bool, *loading: Any
) -> dict[str, Any]:
    """A web page, after the text has come out here as it has to come out there."""
    common.check_output(output, force)
    model, revision, device, dtype = loading
    if dtype not in ("auto", "float32") or device not in (None, "cpu"):
        raise UsageError("a web page computes in float32 on a CPU: leave out --dtype and --device")
    common.read_file(file, model, revision)
    from prototokens._util.extras import need
    from prototokens._util.files import write_atomically
    from prototokens.exchange.web import assets as npm
    from prototokens.exchange.web.graph import EXTRA, PURPOSE
    from prototokens.exchange.web.page import read_page_file, web_page

    need("onnx", EXTRA, PURPOSE)
    lm = common.load_model(model, revision, "cpu", "float32")
    content, exact = read_page_file(lm, file)
    runtime = npm.runtime_files(assets, None if quiet else lambda line: click.echo(line, err=True))
    page = web_page(lm, content, file.name, runtime)
    write_atomically(output, page)
    if not exact:
        click.echo(
            f"prototokens: warning: {file} does not decode to its text in float32, and so not in"
            " the page",
            err=True,
        )
    size = f"a page of {len(page) / 1e6:.1f} MB"
    return {"output": str(output), "bytes": len(page), "exact": exact, "summary": size}


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
