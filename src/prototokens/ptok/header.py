"""The JSON header of a `.ptok` file: made of solved chunks, and read with suspicion.

A file may come from anybody, damaged or made to hurt: a header is found sound or refused, in words.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prototokens._util import strict_json
from prototokens._util.versions import versions
from prototokens.engine.grid import WIDTHS
from prototokens.errors import FileError, UsageError
from prototokens.keys import VERSION
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.patches import Extras
from prototokens.ptok.source import as_text
from prototokens.recipe import Recipe
from prototokens.solution import Solution

# The newest format that is read. A file is written in the lowest that has all it needs: 2 came with
# patches, stored chunks, edits and few bits; 3 with prefixes.
FORMAT = 3
MOST_TOKENS_A_CHUNK = 1 << 20
MOST_WIDTH = 1 << 20  # numbers of a vector
MOST = 2**63  # of any number: what is larger can be neither counted nor divided
LONGEST_WORD = 4096  # characters: the longest path of a folder
CERTIFIED_NUMBERS = ("threshold", "shift", "least_margin", "noise_radius", "worst_radius")
MAX_RESPONSE = 1024  # numbers
COMMIT = re.compile("[0-9a-f]{6,64}")


def make_header(
    lm: FrozenLM,
    content: bytes,
    solutions: Sequence[Solution],
    *,
    recipe: Recipe,
    extras: Extras,
    certificate: dict[str, Any],
    shared: str | None = None,
    row_steps: int | None = None,
    bits: Sequence[int] | None = None,
    least: float | None = None,
    sizes: dict[str, int] | None = None,
) -> dict[str, Any]:
    """What is recorded of solved chunks; keys as in docs/file-format.md.

    Args:
        content: the bytes of the whole text.
        shared: the name of the vector that all chunks share.
        bits: of the numbers of each distinct vector, where not all are float32.
        row_steps, sizes: as `EncodedText.of` takes them.
        least: least margin of the positions that no patch sets; by default of all that vectors
            hold.
    """
    held = [number not in extras.stored for number in range(len(solutions))]
    kept = [solution for solution, is_held in zip(solutions, held, strict=True) if is_held]
    flags = [solution.exact and is_held for solution, is_held in zip(solutions, held, strict=True)]
    margin = (
        min((solution.margin for solution in kept), default=math.inf) if least is None else least
    )
    tokens = sum(solution.length for solution in solutions)
    repaired = {*extras.patches, *extras.stored}
    layout = solutions[0].layout
    header = {
        "format": _format(layout, bool(extras or bits)),
        "model": _model(lm),
        "tokenizer": lm.tokenizer_hash,
        "layout": layout.name,
        "shared": shared,
        "chunks": [solution.length for solution in solutions],
        "text": {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "characters": len(as_text(content)),
            "tokens": tokens,
        },
        "exact": all(flag or number in repaired for number, flag in enumerate(flags)),
        "chunks_exact": flags,
        "accuracy": sum(solution.correct for solution in kept) / tokens,
        "min_margin": margin if math.isfinite(margin) else None,
        "steps": [solution.steps for solution in solutions],
        "row_steps": sum(solution.row_steps for solution in solutions)
        if row_steps is None
        else row_steps,
        "seeds": [solution.seed for solution in solutions],
        "restarts": [solution.restarts for solution in solutions],
        "recipe": recipe.as_dict(),
        "certificate": certificate,
        "versions": versions(),
    }
    if extras:
        header |= {
            "stored": sorted(extras.stored),
            "patched": extras.patched,
            "edited": sum(edit.drop + len(edit.insert) for edit in extras.edits),
        }
    header |= {"keys": layout.key_version} if layout.key_version else {}
    header |= {"prefix": list(layout.prefix)} if layout.prefix else {}
    header |= {"bits": list(bits)} if bits else {}
    header |= {"sizes": sizes} if sizes else {}
    return header


def _format(layout: Layout, second: bool) -> int:
    if layout.prefix:
        return 3
    return 2 if second else 1


def layout_of(header: dict[str, Any]) -> Layout:
    """The layout that a header names, behind its prefix."""
    return Layout.named(header["layout"]).with_prefix(header.get("prefix", []))


def _model(lm: FrozenLM) -> dict[str, Any]:
    """Which model the vectors are for."""
    return {
        "name": lm.recorded_name,
        "revision": lm.revision,
        "fingerprint": lm.fingerprint,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "d_model": lm.d_model,
        "vocab_size": lm.vocab_size,
        "response": lm.response,
    }


def write_header(header: dict[str, Any]) -> dict[str, str]:
    """The metadata of a safetensors file that hold a header, with the hash of it."""
    text = json.dumps(
        header, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return {"prototokens": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def read_header(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    """The header in the metadata of a safetensors file.

    As it was saved, and all that is read of it later of the right kind.

    Raises:
        FileError: there is none, it is damaged, or of a newer format.
    """
    text = metadata.get("prototokens")
    if text is None:
        raise FileError(
            f"{path} is a safetensors file, but not one of prototokens: it has no header of ours"
        )
    try:
        header = strict_json.loads(text, parse_float=_finite, parse_constant=_finite)
        version = header["format"]
    except strict_json.RepeatedKeyError as error:
        raise FileError(f"{path} is damaged: its header {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(f"{path} is damaged: its header cannot be read") from error
    if type(version) is int and version > FORMAT:
        raise FileError(
            f"{path} has format {str(version)[:20]}, and this version reads up to {FORMAT}: install"
            " a newer prototokens"
        )
    keys = header.get("keys", 0)
    if type(keys) is int and keys > VERSION:
        raise FileError(
            f"{path} has keys of version {str(keys)[:20]}, and this version knows up to {VERSION}:"
            " install a newer prototokens"
        )
    if metadata.get("sha256") != hashlib.sha256(text.encode()).hexdigest():
        raise FileError(f"{path} is damaged: its header is not the one that was saved")
    if not _sound(header):
        raise FileError(
            f"{path} is damaged: its header lacks what decoding needs, or has it of another kind"
        )
    return header


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a finite number")
    return value


def _sound(header: dict[str, Any]) -> bool:
    """Whether everything that is read later is there and of the right kind.

    What is unknown is let pass.
    """
    try:
        model, text, margin = header["model"], header["text"], header["min_margin"]
        lengths = list(header["chunks"])
        counts = [
            *lengths,
            header["format"],
            model["d_model"],
            text["tokens"],
            text["bytes"],
            text["characters"],
        ]
        numbers = [header["accuracy"], header["row_steps"], 0.0 if margin is None else margin]
        words = [
            model["name"],
            model["fingerprint"],
            model["dtype"],
            header["tokenizer"],
            header["layout"],
            text["sha256"],
        ]
        words += [
            header["recipe"]["name"],
            header["versions"]["prototokens"],
            header["versions"]["torch"],
        ]
        revision, exact = model["revision"], header["exact"]
    except (KeyError, TypeError):
        return False
    return (
        all(_is_count(count) and count >= 1 for count in counts)
        and model["d_model"] <= MOST_WIDTH
        and all(_is_number(number) for number in numbers)
        and all(isinstance(word, str) and len(word) <= LONGEST_WORD for word in words)
        # It is asked of the hub where the model is named as here: a commit, and neither a branch
        # nor a path.
        and (
            revision is None
            or (isinstance(revision, str) and COMMIT.fullmatch(revision) is not None)
        )
        and isinstance(exact, bool)
        and bool(lengths)
        and all(length <= MOST_TOKENS_A_CHUNK for length in lengths)
        and sum(lengths) == text["tokens"]
        and _layout_sound(header)
        and _response_sound(model.get("response", []))
        and _certificate_sound(header.get("certificate", {}))
        and _additions_sound(header)
    )


def _response_sound(response: Any) -> bool:
    """Whether a response can be held against another; earlier files have none."""
    return (
        isinstance(response, list)
        and len(response) <= MAX_RESPONSE
        and all(_is_number(number) for number in response)
    )


def _additions_sound(header: dict[str, Any]) -> bool:
    """Whether what came with format 2 is of the right kind: a file of format 1 has none of it."""
    stored, bits, sizes = (
        header.get("stored", []),
        header.get("bits", [32]),
        header.get("sizes", {}),
    )
    counts = [header.get("patched", 0), header.get("edited", 0)]
    return (
        isinstance(stored, list)
        and all(type(number) is int and 0 <= number < len(header["chunks"]) for number in stored)
        and len(set(stored)) == len(stored)
        and isinstance(bits, list)
        and all(type(width) is int and width in WIDTHS for width in bits)
        and isinstance(sizes, dict)
        and all(_is_count(count) for count in [*counts, *sizes.values()])
        and (header["format"] >= 2 or not {"stored", "bits", "patched", "edited"} & header.keys())
    )


def _certificate_sound(certificate: Any) -> bool:
    """Whether a certificate, where there is one, can be shown and judged."""
    try:
        tried = certificate.get("tried", [])
        numbers = [certificate.get(name) for name in CERTIFIED_NUMBERS]
        counts = [one["wrong"] for one in tried]
    except (AttributeError, KeyError, TypeError):
        return False
    return (
        isinstance(tried, list)
        and isinstance(certificate.get("level", "none"), str)
        and all(number is None or _is_number(number) for number in numbers)
        and all(_is_count(count) for count in counts)
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < MOST


def _layout_sound(header: dict[str, Any]) -> bool:
    """Whether the layout is known, its keys are of the version that it has, and its prefix is a list of token ids."""
    try:
        layout = Layout.named(header["layout"])
    except UsageError:
        return False
    keys, prefix = header.get("keys", 0), header.get("prefix", [])
    return (
        type(keys) is int  # `True` and 1.0 equal 1
        and keys == layout.key_version
        and isinstance(prefix, list)
        and len(prefix) <= MOST_TOKENS_A_CHUNK
        and all(type(token) is int and 0 <= token < MOST_WIDTH for token in prefix)
        and (header["format"] >= 3 or "prefix" not in header)
    )
