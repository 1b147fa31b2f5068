"""What processors with other instruction sets compute, on this one.

PyTorch, oneDNN and MKL choose their kernels by the processor when a process starts, and each reads
an environment variable that makes it choose as on a lesser one. They are read once, so every
setting takes a child process: it (`instruction_set_child`) loads the model, decodes all rows and
returns the margins. Which settings can be tried depends on the processor: what it lacks cannot be
run, and its own is what this process computes with anyway.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prototokens.lm.frozen_lm import FrozenLM

if TYPE_CHECKING:
    from prototokens.engine.matrix import Cell, Row

# The instruction set that each setting allows at most, as a rank in SETS.
SETTINGS = {
    "ATEN_CPU_CAPABILITY=default": 0,
    "ATEN_CPU_CAPABILITY=avx2": 1,
    "ATEN_CPU_CAPABILITY=avx512": 2,
    "ONEDNN_MAX_CPU_ISA=SSE41": 0,
    "ONEDNN_MAX_CPU_ISA=AVX2": 1,
    "ONEDNN_MAX_CPU_ISA=AVX512_CORE": 2,
    "MKL_CBWR=COMPATIBLE": 0,
}
SETS = ("SSE", "AVX2", "AVX-512")
X86 = ("x86_64", "amd64")
REQUEST, ROWS, ANSWER, MARGINS = (
    "request.json",
    "rows.safetensors",
    "answer.json",
    "margins.safetensors",
)
MAX_REASON = 200  # characters of a child's complaint that are passed on


class Decoded(NamedTuple):
    """What the child process of a setting handed back, for each cell.

    Attributes:
        margins: of each row, as `matrix.cell_margins` gives them; None where the cell does not
            exist there.
        reason: why there are none, in words.
    """

    margins: list[Tensor] | None
    reason: str = ""


@torch.no_grad()
def decode_under(
    setting: str, lm: FrozenLM, rows: Sequence[Row], cells: Sequence[Cell]
) -> list[Decoded]:
    """Decode rows in a child process under a setting, once for each cell.

    Whatever goes wrong with the child is the reason why there are no margins; nothing is raised.
    """
    reason = why_not(setting)
    if reason:
        return [Decoded(None, reason)] * len(cells)
    with tempfile.TemporaryDirectory(prefix="prototokens-") as name:
        folder = Path(name)
        try:
            _ask(folder, lm, rows, cells)
            reason = _run(folder, setting)
            return (
                _answer(folder, len(rows))
                if not reason
                else [_unavailable(setting, reason)] * len(cells)
            )
        except (OSError, ValueError, KeyError) as error:
            return [_unavailable(setting, str(error))] * len(cells)


def why_not(setting: str) -> str:
    """Why a setting is not tried here, in words; empty where it is."""
    variable, _, value = setting.partition("=")
    rank = SETTINGS[setting]
    if platform.machine().lower() not in X86:
        return "instruction sets are varied on x86 processors only"
    if rank > _processor():
        return f"this processor has no {SETS[rank]}, so {setting} was not tried"
    if variable == "MKL_CBWR" and not torch.backends.mkl.is_available():
        return f"this PyTorch has no MKL, so {setting} was not tried"
    if os.environ.get(variable, "").lower() == value.lower() or rank == _in_use(variable):
        return f"{setting} is what this process computes with"
    return ""


def _processor() -> int:
    """The rank in `SETS` of the best that the processor has."""
    if torch.cpu._is_avx512_supported():
        return 2
    return int(torch.cpu._is_avx2_supported())


def _in_use(variable: str) -> int | None:
    """The rank in `SETS` of what a library computes with in this process; None if unknown."""
    if variable == "ATEN_CPU_CAPABILITY":
        known = {"DEFAULT": 0, "AVX2": 1, "AVX512": 2}
        return known.get(torch.backends.cpu.get_cpu_capability())
    if variable == "ONEDNN_MAX_CPU_ISA" and variable not in os.environ:
        # With instructions beyond the core of AVX-512, oneDNN takes other kernels than the core's.
        beyond = torch.cpu._is_vnni_supported()
        return None if beyond else _processor()
    return None


def _ask(folder: Path, lm: FrozenLM, rows: Sequence[Row], cells: Sequence[Cell]) -> None:
    """Write what the child is to do: layouts as the lists that they are, so that it knows any."""
    request = {
        "model": {"name": lm.name, "revision": lm.revision, "fingerprint": lm.fingerprint},
        "dtype": str(lm.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "rows": [
            {
                "ids": list(row.ids),
                "layout": row.layout.name,
                "index": row.layout.index(len(row.ids)).tolist(),
                "scored": row.layout.scored(len(row.ids)).tolist(),
                "key_version": row.layout.key_version,
                "prefix": list(row.layout.prefix),
            }
            for row in rows
        ],
        "cells": [asdict(cell) for cell in cells],
    }
    (folder / REQUEST).write_text(json.dumps(request), encoding="utf-8")
    protos = {
        str(number): row.protos.detach().cpu().contiguous().clone()
        for number, row in enumerate(rows)
    }
    save_file(protos, folder / ROWS)


def _run(folder: Path, setting: str) -> str:
    """Run the child; returns why it failed, in words, or nothing."""
    # The child imports from where this process does, whatever stands in the current folder.
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        "from prototokens.engine.instruction_set_child import answer; answer(sys.argv[1])"
    )
    variable, _, value = setting.partition("=")
    # Offline: the parent has loaded the model, so all of it is on this machine.
    surroundings = {
        **os.environ,
        variable: value,
        "HF_HUB_OFFLINE": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(folder)],
        env=surroundings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"the child process ended by {signal.Signals(-done.returncode).name}"
    lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip()[:MAX_REASON] if lines else f"exit status {done.returncode}"


def _answer(folder: Path, rows: int) -> list[Decoded]:
    reasons = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
    found = load_file(folder / MARGINS)
    return [
        Decoded(None, reason)
        if reason
        else Decoded([found[f"{cell}.{row}"] for row in range(rows)])
        for cell, reason in enumerate(reasons)
    ]


def _unavailable(setting: str, reason: str) -> Decoded:
    return Decoded(None, f"unavailable: decoding under {setting} failed ({reason})")
