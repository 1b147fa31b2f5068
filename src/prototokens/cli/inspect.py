"""`prototokens inspect`: what is in a .ptok file, without loading a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototokens._util.words import counted
from prototokens.cli import common

if TYPE_CHECKING:
    from prototokens.ptok.header import Header
    from prototokens.ptok.records import CertificateRecord

# Of a file that has no such things, and of earlier versions.
ABSENT = {
    "stored": [],
    "patched": 0,
    "edited": 0,
    "bits": None,
    "sizes": {},
    "certificate": {},
    "keys": 0,
    "prefix": [],
}


@click.command(short_help="Show what is inside a file.")
@click.argument("file", type=click.Path(path_type=Path))
@common.output_options
def inspect(file: Path, as_json: bool, quiet: bool, debug: bool) -> int:
    """Show what is inside a file: model, layout, chunks, sizes, how it was made.

    No model is loaded.
    """
    from prototokens.ptok.stored import read_stored

    stored = read_stored(file)
    header, tokens = stored.header, stored.header.text.tokens
    characters = header.text.characters
    size = file.stat().st_size
    figures = {
        "vectors": stored.vectors.shape[0],
        "floats": stored.vectors.size,
        "floats_per_token": stored.vectors.size / tokens,
        "bits_per_token": stored.bits / tokens,
        "patch_bytes": stored.patch_bytes,
        "bits_per_character": (stored.bits + 8 * stored.patch_bytes) / characters,
        "beside_bits_per_character": {
            name: 8 * count / characters for name, count in header.sizes.items()
        },
        "file_bytes": size,
        "file_bits_per_character": 8 * size / characters,
    }
    if as_json:
        common.print_json({**ABSENT, **header.as_json(), **figures})
    else:
        _show(file, header, figures)
    return 0


def _show(file: Path, header: Header, figures: dict[str, Any]) -> None:
    model, text, lengths = header.model, header.text, header.chunks
    made_with = header.versions
    margin = "" if header.min_margin is None else f", least margin {header.min_margin:.3f}"
    revision = f" @ {model.revision}" if model.revision else ""
    lines = {
        "file": f"{file}, {figures['file_bytes']:,} bytes, format {header.format}",
        "model": f"{model.name}{revision}, fingerprint {model.fingerprint[:16]},"
        f" {model.dtype},"
        f" d_model {model.d_model}",
        "text": f"{counted(text.characters, 'character')}, {counted(text.bytes, 'byte')},"
        f" {counted(text.tokens, 'token')}",
        "sha-256": text.sha256,
        "chunks": f"{len(lengths):,} of {_span(lengths)}, layout {header.layout}"
        + (f" behind {counted(len(header.prefix), 'token')} of prefix" if header.prefix else ""),
        "vectors": f"{figures['vectors']}, {figures['floats']:,} numbers:"
        f" {figures['floats_per_token']:.2f} numbers and"
        f" {figures['bits_per_token']:.0f} bits a token",
        "size": f"{figures['bits_per_character']:.1f} bits a character in vectors and patches,"
        f" {figures['file_bits_per_character']:.1f} in the file",
        "beside": _beside(figures["beside_bits_per_character"]),
        "helped": _helped(header, figures),
        "exact": f"{'yes' if header.exact else 'no'}, accuracy {header.accuracy:.4f}{margin}",
        "certified": _certificate(header.certificate),
        "made": f"recipe {header.recipe['name']}, {header.row_steps:,} row-steps,"
        f" by prototokens {made_with['prototokens']}, torch {made_with['torch']}",
    }
    for name, value in lines.items():
        # A header is anybody's word: nothing in it may steer the terminal.
        click.echo(
            f"{name:>9}  " + "".join(letter if letter.isprintable() else "?" for letter in value)
        )


def _span(lengths: Sequence[int]) -> str:
    """The shortest and the longest length, in words."""
    shortest, longest = min(lengths), max(lengths)
    return (
        counted(longest, "token") if shortest == longest else f"{shortest:,} to {longest:,} tokens"
    )


def _beside(sizes: dict[str, float]) -> str:
    """What other ways of storing the text take: these vectors are no compressor."""
    names = {
        "plain": "plain",
        "zstd": "zstd -19",
        "xz": "xz -9",
        "arithmetic": "arithmetic coding with this model",
    }
    return (
        ", ".join(f"{size:.2f} {names.get(name, name)}" for name, size in sizes.items())
        or "not measured by who made it"
    )


def _helped(header: Header, figures: dict[str, Any]) -> str:
    """What came out of patches, not of vectors."""
    stored = header.stored
    parts = [f"{counted(header.patched, 'token')} patched"] * bool(header.patched)
    parts += [
        f"{counted(len(stored), 'chunk')} stored as {'its' if len(stored) == 1 else 'their'}"
        f" {counted(sum(header.chunks[one] for one in stored), 'token')}"
    ] * bool(stored)
    parts += [f"{counted(header.edited, 'byte')} edited"] * bool(header.edited)
    return (
        f"{', '.join(parts)}: {figures['patch_bytes']:,} bytes"
        if parts
        else "by nothing: all of it comes out of the vectors"
    )


def _certificate(certificate: CertificateRecord | None) -> str:
    """What was tried, in a line."""
    if certificate is None or not certificate.tried:
        return "no"
    radius, shift = certificate.noise_radius, certificate.shift
    parts = [
        f"{counted(len(certificate.tried), 'way')} of decoding tried,"
        f" {certificate.wrong or 'none'} of them wrong"
    ]
    if shift is not None:
        parts.append(f"margins moved by up to {shift:.3f} where that was measured")
    if radius is not None:
        parts.append(f"noise of {radius:.1%} of the vectors' size withstood")
    return f"{certificate.level}: {', '.join(parts)}"
