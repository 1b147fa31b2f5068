"""The file of an interrupted encoding.

The spans that were solved, beside the output, for the next run to take up.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from safetensors import SafetensorError

from prototokens._util import strict_json
from prototokens._util.files import MAX_NAME, write_atomically
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.options import EncodeOptions
from prototokens.ptok.contents import read_safetensors_header
from prototokens.ptok.solutions import pack_solutions, unpack_solutions
from prototokens.ptok.spans import Solved, Span
from prototokens.ptok.tensors import read_tensors


def partial_path(output: Path) -> Path:
    """The path of the file for solved spans until the output is complete."""
    start = os.fsdecode(os.fsencode(output.name)[:MAX_NAME])
    return output.with_name(f"{start}.partial")


def partial_key(lm: FrozenLM, ids: list[int], options: EncodeOptions) -> str:
    """Hash of everything that solved spans depend on.

    Args:
        options: with the layout, the recipe and the start that they stand for.
    """
    parts = [lm.fingerprint, str(lm.dtype), ids, options.key_parts()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save_partial(path: Path, key: str, kept: Solved, like: Path | None = None) -> None:
    """Write the solved spans, atomically.

    Args:
        path: where.
        key: as `partial_key` gives it.
        kept: the spans.
        like: the file of the text: who may not read that may not read this either.

    Raises:
        FileError: the path cannot be written.
    """
    spans = json.dumps([list(span) for span in kept])
    write_atomically(path, pack_solutions([*kept.values()], key=key, spans=spans), like)


def load_partial(path: Path, key: str, layout: Layout, ids: list[int]) -> Solved:
    """The solved spans of an earlier run with the same key.

    None where there was no such run, or its file cannot be read.
    """
    if not path.exists():
        return {}
    try:
        with path.open("rb") as handle:
            contents = read_safetensors_header(handle)
            if contents.metadata.get("key") != key:
                return {}
            tensors = read_tensors(handle, contents)
        spans = [Span(*pair) for pair in strict_json.loads(contents.metadata["spans"])]
        targets = [ids[span.start : span.end] for span in spans]
        solutions = unpack_solutions(tensors, contents.metadata, layout, targets)
        return dict(zip(spans, solutions, strict=True))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError):
        # A torn or foreign file: nothing is lost but time, and the new run writes its own.
        return {}
