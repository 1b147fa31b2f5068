"""`prototokens models`: which models can be used here, and what one of them holds."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from prototokens.cli import common

# Keys of config.json, by family, for what is shown of a model that is not loaded.
CONFIG_KEYS = {
    "kind": ("model_type",),
    "layers": ("num_hidden_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_head"),
    "d_model": ("hidden_size", "n_embd"),
    "vocabulary": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions"),
}


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
    """The shipped model, from its files' headers alone."""
    folder = Path(str(files("prototokens"))) / "builtin"
    described = _from_config(folder / "config.json")
    return {
        "name": "builtin",
        **{key: described.pop(key) for key in ("kind",) if key in described},
        "parameters": _parameters(folder / "model.safetensors"),
        **described,
        "where": "in the package",
    }


def _parameters(path: Path) -> int | None:
    """Numbers in a safetensors file; None where it is none."""
    from prototokens.ptok.contents import read_safetensors_header

    try:
        with path.open("rb") as handle:
            declared = read_safetensors_header(handle).declared
    except (OSError, ValueError):
        return None
    return sum(math.prod(one.shape) for one in declared.values())


def _from_config(path: Path) -> dict[str, Any]:
    """What a model's config.json says of its shape; nothing where it cannot be read."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config = {**config, **config.get("text_config", {})}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {
        key: config[name]
        for key, names in CONFIG_KEYS.items()
        for name in names
        if isinstance(config.get(name), int | str)
    }


def _cached() -> list[dict[str, Any]]:
    """Models of the Hugging Face cache on this machine; reading it needs no network."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    found = []
    for repository in sorted(repositories, key=lambda repository: repository.repo_id):
        if repository.repo_type != "model":
            continue
        folders = sorted(
            (revision.last_modified, revision.snapshot_path) for revision in repository.revisions
        )
        found.append(
            {
                "name": repository.repo_id,
                **(_from_config(folders[-1][1] / "config.json") if folders else {}),
                "where": "in the Hugging Face cache",
                "bytes": repository.size_on_disk,
            }
        )
    return found


def _describe(name: str, revision: str | None, device: str | None, dtype: str) -> dict[str, Any]:
    """A model as loaded: what a file would record of it, and what it takes."""
    lm = common.load_model(name, revision, device, dtype)
    from prototokens.planning.chunks import DEFAULT_LAYOUT

    config = lm.model.config.get_text_config()
    return {
        "name": lm.name,
        "revision": lm.revision,
        "fingerprint": lm.fingerprint,
        "tokenizer": lm.tokenizer_hash,
        "parameters": sum(parameter.numel() for parameter in lm.model.parameters()),
        "layers": getattr(config, "num_hidden_layers", None),
        "heads": getattr(config, "num_attention_heads", None),
        "d_model": lm.d_model,
        "vocabulary": lm.vocab_size,
        "context": lm.max_context,
        "device": str(lm.device),
        "dtype": str(lm.dtype).removeprefix("torch."),
        "default_layout": DEFAULT_LAYOUT.name,
        "default_vectors": DEFAULT_LAYOUT.vectors,
    }
