"""`prototokens explore`: the web page."""

from __future__ import annotations

from pathlib import Path

import click

from prototokens._util.extras import need
from prototokens.cli import common
from prototokens.errors import UsageError


@click.command(short_help="Open a web page to look and try.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen at; any other than loopback warns.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7860,
    show_default=True,
    help="0 takes any that is free.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    help="A model that can be chosen; may be given several times.",
    show_default="builtin",
)
@click.option("--revision", help="Branch, tag or commit of a hub model; with one --model.")
@click.option("--device", help="cpu, cuda, cuda:1, mps; by default a GPU where there is one.")
@click.option(
    "--dtype",
    type=click.Choice(common.DTYPES),
    default="auto",
    show_default=True,
    help="What the models compute in.",
)
@click.option(
    "--results",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder whose rows and reports can be read; may be given several times.",
)
@click.option(
    "--max-characters",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Of a text that is encoded.",
)
@click.option(
    "--max-upload",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="MiB of a file that is sent up.",
)
@common.output_options
def explore(
    host: str,
    port: int,
    models: tuple[str, ...],
    revision: str | None,
    device: str | None,
    dtype: str,
    results: tuple[Path, ...],
    max_characters: int,
    max_upload: int,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Open a web page: encode, decode, walk between solutions, look inside the model, read results.

    It is served until Ctrl-C, to this machine alone, and fetches nothing from elsewhere. Needs the
    extra `explorer`.
    """
    need("gradio", "explorer", "the page")
    for folder in results:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder: --results names one with rows in it")
    if revision is not None and len(models) != 1:
        raise UsageError("--revision belongs to one model: name it with --model")
    from prototokens.explorer import page
    from prototokens.explorer.work import Settings

    settings = Settings(
        models=models or ("builtin",),
        revision=revision,
        device=device,
        dtype=dtype,
        results=results,
        max_characters=max_characters,
        max_upload=max_upload << 20,
    )
    bound = page.listen(host, port)
    port = bound.getsockname()[1]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if host not in page.LOOPBACK:
        click.echo(
            f"prototokens: warning: {host} can be reached from other machines, and the page asks"
            " for no password",
            err=True,
        )
    if as_json:
        common.print_json(
            {
                "address": address,
                "models": list(settings.models),
                "results": [str(folder) for folder in results],
            }
        )
    if not quiet:
        click.echo(f"the page is at {address}; Ctrl-C ends it", err=True)
    page.serve(settings, host, bound)
    return 0
