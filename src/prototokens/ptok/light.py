"""Decode a file without PyTorch, where a small Llama checkpoint on this machine made it.

The text's own hash says whether what comes out is right; if it is not, or if anything is not as it
is known here, the caller decodes with PyTorch.
"""

from __future__ import annotations

import hashlib
import time
from itertools import islice
from pathlib import Path

import numpy as np

from prototokens.keys import sign_array
from prototokens.lm.local import find_local
from prototokens.lm.numpy_llama import NumpyLlama, tokenizer_hash
from prototokens.ptok.decoded import DecodedText, as_bytes
from prototokens.ptok.patches import apply_edits, apply_patches
from prototokens.ptok.stored import StoredText

# Positions times parameters, about a second of one core: above that, the time that PyTorch takes to
# start does not matter.
MAX_WORK = 2e10
MAX_POSITIONS = 4096  # of one pass


def decode_light(stored: StoredText, model: str) -> DecodedText | None:
    """Decode a file's content, or None where it takes PyTorch to do so.

    Args:
        model: "builtin", a folder, a GGUF file, or the id of a model on the hub.

    Returns:
        A text whose SHA-256 is that in the file, or None.
    """
    began = time.perf_counter()
    source = find_local(model, None)
    if source is None or source.gguf:
        return None
    folder = Path(source.location)
    lm = NumpyLlama.read(folder)
    if lm is None or lm.fingerprint != stored.header.model.fingerprint:
        return None
    layout, lengths = stored.header.arrangement, stored.header.chunks
    positions = sum(layout.positions(length) + len(layout.prefix) for length in lengths)
    if positions * lm.parameters > MAX_WORK or max(layout.prefix, default=0) >= lm.vocab_size:
        return None
    detokenize = _tokenizer(folder, stored.header.tokenizer)
    if detokenize is None or stored.vectors.shape[1] != lm.width:
        return None
    decoded, passes = _decode_ids(lm, stored)
    flat = [token for chunk in apply_patches(decoded, stored.extras) for token in chunk]
    if max(flat, default=0) >= lm.vocab_size:
        return None
    try:
        content = apply_edits(as_bytes(detokenize(flat)), stored.extras.edits)
    except ValueError:
        return None
    if hashlib.sha256(content).hexdigest() != stored.header.text.sha256:
        return None
    return DecodedText(content, len(flat), passes, time.perf_counter() - began, True)


def _tokenizer(folder: Path, expected: str):
    """From ids to text, or None where the tokenizer is not the one of the file."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # tokenizers raises no narrower class
        return None
    if tokenizer_hash(tokenizer.to_str()) != expected:
        return None
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=False)


def _decode_ids(lm: NumpyLlama, stored: StoredText) -> tuple[list[list[int]], int]:
    """The ids of all chunks that are in vectors, as many in one pass as may be; and the passes."""
    layout, prefix, lengths = (
        stored.header.arrangement,
        stored.header.prefix,
        stored.header.chunks,
    )
    numbers = [number for number in range(len(lengths)) if number not in stored.extras.stored]
    longest = max((layout.positions(lengths[number]) for number in numbers), default=1)
    keys = sign_array(longest, lm.width) if layout.key_version else np.ones((longest, 1))
    at_a_time = max(1, MAX_POSITIONS // (len(prefix) + longest))
    decoded: list[list[int]] = []
    parts = [numbers[first : first + at_a_time] for first in range(0, len(numbers), at_a_time)]
    for part in parts:
        inputs = np.zeros((len(part), len(prefix) + longest, lm.width), np.float32)
        inputs[:, : len(prefix)] = lm.embed(prefix)
        rows, positions = [], []
        for row, number in enumerate(part):
            index, scored = layout.arrange(lengths[number])
            own = stored.vectors[stored.slots[number][index]] * keys[: len(index)]
            inputs[row, len(prefix) : len(prefix) + len(index)] = own
            rows += [row] * len(scored)
            positions += [len(prefix) + at for at in scored]
        ids = iter(lm.argmax(inputs, rows, positions).tolist())
        decoded += [list(islice(ids, lengths[number])) for number in part]
    return decoded, len(parts)
