"""Fitted solutions as a teacher: texts and the vectors that fits found for them, in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from prototokens._util.files import write_atomically
from prototokens.errors import FileError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Solution
from prototokens.training.config import Training

KIND = "prototokens solutions 1"


class Teacher:
    """Texts with fitted vectors, `protos` `[texts, vectors, d_model]`."""

    def __init__(self, texts: list[tuple[int, ...]], protos: Tensor):
        self.texts, self.protos = texts, protos

    def batch(self, training: Training, step: int) -> tuple[list[tuple[int, ...]], Tensor]:
        """A step's texts and vectors, a function of settings and step alone."""
        drawn = np.random.default_rng([training.seed, step, 3]).integers(
            len(self.texts), size=training.rows
        )
        return [self.texts[number] for number in drawn], self.protos[torch.from_numpy(drawn)]


def save_solutions(path: Path, lm: FrozenLM, solutions: Sequence[Solution]) -> None:
    """Write the exact ones of some solutions of one layout."""
    exact = [solution for solution in solutions if solution.exact]
    if not exact:
        raise FileError(f"{path} is not written: none of {len(solutions)} solutions is exact")
    tensors = {
        "protos": torch.stack([solution.protos for solution in exact]),
        "ids": torch.tensor(
            [token for solution in exact for token in solution.ids], dtype=torch.int32
        ),
        "lengths": torch.tensor([solution.length for solution in exact], dtype=torch.int32),
    }
    about = {"kind": KIND, "fingerprint": lm.fingerprint, "layout": exact[0].layout.name}
    write_atomically(path, save(tensors, metadata={"prototokens": json.dumps(about)}))


def load_solutions(path: Path, lm: FrozenLM, layout: str, most: int) -> Teacher:
    """Read them, those longer than `most` tokens left out.

    Raises:
        FileError: missing, damaged, or of another model or layout.
    """
    try:
        with safe_open(path, "pt") as handle:
            about = json.loads((handle.metadata() or {}).get("prototokens", "{}"))
            tensors = {name: handle.get_tensor(name) for name in ("protos", "ids", "lengths")}
    except (OSError, SafetensorError, ValueError) as error:
        raise FileError(f"{path} cannot be read as a file of solutions ({error})") from error
    if about != {"kind": KIND, "fingerprint": lm.fingerprint, "layout": layout}:
        raise FileError(
            f"{path} holds solutions of another model or layout than {lm.name!r} and {layout!r}:"
            " fit them anew"
        )
    pieces = tensors["ids"].split(tensors["lengths"].tolist())
    fitting = [number for number, piece in enumerate(pieces) if len(piece) <= most]
    if not fitting or not bool(tensors["protos"].isfinite().all()):
        raise FileError(
            f"{path} holds no solution of up to {most} tokens, or numbers that are not finite: fit"
            " them anew"
        )
    return Teacher(
        [tuple(pieces[number].tolist()) for number in fitting], tensors["protos"][fitting]
    )
