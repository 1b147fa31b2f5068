"""The child process of a setting of the instruction set.

It loads the model, decodes the rows of the request and returns their margins. `instruction_sets`
writes the request and starts the process.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prototokens.engine.instruction_sets import ANSWER, MARGINS, REQUEST, ROWS
from prototokens.engine.matrix import Cell, run_cells
from prototokens.errors import ModelError
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Chunk


def answer(name: str) -> None:
    """In the child: load the model, decode the rows in every cell, write the margins.

    Raises:
        ModelError: the model cannot be loaded by its name, or has other weights by now.
    """
    folder = Path(name)
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    torch.set_num_threads(request["threads"])
    model = request["model"]
    lm = FrozenLM.from_pretrained(
        model["name"], revision=model["revision"], dtype=request["dtype"], device="cpu"
    )
    if lm.fingerprint != model["fingerprint"]:
        raise ModelError(f"{model['name']} has other weights than the model that was given")
    rows, cells = _rows(request["rows"], load_file(folder / ROWS)), _cells(request["cells"])
    tried = list(run_cells(lm, rows, cells))
    margins = {
        f"{cell}.{row}": margin.contiguous()
        for cell, one in enumerate(tried)
        for row, margin in enumerate(one.margins or [])
    }
    save_file(margins, folder / MARGINS)
    (folder / ANSWER).write_text(json.dumps([one.reason for one in tried]), encoding="utf-8")


def _rows(given: list[dict[str, Any]], protos: dict[str, Tensor]) -> list[Chunk]:
    found: list[Chunk] = []
    for number, row in enumerate(given):
        vectors = protos[str(number)]

        def arrange(length: int, row: dict[str, Any] = row) -> tuple[list[int], list[int]]:
            return row["index"], row["scored"]

        layout = Layout(
            row["layout"], len(vectors), arrange, row["key_version"], tuple(row["prefix"])
        )
        found.append(Chunk.of(vectors, layout, row["ids"]))
    return found


def _cells(given: list[dict[str, Any]]) -> list[Cell]:
    """The same cells in the process that they were meant for, where no further child is due."""
    return [Cell(**{**one, "setting": ""}) for one in given]
