"""Solutions on disk, one safetensors file a fit: found once, used by every experiment that asks for the same fit."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from prototokens.encoded import write_atomically
from prototokens.lab.job import Fit, Fitted, ModelFacts
from prototokens.lab.models import method_of
from prototokens.solution import Solution

FIELDS = ("correct", "margin", "steps", "row_steps", "restarts", "seed", "failure")


class Kept:
    """The solutions beside a folder's rows."""

    def __init__(self, folder: Path):
        self.folder = folder / "solutions"

    def path(self, key: str) -> Path:
        """The file of a fit."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def save(self, fit: Fit, model: ModelFacts, fitted: Fitted) -> None:
        """Write the solutions of a fit; whole or not at all.

        Raises:
            FileError: the place cannot be written.
        """
        path = self.path(fit.key(model))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, packed(fit, fitted))

    def load(self, fit: Fit, model: ModelFacts) -> Fitted | None:
        """The solutions of a fit; None where they are not there, or cannot be read and so have to be found again."""
        path = self.path(fit.key(model))
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as handle:
                said = json.loads((handle.metadata() or {})["solutions"])
                layout = method_of(fit.layout).layout
                return tuple(
                    Solution(protos=handle.get_tensor(str(number)), layout=layout, ids=ids, **values)
                    for number, (ids, values) in enumerate(zip(fit.targets, said, strict=True))
                )
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return None


def packed(fit: Fit, fitted: Fitted) -> bytes:
    """The file's content."""
    tensors = {str(number): solution.protos.contiguous() for number, solution in enumerate(fitted)}
    said = [{name: getattr(solution, name) for name in FIELDS} for solution in fitted]
    return save(tensors, metadata={"solutions": json.dumps(said), "layout": fit.layout})
