"""`prototokens models`: which models can be used here, and what one of them holds."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import click

from prototokens.cli import common


@click.command(short_help="List the models at hand, or describe one.")
@click.argument("name", required=False)
@click.option("--revision", help="Branch, tag or commit of a hub model.")
@click.option("--device", help="cpu, cuda, cuda:1, mps.")
@click.option(
    "--dtype",
    type=click.Choice(common.DTYPES),
    default="auto",
    show_default=True,
    help="What the model computes in.",
)
@common.output_options
def models(
    name: str | None,
    revision: str | None,
    device: str | None,
    dtype: str,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """List the models at hand, or load the model NAME and describe it.

    At hand are the built-in one and what the Hugging Face cache holds; any other causal language
    model is named by folder, GGUF file or hub id.
    """
    found = [_describe(name, revision, device, dtype)] if name else [_builtin(), *_cached()]
    if as_json:
        common.print_json(found[0] if name else {"models": found})
        return 0
    for model in found:
        click.echo(model["name"])
        for key, value in model.items():
            if key != "name" and value is not None:
                click.echo(
                    f"  {key.replace('_', ' ')}: {value:,}"
                    if isinstance(value, int)
                    else f"  {key.replace('_', ' ')}: {value}"
                )
    if not name:
        click.echo("any other: a folder, a GGUF file, or a hub id such as EleutherAI/pythia-160m")
    return 0


def _builtin() -> dict[str, Any]:
    """The shipped model, from its configuration alone."""
    config = json.loads(files("prototokens").joinpath("builtin", "config.json").read_text())
    return {
        "name": "builtin",
        "kind": config["model_type"],
        "d_model": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "vocabulary": config["vocab_size"],
        "context": config["max_position_embeddings"],
        "where": "in the package",
    }


def _cached() -> list[dict[str, Any]]:
    """Models of the Hugging Face cache on this machine; reading it needs no network."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return [
        {
            "name": repository.repo_id,
            "where": "in the Hugging Face cache",
            "bytes": repository.size_on_disk,
        }
        for repository in sorted(repositories, key=lambda repository: repository.repo_id)
        if repository.repo_type == "model"
    ]


def _describe(name: str, revision: str | None, device: str | None, dtype: str) -> dict[str, Any]:
    """A model as loaded: what a file would record of it, and what it takes."""
    lm = common.load_model(name, revision, device, dtype)
    from prototokens.planning.chunks import DEFAULT_LAYOUT

    return {
        "name": lm.name,
        "revision": lm.revision,
        "fingerprint": lm.fingerprint,
        "tokenizer": lm.tokenizer_hash,
        "d_model": lm.d_model,
        "vocabulary": lm.vocab_size,
        "context": lm.max_context,
        "device": str(lm.device),
        "dtype": str(lm.dtype).removeprefix("torch."),
        "default_layout": DEFAULT_LAYOUT.name,
        "default_vectors": DEFAULT_LAYOUT.vectors,
    }
